//! The server's engine: many peers, no socket, no clock.

mod associations;
mod handshakes;
mod send_error;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rejoinder::gate::{Gate, ResponseSize};
use rejoinder::transport::{Datagram, Delivery, Egress, Meta, Outbox, Outgoing};
use rejoinder::{Identity, Timestamp};

use self::associations::Established;
use self::handshakes::Handshake;
pub use self::send_error::SendError;
use crate::association::{Credentials, Emitted, Policy};
use crate::clock::Clock;
use crate::cookie::Cookies;
use crate::driver::Machine;
use crate::hello::{COOKIE_BYTES, ClientHello, NoHello, longest_message, sample};
use crate::provider::hmac_sha256;
use crate::record::{ALERT, APPLICATION_DATA, HANDSHAKE, MAX_RECORDS, Record};
use crate::settings::{Configs, MAX_REPLIES, PSK_SUITES, SCRATCH_BYTES, Settings};
use crate::stats::{DtlsDrop, DtlsStats};
use crate::table::Table;

/// A DTLS server without its surroundings: no socket, no clock, no thread.
///
/// [`Dtls`](crate::Dtls) drives one over a transport. A driver of your own does what it does:
///
/// 1. For each datagram that arrives: [`receive`](Self::receive). It queues replies, and delivers
///    payloads.
/// 2. For each payload that is to leave: [`send`](Self::send).
/// 3. At [`next_timer`](Self::next_timer), or later: [`on_timer`](Self::on_timer).
/// 4. Whenever the outbox has not [room](Outbox::has_room_for) for [`MAX_REPLIES`](Self::MAX_REPLIES)
///    datagrams, and before it waits: send the outbox and clear it.
///
/// ```
/// use rejoinder::Timestamp;
/// use rejoinder::transport::{Datagram, Meta};
/// use rejoinder_dtls::Dtls;
///
/// let mut engine = Dtls::builder().psk(|_: &[u8]| Some(vec![7; 16])).engine()?;
/// let mut outbox = engine.outbox();
/// let datagram = Datagram::new(b"not DTLS", Meta::new("192.0.2.1:7000".parse()?));
/// engine.receive(Timestamp::system(), &datagram, &mut outbox, &mut |delivered| {
///     println!("{:?} from {}", delivered.bytes, delivered.meta.peer);
/// });
/// assert!(outbox.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is remembered of a peer
///
/// A hello without a cookie leaves no trace: the reply asks for one, and is shorter than the hello. A
/// hello with a valid cookie proves that its peer receives what is sent to its address (RFC 6347
/// §4.2.1), and begins a handshake. Only a finished handshake makes an association, and only then the
/// peer's former one is given up (RFC 6347 §4.2.8). Both tables have a fixed capacity, and so has each
/// entry: see [`max_associations`](crate::DtlsBuilder::max_associations).
///
/// # Where a response goes
///
/// Each association has a [number](Meta::association), which its payloads carry, and with them the
/// responses. A response never leaves by another association than the one that its request came by, also if
/// the handler took its time and another peer has the address now: see [`send`](Self::send).
pub struct Engine<G = ()> {
    psk: Option<Configs>,
    certificate: Option<(Configs, Credentials)>,
    policy: Policy,
    settings: Settings,
    idle_timeout: Duration,
    /// Sorted.
    blocked_ports: Box<[u16]>,
    own_addr: Option<SocketAddr>,
    gate: G,
    cookies: Cookies,
    clock: Option<Clock>,
    handshakes: Table<Handshake>,
    associations: Table<Established>,
    /// That of the association whose handshake began last.
    last_number: u32,
    /// No handshake wants to be called before.
    due: Duration,
    seed: Option<u64>,
    stats: DtlsStats,
    scratch: Vec<u8>,
}

/// A payload that was received and authenticated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Where its datagram came from and went to, and by which [association](Meta::association).
    pub meta: Meta,
    /// Who sent it: see [`Engine::identity`].
    pub identity: Option<&'a Identity>,
}

