use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
#[cfg(windows)]
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};

use rustix::event::{PollFd, PollFlags};
use socket2::SockRef;

use super::blocking::{Blocking, poll};
use super::family::Endpoint;
use super::features::UdpFeatures;
#[cfg(target_os = "linux")]
use super::linux::BatchedSocket;
use super::{fallback, socket_options};
use crate::transport::{Inbox, Outbox, SendReport, Transport, Wait};

/// A UDP socket as a [`Transport`], over IPv4, IPv6 or both.
///
/// On Linux it moves many datagrams per system call, and several to or from one peer as one, as far
/// as the kernel can: [`features`](Self::features) returns how. Elsewhere, and where the kernel can
/// do none of that, it moves them one by one; what arrives and what leaves is the same.
///
/// As [`AsFd`] (`AsSocket` on Windows), it can be registered with an event loop, and options can be
/// set that [`UdpOptions`](super::UdpOptions) does not have. Its blocking mode and its receive timeout are the
/// transport's own: do not change them.
///
/// ```
/// use rejoinder::udp::UdpTransport;
/// use rejoinder::Transport;
///
/// let transport = UdpTransport::bind("127.0.0.1:0")?;
/// assert_ne!(transport.local_addr()?.port(), 0);
/// println!("by {}", transport.features()); // recvmmsg, sendmmsg, gro, gso, rxq_ovfl
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UdpTransport {
    socket: UdpSocket,
    endpoint: Endpoint,
    blocking: Blocking,
    #[cfg(target_os = "linux")]
    batched: Option<BatchedSocket>,
}

impl UdpTransport {
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "there are no features")
    )]
    pub(super) fn new(socket: UdpSocket, features: UdpFeatures, owner: Owner) -> io::Result<Self> {
        let endpoint = Endpoint::of(&socket)?;
        Ok(Self {
            blocking: match owner {
                Owner::Transport => Blocking::owned(&socket)?,
                Owner::Shared => Blocking::adopted(&socket)?,
            },
            #[cfg(target_os = "linux")]
            batched: BatchedSocket::new(&socket, &endpoint, features, owner == Owner::Shared),
            endpoint,
            socket,
        })
    }

    /// Joins a multicast group on an interface, as
    /// [`UdpOptions::multicast_group`](super::UdpOptions::multicast_group) does from the start.
    ///
    /// ```no_run
    /// use rejoinder::udp::UdpTransport;
    ///
    /// let transport = UdpTransport::bind("0.0.0.0:9999")?;
    /// let group = "239.1.2.3".parse()?;
    /// transport.join_multicast(group, 0)?;
    /// transport.leave_multicast(group, 0)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        socket_options::join(&self.socket, group, interface)
    }

    /// Leaves a group that was joined on this interface.
    pub fn leave_multicast(&self, group: IpAddr, interface: u32) -> io::Result<()> {
        socket_options::leave(&self.socket, group, interface)
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// After `poll` reported an error and nothing to receive.
    pub(super) fn on_error(&self) {
        self.blocking.on_error(&self.socket);
    }

    /// What the socket uses of what the kernel offers. It can become less while the transport is in
    /// use: what the kernel refuses is not tried again.
    pub fn features(&self) -> UdpFeatures {
        #[cfg(target_os = "linux")]
        if let Some(batched) = &self.batched {
            return batched.features();
        }
        UdpFeatures::NONE
    }

    /// The size of the receive buffer that the kernel granted, in bytes as it counts them: on Linux
    /// with its bookkeeping, which for a small datagram is most of it, and so up to twice what was
    /// [asked for](super::UdpOptions::receive_buffer_bytes).
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
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive_buffer_bytes(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).recv_buffer_size()
    }

    /// The size of the send buffer that the kernel granted, counted in the same way.
    ///
    /// ```
    /// let transport = rejoinder::udp::UdpTransport::bind("127.0.0.1:0")?;
    /// assert!(transport.send_buffer_bytes()? > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).send_buffer_size()
    }
}

