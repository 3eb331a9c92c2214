use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use crate::transport::canonical;

/// The header that a proxy put in front of a datagram.
///
/// ```
/// use rejoinder::proxy::Header;
///
/// let datagram = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 8888\r\nhello";
/// let (header, bytes) = Header::parse_v1(datagram)?;
/// assert_eq!(header.client, Some("192.0.2.1:5000".parse()?));
/// assert_eq!(&datagram[bytes..], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header<'a> {
    /// The client. `None` says that the datagram is the proxy's own: a health check (the command
    /// `LOCAL` of version 2, `UNKNOWN` of version 1).
    pub client: Option<SocketAddr>,
    /// The address that the client sent to.
    pub destination: Option<SocketAddr>,
    /// The bytes of the type-length-value vectors of version 2.
    tlvs: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads a header of version 2, which is binary, and returns it with its length in bytes.
    ///
    /// Both transports (`STREAM` and `DGRAM`) are accepted, for IPv4 and IPv6: the field says how the
    /// client came to the proxy. The rest of the header may have at most 520 bytes.
    ///
    /// ```
    /// use rejoinder::proxy::Header;
    ///
    /// let mut datagram = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c".to_vec();
    /// datagram.extend([192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0x22, 0xb8]);
    /// datagram.extend(b"hello");
    /// let (header, bytes) = Header::parse_v2(&datagram)?;
    /// assert_eq!(header.client, Some("192.0.2.1:5000".parse()?));
    /// assert_eq!(&datagram[bytes..], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn parse_v2(datagram: &'a [u8]) -> Result<(Self, usize), HeaderError> {
        let rest = datagram
            .strip_prefix(SIGNATURE)
            .ok_or(HeaderError::Missing)?;
        let [version_command, family, high, low, rest @ ..] = rest else {
            return Err(HeaderError::Truncated);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len > MAX_V2_REST_BYTES {
            return Err(HeaderError::TooLong { bytes: len });
        }
        let body = rest.get(..len).ok_or(HeaderError::Truncated)?;
        let bytes = FIXED_BYTES + len;
        match version_command {
            // The command LOCAL: whatever else the header has is to be skipped.
            0x20 => Ok((Self::local(), bytes)),
            0x21 => {
                let (client, destination, tlvs) = addresses(*family, body)?;
                check_tlvs(tlvs)?;
                let header = Self {
                    client: Some(client),
                    destination: Some(destination),
                    tlvs,
                };
                Ok((header, bytes))
            }
            other => Err(HeaderError::Command { byte: *other }),
        }
    }

    /// Reads a header of version 1, which is a line of text, and returns it with its length in bytes.
    pub fn parse_v1(datagram: &'a [u8]) -> Result<(Self, usize), HeaderError> {
        if !datagram.starts_with(V1_START) {
            return Err(HeaderError::Missing);
        }
        let window = &datagram[..datagram.len().min(MAX_V1_BYTES)];
        let end = window.windows(2).position(|two| two == b"\r\n");
        let end = end.ok_or(HeaderError::Truncated)?;
        let line = str::from_utf8(&window[..end]).map_err(|_| HeaderError::Address)?;
        let mut words = line.split(' ').skip(1);
        let header = match words.next() {
            Some("UNKNOWN") => Self::local(),
            Some(family @ ("TCP4" | "TCP6")) => {
                let mut ip = || ip(family, words.next()?);
                let ips = [ip(), ip()];
                let mut port = || port(words.next()?);
                let ports = [port(), port()];
                let ([Some(client), Some(destination)], [Some(from), Some(to)]) = (ips, ports)
                else {
                    return Err(HeaderError::Address);
                };
                if words.next().is_some() {
                    return Err(HeaderError::Address);
                }
                Self {
                    client: Some(canonical(SocketAddr::new(client, from))),
                    destination: Some(canonical(SocketAddr::new(destination, to))),
                    tlvs: &[],
                }
            }
            _ => return Err(HeaderError::Family),
        };
        Ok((header, end + 2))
    }

    /// Encodes a header of version 2 without vectors: for proxies, and for tests of a server behind one.
    /// If one address is of IPv6, both are written as such.
    ///
    /// ```
    /// use rejoinder::proxy::Header;
    ///
    /// let bytes = Header::encode_v2("192.0.2.1:7".parse()?, "[2001:db8::1]:9".parse()?);
    /// let (header, _) = Header::parse_v2(&bytes)?;
    /// assert_eq!(header.client, Some("192.0.2.1:7".parse()?));
    /// assert_eq!(header.destination, Some("[2001:db8::1]:9".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn encode_v2(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let mut header = [SIGNATURE, &[0x21]].concat();
        match (client.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                header.extend([0x12, 0, 12]);
                header.extend(from.octets());
                header.extend(to.octets());
            }
            (from, to) => {
                header.extend([0x22, 0, 36]);
                for ip in [from, to] {
                    let ip = match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    header.extend(ip.octets());
                }
            }
        }
        header.extend(client.port().to_be_bytes());
        header.extend(destination.port().to_be_bytes());
        header
    }

    /// The type-length-value vectors of version 2, as type and value.
    ///
    /// ```
    /// use rejoinder::proxy::Header;
    ///
    /// let mut datagram = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x11".to_vec();
    /// datagram.extend([192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 0x22, 0xb8]);
    /// datagram.extend(b"\xea\0\x02vp");
    /// let (header, _) = Header::parse_v2(&datagram)?;
    /// assert_eq!(header.tlvs().collect::<Vec<_>>(), [(0xea, &b"vp"[..])]);
    /// # Ok::<(), rejoinder::proxy::HeaderError>(())
    /// ```
    pub fn tlvs(&self) -> Tlvs<'a> {
        Tlvs { rest: self.tlvs }
    }

    const fn local() -> Self {
        Self {
            client: None,
            destination: None,
            tlvs: &[],
        }
    }
}