/// What an engine is made of.
pub(crate) struct Parts<G> {
    pub(crate) psk: Option<Configs>,
    pub(crate) certificate: Option<(Configs, Credentials)>,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    pub(crate) idle_timeout: Duration,
    pub(crate) blocked_ports: Vec<u16>,
    pub(crate) gate: G,
    pub(crate) secret: [u8; 32],
    pub(crate) max_handshakes: usize,
    pub(crate) max_associations: usize,
    pub(crate) seed: Option<u64>,
}

impl<G: Gate> Engine<G> {
    /// How many datagrams one call of [`receive`](Self::receive) queues at most.
    pub const MAX_REPLIES: usize = MAX_REPLIES;

    /// `None` if the implementation does not take the engine's cookies.
    pub(crate) fn new(parts: Parts<G>) -> Option<Self> {
        let mut blocked_ports = parts.blocked_ports;
        blocked_ports.sort_unstable();
        blocked_ports.dedup();
        // Workers and nodes that share a memory of requests begin at different numbers.
        let [n0, n1, n2, n3, ..] = hmac_sha256(&parts.secret, b"first association");
        let mut engine = Self {
            psk: parts.psk,
            certificate: parts.certificate,
            policy: parts.policy,
            settings: parts.settings,
            idle_timeout: parts.idle_timeout,
            blocked_ports: blocked_ports.into(),
            own_addr: None,
            gate: parts.gate,
            cookies: Cookies::new(parts.secret),
            clock: None,
            handshakes: Table::new(parts.max_handshakes),
            associations: Table::new(parts.max_associations),
            last_number: u32::from_be_bytes([n0, n1, n2, n3]),
            due: Duration::MAX,
            seed: parts.seed,
            stats: DtlsStats::default(),
            scratch: vec![0; SCRATCH_BYTES],
        };
        let hello = sample([1; 32], &[2; COOKIE_BYTES], &PSK_SUITES);
        let (record, _) = Record::parse(&hello)?;
        let hello = ClientHello::parse(&record).ok()?;
        let now = Timestamp::new(Duration::ZERO, std::time::SystemTime::UNIX_EPOCH);
        let clock = Clock::new(Duration::ZERO);
        engine.begin(now, clock, &hello, [2; COOKIE_BYTES])?;
        Some(engine)
    }

    /// Takes the address that datagrams arrive at, so that those which claim to come from it are
    /// dropped.
    pub fn set_own_addr(&mut self, addr: SocketAddr) {
        self.own_addr = Some(addr);
    }

