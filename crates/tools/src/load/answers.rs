//! Which answers are right.

use std::str;

use rejoinder::Codec;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;

use crate::load::numbers::{PLACEHOLDER, number_in};

/// A message, and what the answer to it should be.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) text: String,
    expected: Option<Pattern>,
}

/// A text that may have numbers in it: what stands around them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(Vec<String>);

impl Message {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            expected: None,
        }
    }

    /// The text of the right answer, in which the number stands as in the message.
    pub(crate) fn expect(&mut self, answer: &str) {
        self.expected = Some(Pattern(
            answer.split(PLACEHOLDER).map(str::to_owned).collect(),
        ));
    }

    /// Takes an answer as the right one, unless it is known what that is.
    pub(crate) fn learn(&mut self, answer: &str) {
        self.expected.get_or_insert_with(|| {
            let pieces = match number_in(answer.as_bytes()) {
                Some(number) => answer.split(&answer[number]).map(str::to_owned).collect(),
                None => vec![answer.to_owned()],
            };
            Pattern(pieces)
        });
    }
}

/// Distinguishes right answers from wrong ones.
///
/// An answer is right if it is a frame of the ctime protocol and its text is the expected one, with
/// the number of its request wherever that was expected. The time of the frame is not looked at. If
/// nothing is expected, every frame is right.
#[derive(Debug)]
pub(crate) struct Judge {
    messages: Vec<Message>,
    ctime: Ctime,
    /// The header of the latest frame: it is the same for a whole second.
    header: Vec<u8>,
    /// What was wrong first.
    complaint: Option<String>,
}

impl Judge {
    pub(crate) fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            ctime: Ctime::utc(),
            header: Vec::new(),
            complaint: None,
        }
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether a datagram is the right answer to a message. Its number is that of the request.
    pub(crate) fn is_right(&mut self, message: usize, datagram: &[u8]) -> bool {
        let Message { text, expected } = &self.messages[message];
        let answer = match datagram.strip_prefix(&self.header[..]) {
            Some(answer) if !self.header.is_empty() => Ok(answer),
            _ => self.ctime.decode_response(datagram).map(|frame| {
                let header = datagram.len() - frame.text.len();
                self.header.clear();
                self.header.extend_from_slice(&datagram[..header]);
                frame.text.as_bytes()
            }),
        };
        let right = match (&answer, expected) {
            (Ok(answer), Some(pattern)) => pattern.matches(answer),
            (Ok(answer), None) => str::from_utf8(answer).is_ok(),
            (Err(_), _) => false,
        };
        if !right && self.complaint.is_none() {
            let shown = |bytes: &[u8]| {
                let text: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).collect();
                Escaped(&text).to_string()
            };
            let text = shown(text.as_bytes());
            self.complaint = Some(match (answer, expected) {
                (Ok(answer), Some(pattern)) => format!(
                    "the answer to `{text}` was `{}` and not `{}`",
                    shown(answer),
                    shown(pattern.0.join(PLACEHOLDER).as_bytes())
                ),
                (Ok(answer), None) => {
                    format!("the answer to `{text}` was not UTF-8: `{}`", shown(answer))
                }
                (Err(error), _) => format!(
                    "the answer to `{text}` was no frame of the protocol ({error}): `{}`",
                    shown(datagram)
                ),
            });
        }
        right
    }

    /// What was wrong with the first answer that was not right.
    pub(crate) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

impl Pattern {
    fn matches(&self, answer: &[u8]) -> bool {
        let Some((first, others)) = self.0.split_first() else {
            return false;
        };
        let Some(mut rest) = answer.strip_prefix(first.as_bytes()) else {
            return false;
        };
        if others.is_empty() {
            return rest.is_empty();
        }
        let Some(number) = number_in(answer) else {
            return false;
        };
        let number = &answer[number];
        for piece in others {
            let Some(after) = rest
                .strip_prefix(number)
                .and_then(|rest| rest.strip_prefix(piece.as_bytes()))
            else {
                return false;
            };
            rest = after;
        }
        rest.is_empty()
    }
}

/// How many characters of a wrong answer are shown.
const SHOWN: usize = 200;
