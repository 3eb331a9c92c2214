//! Socket addresses (`sockaddr_in`, `sockaddr_in6`) as Linux lays them out: bytes, read and written in
//! safe code.

use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `sockaddr_in6`, the longer one.
pub(super) const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// A datagram's socket address; its length in bytes, for the kernel, is beside it.
pub(super) fn encode(addr: SocketAddr, bytes: &mut [u8; ADDRESS_BYTES]) -> usize {
    bytes[2..4].copy_from_slice(&addr.port().to_be_bytes());
    let (family, len) = match addr {
        SocketAddr::V4(v4) => {
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            bytes[8..16].fill(0);
            (libc::AF_INET, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (libc::AF_INET6, ADDRESS_BYTES)
        }
    };
    bytes[..2].copy_from_slice(&family_number(family).to_ne_bytes());
    len
}

/// The address that the kernel wrote, if it is one of IP. An IPv4 address is one of IPv4 even if it
/// came by way of a dual-stack socket.
#[inline]
pub(super) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    if family == family_number(libc::AF_INET) {
        let bytes = bytes.first_chunk::<{ size_of::<libc::sockaddr_in>() }>()?;
        let ip = Ipv4Addr::from(*bytes[4..].first_chunk::<4>()?);
        return Some(SocketAddr::new(ip.into(), port));
    }
    if family != family_number(libc::AF_INET6) {
        return None;
    }
    let bytes = bytes.first_chunk::<ADDRESS_BYTES>()?;
    let ip = Ipv6Addr::from(*bytes[8..].first_chunk::<16>()?);
    Some(match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(v4.into(), port),
        None => SocketAddrV6::new(
            ip,
            port,
            u32::from_ne_bytes(*bytes[4..].first_chunk()?),
            u32::from_ne_bytes(*bytes[24..].first_chunk()?),
        )
        .into(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "AF_INET and AF_INET6 are small"
)]
const fn family_number(family: i32) -> u16 {
    family as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_address_survives(v4: bool, ip: [u8; 16], port: u16, scope: u32) {
            let addr: SocketAddr = if v4 {
                SocketAddr::new(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).into(), port)
            } else {
                SocketAddrV6::new(ip.into(), port, 0, scope).into()
            };
            let mut bytes = [0xff; ADDRESS_BYTES];
            let len = encode(addr, &mut bytes);
            prop_assert_eq!(decode(&bytes[..len]), Some(addr));
            prop_assert_eq!(decode(&bytes[..len / 2]), None);
        }
    }

    #[test]
    fn a_mapped_address_is_one_of_ipv4() {
        let mut bytes = [0; ADDRESS_BYTES];
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        encode(SocketAddr::new(mapped.into(), 7), &mut bytes);
        assert_eq!(decode(&bytes), "192.0.2.1:7".parse().ok());
    }
}
