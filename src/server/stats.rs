use std::fmt;
use std::io;
use std::iter::Sum;
use std::ops::AddAssign;

use super::dropped::{Dropped, MAX_GATE_REASONS};
use crate::drop_reason::DropReason;
use crate::transport::{ErrorClass, ErrorCounts, SendReport};

/// What became of every datagram: plain counters, since the server began.
///
/// Every datagram that was received is in exactly one place:
/// `received = replied + silent + dropped + deferred + pending`, at every moment and when the server ended.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::{DropReason, Timestamp};
///
/// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// for datagram in [&b"quiet"[..], b"\xff is not UTF-8"] {
///     inbox.push(datagram, Meta::new("192.0.2.1:7777".parse()?));
/// }
/// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
///
/// let stats = core.stats();
/// assert_eq!(
///     (stats.received, stats.replied, stats.dropped_total()),
///     (2, 1, 1)
/// );
/// assert_eq!(stats.dropped(DropReason::Malformed), 1);
/// assert!(stats.is_conserved());
/// assert!(
///     stats
///         .to_string()
///         .starts_with("received 2: replied 1, silent 0, dropped 1 (malformed 1)")
/// );
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams received.
    pub received: u64,
    /// Datagrams that were answered, with one response or more.
    pub replied: u64,
    /// Datagrams to which the handler returned no answer.
    pub silent: u64,
    /// Requests that wait for their answer outside of the core, see
    /// [`ServerCore::defer_next`](crate::sans_io::ServerCore::defer_next).
    pub deferred: u64,
    /// Datagrams received and not looked at yet.
    pub pending: u64,
    /// Of those that were dropped as [malformed](DropReason::Malformed): those to which the codec had a
    /// [response](crate::Codec::encode_rejection) all the same. Counted there, too.
    pub rejected: u64,
    /// Responses that the kernel accepted for sending.
    pub responses_sent: u64,
    /// Responses that the kernel refused to send.
    pub responses_failed: u64,
    /// Attempts to receive that failed; that a signal came is no failure.
    pub receive_errors: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full, as far as it has
    /// reported: see [`Transport::kernel_drops`](crate::Transport::kernel_drops). They are not
    /// among those received.
    pub kernel_drops: u64,
    receive_errors_by_class: ErrorCounts,
    send_errors_by_class: ErrorCounts,
    dropped: Dropped,
}

impl Stats {
    /// How many reasons of [gates](DropReason::Gate) have a counter of their own. Further ones
    /// share `DropReason::Gate("other gates")`.
    pub const MAX_GATE_REASONS: usize = MAX_GATE_REASONS;

