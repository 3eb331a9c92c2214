use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads the counters of a [`SharedDedup`](super::SharedDedup). Clones read the same ones.
///
/// ```
/// use rejoinder::aio::store::{MemoryStore, SharedDedup};
///
/// let shop = async |text: &str| format!("bought a {text}");
/// let once = SharedDedup::new(shop, |text: &&str| Some((*text).to_owned()), MemoryStore::new(16));
/// assert_eq!(once.monitor().stats().first, 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DedupMonitor(pub(super) Arc<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) first: AtomicU64,
    pub(super) again: AtomicU64,
    pub(super) at_work: AtomicU64,
    pub(super) alone: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) not_kept: AtomicU64,
    pub(super) unreadable: AtomicU64,
}

impl DedupMonitor {
    /// The counters since the start.
    pub fn stats(&self) -> SharedDedupStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.0;
        SharedDedupStats {
            first: read(&counts.first),
            again: read(&counts.again),
            at_work: read(&counts.at_work),
            alone: read(&counts.alone),
            dropped: read(&counts.dropped),
            not_kept: read(&counts.not_kept),
            unreadable: read(&counts.unreadable),
        }
    }
}

/// What a [`SharedDedup`](super::SharedDedup) did with the requests that have a key.
///
/// Each of them is counted as one of `first`, `again`, `at_work`, `dropped` and `unreadable`, as soon as the
/// store has answered or its deadline is over.
///
/// ```
/// use rejoinder::aio::store::SharedDedupStats;
///
/// let stats = SharedDedupStats::default();
/// assert_eq!(
///     stats.to_string(),
///     "first 0 (alone 0, not kept 0), again 0, at work 0, dropped 0, unreadable 0"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedDedupStats {
    /// Requests that the handler began to work on.
    pub first: u64,
    /// Copies of requests that were answered: the answer was given again, or there is none.
    pub again: u64,
    /// Copies without a response, since a node worked on the request.
    pub at_work: u64,
    /// Of `first`: those that began without the store. It was down.
    pub alone: u64,
    /// Requests that were dropped: the store was down, and the choice is [`WhenDown::Drop`](crate::aio::store::WhenDown::Drop).
    pub dropped: u64,
    /// Answers that did not get into the store: it was down, or another node had begun too.
    pub not_kept: u64,
    /// Copies without a response, since what is kept of the answer could not be [loaded](crate::aio::store::StoredAnswer::load).
    pub unreadable: u64,
}

impl fmt::Display for SharedDedupStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first,
            again,
            at_work,
            alone,
            dropped,
            not_kept,
            unreadable,
        } = self;
        write!(
            f,
            "first {first} (alone {alone}, not kept {not_kept}), again {again}, at work {at_work}, \
             dropped {dropped}, unreadable {unreadable}"
        )
    }
}

pub(super) fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
