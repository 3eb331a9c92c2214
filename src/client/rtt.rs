use std::time::Duration;

/// How long a response takes, as measured, and the timeout of a first send that follows from it
/// (RFC 6298 §2, as RFC 8085 §3.1.1 asks of protocols over UDP).
#[derive(Clone, Debug, Default)]
pub(super) struct RttEstimator {
    /// The smoothed round-trip time and its mean deviation, once there was a sample.
    smoothed: Option<(Duration, Duration)>,
    /// At least as long as this, until the next sample: what was measured, or assumed, was too short.
    at_least: Duration,
}

impl RttEstimator {
    /// The timeout of a first send; `initial` where nothing is known.
    pub(super) fn timeout(&self, initial: Duration) -> Duration {
        let timeout = self.smoothed.map_or(initial, |(time, deviation)| {
            let margin = GRANULARITY.max(deviation.saturating_mul(4));
            time.saturating_add(margin).clamp(MIN_TIMEOUT, MAX_TIMEOUT)
        });
        timeout.max(self.at_least)
    }

    /// Takes the round-trip time of a request that was sent once from the socket on which it was answered.
    /// Otherwise the response may be to any of the sends (Karn's algorithm, RFC 6298 §3).
    pub(super) fn sample(&mut self, time: Duration) {
        self.at_least = Duration::ZERO;
        self.smoothed = Some(match self.smoothed {
            None => (time, time / 2),
            Some((smoothed, deviation)) => {
                let off = smoothed.abs_diff(time);
                // Divided first, so that nothing overflows.
                (smoothed / 8 * 7 + time / 8, deviation / 4 * 3 + off / 4)
            }
        });
    }

    /// Takes a response that came `since` the latest of several sends, the first of which had this
    /// timeout. If it came too soon to be the response to that send, it is one to an earlier send:
    /// then the timeout was too short, and the next ones are to be twice as long (RFC 6298 §5.5).
    pub(super) fn retransmitted(&mut self, since: Duration, timeout: Duration) {
        let is_expected = self
            .smoothed
            .is_some_and(|(smoothed, _)| since >= smoothed / 2);
        if !is_expected {
            let doubled = timeout.saturating_mul(2).min(MAX_TIMEOUT);
            self.at_least = self.at_least.max(doubled);
        }
    }
}

/// RFC 6298 §2.4 asks for a second, for the sake of TCP's delayed acknowledgements. A response is not
/// delayed on purpose; but a server can be held up by its scheduler for some tens of milliseconds.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// RFC 6298 §2.5.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The granularity of timers, `G` in RFC 6298 §2.
const GRANULARITY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RttEstimator;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_timeout_follows_the_formulas_of_rfc_6298() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(SECOND), SECOND);
        rtt.sample(ms(400));
        assert_eq!(rtt.timeout(SECOND), ms(400 + 4 * 200));
        rtt.sample(ms(800));
        // 7/8 of 400 and 1/8 of 800; 3/4 of 200 and 1/4 of 400.
        assert_eq!(rtt.timeout(SECOND), ms(450 + 4 * 250));
        for _ in 0..100 {
            rtt.sample(ms(300));
        }
        assert!(rtt.timeout(SECOND) <= ms(302), "{rtt:?}");
    }

    #[test]
    fn the_timeout_has_bounds() {
        let mut rtt = RttEstimator::default();
        rtt.sample(Duration::ZERO);
        assert_eq!(rtt.timeout(SECOND), ms(100));
        rtt.sample(Duration::MAX);
        assert_eq!(rtt.timeout(SECOND), 60 * SECOND);
        rtt.retransmitted(Duration::ZERO, Duration::MAX);
        assert_eq!(rtt.timeout(SECOND), 60 * SECOND);
    }

    #[test]
    fn a_timeout_that_was_too_short_is_doubled_until_a_sample() {
        let mut rtt = RttEstimator::default();
        rtt.retransmitted(ms(500), SECOND);
        assert_eq!(rtt.timeout(SECOND), 2 * SECOND);
        rtt.retransmitted(ms(500), 2 * SECOND);
        // Another that began before.
        rtt.retransmitted(ms(500), SECOND);
        assert_eq!(rtt.timeout(SECOND), 4 * SECOND);
        for _ in 0..100 {
            rtt.sample(3 * SECOND);
        }
        let timeout = rtt.timeout(SECOND);
        assert!(3 * SECOND < timeout && timeout < 4 * SECOND, "{timeout:?}");
        // This was a loss: the second send was answered.
        rtt.retransmitted(3 * SECOND, timeout);
        assert_eq!(rtt.timeout(SECOND), timeout);
        // That was none.
        rtt.retransmitted(SECOND, timeout);
        assert_eq!(rtt.timeout(SECOND), 2 * timeout);
    }
}
