use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Store;

/// A store with a deadline for each operation, and with a cooldown after failures.
pub(super) struct Guarded<S> {
    store: S,
    pub(super) timeout: Duration,
    pub(super) cooldown: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Operations that failed since the latest that succeeded.
    failures: u32,
    /// Until then no operation begins. The first one after it is the probe, and moves it.
    cools_until: Option<Instant>,
}

impl<S: Store> Guarded<S> {
    pub(super) fn new(store: S) -> Self {
        Self {
            store,
            timeout: Duration::from_millis(250),
            cooldown: Duration::from_secs(1),
            state: Mutex::default(),
        }
    }

    /// Runs one operation.
    pub(super) async fn ask<'s, T, F>(
        &'s self,
        operation: impl FnOnce(&'s S) -> F,
    ) -> Result<T, StoreError<S::Error>>
    where
        F: Future<Output = Result<T, S::Error>>,
    {
        if !self.may_begin() {
            return Err(StoreError::CoolingDown);
        }
        let abandoned = Abandoned(self);
        let outcome = timeout(self.timeout, operation(&self.store)).await;
        // From here on nothing waits, so nothing is abandoned.
        mem::forget(abandoned);
        let error = match outcome {
            Ok(Ok(done)) => {
                *self.state() = State::default();
                return Ok(done);
            }
            Ok(Err(source)) => StoreError::Failed { source },
            Err(_) => StoreError::TimedOut {
                after: self.timeout,
            },
        };
        self.note_failure();
        Err(error)
    }

    fn may_begin(&self) -> bool {
        let mut state = self.state();
        let Some(until) = state.cools_until else {
            return true;
        };
        let now = Instant::now();
        if now < until {
            return false;
        }
        // The others wait for what comes of this one.
        state.cools_until = now.checked_add(self.cooldown.max(self.timeout));
        true
    }
}

impl<S> Guarded<S> {
    fn note_failure(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES && !self.cooldown.is_zero() {
            // One that began before the cooldown does not move its end.
            let until = Instant::now().checked_add(self.cooldown);
            state.cools_until = state.cools_until.or(until);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation whose caller does not wait any more counts as failed: otherwise a store that hangs has no
/// cooldown where a handler's deadline comes before the store's.
struct Abandoned<'g, S>(&'g Guarded<S>);

impl<S> Drop for Abandoned<'_, S> {
    fn drop(&mut self) {
        self.0.note_failure();
    }
}

/// Why the state that nodes share could not be read or changed.
///
/// ```
/// use rejoinder::aio::store::{MemoryStore, SharedSessions, StoreError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let sessions = SharedSessions::new(MemoryStore::new(16)).max_session_bytes(4);
/// let error = sessions.with(b"Ada", |session| session.extend(b"hello")).await.unwrap_err();
/// assert!(matches!(error, StoreError::TooLong { bytes: 5, limit: 4 }));
/// assert_eq!(error.to_string(), "the key or the session has 5 bytes, the most is 4");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError<E> {
    /// The store had not answered at the deadline. A change may have been made, or be made later.
    #[error("the store did not answer within {after:?}")]
    TimedOut {
        /// The deadline.
        after: Duration,
    },
    /// The store reported an error.
    #[error("the store failed")]
    Failed {
        /// What it reported.
        source: E,
    },
    /// The store was not asked: it has failed three times in a row, and the cooldown is not over.
    #[error("the store is cooling down: it failed {FAILURES} times in a row")]
    CoolingDown,
    /// Other nodes changed the value each time before this one could.
    #[error("other nodes changed the value {attempts} times in a row: try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The key or the session is longer than it may be.
    #[error("the key or the session has {bytes} bytes, the most is {limit}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// After how many failures in a row a store is not asked for a while.
const FAILURES: u32 = 3;
