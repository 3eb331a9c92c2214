use std::time::Duration;

use crate::transport::ErrorClass;

/// How long to pause after errors of receiving, by their [class](ErrorClass) and number.
///
/// - An interrupted call ([`ErrorClass::Interrupted`]) is repeated at once.
/// - An error that a packet can cause ([`ErrorClass::Peer`]) is followed by no pause, except for a
///   millisecond after every [`PEER_ERRORS_PER_PAUSE`](Self::PEER_ERRORS_PER_PAUSE). The OS reports
///   each of them once, so a pause after each would let forged packets hold up what is queued behind
///   them. An OS that reports the same error for ever must still not be asked without a pause.
/// - After any other error the pause grows while they go on: 0, 1, 2, 4 ms and so on, up to 100 ms.
///   A first error may pass at once.
///
/// It is a function of its arguments: it neither reads a clock nor sleeps.
///
/// ```
/// use rejoinder::sans_io::ReceiveBackoff;
/// use rejoinder::transport::ErrorClass;
///
/// let mut backoff = ReceiveBackoff::new();
/// let pauses = [(); 4].map(|()| backoff.pause_after(ErrorClass::Resources).as_millis());
/// assert_eq!(pauses, [0, 1, 2, 4]);
/// assert_eq!(backoff.errors(), 4);
/// // Something was received.
/// backoff.reset();
/// assert!(backoff.pause_after(ErrorClass::Resources).is_zero());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReceiveBackoff {
    lasting: u32,
    /// Of the class that a packet can cause.
    peer: u32,
}

impl ReceiveBackoff {
    /// So many errors of the class [`ErrorClass::Peer`] in a row are followed by one pause.
    pub const PEER_ERRORS_PER_PAUSE: u32 = 64;

    /// No error so far.
    pub const fn new() -> Self {
        Self {
            lasting: 0,
            peer: 0,
        }
    }

    /// Forgets the errors so far, because something was received.
    pub const fn reset(&mut self) {
        *self = Self::new();
    }

    /// How often receiving failed since it last succeeded, interruptions not counted.
    pub const fn errors(&self) -> u32 {
        self.lasting.saturating_add(self.peer)
    }

    /// How long to pause after one more error.
    pub fn pause_after(&mut self, class: ErrorClass) -> Duration {
        match class {
            ErrorClass::Interrupted => Duration::ZERO,
            ErrorClass::Peer => {
                self.peer = self.peer.saturating_add(1);
                if self.peer.is_multiple_of(Self::PEER_ERRORS_PER_PAUSE) {
                    MIN_PAUSE
                } else {
                    Duration::ZERO
                }
            }
            _ => {
                self.lasting = self.lasting.saturating_add(1);
                match self.lasting {
                    1 => Duration::ZERO,
                    errors => MAX_PAUSE.min(MIN_PAUSE * (1 << (errors - 2).min(7))),
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
    fn the_pauses_after_a_lasting_error_grow_to_a_limit() {
        let mut backoff = ReceiveBackoff::new();
        let pauses = [(); 12].map(|()| backoff.pause_after(ErrorClass::Resources).as_millis());
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100]);
    }

    #[test]
    fn errors_that_a_packet_can_cause_are_followed_by_few_pauses() {
        let mut backoff = ReceiveBackoff::new();
        let pause = || backoff.pause_after(ErrorClass::Peer);
        let pauses: Vec<_> = std::iter::repeat_with(pause).take(1_024).collect();
        for pauses in pauses.chunks(64) {
            assert!(pauses[..63].iter().all(Duration::is_zero));
            assert_eq!(pauses[63].as_millis(), 1);
        }
        assert!(backoff.pause_after(ErrorClass::Interrupted).is_zero());
        assert_eq!(backoff.errors(), 1_024);
    }
}
