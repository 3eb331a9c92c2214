//! A network as people write it: an address and how many of its bits count.

use std::fmt;
use std::net::IpAddr;

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
    Ok(Network { ip, bits })
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
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
