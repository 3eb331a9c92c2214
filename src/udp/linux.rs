//! The fast path on Linux: many datagrams per system call, and many per message.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use super::plan::{Limits, Message, Plan};
use super::sys::{self, Envelope, MAX_MESSAGES};
use super::wire;
use super::{Family, UdpFeature, UdpFeatures};
use crate::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use crate::transport::{SendReport, Wait, canonical};

/// What the fast path keeps between system calls.
#[derive(Debug)]
pub(super) struct Fast {
    features: UdpFeatures,
    batch: BatchSize,
    /// As many as were needed so far, and no more than [`MAX_MESSAGES`]: a client may have hundreds
    /// of sockets, each for one datagram.
    envelopes: Vec<Envelope>,
    timeout: Timeout,
    drops: Drops,
    sender: Sender,
}

impl Fast {
    /// Sets the socket up with those of the wanted features that the system has; `None` if there is
    /// nothing but what the portable path does too.
    pub(super) fn new(
        socket: &UdpSocket,
        family: Family,
        wildcard: bool,
        wanted: UdpFeatures,
    ) -> io::Result<Option<Self>> {
        let mut features = UdpFeatures::NONE;
        let system = system_features(socket);
        for feature in UdpFeature::ALL {
            let set = |option| sys::set_option(socket, option, 1).is_ok();
            if feature == UdpFeature::Gro && !wanted.contains(feature) {
                // An adopted socket may have it, and without it nobody would take the merged apart.
                // Where it cannot be turned off, it was never on.
                let _ = sys::set_option(socket, (libc::SOL_UDP, libc::UDP_GRO), 0);
            }
            let has = wanted.contains(feature)
                && match feature {
                    UdpFeature::Gro => set((libc::SOL_UDP, libc::UDP_GRO)),
                    UdpFeature::DropCount => set((libc::SOL_SOCKET, libc::SO_RXQ_OVFL)),
                    UdpFeature::Timestamp => set((libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)),
                    UdpFeature::PacketInfo => wildcard && set_packet_info(socket, family),
                    _ => system.contains(feature),
                };
            features = features.with(feature, has);
        }
        if features == UdpFeatures::NONE {
            return Ok(None);
        }
        socket.set_nonblocking(false)?;
        Ok(Some(Self {
            features,
            batch: BatchSize::new(),
            envelopes: Vec::new(),
            timeout: Timeout::Unknown,
            drops: Drops::default(),
            sender: Sender::new(),
        }))
    }

    pub(super) fn features(&self) -> UdpFeatures {
        self.features
    }

    pub(super) fn kernel_drops(&self) -> u64 {
        self.drops.total
    }

