use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::features::{UdpFeature, UdpFeatures};
#[cfg(target_os = "linux")]
use super::linux::set_reuse_port;
use super::transport::UdpTransport;
use crate::config_error::ConfigError;

/// How to open UDP sockets.
///
/// ```
/// use rejoinder::udp::UdpOptions;
///
/// let options = UdpOptions::new()
///     .receive_buffer_bytes(1 << 20)
///     .send_buffer_bytes(0) // as the kernel makes it
///     .timestamps(true);
/// let transport = options.bind("127.0.0.1:0")?;
/// assert!(transport.receive_buffer_bytes()? > 0 && transport.send_buffer_bytes()? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct UdpOptions {
    only_v6: bool,
    receive_buffer_bytes: usize,
    send_buffer_bytes: usize,
    portable: bool,
    features: UdpFeatures,
}

impl UdpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            only_v6: false,
            receive_buffer_bytes: BUFFER_BYTES,
            send_buffer_bytes: BUFFER_BYTES,
            portable: false,
            features: UdpFeatures::DEFAULT,
        }
    }

    /// Whether a socket on `[::]` leaves IPv4 alone. The default is `false`: it serves both.
    ///
    /// ```no_run
    /// use rejoinder::udp::UdpOptions;
    ///
    /// // Two sockets on one port, where otherwise the first would take both families.
    /// let v6 = UdpOptions::new().only_v6(true).bind("[::]:9999")?;
    /// let v4 = UdpOptions::new().bind("0.0.0.0:9999")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = only_v6;
        self
    }

    /// The size of the receive buffer to ask the kernel for, in bytes. It takes up memory only as far
    /// as it is filled. Default: 4,194,304; up to 2,147,483,647; 0 leaves it as the kernel makes it,
    /// which on Linux is enough for about 256 small datagrams.
    ///
    /// The kernel may grant less without an error, on Linux what the administrator allows
    /// (`net.core.rmem_max`, often 212,992):
    /// [`receive_buffer_bytes`](UdpTransport::receive_buffer_bytes) returns what was granted.
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = bytes;
        self
    }

    /// The size of the send buffer to ask the kernel for, in bytes. Default: 4,194,304; up to
    /// 2,147,483,647; 0 leaves it as the kernel makes it. The limit on Linux is `net.core.wmem_max`.
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.send_buffer_bytes = bytes;
        self
    }

    /// Whether the kernel notes when each datagram arrives, so that [`Meta::waited`] is known. It
    /// reads its clock for each datagram then. Default: `false`. It needs Linux, and has no effect on
    /// [portable](Self::portable) sockets.
    ///
    /// [`Meta::waited`]: crate::transport::Meta::waited
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().timestamps(true).bind("127.0.0.1:0")?;
    /// # #[cfg(target_os = "linux")]
    /// assert!(transport.features().to_string().contains("timestamp"));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn timestamps(mut self, timestamps: bool) -> Self {
        self.features = self.features.with(UdpFeature::Timestamp, timestamps);
        self
    }

    /// Moves one datagram per system call, as on any system, and uses nothing that only Linux has.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().portable().bind("127.0.0.1:0")?;
    /// assert_eq!(transport.features().to_string(), "portable");
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn portable(mut self) -> Self {
        self.portable = true;
        self
    }

    /// Leaves one feature of Linux unused, as if the kernel did not have it.
    ///
    /// Only with the crate's feature `testing`.
    ///
    /// ```
    /// use rejoinder::udp::{UdpFeature, UdpOptions};
    ///
    /// let options = UdpOptions::new().without(UdpFeature::Gso);
    /// let transport = options.bind("127.0.0.1:0")?;
    /// assert!(!transport.features().contains(UdpFeature::Gso));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    #[cfg(feature = "testing")]
    pub fn without(mut self, feature: UdpFeature) -> Self {
        self.features = self.features.with(feature, false);
        self
    }

    /// Binds a socket to the first of the addresses that can be had; the error is the last one's.
    ///
    /// Port 0 means any free port; `[::]` means every address of the machine, IPv4 too.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for a buffer of more than 2,147,483,647 bytes;
    /// [`ConfigError::Io`] for what the OS refuses.
    pub fn bind(&self, addr: impl ToSocketAddrs) -> Result<UdpTransport, ConfigError> {
        self.check()?;
        Ok(bind_any(addr, |addr| self.set_up(self.open(addr)?))?)
    }

    /// Binds several sockets to one address, the first that can be had. The kernel spreads the
    /// peers among them: all datagrams of one peer reach the same socket, for as long as the group
    /// stays as it is. Other sockets cannot bind to the address as if it were free, but sockets of
    /// the same user that set `SO_REUSEPORT` before can.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind); [`ConfigError::OutOfRange`] for no sockets; elsewhere than on Linux,
    /// an [`Io`](ConfigError::Io) error of the kind [`ErrorKind::Unsupported`] for more than one.
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
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind_group(
        &self,
        addr: impl ToSocketAddrs,
        sockets: usize,
    ) -> Result<Vec<UdpTransport>, ConfigError> {
        self.check()?;
        if sockets == 0 {
            return Err(ConfigError::out_of_range("sockets", sockets, "at least 1"));
        }
        let group = bind_any(addr, |addr| {
            let first = self.open(addr)?;
            let addr = first.local_addr()?;
            if sockets > 1 {
                // Only now: before, it would have let the first one in beside a stranger's.
                set_reuse_port(&first)?;
            }
            let mut group = vec![self.set_up(first)?];
            for _ in 1..sockets {
                let socket = self.socket(addr)?.into();
                set_reuse_port(&socket)?;
                SockRef::from(&socket).bind(&addr.into())?;
                group.push(self.set_up(socket)?);
            }
            Ok(group)
        });
        Ok(group?)
    }

    /// Adopts a socket with whatever options it has; of these, only the features and the sizes of
    /// the buffers apply. Its blocking mode and its read timeout are the transport's to change from
    /// now on. If the kernel was asked to report more about each datagram than fits into 256 bytes
    /// with what the features need, all seem [truncated](crate::transport::Meta::truncated).
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Transport;
    /// use std::net::UdpSocket;
    ///
    /// // A socket that a service manager has bound, say.
    /// let inherited = UdpSocket::bind("127.0.0.1:0")?;
    /// let transport = UdpOptions::new().receive_buffer_bytes(0).adopt(inherited)?;
    /// assert_ne!(transport.local_addr()?.port(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(&self, socket: UdpSocket) -> Result<UdpTransport, ConfigError> {
        self.check()?;
        Ok(self.set_up(socket)?)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("receive_buffer_bytes", self.receive_buffer_bytes),
            ("send_buffer_bytes", self.send_buffer_bytes),
        ];
        match sizes.into_iter().find(|size| size.1 > MAX_BUFFER_BYTES) {
            None => Ok(()),
            Some((setting, bytes)) => Err(ConfigError::out_of_range(
                setting,
                bytes,
                format!("0 to {MAX_BUFFER_BYTES}"),
            )),
        }
    }

    pub(super) fn set_up(&self, socket: UdpSocket) -> io::Result<UdpTransport> {
        let sizes = SockRef::from(&socket);
        ask_for(self.receive_buffer_bytes, |size| {
            sizes.set_recv_buffer_size(size)
        });
        ask_for(self.send_buffer_bytes, |size| {
            sizes.set_send_buffer_size(size)
        });
        let features = if self.portable {
            UdpFeatures::NONE
        } else {
            self.features
        };
        UdpTransport::new(socket, features)
    }

    pub(super) fn open(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
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

impl UdpTransport {
    /// Binds a socket with the defaults of [`UdpOptions`]: see [`UdpOptions::bind`].
    pub fn bind(addr: impl ToSocketAddrs) -> Result<Self, ConfigError> {
        UdpOptions::new().bind(addr)
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
    // Linux grants what it may. Other systems refuse what is too much.
    while size > 0 && set(size).is_err() {
        size /= 2;
    }
}

/// Other systems have no such option, or give it another meaning.
#[cfg(not(target_os = "linux"))]
fn set_reuse_port(_: &UdpSocket) -> io::Result<()> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "several sockets on one address need Linux",
    ))
}

/// Enough for some 10,000 small datagrams: Linux doubles what it is asked for, and counts 832 bytes for
/// each (as seen over the loopback of Linux 6.18).
const BUFFER_BYTES: usize = 4 << 20;
/// The option is a C `int`.
const MAX_BUFFER_BYTES: usize = i32::MAX as usize;
