mod key;
mod monitor;
mod reply;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use self::key::store_key;
use self::monitor::increment;
pub use self::monitor::{DedupMonitor, SharedDedupStats};
use self::reply::Replies;
pub use self::reply::SharedReply;
use super::guarded::Guarded;
use super::local::{Begin, Key, Local};
use super::{Exchange, Store, StoredAnswer};
use crate::aio::handler::AsyncHandler;
use crate::codec::Codec;
use crate::handler::Context;

/// An async handler that answers a request once, through whichever node of a service it arrives.
///
/// It is [`Dedup`](crate::handler::Dedup) with a [`Store`] behind it. The first copy of a request takes a
/// *lease* in the store, and the handler works on it. Then the answer takes the place of the lease, and the
/// reply leaves. A copy that arrives meanwhile, at this node or at another one, gets no response. A later
/// copy gets the answer again.
///
/// Use it where clients change nodes in the middle of a request: behind a balancer that does not keep a
/// client on one node, or where a node is taken out of service. If clients stay on a node, `Dedup` does, and
/// costs no round trip to a store.
///
/// ```
/// use rejoinder::aio::store::{MemoryStore, SharedDedup, WhenDown};
/// use rejoinder::aio;
/// use rejoinder::codec::Text;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::builder(Text)
///     .handler_timeout(Duration::from_secs(2))
///     .bind("127.0.0.1:0")
///     .await?;
/// # server.handle().shutdown();
/// let pay = async |request: &str| Some(format!("paid: {request}"));
/// let once = SharedDedup::new(
///     pay,
///     |request: &&str| Some((*request).to_owned()),
///     MemoryStore::new(10_000), // or a `rejoinder_redis::RedisStore`
/// )
/// .lease(Duration::from_secs(3))
/// .when_down(WhenDown::Drop);
/// let monitor = once.monitor();
/// server.serve(once).await?;
/// println!("{}", monitor.stats());
/// # Ok(())
/// # }
/// ```
///
/// # Which requests are the same
///
/// Those with the same peer, the same [identity](Context::identity), the same id ([`Codec::request_id`]) and
/// the same key: the bytes that the function returns. So the key must have everything that the answer depends
/// on. The whole request does; its length costs nothing, as the key is hashed. With `None` a request goes to
/// the handler without a look.
///
/// The address that the request was sent to is no part of it: it differs from node to node. Behind a
/// [proxy](crate::ServerBuilder::behind) the peer is the client, so all nodes have to be behind one, or none.
///
/// In the store a request has a key of 61 bytes:
///
/// | bytes | what |
/// | --- | --- |
/// | 1 | the letter `d` |
/// | 16, 2 | the peer's address as one of IPv6, and its port |
/// | 1, 8 | 1 and the id, or zeros |
/// | 1, 16 | 1 and the hash of the identity; without one, 2 and the [association](Context::association), or zeros |
/// | 16 | the hash of the key |
///
/// Numbers are big-endian. The hash is SipHash-2-4 of 128 bits, with a key of zeros: all nodes compute the
/// same one. It needs no secret, since the peer is not hashed: a peer that finds two requests with the same
/// hash gets one answer to both of its own.
///
/// # What is promised, and what is not
///
/// While the store works, a request is worked on once, with these exceptions:
///
/// - A node dies after the work and before the answer is in the store. When the
///   [lease](Self::lease) is over, a copy is worked on again. No store can prevent that, only work that can
///   be done twice.
/// - The work takes longer than the lease.
/// - The store forgets: it is full, or it restarts without its data, or fails over to a replica that lags.
/// - The answer is an [`Err`](StoredAnswer): then nothing is kept, and the next copy is a first one.
///
/// A handler that panics, or whose [time](crate::ServerBuilder::handler_timeout) is over, leaves its lease.
/// Copies get no response until that is over.
///
/// # When the store is down
///
/// Each operation has a [deadline](Self::store_timeout). A request needs two at most: one before the handler
/// begins and one after it. When three in a row have failed, requests do not ask the store for a
/// [while](Self::cooldown), then one of them tries. What happens to a request without the store is
/// [`WhenDown`].
///
/// Once the handler has worked, its reply leaves when the store has the answer, has failed, or its deadline is
/// over. All of that is part of the [handler's time](crate::ServerBuilder::handler_timeout): set it above the
/// work and two times the store's deadline. Where it is over before, no reply leaves. The operation that was
/// abandoned counts as failed, so a store that hangs is left alone then, too.
///
/// # Memory
///
/// In the store: a value for each request that was first received within the [lifetime](Self::lifetime), of
/// [`max_answer_bytes`](Self::max_answer_bytes) and one byte at most. In this node: the latest
/// [`capacity`](Self::capacity) answers that it has made itself, about 350 bytes and the answer for each.
pub struct SharedDedup<H, F, S> {
    handler: H,
    key: F,
    store: Guarded<S>,
    lease: Duration,
    lifetime: Duration,
    max_answer_bytes: usize,
    when_down: WhenDown,
    local: Local,
    /// What makes leases of this node differ from those of others, and from each other.
    node: u64,
    leases: AtomicU64,
    monitor: DedupMonitor,
}

