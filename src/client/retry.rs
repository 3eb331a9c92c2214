use std::time::Duration;

use crate::config_error::ConfigError;

/// When a request is sent again, as long as no response comes.
///
/// The first timeout is a random time between `t` and 1.5 times that, drawn for each request, so that
/// clients that failed together do not come back together. Every further timeout is twice the one before
/// (RFC 7252 §4.2; RFC 8961 §4 asks for such a backoff). After [`max_sends`](Self::max_sends) the
/// client only waits, until the request's deadline.
///
/// `t` [follows](Self::adaptive) the round-trip times that the client measures. Before the first
/// measurement it is [`initial`](Self::initial), 1 second by default:
///
/// | send | with `t` | before the first measurement |
/// | --- | --- | --- |
/// | 1st | at once | at once |
/// | 2nd | after `t` to 1.5 `t` | after 1 to 1.5 s |
/// | 3rd | after 3 `t` to 4.5 `t` | after 3 to 4.5 s |
/// | 4th | after 7 `t` to 10.5 `t` | after 7 to 10.5 s, if the deadline is later than the default of 5 s |
/// | 5th | after 15 `t` to 22.5 `t` | after 15 to 22.5 s, likewise |
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Client, Retry};
/// use std::time::Duration;
///
/// // A server in the same rack.
/// let retry = Retry::new()
///     .initial(Duration::from_millis(50))
///     .max_sends(3)
///     .max_in_flight(16);
/// let client = Client::builder(Text).retry(retry);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    pub(super) initial: Duration,
    pub(super) max_sends: u32,
    pub(super) max_in_flight: usize,
    pub(super) adaptive: bool,
}

impl Retry {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            initial: INITIAL,
            max_sends: MAX_SENDS,
            max_in_flight: MAX_IN_FLIGHT,
            adaptive: true,
        }
    }

    /// Requests are sent once.
    ///
    /// ```
    /// use rejoinder::Retry;
    ///
    /// assert_eq!(Retry::never(), Retry::new().max_sends(1));
    /// ```
    pub const fn never() -> Self {
        Self {
            max_sends: 1,
            ..Self::new()
        }
    }

    /// The least time until the first retransmission, and turns its [adaptation](Self::adaptive) off.
    /// Default: 1 second, what RFC 6298 §2.1 asks for where nothing is known of the network. Choose
    /// less only on a network that you know, and never less than a normal response takes.
    ///
    /// Zero is out of range: all sends would be one.
    pub const fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self.adaptive = false;
        self
    }

    /// Whether the first timeout follows measured round-trip times, as RFC 6298 has it: the smoothed time
    /// and four times its mean deviation, at least 100 ms and at most 60 s. Only responses to requests
    /// that were sent once are measured (Karn's algorithm). If a response comes so soon after a
    /// retransmission that it must be to an earlier send, the timeout doubles until the next
    /// measurement. Default: `true`, unless [`initial`](Self::initial) was set.
    ///
    /// ```
    /// use rejoinder::Retry;
    /// use std::time::Duration;
    ///
    /// // To begin with half a second, and to go on with what is measured.
    /// let retry = Retry::new()
    ///     .initial(Duration::from_millis(500))
    ///     .adaptive(true);
    /// assert_ne!(retry, Retry::new().initial(Duration::from_millis(500)));
    /// ```
    pub const fn adaptive(mut self, adaptive: bool) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// How often a request is sent at most, the first time included. Default: 5, the first and
    /// RFC 7252's 4 retransmissions (`MAX_RETRANSMIT`).
    ///
    /// Zero is out of range.
    pub const fn max_sends(mut self, sends: u32) -> Self {
        self.max_sends = sends;
        self
    }

    /// How many retransmissions a client may have in flight at once, over all its requests, so
    /// that they do not overload a server in trouble. One is in flight from its sending until its
    /// request is answered, or would be sent again, or ends. A request whose turn comes while there
    /// is no place waits for one, in order. It fails if its deadline comes first. Default: 256.
    ///
    /// Zero is out of range; [`never`](Self::never) turns retransmissions off.
    pub const fn max_in_flight(mut self, retransmissions: usize) -> Self {
        self.max_in_flight = retransmissions;
        self
    }

    pub(super) fn check(self) -> Result<(), ConfigError> {
        if self.initial.is_zero() {
            return Err(ConfigError::out_of_range("initial", "0s", "more than 0s"));
        }
        let counts = [
            ("max_sends", self.max_sends == 0),
            ("max_in_flight", self.max_in_flight == 0),
        ];
        for (setting, is_zero) in counts {
            if is_zero {
                return Err(ConfigError::out_of_range(setting, 0, "at least 1"));
            }
        }
        Ok(())
    }

    /// A first timeout, made up to half as long again by a random number.
    pub(super) fn jittered(timeout: Duration, random: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let jitter = timeout.mul_f64(unit * (RANDOM_FACTOR - 1.0));
        timeout.saturating_add(jitter)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 6298 §2.1.
const INITIAL: Duration = Duration::from_secs(1);
/// RFC 7252 §4.8: `ACK_RANDOM_FACTOR`.
const RANDOM_FACTOR: f64 = 1.5;
/// RFC 7252 §4.8: 1 + `MAX_RETRANSMIT`.
const MAX_SENDS: u32 = 5;
const MAX_IN_FLIGHT: usize = 256;
