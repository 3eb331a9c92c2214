use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};

/// Does what should not panic, and goes on if it does.
#[inline]
pub(crate) fn quietly(act: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(act)) {
        drop_quietly(payload);
    }
}

/// Drops the payload of a panic, which may panic in turn.
pub(crate) fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(next) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // It could go on like this for ever.
        mem::forget(next);
    }
}
