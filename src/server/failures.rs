use std::time::Duration;

use crate::transport::ErrorClass;

/// How often receiving failed since it last succeeded.
#[derive(Debug, Default)]
pub(super) struct Failures {
    lasting: u32,
    /// Of the class that anybody can cause.
    provoked: u32,
}

impl Failures {
    pub(super) fn in_a_row(&self) -> u32 {
        self.lasting.saturating_add(self.provoked)
    }

    /// How long to wait after one more failure. A first one may pass at once. Each that was
    /// provoked is gone once it was told, and a pause would only help whoever provokes them; yet a
    /// system that told the same one again and again must not be asked without a pause.
    pub(super) fn pause_after(&mut self, class: ErrorClass) -> Duration {
        match class {
            ErrorClass::Interrupted => Duration::ZERO,
            ErrorClass::Peer => {
                self.provoked = self.provoked.saturating_add(1);
                match self.provoked {
                    0..=FREE_PROVOKED => Duration::ZERO,
                    _ => MIN_PAUSE,
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
/// How many provoked failures in a row cost no pause.
const FREE_PROVOKED: u32 = 64;

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
        let pauses: Vec<_> = std::iter::repeat_with(pauses).take(1_000).collect();
        assert!(pauses[..64].iter().all(Duration::is_zero));
        assert!(pauses[64..].iter().all(|pause| pause.as_millis() == 1));
        assert!(failures.pause_after(ErrorClass::Interrupted).is_zero());
    }
}