    /// Receives a batch. `local` is where everything was sent to, if there is but one address.
    pub(super) fn recv(
        &mut self,
        socket: &UdpSocket,
        local: Option<IpAddr>,
        inbox: &mut Inbox,
        wait: Wait,
    ) -> io::Result<usize> {
        if !inbox.has_space() {
            return Ok(0);
        }
        let end = match wait {
            Wait::Spin(time) => Instant::now().checked_add(time),
            _ => None,
        };
        loop {
            let received = self.recv_once(socket, local, inbox, wait);
            match received {
                Ok(0) if end.is_some_and(|end| Instant::now() < end) => std::hint::spin_loop(),
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOSYS)
                        && self.features.contains(UdpFeature::Recvmmsg) =>
                {
                    self.features = self.features.with(UdpFeature::Recvmmsg, false);
                }
                received => return received,
            }
        }
    }

    fn recv_once(
        &mut self,
        socket: &UdpSocket,
        local: Option<IpAddr>,
        inbox: &mut Inbox,
        wait: Wait,
    ) -> io::Result<usize> {
        let block = match wait {
            Wait::For(time) if time.is_zero() => false,
            Wait::For(time) => {
                self.set_timeout(socket, Some(time))?;
                true
            }
            Wait::Forever => {
                self.set_timeout(socket, None)?;
                true
            }
            Wait::No | Wait::Spin(_) => false,
        };
        // What the system merged must not be cut, or its tail would be lost without a trace.
        let buffer_bytes = if self.features.contains(UdpFeature::Gro) {
            usize::MAX
        } else {
            inbox.max_datagram_bytes() + 1
        };
        let waiting = inbox.len();
        let asked = self.batch.next();
        let received = sys::receive(
            socket,
            inbox.spare().map(|buffer| {
                let len = buffer.len().min(buffer_bytes);
                &mut buffer[..len]
            }),
            at_least(&mut self.envelopes, asked),
            block,
            self.features.contains(UdpFeature::Recvmmsg),
        );
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        // What arrives has a sender. Nothing from nobody is what a socket that was shut down for
        // receiving gives, without end.
        let is_real = |one: &Envelope| one.len > 0 || one.name_len > 0;
        let envelopes = &self.envelopes[..received];
        let received = envelopes.iter().take_while(|one| is_real(one)).count();
        if received == 0 && !envelopes.is_empty() {
            return Err(ErrorKind::NotConnected.into());
        }
        self.batch.received(asked, received);
        let has_timestamps = self.features.contains(UdpFeature::Timestamp);
        let now = has_timestamps.then(SystemTime::now);
        for envelope in &self.envelopes[..received] {
            // It was received, so it is counted like everything else, as an invalid source.
            let peer = wire::decode_name(&envelope.name[..envelope.name_len]).unwrap_or(NO_ADDRESS);
            let control = wire::decode_control(&envelope.control.0[..envelope.control_len]);
            let mut meta = Meta::new(peer);
            meta.local = local.or(control.local);
            if let (Some(now), Some(arrived)) = (now, control.arrived) {
                meta.waited = age(arrived, now);
            }
            // Without its control messages nobody knows where a datagram ends.
            meta.truncated = envelope.flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
            match control.segment_bytes {
                None => inbox.fill(envelope.len, meta),
                Some(bytes) => inbox.fill_segments(envelope.len, bytes, meta),
            }
            if let Some(drops) = control.drops {
                self.drops.seen(drops);
            }
        }
        Ok(inbox.len() - waiting)
    }

    /// A timeout that comes nearer with every call, as before a deadline, must not cost a system
    /// call each time. It is halved instead when it has become too long, and fits for as long
    /// again: a wait may end early.
    fn set_timeout(&mut self, socket: &UdpSocket, wanted: Option<Duration>) -> io::Result<()> {
        let timeout = match (self.timeout, wanted) {
            (Timeout::Never, None) => return Ok(()),
            (Timeout::After(current), Some(wanted))
                if current <= wanted && wanted / 2 <= current =>
            {
                return Ok(());
            }
            (Timeout::After(current), Some(wanted)) if wanted < current && wanted > SHORT => {
                Some(wanted / 2)
            }
            _ => wanted,
        };
        self.timeout = Timeout::Unknown;
        socket.set_read_timeout(timeout)?;
        self.timeout = timeout.map_or(Timeout::Never, Timeout::After);
        Ok(())
    }

    /// Sends a batch. A connected socket has but one `peer`.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        family: Family,
        peer: Option<SocketAddr>,
        outbox: &Outbox,
    ) -> SendReport {
        let mut system = System {
            socket,
            family,
            peer,
            outbox,
            envelopes: &mut self.envelopes,
            many: self.features.contains(UdpFeature::Sendmmsg),
            source: self.features.contains(UdpFeature::PacketInfo),
        };
        let gso = self.features.contains(UdpFeature::Gso);
        let (sent, gso) = self.sender.send(outbox, gso, &mut system);
        let many = system.many;
        self.features = self
            .features
            .with(UdpFeature::Gso, gso)
            .with(UdpFeature::Sendmmsg, many);
        sent
    }

    /// Whether a lone datagram needs nothing that the standard library cannot do.
    pub(super) fn is_plain(&self, local: Option<IpAddr>) -> bool {
        local.is_none() || !self.features.contains(UdpFeature::PacketInfo)
    }
}

/// How many messages to ask for.
///
/// To look for a second datagram costs a lone request a little, and to find none under load costs
/// a lot: so after a few lone ones only every eighth call looks for a second, and a batch is
/// followed by one that may be twice as large.
#[derive(Debug)]
struct BatchSize {
    next: usize,
    /// How many datagrams came alone in a row.
    lone: usize,
}

