//! The load itself: when to ask, and what came of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rejoinder::{RequestError, Timestamp};

use crate::load::answers::Judge;
use crate::load::askers::{Asked, Asker, LONG, Outcome};

/// How long to ask, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// At the start: its requests do not count.
    pub(crate) warmup: Duration,
    /// Thereafter.
    pub(crate) duration: Duration,
    /// Requests per second in all. Without, each place is filled as soon as it is free.
    pub(crate) rate: Option<u32>,
}

/// What came of the requests that count.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
    /// Those that were due, but never left.
    pub(crate) unsent: u64,
    /// Datagrams that answered nothing.
    pub(crate) ignored: u64,
    /// Nanoseconds from the moment when a request was due to its answer, the right ones only.
    pub(crate) latency: Histogram<u64>,
    /// For how long requests were sent that count.
    pub(crate) time: Duration,
    /// Why a request was lost, if not for want of an answer.
    pub(crate) error: Option<RequestError>,
}

/// The observer of a run.
pub(crate) trait Watch {
    /// Called some times a second, with the time since the start.
    fn look(&mut self, time: Duration, tally: &Tally);
}

/// Asks until the plan is over, or `stop` says so, and all requests have their results.
pub(crate) fn run(
    asker: &mut impl Asker,
    plan: Plan,
    judge: &mut Judge,
    watch: &mut impl Watch,
    stop: &AtomicBool,
) -> Result<Tally, RequestError> {
    let begins = Timestamp::system().monotonic;
    let counts_from = begins + plan.warmup;
    let mut ends = counts_from + plan.duration;
    let mut schedule = Schedule {
        begins,
        rate: plan.rate,
        next: 0,
    };
    let mut tally = Tally::new();
    let (mut message, messages) = (0, judge.messages().len());
    let mut looked = begins;
    let mut over = false;
    loop {
        let now = Timestamp::system();
        let time = now.monotonic;
        if stop.load(Ordering::Relaxed) {
            ends = ends.min(time);
        }
        let mut full = over || !asker.has_place();
        while !full
            && let Some(due) = schedule.due(time)
            && due < ends
        {
            let counts = due >= counts_from;
            let note = Asked {
                due,
                message,
                counts,
            };
            if asker.ask(now, &judge.messages()[message].text, note)? {
                tally.sent += u64::from(counts);
                schedule.next += 1;
                message = (message + 1) % messages;
                full = !asker.has_place();
            } else {
                full = true;
            }
        }
        // What was due before the end has had its chance.
        over = time >= ends;
        if over && asker.in_flight() == 0 {
            break;
        }
        let mut wait = LONG;
        if !over {
            wait = wait.min(ends.saturating_sub(time));
            if !full {
                wait = wait.min(schedule.next_due(time).saturating_sub(time + SLACK));
            }
        }
        asker.exchange(wait, &mut |outcome| tally.note(outcome, judge));
        if time >= looked + LONG {
            looked = time;
            watch.look(time.saturating_sub(begins), &tally);
        }
    }
    tally.time = ends.saturating_sub(counts_from);
    tally.unsent = schedule
        .due_between(counts_from, ends)
        .saturating_sub(tally.sent);
    tally.ignored = asker.ignored();
    Ok(tally)
}

/// When requests are due.
struct Schedule {
    begins: Duration,
    rate: Option<u32>,
    /// How many have been sent.
    next: u64,
}

impl Schedule {
    /// When the next request was due, if it is by now.
    fn due(&self, now: Duration) -> Option<Duration> {
        Some(self.next_due(now)).filter(|&due| due <= now)
    }

    fn next_due(&self, now: Duration) -> Duration {
        match self.rate {
            // As soon as there is a place.
            None => now,
            Some(rate) => self.begins + after(self.next, rate),
        }
    }

    /// How many were due from one moment on and before another.
    fn due_between(&self, from: Duration, to: Duration) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let before = |moment: Duration| {
            let nanos = moment.saturating_sub(self.begins).as_nanos();
            let mut requests = u64::try_from(nanos * u128::from(rate) / NANOS).unwrap_or(u64::MAX);
            // Both are rounded down.
            while self.begins + after(requests, rate) < moment {
                requests += 1;
            }
            requests
        };
        before(to).saturating_sub(before(from))
    }
}

/// How long after the first one a request is due.
fn after(requests: u64, rate: u32) -> Duration {
    let nanos = u128::from(requests) * NANOS / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Tally {
    fn new() -> Self {
        Self {
            sent: 0,
            answered: 0,
            wrong: 0,
            lost: 0,
            unsent: 0,
            ignored: 0,
            latency: Histogram::new_with_bounds(1, HOUR, DIGITS).expect("the bounds are in order"),
            time: Duration::ZERO,
            error: None,
        }
    }

    fn note(&mut self, outcome: Outcome<'_>, judge: &mut Judge) {
        let Outcome { asked, at, answer } = outcome;
        if !asked.counts {
            return;
        }
        match answer {
            Ok(datagram) if judge.is_right(asked.message, datagram) => {
                self.answered += 1;
                let nanos = at.saturating_sub(asked.due).as_nanos();
                self.latency
                    .saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            Ok(_) => self.wrong += 1,
            Err(error) => {
                self.lost += 1;
                if !matches!(error, RequestError::TimedOut { .. }) && self.error.is_none() {
                    self.error = Some(error);
                }
            }
        }
    }
}

const NANOS: u128 = 1_000_000_000;
/// The longest latency that is recorded, in nanoseconds; longer ones count as this one.
const HOUR: u64 = 3_600_000_000_000;
/// Latencies are kept to so many significant digits.
const DIGITS: u8 = 3;
/// The OS wakes a sleeper this much later than asked. The rest of the time is spent spinning.
const SLACK: Duration = Duration::from_micros(100);
