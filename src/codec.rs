//! Codecs: what the bytes of a datagram mean, in both directions.

mod buf;
mod correlation;
#[cfg(feature = "ctime")]
mod ctime;
mod raw;
#[cfg(feature = "signed")]
mod signed;
mod tagged;
mod text;
mod writer;

pub use self::correlation::{Correlation, RequestKey, ResponseKind};
#[cfg(feature = "ctime")]
pub use self::ctime::{CivilTime, Ctime, CtimeError, CtimeFrame};
pub use self::raw::Raw;
#[cfg(feature = "signed")]
pub use self::signed::{Signed, SignedBuilder, SignedError, SigningKey};
pub use self::tagged::{Tagged, TaggedError};
pub use self::text::{Text, TextError};
pub use self::writer::{TooLong, Writer};
use crate::identity::Identity;
use crate::timestamp::Timestamp;

/// One wire protocol, both directions: one type serves the server, the client and the tests.
///
/// # Who calls what
///
/// A server asks [`is_response`](Self::is_response) of every datagram first and never answers one
/// that is; then [`authenticate`](Self::authenticate), and drops what is not authentic; then
/// [`decode_request`](Self::decode_request), or, where that fails,
/// [`encode_rejection`](Self::encode_rejection); and for every answer of the handler
/// [`encode_response`](Self::encode_response), straight into the outgoing batch. A client calls
/// [`encode_request`](Self::encode_request) once per request,
/// [`stamp_request`](Self::stamp_request) before each transmission, and, on what the peer sends back,
/// [`is_authentic_response`](Self::is_authentic_response) and
/// [`decode_response`](Self::decode_response).
///
/// # What an implementation guarantees
///
/// - Any bytes whatever may be decoded: the result is a value or an error, never a panic.
/// - Decoding borrows. Nothing of the datagram is copied.
/// - What was encoded decodes to what it was made from, and whatever decodes, re-encodes to the
///   same bytes.
/// - [`is_response`](Self::is_response) is true for every encoded response, if the protocol marks
///   responses.
///
/// A request is the whole datagram. A codec is never given a part of one: a datagram that was cut
/// off on the way is dropped before.
///
/// # A minimal implementation
///
/// ```
/// use rejoinder::{Codec, Timestamp, Writer};
///
/// /// A request is `?` and a number, a response is `!` and a number.
/// struct Numbers;
///
/// #[derive(Debug, PartialEq, Eq)]
/// struct NotANumber;
/// # impl std::fmt::Display for NotANumber {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("not a number") }
/// # }
/// # impl std::error::Error for NotANumber {}
///
/// fn decode(mark: u8, datagram: &[u8]) -> Result<u32, NotANumber> {
///     let number = match datagram {
///         [first, number @ ..] if *first == mark => number,
///         _ => return Err(NotANumber),
///     };
///     Ok(u32::from_be_bytes(number.try_into().map_err(|_| NotANumber)?))
/// }
///
/// impl Codec for Numbers {
///     type Request<'a> = u32;
///     type Response<'a> = u32;
///     type Answer<'a> = u32;
///     type Error = NotANumber;
///
///     fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<u32, NotANumber> {
///         decode(b'?', datagram)
///     }
///     fn encode_response(&self, _: Timestamp, _: &[u8], answer: u32, out: &mut Writer<'_>) -> Result<(), NotANumber> {
///         out.put(b"!");
///         out.put(&answer.to_be_bytes());
///         Ok(())
///     }
///     fn encode_request(&self, _: u64, request: u32, out: &mut Writer<'_>) -> Result<(), NotANumber> {
///         out.put(b"?");
///         out.put(&request.to_be_bytes());
///         Ok(())
///     }
///     fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<u32, NotANumber> {
///         decode(b'!', datagram)
///     }
///     fn is_response(&self, datagram: &[u8]) -> bool {
///         datagram.first() == Some(&b'!')
///     }
/// }
///
/// assert_eq!(Numbers.decode_request(b"?\0\0\0\x07"), Ok(7));
/// assert_eq!(Numbers.decode_request(b"?\0\0"), Err(NotANumber));
/// ```
///
/// Tempting, and wrong: decoding as much as is there and filling up the rest (`number.get(..4)`
/// with a default). A datagram is a message or it is not; half of one must be an error, or a
/// sender of garbage gets an answer.
pub trait Codec {
    /// A request as the handler sees it, borrowed from the datagram.
    type Request<'a>;
    /// A response as the client sees it, borrowed from the datagram.
    type Response<'a>;
    /// What a handler answers with. It may say less than the response does: the ctime protocol's
    /// responses carry the server's time, which the codec adds.
    type Answer<'a>;
    /// Why bytes could not be decoded, or a value not encoded.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Decodes a request.
    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<Self::Request<'a>, Self::Error>;

