//! What a model checker puts its own in place of.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(super) use std::sync::{Arc, Mutex};
use std::sync::{MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a unit test, where locks and atomics work.
#[cfg(test)]
pub(super) fn model(test: impl FnOnce()) {
    test();
}
