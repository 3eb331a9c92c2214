//! The first messages of a handshake, which the engine reads and writes without any state.

use crate::record::{DTLS_1_0, HANDSHAKE, Record, plain};

/// Type, length, sequence number, offset and length of the fragment: RFC 6347 §4.2.2.
const HEADER_BYTES: usize = 12;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
/// The length of the cookies that the engine makes: those of HMAC-SHA-256.
pub(crate) const COOKIE_BYTES: usize = 32;

/// A `ClientHello` in one piece: RFC 6347 §4.2.1, RFC 5246 §7.4.1.2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientHello<'a> {
    /// The sequence number of its record.
    pub(crate) record_sequence: u64,
    record_version: [u8; 2],
    /// 0 without a cookie, 1 with one.
    pub(crate) message_sequence: u16,
    pub(crate) random: [u8; 32],
    pub(crate) cookie: &'a [u8],
    suites: &'a [u8],
    /// Version, random, session id.
    before_cookie: &'a [u8],
    /// Cipher suites, compression methods, extensions.
    after_cookie: &'a [u8],
}

/// Why a record is no `ClientHello` that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHello {
    /// It is another message.
    Other,
    /// It is one, in fragments.
    Fragmented,
    /// It is one, with lengths that do not fit.
    Malformed,
}

impl<'a> ClientHello<'a> {
    pub(crate) fn parse(record: &Record<'a>) -> Result<Self, NoHello> {
        if record.content_type != HANDSHAKE || record.epoch != 0 {
            return Err(NoHello::Other);
        }
        let Some((header, body)) = record.fragment.split_first_chunk::<HEADER_BYTES>() else {
            return Err(NoHello::Other);
        };
        let &[message_type, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = header;
        if message_type != CLIENT_HELLO {
            return Err(NoHello::Other);
        }
        if [l0, l1, l2] != [f0, f1, f2] || [o0, o1, o2] != [0; 3] {
            return Err(NoHello::Fragmented);
        }
        let len = u32::from_be_bytes([0, l0, l1, l2]);
        if usize::try_from(len) != Ok(body.len()) {
            return Err(NoHello::Malformed);
        }
        Self::parse_body(record, u16::from_be_bytes([s0, s1]), body).ok_or(NoHello::Malformed)
    }

    fn parse_body(record: &Record<'a>, message_sequence: u16, body: &'a [u8]) -> Option<Self> {
        let (_version, rest) = body.split_first_chunk::<2>()?;
        let (random, rest) = rest.split_first_chunk::<32>()?;
        let (_session_id, rest) = vector_8(rest)?;
        let before_cookie = &body[..body.len() - rest.len()];
        let (cookie, after_cookie) = vector_8(rest)?;
        let (suites, rest) = vector_16(after_cookie)?;
        let (compression, rest) = vector_8(rest)?;
        // Extensions may be absent: RFC 5246 §7.4.1.2.
        let end = match rest {
            [] => rest,
            _ => vector_16(rest)?.1,
        };
        let is_whole = end.is_empty() && !compression.is_empty();
        (is_whole && !suites.is_empty() && suites.len().is_multiple_of(2)).then_some(Self {
            record_sequence: record.sequence,
            record_version: record.version,
            message_sequence,
            random: *random,
            cookie,
            suites,
            before_cookie,
            after_cookie,
        })
    }

    /// Where a suite stands among those that the client offers, most wanted first.
    pub(crate) fn position(&self, suite: u16) -> Option<usize> {
        let mut suites = self.suites.chunks_exact(2);
        suites.position(|offered| offered == suite.to_be_bytes())
    }

    /// What the cookie covers beside the address: all but the cookie, since the client must repeat
    /// it (RFC 6347 §4.2.1).
    pub(crate) fn parameters(&self) -> [&'a [u8]; 2] {
        [self.before_cookie, self.after_cookie]
    }

    /// The datagram that the same client would have sent first, without a cookie.
    pub(crate) fn without_cookie(&self) -> Vec<u8> {
        let mut body = self.before_cookie.to_vec();
        body.push(0);
        body.extend_from_slice(self.after_cookie);
        let message = message(CLIENT_HELLO, 0, &body);
        plain(HANDSHAKE, self.record_version, 0, &message)
    }

    /// A `HelloVerifyRequest` in answer to it. Its record has the sequence number of the client's, as
    /// RFC 6347 §4.2.1 asks of a server that keeps no state.
    pub(crate) fn verify_request(&self, cookie: &[u8; COOKIE_BYTES]) -> Vec<u8> {
        let mut body = DTLS_1_0.to_vec();
        body.push(32);
        body.extend_from_slice(cookie);
        let message = message(HELLO_VERIFY_REQUEST, 0, &body);
        plain(HANDSHAKE, DTLS_1_0, self.record_sequence, &message)
    }
}

/// The cookie of a `HelloVerifyRequest`, if the datagram is one.
pub(crate) fn cookie_of_verify_request(datagram: &[u8]) -> Option<&[u8]> {
    let (record, _) = Record::parse(datagram)?;
    let (header, body) = record.fragment.split_first_chunk::<HEADER_BYTES>()?;
    let is_request = record.content_type == HANDSHAKE && header[0] == HELLO_VERIFY_REQUEST;
    let (cookie, _) = vector_8(body.get(2..)?)?;
    is_request.then_some(cookie)
}

/// The greatest length that the handshake messages in a record in the clear have, of which it may hold
/// fragments.
pub(crate) fn longest_message(record: &Record<'_>) -> usize {
    let mut longest = 0;
    let mut rest = match (record.epoch, record.content_type) {
        (0, HANDSHAKE) => record.fragment,
        _ => &[],
    };
    while let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let number =
            |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]);
        longest = longest.max(number(1));
        rest = usize::try_from(number(9))
            .ok()
            .and_then(|len| body.get(len..))
            .unwrap_or_default();
    }
    usize::try_from(longest).unwrap_or(usize::MAX)
}