impl BatchSize {
    fn new() -> Self {
        Self {
            next: MIN_BATCH,
            lone: 0,
        }
    }

    fn next(&self) -> usize {
        self.next
    }

    fn received(&mut self, asked: usize, received: usize) {
        if received == 0 {
            return;
        }
        if received > 1 {
            self.lone = 0;
            self.next = (2 * received).clamp(MIN_BATCH, MAX_MESSAGES);
            return;
        }
        self.lone += 1;
        self.next = match asked {
            _ if self.lone < LONE => MIN_BATCH,
            1 if self.lone.is_multiple_of(LOOK_AROUND) => 2,
            _ => 1,
        };
    }
}

/// What a socket's receive timeout is set to.
#[derive(Clone, Copy, Debug)]
enum Timeout {
    Unknown,
    Never,
    After(Duration),
}

/// A counter of 32 bits that wraps, made one of 64.
#[derive(Debug, Default)]
struct Drops {
    latest: u32,
    total: u64,
}

impl Drops {
    fn seen(&mut self, count: u32) {
        self.total += u64::from(count.wrapping_sub(self.latest));
        self.latest = count;
    }
}

/// Sends messages: the system, or what stands in for it in a test.
trait Kernel {
    /// Sends the first messages of the plan from `index` on, one at least, and returns how many; an
    /// error is the first one's.
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize>;
}

/// Sends whole batches, and remembers what the system did not like.
#[derive(Debug)]
struct Sender {
    plan: Plan,
    /// For what has to be sent again, datagram by datagram.
    singles: Plan,
    max_segments: usize,
    max_segment_bytes: usize,
    /// For how many batches longer segments are not tried.
    short_segments: u32,
}

impl Sender {
    fn new() -> Self {
        Self {
            plan: Plan::default(),
            singles: Plan::default(),
            max_segments: MAX_SEGMENTS,
            max_segment_bytes: MAX_DATAGRAM_BYTES,
            short_segments: 0,
        }
    }

    /// Tries every datagram. Returns what became of them, and whether to segment further on.
    fn send(
        &mut self,
        outbox: &Outbox,
        mut gso: bool,
        kernel: &mut impl Kernel,
    ) -> (SendReport, bool) {
        let (_, queued) = outbox.parts();
        if self.short_segments > 0 {
            self.short_segments -= 1;
            if self.short_segments == 0 {
                self.max_segment_bytes = MAX_DATAGRAM_BYTES;
            }
        }
        let limits = Limits {
            segments: if gso { self.max_segments } else { 1 },
            segment_bytes: self.max_segment_bytes,
            total_bytes: MAX_DATAGRAM_BYTES,
        };
        self.plan.reserve(outbox.max_datagrams());
        self.plan.make(queued, limits, outbox.is_unordered());
        let mut sent = SendReport::default();
        let mut at = 0;
        while let Some(message) = self.plan.messages.get(at) {
            let error = match kernel.send(&self.plan, at) {
                Ok(messages) => {
                    let messages = &self.plan.messages[at..][..messages];
                    sent.sent += messages.iter().map(|one| one.datagrams).sum::<usize>();
                    at += messages.len();
                    continue;
                }
                Err(error) => error,
            };
            at += 1;
            let Some(segment_bytes) = message.segment_bytes else {
                sent.record_failure(error);
                continue;
            };
            // It may be the segmentation that cannot be done, or a single datagram.
            self.singles.make(&[], limits, false);
            let mut next = Some(message.first);
            for _ in 0..message.datagrams {
                let index = next.expect("as many follow as are counted");
                self.singles.push_alone(queued, index);
                next = self.plan.follows(index);
            }
            let failed = sent.failed;
            Self::send_singles(&self.singles, kernel, &mut sent);
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => {
                    self.max_segment_bytes = usize::from(segment_bytes) - 1;
                    self.short_segments = SHORT_SEGMENT_BATCHES;
                }
                Some(libc::EINVAL) if message.datagrams > OLD_MAX_SEGMENTS => {
                    self.max_segments = OLD_MAX_SEGMENTS;
                }
                // So says Linux before 6.14 of segments that are too long for the way.
                Some(libc::EINVAL) if sent.failed == failed && segment_bytes > SHORT_SEGMENT => {
                    self.max_segment_bytes = usize::from(segment_bytes) - 1;
                    self.short_segments = SHORT_SEGMENT_BATCHES;
                }
                Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP) if sent.failed == failed => {
                    gso = false;
                }
                _ => {}
            }
        }
        (sent, gso)
    }

    fn send_singles(singles: &Plan, kernel: &mut impl Kernel, sent: &mut SendReport) {
        let mut at = 0;
        while at < singles.messages.len() {
            match kernel.send(singles, at) {
                Ok(messages) => {
                    sent.sent += messages;
                    at += messages;
                }
                Err(error) => {
                    sent.record_failure(error);
                    at += 1;
                }
            }
        }
    }
}

