use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config_error::ConfigError;

/// By which prefix of its address a peer is limited, and which are not.
pub(super) struct Prefixes {
    pub(super) v4_mask: u128,
    pub(super) v6_mask: u128,
    pub(super) exempt: Vec<Prefix>,
}

impl Prefixes {
    /// The prefix of an address, unless it is exempt.
    pub(super) fn of(&self, ip: IpAddr) -> Option<u128> {
        let ip = ip.to_canonical();
        let addr = mapped(ip);
        if self.exempt.iter().any(|one| one.contains(ip, addr)) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(_) => addr & self.v4_mask,
            IpAddr::V6(ip) => match shared_by(ip) {
                Shared::ByNoMore => addr & self.v6_mask,
                Shared::ByAll => addr,
                Shared::ByHostsOf(v4) => mapped(v4.into()) & self.v4_mask,
            },
        })
    }
}

/// Who shares the first 64 bits of an address: hosts of one network, as a rule.
enum Shared {
    ByNoMore,
    /// All hosts of a link, or of a network behind a translator.
    ByAll,
    /// All hosts of IPv4 behind a translator or a relay; the address names this one.
    ByHostsOf(Ipv4Addr),
}

fn shared_by(ip: Ipv6Addr) -> Shared {
    let v4 = |bits: u32| Shared::ByHostsOf(Ipv4Addr::from_bits(bits));
    match ip.segments() {
        // NAT64 (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(u32::from(high) << 16 | u32::from(low)),
        // NAT64 with a prefix of one's own (RFC 8215): where the address of IPv4 stands is not known.
        [0x64, 0xff9b, 1, ..] => Shared::ByAll,
        // Teredo, whose client's address is inverted (RFC 4380 §4).
        [0x2001, 0, _, _, _, _, high, low] => v4(!(u32::from(high) << 16 | u32::from(low))),
        _ if ip.is_unicast_link_local() => Shared::ByAll,
        _ => Shared::ByNoMore,
    }
}

/// A prefix of one family.
pub(super) struct Prefix {
    is_v4: bool,
    bits: u128,
    mask: u128,
}

impl Prefix {
    pub(super) fn new(network: IpAddr, mask: u128) -> Self {
        Self {
            is_v4: network.to_canonical().is_ipv4(),
            bits: mapped(network) & mask,
            mask,
        }
    }

    fn contains(&self, ip: IpAddr, addr: u128) -> bool {
        self.is_v4 == ip.is_ipv4() && addr & self.mask == self.bits
    }
}

/// The mask of a prefix of an address with `max` bits, in the space of [`mapped`].
pub(super) fn mask(setting: &'static str, bits: u8, max: u8) -> Result<u128, ConfigError> {
    let Some(host_bits) = max.checked_sub(bits) else {
        let range = format!("0 to {max} bits");
        return Err(ConfigError::out_of_range(setting, bits, range));
    };
    Ok(u128::MAX.checked_shl(host_bits.into()).unwrap_or(0))
}

/// An address as one of IPv6: both families in one space. No address is in both, but a short prefix of
/// IPv6 may hold those of IPv4.
fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}