    /// Encodes the response to a request. `now` is the time at which the batch with the request was
    /// received; `request` is the request's whole datagram, which decoded without an error: a
    /// protocol [with ids](Correlation::Id) takes the id out of it, others ignore it.
    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: Self::Answer<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error>;

    /// Encodes a request. A protocol [with ids](Correlation::Id) writes the low bits of `id` into
    /// it; others ignore `id`.
    fn encode_request(
        &self,
        id: u64,
        request: Self::Request<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error>;

    /// Decodes a response.
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<Self::Response<'a>, Self::Error>;

    /// Whether the datagram is a response, and so must never be answered: two servers that face
    /// each other would go on for ever (the class of CVE-2024-2169).
    ///
    /// Return `false` only if the protocol does not distinguish responses from requests. Such a
    /// protocol depends on the server's other guards.
    fn is_response(&self, datagram: &[u8]) -> bool;

    /// Checks who sent a request, for protocols whose messages prove it. `now` is the time at which the
    /// batch with the datagram was received.
    ///
    /// A server calls it once for each datagram that is no response and passed the
    /// [gates](crate::gate::Gate::accept), before it decodes the datagram. A datagram with an error is
    /// dropped as [`Unauthenticated`](crate::DropReason::Unauthenticated) and never answered; the error is
    /// logged. An identity becomes that of the [`Context`](crate::Context) and replaces the one that a
    /// transport established. `None` leaves it as it is.
    ///
    /// The other methods rely on this one and check no proof again. Whatever calls
    /// [`decode_request`](Self::decode_request) without it reads what anything may have sent. It may change
    /// what the codec remembers, so that a copy of the datagram is not authentic. Its memory is bounded.
    ///
    /// The default accepts every datagram and returns no identity.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Codec, Timestamp};
    ///
    /// assert_eq!(Text.authenticate(Timestamp::system(), b"hello"), Ok(None));
    /// ```
    fn authenticate(
        &self,
        now: Timestamp,
        datagram: &[u8],
    ) -> Result<Option<Identity>, Self::Error> {
        let _ = (now, datagram);
        Ok(None)
    }

    /// Writes into an encoded request what belongs to one transmission of it: the time, and a proof that
    /// covers it. A client calls it before it sends the request, and again before each retransmission. `now`
    /// is the time of the send. The length stays, and so does what the other methods read out of a request:
    /// a response to any transmission answers the request.
    ///
    /// The default changes nothing: a retransmission repeats the same bytes.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Codec, Timestamp};
    ///
    /// let mut request = *b"hello";
    /// Text.stamp_request(Timestamp::system(), &mut request);
    /// assert_eq!(&request, b"hello");
    /// ```
    fn stamp_request(&self, now: Timestamp, request: &mut [u8]) {
        let _ = (now, request);
    }

    /// Whether a response proves to come from the peer that was asked, for protocols whose messages prove it.
    /// A client asks it before it asks anything else about the content of a datagram, and ignores what is
    /// not authentic: the request goes on waiting. `response` came from the right address and has the right
    /// [id](Self::response_id); both are whole datagrams. The default says yes.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Codec;
    ///
    /// assert!(Text.is_authentic_response(b"how many?", b"seven"));
    /// ```
    fn is_authentic_response(&self, request: &[u8], response: &[u8]) -> bool {
        let _ = (request, response);
        true
    }

    /// What all transmissions of a request have in common: [`Dedup`] recognizes copies by it. The default
    /// is the whole datagram, from one address.
    ///
    /// [`Dedup`]: crate::handler::Dedup
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Codec;
    ///
    /// assert_eq!(Text.request_key(b"how many?").bytes, b"how many?");
    /// ```
    fn request_key<'a>(&self, request: &'a [u8]) -> RequestKey<'a> {
        RequestKey {
            bytes: request,
            is_unique: false,
        }
    }

    /// Encodes a minimal response to a datagram that is no request: `error` is that of
    /// [`decode_request`](Self::decode_request). It is for protocols that demand one, such as the reset of
    /// a confirmable message (RFC 7252 §4.2) or FORMERR (RFC 1035 §4.1.1). The default writes nothing:
    /// nothing is sent.
    ///
    /// A [`Server`](crate::Server) sends it if
    ///
    /// - it is no longer than the datagram, and has at most 64 bytes: `out` has no more room;
    /// - it [is a response](Self::is_response), so that two servers do not reject each other for ever;
    /// - the datagram was sent to this machine alone, not to a group;
    /// - the [gates](crate::gate::Gate) let it out.
    ///
    /// The datagram counts as [malformed](crate::DropReason::Malformed) in any case, and as
    /// [rejected](crate::Stats::rejected) if this is sent.
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::{Codec, Writer};
    ///
    /// let no_text = b"?\0\0\0\0\0\0\0\x07\xff";
    /// let error = Tagged(Text).decode_request(no_text).unwrap_err();
    /// let mut space = [0; 10];
    /// let mut out = Writer::new(&mut space);
    /// Tagged(Text).encode_rejection(no_text, &error, &mut out);
    /// assert_eq!(out.finish(), Ok(0));
    /// ```
    fn encode_rejection(&self, datagram: &[u8], error: &Self::Error, out: &mut Writer<'_>) {
        let _ = (datagram, error, out);
    }

    /// How responses are matched to requests. The default is [`Correlation::Socket`].
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::{Codec, Correlation};
    ///
    /// assert_eq!(Text.correlation(), Correlation::Socket);
    /// assert_eq!(Tagged(Text).correlation(), Correlation::Id { bits: 64 });
    /// ```
    fn correlation(&self) -> Correlation {
        Correlation::Socket
    }

    /// The id that a response carries, if it is one. Only asked of a protocol with ids.
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::Codec;
    ///
    /// assert_eq!(
    ///     Tagged(Text).response_id(b"!\0\0\0\0\0\0\0\x07seven"),
    ///     Some(7)
    /// );
    /// assert_eq!(Tagged(Text).response_id(b"?\0\0\0\0\0\0\0\x07seven"), None); // a request
    /// ```
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let _ = response;
        None
    }

    /// The id of a request, if the protocol has ids that the handler does not see. [`Dedup`]
    /// compares it, to distinguish a duplicate from the same question asked again. The default is
    /// `None`.
    ///
    /// [`Dedup`]: crate::handler::Dedup
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::Codec;
    ///
    /// assert_eq!(
    ///     Tagged(Text).request_id(b"?\0\0\0\0\0\0\0\x07how many?"),
    ///     Some(7)
    /// );
    /// ```
    fn request_id(&self, request: &[u8]) -> Option<u64> {
        let _ = request;
        None
    }

    /// Whether a response that came from the right peer (and has the right id) belongs to this
    /// request: the place to compare what the protocol echoes, such as the question of a DNS
    /// message. Both are whole datagrams. The default says yes.
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::Codec;
    ///
    /// let request = b"?\0\0\0\0\0\0\0\x07how many?";
    /// assert!(Tagged(Text).response_matches(request, b"!\0\0\0\0\0\0\0\x07seven"));
    /// assert!(!Tagged(Text).response_matches(request, b"!\0\0\0\0\0\0\0\x08eight"));
    /// ```
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        let _ = (request, response);
        true
    }

    /// What a datagram that came to a request means for the exchange. Only clients ask. `datagram` came
    /// from the right peer and has the right [id](Self::response_id), and it counts only if it
    /// [matches](Self::response_matches). The default is [`ResponseKind::Whole`].
    ///
    /// ```
    /// use rejoinder::codec::{ResponseKind, Text};
    /// use rejoinder::Codec;
    ///
    /// assert_eq!(Text.response_kind(b"how many?", b"seven"), ResponseKind::Whole);
    /// ```
    fn response_kind<'a>(&self, request: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        let _ = (request, datagram);
        ResponseKind::Whole
    }
}
