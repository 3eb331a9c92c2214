use std::pin::{Pin, pin};
use std::task::Context;

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

/// One timer for all deadlines of a task.
///
/// It is set again only when it has to fire earlier, so that most calls cost a comparison: it may fire
/// too early, and the task looks at its deadlines whenever it does.
pub(super) struct Alarm {
    /// From the first use, so that its owner can be made outside of a runtime.
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            sleep: None,
            at: None,
        }
    }

    /// Wakes the task of `cx` at `at`, or earlier. Returns whether that is over already.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> bool {
        if self.at.is_none_or(|set| at < set) {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(at),
                None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            self.at = Some(at);
        }
        let sleep = self.sleep.as_mut().expect("it was set above");
        // A handler that uses up the task's budget each time must not stop the clock for the others.
        let is_over = pin!(coop::unconstrained(sleep)).poll(cx).is_ready();
        if is_over {
            self.at = None;
        }
        is_over
    }
}
