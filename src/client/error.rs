use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::codec::TooLong;

/// Why a request has no answer.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::{Client, RequestError};
///
/// let absent = "10.0.0.1:9999".parse()?;
/// let error = Client::new(SimNet::new(), Text, absent)
///     .request("hello?")
///     .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "no answer from 10.0.0.1:9999 after 5s (sent 3, ignored 0 datagrams)"
/// );
/// match error {
///     RequestError::TimedOut { sends, .. } => assert_eq!(sends, 3),
///     other => return Err(other.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No datagram came that could be the response.
    #[error(
        "no answer from {peer} after {} (sent {sends}, ignored {ignored} datagrams)",
        Rounded(*after)
    )]
    TimedOut {
        /// The address that was asked.
        peer: SocketAddr,
        /// How long the client waited.
        after: Duration,
        /// How often the request was sent.
        sends: u32,
        /// How many datagrams came meanwhile that were the response to nothing, to any request of
        /// the client.
        ignored: u64,
    },
    /// Something came from the peer, but nothing that the codec could decode.
    #[error("no answer from {peer} after {}, only malformed datagrams", Rounded(*after))]
    Malformed {
        /// The address that was asked.
        peer: SocketAddr,
        /// How long the client waited.
        after: Duration,
        /// What was wrong with the last of them.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response has several datagrams, and not all of them came.
    #[error(
        "only {received} of the {total} datagrams of a response came from {peer} in {}: missing {}",
        Rounded(*after), Runs(missing)
    )]
    Incomplete {
        /// The address that was asked.
        peer: SocketAddr,
        /// How long the client waited.
        after: Duration,
        /// How many datagrams came.
        received: usize,
        /// How many the response has.
        total: usize,
        /// The numbers of those that did not come, from 0, as [`ResponseKind::Part`] counts them. Each
        /// range is a run of numbers, in ascending order.
        ///
        /// [`ResponseKind::Part`]: crate::codec::ResponseKind::Part
        missing: Vec<RangeInclusive<usize>>,
    },
    /// The peer refused the request, in a way that the protocol has for that: see
    /// [`ResponseKind::Refused`](crate::codec::ResponseKind::Refused).
    #[error("{peer} refused the request")]
    Refused {
        /// The address that was asked.
        peer: SocketAddr,
        /// The codec's error, which has the reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The OS reports that the peer's port is closed.
    #[error("no service is listening at {peer}")]
    NobodyListening {
        /// The address that was asked.
        peer: SocketAddr,
    },
    /// The OS reports that there is no way to the peer.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// The address that was asked.
        peer: SocketAddr,
        /// The latest error.
        source: io::Error,
    },
    /// The OS refused to send the request, every time.
    #[error("cannot send to {peer} in {}", Rounded(*after))]
    NotSent {
        /// The address that was to be asked.
        peer: SocketAddr,
        /// How long it was tried.
        after: Duration,
        /// The last refusal.
        source: io::Error,
    },
    /// The codec could not encode the request.
    #[error("the request could not be encoded")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
    /// The request would be longer than a datagram may be.
    #[error("the request is too long")]
    TooLong(#[from] TooLong),
    /// As many requests are under way as there can be: all slots of the window are taken, or as many
    /// sockets cool down as may.
    #[error(
        "the window is full: {in_flight} requests in flight, {uncollected} results to collect, \
         {cooling} sockets cooling down; wait, collect results or raise `window`"
    )]
    WindowFull {
        /// Requests without a result.
        in_flight: usize,
        /// Results that were not collected.
        uncollected: usize,
        /// Sockets whose cooldown is not over. Where they are the reason, only time helps.
        cooling: usize,
    },
    /// No socket could be opened that talks to the peer.
    #[error("cannot connect to {peer}")]
    Connect {
        /// The address that was to be asked.
        peer: SocketAddr,
        /// The error of opening it.
        source: io::Error,
    },
    /// No random number could be had, for an id or the jitter.
    #[error("cannot get random numbers from the OS")]
    Entropy(#[source] io::Error),
    /// The socket is gone: an error of the kind [`NotConnected`](io::ErrorKind::NotConnected).
    #[error("the transport is gone")]
    Transport(#[source] io::Error),
}

impl RequestError {
    /// The peer that it is about, unless it is about the client itself.
    ///
    /// ```
    /// use rejoinder::RequestError;
    ///
    /// let peer = "192.0.2.1:9999".parse()?;
    /// assert_eq!(RequestError::NobodyListening { peer }.peer(), Some(peer));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::TimedOut { peer, .. }
            | Self::Malformed { peer, .. }
            | Self::Incomplete { peer, .. }
            | Self::Refused { peer, .. }
            | Self::NobodyListening { peer }
            | Self::Unreachable { peer, .. }
            | Self::NotSent { peer, .. }
            | Self::Connect { peer, .. } => Some(*peer),
            Self::Encode(_)
            | Self::TooLong(_)
            | Self::WindowFull { .. }
            | Self::Entropy(_)
            | Self::Transport(_) => None,
        }
    }
}

/// A duration in milliseconds: the nanoseconds of a timeout are noise.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = (self.0.as_nanos() + 500_000) / 1_000_000;
        match u64::try_from(millis) {
            Ok(millis) if millis > 0 => write!(f, "{:?}", Duration::from_millis(millis)),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

/// Numbers as `0, 3-5`; after the first few runs only how many numbers there are more.
struct Runs<'a>(&'a [RangeInclusive<usize>]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.0.split_at(self.0.len().min(SHOWN_RUNS));
        for (index, run) in shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", run.start())?;
            if run.start() != run.end() {
                write!(f, "-{}", run.end())?;
            }
        }
        match rest.iter().map(|run| run.end() - run.start() + 1).sum() {
            0_usize => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A message stays one line of a terminal.
const SHOWN_RUNS: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Rounded, Runs};

    #[test]
    fn a_time_is_shown_in_milliseconds_unless_it_is_shorter() {
        for (nanos, expected) in [
            (0, "0ns"),
            (300_000, "300µs"),
            (500_000, "1ms"),
            (1_499_999, "1ms"),
            (5_000_000_001, "5s"),
        ] {
            assert_eq!(Rounded(Duration::from_nanos(nanos)).to_string(), expected);
        }
    }

    #[test]
    fn runs_of_numbers_are_short_however_many_there_are() {
        for (runs, expected) in [
            (vec![0..=0], "0"),
            (vec![0..=1, 4..=4], "0-1, 4"),
            (vec![1..=1, 3..=3, 5..=5, 7..=9], "1, 3, 5, 7-9"),
            (
                vec![1..=1, 3..=3, 5..=5, 7..=7, 9..=9, 11..=12],
                "1, 3, 5, 7 and 3 more",
            ),
        ] {
            assert_eq!(Runs(&runs).to_string(), expected);
        }
    }
}
