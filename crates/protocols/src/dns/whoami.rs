//! Names that say who asks.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use domain::base::iana::Rtype;
use rejoinder::Writer;

use super::codec::Records;

pub(super) fn is_whoami(name: &[u8]) -> bool {
    name.get(..7)
        .is_some_and(|label| label.eq_ignore_ascii_case(b"\x06whoami"))
}

/// One record, if there is one of this type. It must not be cached.
pub(super) fn whoami(rtype: Rtype, peer: SocketAddr, space: &mut [u8; 96]) -> Records<'_> {
    let mut text = [0; 64];
    let mut out = Writer::new(&mut text);
    match (rtype, peer.ip()) {
        (Rtype::A, IpAddr::V4(ip)) => out.put(&ip.octets()),
        (Rtype::AAAA, IpAddr::V6(ip)) => out.put(&ip.octets()),
        (Rtype::TXT, _) => {
            // A character string begins with its length.
            let _ = write!(out, "\0{peer}");
        }
        _ => return Records::default(),
    }
    let len = out.finish().expect("an address has at most 58 characters");
    let bytes = u8::try_from(len).expect("64 at most");
    if rtype == Rtype::TXT {
        text[0] = bytes - 1;
    }
    let mut out = Writer::new(space);
    out.put(&[0xC0, 12]); // the question's name
    out.put(&rtype.to_int().to_be_bytes());
    out.put(&[0, 1, 0, 0, 0, 0, 0, bytes]); // class IN, TTL 0
    out.put(&text[..len]);
    let len = out.finish().expect("twelve bytes more");
    Records {
        answers: 1,
        bytes: &space[..len],
        ..Records::default()
    }
}
