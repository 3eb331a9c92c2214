use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::memory::Table;

/// What this node knows by itself: the requests that it works on, and the answers that it gave.
pub(super) struct Local(Mutex<Known>);

struct Known {
    /// At most [`max_in_flight`](crate::ServerBuilder::max_in_flight) for each worker.
    at_work: HashSet<Key>,
    answers: Table,
}

/// What identifies a request in the store.
pub(super) type Key = [u8; KEY_BYTES];

/// What a request is to this node.
pub(super) enum Begin<'a> {
    First(AtWork<'a>),
    AtWork,
    Answered(Bytes),
}

impl Local {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(Known {
            at_work: HashSet::new(),
            answers: Table::new(capacity),
        }))
    }

    pub(super) fn set_capacity(&self, requests: usize) {
        self.known().answers.set_capacity(requests);
    }

    pub(super) fn begin(&self, key: Key) -> Begin<'_> {
        let mut known = self.known();
        if let Some(answer) = known.answers.get(Instant::now(), &key) {
            return Begin::Answered(answer);
        }
        if !known.at_work.insert(key) {
            return Begin::AtWork;
        }
        Begin::First(AtWork { local: self, key })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No foreign code runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that this node works on. Dropping it, when the handler panics or is given up, leaves nothing
/// of it.
pub(super) struct AtWork<'a> {
    local: &'a Local,
    key: Key,
}

impl AtWork<'_> {
    /// Keeps the answer, and ends the work.
    pub(super) fn keep(&self, answer: Bytes, lifetime: Duration) {
        let mut known = self.local.known();
        known
            .answers
            .put(Instant::now(), &self.key, answer, lifetime);
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.local.known().at_work.remove(&self.key);
    }
}

/// A kind, an address, a port, an optional id, and the hashes of an optional identity and of a key.
pub(super) const KEY_BYTES: usize = 1 + 16 + 2 + 9 + 17 + 16;
