//! Many datagrams per system call, on Linux.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::batch_size::BatchSize;
use super::drops::DropCounter;
use super::family::{Endpoint, Family};
use super::features::{UdpFeature, UdpFeatures};
use super::gso::{GsoSender, Plan, SendTrains, Train};
use super::syscall::{self, Header, MAX_MESSAGES};
use super::{cmsg, sockaddr};
use crate::transport::{Inbox, Meta, Outbox, SendReport};

/// What is kept between the system calls of one socket.
#[derive(Debug)]
pub(super) struct BatchedSocket {
    features: UdpFeatures,
    batch: BatchSize,
    /// As many as were needed so far, and no more than [`MAX_MESSAGES`]: a client may have hundreds
    /// of sockets, each for one datagram.
    headers: Vec<Header>,
    drops: DropCounter,
    sender: GsoSender,
}

impl BatchedSocket {
    /// Sets the socket up with those of the wanted features that the kernel has; `None` if there are
    /// none, so that the fallback does as well.
    pub(super) fn new(
        socket: &UdpSocket,
        endpoint: &Endpoint,
        wanted: UdpFeatures,
    ) -> Option<Self> {
        let mut features = UdpFeatures::NONE;
        let system = system_features(socket);
        for feature in UdpFeature::ALL {
            let set = |option| syscall::set_option(socket, option, 1).is_ok();
            if feature == UdpFeature::Gro && !wanted.has(feature) {
                // An adopted socket may have it, and without it nothing would split what was merged.
                // Where it cannot be turned off, it was never on.
                let _ = syscall::set_option(socket, (libc::SOL_UDP, libc::UDP_GRO), 0);
            }
            let has = wanted.has(feature)
                && match feature {
                    UdpFeature::Gro => set((libc::SOL_UDP, libc::UDP_GRO)),
                    UdpFeature::DropCount => set((libc::SOL_SOCKET, libc::SO_RXQ_OVFL)),
                    UdpFeature::Timestamp => set((libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)),
                    UdpFeature::PacketInfo => {
                        endpoint.local.is_none() && set_packet_info(socket, endpoint.family())
                    }
                    _ => system.has(feature),
                };
            features = features.with(feature, has);
        }
        (features != UdpFeatures::NONE).then(|| Self {
            features,
            batch: BatchSize::new(),
            headers: Vec::new(),
            drops: DropCounter::default(),
            sender: GsoSender::new(),
        })
    }

    pub(super) fn features(&self) -> UdpFeatures {
        self.features
    }

    pub(super) fn kernel_drops(&self) -> u64 {
        self.drops.total()
    }

    /// Receives a batch; 0 if there is none.
    pub(super) fn recv(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        inbox: &mut Inbox,
        block: bool,
    ) -> io::Result<usize> {
        // What the kernel merged must not be cut, or its tail would be lost without a trace.
        let buffer_bytes = if self.features.has(UdpFeature::Gro) {
            usize::MAX
        } else {
            inbox.max_datagram_bytes() + 1
        };
        let waiting = inbox.len();
        let asked = self.batch.next();
        let received = loop {
            let many = self.features.has(UdpFeature::Recvmmsg);
            let received = syscall::receive(
                socket,
                inbox.spare().map(|buffer| {
                    let len = buffer.len().min(buffer_bytes);
                    &mut buffer[..len]
                }),
                Header::at_least(&mut self.headers, asked),
                block,
                many,
            );
            match received {
                Ok(received) => break received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && many => {
                    self.features = self.features.with(UdpFeature::Recvmmsg, false);
                }
                Err(error) => return Err(error),
            }
        };
        // What arrives has a sender. A socket that was shut down for receiving returns nothing from
        // nowhere, without end.
        let is_real = |one: &Header| one.len > 0 || one.address_len > 0;
        let headers = &self.headers[..received];
        let received = headers.iter().take_while(|one| is_real(one)).count();
        if received == 0 && !headers.is_empty() {
            return Err(ErrorKind::NotConnected.into());
        }
        self.batch.received(asked, received);
        let has_timestamps = self.features.has(UdpFeature::Timestamp);
        let now = has_timestamps.then(SystemTime::now);
        for header in &self.headers[..received] {
            // It was received, so it is counted like everything else, as an invalid source.
            let peer =
                sockaddr::decode(&header.address[..header.address_len]).unwrap_or(NO_ADDRESS);
            let control = cmsg::decode(&header.control.0[..header.control_len]);
            let mut meta = Meta::new(peer);
            meta.local = endpoint.local.or(control.local);
            if let (Some(now), Some(arrived)) = (now, control.arrived) {
                meta.waited = age(arrived, now);
            }
            // Without its control messages it is unknown where a datagram ends.
            meta.truncated = header.flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
            match control.segment_bytes {
                None => inbox.fill(header.len, meta),
                Some(bytes) => inbox.fill_segments(header.len, bytes, meta),
            }
            if let Some(drops) = control.drops {
                self.drops.seen(drops);
            }
        }
        Ok(inbox.len() - waiting)
    }

    /// Sends a batch.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        outbox: &Outbox,
    ) -> SendReport {
        let mut kernel = Kernel {
            socket,
            endpoint,
            outbox,
            headers: &mut self.headers,
            many: self.features.has(UdpFeature::Sendmmsg),
            source: self.features.has(UdpFeature::PacketInfo),
        };
        let gso = self.features.has(UdpFeature::Gso);
        let (sent, gso) = self.sender.send(outbox, gso, &mut kernel);
        let many = kernel.many;
        self.features = self
            .features
            .with(UdpFeature::Gso, gso)
            .with(UdpFeature::Sendmmsg, many);
        sent
    }

    /// Whether the fallback sends this outbox as well: a single datagram is not to pay for what only
    /// many gain by.
    #[inline]
    pub(super) fn is_plain(&self, outbox: &Outbox) -> bool {
        let mut datagrams = outbox.iter();
        let first = datagrams.next();
        let is_plain =
            |local: Option<IpAddr>| local.is_none() || !self.features.has(UdpFeature::PacketInfo);
        datagrams.len() == 0 && first.is_none_or(|first| is_plain(first.local))
    }
}

