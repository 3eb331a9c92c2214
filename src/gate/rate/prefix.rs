use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::{Prefix, mapped};
use crate::transport::Datagram;

/// By which prefix of its address a peer is limited, and which are not.
pub(super) struct Prefixes {
    pub(super) v4_mask: u128,
    pub(super) v6_mask: u128,
    pub(super) exempt: Vec<Prefix>,
}

impl Prefixes {
    /// The prefix of a datagram's peer, unless that is exempt or a proxy's health check.
    pub(super) fn of_datagram(&self, datagram: &Datagram<'_>) -> Option<u128> {
        if datagram.proxied.is_some_and(|one| one.is_health_check) {
            return None;
        }
        self.of(datagram.meta.peer.ip())
    }

    /// The prefix of an address, unless it is exempt.
    pub(super) fn of(&self, ip: IpAddr) -> Option<u128> {
        let ip = ip.to_canonical();
        let addr = mapped(ip);
        if self.exempt.iter().any(|one| one.contains(ip)) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(_) => addr & self.v4_mask,
            IpAddr::V6(ip) => match shared_by(ip) {
                Shared::Network => addr & self.v6_mask,
                Shared::Many => addr,
                Shared::V4(v4) => mapped(v4.into()) & self.v4_mask,
            },
        })
    }
}

/// Who shares the first 64 bits of an address: hosts of one network, as a rule.
enum Shared {
    Network,
    /// All hosts of a link, or of a network behind a translator.
    Many,
    /// All hosts of IPv4 behind a translator or a relay; the address names this one.
    V4(Ipv4Addr),
}

fn shared_by(ip: Ipv6Addr) -> Shared {
    let v4 = |bits: u32| Shared::V4(Ipv4Addr::from_bits(bits));
    match ip.segments() {
        // NAT64 (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(u32::from(high) << 16 | u32::from(low)),
        // NAT64 with a prefix of one's own (RFC 8215): where the address of IPv4 stands is not known.
        [0x64, 0xff9b, 1, ..] => Shared::Many,
        // Teredo, whose client's address is inverted (RFC 4380 §4).
        [0x2001, 0, _, _, _, _, high, low] => v4(!(u32::from(high) << 16 | u32::from(low))),
        _ if ip.is_unicast_link_local() => Shared::Many,
        _ => Shared::Network,
    }
}
