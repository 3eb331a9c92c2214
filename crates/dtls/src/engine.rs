//! The server's engine: many peers, no socket, no clock.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rejoinder::gate::{Gate, ResponseSize};
use rejoinder::transport::{Datagram, Delivery, Egress, Meta, Outbox};
use rejoinder::{Identity, Timestamp};

use crate::association::{Association, Clock, Credentials, Emitted, Input, Policy, Progress};
use crate::cookie::Cookies;
use crate::hello::{COOKIE_BYTES, ClientHello, NoHello, sample};
use crate::record::{ALERT, APPLICATION_DATA, DTLS_1_2, HANDSHAKE, Record, plain};
use crate::settings::{CERTIFICATE_SUITES, Configs, MAX_QUEUED, PSK_SUITES, Settings};
use crate::stats::{DtlsDrop, DtlsStats, HandshakeFailure};
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
/// peer's former one is given up (RFC 6347 §4.2.8). Both tables have a fixed capacity.
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
    /// No handshake wants to be called before.
    due: Duration,
    seed: Option<u64>,
    stats: DtlsStats,
    scratch: Vec<u8>,
}

/// A handshake that has begun.
struct Handshake {
    association: Association,
    /// The random of its hello, which identifies a repeated one.
    random: [u8; 32],
    begun: Duration,
    egress: Egress,
}

/// An association.
struct Established {
    association: Association,
    random: [u8; 32],
    used: Duration,
    egress: Egress,
}

/// A payload that was received and authenticated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Where its datagram came from and went to.
    pub meta: Meta,
    /// Who sent it: see [`Engine::identity`].
    pub identity: Option<&'a Identity>,
}