/// A handshake message in one fragment.
fn message(message_type: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a message is shorter than 2^24 bytes");
    let len = &len.to_be_bytes()[1..];
    let mut message = vec![message_type];
    message.extend_from_slice(len);
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(&[0, 0, 0]);
    message.extend_from_slice(len);
    message.extend_from_slice(body);
    message
}

/// A vector with a length of 8 bits, and what follows it.
fn vector_8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(len.into())
}

/// A vector with a length of 16 bits, and what follows it.
fn vector_16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

/// A `ClientHello` as a client without any wishes sends it: for the engine's check of itself, and
/// for tests.
pub(crate) fn sample(random: [u8; 32], cookie: &[u8], suites: &[u16]) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend_from_slice(&random);
    body.push(0);
    body.push(u8::try_from(cookie.len()).expect("a cookie is shorter than 256 bytes"));
    body.extend_from_slice(cookie);
    let len = u16::try_from(2 * suites.len()).expect("there are fewer than 2^15 suites");
    body.extend_from_slice(&len.to_be_bytes());
    for suite in suites {
        body.extend_from_slice(&suite.to_be_bytes());
    }
    // No compression; the extended master secret (RFC 7627), which is asked for.
    body.extend_from_slice(&[1, 0, 0, 4, 0, 23, 0, 0]);
    let sequence = u16::from(!cookie.is_empty());
    let message = message(CLIENT_HELLO, sequence, &body);
    plain(HANDSHAKE, DTLS_1_0, sequence.into(), &message)
}

#[cfg(test)]
mod tests {
    use super::{ClientHello, NoHello, cookie_of_verify_request, longest_message, message, sample};
    use crate::record::{DTLS_1_0, HANDSHAKE, Record, plain};

    fn parse(datagram: &[u8]) -> Result<ClientHello<'_>, NoHello> {
        let (record, _) = Record::parse(datagram).expect("a record");
        ClientHello::parse(&record)
    }

    #[test]
    fn a_hello_is_read() {
        let datagram = sample([7; 32], b"cookie", &[0xc0a8, 0xc02b]);
        let hello = parse(&datagram).unwrap();
        assert_eq!(hello.random, [7; 32]);
        assert_eq!(hello.cookie, b"cookie");
        assert_eq!(hello.message_sequence, 1);
        assert_eq!(hello.position(0xc02b), Some(1));
        assert_eq!(hello.position(0xa8c0), None);
    }

    #[test]
    fn the_hello_without_its_cookie_is_the_one_sent_first() {
        let datagram = sample([7; 32], &[1; 32], &[0xc0a8]);
        let first = parse(&datagram).unwrap().without_cookie();
        assert_eq!(first, sample([7; 32], b"", &[0xc0a8]));
    }

    #[test]
    fn a_verify_request_is_shorter_than_any_hello_and_has_its_sequence_number() {
        let mut shortest = sample([0; 32], b"", &[0xc0a8]);
        shortest[10] = 5;
        let request = parse(&shortest).unwrap().verify_request(&[9; 32]);
        assert_eq!(cookie_of_verify_request(&request), Some(&[9; 32][..]));
        assert_eq!(Record::parse(&request).unwrap().0.sequence, 5);
        assert!(request.len() < shortest.len());
    }

    #[test]
    fn the_longest_message_of_a_record_counts_whole_also_where_a_fragment_of_it_is_there() {
        let one = message(11, 3, &[7; 40]);
        let mut other = message(12, 4, &[8; 20]);
        // A part of a message of 3 × 65,536 + 20 bytes.
        other[1] = 3;
        let both = [&one[..], &other].concat();
        let longest = |fragment: &[u8]| {
            let datagram = plain(HANDSHAKE, DTLS_1_0, 0, fragment);
            longest_message(&Record::parse(&datagram).unwrap().0)
        };
        assert_eq!(longest(&one), 40);
        assert_eq!(longest(&both), 3 * 65_536 + 20);
        assert_eq!(longest(&both[..one.len() + 11]), 40);
        assert_eq!(longest(&[]), 0);
        let protected = [22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 12, 1, 9, 9, 9];
        let protected = [&protected[..], &[0; 8]].concat();
        assert_eq!(longest_message(&Record::parse(&protected).unwrap().0), 0);
    }

    #[test]
    fn what_is_cut_off_has_too_much_or_is_in_fragments_is_no_hello() {
        let whole = sample([7; 32], b"cookie", &[0xc0a8]);
        let (record, _) = Record::parse(&whole).unwrap();
        for len in 12..record.fragment.len() {
            let mut fragment = record.fragment[..len].to_vec();
            let body = u32::try_from(len - 12).unwrap().to_be_bytes();
            fragment[1..4].copy_from_slice(&body[1..]);
            fragment[9..12].copy_from_slice(&body[1..]);
            let cut = Record {
                fragment: &fragment,
                ..record
            };
            // Without any extension it is whole again.
            let is_whole = len == record.fragment.len() - 6;
            assert_eq!(ClientHello::parse(&cut).is_ok(), is_whole, "{len}");
        }
        let mut fragmented = whole.clone();
        fragmented[13 + 11] -= 1;
        assert_eq!(parse(&fragmented).unwrap_err(), NoHello::Fragmented);
        let mut other = whole.clone();
        other[13] = 2;
        assert_eq!(parse(&other).unwrap_err(), NoHello::Other);
    }
}
