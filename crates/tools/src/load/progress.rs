//! A line that shows how far a run is, on a terminal only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use terminal_size::{Width, terminal_size_of};

use crate::load::plot::{float, shown};
use crate::load::run::{Plan, Tally, Watch};
use crate::load::summary::grouped;

/// The line, which is gone when this is.
pub(crate) struct Progress {
    plan: Plan,
    visible: bool,
    /// The time and the answers when it was last drawn.
    last: (Duration, u64),
}

impl Progress {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            visible: io::stderr().is_terminal(),
            last: (Duration::ZERO, 0),
        }
    }

    fn draw(&mut self, time: Duration, tally: &Tally) {
        let columns = terminal_size_of(io::stderr()).map_or(80, |(Width(width), _)| width.into());
        let all = self.plan.warmup + self.plan.duration;
        let seconds = time.saturating_sub(self.last.0).as_secs_f64();
        let rate = float(tally.answered - self.last.1) / seconds;
        let mut parts = vec![format!(
            "{:.1} of {:.1} s",
            time.min(all).as_secs_f64(),
            all.as_secs_f64()
        )];
        if time < self.plan.warmup {
            parts.push("warming up".into());
        } else {
            parts.push(format!("{}/s", grouped(rate)));
            parts.push(format!("lost {}", grouped(float(tally.lost))));
            if tally.wrong > 0 {
                parts.push(format!("wrong {}", grouped(float(tally.wrong))));
            }
            let p99 = tally.latency.value_at_quantile(0.99);
            parts.push(format!("99 % in {}", shown(float(p99))));
        }
        let line = line(columns, time.as_secs_f64() / all.as_secs_f64(), &parts);
        // What cannot be shown is not missed.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
        self.last = (time, tally.answered);
    }
}

impl Watch for Progress {
    fn look(&mut self, time: Duration, tally: &Tally) {
        if self.visible && time >= self.last.0 + PERIOD {
            self.draw(time, tally);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// As much as fits beside a bar, which gets the rest. Some columns stay free: for the `^C` that a
/// terminal adds, and for those that begin a new line after the last one.
fn line(columns: usize, done: f64, parts: &[String]) -> String {
    let room = columns.saturating_sub(3);
    let mut text = String::new();
    for part in parts {
        if text.chars().count() + 2 + part.chars().count() + LEAST_BAR <= room {
            let _ = write!(text, "  {part}");
        }
    }
    let bar = room.saturating_sub(text.chars().count() + 2).min(MOST_BAR);
    let full = (0..bar)
        .take_while(|&at| float(at as u64) < done * float(bar as u64))
        .count();
    format!("[{}{}]{text}", "#".repeat(full), ".".repeat(bar - full))
}

const PERIOD: Duration = Duration::from_millis(250);
const LEAST_BAR: usize = 10;
const MOST_BAR: usize = 40;
