//! The driver's clock and the implementation's.

use std::time::{Duration, Instant};

/// Turns readings of the driver's clock into the implementation's, and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) base: Instant,
    origin: Duration,
}

impl Clock {
    /// A clock that stands at `now`.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            base: Instant::now(),
            origin: now,
        }
    }

    pub(crate) fn instant(&self, now: Duration) -> Instant {
        // A reading so late that no `Instant` can be made of it comes from no clock.
        let passed = now.saturating_sub(self.origin);
        self.base.checked_add(passed).unwrap_or(self.base)
    }

    pub(crate) fn reading(&self, instant: Instant) -> Duration {
        let passed = instant.saturating_duration_since(self.base);
        self.origin.saturating_add(passed)
    }
}
