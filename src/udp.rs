//! UDP: many datagrams per system call on Linux, one by the standard library elsewhere.

#[cfg(target_os = "linux")]
#[path = "udp/linux.rs"]
mod fast;
#[cfg(not(target_os = "linux"))]
#[path = "udp/none.rs"]
mod fast;
mod features;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod wire;

use std::hint;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{self, PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use self::fast::Fast;
pub use self::features::{UdpFeature, UdpFeatures};
use crate::transport::{Connect, SendReport, Transport, Wait, canonical, same_peer as same};
use crate::transport::{Inbox, Meta, Outbox, Outgoing};

/// A UDP socket as a [`Transport`], over IPv4, IPv6 or both.
///
/// On Linux it moves many datagrams per system call, and several to or from one peer as one, as far
/// as the system lets it: [`features`](Self::features) tells. Elsewhere, and where nothing of that
/// is to be had, it moves them one by one; what arrives and what leaves is the same.
///
/// ```
/// use rejoinder::udp::UdpTransport;
/// use rejoinder::Transport;
///
/// let transport = UdpTransport::bind("127.0.0.1:0")?;
/// assert_ne!(transport.local_addr()?.port(), 0);
/// println!("by {}", transport.features()); // recvmmsg, sendmmsg, gro, gso, rxq_ovfl
///     
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UdpTransport {
    socket: UdpSocket,
    family: Family,
    /// The one peer of a connected socket.
    peer: Option<SocketAddr>,
    /// The address that every datagram was sent to, if the socket is bound to a single one.
    local: Option<IpAddr>,
    fast: Option<Fast>,
    /// What the portable path has set the socket's blocking mode and timeout to, if that is known.
    wait: Option<Wait>,
}

impl UdpTransport {
    /// Binds a socket to the first of the addresses that can be had, with the defaults of
    /// [`UdpOptions`]. Port 0 means any free port; `[::]` means every address of the machine, IPv4
    /// too.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        UdpOptions::new().bind(addr)
    }

    /// Adopts a socket with whatever options it has, with the defaults of [`UdpOptions`] for the
    /// rest. Its blocking mode and its read timeout are the transport's to change from now on.
    ///
    /// ```
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::Transport;
    /// use std::net::UdpSocket;
    ///
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_ttl(1)?; // an option that `UdpOptions` has not
    /// let addr = socket.local_addr()?;
    /// assert_eq!(UdpTransport::from_socket(socket)?.local_addr()?, addr);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_socket(socket: UdpSocket) -> io::Result<Self> {
        UdpOptions::new().adopt(socket)
    }

    /// What the socket uses of what the system offers. It can become less while the transport is in
    /// use: what the system turns out to refuse is not tried for ever.
    pub fn features(&self) -> UdpFeatures {
        self.fast.as_ref().map_or(UdpFeatures::NONE, Fast::features)
    }

    /// How large the system made the receive buffer, in bytes as it counts them: on Linux with all
    /// its bookkeeping, which for a small datagram is most of it, and so up to twice what was
    /// [asked for](UdpOptions::receive_buffer_bytes).
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new()
    ///     .receive_buffer_bytes(65_536)
    ///     .bind("127.0.0.1:0")?;
    /// println!(
    ///     "asked for 65,536 bytes, got {}",
    ///     transport.receive_buffer_bytes()?
    /// );
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).recv_buffer_size()
    }

    /// How large the system made the send buffer, counted in the same way.
    ///
    /// ```
    /// let transport = rejoinder::udp::UdpTransport::bind("127.0.0.1:0")?;
    /// assert!(transport.send_buffer_bytes()? > 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).send_buffer_size()
    }

    fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        let wait = match wait {
            Wait::For(time) if time.is_zero() => Wait::No,
            Wait::Spin(_) => Wait::No,
            other => other,
        };
        if self.wait == Some(wait) {
            return Ok(());
        }
        let was_blocking = matches!(self.wait, Some(Wait::For(_) | Wait::Forever));
        self.wait = None;
        match wait {
            Wait::No | Wait::Spin(_) => self.socket.set_nonblocking(true)?,
            Wait::For(_) | Wait::Forever => {
                if !was_blocking {
                    self.socket.set_nonblocking(false)?;
                }
                self.socket.set_read_timeout(match wait {
                    Wait::For(time) => Some(time),
                    _ => None,
                })?;
            }
        }
        self.wait = Some(wait);
        Ok(())
    }

    fn send_one(&mut self, datagram: Outgoing<'_>) -> io::Result<()> {
        loop {
            let result = match self.peer {
                None => self
                    .socket
                    .send_to(datagram.bytes, self.family.native(datagram.peer)),
                Some(peer) if same(peer, canonical(datagram.peer)) => {
                    self.socket.send(datagram.bytes)
                }
                Some(_) => Err(wrong_peer()),
            };
            match result {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        && self.fast.is_none()
                        && matches!(self.wait, None | Some(Wait::No)) =>
                {
                    // The send buffer is full and the socket in the mode of the last `recv`, or
                    // the one it was adopted in. Those of the fast path always block, so there it
                    // is the end of a timeout that somebody else has set.
                    self.set_wait(Wait::Forever)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives one datagram.
    fn recv_one(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.set_wait(wait)?;
        let end = match wait {
            Wait::Spin(time) => Instant::now().checked_add(time),
            _ => None,
        };
        // All of it: where a datagram does not fit, some systems say no more than that.
        let Some(buffer) = inbox.spare().next() else {
            return Ok(0);
        };
        loop {
            match self.socket.recv_from(buffer) {
                Ok((len, peer)) => {
                    let mut meta = Meta::new(canonical(peer));
                    meta.local = self.local;
                    inbox.fill(len, meta);
                    return Ok(1);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => match end {
                        Some(end) if Instant::now() < end => hint::spin_loop(),
                        _ => return Ok(0),
                    },
                    // So the standard library calls a datagram from nobody, which is what a socket
                    // that was shut down for receiving gives, without end.
                    ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
                        return Err(io::Error::new(ErrorKind::NotConnected, error));
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

impl Transport for UdpTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let received = match &mut self.fast {
            Some(fast) => fast.recv(&self.socket, self.local, inbox, wait),
            None => self.recv_one(inbox, wait),
        };
        received.map_err(gone_for_good)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        if let Some(fast) = &mut self.fast {
            let mut datagrams = outbox.iter();
            let first = datagrams.next();
            // A lone request is not to pay for what only many gain by.
            let lone = datagrams.len() == 0 && first.is_none_or(|first| fast.is_plain(first.local));
            if !lone {
                return fast.send(&self.socket, self.family, self.peer, outbox);
            }
        }
        let mut sent = SendReport::default();
        for datagram in outbox.iter() {
            match self.send_one(datagram) {
                Ok(()) => sent.datagrams += 1,
                Err(error) => sent.fail(error),
            }
        }
        sent
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// As told by the last datagram received, if [`UdpFeature::DropCount`] is in use. What several
    /// datagrams were merged into counts once. A socket that was [adopted](UdpOptions::adopt) may have
    /// lost some before, which are among them.
    fn kernel_drops(&self) -> u64 {
        self.fast.as_ref().map_or(0, Fast::kernel_drops)
    }
}

/// How to open UDP sockets. As a [`Connect`], it is what a UDP client is made with.
///
/// ```
/// use rejoinder::udp::{UdpFeature, UdpOptions};
/// use rejoinder::Transport;
///
/// let options = UdpOptions::new()
///     .receive_buffer_bytes(1 << 20)
///     .send_buffer_bytes(0) // as the system makes it
///     .with(UdpFeature::Timestamp);
/// let transport = options.bind("127.0.0.1:0")?;
/// assert!(transport.receive_buffer_bytes()? > 0 && transport.send_buffer_bytes()? > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct UdpOptions {
    only_v6: bool,
    receive_buffer_bytes: usize,
    send_buffer_bytes: usize,
    features: UdpFeatures,
}

impl UdpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            only_v6: false,
            receive_buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: BUFFER_BYTES,
            features: UdpFeatures::DEFAULT,
        }
    }

    /// Whether a socket on `[::]` leaves IPv4 alone. The default is `false`: it serves both.
    ///
    /// ```no_run
    /// use rejoinder::udp::UdpOptions;
    ///
    /// // Two sockets on one port, where otherwise the first would take both.
    /// let v6 = UdpOptions::new().only_v6(true).bind("[::]:9999")?;
    /// let v4 = UdpOptions::new().bind("0.0.0.0:9999")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = only_v6;
        self
    }

    /// How large a receive buffer to ask the system for, in bytes. It takes up memory only as far
    /// as it is filled. Default: 4,194,304; 0 leaves it as the system makes it, which on Linux is
    /// enough for about 256 small datagrams.
    ///
    /// The system may grant less without a word, on Linux what the administrator allows
    /// (`net.core.rmem_max`, often 212,992):
    /// [`receive_buffer_bytes`](UdpTransport::receive_buffer_bytes) tells.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = bytes;
        self
    }

    /// How large a send buffer to ask the system for, in bytes. Default: 4,194,304; 0 leaves it as
    /// the system makes it. The limit on Linux is `net.core.wmem_max`.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.send_buffer_bytes = bytes;
        self
    }

    /// Leaves a feature of the system unused, as if it did not have it: for tests, and for systems
    /// where one is broken. The default is to use all but [`UdpFeature::Timestamp`].
    ///
    /// ```
    /// use rejoinder::udp::{UdpFeature, UdpOptions};
    ///
    /// let options = UdpOptions::new().without(UdpFeature::Gso);
    /// assert!(
    ///     !options
    ///         .bind("127.0.0.1:0")?
    ///         .features()
    ///         .contains(UdpFeature::Gso)
    /// );
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn without(mut self, feature: UdpFeature) -> Self {
        self.features = self.features.with(feature, false);
        self
    }

    /// Uses a feature if the system has it: the one that is not used by default, or one that was
    /// left unused.
    #[must_use]
    pub fn with(mut self, feature: UdpFeature) -> Self {
        self.features = self.features.with(feature, true);
        self
    }

    /// Leaves all [features](UdpFeature) unused, so that the socket is moved one datagram at a time
    /// by the standard library, as on any system.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().portable().bind("127.0.0.1:0")?;
    /// assert_eq!(transport.features().to_string(), "portable");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn portable(mut self) -> Self {
        self.features = UdpFeatures::NONE;
        self
    }

    pub(crate) fn is_portable(&self) -> bool {
        self.features == UdpFeatures::NONE
    }

    /// Binds a socket to the first of the addresses that can be had; the error is the last one's.
    pub fn bind(&self, addr: impl ToSocketAddrs) -> io::Result<UdpTransport> {
        bind_any(addr, |addr| self.adopt(self.open(addr)?))
    }

    /// Binds several sockets to one address, the first that can be had. The system spreads the
    /// peers among them: all datagrams of one peer reach the same socket, for as long as the group
    /// stays as it is. Other sockets cannot bind to the address as if it were free, but sockets of
    /// the same user that set `SO_REUSEPORT` before can.
    ///
    /// More than one needs Linux: elsewhere it is an error of the kind
    /// [`ErrorKind::Unsupported`]. None is one of the kind [`ErrorKind::InvalidInput`].
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Transport;
    ///
    /// # #[cfg(target_os = "linux")] {
    /// let group = UdpOptions::new().bind_group("127.0.0.1:0", 2)?;
    /// assert_eq!(group.len(), 2);
    /// assert_eq!(group[0].local_addr()?, group[1].local_addr()?);
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind_group(
        &self,
        addr: impl ToSocketAddrs,
        sockets: usize,
    ) -> io::Result<Vec<UdpTransport>> {
        if sockets == 0 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "a group has a socket",
            ));
        }
        bind_any(addr, |addr| {
            let first = self.open(addr)?;
            let addr = first.local_addr()?;
            if sockets > 1 {
                // Only now: before, it would have let the first one in beside a stranger.
                fast::set_reuse_port(&first)?;
            }
            let mut group = vec![self.adopt(first)?];
            for _ in 1..sockets {
                let socket = self.socket(addr)?.into();
                fast::set_reuse_port(&socket)?;
                SockRef::from(&socket).bind(&addr.into())?;
                group.push(self.adopt(socket)?);
            }
            Ok(group)
        })
    }

    /// Adopts a socket with whatever options it has; of these, only the features and the sizes of
    /// the buffers apply. Its blocking mode and its read timeout are the transport's to change from
    /// now on. If the system was asked to tell more about each datagram than fits into 256 bytes
    /// with what the features need, all seem [truncated](Meta::truncated).
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Transport;
    /// use std::net::UdpSocket;
    ///
    /// // A socket that somebody else has bound: a service manager, say.
    /// let inherited = UdpSocket::bind("127.0.0.1:0")?;
    /// let transport = UdpOptions::new().receive_buffer_bytes(0).adopt(inherited)?;
    /// assert_ne!(transport.local_addr()?.port(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn adopt(&self, socket: UdpSocket) -> io::Result<UdpTransport> {
        let addr = socket.local_addr()?;
        let family = match addr {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let local = Some(addr.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        let sizes = SockRef::from(&socket);
        ask_for(self.receive_buffer_bytes, |size| {
            sizes.set_recv_buffer_size(size)
        });
        ask_for(self.send_buffer_bytes, |size| {
            sizes.set_send_buffer_size(size)
        });
        Ok(UdpTransport {
            fast: Fast::new(&socket, family, local.is_none(), self.features)?,
            family,
            peer: socket.peer_addr().ok().map(canonical),
            local,
            wait: None,
            socket,
        })
    }

    fn open(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(addr)?;
        socket.bind(&addr.into())?;
        Ok(socket.into())
    }

    /// A socket that is not bound yet.
    fn socket(&self, addr: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // Systems differ in the default.
            socket.set_only_v6(self.only_v6)?;
        }
        Ok(socket)
    }
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Opens UDP sockets for a client.
///
/// ```
/// use rejoinder::transport::Connect;
/// use rejoinder::udp::{UdpConnector, UdpOptions};
///
/// let connector = UdpConnector::from(UdpOptions::new().portable());
/// assert!(connector.connect("127.0.0.1:9999".parse()?).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UdpConnector(UdpOptions);

