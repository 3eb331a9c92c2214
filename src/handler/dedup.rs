mod memory;

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use siphasher::sip::SipHasher13;

#[cfg(feature = "tokio")]
use self::memory::Begun;
use self::memory::{Begin, Exchange, Memory, lock};
#[cfg(feature = "tokio")]
use super::IntoReply;
use super::{Context, Handler, Reply, ReplyError};
use crate::codec::{Codec, RequestKey};
use crate::keyed_hash;

/// A handler that answers a request once, however often it arrives.
///
/// A client that gets no answer asks again with the same id (in `CoAP` the same message id, RFC 7252
/// §4.2), and a network may duplicate a datagram by itself. This wrapper gives the handler in it
/// the first copy only; to every further one it sends the bytes of the first answer again, or
/// nothing, if there was no answer. So a request that changes something changes it once.
///
/// Two requests are the same if they have the same peer and [identity](Context::identity), were sent to
/// the same address, and have the same bytes and the same key: what the function that `Dedup` is made with returns. (Of the bytes,
/// a keyed hash of 64 bits is compared. A NAT may give a port that it gave to one client to another, and
/// that one never gets the answer to a different request.) Without an identity, they also have the same
/// [association](Context::association). With `None` it lets a request through without a look. An id that the codec keeps from the handler, as [`Tagged`] does, must be
/// the same too ([`Codec::request_id`]).
///
/// [`Tagged`]: crate::codec::Tagged
///
/// A codec may [know better](Codec::request_key) which datagrams are transmissions of one request. If it
/// authenticates requests and each has a nonce, copies are recognized whatever address they come from.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::handler::Dedup;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::Timestamp;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
///
/// // A request is an id, a space, and something that costs money.
/// let bought = AtomicU32::new(0);
/// let shop = move |_: &str| {
///     Some(format!(
///         "bought {}",
///         bought.fetch_add(1, Ordering::Relaxed) + 1
///     ))
/// };
/// let id = |request: &&str| request.split_once(' ')?.0.parse::<u32>().ok();
/// let once = Dedup::new(shop, id)
///     .capacity(1_024)
///     .lifetime(Duration::from_secs(60))
///     .max_response_bytes(64);
///
/// let mut core = ServerCore::new(Text, once);
/// let (mut inbox, mut outbox) = (Inbox::new(2, 512), Outbox::new(32, 512));
/// for copy in [b"1 book", b"1 book"] {
///     inbox.push(copy, Meta::new("192.0.2.1:7777".parse()?));
/// }
/// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
/// let answers: Vec<_> = outbox.iter().map(|answer| answer.bytes).collect();
/// assert_eq!(answers, [b"bought 1", b"bought 1"]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # What it remembers, and for how long
///
/// The latest [`capacity`](Self::capacity) requests, each for the
/// [`lifetime`](Self::lifetime), with answers of up to
/// [`max_response_bytes`](Self::max_response_bytes) bytes. When there is no room, the oldest is
/// forgotten: a flood of requests shortens the memory, but it neither grows it nor stops the
/// service.
///
/// Memory for each of `capacity`, allocated as it is needed, on a machine of 64 bits: about 600
/// bytes if `K` is a `u32`, and five for each byte that it is longer; twice what a key has on the
/// heap; and room for the longest answer that the place has held, up to `max_response_bytes`.
///
/// # What else
///
/// - It is the memory of one node. `aio::store::SharedDedup` (feature `tokio`) does it for several.
/// - While the handler works on the first copy, further ones get no response: on other workers, and
///   on all where a `Dedup` wraps an async handler.
/// - If it fails or panics, nothing is remembered, and the next copy is a first one.
/// - An attacker who forges a peer's address and guesses a key can occupy that key. Protocols with
///   a longer secret (`CoAP`'s token) do well to make it a part of the key.
pub struct Dedup<H, F, K> {
    handler: H,
    key: F,
    lifetime: Duration,
    is_silent: fn(&K) -> bool,
    /// Shared with responses that are on their way.
    memory: Arc<Mutex<Memory<K>>>,
}

