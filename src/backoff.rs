use std::time::Duration;

use crate::transport::{ErrorClass, PROVOKED_PER_PAUSE};

/// How often receiving failed since it last succeeded.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    lasting: u32,
    /// Of the class that anybody can cause.
    provoked: u32,
}

impl Failures {
    /// How long to wait after one more failure. A first one may pass at once.
    pub(crate) fn pause_after(&mut self, class: ErrorClass) -> Duration {
        match class {
            ErrorClass::Interrupted => Duration::ZERO,
            ErrorClass::Peer => {
                self.provoked = self.provoked.saturating_add(1);
                if self.provoked.is_multiple_of(PROVOKED_PER_PAUSE) {
                    MIN_PAUSE
                } else {
                    Duration::ZERO
                }
            }
            _ => {
                self.lasting = self.lasting.saturating_add(1);
                match self.lasting {
                    1 => Duration::ZERO,
                    times => MAX_PAUSE.min(MIN_PAUSE * (1 << (times - 2).min(7))),
                }
            }
        }
    }
}

const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ErrorClass, Failures};

    #[test]
    fn a_lasting_failure_is_met_with_longer_and_longer_pauses() {
        let mut failures = Failures::default();
        let pauses = [(); 12].map(|()| failures.pause_after(ErrorClass::Resources).as_millis());
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100]);
    }

    #[test]
    fn failures_that_anybody_can_cause_do_not_slow_a_server_down() {
        let mut failures = Failures::default();
        let pauses = || failures.pause_after(ErrorClass::Peer);
        let pauses: Vec<_> = std::iter::repeat_with(pauses).take(1_024).collect();
        for pauses in pauses.chunks(64) {
            assert!(pauses[..63].iter().all(Duration::is_zero));
            assert_eq!(pauses[63].as_millis(), 1);
        }
        assert!(failures.pause_after(ErrorClass::Interrupted).is_zero());
    }
}