/// For drivers that wait elsewhere.
#[cfg(feature = "tokio")]
impl UdpTransport {
    /// Sends what is left of an outbox until the send buffer is full, and adds what became of it to
    /// `sent`. Returns whether every datagram was tried; if not, the next call goes on with the same
    /// outbox and the same report.
    pub(crate) fn try_send(&mut self, outbox: &Outbox, sent: &mut SendReport) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(batched) = &mut self.batched
            && !batched.is_plain(outbox)
        {
            return batched.try_send(&self.socket, &self.endpoint, outbox, sent);
        }
        fallback::try_send(&self.socket, &self.endpoint, outbox, sent)
    }

    /// Receives what is there, without waiting. Returns whether the queue was empty afterwards, as far
    /// as is known: then there is no use in receiving again before the socket is readable.
    pub(crate) fn try_recv(&mut self, inbox: &mut Inbox) -> (io::Result<usize>, bool) {
        #[cfg(target_os = "linux")]
        if let Some(batched) = &mut self.batched {
            batched.look_around();
            let received = self.recv(inbox, Wait::No);
            let is_empty = self.batched.as_ref().is_some_and(BatchedSocket::is_empty);
            return (received, is_empty);
        }
        (self.recv(inbox, Wait::No), false)
    }
}

/// Who may change a socket's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It was opened for this transport.
    Transport,
    /// It was adopted, and may have other owners.
    Shared,
}

impl Transport for UdpTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        if !inbox.has_space() {
            return Ok(0);
        }
        let Self {
            socket,
            endpoint,
            blocking,
            ..
        } = self;
        #[cfg(target_os = "linux")]
        if let Some(batched) = &mut self.batched {
            let receive = |block| batched.recv(socket, endpoint, inbox, block);
            let received = blocking.receive(socket, wait, receive);
            return received.map_err(gone_for_good);
        }
        let receive = |block| fallback::recv(socket, endpoint, inbox, block, false);
        blocking
            .receive(socket, wait, receive)
            .map_err(gone_for_good)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        #[cfg(target_os = "linux")]
        if let Some(batched) = &mut self.batched
            && !batched.is_plain(outbox)
        {
            return batched.send(&self.socket, &self.endpoint, outbox);
        }
        fallback::send(&self.socket, &self.endpoint, outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        poll(
            &mut [PollFd::new(&self.socket, PollFlags::OUT)],
            wait.timeout(),
        )
    }

    /// Asks the kernel, by binding a socket to it: an address of this machine can be bound to, one
    /// of another cannot. Where a socket may be bound to any address (`net.ipv4.ip_nonlocal_bind`),
    /// or none can be opened, the answer is unknown.
    fn is_local_ip(addr: SocketAddr) -> bool {
        let mut addr = addr;
        addr.set_port(0);
        match UdpSocket::bind(addr) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
        }
    }

    /// As reported with the last datagram received, on Linux. What several datagrams were merged into
    /// counts once. A socket that was [adopted](super::UdpOptions::adopt) may have lost some before, which
    /// are among them.
    fn kernel_drops(&self) -> u64 {
        #[cfg(target_os = "linux")]
        if let Some(batched) = &self.batched {
            return batched.kernel_drops();
        }
        0
    }
}

#[cfg(unix)]
impl AsFd for UdpTransport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(unix)]
impl AsRawFd for UdpTransport {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(windows)]
impl AsSocket for UdpTransport {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.socket.as_socket()
    }
}

#[cfg(windows)]
impl AsRawSocket for UdpTransport {
    fn as_raw_socket(&self) -> RawSocket {
        self.socket.as_raw_socket()
    }
}

/// Gives errors that mean "this is no socket (any more)" the kind that ends the receiving loop.
fn gone_for_good(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if NO_SOCKET.contains(&code) => {
            io::Error::new(io::ErrorKind::NotConnected, error)
        }
        _ => error,
    }
}

/// EBADF and ENOTSOCK.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SOCKET: [i32; 2] = [9, 88];
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const NO_SOCKET: [i32; 2] = [9, 38];
/// WSAEBADF and WSAENOTSOCK.
#[cfg(not(unix))]
const NO_SOCKET: [i32; 2] = [10_009, 10_038];
