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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn where_a_datagram_leaves_from_is_told_in_the_form_of_the_socket() {
        let cases = [
            // Family, peer, address and interface, and what is passed to the kernel.
            (
                Family::V4,
                "192.0.2.1:7",
                "192.0.2.9",
                0,
                Some(("192.0.2.9", 0)),
            ),
            (
                Family::V4,
                "192.0.2.1:7",
                "192.0.2.9",
                3,
                Some(("192.0.2.9", 3)),
            ),
            (Family::V4, "192.0.2.1:7", "", 3, Some(("0.0.0.0", 3))),
            (Family::V4, "192.0.2.1:7", "", 0, None),
            (Family::V4, "192.0.2.1:7", "224.0.0.1", 0, None),
            (
                Family::V4,
                "192.0.2.1:7",
                "224.0.0.1",
                3,
                Some(("0.0.0.0", 3)),
            ),
            (Family::V4, "192.0.2.1:7", "2001:db8::9", 0, None),
            (
                Family::V6,
                "192.0.2.1:7",
                "192.0.2.9",
                3,
                Some(("::ffff:192.0.2.9", 3)),
            ),
            (
                Family::V6,
                "192.0.2.1:7",
                "",
                3,
                Some(("::ffff:0.0.0.0", 3)),
            ),
            (
                Family::V6,
                "[2001:db8::1]:7",
                "2001:db8::9",
                0,
                Some(("2001:db8::9", 0)),
            ),
            (
                Family::V6,
                "[2001:db8::1]:7",
                "2001:db8::9",
                3,
                Some(("2001:db8::9", 3)),
            ),
            (Family::V6, "[2001:db8::1]:7", "ff02::1", 3, Some(("::", 3))),
            (Family::V6, "[2001:db8::1]:7", "192.0.2.9", 0, None),
            // A link-local address is ambiguous without its link.
            (Family::V6, "[fe80::1]:7", "fe80::9", 0, None),
            (
                Family::V6,
                "[fe80::1]:7",
                "fe80::9",
                3,
                Some(("fe80::9", 3)),
            ),
            (
                Family::V6,
                "[fe80::1%4]:7",
                "fe80::9",
                3,
                Some(("fe80::9", 4)),
            ),
        ];
        for (family, peer, ip, interface, expected) in cases {
            let endpoint = Endpoint::unknown(family);
            let mut egress = Egress::by_interface(interface);
            egress.ip = ip.parse().ok();
            let source = endpoint.source(egress, peer.parse().unwrap());
            let expected = expected.map(|(ip, interface)| (ip.parse().unwrap(), interface));
            assert_eq!(source, expected, "to {peer} from {egress:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs a socket")]
    fn a_socket_that_knows_too_little_asks_where_datagrams_were_sent_to() {
        for (ip, wants) in [
            ("127.0.0.1", false),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", false),
        ] {
            let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
            assert_eq!(
                Endpoint::of(&socket).unwrap().wants_packet_info(),
                wants,
                "{ip}"
            );
        }
    }
}