    /// An outbox that is large enough for what this engine sends.
    ///
    /// ```
    /// use rejoinder_dtls::{Dtls, Engine};
    ///
    /// let engine = Dtls::builder().psk(|_: &[u8]| None).engine()?;
    /// assert!(engine.outbox().has_room_for(Engine::<()>::MAX_REPLIES));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn outbox(&self) -> Outbox {
        self.settings.outbox(OUTBOX_DATAGRAMS)
    }

    /// The longest payload that can be sent: see
    /// [`max_payload_bytes`](crate::DtlsBuilder::max_payload_bytes).
    pub fn max_payload_bytes(&self) -> usize {
        self.settings.max_payload_bytes
    }

    /// What was counted so far.
    pub fn stats(&self) -> &DtlsStats {
        &self.stats
    }

    /// Who a peer is, if there is an association with it: the identity of its pre-shared key, or
    /// `sha256:` and the fingerprint of its certificate. `None` too if certificates are not asked for.
    ///
    /// It is that of the association which the address has now. Who sent a payload is in
    /// [`Delivered::identity`], and in [`Context::identity`](rejoinder::Context::identity) for a handler.
    ///
    /// ```
    /// use rejoinder_dtls::Dtls;
    ///
    /// let engine = Dtls::builder().psk(|_: &[u8]| None).engine()?;
    /// assert_eq!(engine.identity("192.0.2.1:7000".parse()?), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn identity(&self, peer: SocketAddr) -> Option<&Identity> {
        self.associations.peek(peer)?.association.identity()
    }

    /// Takes a datagram, queues what it is answered with, and delivers what was in it.
    pub fn receive(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) {
        self.stats.received += 1;
        match self.take(now, datagram, outbox, deliver) {
            Ok(Fate::Handshake) => self.stats.handshake += 1,
            Ok(Fate::Application) => self.stats.application += 1,
            Ok(Fate::Control) => self.stats.control += 1,
            Err(reason) => self.stats.dropped[reason as usize] += 1,
        }
        self.gauge();
    }

    fn take(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) -> Result<Fate, DtlsDrop> {
        let meta = &datagram.meta;
        if meta.truncated {
            return Err(DtlsDrop::Truncated);
        }
        if meta.delivery != Delivery::Unicast {
            return Err(DtlsDrop::Group);
        }
        self.check_source(meta.peer)?;
        let (record, _) = Record::parse(datagram.bytes).ok_or(DtlsDrop::Malformed)?;
        let peer = meta.peer;
        match ClientHello::parse(&record) {
            Ok(hello) => return self.take_hello(now, datagram, &hello, record.bytes, outbox),
            Err(NoHello::Malformed) => return Err(DtlsDrop::Malformed),
            Err(NoHello::Fragmented) => return Err(DtlsDrop::FragmentedHello),
            Err(NoHello::Other) => {}
        }
        // While a peer shakes hands again, protected data and alerts are those of its association: a
        // handshake has no use for them, and would fail at them.
        let has_association = self.associations.peek(peer).is_some();
        let is_of_handshake = match (record.epoch, record.content_type) {
            (0, _) | (_, HANDSHAKE) => true,
            (_, APPLICATION_DATA | ALERT) => false,
            _ => return Err(DtlsDrop::Malformed),
        };
        if is_of_handshake && let Some(handshake) = self.handshakes.peek_mut(peer) {
            // The implementation queues records, keeps all messages, and gives back no buffer.
            let most = self
                .settings
                .handshake_datagram_bytes
                .max(MAX_HANDSHAKE_BYTES);
            let len = datagram.bytes.len();
            let is_long = |record: Record<'_>| longest_message(&record) > MAX_MESSAGE_BYTES;
            if len > most
                || Record::all(datagram.bytes).nth(MAX_RECORDS).is_some()
                || Record::all(datagram.bytes).any(is_long)
                || !handshake.has_room_for(len)
            {
                return Err(DtlsDrop::Malformed);
            }
            return Ok(self.step_handshake(now, datagram, datagram.bytes, outbox, deliver));
        }
        if !has_association {
            return Err(DtlsDrop::NoAssociation);
        }
        self.step_association(now, datagram, outbox, deliver)
    }

    fn check_source(&self, peer: SocketAddr) -> Result<(), DtlsDrop> {
        let ip = peer.ip();
        let is_single = !ip.is_unspecified()
            && !ip.is_multicast()
            && !matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
        let is_blocked = self.blocked_ports.binary_search(&peer.port()).is_ok();
        if peer.port() == 0 || !is_single || is_blocked || self.own_addr == Some(peer) {
            return Err(DtlsDrop::Source);
        }
        Ok(())
    }

    /// When [`on_timer`](Self::on_timer) wants to be called next; `None` if nothing is to be waited
    /// for.
    pub fn next_timer(&self) -> Option<Duration> {
        let (_, handshake) = self.handshakes.oldest().unzip();
        let expires = |one: &Handshake| one.begun.saturating_add(self.settings.handshake_timeout);
        let (_, association) = self.associations.oldest().unzip();
        let idle = |one: &Established| one.used.saturating_add(self.idle_timeout);
        [
            handshake.map(|one| expires(one).min(self.due)),
            association.map(idle),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Repeats what was not answered in its time, and forgets what is too old. With a full outbox it
    /// stops early; then [`next_timer`](Self::next_timer) is over still.
    pub fn on_timer(&mut self, now: Timestamp, outbox: &mut Outbox) {
        let timeout = self.settings.handshake_timeout;
        while let Some((peer, handshake)) = self.handshakes.oldest()
            && handshake.begun.saturating_add(timeout) <= now.monotonic
        {
            self.handshakes.remove(peer);
            self.stats.expired += 1;
        }
        if self.due <= now.monotonic {
            self.repeat(now, outbox);
        }
        while let Some((peer, association)) = self.associations.oldest()
            && association.used.saturating_add(self.idle_timeout) <= now.monotonic
            && outbox.has_room_for(Self::MAX_REPLIES)
        {
            self.end(now, peer, outbox);
            self.stats.idle += 1;
        }
        self.gauge();
    }

    /// Takes back the replies to a datagram, from the one with this number on, if the gate forbids them.
    fn take_back_forbidden(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        queued: usize,
    ) {
        if !is_allowed(&mut self.gate, now, datagram, outbox, queued) {
            self.stats.lost_replies += (outbox.len() - queued) as u64;
            outbox.truncate(queued);
        }
    }

    fn gauge(&mut self) {
        self.stats.half_open = self.handshakes.len() as u64;
        self.stats.associations = self.associations.len() as u64;
    }
}

impl<G: Gate> Engine<G> {
    /// Queues a payload of a transport's outbox, protected.
    pub(crate) fn protect(
        &mut self,
        now: Timestamp,
        datagram: &Outgoing<'_>,
        records: &mut Outbox,
    ) -> io::Result<()> {
        let (peer, egress) = (datagram.peer, datagram.egress);
        let sent = self.send(now, peer, egress, datagram.bytes, records);
        sent.map_err(io::Error::from)
    }
}

impl<G: Gate> Machine for Engine<G> {
    const BATCHES: bool = true;

    fn outbox(&self) -> Outbox {
        self.outbox()
    }

    fn receive(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) {
        self.receive(now, datagram, outbox, deliver);
    }

    fn next_timer(&self) -> Option<Duration> {
        self.next_timer()
    }

    fn on_timer(&mut self, now: Timestamp, outbox: &mut Outbox) {
        self.on_timer(now, outbox);
    }
}

impl<G> fmt::Debug for Engine<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("handshakes", &self.handshakes.len())
            .field("associations", &self.associations.len())
            .finish_non_exhaustive()
    }
}

