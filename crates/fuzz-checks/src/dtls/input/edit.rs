//! Datagrams, as far as they are in the clear, and changes of them.

use crate::{Input, changed};

/// Whether bytes begin with a handshake message of a type: 1 is a `ClientHello`, 3 a `HelloVerifyRequest`.
pub(super) fn is_message(bytes: &[u8], message_type: u8) -> bool {
    (bytes.first(), bytes.get(13)) == (Some(&22), Some(&message_type))
}

/// The cookie of a `HelloVerifyRequest`, which has it at its end.
pub(super) fn cookie_of(request: &[u8]) -> &[u8] {
    &request[request.len() - 32..]
}

/// The cookie of a hello, and where its length is: behind the headers of record and message, version, random and the
/// session's id.
pub(super) fn cookie_of_hello(hello: &[u8]) -> (usize, &[u8]) {
    let at = HEADERS_BYTES + 34;
    let at = at + 1 + usize::from(hello[at]);
    let end = at + 1 + usize::from(hello[at]);
    (at, &hello[at + 1..end])
}

/// The second hello to a first, with the cookie of the request that answers it.
pub(super) fn with_cookie(first: &[u8], request: &[u8]) -> Vec<u8> {
    let cookie = cookie_of(request);
    let (at, former) = cookie_of_hello(first);
    let end = HEADERS_BYTES - 12 + usize::from(u16::from_be_bytes([first[11], first[12]]));
    let mut second = first[..at].to_vec();
    second.push(32);
    second.extend_from_slice(cookie);
    second.extend_from_slice(&first[at + 1 + former.len()..end]);
    // The number of the record, and of the message.
    second[10] = second[10].wrapping_add(1);
    second[17..19].copy_from_slice(&[0, 1]);
    set_lengths(&mut second);
    second
}

/// A change, and lengths that fit again if the input wants it.
pub(super) fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let kind = input.byte();
    match kind % 16 {
        // A record's type, epoch, number: all of them are in the clear.
        0 => set(bytes, 0, 20 + input.byte() % 4),
        1 => set(bytes, 4, input.byte() % 3),
        2 => set(bytes, 10, input.byte()),
        // A message's type and number.
        3 => set(bytes, 13, input.byte() % 24),
        4 => set(bytes, 18, input.byte() % 8),
        5 => bytes.extend_from_within(..),
        6 => bytes.resize(bytes.len() + 16 * usize::from(input.byte()), 0),
        7 => drop(bytes.drain(..usize::from(input.byte()).min(bytes.len()))),
        _ if bytes.is_empty() => bytes.extend(input.bytes()),
        _ => *bytes = changed(bytes, input),
    }
    if kind >= 0x80 {
        fit(bytes);
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// Makes the last record, and the message that it begins with, as long as there are bytes.
fn fit(mut bytes: &mut [u8]) {
    while let Some(&[high, low]) = bytes.get(11..13) {
        let end = 13 + usize::from(u16::from_be_bytes([high, low]));
        if bytes.len() < end + 13 {
            return set_lengths(bytes);
        }
        bytes = &mut bytes[end..];
    }
}

/// Makes a record, and the message in it if it is in the clear, as long as there are bytes.
fn set_lengths(record: &mut [u8]) {
    let len = u16::try_from(record.len() - 13).unwrap_or(u16::MAX);
    record[11..13].copy_from_slice(&len.to_be_bytes());
    if record[0] == 22 && record[4] == 0 && len >= 12 {
        let len = u32::from(len - 12).to_be_bytes();
        record[14..17].copy_from_slice(&len[1..]);
        record[22..25].copy_from_slice(&len[1..]);
    }
}

/// Of a record and of a message.
const HEADERS_BYTES: usize = 13 + 12;
