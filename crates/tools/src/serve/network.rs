//! A network as people write it: an address and how many of its bits count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that begin like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) ip: IpAddr,
    pub(crate) bits: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, bits } = self;
        let is_whole = *bits == if ip.is_ipv4() { 32 } else { 128 };
        if is_whole {
            write!(f, "{ip}")
        } else {
            write!(f, "{ip}/{bits}")
        }
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or an address, which is a network of its own.
pub(crate) fn parse(text: &str) -> Result<Network, String> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let ip: IpAddr = ip
        .trim_matches(['[', ']'])
        .parse()
        .map_err(|_| "not a network, such as 10.0.0.0/8, fd00::/8 or 192.0.2.7".to_owned())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| (0..=most).contains(bits))
            .ok_or_else(|| format!("`{bits}` is not a number of bits from 0 to {most}"))?,
    };
    let first = first(ip, bits);
    if first != ip {
        return Err(format!(
            "{ip} is an address within a network: write {first}/{bits} for the network, or {ip}/{most} for \
             the address"
        ));
    }
    Ok(Network { ip, bits })
}

/// The address whose bits behind the first `bits` are zero.
fn first(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, parse};

    #[test]
    fn a_network_is_an_address_and_a_number_of_bits() {
        for (text, ip, bits) in [
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("192.0.2.7", "192.0.2.7", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("fd00::/8", "fd00::", 8),
            ("[::1]", "::1", 128),
        ] {
            let network = Network {
                ip: ip.parse().expect("it is an address"),
                bits,
            };
            assert_eq!(parse(text), Ok(network));
            assert_eq!(network.to_string(), text.trim_matches(['[', ']']));
        }
        for text in [
            "",
            "10/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "host/8",
            "10.0.0.5/8",
            "0.0.0.1/0",
            "fd00::1/8",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("10.0.0.5/8").unwrap_err(),
            "10.0.0.5 is an address within a network: write 10.0.0.0/8 for the network, or 10.0.0.5/32 for \
             the address"
        );
    }
}
