//! Numbers in messages, written in letters, and the codec that matches answers by them.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use rejoinder::codec::{Ctime, CtimeError};
use rejoinder::{Codec, Correlation, Timestamp, Writer};

/// What stands for the number in a message.
pub(crate) const PLACEHOLDER: &str = "{n}";

/// The ctime protocol, in which the requests' own text is their id.
///
/// A request is a text in which every [`PLACEHOLDER`] is replaced by a number of 48 bits, written as
/// 12 letters: the robot takes no digits, and 16 consonants make no word that it would turn into
/// another. If the answers repeat the number, any number of requests can be in flight on one socket
/// ([`Correlation::Id`]). If they do not, each needs a socket of its own, and the number only makes
/// the requests different from each other.
///
/// A response is the datagram as it came: the [judge](crate::load::answers::Judge) takes it apart.
#[derive(Debug)]
pub(crate) struct Numbered {
    ctime: Ctime,
    repeated: bool,
    numbers: Numbers,
}

impl Numbered {
    /// `repeated` says whether the answers repeat the number.
    pub(crate) fn new(repeated: bool, numbers: Numbers) -> Self {
        Self {
            ctime: Ctime::utc(),
            repeated,
            numbers,
        }
    }
}

impl Codec for Numbered {
    type Request<'a> = &'a str;
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = CtimeError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, CtimeError> {
        self.ctime.decode_request(datagram)
    }

    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), CtimeError> {
        self.ctime.encode_response(now, request, answer, out)
    }

    fn encode_request(
        &self,
        id: u64,
        message: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), CtimeError> {
        if message.is_empty() {
            return Err(CtimeError::EmptyRequest);
        }
        // No number makes a message begin like a response, or keeps it from doing so.
        if self.ctime.is_response(message.as_bytes()) {
            return Err(CtimeError::RequestIsResponse);
        }
        let number = letters(if self.repeated {
            id
        } else {
            self.numbers.next()
        });
        let mut rest = message;
        while let Some((before, after)) = rest.split_once(PLACEHOLDER) {
            out.put(before.as_bytes());
            out.put(&number);
            rest = after;
        }
        out.put(rest.as_bytes());
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], CtimeError> {
        Ok(datagram)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        self.ctime.is_response(datagram)
    }

    fn correlation(&self) -> Correlation {
        if self.repeated {
            Correlation::Id { bits: BITS }
        } else {
            Correlation::Socket
        }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let number = &response[number_in(response)?];
        Some(number.iter().fold(0, |id, &letter| {
            id << 4 | u64::from(VALUES[usize::from(letter)])
        }))
    }

    /// Where the socket identifies the request, a number in the answer must agree with it.
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        if self.repeated {
            return true;
        }
        match (number_in(request), number_in(response)) {
            (Some(asked), Some(answered)) => request[asked] == response[answered],
            _ => true,
        }
    }
}

/// Where the last number in a text stands: a run of exactly as many letters as a number has.
pub(crate) fn number_in(text: &[u8]) -> Option<Range<usize>> {
    let mut run = 0;
    for at in (0..text.len()).rev() {
        if VALUES[usize::from(text[at])] < NONE {
            run += 1;
        } else if run == LETTERS {
            return Some(at + 1..at + 1 + LETTERS);
        } else {
            run = 0;
        }
    }
    (run == LETTERS).then_some(0..LETTERS)
}

/// Whether the numbers of a message are distinguishable from the text around them.
pub(crate) fn stands_apart(message: &str) -> bool {
    let is_letter = |byte: Option<&u8>| byte.is_some_and(|&byte| VALUES[usize::from(byte)] < NONE);
    let pieces: Vec<&[u8]> = message.split(PLACEHOLDER).map(str::as_bytes).collect();
    pieces.windows(2).all(|pair| {
        let (before, after) = (pair[0], pair[1]);
        !is_letter(before.last()) && !is_letter(after.first())
    }) && pieces[1..pieces.len().max(2) - 1]
        .iter()
        .all(|between| !between.is_empty())
}

/// The lowest 48 bits of a number.
fn letters(number: u64) -> [u8; LETTERS] {
    let mut letters = [0; LETTERS];
    let mut rest = number;
    for letter in letters.iter_mut().rev() {
        *letter = ALPHABET[(rest & 15) as usize];
        rest >>= 4;
    }
    letters
}

/// Random numbers from a seed (`SplitMix64`): the same seed sends the same requests.
#[derive(Debug)]
pub(crate) struct Numbers(Cell<u64>);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Others, from a seed that is the next of these.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// From so many bits on, a client lets no id rest.
const BITS: u32 = 48;
const LETTERS: usize = BITS as usize / 4;
const ALPHABET: [u8; 16] = *b"bcdfghjklmnpqrst";
const NONE: u8 = 16;
const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < NONE {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};