struct System<'a> {
    socket: &'a UdpSocket,
    family: Family,
    peer: Option<SocketAddr>,
    outbox: &'a Outbox,
    envelopes: &'a mut Vec<Envelope>,
    many: bool,
    source: bool,
}

impl Kernel for System<'_> {
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize> {
        let (arena, queued) = self.outbox.parts();
        let most = if self.many { MAX_MESSAGES } else { 1 };
        let messages = &plan.messages[index..];
        let most = most.min(messages.len());
        let mut ready = 0;
        for (envelope, message) in at_least(self.envelopes, most).iter_mut().zip(messages) {
            let first = &queued[message.first];
            envelope.name_len = match self.peer {
                None => wire::encode_name(self.family.native(first.peer), &mut envelope.name),
                Some(peer) if super::same(peer, canonical(first.peer)) => 0,
                Some(_) if ready == 0 => return Err(super::wrong_peer()),
                Some(_) => break,
            };
            let source = first.local.filter(|_| self.source);
            envelope.control_len = wire::encode_control(
                &mut envelope.control,
                message.segment_bytes,
                source.and_then(|source| self.family.source(source, first.peer)),
            );
            ready += 1;
        }
        let parts_of =
            |message: &Message| -> &[Range<usize>] { &plan.parts[message.parts.clone()] };
        loop {
            let ready = self.envelopes[..ready].iter();
            let sent = sys::send(
                self.socket,
                arena,
                ready.zip(messages.iter().map(parts_of)),
                self.many,
            );
            match sent {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && self.many => {
                    self.many = false;
                }
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                sent => return sent,
            }
        }
    }
}

/// The first of the envelopes, after as many were added as are missing.
fn at_least(envelopes: &mut Vec<Envelope>, count: usize) -> &mut [Envelope] {
    if envelopes.len() < count {
        envelopes.resize(count, Envelope::EMPTY);
    }
    &mut envelopes[..count]
}

/// What does not depend on the socket, asked once.
fn system_features(socket: &UdpSocket) -> UdpFeatures {
    static FEATURES: OnceLock<UdpFeatures> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        let (receive, send) = sys::has_mmsg(socket);
        let gso = sys::option(socket, (libc::SOL_UDP, libc::UDP_SEGMENT)).is_ok();
        UdpFeatures::NONE
            .with(UdpFeature::Recvmmsg, receive)
            .with(UdpFeature::Sendmmsg, send)
            .with(UdpFeature::Gso, gso)
    })
}

/// How long a datagram waited, by the civil clock. What it cannot have waited is no age: the clock
/// was set meanwhile.
#[inline]
fn age(arrived: SystemTime, now: SystemTime) -> Duration {
    match now.duration_since(arrived) {
        Ok(age) if age <= MAX_AGE => age,
        _ => Duration::ZERO,
    }
}

/// Asks to be told where each datagram was sent to.
fn set_packet_info(socket: &UdpSocket, family: Family) -> bool {
    let v4 = sys::set_option(socket, (libc::IPPROTO_IP, libc::IP_PKTINFO), 1).is_ok();
    match family {
        Family::V4 => v4,
        // What is sent to a broadcast address of IPv4 is told rightly only by the option of IPv4.
        // A socket that is for IPv6 alone may not have it.
        Family::V6 => {
            sys::set_option(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1).is_ok()
        }
    }
}

