use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use socket2::{SockRef, Socket};

use super::blocking::clear_error_queue;
use super::buffers::{self, RECEIVE, SEND};
use super::features::{UdpFeature, UdpFeatures};
use super::open::{bind_any, new_socket, set_reuse_port};
use super::socket_options::SocketOptions;
use super::transport::{Owner, UdpTransport};
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
    socket: SocketOptions,
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
            socket: SocketOptions::default(),
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

    /// The hop limit (TTL) of what is sent to single hosts, 1 to 255. Default: the OS's, mostly 64.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// // A service for one link: RFC 5082 has both sides send 255 and check it.
    /// let transport = UdpOptions::new().hops(255).bind("127.0.0.1:0")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn hops(mut self, hops: u8) -> Self {
        self.socket.hops = Some(hops);
        self
    }

    /// Joins a multicast group on an interface, named by its index; 0 leaves the choice to the kernel.
    /// May be called several times. Default: no group.
    ///
    /// The socket must be bound to all addresses, `[::]` or `0.0.0.0`, or to the group. On Linux it
    /// receives datagrams to the groups that it joined itself and to no others. To join a group of
    /// IPv4 on an interface by its index needs Linux, macOS, FreeBSD or Windows.
    ///
    /// ```no_run
    /// use rejoinder::udp::UdpOptions;
    ///
    /// // All CoAP nodes (RFC 7252 §12.8), on the interface with the index 2.
    /// let transport = UdpOptions::new()
    ///     .multicast_group("224.0.1.187".parse()?, 2)
    ///     .multicast_group("ff02::fd".parse()?, 2)
    ///     .bind("[::]:5683")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn multicast_group(mut self, group: IpAddr, interface: u32) -> Self {
        self.socket.groups.push((group, interface));
        self
    }

    /// The hop limit of what is sent to groups, 0 to 255. Default: the OS's, which is 1: it does not
    /// leave the link. With 0 it does not leave the machine.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().multicast_hops(4).bind("0.0.0.0:0")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn multicast_hops(mut self, hops: u8) -> Self {
        self.socket.multicast_hops = Some(hops);
        self
    }

    /// Whether what is sent to a group reaches sockets on this machine too. Default: the OS's, which
    /// is `true`.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().multicast_loop(false).bind("0.0.0.0:0")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn multicast_loop(mut self, on: bool) -> Self {
        self.socket.multicast_loop = Some(on);
        self
    }

    /// The index of the interface by which what is sent to groups leaves. Default: 0, the kernel's
    /// choice. For IPv4 it needs Linux.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().multicast_interface(0).bind("0.0.0.0:0")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn multicast_interface(mut self, interface: u32) -> Self {
        self.socket.multicast_interface = (interface != 0).then_some(interface);
        self
    }

    /// Whether datagrams may be sent to broadcast addresses of IPv4 (`SO_BROADCAST`). Default: `false`,
    /// and the OS refuses them.
    ///
    /// ```
    /// use rejoinder::udp::UdpOptions;
    ///
    /// let transport = UdpOptions::new().broadcast(true).bind("0.0.0.0:0")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn broadcast(mut self, on: bool) -> Self {
        self.socket.broadcast = on;
        self
    }

    /// Whether datagrams leave at the size that the interface takes, whatever the kernel has learnt
    /// about the path. Default: `false`, as the OS does it.
    ///
    /// Linux splits a datagram that is longer than the path's MTU into fragments, and learns that MTU
    /// from ICMP messages, which can be forged: with a small MTU, an attacker makes a server send
    /// fragments, and replaces the second one (RFC 8900 §3.7). DNS servers ignore the path's MTU for
    /// that reason (`IP_PMTUDISC_OMIT`, ip(7)): then no message from outside makes fragments, and
    /// IPv4's routers may still split what passes them. Over IPv6 they cannot, and what is too long
    /// for a path is lost: limit responses to 1,232 bytes
    /// (`ServerBuilder::max_response_bytes`), which every path takes (RFC 8200 §5).
    ///
    /// It has an effect on Linux.
    ///
    /// ```
    /// use rejoinder::codec::Raw;
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Raw)
    ///     .udp_options(UdpOptions::new().ignore_path_mtu(true))
    ///     .max_response_bytes(1_232)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignore_path_mtu(mut self, ignore: bool) -> Self {
        self.socket.ignore_path_mtu = ignore;
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
        Ok(bind_any(addr, |addr| {
            self.set_up(self.open(addr)?, Owner::Transport)
        })?)
    }

    /// Binds several sockets to one address, the first that can be had. The kernel spreads the
    /// peers among them: all datagrams of one peer reach the same socket, for as long as the group
    /// stays as it is. Other sockets cannot bind to the address as if it were free, but sockets of
    /// the same user that set `SO_REUSEPORT` before can.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind); [`ConfigError::OutOfRange`] for no sockets; elsewhere than on Linux,
    /// an [`Io`](ConfigError::Io) error of the kind [`Unsupported`](io::ErrorKind::Unsupported) for more than one.
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
            let mut group = vec![self.set_up(first, Owner::Transport)?];
            for _ in 1..sockets {
                let socket = self.socket(addr)?.into();
                set_reuse_port(&socket)?;
                SockRef::from(&socket).bind(&addr.into())?;
                group.push(self.set_up(socket, Owner::Transport)?);
            }
            Ok(group)
        });
        Ok(group?)
    }

    /// Adopts a socket with whatever options it has. Of `self`, only the features and the sizes of
    /// the buffers apply, and no buffer is made smaller.
    ///
    /// The socket may have other owners: the process that passed it, another transport. They may
    /// change its blocking mode and its timeouts at any time, which has no effect here; on unix the
    /// transport leaves both as they are. It waits with `poll`, which costs a system call more where
    /// requests come one by one. Extended errors (`IP_RECVERR`), corking and a segment size for all
    /// datagrams are turned off on Linux. Several transports with one socket share it: each datagram
    /// reaches one of them, and each dropped one is counted by one of them.
    ///
    /// If the kernel was asked to report more about each datagram than fits into 256 bytes with what
    /// the features need, all seem [truncated](crate::transport::Meta::truncated).
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
        Ok(self.set_up(socket, Owner::Shared)?)
    }

    pub(super) fn allows_broadcast(&self) -> bool {
        self.socket.broadcast
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("receive_buffer_bytes", self.receive_buffer_bytes),
            ("send_buffer_bytes", self.send_buffer_bytes),
        ];
        for (setting, bytes) in sizes {
            ConfigError::check(setting, bytes, 0..=MAX_BUFFER_BYTES)?;
        }
        self.socket.check()
    }

    pub(super) fn set_up(&self, socket: UdpSocket, owner: Owner) -> io::Result<UdpTransport> {
        if let Owner::Shared = owner {
            undo_what_others_set(&socket);
        }
        let adopted = owner == Owner::Shared;
        buffers::enlarge(&socket, RECEIVE, self.receive_buffer_bytes, adopted)?;
        buffers::enlarge(&socket, SEND, self.send_buffer_bytes, adopted)?;
        self.socket.apply(&socket)?;
        let features = if self.portable {
            UdpFeatures::NONE
        } else {
            self.features
        };
        UdpTransport::new(socket, features, owner)
    }

    /// A socket for a server.
    fn open(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(addr)?;
        socket.bind(&addr.into())?;
        Ok(socket.into())
    }

    /// A socket that is not bound yet.
    fn socket(&self, addr: SocketAddr) -> io::Result<Socket> {
        let socket = new_socket(addr)?;
        if let IpAddr::V6(ip) = addr.ip()
            && (ip.is_unspecified() || ip.to_ipv4_mapped().is_some())
        {
            // Systems differ in the default, and not every one lets it be changed. On a single address
            // of IPv6 it makes no difference.
            let set = socket.set_only_v6(self.only_v6);
            if set.is_err() && socket.only_v6().ok() != Some(self.only_v6) {
                set?;
            }
        }
        #[cfg(target_os = "linux")]
        super::linux_options::receive_own_groups_only(&socket);
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

/// Takes back what another owner may have set that would change what is sent and received.
fn undo_what_others_set(socket: &UdpSocket) {
    clear_error_queue(socket);
    #[cfg(target_os = "linux")]
    super::linux_options::send_each_datagram_at_once(socket);
}

/// Enough for some 10,000 small datagrams: Linux doubles what it is asked for, and counts 832 bytes for
/// each (as seen over the loopback of Linux 6.18).
const BUFFER_BYTES: usize = 4 << 20;
/// The option is a C `int`.
const MAX_BUFFER_BYTES: usize = i32::MAX as usize;
