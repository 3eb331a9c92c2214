//! memcached's text commands in UDP frames (`doc/protocol.txt` of its source, section "UDP protocol").
//!
//! The two commands and their responses are read by hand: the crates for memcached are clients for TCP
//! with sockets of their own, and none has a parser that is apart from them.

use rejoinder::codec::ResponseKind;
use rejoinder::{Codec, Correlation, IntoReply, Reply, ReplyError, Timestamp, Writer};

use super::text;

/// memcached's text protocol over UDP.
///
/// Each datagram begins with a header of eight bytes: the request's id, the number of the datagram from 0,
/// how many there are, and two bytes of zero. A request has one datagram.
///
/// Two limits of the protocol remain. The client sends a request again when no response comes. If the value
/// changes in between, and the old one and the new one have as many datagrams, those of both can be put
/// together as one value. Where that matters, let the value carry a checksum. A [`Request::Set`] that is
/// sent again can undo what another client has set meanwhile.
///
/// ```
/// use rejoinder::Client;
/// use rejoinder_protocols::memcached::codec::{Memcached, Request, Response};
/// # use rejoinder::sans_io::ServerCore;
/// # use rejoinder::sim::SimNet;
/// # use rejoinder::{Reply, ReplyError, Context, Handler};
/// # use rejoinder_protocols::memcached::codec::Part;
/// # struct Server;
/// # impl Handler<Memcached> for Server {
/// #     fn handle(&self, _: Request<'_>, _: &Context, reply: &mut Reply<'_, Memcached>) -> Result<(), ReplyError> {
/// #         let part = |number, text| Part { number, total: 2, payload: text };
/// #         reply.send(part(1, b"lo\r\nEND\r\n"))?;
/// #         reply.send(part(0, b"VALUE greeting 0 5\r\nhel"))
/// #     }
/// # }
/// # let net = SimNet::new();
/// # let server = "10.0.0.1:11211".parse()?;
/// # net.host(server, ServerCore::new(Memcached, Server))?;
/// # let mut client = Client::new(net, Memcached, server);
///
/// let response = client.request(Request::Get { key: b"greeting" })?;
/// assert_eq!(response, Response::Value { key: b"greeting", flags: 0, data: b"hello" });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Memcached;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The value of a key.
    Get {
        /// 1 to 250 bytes, without spaces and control characters.
        key: &'a [u8],
    },
    /// Stores a value, which must fit into the request's one datagram.
    Set {
        /// As in [`Get`](Self::Get).
        key: &'a [u8],
        /// A number that comes back with the value.
        flags: u32,
        /// When the value expires: in so many seconds up to 30 days, at this time of Unix beyond that.
        /// 0 is never.
        expires: u32,
        /// Any bytes.
        data: &'a [u8],
    },
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// To [`Request::Get`]: the value.
    Value {
        /// The key that was asked for.
        key: &'a [u8],
        /// The number that was stored with the value.
        flags: u32,
        /// The value.
        data: &'a [u8],
    },
    /// To [`Request::Get`]: the key has no value.
    NotFound,
    /// To [`Request::Set`].
    Stored,
}

/// What a server answers with: one datagram of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The number of this one, from 0.
    pub number: u16,
    /// How many there are, at least 1.
    pub total: u16,
    /// This part of the response's text.
    pub payload: &'a [u8],
}

/// Why a datagram is no request, or a response no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemcachedError {
    /// The datagram does not begin with a header.
    #[error("no header of 8 bytes with a number below the total")]
    Header,
    /// The text is no command that this codec knows, written as it writes it.
    #[error("neither `get KEY` nor `set KEY FLAGS EXPIRES BYTES`")]
    Command,
    /// A key that cannot be sent.
    #[error("a key of {bytes} bytes: it needs 1 to 250, without spaces and control characters")]
    Key {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text is no response.
    #[error("neither a value, nor `END`, nor `STORED`")]
    Response,
    /// The server could not do it: `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`, and why.
    #[error("{}", .0.escape_ascii())]
    Server(Vec<u8>),
}

impl Codec for Memcached {
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
    type Answer<'a> = Part<'a>;
    type Error = MemcachedError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<Request<'a>, MemcachedError> {
        match Frame::read(datagram) {
            Some(frame) if frame.total == 1 => text::request(frame.payload),
            _ => Err(MemcachedError::Header),
        }
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        part: Part<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), MemcachedError> {
        let request = Frame::read(request).ok_or(MemcachedError::Header)?;
        if part.number >= part.total {
            return Err(MemcachedError::Header);
        }
        put_header(out, request.id, part.number, part.total);
        out.put(part.payload);
        Ok(())
    }

    fn encode_request(
        &self,
        id: u64,
        request: Request<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), MemcachedError> {
        #[expect(clippy::cast_possible_truncation, reason = "an id has 16 bits")]
        put_header(out, id as u16, 0, 1);
        text::write(request, out)
    }

    /// Takes the text of a response, put together from its datagrams; also a whole datagram, if there is
    /// but one.
    fn decode_response<'a>(&self, bytes: &'a [u8]) -> Result<Response<'a>, MemcachedError> {
        // No text has a zero among its first bytes, and each header has some.
        match Frame::read(bytes) {
            Some(frame) if frame.total == 1 => text::response(frame.payload),
            _ => text::response(bytes),
        }
    }

    /// Commands begin with a lower-case letter and have one datagram; what servers say begins with a
    /// capital.
    fn is_response(&self, datagram: &[u8]) -> bool {
        Frame::read(datagram).is_some_and(|frame| frame.is_response())
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 16 }
    }

    fn request_id(&self, request: &[u8]) -> Option<u64> {
        Frame::read(request).map(|frame| frame.id.into())
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let frame = Frame::read(response).filter(Frame::is_response)?;
        Some(frame.id.into())
    }

    /// The first datagram of a value has its key, and each command has responses of its own.
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        let (Ok(request), Some(frame)) = (self.decode_request(request), Frame::read(response))
        else {
            return false;
        };
        if frame.number > 0 || text::is_error(frame.payload) {
            return true;
        }
        match request {
            Request::Get { key } => match frame.payload.strip_prefix(b"VALUE ") {
                Some(rest) => rest
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.starts_with(b" ")),
                None => frame.payload == b"END\r\n",
            },
            Request::Set { .. } => frame.payload == b"STORED\r\n",
        }
    }

    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match Frame::read(datagram) {
            Some(frame) if frame.total > 1 => ResponseKind::Part {
                index: frame.number.into(),
                total: frame.total.into(),
                payload: frame.payload,
            },
            Some(frame) if text::is_error(frame.payload) => ResponseKind::Refused,
            _ => ResponseKind::Whole,
        }
    }
}

impl IntoReply<Memcached> for Part<'_> {
    fn reply(self, reply: &mut Reply<'_, Memcached>) -> Result<(), ReplyError> {
        reply.send(self)
    }
}

/// A datagram.
struct Frame<'a> {
    id: u16,
    number: u16,
    total: u16,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn is_response(&self) -> bool {
        self.total != 1 || !self.payload.first().is_some_and(u8::is_ascii_lowercase)
    }

    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (header, payload) = datagram.split_first_chunk::<8>()?;
        let [id, number, total, reserved] =
            [0, 2, 4, 6].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        (number < total && reserved == 0).then_some(Self {
            id,
            number,
            total,
            payload,
        })
    }
}

fn put_header(out: &mut Writer<'_>, id: u16, number: u16, total: u16) {
    for field in [id, number, total, 0] {
        out.put(&field.to_be_bytes());
    }
}
