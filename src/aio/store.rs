//! State that several nodes share: stores, duplicates, sessions.
//!
//! A *node* is one process of a service that runs several times. Most state belongs to one node. Two
//! kinds may have to be the same on all: which requests were answered already ([`SharedDedup`]), and
//! sessions ([`SharedSessions`]). Both keep it in a [`Store`]. [`MemoryStore`] is one for a single node and
//! for tests; the crate `rejoinder-redis` has one for Redis and Valkey.
//!
//! [The guide](crate::guide::shared_state) has a service with it, and lists what does not belong into a
//! store.
//!
//! ```
//! use rejoinder::aio::{self, AsyncSim};
//! use rejoinder::aio::store::{MemoryStore, SharedDedup};
//! use rejoinder::codec::Text;
//! use rejoinder::sim::SimNet;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let net = SimNet::new();
//! let store = MemoryStore::new(1_024); // in a fleet: one that all nodes reach
//! let sold = Arc::new(AtomicU32::new(0));
//! for node in ["10.0.0.1:9999", "10.0.0.2:9999"] {
//!     let sold = Arc::clone(&sold);
//!     let shop = async move |_: &str| {
//!         let number = sold.fetch_add(1, Ordering::Relaxed) + 1;
//!         format!("ticket {number}")
//!     };
//!     let once = SharedDedup::new(shop, |text: &&str| Some((*text).to_owned()), store.clone());
//!     let endpoint = AsyncSim::new(net.bind(node.parse()?)?);
//!     tokio::spawn(aio::Server::builder(Text).with_transport(endpoint)?.serve(once));
//! }
//!
//! // One client, whose request reaches both nodes.
//! let mut client = net.bind("10.0.0.9:4000".parse()?)?;
//! for node in ["10.0.0.1:9999", "10.0.0.2:9999"] {
//!     net.inject("10.0.0.9:4000".parse()?, node.parse()?, b"buy 7");
//! }
//! tokio::time::sleep(std::time::Duration::from_secs(1)).await;
//! assert_eq!(sold.load(Ordering::Relaxed), 1);
//! # let mut inbox = rejoinder::transport::Inbox::new(4, 512);
//! # rejoinder::Transport::recv(&mut client, &mut inbox, rejoinder::Wait::No)?;
//! # assert_eq!(inbox.pop().map(|one| one.bytes), Some(&b"ticket 1"[..]));
//! # Ok(())
//! # }
//! ```

mod answer;
mod dedup;
mod guarded;
mod local;
mod memory;
mod sessions;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::answer::StoredAnswer;
pub use self::dedup::{DedupMonitor, SharedDedup, SharedDedupStats, SharedReply, WhenDown};
pub use self::guarded::StoreError;
pub use self::memory::{MemoryStore, MemoryStoreError};
pub use self::sessions::SharedSessions;

/// A map from short keys to short values that expire, which all nodes of a service see.
///
/// [`SharedDedup`] and [`SharedSessions`] call it for each request, from several futures at a time.
///
/// # What an implementation guarantees
///
/// - [`compare_exchange`](Self::compare_exchange) is atomic among all nodes.
/// - A value is gone once its lifetime has passed. It may be gone earlier: a store may forget. Then a request
///   may be worked on twice, or a session begins anew.
/// - The memory for values has a bound.
/// - A future that is dropped leaves the value as it was, or changed. The callers drop futures at their
///   deadline. Both callers bear a change that is made later.
/// - It does not block. It needs no deadline of its own: the callers have one.
///
/// # A minimal implementation
///
/// [`MemoryStore`] is a complete one. A wrapper that forwards:
///
/// ```
/// use rejoinder::aio::store::{Exchange, MemoryStore, MemoryStoreError, Store};
/// use bytes::Bytes;
/// use std::time::Duration;
///
/// /// Keeps the values of several services apart.
/// struct Prefixed(&'static [u8], MemoryStore);
///
/// impl Store for Prefixed {
///     type Error = MemoryStoreError;
///
///     async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error> {
///         self.1.get(&[self.0, key].concat()).await
///     }
///
///     async fn compare_exchange(
///         &self,
///         key: &[u8],
///         current: Option<&[u8]>,
///         new: Option<&[u8]>,
///         lifetime: Duration,
///     ) -> Result<Exchange, Self::Error> {
///         let key = [self.0, key].concat();
///         self.1.compare_exchange(&key, current, new, lifetime).await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), MemoryStoreError> {
/// let all = MemoryStore::new(16);
/// let shop = Prefixed(b"shop:", all.clone());
/// let a_minute = Duration::from_secs(60);
/// shop.compare_exchange(b"key", None, Some(b"value"), a_minute).await?;
/// assert_eq!(shop.get(b"key").await?.as_deref(), Some(&b"value"[..]));
/// assert_eq!(all.get(b"key").await?, None);
/// # Ok(())
/// # }
/// ```
pub trait Store {
    /// Why an operation failed.
    type Error: Error + Send + Sync + 'static;

    /// Reads the value of a key. `None`: there is none.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Bytes>, Self::Error>>;

    /// Puts the value `new` in the place of `current`, or returns what stands there instead.
    ///
    /// `None` as `current` expects that there is no value, `None` as `new` removes it. The new value is gone
    /// after `lifetime`; with a lifetime below 1 ms it may be gone at once.
    fn compare_exchange(
        &self,
        key: &[u8],
        current: Option<&[u8]>,
        new: Option<&[u8]>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Exchange, Self::Error>>;
}

/// What [`Store::compare_exchange`] did.
///
/// ```
/// use rejoinder::aio::store::{Exchange, MemoryStore, Store};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new(16);
/// let a_minute = Duration::from_secs(60);
/// let first = store.compare_exchange(b"seat 7", None, Some(b"Ada"), a_minute).await?;
/// assert_eq!(first, Exchange::Done);
/// let second = store.compare_exchange(b"seat 7", None, Some(b"Bob"), a_minute).await?;
/// assert_eq!(second, Exchange::Differs(Some("Ada".into())));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The value is the new one.
    Done,
    /// The value is this one, which was not expected. `None`: there is none.
    Differs(Option<Bytes>),
}

/// A store that is shared is a store.
impl<S: Store> Store for Arc<S> {
    type Error = S::Error;

    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> {
        S::get(self, key)
    }

    fn compare_exchange(
        &self,
        key: &[u8],
        current: Option<&[u8]>,
        new: Option<&[u8]>,
        lifetime: Duration,
    ) -> impl Future<Output = Result<Exchange, Self::Error>> {
        S::compare_exchange(self, key, current, new, lifetime)
    }
}
