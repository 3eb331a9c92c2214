//! `Tagged(Text)` on the wire, with a handler that sees the ids.

use std::fmt;

use rejoinder::codec::{Tagged, TaggedError, Text, TextError};
use rejoinder::{Codec, Correlation, Timestamp, Writer};

/// Requests and responses as [`Tagged`] has them, so any client of `Tagged(Text)` will do.
///
/// [`Tagged`] keeps the id from the handler. Here it is a part of the request, because it
/// distinguishes a retransmission from a new request with the same text.
#[derive(Clone, Copy, Debug)]
pub struct Conversation;

/// What a peer said, and the id that it has chosen for it.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The id of the request.
    pub id: [u8; 8],
    /// The text.
    pub text: &'a str,
}

impl Codec for Conversation {
    type Request<'a> = Turn<'a>;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = TaggedError<TextError>;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<Turn<'a>, Self::Error> {
        let text = Tagged(Text).decode_request(datagram)?;
        let id = datagram[1..].first_chunk();
        let id = *id.ok_or(TaggedError::NotARequest)?;
        Ok(Turn { id, text })
    }

    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        Tagged(Text).encode_response(now, request, answer, out)
    }

    fn encode_request(
        &self,
        id: u64,
        request: Turn<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        Tagged(Text).encode_request(id, request.text, out)
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Self::Error> {
        Tagged(Text).decode_response(datagram)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        Tagged(Text).is_response(datagram)
    }

    fn correlation(&self) -> Correlation {
        Tagged(Text).correlation()
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        Tagged(Text).response_id(response)
    }

    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        Tagged(Text).response_matches(request, response)
    }
}
