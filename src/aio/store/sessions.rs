use std::fmt;
use std::time::Duration;

use super::guarded::{Guarded, StoreError};
use super::{Exchange, Store};

/// Sessions that all nodes of a service see: some bytes for each key, which are gone after a while without
/// use.
///
/// The key is what a client proves: a token, a user's name after a login. An address is no proof, and it
/// changes when a mobile client changes networks.
///
/// ```
/// use rejoinder::aio;
/// use rejoinder::aio::store::{MemoryStore, SharedSessions};
/// use rejoinder::codec::Text;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// # let (addr, handle) = (server.local_addr()?, server.handle());
/// let sessions = SharedSessions::new(MemoryStore::new(10_000)).lifetime(Duration::from_secs(600));
/// // A request is a token, a space and a text. The session counts the texts.
/// let count = async move |request: &str| {
///     let (token, _text) = request.split_once(' ')?;
///     let counted = sessions.with(token.as_bytes(), |session| {
///         let heard = session.first().copied().unwrap_or(0) + 1;
///         *session = vec![heard];
///         heard
///     });
///     Some(match counted.await {
///         Ok(heard) => format!("text {heard}"),
///         Err(_) => "I have no memory just now".to_owned(),
///     })
/// };
/// # let serving = tokio::spawn(server.serve(count));
/// # let client = aio::Client::connect(addr, Text).await?;
/// # assert_eq!(client.request("t0ken one").await?.get(), "text 1");
/// # assert_eq!(client.request("t0ken two").await?.get(), "text 2");
/// # handle.shutdown();
/// # serving.await??;
/// # Ok(())
/// # }
/// ```
///
/// # Two nodes at a time
///
/// A change is written only if the session is still the one that was read. Otherwise the work is done again,
/// on the new one: no change is lost. A copy of a request changes a session a second time, unless a
/// [`SharedDedup`](super::SharedDedup) is around the handler.
///
/// # When the store is down
///
/// Each operation has a [deadline](Self::store_timeout), and [`with`](Self::with) returns an error. The
/// handler decides what to answer. After three failures in a row the store is not asked for a
/// [while](Self::cooldown).
///
/// # In the store
///
/// The key has the letter `s` in front. The value is the session.
pub struct SharedSessions<S> {
    store: Guarded<S>,
    lifetime: Duration,
    max_session_bytes: usize,
}

impl<S: Store> SharedSessions<S> {
    /// Sessions in a store.
    pub fn new(store: S) -> Self {
        Self {
            store: Guarded::new(store),
            lifetime: Duration::from_secs(600),
            max_session_bytes: 1_024,
        }
    }

    /// For how long after its latest use a session is kept. Default: 600 s.
    #[must_use]
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = time;
        self
    }

    /// How long a session may be, in bytes. Default: 1,024.
    ///
    /// ```
    /// # use rejoinder::aio::store::{MemoryStore, SharedSessions};
    /// # use std::time::Duration;
    /// let sessions = SharedSessions::new(MemoryStore::new(10_000))
    ///     .max_session_bytes(256)
    ///     .store_timeout(Duration::from_millis(50))
    ///     .cooldown(Duration::from_millis(200));
    /// # let _ = sessions;
    /// ```
    #[must_use]
    pub fn max_session_bytes(mut self, bytes: usize) -> Self {
        self.max_session_bytes = bytes;
        self
    }

    /// The deadline of each operation of the store. Default: 250 ms. With zero, only a store that never waits
    /// is ever there.
    #[must_use]
    pub fn store_timeout(mut self, time: Duration) -> Self {
        self.store.timeout = time;
        self
    }

    /// For how long the store is not asked after three failures in a row. Default: 1 s. With zero, each call
    /// asks, and waits for the deadline.
    #[must_use]
    pub fn cooldown(mut self, time: Duration) -> Self {
        self.store.cooldown = time;
        self
    }

    /// Lends the session of `key` to `work`, writes it back, and returns what `work` returns.
    ///
    /// A new session is empty, and one that is left empty is removed. `work` runs again if another node has
    /// changed the session meanwhile, so it must not do anything else than change it.
    ///
    /// # Errors
    ///
    /// Every [`StoreError`]. After [`TimedOut`](StoreError::TimedOut) and [`Failed`](StoreError::Failed) the
    /// session may have been changed. [`TooLong`](StoreError::TooLong): the key has more than 256 bytes, or
    /// the session is longer than [`max_session_bytes`](Self::max_session_bytes); it is as it was.
    /// [`Contended`](StoreError::Contended): other nodes changed it 16 times.
    pub async fn with<R>(
        &self,
        key: &[u8],
        mut work: impl FnMut(&mut Vec<u8>) -> R,
    ) -> Result<R, StoreError<S::Error>> {
        let key = store_key(key)?;
        let mut found = self.store.ask(|store| store.get(&key)).await?;
        for _ in 0..ATTEMPTS {
            let mut session = found.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
            let worked = work(&mut session);
            check_len(session.len(), self.max_session_bytes)?;
            if found.is_none() && session.is_empty() {
                return Ok(worked);
            }
            let new = (!session.is_empty()).then_some(&session[..]);
            let current = found.as_deref();
            let exchanged = self
                .store
                .ask(|store| store.compare_exchange(&key, current, new, self.lifetime));
            match exchanged.await? {
                Exchange::Done => return Ok(worked),
                Exchange::Differs(other) => found = other,
            }
        }
        Err(StoreError::Contended { attempts: ATTEMPTS })
    }
}

impl<S> fmt::Debug for SharedSessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSessions")
            .field("lifetime", &self.lifetime)
            .field("max_session_bytes", &self.max_session_bytes)
            .finish_non_exhaustive()
    }
}

fn store_key<E>(key: &[u8]) -> Result<Vec<u8>, StoreError<E>> {
    check_len(key.len(), MAX_KEY_BYTES)?;
    Ok([b"s", key].concat())
}

fn check_len<E>(bytes: usize, limit: usize) -> Result<(), StoreError<E>> {
    if bytes > limit {
        return Err(StoreError::TooLong { bytes, limit });
    }
    Ok(())
}

const MAX_KEY_BYTES: usize = 256;
const ATTEMPTS: u32 = 16;
