//! Transports: where datagrams come from and go to.

mod blocking;
mod datagram;
mod error;
mod inbox;
mod local_port;
mod outbox;
mod send_report;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

pub use self::blocking::Blocking;
pub(crate) use self::datagram::MAX_V6_DATAGRAM_BYTES;
pub use self::datagram::{Datagram, Delivery, Egress, MAX_DATAGRAM_BYTES, Meta, Outgoing, Proxied};
pub(crate) use self::datagram::{egress, local_addr};
pub use self::error::ErrorClass;
pub(crate) use self::error::ErrorCounts;
pub use self::inbox::Inbox;
pub use self::local_port::LocalPort;
#[cfg(all(feature = "udp", target_os = "linux"))]
pub(crate) use self::outbox::Queued;
pub use self::outbox::{Outbox, PushError};
pub use self::send_report::SendReport;
use crate::timestamp::Timestamp;

/// A place where datagrams arrive and from which they leave.
///
/// # Who calls what
///
/// A driver calls [`recv`](Self::recv) with an empty [`Inbox`], works through it, and passes the
/// [`Outbox`] that came of it to [`send`](Self::send); then it begins again.
/// [`now`](Self::now) is asked after every `recv`, once for the whole batch.
///
/// # What an implementation guarantees
///
/// - **Whole datagrams.** A datagram longer than the inbox's limit is delivered with
///   [`Meta::truncated`] set, and no other is. What happens to the part that fits is not said.
/// - **Canonical addresses.** An IPv4 peer is an IPv4 address, on a dual-stack socket too (never
///   `::ffff:192.0.2.1`), and can be sent to in that form.
/// - **Responses go back the way the request came.** [`Meta::local`] is the address that the
///   datagram was sent to, where the OS reports it; a datagram in the outbox with an [`Egress`] leaves
///   from there, where the OS can. A transport with [associations](Meta::association) sends a response by
///   the one that its request came by, or not at all. A transport that wraps another passes `Meta` and
///   `Egress` on whole.
/// - **Every datagram of an outbox is tried**, in order for each peer, and [`SendReport::sent`] +
///   [`SendReport::failed`] is their number. One that fails holds up no other. (In the outbox of a
///   [`Server`](crate::Server) whose responses carry [ids](crate::Correlation::Id), order does not
///   matter, and [`UdpTransport`](crate::udp::UdpTransport) does not keep it.)
///
/// # Blocking
///
/// `recv` returns as soon as there is at least one datagram and never waits for a second. With
/// nothing to receive, it returns 0 once [`Wait`] is over; it may return 0 early, so callers look
/// at the clock. `send` never waits: a datagram for which there is no room fails with
/// [`io::ErrorKind::WouldBlock`], of the class [`Resources`](ErrorClass::Resources). One absent peer
/// can fill the send buffer for seconds, and the receiver of all others would wait with it. Callers
/// that have nothing else to do can [wait for room](Self::wait_for_room).
///
/// # Errors
///
/// An error of `recv` means that one attempt failed, and the next may succeed. On UDP, forged
/// packets can cause many of them, so no caller ends because of one. The exception has the kind
/// [`io::ErrorKind::NotConnected`]: the transport is gone for good. [`io::ErrorKind::Interrupted`]
/// says that a signal came.
///
/// # A minimal implementation
///
/// ```
/// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
/// use rejoinder::{Transport, Wait};
/// use std::{collections::VecDeque, io, net::SocketAddr};
///
/// /// Whatever is sent comes back.
/// struct Loopback {
///     addr: SocketAddr,
///     queue: VecDeque<Vec<u8>>,
/// }
///
/// impl Transport for Loopback {
///     fn recv(&mut self, inbox: &mut Inbox, _: Wait) -> io::Result<usize> {
///         let mut received = 0;
///         while inbox.has_space() {
///             let Some(bytes) = self.queue.pop_front() else {
///                 break;
///             };
///             inbox.push(&bytes, Meta::new(self.addr));
///             received += 1;
///         }
///         Ok(received)
///     }
///     fn send(&mut self, outbox: &Outbox) -> SendReport {
///         self.queue
///             .extend(outbox.iter().map(|datagram| datagram.bytes.to_vec()));
///         SendReport::accepted(outbox.len())
///     }
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         Ok(self.addr)
///     }
/// }
/// ```
///
/// Tempting, and wrong: returning the error of the first failed datagram from `send` and leaving
/// the rest. One peer that cannot be reached would silence all that come after it.
pub trait Transport {
    /// Receives one batch into an empty inbox and returns how many datagrams it holds.
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize>;

