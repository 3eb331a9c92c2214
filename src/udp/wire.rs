//! How Linux lays out socket addresses and control messages: bytes, read and written in safe code.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, SystemTime};

/// `sockaddr_in6`, the longer one.
pub(super) const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// Room for all that a datagram can come with: the drops, a segment size, the time, and on a
/// dual-stack socket both kinds of packet information, which is 152 bytes; and for what an adopted
/// socket was asked to tell before, such as the hop limit and the traffic class.
pub(super) const CONTROL_BYTES: usize = 256;

/// Control messages, aligned as the system wants them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_BYTES]);

/// A datagram's socket address; the length in bytes that the system shall see comes with it.
pub(super) fn encode_name(addr: SocketAddr, name: &mut [u8; NAME_BYTES]) -> usize {
    name[2..4].copy_from_slice(&addr.port().to_be_bytes());
    let (family, len) = match addr {
        SocketAddr::V4(v4) => {
            name[4..8].copy_from_slice(&v4.ip().octets());
            name[8..16].fill(0);
            (libc::AF_INET, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            name[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (libc::AF_INET6, NAME_BYTES)
        }
    };
    name[..2].copy_from_slice(&family_number(family).to_ne_bytes());
    len
}

/// The address that the system wrote, if it is one of IP. An IPv4 address is one of IPv4 even if
/// it came by way of a dual-stack socket.
#[inline]
pub(super) fn decode_name(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    if family == family_number(libc::AF_INET) {
        let name = name.first_chunk::<{ size_of::<libc::sockaddr_in>() }>()?;
        let ip = Ipv4Addr::from(*name[4..].first_chunk::<4>()?);
        return Some(SocketAddr::new(ip.into(), port));
    }
    if family != family_number(libc::AF_INET6) {
        return None;
    }
    let name = name.first_chunk::<NAME_BYTES>()?;
    let ip = Ipv6Addr::from(*name[8..].first_chunk::<16>()?);
    Some(match ip.to_ipv4_mapped() {
        Some(v4) => SocketAddr::new(v4.into(), port),
        None => SocketAddrV6::new(
            ip,
            port,
            u32::from_ne_bytes(*name[4..].first_chunk()?),
            u32::from_ne_bytes(*name[24..].first_chunk()?),
        )
        .into(),
    })
}

/// What the control messages of a received datagram say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The length of each of several datagrams that came as one.
    pub(super) segment_bytes: Option<usize>,
    /// The address that it was sent to, or if nothing can leave from that (it is a multicast or
    /// broadcast address), the one of the interface that it came in by, where the system tells.
    pub(super) local: Option<IpAddr>,
    /// How many messages the system has dropped since the socket was opened.
    pub(super) drops: Option<u32>,
    /// When it arrived, by the civil clock.
    pub(super) arrived: Option<SystemTime>,
}

#[inline]
pub(super) fn decode_control(mut control: &[u8]) -> Received {
    let mut received = Received::default();
    while let Some((level, kind, data, rest)) = next_message(control) {
        control = rest;
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let bytes = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
                received.segment_bytes = bytes
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .filter(|&bytes| bytes > 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                received.drops = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            }
            // struct timespec, which has the size of two machine words.
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => received.arrived = decode_timespec(data),
            // struct in_pktinfo: the interface, the address to answer from, the address in the
            // header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let ip = data.get(4..8).and_then(|bytes| bytes.first_chunk::<4>());
                received.local = ip.map(|&octets| Ipv4Addr::from(octets).into());
            }
            // struct in6_pktinfo: the address in the header, the interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let ip = data
                    .first_chunk::<16>()
                    .map(|&octets| Ipv6Addr::from(octets));
                let ip = ip.map(|ip| ip.to_canonical());
                received.local = received.local.or(ip.filter(|ip| !ip.is_multicast()));
            }
            _ => {}
        }
    }
    received
}

fn decode_timespec(data: &[u8]) -> Option<SystemTime> {
    let (seconds, nanos) = match data.len() {
        16 => (
            i64::from_ne_bytes(*data.first_chunk()?),
            i64::from_ne_bytes(*data.last_chunk()?),
        ),
        8 => (
            i32::from_ne_bytes(*data.first_chunk()?).into(),
            i32::from_ne_bytes(*data.last_chunk()?).into(),
        ),
        _ => return None,
    };
    let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
    let since_1970 = seconds.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))?;
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

/// Writes what a message to be sent comes with and returns its length in bytes: none, if it is
/// nothing.
///
/// `source` is the address to leave from, in the socket's own family, and the interface, or 0.
pub(super) fn encode_control(
    control: &mut Control,
    segment_bytes: Option<u16>,
    source: Option<(IpAddr, u32)>,
) -> usize {
    let mut used = 0;
    if let Some(bytes) = segment_bytes {
        let kind = (libc::SOL_UDP, libc::UDP_SEGMENT);
        used = put_message(control, used, kind, &bytes.to_ne_bytes());
    }
    match source {
        None => used,
        Some((IpAddr::V4(ip), interface)) => {
            let mut data = [0; 12];
            data[..4].copy_from_slice(&interface.to_ne_bytes());
            data[4..8].copy_from_slice(&ip.octets());
            put_message(control, used, (libc::IPPROTO_IP, libc::IP_PKTINFO), &data)
        }
        Some((IpAddr::V6(ip), interface)) => {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&ip.octets());
            data[16..].copy_from_slice(&interface.to_ne_bytes());
            let kind = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            put_message(control, used, kind, &data)
        }
    }
}