impl<H, F, K> Dedup<H, F, K> {
    /// Wraps a handler; `key` returns what identifies a request among those of one peer.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::handler::Dedup;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// // Every request of a peer is its own key: the same text is the same request.
    /// let once = Dedup::new(
    ///     |text: &str| Some(text.len().to_string()),
    ///     |text: &&str| Some((*text).to_owned()),
    /// );
    /// ServerCore::new(Text, once);
    /// ```
    pub fn new(handler: H, key: F) -> Self {
        Self {
            handler,
            key,
            lifetime: Duration::from_secs(247),
            is_silent: |_| false,
            memory: Arc::new(Mutex::new(Memory::new())),
        }
    }

    /// How many requests are remembered at most. Default: 4,096. Zero remembers none, so that every
    /// copy is handled.
    #[must_use]
    pub fn capacity(self, requests: usize) -> Self {
        self.memory().capacity = requests;
        self
    }

    /// How long a request is remembered after it was first received. Default: 247 seconds, `CoAP`'s
    /// `EXCHANGE_LIFETIME` (RFC 7252 §4.8.2). Zero remembers none.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// How long an answer that is remembered may be, in bytes, all its datagrams taken together.
    /// Of a longer one only the fact is kept, so copies of the request get no response.
    /// Default: 1,152, the longest message that RFC 7252 §4.6 suggests.
    #[must_use]
    pub fn max_response_bytes(self, bytes: usize) -> Self {
        self.memory().max_response_bytes = bytes;
        self
    }

    /// Selects, by key, requests whose duplicates are dropped instead of being answered again.
    /// Their answers are not stored. Default: none. In `CoAP` these are the non-confirmable
    /// messages, which are never retransmitted (RFC 7252 §4.3): put the type into the key.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::handler::Dedup;
    /// # use rejoinder::sans_io::ServerCore;
    /// # let handler = |_: &str| None::<&str>;
    /// // A request is a kind, C or N, and an id.
    /// let key = |request: &&str| Some((request.starts_with('C'), request.get(1..)?.to_owned()));
    /// let once = Dedup::new(handler, key).silent_for(|key: &(bool, String)| !key.0);
    /// # ServerCore::new(Text, once);
    /// ```
    #[must_use]
    pub fn silent_for(mut self, keys: fn(&K) -> bool) -> Self {
        self.is_silent = keys;
        self
    }

    fn memory(&self) -> MutexGuard<'_, Memory<K>> {
        lock(&self.memory)
    }
}

impl<H, F, K: Eq + Hash + Clone> Dedup<H, F, K> {
    /// What a request is: one to be handled, a copy of one that is being handled, or of one that was.
    fn begin(&self, context: &Context, request: RequestHash, key: K) -> Begin<K> {
        let is_unique = request.is_unique && context.identity().is_some();
        let addresses = (context.peer, context.local);
        let exchange = Exchange {
            addresses: (!is_unique).then_some(addresses),
            identity: context.identity().cloned(),
            // Of unique bytes, an id that is not among them says nothing.
            id: context.request_id.filter(|_| !is_unique),
            // Another association of an address without an identity is another peer: of the same bytes it
            // always makes another value, of others it does but for a chance of 2⁻⁶⁴.
            bytes: match context.identity() {
                Some(_) => request.hash,
                None => request.hash ^ u64::from(context.association),
            },
            key,
        };
        let now = context.now.monotonic;
        Memory::begin(&self.memory, exchange, now, self.lifetime, self.is_silent)
    }
}