/// What a [`SharedDedup`] does with a request when the [`Store`] is down.
///
/// ```
/// use rejoinder::aio::store::WhenDown;
///
/// assert_eq!(WhenDown::default(), WhenDown::Answer);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenDown {
    /// The node answers by itself. It remembers what it has answered, so a copy that comes to the same node
    /// is not worked on again. One that comes to another node is.
    #[default]
    Answer,
    /// The node drops the request, as [`HandlerFailed`](crate::DropReason::HandlerFailed). A copy that comes
    /// when the store is back is worked on. If the store took the lease without an answer in time, that copy
    /// gets no response until the [lease](SharedDedup::lease) is over. Copies of what this node has answered before are answered.
    Drop,
}

impl<H, F, S: Store> SharedDedup<H, F, S> {
    /// Wraps a handler; `key` returns what identifies a request among those of one peer.
    pub fn new(handler: H, key: F, store: S) -> Self {
        Self {
            handler,
            key,
            store: Guarded::new(store),
            lease: Duration::from_secs(10),
            lifetime: Duration::from_secs(247),
            max_answer_bytes: 1_152,
            when_down: WhenDown::default(),
            local: Local::new(4_096),
            node: RandomState::new().hash_one(std::process::id()),
            leases: AtomicU64::new(0),
            monitor: DedupMonitor::default(),
        }
    }

