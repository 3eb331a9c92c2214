//! Requests of RFC 3489, which have no magic cookie (RFC 8489 §11).
//!
//! The messages are read and written by hand: `stun-types` knows only those with the cookie.

use std::net::{IpAddr, SocketAddr};

use rejoinder::Writer;

use super::codec::StunError;

/// A binding request whose transaction id has 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    id: &'a [u8; 16],
    attributes: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None` for what has the cookie: that is a message of RFC 5389 or RFC 8489.
    pub(super) fn read(datagram: &'a [u8]) -> Option<Result<Self, StunError>> {
        let (header, attributes) = datagram.split_first_chunk::<20>()?;
        let [kind_high, kind_low, length_high, length_low, id @ ..] = header;
        if id[..4] == MAGIC_COOKIE {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let request = Self { id, attributes };
        let is_whole = length == attributes.len() && request.attributes().all(|one| one.is_some());
        let is_request = [*kind_high, *kind_low] == BINDING_REQUEST;
        Some(
            (is_whole && is_request)
                .then_some(request)
                .ok_or(StunError::Kind),
        )
    }

    /// Types and values, or `None` where one is longer than the message.
    fn attributes(self) -> impl Iterator<Item = Option<(u16, &'a [u8])>> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let next = rest.split_first_chunk::<4>().and_then(|(head, after)| {
                let kind = u16::from_be_bytes([head[0], head[1]]);
                let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let value = after.get(..length)?;
                // All values end at a multiple of four bytes, by their length or by padding.
                rest = after.get(length.next_multiple_of(4)..)?;
                Some((kind, value))
            });
            if next.is_none() {
                rest = &[];
            }
            Some(next)
        })
    }

    /// The types that must be understood and are not: those below 0x8000 (RFC 3489 §11.2) but for
    /// credentials, which are ignored. A CHANGE-REQUEST that asks for no change is as good as none.
    fn unknown(self) -> impl Iterator<Item = u16> {
        let known = |kind: u16, value: &[u8]| match kind {
            CHANGE_REQUEST => value == [0; 4],
            kind => kind >= 0x8000 || CREDENTIALS.contains(&kind),
        };
        let attributes = self.attributes().flatten();
        attributes.filter_map(move |(kind, value)| (!known(kind, value)).then_some(kind))
    }

    /// Writes the response: the address as it is in MAPPED-ADDRESS, because these clients know no other; or
    /// what was not understood.
    pub(super) fn answer(self, peer: SocketAddr, out: &mut Writer<'_>) {
        let mut unknown = [0; MOST_UNKNOWN];
        let mut count = 0;
        for (place, kind) in unknown.iter_mut().zip(self.unknown()) {
            *place = kind;
            count += 1;
        }
        if count > 0 {
            // RFC 3489 §11.2.10: one is repeated to fill a word.
            let list = unknown[..count]
                .iter()
                .chain((count % 2 == 1).then_some(&unknown[0]));
            let list_bytes = 2 * count.next_multiple_of(2);
            self.head(BINDING_ERROR, 4 + 4 + REASON.len() + 4 + list_bytes, out);
            attribute(ERROR_CODE, 4 + REASON.len(), out);
            out.put(&[0, 0, 4, 20]);
            out.put(REASON);
            attribute(UNKNOWN_ATTRIBUTES, list_bytes, out);
            for kind in list {
                out.put(&kind.to_be_bytes());
            }
            return;
        }
        let ip = peer.ip().to_canonical();
        let bytes = if ip.is_ipv4() { 8 } else { 20 };
        self.head(BINDING_SUCCESS, 4 + bytes, out);
        attribute(MAPPED_ADDRESS, bytes, out);
        out.put(&[0, if ip.is_ipv4() { 1 } else { 2 }]);
        out.put(&peer.port().to_be_bytes());
        match ip {
            IpAddr::V4(ip) => out.put(&ip.octets()),
            IpAddr::V6(ip) => out.put(&ip.octets()),
        }
    }

    fn head(self, kind: [u8; 2], bytes: usize, out: &mut Writer<'_>) {
        out.put(&kind);
        out.put(&field(bytes));
        out.put(self.id);
    }
}

fn attribute(kind: u16, bytes: usize, out: &mut Writer<'_>) {
    out.put(&kind.to_be_bytes());
    out.put(&field(bytes));
}

fn field(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("a response has fewer than 100 bytes")
        .to_be_bytes()
}

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];
const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
/// USERNAME, PASSWORD and MESSAGE-INTEGRITY.
const CREDENTIALS: [u16; 3] = [0x0006, 0x0007, 0x0008];
const REASON: &[u8] = b"Unknown Attribute   ";
/// A list of more helps no client.
const MOST_UNKNOWN: usize = 8;
