//! The forms that addresses take on a socket of IPv4 or IPv6.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::transport::{canonical, same_peer};

/// What a socket is bound and connected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    family: Family,
    /// The one peer of a connected socket.
    peer: Option<SocketAddr>,
    /// The address that every datagram was sent to, if the socket is bound to a single one.
    pub(super) local: Option<IpAddr>,
}

impl Endpoint {
    pub(super) fn of(socket: &UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            family: Family::of(local),
            peer: socket.peer_addr().ok().map(canonical),
            local: Some(local.ip().to_canonical()).filter(|ip| !ip.is_unspecified()),
        })
    }

    /// Of a socket that has no address of IP.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn unknown(family: Family) -> Self {
        Self {
            family,
            peer: None,
            local: None,
        }
    }

    /// As if a socket were connected to this peer.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn connected(family: Family, peer: SocketAddr) -> Self {
        Self {
            family,
            peer: Some(peer),
            local: None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// The address that a sending call names to reach `peer`: none on a connected socket, which
    /// reaches only its own peer.
    #[inline]
    pub(super) fn destination(&self, peer: SocketAddr) -> io::Result<Option<SocketAddr>> {
        match self.peer {
            None => Ok(Some(self.family.native(peer))),
            Some(connected) if same_peer(connected, canonical(peer)) => Ok(None),
            Some(_) => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the socket is connected to another peer",
            )),
        }
    }
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    /// The form in which a socket of this family takes an address.
    #[inline]
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
    pub(super) fn source(self, source: IpAddr, peer: SocketAddr) -> Option<(IpAddr, u32)> {
        if source.is_unspecified() || source.is_multicast() {
            return None;
        }
        match (self, source, canonical(peer)) {
            (Self::V4, IpAddr::V4(_), SocketAddr::V4(_)) => Some((source, 0)),
            (Self::V6, IpAddr::V4(v4), SocketAddr::V4(_)) => Some((v4.to_ipv6_mapped().into(), 0)),
            (Self::V6, IpAddr::V6(v6), SocketAddr::V6(peer)) => {
                let interface = peer.scope_id();
                // RFC 4007 §6: a link-local address is ambiguous without its zone.
                let needs_interface = v6.is_unicast_link_local();
                (interface != 0 || !needs_interface).then_some((source, interface))
            }
            _ => None,
        }
    }
}