impl From<UdpOptions> for UdpConnector {
    fn from(options: UdpOptions) -> Self {
        Self(options)
    }
}

impl Connect for UdpConnector {
    type Transport = UdpTransport;

    /// Fails for an unspecified address: a server can be bound to it, but nobody answers from it.
    fn connect(&self, peer: SocketAddr) -> io::Result<UdpTransport> {
        let peer = canonical(peer);
        if peer.ip().is_unspecified() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{} is not the address of any peer", peer.ip()),
            ));
        }
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = self.0.open(SocketAddr::new(any, 0))?;
        socket.connect(peer)?;
        self.0.adopt(socket)
    }

    fn wait_any(
        &self,
        transports: &[&UdpTransport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let mut sockets: Vec<_> = transports
            .iter()
            .map(|transport| PollFd::new(&transport.socket, PollFlags::IN))
            .collect();
        let timeout = match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::For(time) | Wait::Spin(time) => Some(time.min(LONGEST_POLL)),
            Wait::Forever => None,
        };
        let timeout =
            timeout.map(|time| Timespec::try_from(time).expect("poll takes the seconds of a day"));
        event::poll(&mut sockets, timeout.as_ref())?;
        ready.extend((0..sockets.len()).filter(|&index| !sockets[index].revents().is_empty()));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The form in which a socket of this family takes an address.
    fn native(self, addr: SocketAddr) -> SocketAddr {
        match (self, addr) {
            (Self::V6, SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => addr,
        }
    }

    /// The form in which a socket of this family takes the address to send from, with the interface
    /// that it belongs to, or 0; `None` if nothing to `peer` can leave from there.
    #[cfg(target_os = "linux")]
    fn source(self, source: IpAddr, peer: SocketAddr) -> Option<(IpAddr, u32)> {
        if source.is_unspecified() || source.is_multicast() {
            return None;
        }
        match (self, source, canonical(peer)) {
            (Self::V4, IpAddr::V4(_), SocketAddr::V4(_)) => Some((source, 0)),
            (Self::V6, IpAddr::V4(v4), SocketAddr::V4(_)) => Some((v4.to_ipv6_mapped().into(), 0)),
            (Self::V6, IpAddr::V6(v6), SocketAddr::V6(peer)) => {
                let interface = peer.scope_id();
                // RFC 4007 §6: such an address says nothing without its zone.
                let needs_interface = v6.is_unicast_link_local();
                (interface != 0 || !needs_interface).then_some((source, interface))
            }
            _ => None,
        }
    }
}

/// The first success, or the last error.
fn bind_any<T>(
    addr: impl ToSocketAddrs,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = Err(io::Error::new(
        ErrorKind::InvalidInput,
        "no address to bind to",
    ));
    for addr in addr.to_socket_addrs()? {
        result = bind(addr);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Asks for a buffer of `size` bytes, or as much of it as is granted.
fn ask_for(mut size: usize, set: impl Fn(usize) -> io::Result<()>) {
    // Linux grants what it may. Others refuse what is too much.
    while size > 0 && set(size).is_err() {
        size /= 2;
    }
}

fn wrong_peer() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        "the socket is connected to another peer",
    )
}

/// Gives errors that say "this is no socket (any more)" the kind that ends the receiving loop.
fn gone_for_good(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if NO_SOCKET.contains(&code) => io::Error::new(ErrorKind::NotConnected, error),
        _ => error,
    }
}

/// Some systems take no more than 2^31 milliseconds. Returning early is allowed.
const LONGEST_POLL: Duration = Duration::from_secs(86_400);
/// Enough for some 10,000 small datagrams: Linux doubles what it is asked for, and counts 832 bytes for
/// each (as seen over the loopback of Linux 6.18).
const BUFFER_BYTES: usize = 4 << 20;
/// EBADF and ENOTSOCK.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SOCKET: [i32; 2] = [9, 88];
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const NO_SOCKET: [i32; 2] = [9, 38];
/// WSAEBADF and WSAENOTSOCK.
#[cfg(not(unix))]
const NO_SOCKET: [i32; 2] = [10_009, 10_038];