/// Why a payload was not sent.
///
/// It converts into an [`io::Error`] of the class [`Peer`](rejoinder::transport::ErrorClass::Peer), so
/// that it ends no server.
///
/// ```
/// use rejoinder::transport::ErrorClass;
/// use rejoinder_dtls::SendError;
///
/// let error = SendError::TooLong { bytes: 20_000, max_bytes: 16_384 };
/// assert_eq!(error.to_string(), "20000 bytes do not fit into a record of at most 16384");
/// assert_eq!(ErrorClass::classify(&error.into()), ErrorClass::Peer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no association with the peer: it was closed, displaced, or never there.
    #[error("there is no association with {0}")]
    NoAssociation(SocketAddr),
    /// The payload does not fit into one record. It is not split: a datagram is a message.
    #[error("{bytes} bytes do not fit into a record of at most {max_bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The association failed.
    #[error("the association with {0} is broken")]
    Broken(SocketAddr),
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLong { .. } => Self::from_raw_os_error(EMSGSIZE),
            _ => Self::new(io::ErrorKind::ConnectionReset, error),
        }
    }
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
    pub const MAX_REPLIES: usize = 2 * MAX_QUEUED + 1;

    /// `None` if the implementation does not take the engine's cookies.
    pub(crate) fn new(parts: Parts<G>) -> Option<Self> {
        let mut blocked_ports = parts.blocked_ports;
        blocked_ports.sort_unstable();
        blocked_ports.dedup();
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
        // An arena has room for 32 datagrams of the greatest length, and for a server's batch of short
        // ones.
        let max = self.settings.max_datagram_bytes();
        let least = Self::MAX_REPLIES.div_ceil(Outbox::ARENA_DATAGRAMS) * max;
        Outbox::new(OUTBOX_DATAGRAMS, least)
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
        if is_of_handshake && self.handshakes.peek(peer).is_some() {
            // The implementation queues whole datagrams: a bound on one bounds what a handshake holds.
            let most = self
                .settings
                .handshake_datagram_bytes
                .max(MAX_HANDSHAKE_BYTES);
            if datagram.bytes.len() > most {
                return Err(DtlsDrop::Malformed);
            }
            return Ok(self.step_handshake(now, meta, Input::Datagram(datagram.bytes), outbox));
        }
        if !has_association {
            return Err(DtlsDrop::NoAssociation);
        }
        self.step_association(now, meta, datagram.bytes, outbox, deliver)
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

    fn take_hello(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hello: &ClientHello<'_>,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let meta = &datagram.meta;
        let peer = meta.peer;
        if self.gate.accept(now, datagram).is_err() {
            return Err(DtlsDrop::Gate);
        }
        let valid = self.cookies.is_valid(now.monotonic, peer, hello);
        let Some(cookie) = valid.filter(|_| hello.message_sequence == 1) else {
            return self.ask_for_cookie(now, datagram, hello, outbox);
        };
        let is_same = |random: &[u8; 32]| *random == hello.random;
        if self
            .associations
            .peek(peer)
            .is_some_and(|one| is_same(&one.random))
        {
            return Err(DtlsDrop::Repeated);
        }
        if self
            .handshakes
            .peek(peer)
            .is_some_and(|one| is_same(&one.random))
        {
            return Ok(self.step_handshake(now, meta, Input::Datagram(bytes), outbox));
        }
        let size = ResponseSize::new(1, self.settings.handshake_datagram_bytes);
        if self.gate.allow_responses(now, datagram, size).is_err() {
            return Err(DtlsDrop::Gate);
        }
        if !self.has_suite_of(hello) {
            // The implementation takes a hello with suites that it does not know for malformed.
            self.stats.begun += 1;
            self.stats.failed[HandshakeFailure::NoCommonParameters as usize] += 1;
            let alert = plain(ALERT, DTLS_1_2, hello.record_sequence, &NO_COMMON_SUITE);
            let packet = Emitted::Packet(&alert);
            reply(&mut self.stats, outbox, peer, meta.egress(), &packet);
            return Ok(Fate::Handshake);
        }
        let clock = *self.clock.get_or_insert_with(|| Clock::new(now.monotonic));
        let association = self
            .begin(now, clock, hello, cookie)
            .ok_or(DtlsDrop::Malformed)?;
        self.stats.begun += 1;
        let handshake = Handshake {
            association,
            random: hello.random,
            begun: now.monotonic,
            egress: meta.egress(),
        };
        if self.handshakes.insert(peer, handshake).is_some() {
            self.stats.displaced_handshakes += 1;
        }
        let Self {
            handshakes,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let handshake = handshakes.peek_mut(peer).expect("it was inserted above");
        let egress = handshake.egress;
        let mut emit = |emitted: Emitted<'_>| reply(stats, outbox, peer, egress, &emitted);
        let step = (hello, cookie);
        let progress = handshake
            .association
            .step_hello(now, policy, step, bytes, scratch, &mut emit);
        self.after_handshake_step(now, peer, progress);
        Ok(Fate::Handshake)
    }

    fn ask_for_cookie(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hello: &ClientHello<'_>,
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let peer = datagram.meta.peer;
        let cookie = self.cookies.make(now.monotonic, peer, hello);
        let request = hello.verify_request(&cookie);
        // So it is with every hello that is one; an unverified address never gets more than it gave.
        if request.len() > datagram.bytes.len() {
            return Err(DtlsDrop::Malformed);
        }
        let size = ResponseSize::new(1, request.len());
        if self.gate.allow_responses(now, datagram, size).is_err() {
            return Err(DtlsDrop::Gate);
        }
        self.stats.hello_bytes += datagram.bytes.len() as u64;
        self.stats.verify_request_bytes += request.len() as u64;
        let packet = Emitted::Packet(&request);
        reply(
            &mut self.stats,
            outbox,
            peer,
            datagram.meta.egress(),
            &packet,
        );
        Ok(Fate::Handshake)
    }

    /// Whether the client offers a cipher suite that can be used with what the server has.
    fn has_suite_of(&self, hello: &ClientHello<'_>) -> bool {
        let offers = |suites: &[u16]| suites.iter().any(|&one| hello.position(one).is_some());
        (self.psk.is_some() && offers(&PSK_SUITES))
            || (self.certificate.is_some() && offers(&CERTIFICATE_SUITES))
    }

    /// A handshake behind the exchange of cookies.
    fn begin(
        &mut self,
        now: Timestamp,
        clock: Clock,
        hello: &ClientHello<'_>,
        cookie: [u8; COOKIE_BYTES],
    ) -> Option<Association> {
        let first = |suites: &[u16]| suites.iter().filter_map(|&one| hello.position(one)).min();
        let seed = self.seed.as_mut().map(next_seed);
        // What the client wants most.
        let psk = self
            .psk
            .as_ref()
            .map(|configs| (first(&PSK_SUITES), configs));
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(|own| (first(&CERTIFICATE_SUITES), own));
        let rank = |position: Option<usize>| position.unwrap_or(usize::MAX);
        let (configs, credentials) = match (psk, certificate) {
            (Some((wanted, _)), Some((other, own))) if rank(other) < rank(wanted) => {
                (&own.0, &own.1)
            }
            (Some((_, configs)), _) => (configs, &Credentials::Psk),
            (None, Some((_, own))) => (&own.0, &own.1),
            (None, None) => return None,
        };
        let config = configs.get(seed);
        let hello = (hello, cookie);
        Association::server(&config, credentials, clock, now, hello, &mut self.scratch)
    }

    fn step_handshake(
        &mut self,
        now: Timestamp,
        meta: &Meta,
        input: Input<'_>,
        outbox: &mut Outbox,
    ) -> Fate {
        let Self {
            handshakes,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let peer = meta.peer;
        if let Some(handshake) = handshakes.peek_mut(peer) {
            handshake.egress = meta.egress();
            let egress = handshake.egress;
            let mut emit = |emitted: Emitted<'_>| reply(stats, outbox, peer, egress, &emitted);
            let progress = handshake
                .association
                .step(now, policy, input, scratch, &mut emit);
            self.after_handshake_step(now, peer, progress);
        }
        Fate::Handshake
    }

    fn after_handshake_step(&mut self, now: Timestamp, peer: SocketAddr, progress: Progress) {
        if let Some(failure) = progress.failure {
            self.handshakes.remove(peer);
            self.stats.failed[failure.kind as usize] += 1;
        } else if progress.connected {
            let Some(done) = self.handshakes.remove(peer) else {
                return;
            };
            self.stats.established += 1;
            let established = Established {
                association: done.association,
                random: done.random,
                used: now.monotonic,
                egress: done.egress,
            };
            match self.associations.insert(peer, established) {
                Some((former, _)) if former == peer => self.stats.replaced += 1,
                Some(_) => self.stats.displaced += 1,
                None => {}
            }
            // Its end came in the datagram that completed the handshake.
            if progress.closed {
                self.associations.remove(peer);
                self.stats.closed += 1;
            }
        } else if let Some(handshake) = self.handshakes.peek(peer) {
            self.due = self.due.min(handshake.association.due());
        }
    }

    fn step_association(
        &mut self,
        now: Timestamp,
        meta: &Meta,
        bytes: &[u8],
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) -> Result<Fate, DtlsDrop> {
        let Self {
            associations,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let peer = meta.peer;
        let Some(established) = associations.peek_mut(peer) else {
            return Err(DtlsDrop::NoAssociation);
        };
        let egress = meta.egress();
        let identity = established.association.identity().cloned();
        let mut emit = |emitted: Emitted<'_>| match emitted {
            Emitted::Payload(bytes) => {
                stats.payloads += 1;
                deliver(Delivered {
                    bytes,
                    meta: *meta,
                    identity: identity.as_ref(),
                });
            }
            packet @ Emitted::Packet(_) => reply(stats, outbox, peer, egress, &packet),
        };
        let input = Input::Datagram(bytes);
        let association = &mut established.association;
        let progress = association.step(now, policy, input, scratch, &mut emit);
        if progress.payloads > 0 {
            // It is authentic, so the peer is there.
            established.used = now.monotonic;
            established.egress = egress;
            associations.touch(peer);
        }
        if progress.failure.is_some() {
            associations.remove(peer);
            self.stats.broken += 1;
        } else if progress.closed {
            associations.remove(peer);
            self.stats.closed += 1;
        }
        let is_control = progress.packets > 0 || progress.closed || progress.failure.is_some();
        match progress.payloads {
            0 if is_control => Ok(Fate::Control),
            0 => Err(DtlsDrop::Unauthenticated),
            _ => Ok(Fate::Application),
        }
    }

    /// Queues a payload for a peer, protected, in one datagram of its own.
    ///
    /// # Errors
    ///
    /// If there is no association with the peer, or the payload is too long. Nothing is queued then.
    pub fn send(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        egress: Egress,
        payload: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let sent = self.try_send(now, peer, egress, payload, outbox);
        match sent {
            Ok(()) => self.stats.sent += 1,
            Err(_) => self.stats.unsent += 1,
        }
        self.gauge();
        sent
    }

    fn try_send(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        egress: Egress,
        payload: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let max_bytes = self.settings.max_payload_bytes;
        let Self {
            associations,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let Some(established) = associations.peek_mut(peer) else {
            return Err(SendError::NoAssociation(peer));
        };
        let bytes = payload.len();
        if bytes > max_bytes {
            return Err(SendError::TooLong { bytes, max_bytes });
        }
        let mut emit = |emitted: Emitted<'_>| reply(stats, outbox, peer, egress, &emitted);
        let input = Input::Payload(payload);
        let association = &mut established.association;
        let progress = association.step(now, policy, input, scratch, &mut emit);
        established.used = now.monotonic;
        associations.touch(peer);
        if progress.failure.is_some() {
            associations.remove(peer);
            stats.broken += 1;
            return Err(SendError::Broken(peer));
        }
        Ok(())
    }

    /// Closes the association with a peer, and queues the `close_notify` for it (RFC 5246 §7.2.1).
    /// Returns `false` if there is none.
    pub fn close(&mut self, now: Timestamp, peer: SocketAddr, outbox: &mut Outbox) -> bool {
        let closed = self.end(now, peer, outbox);
        if closed {
            self.stats.closed += 1;
        }
        self.gauge();
        closed
    }

    /// Closes one association after the other, as long as the outbox has room. Returns whether any is
    /// left: then send the outbox, clear it, and call again.
    pub fn close_all(&mut self, now: Timestamp, outbox: &mut Outbox) -> bool {
        while let Some((peer, _)) = self.associations.oldest() {
            if !outbox.has_room_for(Self::MAX_REPLIES) {
                return true;
            }
            self.close(now, peer, outbox);
        }
        false
    }

    fn end(&mut self, now: Timestamp, peer: SocketAddr, outbox: &mut Outbox) -> bool {
        let Some(mut established) = self.associations.remove(peer) else {
            return false;
        };
        let Self {
            policy,
            scratch,
            stats,
            ..
        } = self;
        let egress = established.egress;
        let mut emit = |emitted: Emitted<'_>| reply(stats, outbox, peer, egress, &emitted);
        let association = &mut established.association;
        association.step(now, policy, Input::Close, scratch, &mut emit);
        true
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

    fn repeat(&mut self, now: Timestamp, outbox: &mut Outbox) {
        let Self {
            handshakes,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let mut failed = Vec::new();
        self.due = Duration::MAX;
        for (peer, handshake) in handshakes.iter_mut() {
            let association = &mut handshake.association;
            if association.due() <= now.monotonic && outbox.has_room_for(Self::MAX_REPLIES) {
                let egress = handshake.egress;
                let mut emit = |emitted: Emitted<'_>| reply(stats, outbox, peer, egress, &emitted);
                let progress = association.step(now, policy, Input::Time, scratch, &mut emit);
                if let Some(failure) = progress.failure {
                    stats.failed[failure.kind as usize] += 1;
                    failed.push(peer);
                    continue;
                }
            }
            self.due = self.due.min(association.due());
        }
        for peer in failed {
            self.handshakes.remove(peer);
        }
    }

    fn gauge(&mut self) {
        self.stats.half_open = self.handshakes.len() as u64;
        self.stats.associations = self.associations.len() as u64;
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
    emitted: &Emitted<'_>,
) {
    if let Emitted::Packet(bytes) = emitted
        && outbox.push(peer, egress, bytes).is_err()
    {
        stats.lost_replies += 1;
    }
}

/// The seed of the next association: `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) fn next_seed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A fatal `handshake_failure`: RFC 5246 §7.2.2.
const NO_COMMON_SUITE: [u8; 2] = [2, 40];
/// Room for the longest record.
const SCRATCH_BYTES: usize = 20_480;

/// The longest datagram of a handshake, unless our own may be longer: a peer splits its flight by its path.
const MAX_HANDSHAKE_BYTES: usize = 2_048;
/// As many as a server answers at once.
const OUTBOX_DATAGRAMS: usize = 1_100;

#[cfg(any(target_os = "linux", target_os = "android"))]
const EMSGSIZE: i32 = 90;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EMSGSIZE: i32 = 40;
/// WSAEMSGSIZE.
#[cfg(not(unix))]
const EMSGSIZE: i32 = 10_040;