    /// For how long a request belongs to the node that works on it. When the node dies, copies get no response
    /// until then. Default: 10 s.
    ///
    /// It has to be longer than [`handler_timeout`](crate::ServerBuilder::handler_timeout), which is 5 s
    /// unless set: otherwise a second node begins while the first one still works.
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// How long an answer is kept after the work. Default: 247 s, `CoAP`'s `EXCHANGE_LIFETIME` (RFC 7252
    /// §4.8.2). Zero keeps none.
    ///
    /// ```
    /// # use rejoinder::aio::store::{MemoryStore, SharedDedup};
    /// # use std::time::Duration;
    /// # let handler = async |text: &str| text.to_owned();
    /// # let key = |text: &&str| Some((*text).to_owned());
    /// // Clients of this service give up after half a minute.
    /// let once = SharedDedup::new(handler, key, MemoryStore::new(10_000))
    ///     .lifetime(Duration::from_secs(30));
    /// # rejoinder_is_a_handler(&once);
    /// # fn rejoinder_is_a_handler(_: &impl rejoinder::aio::AsyncHandler<rejoinder::codec::Text>) {}
    /// ```
    #[must_use]
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = time;
        self
    }

    /// How long an answer that is kept may be, in bytes. Of a longer one the store keeps that it was given, so
    /// copies get no response. Default: 1,152, the longest message that RFC 7252 §4.6 suggests.
    ///
    /// ```
    /// # use rejoinder::aio::store::{MemoryStore, SharedDedup};
    /// # let handler = async |text: &str| text.to_owned();
    /// # let key = |text: &&str| Some((*text).to_owned());
    /// let once = SharedDedup::new(handler, key, MemoryStore::new(10_000)).max_answer_bytes(64);
    /// # rejoinder_is_a_handler(&once);
    /// # fn rejoinder_is_a_handler(_: &impl rejoinder::aio::AsyncHandler<rejoinder::codec::Text>) {}
    /// ```
    #[must_use]
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How many answers this node remembers by itself, of those that it has made. Default: 4,096. Zero
    /// remembers none.
    ///
    /// ```
    /// # use rejoinder::aio::store::{MemoryStore, SharedDedup};
    /// # let handler = async |text: &str| text.to_owned();
    /// # let key = |text: &&str| Some((*text).to_owned());
    /// let once = SharedDedup::new(handler, key, MemoryStore::new(10_000)).capacity(1_024);
    /// # rejoinder_is_a_handler(&once);
    /// # fn rejoinder_is_a_handler(_: &impl rejoinder::aio::AsyncHandler<rejoinder::codec::Text>) {}
    /// ```
    #[must_use]
    pub fn capacity(self, answers: usize) -> Self {
        self.local.set_capacity(answers);
        self
    }

    /// The deadline of each operation of the store. Default: 250 ms. With zero, only a store that never waits
    /// is ever there. Two times this and the work have to fit into
    /// [`handler_timeout`](crate::ServerBuilder::handler_timeout).
    ///
    /// ```
    /// # use rejoinder::aio::store::{MemoryStore, SharedDedup};
    /// # use std::time::Duration;
    /// # let handler = async |text: &str| text.to_owned();
    /// # let key = |text: &&str| Some((*text).to_owned());
    /// let once = SharedDedup::new(handler, key, MemoryStore::new(10_000))
    ///     .store_timeout(Duration::from_millis(50))
    ///     .cooldown(Duration::from_millis(200));
    /// # rejoinder_is_a_handler(&once);
    /// # fn rejoinder_is_a_handler(_: &impl rejoinder::aio::AsyncHandler<rejoinder::codec::Text>) {}
    /// ```
    #[must_use]
    pub fn store_timeout(mut self, time: Duration) -> Self {
        self.store.timeout = time;
        self
    }

    /// For how long the store is not asked after three failures in a row. Default: 1 s. With zero, each
    /// request asks, and waits for the deadline.
    #[must_use]
    pub fn cooldown(mut self, time: Duration) -> Self {
        self.store.cooldown = time;
        self
    }

    /// What happens to a request when the store is down. Default: [`WhenDown::Answer`].
    #[must_use]
    pub fn when_down(mut self, when_down: WhenDown) -> Self {
        self.when_down = when_down;
        self
    }

    /// Reads the counters while a server has the handler.
    pub fn monitor(&self) -> DedupMonitor {
        self.monitor.clone()
    }
}

impl<H, F, S: Store> SharedDedup<H, F, S> {
    /// A value that no other request of any node has.
    fn new_lease(&self) -> [u8; LEASE_BYTES] {
        let number = self.leases.fetch_add(1, Ordering::Relaxed);
        let mut lease = [LEASE; LEASE_BYTES];
        lease[1..9].copy_from_slice(&self.node.to_be_bytes());
        lease[9..].copy_from_slice(&number.to_be_bytes());
        lease
    }

    /// What is kept of an answer. `None`: nothing, since it is an error.
    fn saved<R: StoredAnswer>(&self, answer: &R) -> Option<Bytes> {
        let mut saved = vec![ANSWER];
        if !answer.save(&mut saved) {
            return None;
        }
        if saved.len() - 1 > self.max_answer_bytes {
            saved = vec![TOO_LONG];
        }
        Some(saved.into())
    }

    /// The answer to a copy of a request that was answered.
    fn again<R: StoredAnswer>(&self, saved: &[u8]) -> SharedReply<R> {
        let counts = &self.monitor.0;
        let loaded = match saved.split_first() {
            Some((&ANSWER, saved)) => R::load(saved).map(Replies::Answer),
            Some((&TOO_LONG, [])) => Some(Replies::None),
            _ => None,
        };
        let count = match loaded {
            Some(_) => &counts.again,
            None => &counts.unreadable,
        };
        increment(count);
        SharedReply(loaded.unwrap_or(Replies::None))
    }