/// What became of a datagram that was not dropped.
enum Fate {
    Handshake,
    Application,
    Control,
}

/// Queues a datagram of the engine's own.
fn reply(
    stats: &mut DtlsStats,
    outbox: &mut Outbox,
    peer: SocketAddr,
    egress: Egress,
    packet: &[u8],
) {
    if outbox.push(peer, egress, packet).is_err() {
        stats.lost_replies += 1;
    }
}

/// Whether the gate lets go what was queued in answer to a datagram.
/// Queues the packets of a step.
fn replies<'a>(
    stats: &'a mut DtlsStats,
    outbox: &'a mut Outbox,
    peer: SocketAddr,
    egress: Egress,
) -> impl FnMut(Emitted<'_>) + 'a {
    move |emitted| {
        if let Emitted::Packet(packet) = emitted {
            reply(stats, outbox, peer, egress, packet);
        }
    }
}

/// Queues the packets that a datagram causes, and delivers its payloads as those of an association with a
/// number.
fn replies_and_payloads<'a>(
    stats: &'a mut DtlsStats,
    outbox: &'a mut Outbox,
    mut meta: Meta,
    number: u32,
    deliver: &'a mut dyn FnMut(Delivered<'_>),
) -> impl FnMut(Emitted<'_>) + 'a {
    let egress = meta.egress();
    meta.association = number;
    move |emitted| match emitted {
        Emitted::Packet(packet) => reply(stats, outbox, meta.peer, egress, packet),
        Emitted::Payload(bytes, identity) => {
            stats.payloads += 1;
            deliver(Delivered {
                bytes,
                meta,
                identity,
            });
        }
    }
}

fn is_allowed<G: Gate>(
    gate: &mut G,
    now: Timestamp,
    datagram: &Datagram<'_>,
    outbox: &Outbox,
    queued: usize,
) -> bool {
    let replies = outbox.iter().skip(queued);
    let count = replies.len();
    let size = ResponseSize::new(count, replies.map(|one| one.bytes.len()).sum());
    count == 0 || gate.allow_responses(now, datagram, size).is_ok()
}

/// The seed of the next association: `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) fn next_seed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The longest datagram of a handshake, unless our own may be longer: a peer splits its flight by its path.
const MAX_HANDSHAKE_BYTES: usize = 2_048;
/// The longest message of a handshake: a chain of certificates has 2 to 4 KiB.
const MAX_MESSAGE_BYTES: usize = 8_192;
/// As many as a server answers at once.
const OUTBOX_DATAGRAMS: usize = 1_100;
