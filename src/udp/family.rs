//! The forms that addresses take on a socket of IPv4 or IPv6.

use std::io::{self, ErrorKind};
#[cfg(target_os = "linux")]
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
#[cfg(not(target_os = "linux"))]
use std::net::{IpAddr, SocketAddr, UdpSocket};

#[cfg(target_os = "linux")]
use crate::transport::Egress;

use crate::transport::{canonical, same_peer};

/// What a socket is bound and connected to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    family: Family,
    /// The one peer of a connected socket.
    peer: Option<SocketAddr>,
    /// The address that every datagram was sent to, if the socket is bound to a single one.
    pub(super) local: Option<IpAddr>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn of(socket: &UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            family: Family::of(local),
            peer: socket.peer_addr().ok().map(canonical),
            local: Some(local.ip().to_canonical())
                .filter(|ip| !ip.is_unspecified() && !ip.is_multicast()),
            port: local.port(),
        })
    }

    /// Of a socket that has no address of IP.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn unknown(family: Family) -> Self {
        Self {
            family,
            peer: None,
            local: None,
            port: 0,
        }
    }

    /// As if a socket were connected to this peer.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn connected(family: Family, peer: SocketAddr) -> Self {
        Self {
            family,
            peer: Some(peer),
            local: None,
            port: 0,
        }
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

#[cfg(target_os = "linux")]
impl Endpoint {
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Whether the address of the socket says too little about where a datagram was sent to, and
    /// where the response leaves from.
    pub(super) fn wants_packet_info(&self) -> bool {
        match self.local {
            None => true,
            // It may exist on several links.
            Some(IpAddr::V4(ip)) => ip.is_link_local(),
            // The peer's address names the link.
            Some(IpAddr::V6(_)) => false,
        }
    }

    /// The form in which a socket of this family takes where to send from: an address, or an
    /// unspecified one, and an interface, or 0; `None` if there is nothing to say, or if nothing to
    /// `peer` can leave from there.
    pub(super) fn source(&self, egress: Egress, peer: SocketAddr) -> Option<(IpAddr, u32)> {
        let ip = egress
            .ip
            .filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        let mapped = |ip: Ipv4Addr| match self.family {
            Family::V4 => IpAddr::V4(ip),
            Family::V6 => IpAddr::V6(ip.to_ipv6_mapped()),
        };
        match (canonical(peer), ip) {
            (SocketAddr::V4(_), Some(IpAddr::V4(ip))) => Some((mapped(ip), egress.interface)),
            (SocketAddr::V6(peer), Some(IpAddr::V6(ip))) if self.family == Family::V6 => {
                let interface = match peer.scope_id() {
                    0 => egress.interface,
                    scope => scope,
                };
                // RFC 4007 §6: a link-local address is ambiguous without its zone.
                let needs_interface = ip.is_unicast_link_local();
                (interface != 0 || !needs_interface).then_some((ip.into(), interface))
            }
            (_, Some(_)) => None,
            (_, None) if egress.interface == 0 => None,
            (SocketAddr::V4(_), None) => Some((mapped(Ipv4Addr::UNSPECIFIED), egress.interface)),
            (SocketAddr::V6(_), None) => Some((Ipv6Addr::UNSPECIFIED.into(), egress.interface)),
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
}