/// Level, kind and data of the first message, and what follows it. The system's own lengths are
/// not trusted.
#[inline]
fn next_message(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let number = |offset: usize| {
        let bytes = control.get(offset..)?.first_chunk()?;
        Some(i32::from_ne_bytes(*bytes))
    };
    let len = if LEN_BYTES == 8 {
        let bytes = control.get(LEN_OFFSET..)?.first_chunk()?;
        usize::try_from(u64::from_ne_bytes(*bytes)).ok()?
    } else {
        usize::try_from(number(LEN_OFFSET)?).ok()?
    };
    let data = control.get(HEADER_BYTES..len)?;
    let rest = control.get(aligned(len)..).unwrap_or_default();
    Some((
        number(offset_of!(libc::cmsghdr, cmsg_level))?,
        number(offset_of!(libc::cmsghdr, cmsg_type))?,
        data,
        rest,
    ))
}

/// Appends a message at `start` and returns where the next one begins.
fn put_message(
    control: &mut Control,
    start: usize,
    (level, kind): (i32, i32),
    data: &[u8],
) -> usize {
    let len = HEADER_BYTES + data.len();
    let space = &mut control.0[start..start + aligned(len)];
    space.fill(0);
    if LEN_BYTES == 8 {
        space[LEN_OFFSET..][..8].copy_from_slice(&(len as u64).to_ne_bytes());
    } else {
        let len = u32::try_from(len).expect("a control message is short");
        space[LEN_OFFSET..][..4].copy_from_slice(&len.to_ne_bytes());
    }
    space[offset_of!(libc::cmsghdr, cmsg_level)..][..4].copy_from_slice(&level.to_ne_bytes());
    space[offset_of!(libc::cmsghdr, cmsg_type)..][..4].copy_from_slice(&kind.to_ne_bytes());
    space[HEADER_BYTES..len].copy_from_slice(data);
    start + aligned(len)
}

/// `CMSG_ALIGN`.
const fn aligned(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "AF_INET and AF_INET6 are small"
)]
const fn family_number(family: i32) -> u16 {
    family as u16
}

const HEADER_BYTES: usize = aligned(size_of::<libc::cmsghdr>());
const LEN_OFFSET: usize = offset_of!(libc::cmsghdr, cmsg_len);
/// The kernel's length is a `size_t`. Where libc declares a shorter one with padding, what is
/// there counts as a part of it, unless the padding comes first.
const LEN_BYTES: usize = offset_of!(libc::cmsghdr, cmsg_level) - LEN_OFFSET;

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
            let mut name = [0xff; NAME_BYTES];
            let len = encode_name(addr, &mut name);
            prop_assert_eq!(decode_name(&name[..len]), Some(addr));
            prop_assert_eq!(decode_name(&name[..len / 2]), None);
        }

        #[test]
        fn whatever_the_control_messages_are_reading_them_ends(bytes: Vec<u8>) {
            decode_control(&bytes);
        }

        #[test]
        fn control_messages_are_found_in_any_order(
            source: Option<(IpAddr, u32)>, drops: Option<u32>, segment in 1_i32..65_507, swap: bool,
        ) {
            let mut control = Control([0xff; CONTROL_BYTES]);
            let mut used = encode_control(&mut control, None, source);
            let mut put = |kind, data: [u8; 4]| used = put_message(&mut control, used, kind, &data);
            let gro = ((libc::SOL_UDP, libc::UDP_GRO), segment.to_ne_bytes());
            let drop = drops.map(|n| ((libc::SOL_SOCKET, libc::SO_RXQ_OVFL), n.to_ne_bytes()));
            if swap {
                put(gro.0, gro.1);
            }
            if let Some(drop) = drop {
                put(drop.0, drop.1);
            }
            if !swap {
                put(gro.0, gro.1);
            }
            let received = decode_control(&control.0[..used]);
            prop_assert_eq!(received.segment_bytes, usize::try_from(segment).ok());
            prop_assert_eq!(received.drops, drops);
            let local = source.map(|(ip, _)| ip.to_canonical());
            let told = local.filter(|ip| source.is_some_and(|s| s.0.is_ipv4()) || !ip.is_multicast());
            prop_assert_eq!(received.local, told);
        }
    }

    #[test]
    fn a_mapped_address_is_one_of_ipv4() {
        let mut name = [0; NAME_BYTES];
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        encode_name(SocketAddr::new(mapped.into(), 7), &mut name);
        assert_eq!(decode_name(&name), "192.0.2.1:7".parse().ok());
    }
}