/// Lets other sockets of the same user bind to the same address, if they say so too. The system
/// spreads peers among them.
pub(super) fn set_reuse_port(socket: &UdpSocket) -> io::Result<()> {
    sys::set_option(socket, (libc::SOL_SOCKET, libc::SO_REUSEPORT), 1)
}

/// Stands for a sender that is none of IP. Nothing can be sent there.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Nothing waits longer for a program that is alive.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
const MIN_BATCH: usize = 4;
/// After so many lone datagrams, the next is expected to be alone.
const LONE: usize = 4;
const LOOK_AROUND: usize = 8;
/// What the kernel takes: `UDP_MAX_SEGMENTS`, 64 before Linux 6.9.
const MAX_SEGMENTS: usize = 128;
const OLD_MAX_SEGMENTS: usize = 64;
/// What every way takes over IPv6, and nearly every one over IPv4: 1,280 bytes with the headers
/// (RFC 8200 §5).
const SHORT_SEGMENT: u16 = 1_232;
/// How long segments that are too long for some way are not tried: the way may change, or may be
/// that of one peer only.
const SHORT_SEGMENT_BATCHES: u32 = 1_024;
/// A timeout of so little is set exactly.
const SHORT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;

    use super::*;

    /// Miri is some thousand times slower.
    const MANY: usize = if cfg!(miri) { 40 } else { 150 };

    /// A kernel that takes some messages and refuses others, and remembers.
    #[derive(Debug)]
    struct Fake {
        lens: Vec<usize>,
        peers: Vec<SocketAddr>,
        /// The most segments and their greatest length; `None`: it cannot segment at all.
        gso: Option<(usize, usize)>,
        /// How it calls a segment too long.
        too_long: i32,
        /// Longer datagrams are refused.
        max_bytes: usize,
        /// How many messages it takes at once.
        at_once: usize,
        delivered: Vec<usize>,
        refused: Vec<usize>,
        calls: usize,
    }

    impl Fake {
        fn members<'a>(plan: &'a Plan, message: &Message) -> impl Iterator<Item = usize> + 'a {
            std::iter::successors(Some(message.first), |&index| plan.follows(index))
                .take(message.datagrams)
        }

        fn verdict(&self, message: &Message) -> io::Result<()> {
            let len = self.lens[message.first];
            let code = match (message.segment_bytes, self.gso) {
                (None, _) if len > self.max_bytes => libc::EMSGSIZE,
                (Some(_), None) => libc::EIO,
                (Some(_), Some((segments, _))) if message.datagrams > segments => libc::EINVAL,
                (Some(bytes), Some((_, most))) if usize::from(bytes) > most.min(self.max_bytes) => {
                    self.too_long
                }
                _ => return Ok(()),
            };
            Err(io::Error::from_raw_os_error(code))
        }
    }

    impl Kernel for Fake {
        fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize> {
            self.calls += 1;
            let mut sent = 0;
            for message in plan.messages[index..].iter().take(self.at_once) {
                match self.verdict(message) {
                    Ok(()) => self.delivered.extend(Self::members(plan, message)),
                    Err(_) if sent > 0 => break,
                    Err(error) => {
                        if message.segment_bytes.is_none() {
                            self.refused.push(message.first);
                        }
                        return Err(error);
                    }
                }
                sent += 1;
            }
            Ok(sent)
        }
    }

    fn outbox(datagrams: &[(u8, usize)]) -> Outbox {
        let mut outbox = Outbox::new(datagrams.len().max(1), 2_000);
        for &(peer, len) in datagrams {
            let peer = ([192, 0, 2, peer], 7).into();
            let pushed = outbox.push_with(peer, None, |_| Ok(len));
            pushed.expect("there is room");
        }
        outbox
    }

    fn fake(datagrams: &[(u8, usize)], gso: Option<(usize, usize)>) -> Fake {
        Fake {
            lens: datagrams.iter().map(|datagram| datagram.1).collect(),
            peers: outbox(datagrams).iter().map(|one| one.peer).collect(),
            gso,
            too_long: libc::EMSGSIZE,
            max_bytes: 1_900,
            at_once: 64,
            delivered: Vec::new(),
            refused: Vec::new(),
            calls: 0,
        }
    }

    proptest! {
        #[test]
        fn whatever_is_refused_every_datagram_is_tried_once_and_in_order(
            batches in prop::collection::vec(
                prop::collection::vec((0..4_u8, prop_oneof![0..3_usize, Just(100), 1..2_000_usize]), 0..MANY),
                1..4,
            ),
            gso in prop::option::of((1..130_usize, 1..2_000_usize)),
            at_once in 1..65_usize,
            too_long in prop_oneof![Just(libc::EMSGSIZE), Just(libc::EINVAL)],
        ) {
            let mut sender = Sender::new();
            let mut segmenting = true;
            for datagrams in batches {
                let outbox = outbox(&datagrams);
                let mut fake = Fake { too_long, at_once, ..fake(&datagrams, gso) };
                let (sent, still) = sender.send(&outbox, segmenting, &mut fake);
                segmenting = still;
                let too_long = datagrams.iter().filter(|one| one.1 > fake.max_bytes).count();
                prop_assert_eq!(sent.failed, too_long);
                prop_assert_eq!(sent.sent + sent.failed, datagrams.len());
                prop_assert_eq!(sent.last_error.is_some(), too_long > 0);
                let mut tried = fake.delivered.clone();
                tried.extend(&fake.refused);
                tried.sort_unstable();
                prop_assert!(tried.into_iter().eq(0..datagrams.len()));
                for peer in &fake.peers {
                    let same = fake.delivered.iter().filter(|&&one| fake.peers[one] == *peer);
                    prop_assert!(same.is_sorted());
                }
            }
        }
    }

    #[test]
    fn a_system_that_cannot_segment_is_asked_once() {
        let datagrams = [(1, 100); 10];
        let outbox = outbox(&datagrams);
        let mut fake = fake(&datagrams, None);
        let mut sender = Sender::new();
        let (_, gso) = sender.send(&outbox, true, &mut fake);
        assert!(!gso);
        assert_eq!(fake.calls, 2);
    }

    #[test]
    fn an_older_limit_of_segments_is_learnt() {
        let datagrams = [(1, 100); 128];
        let outbox = outbox(&datagrams);
        let mut fake = fake(&datagrams, Some((64, 1_472)));
        let mut sender = Sender::new();
        assert!(sender.send(&outbox, true, &mut fake).1);
        fake.calls = 0;
        assert!(sender.send(&outbox, true, &mut fake).1);
        assert_eq!(fake.calls, 1);
    }

    #[test]
    fn segments_too_long_for_the_way_are_left_alone_for_a_while() {
        let long = [(1, 1_500); 10];
        let short = [(1, 1_400); 10];
        let (mut long_fake, mut short_fake) = (
            fake(&long, Some((64, 1_472))),
            fake(&short, Some((64, 1_472))),
        );
        let mut sender = Sender::new();
        assert!(sender.send(&outbox(&long), true, &mut long_fake).1);
        assert_eq!(sender.max_segment_bytes, 1_499);
        long_fake.calls = 0;
        sender.send(&outbox(&long), true, &mut long_fake);
        sender.send(&outbox(&short), true, &mut short_fake);
        assert_eq!((long_fake.calls, short_fake.calls), (1, 1));
        assert_eq!(sender.short_segments, SHORT_SEGMENT_BATCHES - 2);
        // The rest would take Miri a minute.
        if cfg!(miri) {
            sender.short_segments = 2;
        }
        for _ in 0..sender.short_segments {
            sender.send(&outbox(&short), true, &mut short_fake);
        }
        assert_eq!(sender.max_segment_bytes, MAX_DATAGRAM_BYTES);
    }

    #[test]
    fn an_older_system_that_finds_segments_too_long_segments_shorter_ones() {
        let long = [(1, 1_500); 10];
        let short = [(1, 1_400); 10];
        let mut old = Fake {
            too_long: libc::EINVAL,
            ..fake(&long, Some((64, 1_472)))
        };
        let mut sender = Sender::new();
        assert!(sender.send(&outbox(&long), true, &mut old).1);
        assert_eq!(old.delivered.len(), 10);
        let mut old = Fake {
            too_long: libc::EINVAL,
            ..fake(&short, Some((64, 1_472)))
        };
        assert!(sender.send(&outbox(&short), true, &mut old).1);
        assert_eq!(old.calls, 1);
    }

    #[test]
    fn an_adopted_socket_may_be_asked_to_tell_more() {
        let socket = UdpSocket::bind("[::]:0").expect("a port is free");
        let asked = [
            (libc::IPPROTO_IP, libc::IP_RECVTTL),
            (libc::IPPROTO_IP, libc::IP_RECVTOS),
            (libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR),
        ];
        for option in asked {
            sys::set_option(&socket, option, 1).expect("Linux has it");
        }
        let wanted = UdpFeatures::DEFAULT.with(UdpFeature::Timestamp, true);
        let mut fast = Fast::new(&socket, Family::V6, true, wanted)
            .expect("the socket is open")
            .expect("Linux has features");
        let port = socket.local_addr().expect("it is bound").port();
        for addr in ["127.0.0.1", "::1"] {
            let addr: IpAddr = addr.parse().expect("it is an address");
            let client = UdpSocket::bind((addr, 0)).expect("a port is free");
            client.send_to(b"?", (addr, port)).expect("it is near");
            let mut inbox = Inbox::new(4, 100);
            let wait = Wait::For(Duration::from_secs(10));
            let received = fast.recv(&socket, None, &mut inbox, wait);
            assert_eq!(received.expect("it works"), 1);
            let meta = inbox.pop().expect("it is there").meta;
            assert!(!meta.truncated);
            assert_eq!(meta.local, Some(addr));
        }
    }

    #[test]
    fn a_datagram_whose_sender_is_none_of_ip_is_delivered_as_from_nowhere() {
        let (here, there) = UnixDatagram::pair().expect("the system has them");
        let socket = UdpSocket::from(OwnedFd::from(here));
        let mut fast = Fast::new(&socket, Family::V4, false, UdpFeatures::DEFAULT)
            .expect("the socket is open")
            .expect("Linux has features");
        there.send(b"?").expect("it is near");
        there.send(b"!").expect("it is near");
        let mut inbox = Inbox::new(4, 100);
        // Both at once, or one after the other.
        let mut received = 0;
        for _ in 0..2 {
            if received < 2 {
                let more = fast.recv(&socket, None, &mut inbox, Wait::No);
                received += more.expect("it works");
            }
        }
        assert_eq!(received, 2);
        for bytes in [b"?", b"!"] {
            let datagram = inbox.pop().expect("it is there");
            assert_eq!(datagram.bytes, bytes);
            assert_eq!(datagram.meta.peer, "0.0.0.0:0".parse().expect("an address"));
        }
    }

    #[test]
    fn an_age_that_only_a_clock_that_was_set_explains_is_none() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hour = Duration::from_secs(3_600);
        let next = Duration::from_nanos(1);
        assert_eq!(age(now - next, now), next);
        assert_eq!(age(now - hour, now), hour);
        assert_eq!(age(now - hour - next, now), Duration::ZERO);
        assert_eq!(age(now + next, now), Duration::ZERO);
    }

    #[test]
    fn merging_that_is_not_wanted_is_turned_off() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let gro = (libc::SOL_UDP, libc::UDP_GRO);
        sys::set_option(&socket, gro, 1).expect("Linux has it");
        Fast::new(&socket, Family::V4, false, UdpFeatures::NONE).expect("the socket is open");
        assert_eq!(sys::option(&socket, gro).expect("Linux tells"), 0);
    }

    #[test]
    fn lone_datagrams_are_received_alone_but_a_queue_is_noticed() {
        let mut batch = BatchSize::new();
        for _ in 0..LONE {
            assert_eq!(batch.next(), MIN_BATCH);
            batch.received(MIN_BATCH, 1);
        }
        let mut waiting = 300;
        let mut calls = 0;
        while waiting > 0 {
            let received = batch.next().min(waiting);
            batch.received(batch.next(), received);
            waiting -= received;
            calls += 1;
        }
        assert!(calls < 20, "{calls} calls");
    }

    #[test]
    fn a_counter_of_drops_survives_its_wrapping() {
        let mut drops = Drops::default();
        for count in [5, u32::MAX, 3] {
            drops.seen(count);
        }
        assert_eq!(drops.total, (1 << 32) + 3);
    }
}
