//! UDP by the standard library: one datagram per system call, on every system.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use rustix::event::{self, PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, Socket, Type};

use super::batch::{Inbox, Meta, Outbox, Outgoing};
use super::{Connect, Sent, Transport, Wait};

/// A UDP socket as a [`Transport`], over IPv4, IPv6 or both.
///
/// ```
/// use rejoinder::{Transport, UdpTransport};
///
/// let transport = UdpTransport::bind("127.0.0.1:0")?;
/// assert_ne!(transport.local_addr()?.port(), 0);
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
    /// What the socket's blocking mode and timeout are set to, if that is known.
    wait: Option<Wait>,
}

impl UdpTransport {
    /// Binds a socket to the first of the addresses that can be had. Port 0 means any free port;
    /// `[::]` means every address of the machine, IPv4 too.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        UdpOptions::new().bind(addr)
    }

    /// Adopts a socket with whatever options it has. Its blocking mode and its read timeout are
    /// the transport's to change from now on.
    pub fn from_socket(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            family: if local.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            },
            peer: socket.peer_addr().ok().map(canonical),
            local: Some(local.ip().to_canonical()).filter(|ip| !ip.is_unspecified()),
            wait: None,
            socket,
        })
    }

    fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        let wait = match wait {
            Wait::For(time) if time.is_zero() => Wait::No,
            other => other,
        };
        if self.wait == Some(wait) {
            return Ok(());
        }
        let was_blocking = matches!(self.wait, Some(Wait::For(_) | Wait::Forever));
        self.wait = None;
        match wait {
            Wait::No => self.socket.set_nonblocking(true)?,
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
                Some(peer) if peer == datagram.peer => self.socket.send(datagram.bytes),
                Some(_) => Err(io::Error::new(
                    ErrorKind::InvalidInput,
                    "the socket is connected to another peer",
                )),
            };
            match result {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && self.wait == Some(Wait::No) =>
                {
                    // The send buffer is full and the socket in the mode of the last `recv`.
                    self.set_wait(Wait::Forever)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Transport for UdpTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.set_wait(wait).map_err(gone_for_good)?;
        let Some(buffer) = inbox.spare().next() else {
            return Ok(0);
        };
        match self.socket.recv_from(buffer) {
            Ok((len, peer)) => {
                let mut meta = Meta::new(canonical(peer));
                meta.local = self.local;
                inbox.fill(len, meta);
                Ok(1)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(0),
                _ => Err(gone_for_good(error)),
            },
        }
    }

    fn send(&mut self, outbox: &Outbox) -> Sent {
        let mut sent = Sent::default();
        for datagram in outbox.iter() {
            match self.send_one(datagram) {
                Ok(()) => sent.datagrams += 1,
                Err(error) => {
                    sent.failed += 1;
                    sent.error = Some(error);
                }
            }
        }
        sent
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// How to open UDP sockets. As a [`Connect`], it is what a UDP client is made with.
///
/// ```
/// use rejoinder::{Transport, UdpOptions};
///
/// let transport = UdpOptions::new().only_v6(true).bind("[::1]:0")?;
/// assert!(transport.local_addr()?.is_ipv6());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UdpOptions {
    only_v6: bool,
}

impl UdpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a socket on `[::]` leaves IPv4 alone. The default is `false`: it serves both.
    #[must_use]
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = only_v6;
        self
    }

    /// Binds a socket to the first of the addresses that can be had; the error is the last one's.
    pub fn bind(&self, addr: impl ToSocketAddrs) -> io::Result<UdpTransport> {
        let mut result = Err(io::Error::new(
            ErrorKind::InvalidInput,
            "no address to bind to",
        ));
        for addr in addr.to_socket_addrs()? {
            result = self.open(addr);
            if result.is_ok() {
                break;
            }
        }
        UdpTransport::from_socket(result?)
    }

    fn open(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // Systems differ in the default.
            socket.set_only_v6(self.only_v6)?;
        }
        socket.bind(&addr.into())?;
        Ok(socket.into())
    }
}

impl Connect for UdpOptions {
    type Transport = UdpTransport;

    fn connect(&self, peer: SocketAddr) -> io::Result<UdpTransport> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = self.open(SocketAddr::new(any, 0))?;
        socket.connect(peer)?;
        UdpTransport::from_socket(socket)
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
            Wait::For(time) => Some(time.min(LONGEST_POLL)),
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
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, addr.port()),
        // Unchanged, with its scope.
        IpAddr::V6(_) => addr,
    }
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
/// EBADF and ENOTSOCK.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SOCKET: [i32; 2] = [9, 88];
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const NO_SOCKET: [i32; 2] = [9, 38];
/// WSAEBADF and WSAENOTSOCK.
#[cfg(not(unix))]
const NO_SOCKET: [i32; 2] = [10_009, 10_038];