    /// Datagrams dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason)
    }

    /// Datagrams dropped, for whatever reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops().map(|(_, datagrams)| datagrams).sum()
    }

    /// Datagrams dropped, by reason. The reasons of users' gates appear once they happened.
    ///
    /// ```
    /// # use rejoinder::Stats;
    /// # let stats = Stats::default();
    /// for (reason, datagrams) in stats.drops() {
    ///     println!("{reason}: {datagrams}"); // truncated: 0, and so on
    /// }
    /// # assert!(stats.drops().count() > 10);
    /// ```
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        self.dropped.iter()
    }

    /// Attempts to receive that ended with an error of one class.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::ErrorClass;
    /// use rejoinder::Timestamp;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// core.on_receive_error(Timestamp::system(), &std::io::ErrorKind::OutOfMemory.into());
    /// assert_eq!(core.stats().receive_errors_of(ErrorClass::Resources), 1);
    /// ```
    pub fn receive_errors_of(&self, class: ErrorClass) -> u64 {
        self.receive_errors_by_class.get(class)
    }

    /// Responses that the kernel refused to send with an error of one class: `responses_failed` in
    /// all.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{ErrorClass, SendReport};
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// let mut sent = SendReport::default();
    /// sent.record_failure(std::io::ErrorKind::PermissionDenied.into()); // a firewall
    /// core.on_sent(&sent);
    /// assert_eq!(core.stats().send_errors_of(ErrorClass::Configuration), 1);
    /// ```
    pub fn send_errors_of(&self, class: ErrorClass) -> u64 {
        self.send_errors_by_class.get(class)
    }

    /// Whether every datagram received is accounted for.
    pub fn is_conserved(&self) -> bool {
        let settled = self.replied + self.silent + self.dropped_total();
        self.received == settled + self.deferred + self.pending
    }

    /// All counters with their names, for an exporter: always the same names in the same order.
    /// Those of drops begin with `dropped_`; what users' gates dropped is `dropped_gate`, and by
    /// reason in [`drops`](Self::drops).
    ///
    /// ```
    /// use rejoinder::Stats;
    ///
    /// // The lines of a metrics endpoint, say.
    /// let lines: Vec<_> = Stats::default()
    ///     .counters()
    ///     .map(|(name, value)| format!("bot_{name} {value}"))
    ///     .collect();
    /// assert_eq!(lines[0], "bot_received 0");
    /// assert!(lines.contains(&"bot_dropped_malformed 0".to_owned()));
    /// ```
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let gates = self.dropped.gates.iter().map(|(_, datagrams)| datagrams);
        let gates = gates.sum::<u64>() + self.dropped.other_gates;
        let built_in =
            DropReason::built_in().map(|reason| (reason.counter_name(), self.dropped(reason)));
        let receive =
            ErrorClass::ALL.map(|class| (receive_counter(class), self.receive_errors_of(class)));
        let send = ErrorClass::ALL.map(|class| (send_counter(class), self.send_errors_of(class)));
        [
            ("received", self.received),
            ("replied", self.replied),
            ("silent", self.silent),
            ("deferred", self.deferred),
            ("pending", self.pending),
            ("rejected", self.rejected),
            ("responses_sent", self.responses_sent),
            ("responses_failed", self.responses_failed),
            ("receive_errors", self.receive_errors),
            ("kernel_drops", self.kernel_drops),
        ]
        .into_iter()
        .chain(built_in)
        .chain([(DropReason::Gate("").counter_name(), gates)])
        .chain(receive)
        .chain(send)
    }

    /// The same, with `datagrams` more that were received and wait.
    pub(super) fn with_pending(&self, datagrams: usize) -> Self {
        let mut with = self.clone();
        with.pending += datagrams as u64;
        with.received += datagrams as u64;
        with
    }

    pub(super) fn count_receive_error(&mut self, error: &io::Error) {
        let class = ErrorClass::classify_receive(error);
        self.receive_errors += u64::from(class != ErrorClass::Interrupted);
        self.receive_errors_by_class.add(class, 1);
    }

    pub(super) fn count_sent(&mut self, sent: &SendReport) {
        self.responses_sent += sent.sent as u64;
        self.responses_failed += sent.failed as u64;
        self.send_errors_by_class.merge(&sent.errors_by_class());
    }

    pub(super) fn count(&mut self, fate: Fate) {
        self.received += 1;
        match fate {
            Fate::Replied => self.replied += 1,
            Fate::Silent => self.silent += 1,
            Fate::Deferred => self.deferred += 1,
            Fate::Rejected => {
                self.dropped.add(DropReason::Malformed, 1);
                self.rejected += 1;
            }
            Fate::Dropped(reason) => self.dropped.add(reason, 1),
        }
    }

    /// Counts what became of a request that was deferred.
    pub(super) fn settle(&mut self, fate: Fate) {
        self.deferred -= 1;
        self.received -= 1;
        self.count(fate);
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        // Taken apart, so that a new counter cannot be forgotten.
        let Self {
            received,
            replied,
            silent,
            deferred,
            pending,
            rejected,
            responses_sent,
            responses_failed,
            receive_errors,
            kernel_drops,
            receive_errors_by_class,
            send_errors_by_class,
            dropped,
        } = other;
        self.received += received;
        self.replied += replied;
        self.silent += silent;
        self.deferred += deferred;
        self.pending += pending;
        self.rejected += rejected;
        self.responses_sent += responses_sent;
        self.responses_failed += responses_failed;
        self.receive_errors += receive_errors;
        self.kernel_drops += kernel_drops;
        self.receive_errors_by_class.merge(&receive_errors_by_class);
        self.send_errors_by_class.merge(&send_errors_by_class);
        for (reason, datagrams) in dropped.iter() {
            self.dropped.add(reason, datagrams);
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

/// One line of text: drops by reason, without reasons that did not occur.
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
        for (reason, datagrams) in self.drops().filter(|&(_, datagrams)| datagrams > 0) {
            write!(f, "{separator}{reason} {datagrams}")?;
            separator = ", ";
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        if self.deferred > 0 {
            write!(f, ", deferred {}", self.deferred)?;
        }
        write!(
            f,
            ", pending {}; responses sent {}, failed {}; receive errors {}",
            self.pending, self.responses_sent, self.responses_failed, self.receive_errors
        )?;
        if self.kernel_drops > 0 {
            write!(f, "; dropped by the kernel {}", self.kernel_drops)?;
        }
        Ok(())
    }
}

/// How the life of one datagram ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Replied,
    Silent,
    Deferred,
    /// Malformed, and met with a rejection.
    Rejected,
    Dropped(DropReason),
}

