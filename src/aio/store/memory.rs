use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Exchange, Store};

/// A [`Store`] in the memory of this process. Clones share it.
///
/// It is for a service of one node, and for tests: it follows tokio's clock, which a test can pause.
///
/// It holds [`capacity`](Self::new) values at most. When there is no room, the value that was written
/// first is forgotten. Memory for each: the value, twice its key, and about 250 bytes.
///
/// ```
/// use rejoinder::aio::store::{MemoryStore, Store};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new(1_024);
/// store.compare_exchange(b"key", None, Some(b"value"), Duration::from_secs(60)).await?;
/// assert_eq!(store.get(b"key").await?.as_deref(), Some(&b"value"[..]));
/// tokio::time::sleep(Duration::from_secs(60)).await;
/// assert_eq!(store.get(b"key").await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    table: Arc<Mutex<Table>>,
    max_value_bytes: usize,
}

impl MemoryStore {
    /// A store for so many values. Zero keeps none.
    pub fn new(capacity: usize) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new(capacity))),
            max_value_bytes: 4_096,
        }
    }

    /// How long a value may be, in bytes. Default: 4,096. A longer one is refused with an error. Clones that
    /// were made before keep their limit.
    ///
    /// ```
    /// use rejoinder::aio::store::{MemoryStore, Store};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let store = MemoryStore::new(1_024).max_value_bytes(4);
    /// let kept = store.compare_exchange(b"key", None, Some(b"value"), Duration::from_secs(1));
    /// assert_eq!(kept.await.unwrap_err().to_string(), "the value has 5 bytes, the most is 4");
    /// # }
    /// ```
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// How many values there are, expired ones that were not removed yet included.
    ///
    /// ```
    /// assert_eq!(rejoinder::aio::store::MemoryStore::new(1_024).count(), 0);
    /// ```
    pub fn count(&self) -> usize {
        self.table().values.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No foreign code runs while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    type Error = MemoryStoreError;

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MemoryStoreError> {
        Ok(self.table().get(Instant::now(), key))
    }

    async fn compare_exchange(
        &self,
        key: &[u8],
        current: Option<&[u8]>,
        new: Option<&[u8]>,
        lifetime: Duration,
    ) -> Result<Exchange, MemoryStoreError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(MemoryStoreError::KeyTooLong {
                bytes: key.len(),
                limit: MAX_KEY_BYTES,
            });
        }
        let bytes = new.map_or(0, <[u8]>::len);
        if bytes > self.max_value_bytes {
            return Err(MemoryStoreError::ValueTooLong {
                bytes,
                limit: self.max_value_bytes,
            });
        }
        let mut table = self.table();
        let now = Instant::now();
        let found = table.get(now, key);
        if found.as_deref() != current {
            return Ok(Exchange::Differs(found));
        }
        match new {
            Some(new) => table.put(now, key, Bytes::copy_from_slice(new), lifetime),
            None => table.remove(key),
        }
        Ok(Exchange::Done)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("count", &self.count())
            .field("max_value_bytes", &self.max_value_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a [`MemoryStore`] refused a value.
///
/// ```
/// use rejoinder::aio::store::{MemoryStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = MemoryStore::new(16);
/// let kept = store.compare_exchange(&[0; 600], None, Some(b""), std::time::Duration::MAX);
/// assert_eq!(kept.await.unwrap_err().to_string(), "the key has 600 bytes, the most is 512");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryStoreError {
    /// The key is longer than 512 bytes.
    #[error("the key has {bytes} bytes, the most is {limit}")]
    KeyTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The value is longer than [`max_value_bytes`](MemoryStore::max_value_bytes).
    #[error("the value has {bytes} bytes, the most is {limit}")]
    ValueTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// Values that expire, in bounded memory. Time is an argument.
pub(super) struct Table {
    capacity: usize,
    values: HashMap<Arc<[u8]>, Value>,
    /// The keys in the order in which their values were written; the number is `Value::turn`.
    by_turn: BTreeMap<u64, Arc<[u8]>>,
    turns: u64,
}

struct Value {
    bytes: Bytes,
    /// `None`: never.
    expires: Option<Instant>,
    turn: u64,
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            values: HashMap::new(),
            by_turn: BTreeMap::new(),
            turns: 0,
        }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn get(&self, now: Instant, key: &[u8]) -> Option<Bytes> {
        let value = self.values.get(key)?;
        value.is_live(now).then(|| value.bytes.clone())
    }

    pub(super) fn put(&mut self, now: Instant, key: &[u8], bytes: Bytes, lifetime: Duration) {
        self.remove(key);
        self.remove_expired(now);
        if self.capacity == 0 {
            return;
        }
        while self.values.len() >= self.capacity
            && let Some((_, oldest)) = self.by_turn.pop_first()
        {
            self.values.remove(&oldest);
        }
        self.turns += 1;
        let key: Arc<[u8]> = key.into();
        self.by_turn.insert(self.turns, Arc::clone(&key));
        let value = Value {
            bytes,
            expires: now.checked_add(lifetime),
            turn: self.turns,
        };
        self.values.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.values.remove(key) {
            self.by_turn.remove(&value.turn);
        }
    }

    /// Removes the oldest values as long as they have expired: two at most, so that one write has a bound
    /// and the table still shrinks.
    fn remove_expired(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some(oldest) = self.by_turn.first_entry() else {
                return;
            };
            if self.values[oldest.get()].is_live(now) {
                return;
            }
            self.values.remove(&oldest.remove());
        }
    }
}

impl Value {
    fn is_live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

const MAX_KEY_BYTES: usize = 512;
