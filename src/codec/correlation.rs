//! How datagrams belong together: requests, their transmissions and their responses.

/// What all transmissions of one request have in common, see [`Codec::request_key`](super::Codec::request_key).
///
/// ```
/// use rejoinder::codec::RequestKey;
///
/// let key = RequestKey {
///     bytes: b"how many?",
///     is_unique: false,
/// };
/// assert_eq!(key.bytes.len(), 9);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey<'a> {
    /// A part of the request's datagram, or all of it.
    pub bytes: &'a [u8],
    /// Whether no other request of the same [identity](crate::Context::identity) has these bytes, whatever
    /// its address: they hold a nonce, and they were authenticated. A transmission from another address is
    /// then a copy, too.
    pub is_unique: bool,
}

/// What a datagram from the peer means for the exchange that it belongs to.
///
/// ```
/// use rejoinder::codec::ResponseKind;
///
/// /// By the type of a CoAP message (RFC 7252 §3), and whether it is empty.
/// fn kind(message: &[u8]) -> ResponseKind<'_> {
///     match message {
///         [first, 0, ..] if first >> 4 & 0b11 == 2 => ResponseKind::Acknowledged,
///         [first, 0, ..] if first >> 4 & 0b11 == 3 => ResponseKind::Refused,
///         _ => ResponseKind::Whole,
///     }
/// }
/// assert_eq!(kind(&[0x60, 0, 1, 2]), ResponseKind::Acknowledged);
/// assert_eq!(kind(&[0x70, 0, 1, 2]), ResponseKind::Refused);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResponseKind<'a> {
    /// It is the response, if it [decodes](super::Codec::decode_response). Otherwise it is ignored.
    Whole,
    /// The peer has the request and will respond later: it is not sent again (as after an empty
    /// acknowledgement, RFC 7252 §4.2). The deadline stays.
    Acknowledged,
    /// The peer will not respond: the exchange ends at once with
    /// [`RequestError::Refused`](crate::RequestError::Refused), whose source is the error of
    /// [decoding](super::Codec::decode_response) the datagram.
    Refused,
    /// It is one of several datagrams that make up the response. When all of them came, in whatever
    /// order, their payloads, put together, are [decoded](super::Codec::decode_response). The client bounds
    /// their [number and size](crate::ClientBuilder::max_response).
    ///
    /// A retransmission may make the peer send all of them again. The datagrams of two such
    /// responses are distinguishable only if their number differs.
    Part {
        /// The number of this one, from 0.
        index: u32,
        /// How many there are.
        total: u32,
        /// What it contributes: the datagram without its header.
        payload: &'a [u8],
    },
}

/// How a protocol's responses are matched to its requests.
///
/// ```
/// use rejoinder::codec::Ctime;
/// use rejoinder::{Codec, Correlation};
///
/// // A frame of the ctime protocol has a time and a text, and no room for an id.
/// assert_eq!(Ctime::local().correlation(), Correlation::Socket);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Correlation {
    /// Nothing in the response identifies the request. Each exchange gets a fresh connected
    /// socket, whose port identifies the response; a late one, to a socket that is closed, is discarded.
    Socket,
    /// Each request carries an id which the response repeats. Many can be in flight on one socket,
    /// and a [`Server`](crate::Server) may answer those that it finds at once in any order. Several
    /// responses to one request keep theirs.
    Id {
        /// How many bits the id has, 1 to 64.
        bits: u32,
    },
}
