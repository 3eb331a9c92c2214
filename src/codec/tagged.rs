use super::{Codec, Correlation, RequestKey, Writer};
use crate::identity::Identity;
use crate::timestamp::Timestamp;

/// Another codec's messages with an id in front, so that a client can have many requests in flight
/// on one socket.
///
/// A request is `?`, eight bytes of id and the inner codec's request; a response is `!`, the
/// request's id and the inner codec's response. The id has no byte order: a server copies it.
///
/// ```text
/// ┌──────────┬───────────────┬──────────────────────┐
/// │ `?`  `!` │ id, 8 bytes   │ the inner datagram … │
/// └──────────┴───────────────┴──────────────────────┘
/// ```
///
/// The first byte distinguishes responses from requests, so servers that face each other go quiet,
/// whatever the inner codec. A handler sees the inner codec's requests and answers, and knows
/// nothing of ids: whatever handles `Text` handles `Tagged<Text>`.
///
/// ```
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::{Client, Wait};
///
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(
///     server,
///     ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase())),
/// )?;
///
/// let mut client = Client::new(net, Tagged(Text), server);
/// let (one, two) = (client.submit("one")?, client.submit("two")?);
/// while let Some((ticket, answer)) = client.collect(Wait::Forever) {
///     assert_eq!(answer?, if ticket == one { "ONE" } else { "TWO" });
///     assert!(ticket == one || ticket == two);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Tagged<C>(pub C);

/// Why a datagram is no tagged message, or a message could not be written.
///
/// ```
/// use rejoinder::codec::{Tagged, TaggedError, Text};
/// use rejoinder::Codec;
///
/// let codec = Tagged(Text);
/// assert_eq!(
///     codec.decode_request(b"no mark"),
///     Err(TaggedError::NotARequest)
/// );
/// assert_eq!(
///     codec.decode_response(b"!no id"),
///     Err(TaggedError::NotAResponse)
/// );
/// let not_utf8 = codec.decode_request(b"?\0\0\0\0\0\0\0\x07\xff");
/// assert!(matches!(not_utf8, Err(TaggedError::Inner(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaggedError<E> {
    /// It does not begin with the mark of a request, where one is wanted, and an id.
    #[error("not a tagged request, which begins with `?` and an id of {ID_BYTES} bytes")]
    NotARequest,
    /// It does not begin with the mark of a response, where one is wanted, and an id.
    #[error("not a tagged response, which begins with `!` and an id of {ID_BYTES} bytes")]
    NotAResponse,
    /// What follows the id is no message of the inner codec.
    #[error(transparent)]
    Inner(#[from] E),
}

impl<C: Codec> Codec for Tagged<C> {
    type Request<'a> = C::Request<'a>;
    type Response<'a> = C::Response<'a>;
    type Answer<'a> = C::Answer<'a>;
    type Error = TaggedError<C::Error>;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<C::Request<'a>, Self::Error> {
        let (_, inner) = split(REQUEST, datagram).ok_or(TaggedError::NotARequest)?;
        Ok(self.0.decode_request(inner)?)
    }

    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: C::Answer<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        let (id, inner) = split(REQUEST, request).ok_or(TaggedError::NotARequest)?;
        out.put(&[RESPONSE]);
        out.put(&id);
        Ok(self.0.encode_response(now, inner, answer, out)?)
    }

    fn stamp_request(&self, now: Timestamp, request: &mut [u8]) {
        if let Some(inner) = request.get_mut(1 + ID_BYTES..) {
            self.0.stamp_request(now, inner);
        }
    }

    fn is_authentic_response(&self, request: &[u8], response: &[u8]) -> bool {
        match (split(REQUEST, request), split(RESPONSE, response)) {
            (Some((_, request)), Some((_, response))) => {
                self.0.is_authentic_response(request, response)
            }
            _ => false,
        }
    }

    /// The inner codec's: the id is compared [as such](Codec::request_id).
    fn request_key<'a>(&self, request: &'a [u8]) -> RequestKey<'a> {
        match split(REQUEST, request) {
            Some((_, inner)) => self.0.request_key(inner),
            None => RequestKey {
                bytes: request,
                is_unique: false,
            },
        }
    }

    fn encode_request(
        &self,
        id: u64,
        request: C::Request<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        out.put(&[REQUEST]);
        out.put(&id.to_be_bytes());
        Ok(self.0.encode_request(id, request, out)?)
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<C::Response<'a>, Self::Error> {
        let (_, inner) = split(RESPONSE, datagram).ok_or(TaggedError::NotAResponse)?;
        Ok(self.0.decode_response(inner)?)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first() == Some(&RESPONSE)
    }

    fn authenticate(
        &self,
        now: Timestamp,
        datagram: &[u8],
    ) -> Result<Option<Identity>, Self::Error> {
        match split(REQUEST, datagram) {
            Some((_, inner)) => Ok(self.0.authenticate(now, inner)?),
            // It does not decode.
            None => Ok(None),
        }
    }

    /// The inner codec's, with the id of the datagram.
    fn encode_rejection(&self, datagram: &[u8], error: &Self::Error, out: &mut Writer<'_>) {
        let (Some((id, inner)), TaggedError::Inner(error)) = (split(REQUEST, datagram), error)
        else {
            return;
        };
        let mut space = [0; 64];
        let mut rejection = Writer::new(&mut space);
        self.0.encode_rejection(inner, error, &mut rejection);
        if let Ok(len @ 1..) = rejection.finish() {
            out.put(&[RESPONSE]);
            out.put(&id);
            out.put(&space[..len]);
        }
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 64 }
    }

    fn request_id(&self, request: &[u8]) -> Option<u64> {
        let (id, _) = split(REQUEST, request)?;
        Some(u64::from_be_bytes(id))
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let (id, _) = split(RESPONSE, response)?;
        Some(u64::from_be_bytes(id))
    }

    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        match (split(REQUEST, request), split(RESPONSE, response)) {
            (Some((asked, request)), Some((answered, response))) => {
                asked == answered && self.0.response_matches(request, response)
            }
            _ => false,
        }
    }
}

/// The id and what follows it.
#[inline]
fn split(mark: u8, datagram: &[u8]) -> Option<([u8; ID_BYTES], &[u8])> {
    let (&first, rest) = datagram.split_first()?;
    let (&id, inner) = rest.split_first_chunk()?;
    (first == mark).then_some((id, inner))
}

const REQUEST: u8 = b'?';
const RESPONSE: u8 = b'!';
const ID_BYTES: usize = 8;