    fn copy_of_one_at_work<R>(&self) -> SharedReply<R> {
        increment(&self.monitor.0.at_work);
        SharedReply(Replies::None)
    }

    /// Puts an answer in the place of the lease.
    async fn keep(&self, key: &Key, lease: &[u8], saved: &[u8]) {
        let mut current = Some(lease);
        loop {
            let kept = self
                .store
                .ask(|store| store.compare_exchange(key, current, Some(saved), self.lifetime));
            match kept.await {
                Ok(Exchange::Done) => return,
                // The lease has expired, or its deadline was over before it was taken.
                Ok(Exchange::Differs(None)) if current.is_some() => current = None,
                Ok(Exchange::Differs(_)) | Err(_) => break,
            }
        }
        increment(&self.monitor.0.not_kept);
    }

    /// Removes the lease, so that the next copy is a first one.
    async fn release(&self, key: &Key, lease: &[u8]) {
        let released = self
            .store
            .ask(|store| store.compare_exchange(key, Some(lease), None, self.lease));
        // If it fails, the lease expires.
        let _ = released.await;
    }
}

impl<C, H, F, S, K> AsyncHandler<C> for SharedDedup<H, F, S>
where
    C: Codec,
    H: AsyncHandler<C>,
    H::Reply: StoredAnswer,
    F: Fn(&C::Request<'_>) -> Option<K>,
    K: AsRef<[u8]>,
    S: Store,
{
    type Reply = SharedReply<H::Reply>;

    async fn handle<'a>(
        &'a self,
        request: C::Request<'a>,
        context: &'a Context,
    ) -> SharedReply<H::Reply> {
        let key = (self.key)(&request).map(|key| store_key(context, key.as_ref()));
        let Some(key) = key else {
            let answer = self.handler.handle(request, context).await;
            return SharedReply(Replies::Answer(answer));
        };
        let at_work = match self.local.begin(key) {
            Begin::First(at_work) => at_work,
            Begin::AtWork => return self.copy_of_one_at_work(),
            Begin::Answered(saved) => return self.again(&saved),
        };
        let lease = self.new_lease();
        let begun = self
            .store
            .ask(|store| store.compare_exchange(&key, None, Some(&lease), self.lease));
        let counts = &self.monitor.0;
        match begun.await {
            Ok(Exchange::Differs(Some(found))) if found.first() == Some(&LEASE) => {
                return self.copy_of_one_at_work();
            }
            Ok(Exchange::Differs(Some(found))) => return self.again(&found),
            Ok(Exchange::Done | Exchange::Differs(None)) => {}
            Err(_) if self.when_down == WhenDown::Answer => increment(&counts.alone),
            Err(error) => {
                increment(&counts.dropped);
                return SharedReply(Replies::Down(error.into()));
            }
        }
        increment(&counts.first);
        let answer = self.handler.handle(request, context).await;
        if let Some(saved) = self.saved(&answer) {
            at_work.keep(saved.clone(), self.lifetime);
            self.keep(&key, &lease, &saved).await;
        } else {
            self.release(&key, &lease).await;
        }
        SharedReply(Replies::Answer(answer))
    }
}

impl<H, F, S> fmt::Debug for SharedDedup<H, F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedDedup")
            .field("lease", &self.lease)
            .field("lifetime", &self.lifetime)
            .field("when_down", &self.when_down)
            .field("stats", &self.monitor.stats())
            .finish_non_exhaustive()
    }
}

/// The first byte of a value says what it is.
const LEASE: u8 = b'L';
const ANSWER: u8 = b'A';
/// Of an answer that is too long to be kept.
const TOO_LONG: u8 = b'X';
/// That byte, the node and the number of the lease.
const LEASE_BYTES: usize = 1 + 8 + 8;