/// The vectors of a header, see [`Header::tlvs`].
///
/// ```
/// use rejoinder::proxy::Header;
///
/// let bytes = Header::encode_v2("192.0.2.1:7".parse()?, "198.51.100.1:9".parse()?);
/// assert_eq!(Header::parse_v2(&bytes)?.0.tlvs().count(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, high, low, rest @ ..] = self.rest else {
            return None;
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some((*kind, value))
    }
}

/// Why a datagram has no valid header.
///
/// ```
/// use rejoinder::proxy::{Header, HeaderError};
///
/// assert_eq!(Header::parse_v2(b"hello"), Err(HeaderError::Missing));
/// assert_eq!(Header::parse_v1(b"PROXY TCP4 192.0.2.1"), Err(HeaderError::Truncated));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The datagram does not begin as a header does.
    #[error("no PROXY header, which a trusted proxy has to send")]
    Missing,
    /// The datagram ends before its header does, or a line is longer than 107 bytes.
    #[error("the PROXY header is cut off")]
    Truncated,
    /// The header is longer than is accepted.
    #[error("a header of {bytes} bytes after the first 16, more than {MAX_V2_REST_BYTES}")]
    TooLong {
        /// How long it says to be.
        bytes: usize,
    },
    /// The version is not 2, or the command neither `LOCAL` nor `PROXY`.
    #[error("version and command are {byte:#04x}, must be 0x20 or 0x21")]
    Command {
        /// The byte with both.
        byte: u8,
    },
    /// The addresses are neither of IPv4 nor of IPv6.
    #[error("the addresses are neither of IPv4 nor of IPv6")]
    Family,
    /// An address or a port is malformed.
    #[error("an address or a port is malformed")]
    Address,
    /// A type-length-value vector passes the header's end.
    #[error("a type-length-value vector passes the end of the header")]
    Tlv,
}

/// The addresses of a header of version 2, and what follows them.
#[inline]
fn addresses(family: u8, body: &[u8]) -> Result<(SocketAddr, SocketAddr, &[u8]), HeaderError> {
    match family {
        0x11 | 0x12 => {
            let (block, tlvs) = body
                .split_first_chunk::<12>()
                .ok_or(HeaderError::Truncated)?;
            let ip =
                |at: usize| Ipv4Addr::new(block[at], block[at + 1], block[at + 2], block[at + 3]);
            let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
            Ok(((ip(0), port(8)).into(), (ip(4), port(10)).into(), tlvs))
        }
        0x21 | 0x22 => {
            let (block, tlvs) = body
                .split_first_chunk::<36>()
                .ok_or(HeaderError::Truncated)?;
            let ip = |at: usize| {
                let bytes: [u8; 16] = block[at..at + 16].try_into().expect("16 bytes");
                Ipv6Addr::from(bytes)
            };
            let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
            let addr = |ip: Ipv6Addr, port: u16| canonical(SocketAddr::new(ip.into(), port));
            Ok((addr(ip(0), port(32)), addr(ip(16), port(34)), tlvs))
        }
        _ => Err(HeaderError::Family),
    }
}

#[inline]
fn check_tlvs(tlvs: &[u8]) -> Result<(), HeaderError> {
    let mut vectors = Tlvs { rest: tlvs };
    while vectors.next().is_some() {}
    if vectors.rest.is_empty() {
        Ok(())
    } else {
        Err(HeaderError::Tlv)
    }
}

