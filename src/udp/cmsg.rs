//! Control messages (`cmsghdr`) as Linux lays them out: bytes, read and written in safe code.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use crate::transport::Delivery;

/// Room for every control message of a datagram: the drops, a segment size, the time, and on a
/// dual-stack socket both kinds of packet information. These take 152 bytes. The rest is for
/// options of an adopted socket, such as the hop limit and the traffic class.
pub(super) const CONTROL_BYTES: usize = 256;

/// Control messages, aligned as the kernel requires.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_BYTES]);

/// What the control messages of a received datagram say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The length of each of several datagrams that came as one.
    pub(super) segment_bytes: Option<usize>,
    /// The address that it was sent to, or if nothing can leave from that (it is a multicast or
    /// broadcast address), the one of the interface that it came in by, where the kernel reports it.
    pub(super) local: Option<IpAddr>,
    /// The index of the interface that it came in by, or 0.
    pub(super) interface: u32,
    pub(super) delivery: Delivery,
    /// How many messages the kernel has dropped since the socket was opened.
    pub(super) drops: Option<u32>,
    /// When it arrived, by the wall clock.
    pub(super) arrived: Option<SystemTime>,
}

#[inline]
pub(super) fn decode(mut control: &[u8]) -> Received {
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
            // struct in_pktinfo: the interface, the address to reply from, the address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                if let Some(data) = data.first_chunk::<12>() {
                    let address = |at: usize| -> Option<Ipv4Addr> {
                        Some(Ipv4Addr::from(*data.get(at..)?.first_chunk::<4>()?))
                    };
                    let (local, sent_to) = (address(4), address(8));
                    received.local = local.map(Into::into);
                    received.interface = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]);
                    received.delivery = match sent_to {
                        Some(group) if group.is_multicast() => Delivery::Multicast,
                        // One that nothing can leave from.
                        _ if local != sent_to => Delivery::Broadcast,
                        _ => Delivery::Unicast,
                    };
                }
            }
            // struct in6_pktinfo: the address in the header, the interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some((&octets, interface)) = data.split_first_chunk::<16>() {
                    let ip = Ipv6Addr::from(octets).to_canonical();
                    if ip.is_multicast() {
                        received.delivery = Delivery::Multicast;
                    } else {
                        received.local = received.local.or(Some(ip));
                    }
                    let interface = interface.first_chunk().map(|one| u32::from_ne_bytes(*one));
                    received.interface = interface.unwrap_or(received.interface);
                }
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
pub(super) fn encode(
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
        fn whatever_the_control_messages_are_reading_them_ends(bytes: Vec<u8>) {
            decode(&bytes);
        }

        #[test]
        fn control_messages_are_found_in_any_order(
            source: Option<(IpAddr, u32)>, drops: Option<u32>, segment in 1_i32..65_507, swap: bool,
        ) {
            let mut control = Control([0xff; CONTROL_BYTES]);
            let mut used = encode(&mut control, None, source);
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
            let received = decode(&control.0[..used]);
            prop_assert_eq!(received.segment_bytes, usize::try_from(segment).ok());
            prop_assert_eq!(received.drops, drops);
            let interface = source.map_or(0, |(_, interface)| interface);
            prop_assert_eq!(received.interface, interface);
            match source.map(|(ip, _)| (ip, ip.to_canonical())) {
                None => prop_assert_eq!(received.local, None),
                // What is written names no address that it was sent to.
                Some((IpAddr::V4(_), ip)) => prop_assert_eq!(received.local, Some(ip)),
                Some((_, ip)) if ip.is_multicast() => {
                    prop_assert_eq!(received.local, None);
                    prop_assert_eq!(received.delivery, Delivery::Multicast);
                }
                Some((_, ip)) => {
                    prop_assert_eq!(received.local, Some(ip));
                    prop_assert_eq!(received.delivery, Delivery::Unicast);
                }
            }
        }
    }

    #[test]
    fn to_whom_a_datagram_was_sent_is_read_from_both_kinds_of_packet_information() {
        let v4 = |local: [u8; 4], sent_to: [u8; 4]| {
            let mut data = 3_u32.to_ne_bytes().to_vec();
            data.extend([local, sent_to].concat());
            ((libc::IPPROTO_IP, libc::IP_PKTINFO), data)
        };
        let v6 = |sent_to: &str| {
            let ip: Ipv6Addr = sent_to.parse().expect("an address");
            let mut data = ip.octets().to_vec();
            data.extend(3_u32.to_ne_bytes());
            ((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), data)
        };
        let here = [192, 0, 2, 1];
        let cases = [
            (vec![v4(here, here)], Some("192.0.2.1"), Delivery::Unicast),
            (
                vec![v4(here, [192, 0, 2, 255])],
                Some("192.0.2.1"),
                Delivery::Broadcast,
            ),
            (
                vec![v4(here, [255; 4])],
                Some("192.0.2.1"),
                Delivery::Broadcast,
            ),
            (
                vec![v4(here, [224, 0, 0, 1])],
                Some("192.0.2.1"),
                Delivery::Multicast,
            ),
            (
                vec![v6("2001:db8::1")],
                Some("2001:db8::1"),
                Delivery::Unicast,
            ),
            (vec![v6("ff02::1")], None, Delivery::Multicast),
            // Both kinds, as a dual-stack socket reports them.
            (
                vec![v4(here, [224, 0, 0, 1]), v6("::ffff:224.0.0.1")],
                Some("192.0.2.1"),
                Delivery::Multicast,
            ),
            (
                vec![v6("::ffff:192.0.2.255"), v4(here, [192, 0, 2, 255])],
                Some("192.0.2.1"),
                Delivery::Broadcast,
            ),
        ];
        for (messages, local, delivery) in cases {
            let mut control = Control([0; CONTROL_BYTES]);
            let mut used = 0;
            for (kind, data) in &messages {
                used = put_message(&mut control, used, *kind, data);
            }
            let received = decode(&control.0[..used]);
            let local = local.map(|local| local.parse().expect("an address"));
            assert_eq!(
                (received.local, received.delivery, received.interface),
                (local, delivery, 3),
                "{messages:?}"
            );
        }
    }
}
