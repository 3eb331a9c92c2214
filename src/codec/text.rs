use std::fmt::{self, Write as _};
use std::str::{self, Utf8Error};

use super::{Codec, Writer};
use crate::timestamp::Timestamp;

/// Plain UTF-8: a datagram is a text, an empty one the empty text.
///
/// Answers are anything that can be displayed, so `&format_args!(…)` is written straight into the
/// datagram, without a string in between.
///
/// The format does not mark responses, so the codec cannot keep two servers from answering each
/// other.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::Codec;
///
/// assert_eq!(Text.decode_request("你好".as_bytes())?, "你好");
/// assert!(Text.decode_request(b"\xff").is_err());
/// # Ok::<(), rejoinder::codec::TextError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

/// Why a datagram is no text, or an answer could not be written.
///
/// ```
/// use rejoinder::codec::{Text, TextError};
/// use rejoinder::Codec;
///
/// let error = Text.decode_request(b"caf\xe9").unwrap_err(); // Latin-1
/// match error {
///     TextError::NotUtf8(error) => assert_eq!(error.valid_up_to(), 3),
///     other => panic!("{other}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The datagram is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8(#[from] Utf8Error),
    /// The answer's own `Display` implementation failed.
    #[error("the answer's `Display` returned an error")]
    Display(#[from] fmt::Error),
}

impl Codec for Text {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Ok(str::from_utf8(datagram)?)
    }

    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        Ok(write!(out, "{answer}")?)
    }

    fn encode_request(&self, _: u64, request: &str, out: &mut Writer<'_>) -> Result<(), TextError> {
        out.put(request.as_bytes());
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Ok(str::from_utf8(datagram)?)
    }

    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}
