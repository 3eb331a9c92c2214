//! `--stats`: what happened lately, in one line that fits a narrow terminal.

use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use rejoinder::Stats;

/// Prints, at an interval, what was counted since the last line.
#[derive(Debug)]
pub struct Rates {
    every: Duration,
    told: Instant,
    stats: Stats,
    due: Instant,
}

impl Rates {
    /// The first line is due after `every`.
    #[must_use]
    pub fn new(every: Duration, now: Instant) -> Self {
        Self {
            every,
            told: now,
            stats: Stats::default(),
            due: now + every,
        }
    }

    /// The time until the next line.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// The next line, if it is time for one.
    pub fn tell(&mut self, now: Instant, stats: impl FnOnce() -> Stats) -> Option<String> {
        if now < self.due {
            return None;
        }
        let stats = stats();
        let line = line(&self.stats, &stats, now - self.told);
        self.stats = stats;
        self.told = now;
        self.due += self.every;
        if self.due <= now {
            // Lines that were missed are not made up for.
            self.due = now + self.every;
        }
        Some(line)
    }
}

/// What happened between two readings of the counters. Counters that did not change are left out,
/// except for the first two.
pub fn line(before: &Stats, after: &Stats, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "nobody reads sixteen digits")]
    let rate = |before: u64, after: u64| Rate((after - before) as f64 / elapsed.as_secs_f64());
    let mut line = format!(
        "per s: received {}, replied {}",
        rate(before.received, after.received),
        rate(before.replied, after.replied)
    );
    let mut add = |name: &str, rate: Rate| {
        if rate.0 > 0.0 {
            let _ = write!(line, "{name} {rate}");
        }
    };
    add(", silent", rate(before.silent, after.silent));
    let mut separator = "; dropped:";
    for (reason, datagrams) in after.drops() {
        let rate = rate(before.dropped(reason), datagrams);
        if rate.0 > 0.0 {
            add(&format!("{separator} {reason}"), rate);
            separator = ",";
        }
    }
    for (name, before, after) in [
        (
            "; lost by the system",
            before.kernel_drops,
            after.kernel_drops,
        ),
        (
            "; not sent",
            before.responses_failed,
            after.responses_failed,
        ),
        (
            "; receive errors",
            before.receive_errors,
            after.receive_errors,
        ),
    ] {
        add(name, rate(before, after));
    }
    if after.pending > 0 {
        let _ = write!(line, "; pending {}", after.pending);
    }
    line
}

/// A rate with as many digits as one reads at a glance.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, unit) = match self.0 {
            rate if rate < 9_999.5 => (rate, ""),
            rate if rate < 999_950.0 => (rate / 1e3, "k"),
            rate => (rate / 1e6, "M"),
        };
        let decimals = match rate {
            rate if rate >= 99.95 => 0,
            rate if rate >= 0.1 => 1,
            _ => 3,
        };
        let digits = format!("{rate:.decimals$}");
        let whole = digits.trim_end_matches('0').strip_suffix('.');
        write!(f, "{}{unit}", whole.unwrap_or(&digits))
    }
}