fn ip(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => Some(Ipv4Addr::from_str(text).ok()?.into()),
        _ => Some(Ipv6Addr::from_str(text).ok()?.into()),
    }
}

/// A decimal port without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_plain && !is_padded {
        text.parse().ok()
    } else {
        None
    }
}

/// The first 12 bytes of a header of version 2 (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// With the version, the command, the family and the length.
const FIXED_BYTES: usize = 16;
/// What may follow them: addresses and vectors. The specification has a receiver accept 520 in all.
pub(super) const MAX_V2_REST_BYTES: usize = 520;
const V1_START: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end (section 2.1).
const MAX_V1_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Header, HeaderError, SIGNATURE};

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).expect("a short body");
        [
            SIGNATURE,
            &[command, family],
            &len.to_be_bytes(),
            body,
            b"payload",
        ]
        .concat()
    }

    #[test]
    fn both_families_are_read_and_mapped_addresses_are_canonical() {
        let v4 = v2(0x21, 0x12, &[10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 1, 0]);
        let (header, bytes) = Header::parse_v2(&v4).expect("a header");
        assert_eq!(header.client, Some(([10, 0, 0, 1], 80).into()));
        assert_eq!(header.destination, Some(([10, 0, 0, 2], 256).into()));
        assert_eq!(&v4[bytes..], b"payload");

        let mut body = [0; 36];
        body[15] = 1;
        body[16..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);
        body[33] = 7;
        let v6 = v2(0x21, 0x22, &body);
        let (header, _) = Header::parse_v2(&v6).expect("a header");
        assert_eq!(header.client.expect("a client").to_string(), "[::1]:7");
        assert_eq!(header.destination.expect("one").to_string(), "10.0.0.2:0");
    }

    #[test]
    fn a_health_check_has_no_client() {
        for body in [&[][..], &[1, 2, 3]] {
            let local = v2(0x20, 0x00, body);
            let (header, bytes) = Header::parse_v2(&local).expect("a header");
            assert_eq!((header.client, &local[bytes..]), (None, &b"payload"[..]));
        }
        let (header, bytes) = Header::parse_v1(b"PROXY UNKNOWN ffff::1 a b\r\n?").expect("one");
        assert_eq!((header.client, bytes), (None, 27));
    }

    #[test]
    fn what_is_broken_is_named() {
        let body = [0; 12];
        for (datagram, error) in [
            (b"hello".to_vec(), HeaderError::Missing),
            (SIGNATURE.to_vec(), HeaderError::Truncated),
            (v2(0x21, 0x12, &body)[..27].to_vec(), HeaderError::Truncated),
            (v2(0x21, 0x12, &body[..11]), HeaderError::Truncated),
            (v2(0x11, 0x12, &body), HeaderError::Command { byte: 0x11 }),
            (v2(0x22, 0x12, &body), HeaderError::Command { byte: 0x22 }),
            (v2(0x21, 0x00, &body), HeaderError::Family),
            (v2(0x21, 0x31, &body), HeaderError::Family),
            (v2(0x21, 0x12, &[0; 13]), HeaderError::Tlv),
            (
                v2(0x21, 0x12, &[[0; 12].as_slice(), &[4, 0, 1]].concat()),
                HeaderError::Tlv,
            ),
            (
                v2(0x21, 0x12, &[0; 521]),
                HeaderError::TooLong { bytes: 521 },
            ),
        ] {
            assert_eq!(
                Header::parse_v2(&datagram).map(|_| ()),
                Err(error),
                "{datagram:02x?}"
            );
        }
        for (line, error) in [
            ("", HeaderError::Missing),
            ("proxy TCP4 ", HeaderError::Missing),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2", HeaderError::Truncated),
            ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", HeaderError::Family),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", HeaderError::Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", HeaderError::Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", HeaderError::Address),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", HeaderError::Address),
            (
                "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
                HeaderError::Address,
            ),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", HeaderError::Address),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", HeaderError::Address),
        ] {
            assert_eq!(
                Header::parse_v1(line.as_bytes()).map(|_| ()),
                Err(error),
                "{line}"
            );
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(
            Header::parse_v1(long.as_bytes()),
            Err(HeaderError::Truncated)
        );
        assert!(Header::parse_v1(long.replacen('x', "", 1).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_a_header_never_passes_the_datagram(
            start in prop_oneof![Just(&b""[..]), Just(SIGNATURE), Just(&b"PROXY TCP4 "[..])],
            rest in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let datagram = [start, &rest].concat();
            let parsed = [Header::parse_v1(&datagram), Header::parse_v2(&datagram)];
            for (header, bytes) in parsed.into_iter().flatten() {
                prop_assert!(bytes <= datagram.len());
                prop_assert!(header.tlvs().count() <= datagram.len());
            }
        }
    }
}