    /// Sends all of an outbox. It is the caller who clears it.
    fn send(&mut self, outbox: &Outbox) -> SendReport;

    /// The address that this transport is bound to.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits until there is room to send, after a [`send`](Self::send) that had none. It may return
    /// early, so callers look at the clock. The default does not wait: for transports whose queue has
    /// no limit.
    ///
    /// ```
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::{Transport, Wait};
    /// use std::time::Duration;
    ///
    /// let mut transport = UdpTransport::bind("127.0.0.1:0")?;
    /// transport.wait_for_room(Wait::For(Duration::from_millis(100)))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        let _ = wait;
        Ok(())
    }

    /// Whether the IP address in `addr` is one of this machine's; its port says nothing, its scope
    /// names the interface of a link-local address. The server asks about peers that have its own
    /// port, see [`ServerCore::set_is_local_ip`](crate::sans_io::ServerCore::set_is_local_ip). The
    /// default does not know, and returns `true`.
    ///
    /// ```
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::Transport;
    ///
    /// assert!(UdpTransport::is_local_ip("127.0.0.1:0".parse()?));
    /// assert!(!UdpTransport::is_local_ip("192.0.2.1:0".parse()?)); // an address for documentation
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    fn is_local_ip(addr: SocketAddr) -> bool
    where
        Self: Sized,
    {
        let _ = addr;
        true
    }

    /// The number of datagrams that the kernel has dropped since the transport was opened because
    /// the receive buffer was full, as far as is known. It never decreases. Drivers call it once
    /// per batch, so an implementation returns a stored value rather than make a system call. The
    /// default is 0.
    ///
    /// ```
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::Transport;
    ///
    /// let transport = UdpTransport::bind("127.0.0.1:0")?;
    /// assert_eq!(transport.kernel_drops(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    fn kernel_drops(&self) -> u64 {
        0
    }

    /// Reads the transport's clock: the OS's, unless time is simulated.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Transport;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let endpoint = net.bind("10.0.0.1:0".parse()?)?;
    /// let before = endpoint.now();
    /// net.advance(Duration::from_secs(3));
    /// assert_eq!(
    ///     endpoint.now().monotonic - before.monotonic,
    ///     Duration::from_secs(3)
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn now(&self) -> Timestamp {
        Timestamp::system()
    }
}

/// Opens a transport that talks to one peer: what a client asks for whenever it needs a socket.
///
/// [`UdpConnector`](crate::udp::UdpConnector) is one, and so is [`SimNet`](crate::sim::SimNet). A driver calls [`connect`](Self::connect) for a socket,
/// [`now`](Self::now) before it waits and after, and [`wait_any`](Self::wait_any) only where it has more
/// than one socket to wait for.
///
/// ```
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::transport::Connect;
/// use rejoinder::{Client, Timestamp, Wait};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::{io, net::SocketAddr};
///
/// /// Counts the sockets that a client opens.
/// struct Counted<N>(N, Arc<AtomicUsize>);
///
/// impl<N: Connect> Connect for Counted<N> {
///     type Transport = N::Transport;
///
///     fn connect(&self, peer: SocketAddr) -> io::Result<N::Transport> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.0.connect(peer)
///     }
///     fn now(&self) -> Timestamp {
///         self.0.now()
///     }
///     fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
///         self.0.entropy(bytes)
///     }
///     fn wait_any(
///         &self,
///         all: &[&N::Transport],
///         wait: Wait,
///         ready: &mut Vec<usize>,
///     ) -> io::Result<()> {
///         self.0.wait_any(all, wait, ready)
///     }
/// }
///
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(
///     server,
///     ServerCore::new(Tagged(Text), |text: &str| Some(text.len().to_string())),
/// )?;
/// let opened = Arc::new(AtomicUsize::new(0));
/// let mut client = Client::new(Counted(net, Arc::clone(&opened)), Tagged(Text), server);
/// for question in ["a", "bc", "def"] {
///     assert_eq!(client.request(question)?, question.len().to_string());
/// }
/// // Ids tell the answers apart, so one socket does for all.
/// assert_eq!(opened.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Connect {
    /// What it opens.
    type Transport: Transport;

    /// Opens a transport on a local address that no other has, for talking to `peer` only.
    /// Datagrams from others may be filtered out, or delivered: clients check.
    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport>;

    /// Reads the clock that the transports will live by.
    fn now(&self) -> Timestamp {
        Timestamp::system()
    }

    /// Fills `bytes` with unpredictable values, for ids and jitter: from the OS's generator, unless
    /// randomness is simulated.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::from)
    }

    /// Waits until at least one of the transports has something to receive, a datagram or an
    /// error, and appends the indices of those that may have to `ready`. It may return early, with
    /// none.
    ///
    /// This default knows no way to wait for several transports: it waits a millisecond and calls
    /// all of them ready. Those of this crate do better.
    fn wait_any(
        &self,
        transports: &[&Self::Transport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        match wait {
            Wait::No => {}
            Wait::For(time) | Wait::Spin(time) => thread::sleep(time.min(Duration::from_millis(1))),
            Wait::Forever => thread::sleep(Duration::from_millis(1)),
        }
        ready.extend(0..transports.len());
        Ok(())
    }
}

