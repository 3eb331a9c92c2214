use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, Index, IndexMut};

/// What became of every datagram: plain counters, since the server began.
///
/// Every datagram that was received is in exactly one place:
/// `received = replied + silent + dropped + pending`, at every moment and when the server ended.
///
/// ```
/// use rejoinder::{DropReason, Stats};
///
/// let stats = Stats::default();
/// assert_eq!(stats.dropped(DropReason::Malformed), 0);
/// assert!(stats.is_conserved());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams that were answered, with one reply or more.
    pub replied: u64,
    /// Datagrams that the handler answered with silence.
    pub silent: u64,
    /// Datagrams received and not looked at yet.
    pub pending: u64,
    /// Replies that the system accepted for sending.
    pub replies_sent: u64,
    /// Replies that the system refused to send.
    pub replies_failed: u64,
    /// Attempts to receive that failed.
    pub receive_errors: u64,
    dropped: Dropped,
}

impl Stats {
    /// Datagrams dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason]
    }

    /// Datagrams dropped, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.0.iter().sum()
    }

    /// Whether every datagram received is accounted for.
    pub fn is_conserved(&self) -> bool {
        self.received == self.replied + self.silent + self.dropped_total() + self.pending
    }

    /// All counters with their names, for an exporter. The names of drops begin with `dropped_`.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("received", self.received),
            ("replied", self.replied),
            ("silent", self.silent),
            ("pending", self.pending),
            ("replies_sent", self.replies_sent),
            ("replies_failed", self.replies_failed),
            ("receive_errors", self.receive_errors),
        ]
        .into_iter()
        .chain(DropReason::ALL.map(|reason| (reason.counter_name(), self.dropped[reason])))
    }

    /// The same, with `datagrams` more that were received and wait.
    pub(super) fn with_pending(mut self, datagrams: usize) -> Self {
        self.pending += datagrams as u64;
        self.received += datagrams as u64;
        self
    }

    pub(super) fn count(&mut self, fate: Fate) {
        self.received += 1;
        match fate {
            Fate::Replied => self.replied += 1,
            Fate::Silent => self.silent += 1,
            Fate::Dropped(reason) => self.dropped[reason] += 1,
        }
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        // Taken apart, so that a new counter cannot be forgotten.
        let Self {
            received,
            replied,
            silent,
            pending,
            replies_sent,
            replies_failed,
            receive_errors,
            dropped,
        } = other;
        self.received += received;
        self.replied += replied;
        self.silent += silent;
        self.pending += pending;
        self.replies_sent += replies_sent;
        self.replies_failed += replies_failed;
        self.receive_errors += receive_errors;
        for reason in DropReason::ALL {
            self.dropped[reason] += dropped[reason];
        }
    }
}

impl Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |mut sum, stats| {
            sum += stats;
            sum
        })
    }
}

/// One line for people: drops are told by reason, and only those that happened.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {}: replied {}, silent {}, dropped {}",
            self.received,
            self.replied,
            self.silent,
            self.dropped_total()
        )?;
        let mut separator = " (";
        for reason in DropReason::ALL {
            if self.dropped[reason] > 0 {
                write!(f, "{separator}{reason} {}", self.dropped[reason])?;
                separator = ", ";
            }
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        write!(
            f,
            ", pending {}; replies sent {}, failed {}; receive errors {}",
            self.pending, self.replies_sent, self.replies_failed, self.receive_errors
        )
    }
}

/// Why a datagram was dropped: nothing was sent for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// It was longer than the limit for requests, so only a part of it arrived.
    Truncated,
    /// It is a response. Answering it could go on for ever.
    Response,
    /// The codec could not decode it.
    Malformed,
    /// The handler panicked, or the codec did.
    HandlerPanicked,
    /// The handler gave up because a reply could not be queued.
    ReplyFailed,
}

impl DropReason {
    const ALL: [Self; 5] = [
        Self::Truncated,
        Self::Response,
        Self::Malformed,
        Self::HandlerPanicked,
        Self::ReplyFailed,
    ];

    fn counter_name(self) -> &'static str {
        match self {
            Self::Truncated => "dropped_truncated",
            Self::Response => "dropped_response",
            Self::Malformed => "dropped_malformed",
            Self::HandlerPanicked => "dropped_handler_panicked",
            Self::ReplyFailed => "dropped_reply_failed",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Response => "response",
            Self::Malformed => "malformed",
            Self::HandlerPanicked => "handler panicked",
            Self::ReplyFailed => "reply failed",
        })
    }
}

/// How the life of one datagram ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Replied,
    Silent,
    Dropped(DropReason),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dropped([u64; DropReason::ALL.len()]);

impl Index<DropReason> for Dropped {
    type Output = u64;

    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<DropReason> for Dropped {
    fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::{DropReason, Fate, Stats};

    #[test]
    fn every_fate_is_counted_once_and_stats_add_up() {
        let mut stats = Stats::default();
        for reason in DropReason::ALL {
            stats.count(Fate::Dropped(reason));
            assert_eq!(stats.dropped(reason), 1);
        }
        stats.count(Fate::Replied);
        stats.count(Fate::Silent);
        assert!(stats.is_conserved());

        let both: Stats = [stats, stats].into_iter().sum();
        assert!(both.is_conserved());
        assert!(
            both.counters()
                .zip(stats.counters())
                .all(|(two, one)| two.1 == 2 * one.1)
        );
    }

    #[test]
    fn the_line_for_people_names_only_the_drops_that_happened() {
        let mut stats = Stats::default();
        stats.count(Fate::Replied);
        stats.count(Fate::Dropped(DropReason::Malformed));
        stats.count(Fate::Dropped(DropReason::Response));
        assert_eq!(
            stats.to_string(),
            "received 3: replied 1, silent 0, dropped 2 (response 1, malformed 1), pending 0; \
             replies sent 0, failed 0; receive errors 0"
        );
    }
}
