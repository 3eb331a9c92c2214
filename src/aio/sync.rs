//! Locks and atomics of what is woken, in which a model checker puts its own: `RUSTFLAGS='--cfg shuttle'`.

#[cfg(all(test, shuttle))]
pub(super) use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(all(test, shuttle)))]
pub(super) use std::sync::{Arc, Mutex};

#[cfg(all(test, shuttle))]
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(all(test, shuttle))]
pub(super) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
use std::sync::MutexGuard;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a unit test, where locks and atomics work.
#[cfg(all(test, not(shuttle)))]
pub(super) fn model(test: impl FnOnce()) {
    test();
}

#[cfg(all(test, shuttle))]
pub(super) fn model(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_random(test, 1);
}