struct Kernel<'a> {
    socket: &'a UdpSocket,
    endpoint: &'a Endpoint,
    outbox: &'a Outbox,
    headers: &'a mut Vec<Header>,
    many: bool,
    source: bool,
}

impl SendTrains for Kernel<'_> {
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize> {
        let (arena, queued) = self.outbox.parts();
        let most = if self.many { MAX_MESSAGES } else { 1 };
        let trains = &plan.trains[index..];
        let most = most.min(trains.len());
        let mut ready = 0;
        for (header, train) in Header::at_least(self.headers, most).iter_mut().zip(trains) {
            let first = &queued[train.first];
            header.address_len = match self.endpoint.destination(first.peer) {
                Ok(Some(addr)) => sockaddr::encode(addr, &mut header.address),
                Ok(None) => 0,
                Err(error) if ready == 0 => return Err(error),
                Err(_) => break,
            };
            let source = first.local.filter(|_| self.source);
            header.control_len = cmsg::encode(
                &mut header.control,
                train.segment_bytes,
                source.and_then(|source| self.endpoint.family().source(source, first.peer)),
            );
            ready += 1;
        }
        let slices = |train: &Train| -> &[Range<usize>] { &plan.slices[train.slices.clone()] };
        loop {
            let ready = self.headers[..ready].iter();
            let messages = ready.zip(trains.iter().map(slices));
            match syscall::send(self.socket, arena, messages, self.many) {
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

/// What does not depend on the socket, asked once.
fn system_features(socket: &UdpSocket) -> UdpFeatures {
    static FEATURES: OnceLock<UdpFeatures> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        let (receive, send) = syscall::has_mmsg(socket);
        let gso = syscall::option(socket, (libc::SOL_UDP, libc::UDP_SEGMENT)).is_ok();
        UdpFeatures::NONE
            .with(UdpFeature::Recvmmsg, receive)
            .with(UdpFeature::Sendmmsg, send)
            .with(UdpFeature::Gso, gso)
    })
}

/// How long a datagram waited, by the wall clock. What it cannot have waited is no age: the clock
/// was set meanwhile.
#[inline]
fn age(arrived: SystemTime, now: SystemTime) -> Duration {
    match now.duration_since(arrived) {
        Ok(age) if age <= MAX_AGE => age,
        _ => Duration::ZERO,
    }
}

/// Asks the kernel to report where each datagram was sent to.
fn set_packet_info(socket: &UdpSocket, family: Family) -> bool {
    let v4 = syscall::set_option(socket, (libc::IPPROTO_IP, libc::IP_PKTINFO), 1).is_ok();
    match family {
        Family::V4 => v4,
        // For a datagram to a broadcast address of IPv4, only the option of IPv4 reports the address
        // to reply from. A socket that is for IPv6 alone may not have it.
        Family::V6 => {
            syscall::set_option(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO), 1).is_ok()
        }
    }
}

/// Lets other sockets of the same user bind to the same address, if they ask for it too. The kernel
/// spreads peers among them.
pub(super) fn set_reuse_port(socket: &UdpSocket) -> io::Result<()> {
    syscall::set_option(socket, (libc::SOL_SOCKET, libc::SO_REUSEPORT), 1)
}

/// Stands for a sender that has no IP address. Nothing can be sent there.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Nothing waits longer for a program that is alive.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn an_adopted_socket_may_report_more_than_is_read() {
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
            syscall::set_option(&socket, option, 1).expect("Linux has it");
        }
        let wanted = UdpFeatures::DEFAULT.with(UdpFeature::Timestamp, true);
        let endpoint = Endpoint::of(&socket).expect("the socket is open");
        let mut batched =
            BatchedSocket::new(&socket, &endpoint, wanted).expect("Linux has features");
        let port = socket.local_addr().expect("it is bound").port();
        for addr in ["127.0.0.1", "::1"] {
            let addr: IpAddr = addr.parse().expect("it is an address");
            let client = UdpSocket::bind((addr, 0)).expect("a port is free");
            client.send_to(b"?", (addr, port)).expect("it is near");
            let mut inbox = Inbox::new(4, 100);
            let received = batched.recv(&socket, &endpoint, &mut inbox, true);
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
        let endpoint = Endpoint::unknown(Family::V4);
        let mut batched = BatchedSocket::new(&socket, &endpoint, UdpFeatures::DEFAULT)
            .expect("Linux has features");
        there.send(b"?").expect("it is near");
        there.send(b"!").expect("it is near");
        let mut inbox = Inbox::new(4, 100);
        // Both at once, or one after the other.
        let mut received = 0;
        for _ in 0..2 {
            if received < 2 {
                let more = batched.recv(&socket, &endpoint, &mut inbox, false);
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
        syscall::set_option(&socket, gro, 1).expect("Linux has it");
        let endpoint = Endpoint::of(&socket).expect("the socket is open");
        assert!(BatchedSocket::new(&socket, &endpoint, UdpFeatures::NONE).is_none());
        assert_eq!(syscall::option(&socket, gro).expect("Linux tells"), 0);
    }
}