fn receive_counter(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Interrupted => "receive_errors_interrupted",
        ErrorClass::Peer => "receive_errors_peer",
        ErrorClass::Resources => "receive_errors_resources",
        ErrorClass::Configuration => "receive_errors_configuration",
        ErrorClass::Gone => "receive_errors_gone",
        ErrorClass::Other => "receive_errors_other",
    }
}

fn send_counter(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Interrupted => "send_errors_interrupted",
        ErrorClass::Peer => "send_errors_peer",
        ErrorClass::Resources => "send_errors_resources",
        ErrorClass::Configuration => "send_errors_configuration",
        ErrorClass::Gone => "send_errors_gone",
        ErrorClass::Other => "send_errors_other",
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::{DropReason, ErrorClass, Fate, SendReport, Stats};

    #[test]
    fn every_fate_is_counted_once_and_stats_add_up() {
        let mut stats = Stats::default();
        for reason in DropReason::built_in() {
            stats.count(Fate::Dropped(reason));
            assert_eq!(stats.dropped(reason), 1);
        }
        stats.count(Fate::Replied);
        stats.count(Fate::Silent);
        stats.count(Fate::Rejected);
        assert_eq!(
            (stats.rejected, stats.dropped(DropReason::Malformed)),
            (1, 2)
        );
        assert!(stats.is_conserved());

        let both: Stats = [stats.clone(), stats.clone()].into_iter().sum();
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
             responses sent 0, failed 0; receive errors 0"
        );
    }

    #[test]
    fn reasons_of_gates_have_their_own_counters_up_to_a_fixed_number() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let mut stats = Stats::default();
        for name in names.into_iter().chain(names) {
            stats.count(Fate::Dropped(DropReason::Gate(name)));
        }
        assert_eq!(stats.dropped(DropReason::Gate("a")), 2);
        assert_eq!(stats.dropped(DropReason::Gate("h")), 2);
        assert_eq!(stats.dropped(DropReason::Gate("i")), 0);
        assert_eq!(stats.dropped(DropReason::Gate("other gates")), 4);
        assert!(
            stats
                .counters()
                .any(|counter| counter == ("dropped_gate", 20))
        );

        let mut sum = Stats::default();
        sum.count(Fate::Dropped(DropReason::Gate("j")));
        sum += stats;
        assert_eq!(sum.dropped(DropReason::Gate("j")), 1);
        assert_eq!(sum.dropped(DropReason::Gate("other gates")), 6);
        assert_eq!(sum.dropped_total(), 21);
        assert!(sum.is_conserved());
    }

    #[test]
    fn refused_responses_are_counted_by_class_however_a_transport_reports_them() {
        let mut stats = Stats::default();
        let mut sent = SendReport::default();
        sent.record_failure(ErrorKind::ConnectionRefused.into());
        sent.record_failure(ErrorKind::PermissionDenied.into());
        stats.count_sent(&sent);
        let mut unclassified = SendReport::default();
        unclassified.failed = 3;
        unclassified.last_error = Some(ErrorKind::PermissionDenied.into());
        stats.count_sent(&unclassified);
        assert_eq!(stats.responses_failed, 5);
        assert_eq!(stats.send_errors_of(ErrorClass::Peer), 1);
        assert_eq!(stats.send_errors_of(ErrorClass::Configuration), 4);
    }

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let mut names: Vec<_> = Stats::default().counters().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
