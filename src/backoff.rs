use std::time::Duration;

use crate::transport::{ErrorClass, PEER_ERRORS_PER_PAUSE};

/// How long a driver pauses after errors in receiving.
///
/// After a lasting error the pauses grow: none after the first, then 1 ms, and twice as long each time
/// up to 100 ms. Errors that a packet can cause ([`ErrorClass::Peer`]) are taken from the socket one
/// by one, so a pause after each would let an attacker slow the receiver down: there is a pause of
/// 1 ms after every 64th only, for a kernel that repeats one for ever.
///
/// ```
/// use rejoinder::sans_io::ReceiveBackoff;
/// use rejoinder::transport::ErrorClass;
/// use std::time::Duration;
///
/// let mut backoff = ReceiveBackoff::new();
/// assert_eq!(backoff.pause_after(ErrorClass::Peer), Duration::ZERO);
/// assert_eq!(backoff.pause_after(ErrorClass::Resources), Duration::ZERO);
/// assert_eq!(backoff.pause_after(ErrorClass::Resources), Duration::from_millis(1));
/// assert_eq!(backoff.pause_after(ErrorClass::Resources), Duration::from_millis(2));
/// assert_eq!(backoff.in_a_row(), 4);
/// backoff.reset(); // something was received
/// assert_eq!(backoff.in_a_row(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReceiveBackoff {
    lasting: u32,
    peer_induced: u32,
}

impl ReceiveBackoff {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often receiving has failed since it last succeeded.
    pub fn in_a_row(&self) -> u32 {
        self.lasting.saturating_add(self.peer_induced)
    }

    /// Receiving succeeded.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// How long to wait after one more failure.
    pub fn pause_after(&mut self, class: ErrorClass) -> Duration {
        match class {
            ErrorClass::Interrupted => Duration::ZERO,
            ErrorClass::Peer => {
                self.peer_induced = self.peer_induced.saturating_add(1);
                if self.peer_induced.is_multiple_of(PEER_ERRORS_PER_PAUSE) {
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

    use super::{ErrorClass, ReceiveBackoff};

    #[test]
    fn a_lasting_failure_is_met_with_longer_and_longer_pauses() {
        let mut failures = ReceiveBackoff::default();
        let pauses = [(); 12].map(|()| failures.pause_after(ErrorClass::Resources).as_millis());
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100]);
    }

    #[test]
    fn failures_that_anybody_can_cause_do_not_slow_a_server_down() {
        let mut failures = ReceiveBackoff::default();
        let pauses = || failures.pause_after(ErrorClass::Peer);
        let pauses: Vec<_> = std::iter::repeat_with(pauses).take(1_024).collect();
        for pauses in pauses.chunks(64) {
            assert!(pauses[..63].iter().all(Duration::is_zero));
            assert_eq!(pauses[63].as_millis(), 1);
        }
        assert!(failures.pause_after(ErrorClass::Interrupted).is_zero());
    }
}
