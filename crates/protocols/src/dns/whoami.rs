//! Names that say who asks.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use domain::base::iana::{OptRcode, Rtype};
use rejoinder::Writer;

use super::codec::Records;
use super::zone::{Place, Zone};

/// Room for an address or an SOA record.
pub(super) type Space = [u8; 96];

pub(super) fn is_whoami(name: &[u8]) -> bool {
    name.get(..7)
        .is_some_and(|label| label.eq_ignore_ascii_case(b"\x06whoami"))
}

/// The answer to a query for such a name, or for one below it. `None` if the name is neither, or if the zone has the
/// answer. A name whose parent does not exist in the zone does not exist either (RFC 8020).
///
/// Outside of the zone, each of these names is a zone of its own.
pub(super) fn whoami<'a>(
    zone: &'a Zone,
    name: &[u8],
    rtype: Rtype,
    peer: SocketAddr,
    space: &'a mut Space,
) -> Option<(OptRcode, Records<'a>)> {
    let at = labels(name).find(|at| is_whoami(&name[*at..]))?;
    let parent = &name[at + b"\x06whoami".len()..];
    let is_inside = match zone.place(parent) {
        Place::Exists => true,
        Place::Outside => false,
        Place::Missing => return None,
    };
    if at > 0 {
        let is_denied = zone.place(name) == Place::Outside;
        return is_denied.then(|| (OptRcode::NXDOMAIN, own_zone(at, false, space)));
    }
    // RFC 8482 §4.1: for ANY, one of the sets will do.
    let asked = if rtype == Rtype::ANY {
        Rtype::TXT
    } else {
        rtype
    };
    let varies = matches!(asked, Rtype::A | Rtype::AAAA);
    let records = match (asked, peer.ip()) {
        (Rtype::A, IpAddr::V4(ip)) => one(asked, &ip.octets(), space),
        (Rtype::AAAA, IpAddr::V6(ip)) => one(asked, &ip.octets(), space),
        (Rtype::TXT, _) => one(asked, text(peer, &mut [0; 64]), space),
        _ if is_inside => zone.no_data(varies),
        _ => own_zone(at, asked == Rtype::SOA, space),
    };
    Some((OptRcode::NOERROR, records))
}

/// Where the labels of a name begin, without the root's.
fn labels(name: &[u8]) -> impl Iterator<Item = usize> {
    let label = |at: &usize| name.get(*at).is_some_and(|bytes| *bytes > 0);
    std::iter::successors(Some(0), |at| Some(at + 1 + usize::from(name[*at]))).take_while(label)
}

/// A character string with the peer's address and port.
fn text(peer: SocketAddr, space: &mut [u8; 64]) -> &[u8] {
    let mut out = Writer::new(space);
    // It begins with its length.
    let _ = write!(out, "\0{peer}");
    let len = out.finish().expect("an address has at most 58 characters");
    space[0] = u8::try_from(len - 1).expect("64 at most");
    &space[..len]
}

/// One record, which must not be cached: the answer varies with the peer.
fn one<'a>(rtype: Rtype, data: &[u8], space: &'a mut Space) -> Records<'a> {
    Records {
        answers: 1,
        bytes: record(0, rtype, data, space),
        ..Records::default()
    }
}

/// The SOA record of a zone that begins with the label at `at`. It is the answer, or else says that there is none
/// and that this must not be cached (RFC 2308 §3). Its contents are those of empty zones (RFC 6303 §3).
fn own_zone(at: usize, is_answer: bool, space: &mut Space) -> Records<'_> {
    const RNAME: &[u8] = b"\x06nobody\x07invalid\0";
    const SERIAL_REFRESH_RETRY_EXPIRE_MINIMUM: [u32; 5] = [1, 3_600, 1_200, 604_800, 0];
    let mut data = [0; 2 + RNAME.len() + 20];
    let mut out = Writer::new(&mut data);
    out.put(&pointer(at));
    out.put(RNAME);
    for number in SERIAL_REFRESH_RETRY_EXPIRE_MINIMUM {
        out.put(&number.to_be_bytes());
    }
    let len = out.finish().expect("the fields add up");
    Records {
        answers: is_answer.into(),
        authorities: (!is_answer).into(),
        bytes: record(at, Rtype::SOA, &data[..len], space),
        ..Records::default()
    }
}

/// A record with a TTL of zero. Its owner is the question's name from `at` on.
fn record<'a>(at: usize, rtype: Rtype, data: &[u8], space: &'a mut Space) -> &'a [u8] {
    let mut out = Writer::new(space);
    out.put(&pointer(at));
    out.put(&rtype.to_int().to_be_bytes());
    out.put(&[0, 1, 0, 0, 0, 0, 0]); // class IN, TTL 0, high byte of the length
    out.put(&[u8::try_from(data.len()).expect("64 at most")]);
    out.put(data);
    let len = out.finish().expect("twelve bytes more");
    &space[..len]
}

/// A compressed name (RFC 1035 §4.1.4): what stands in the question from `at` on.
fn pointer(at: usize) -> [u8; 2] {
    let offset = u16::try_from(12 + at).expect("a name has at most 255 bytes");
    (0xC000 | offset).to_be_bytes()
}
