//! Many datagrams per system call, on Linux.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use rustix::net::sockopt;
use socket2::SockRef;

use super::batch_size::BatchSize;
use super::drops::DropCounter;
use super::family::Endpoint;
use super::features::{UdpFeature, UdpFeatures};
use super::gso::GsoSender;
use super::kernel::{System, is_forbidden};
use super::linux_options::{set_gro, set_packet_info};
use super::send_trains::KernelSender;
use super::syscall::{self, Call, Calls, Header};
use super::{cmsg, fallback, sockaddr};
use crate::transport::{Egress, Inbox, Meta, Outbox, SendReport};

/// What is kept between the system calls of one socket.
#[derive(Debug)]
pub(super) struct BatchedSocket {
    features: UdpFeatures,
    /// Whether `recvmsg` and `sendmsg` may be called.
    recvmsg: bool,
    sendmsg: bool,
    /// How many messages at most may still wait that the kernel had merged when it became impossible
    /// to find out where their datagrams end.
    unsplit: usize,
    batch: BatchSize,
    looks_around: bool,
    is_empty: bool,
    /// As many as were needed so far, and no more than [`MAX_MESSAGES`](syscall::MAX_MESSAGES): a client may have hundreds
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
        shared: bool,
    ) -> Option<Self> {
        let system = System::of(socket);
        if !wanted.has(UdpFeature::Gro) {
            // An adopted socket may have it, and without it nothing would split what was merged.
            set_gro(socket, false);
        }
        let many = UdpFeature::Recvmmsg;
        // Without either call, nothing that comes with a datagram can be read.
        let can_read = system.recvmsg || system.features.has(many) && wanted.has(many);
        let set = |option| syscall::set_option(socket, option, 1).is_ok();
        let mut features = UdpFeatures::NONE;
        for feature in UdpFeature::ALL {
            let is_received = !matches!(feature, UdpFeature::Sendmmsg | UdpFeature::Gso);
            let has = wanted.has(feature)
                && (!is_received || can_read)
                && match feature {
                    UdpFeature::Gro => set_gro(socket, true),
                    UdpFeature::DropCount => set((libc::SOL_SOCKET, libc::SO_RXQ_OVFL)),
                    UdpFeature::Timestamp => set((libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)),
                    UdpFeature::PacketInfo => {
                        endpoint.wants_packet_info() && set_packet_info(socket, endpoint.family())
                    }
                    UdpFeature::Recvmmsg | UdpFeature::Sendmmsg | UdpFeature::Gso => {
                        system.features.has(feature)
                    }
                };
            features = features.with(feature, has);
        }
        (features != UdpFeatures::NONE).then(|| Self {
            features,
            recvmsg: system.recvmsg,
            sendmsg: system.sendmsg,
            unsplit: 0,
            batch: BatchSize::new(),
            looks_around: false,
            is_empty: false,
            headers: Vec::new(),
            drops: match sockopt::socket_cookie(socket) {
                Ok(cookie) if shared => DropCounter::shared(cookie),
                _ => DropCounter::default(),
            },
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
        loop {
            let calls = Calls {
                one: self.recvmsg,
                many: self.features.has(UdpFeature::Recvmmsg),
            };
            if calls == Calls::NONE {
                return self.recv_single(socket, endpoint, inbox, block);
            }
            match self.recv_batch(socket, endpoint, inbox, block, calls) {
                Err(error) if syscall::is_refusal(&error) && self.find_forbidden(socket, calls) => {
                }
                received => return received,
            }
        }
    }

    /// Finds out which calls of receiving a filter has come to forbid; `false` if none.
    #[cold]
    fn find_forbidden(&mut self, socket: &UdpSocket, calls: Calls) -> bool {
        let left = Calls {
            one: calls.one && !is_forbidden(Call::Recvmsg),
            many: calls.many && !is_forbidden(Call::Recvmmsg),
        };
        self.recvmsg = left.one;
        self.features = self.features.with(UdpFeature::Recvmmsg, left.many);
        if left == Calls::NONE {
            // Nothing that comes with a datagram can be read any more.
            if self.features.has(UdpFeature::Gro) {
                set_gro(socket, false);
                let bytes = SockRef::from(socket).recv_buffer_size();
                self.unsplit = bytes.map_or(0, |bytes| bytes / MIN_QUEUED_BYTES);
            }
            for feature in [
                UdpFeature::Gro,
                UdpFeature::PacketInfo,
                UdpFeature::DropCount,
                UdpFeature::Timestamp,
            ] {
                self.features = self.features.with(feature, false);
            }
        }
        left != calls
    }

    /// Receives one datagram by the fallback.
    #[cold]
    fn recv_single(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        inbox: &mut Inbox,
        block: bool,
    ) -> io::Result<usize> {
        if self.unsplit > 0 {
            // What was merged before looks like one datagram. It is counted, and never read.
            let received = fallback::recv(socket, endpoint, inbox, false, true)?;
            if received > 0 {
                self.unsplit -= 1;
                return Ok(received);
            }
            self.unsplit = 0;
        }
        fallback::recv(socket, endpoint, inbox, block, false)
    }

    fn recv_batch(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        inbox: &mut Inbox,
        block: bool,
        calls: Calls,
    ) -> io::Result<usize> {
        // What the kernel merged must not be cut, or its tail would be lost without a trace.
        let buffer_bytes = if self.features.has(UdpFeature::Gro) {
            usize::MAX
        } else {
            inbox.max_datagram_bytes() + 1
        };
        let waiting = inbox.len();
        let asked = match self.looks_around {
            true => self.batch.next().max(2),
            false => self.batch.next(),
        };
        self.is_empty = false;
        let received = syscall::receive(
            socket,
            inbox.spare().map(|buffer| {
                let len = buffer.len().min(buffer_bytes);
                &mut buffer[..len]
            }),
            Header::at_least(&mut self.headers, asked),
            block,
            calls,
        );
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
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
            meta.local_port = endpoint.port;
            meta.interface = control.interface;
            meta.delivery = control.delivery;
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
        self.is_empty = calls.many && received < asked && inbox.has_space();
        Ok(inbox.len() - waiting)
    }

    /// Asks for a second datagram in every call from now on, so that a call shows whether the queue is
    /// empty.
    #[cfg(feature = "tokio")]
    pub(super) fn look_around(&mut self) {
        self.looks_around = true;
    }

    /// Whether the latest call that received anything found the end of the queue.
    #[cfg(feature = "tokio")]
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Sends a batch.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        outbox: &Outbox,
    ) -> SendReport {
        let mut sent = SendReport::default();
        self.send_by(socket, endpoint, outbox, |sender, gso, kernel| {
            (sent, *gso) = sender.send(outbox, *gso, kernel);
        });
        sent
    }

    /// Sends until the send buffer is full. Returns whether every datagram was tried.
    #[cfg(feature = "tokio")]
    pub(super) fn try_send(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        outbox: &Outbox,
        sent: &mut SendReport,
    ) -> bool {
        let mut is_done = false;
        self.send_by(socket, endpoint, outbox, |sender, gso, kernel| {
            is_done = sender.try_send(outbox, gso, kernel, sent);
        });
        is_done
    }

    fn send_by(
        &mut self,
        socket: &UdpSocket,
        endpoint: &Endpoint,
        outbox: &Outbox,
        send: impl FnOnce(&mut GsoSender, &mut bool, &mut KernelSender<'_>),
    ) {
        let mut kernel = KernelSender {
            socket,
            endpoint,
            outbox,
            headers: &mut self.headers,
            calls: Calls {
                one: self.sendmsg,
                many: self.features.has(UdpFeature::Sendmmsg),
            },
            source: self.features.has(UdpFeature::PacketInfo),
        };
        let mut gso = self.features.has(UdpFeature::Gso);
        send(&mut self.sender, &mut gso, &mut kernel);
        let calls = kernel.calls;
        self.sendmsg = calls.one;
        self.features = self
            .features
            .with(UdpFeature::Gso, gso)
            .with(UdpFeature::Sendmmsg, calls.many);
    }

    /// Whether the fallback sends this outbox as well: a single datagram is not to pay for what only
    /// many gain by.
    #[inline]
    pub(super) fn is_plain(&self, outbox: &Outbox) -> bool {
        let mut datagrams = outbox.iter();
        let first = datagrams.next();
        let is_plain = |egress: Egress| {
            egress == Egress::default() || !self.features.has(UdpFeature::PacketInfo)
        };
        datagrams.len() == 0 && first.is_none_or(|first| is_plain(first.egress))
    }
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

/// Stands for a sender that has no IP address. Nothing can be sent there.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// What the kernel counts at least for a message in a receive buffer: its `sk_buff` alone has about that
/// size.
const MIN_QUEUED_BYTES: usize = 200;
/// Nothing waits longer for a program that is alive.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::udp::family::Family;

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
            BatchedSocket::new(&socket, &endpoint, wanted, true).expect("Linux has features");
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
        let mut batched = BatchedSocket::new(&socket, &endpoint, UdpFeatures::DEFAULT, true)
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
        assert!(BatchedSocket::new(&socket, &endpoint, UdpFeatures::NONE, true).is_none());
        assert_eq!(syscall::option(&socket, gro).expect("Linux tells"), 0);
    }
}