/// How long [`Transport::recv`] waits for the first datagram.
///
/// ```
/// use rejoinder::sim::SimNet;
/// use rejoinder::transport::Inbox;
/// use rejoinder::{Transport, Wait};
/// use std::time::Duration;
///
/// let net = SimNet::new();
/// let mut endpoint = net.bind("10.0.0.1:0".parse()?)?;
/// let mut inbox = Inbox::new(1, 512);
/// assert_eq!(endpoint.recv(&mut inbox, Wait::No)?, 0);
/// assert_eq!(net.now().monotonic, Duration::ZERO);
/// assert_eq!(
///     endpoint.recv(&mut inbox, Wait::For(Duration::from_secs(5)))?,
///     0
/// );
/// assert_eq!(net.now().monotonic, Duration::from_secs(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    For(Duration),
    /// Until there is one.
    Forever,
    /// At most so long, without giving up the processor (busy polling). It saves the time that it
    /// takes to fall asleep and to wake up, some microseconds, and costs all of one core. A
    /// transport that cannot do it waits as it does with [`For`](Self::For).
    Spin(Duration),
}

impl Wait {
    /// When it is over, on the clock that `now` was read from; [`Duration::MAX`] for never.
    ///
    /// ```
    /// use rejoinder::Wait;
    /// use std::time::Duration;
    ///
    /// let now = Duration::from_secs(100);
    /// let wait = Wait::For(Duration::from_secs(5));
    /// assert_eq!(wait.deadline(now), Duration::from_secs(105));
    /// assert_eq!(Wait::Forever.deadline(now), Duration::MAX);
    /// ```
    pub const fn deadline(self, now: Duration) -> Duration {
        match self {
            Self::No => now,
            Self::For(time) | Self::Spin(time) => now.saturating_add(time),
            Self::Forever => Duration::MAX,
        }
    }

    /// How long it takes at most: zero for [`No`](Self::No), `None` for [`Forever`](Self::Forever).
    ///
    /// ```
    /// use rejoinder::Wait;
    /// use std::time::Duration;
    ///
    /// assert_eq!(Wait::No.timeout(), Some(Duration::ZERO));
    /// assert_eq!(Wait::Forever.timeout(), None);
    /// ```
    pub const fn timeout(self) -> Option<Duration> {
        match self {
            Self::No => Some(Duration::ZERO),
            Self::For(time) | Self::Spin(time) => Some(time),
            Self::Forever => None,
        }
    }
}

/// Converts an IPv4-mapped IPv6 address to IPv4. Transports report addresses only in this form.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, addr.port()),
        // Unchanged, with its scope.
        IpAddr::V6(_) => addr,
    }
}

/// Whether an address is that of a group, as far as the address says: the broadcast address of a subnet
/// looks like any other.
pub(crate) fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether two canonical addresses are those of one peer. The flow label is ignored. A scope
/// matters only if both have one: zero means none (RFC 4007 §6), and systems omit it for addresses
/// that need none.
pub(crate) fn same_peer(one: SocketAddr, other: SocketAddr) -> bool {
    match (one, other) {
        (SocketAddr::V6(one), SocketAddr::V6(other)) => {
            let scopes = [one.scope_id(), other.scope_id()];
            (one.ip(), one.port()) == (other.ip(), other.port())
                && (scopes[0] == scopes[1] || scopes.contains(&0))
        }
        _ => one == other,
    }
}
