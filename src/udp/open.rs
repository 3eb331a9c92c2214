//! Opening sockets.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

#[cfg(target_os = "linux")]
pub(super) use super::linux_options::set_reuse_port;

/// The first success, or the last error.
pub(super) fn bind_any<T>(
    addr: impl ToSocketAddrs,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut result = Err(io::Error::new(
        ErrorKind::InvalidInput,
        "the name has no address",
    ));
    for addr in addr.to_socket_addrs()? {
        result = bind(addr);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A socket for a client, on a free port.
pub(super) fn open_for(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = new_socket(peer)?;
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}

pub(super) fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
}

/// Other systems have no such option, or give it another meaning.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_reuse_port(_: &UdpSocket) -> io::Result<()> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "several sockets on one address need Linux",
    ))
}
