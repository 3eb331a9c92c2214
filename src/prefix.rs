use std::net::IpAddr;

use crate::config_error::ConfigError;

/// A prefix of addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    is_v4: bool,
    bits: u128,
    mask: u128,
}

impl Prefix {
    /// A prefix of `bits` bits. The error names the setting.
    pub(crate) fn new(
        setting: &'static str,
        network: IpAddr,
        bits: u8,
    ) -> Result<Self, ConfigError> {
        let max = if network.is_ipv4() { 32 } else { 128 };
        let mask = mask(setting, bits, max)?;
        Ok(Self {
            is_v4: network.to_canonical().is_ipv4(),
            bits: mapped(network) & mask,
            mask,
        })
    }

    #[inline]
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.is_v4 == ip.is_ipv4() && mapped(ip) & self.mask == self.bits
    }
}

/// The mask of a prefix of an address with `max` bits, in the space of [`mapped`].
pub(crate) fn mask(setting: &'static str, bits: u8, max: u8) -> Result<u128, ConfigError> {
    let Some(host_bits) = max.checked_sub(bits) else {
        let range = format!("0 to {max} bits");
        return Err(ConfigError::out_of_range(setting, bits, range));
    };
    Ok(u128::MAX.checked_shl(host_bits.into()).unwrap_or(0))
}

/// An address as one of IPv6: both families in one space. No address is in both, but a short prefix of
/// IPv6 may hold those of IPv4.
pub(crate) fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}