impl<C, H, F, K> Handler<C> for Dedup<H, F, K>
where
    C: Codec,
    H: Handler<C>,
    F: Fn(&C::Request<'_>) -> Option<K>,
    K: Eq + Hash + Clone,
{
    fn handle(
        &self,
        request: C::Request<'_>,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        let Some(key) = (self.key)(&request) else {
            return self.handler.handle(request, context, reply);
        };
        match self.begin(context, reply.request_hash(), key) {
            Begin::Answered(exchange) => self.memory().replay(&exchange, reply),
            Begin::AtWork => Ok(()),
            Begin::First(begun) => {
                let before = reply.sent().len();
                self.handler.handle(request, context, reply)?;
                begun.remember(reply.sent().skip(before));
                Ok(())
            }
        }
    }
}

/// With a handler that waits, a copy of a request at work gets no response; one that comes later gets
/// that of the first.
#[cfg(feature = "tokio")]
impl<C, H, F, K> crate::aio::AsyncHandler<C> for Dedup<H, F, K>
where
    C: Codec,
    H: crate::aio::AsyncHandler<C>,
    F: Fn(&C::Request<'_>) -> Option<K>,
    K: Eq + Hash + Clone,
{
    type Reply = DedupReply<H::Reply, K>;

    async fn handle<'a>(
        &'a self,
        request: C::Request<'a>,
        context: &'a Context,
    ) -> DedupReply<H::Reply, K> {
        let Some(key) = (self.key)(&request) else {
            return DedupReply(Replies::Passed(self.handler.handle(request, context).await));
        };
        DedupReply(match self.begin(context, context.request_hash, key) {
            Begin::Answered(exchange) => Replies::Again(Arc::clone(&self.memory), exchange),
            Begin::AtWork => Replies::None,
            Begin::First(begun) => {
                Replies::First(self.handler.handle(request, context).await, begun)
            }
        })
    }
}

/// What an async handler in a [`Dedup`] answers: the handler's answer, the same once more, or nothing.
///
/// ```
/// use rejoinder::aio::AsyncHandler;
/// use rejoinder::codec::Text;
/// use rejoinder::handler::{Dedup, DedupReply};
///
/// fn only_once(_: &impl AsyncHandler<Text, Reply = DedupReply<String, String>>) {}
///
/// let shop = async |text: &str| format!("bought a {text}");
/// only_once(&Dedup::new(shop, |text: &&str| Some((*text).to_owned())));
/// ```
#[cfg(feature = "tokio")]
pub struct DedupReply<R, K: Eq + Hash>(Replies<R, K>);

#[cfg(feature = "tokio")]
enum Replies<R, K: Eq + Hash> {
    /// The request has no key.
    Passed(R),
    First(R, Begun<K>),
    Again(Arc<Mutex<Memory<K>>>, Exchange<K>),
    None,
}

#[cfg(feature = "tokio")]
impl<C: Codec, R: IntoReply<C>, K: Eq + Hash + Clone> IntoReply<C> for DedupReply<R, K> {
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        match self.0 {
            Replies::Passed(answer) => answer.reply(reply),
            Replies::First(answer, begun) => {
                let before = reply.sent().len();
                answer.reply(reply)?;
                begun.remember(reply.sent().skip(before));
                Ok(())
            }
            Replies::Again(memory, exchange) => lock(&memory).replay(&exchange, reply),
            Replies::None => Ok(()),
        }
    }
}

#[cfg(feature = "tokio")]
impl<R, K: Eq + Hash> fmt::Debug for DedupReply<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedupReply").finish_non_exhaustive()
    }
}

impl<H, F, K> fmt::Debug for Dedup<H, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dedup")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The hash of what all transmissions of a request have in common, with a key that is drawn once for the
/// process: two requests with the same one cannot be found, and all workers agree on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestHash {
    hash: u64,
    is_unique: bool,
}

impl RequestHash {
    pub(crate) fn of<C: Codec>(codec: &C, request: &[u8]) -> Self {
        static HASHER: OnceLock<SipHasher13> = OnceLock::new();
        let RequestKey { bytes, is_unique } = codec.request_key(request);
        let hash = HASHER.get_or_init(keyed_hash::random).hash(bytes);
        Self { hash, is_unique }
    }
}
