//! What is said at the end: in lines, as JSON, and by the exit code.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use crate::load::plot::{float, shown};
use crate::load::run::{Plan, Tally};

/// A run that is over.
pub(crate) struct Summary<'a> {
    pub(crate) target: SocketAddr,
    pub(crate) plan: Plan,
    pub(crate) peers: usize,
    /// Requests in flight of each peer, at most.
    pub(crate) in_flight: usize,
    /// Whether each request had a socket of its own.
    pub(crate) own_sockets: bool,
    pub(crate) tally: &'a Tally,
}

/// What a run must reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    pub(crate) max_p99: Option<Duration>,
    /// In per cent of the requests sent.
    pub(crate) max_loss: Option<f64>,
}

impl Summary<'_> {
    pub(crate) fn responses_per_second(&self) -> f64 {
        let seconds = self.tally.time.as_secs_f64();
        if seconds > 0.0 {
            float(self.tally.answered) / seconds
        } else {
            0.0
        }
    }

    pub(crate) fn loss_percent(&self) -> f64 {
        100.0 * float(self.tally.lost) / float(self.tally.sent.max(1))
    }

    /// The latencies, in nanoseconds, by the name of the percentile.
    fn percentiles(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let latency = &self.tally.latency;
        let at = |(name, key, quantile)| (name, key, latency.value_at_quantile(quantile));
        QUANTILES
            .map(at)
            .into_iter()
            .chain([("max", "max", latency.max())])
    }

    /// What was missed, a line each.
    pub(crate) fn missed(&self, thresholds: Thresholds) -> Vec<String> {
        let tally = self.tally;
        if tally.sent == 0 {
            return vec!["nothing was measured".into()];
        }
        let mut missed = Vec::new();
        if tally.wrong > 0 {
            missed.push(format!(
                "{} of {} answers were wrong",
                tally.wrong,
                tally.wrong + tally.answered
            ));
        }
        if tally.answered == 0 {
            missed.push("no right answer came".into());
        } else if let Some(most) = thresholds.max_p99 {
            let most = float(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX));
            let p99 = float(tally.latency.value_at_quantile(0.99));
            if p99 > most {
                missed.push(format!(
                    "the 99th percentile is {}, by {} more than --max-p99 {}",
                    shown(p99),
                    shown(p99 - most),
                    shown(most)
                ));
            }
        }
        if let Some(most) = thresholds.max_loss {
            let loss = self.loss_percent();
            if loss > most {
                missed.push(format!(
                    "the loss is {} %, by {} % more than --max-loss {most} %",
                    Percent(loss),
                    Percent(loss - most)
                ));
            }
        }
        if let Some(rate) = self.plan.rate
            && float(tally.unsent) > TOLERATED * float(tally.sent + tally.unsent)
        {
            missed.push(format!(
                "the rate of {rate} a second was not reached: {} of {} requests never left",
                tally.unsent,
                tally.sent + tally.unsent
            ));
        }
        missed
    }

    /// One object, in one line.
    pub(crate) fn json(&self) -> String {
        let Self { tally, plan, .. } = self;
        let rate = plan.rate.map_or("null".into(), |rate| rate.to_string());
        let mut json = format!(
            "{{\"target\":\"{}\",\"seconds\":{:.3},\"peers\":{},\"in_flight\":{},\"rate\":{rate},\
             \"own_sockets\":{},\"sent\":{},\"answered\":{},\"wrong\":{},\"lost\":{},\
             \"unsent\":{},\"ignored\":{},\"responses_per_second\":{:.1},\"loss_percent\":{:.6},\
             \"latency_us\":{{",
            self.target,
            tally.time.as_secs_f64(),
            self.peers,
            self.in_flight,
            self.own_sockets,
            tally.sent,
            tally.answered,
            tally.wrong,
            tally.lost,
            tally.unsent,
            tally.ignored,
            self.responses_per_second(),
            self.loss_percent(),
        );
        for (_, key, latency) in self.percentiles() {
            if tally.answered > 0 {
                let _ = write!(json, "\"{key}\":{:.3},", float(latency) / 1e3);
            } else {
                let _ = write!(json, "\"{key}\":null,");
            }
        }
        json.pop();
        json.push_str("}}\n");
        json
    }

    /// How it was asked.
    pub(crate) fn load(&self) -> String {
        let some = |number: usize, one: &str, many: &str| {
            format!(
                "{} {}",
                grouped(float(number as u64)),
                if number == 1 { one } else { many }
            )
        };
        let sockets = if self.own_sockets {
            "a socket each".to_owned()
        } else {
            some(self.peers, "peer", "peers")
        };
        match self.plan.rate {
            Some(rate) => format!(
                "{} a second, {sockets}",
                some(rate as usize, "request", "requests")
            ),
            None if self.own_sockets => format!(
                "{} in flight, {sockets}",
                some(self.peers * self.in_flight, "request", "requests")
            ),
            None => format!(
                "{sockets}, {} in flight{}",
                some(self.in_flight, "request", "requests"),
                if self.peers == 1 { "" } else { " each" }
            ),
        }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.tally;
        let mut count = |name: &str, number: u64, more: &str| {
            writeln!(f, "{name:<9}{:>12}{more}", grouped(float(number)))
        };
        count("sent", tally.sent, "")?;
        let rate = format!("  {}/s", grouped(self.responses_per_second()));
        count("answered", tally.answered, &rate)?;
        count("wrong", tally.wrong, "")?;
        let loss = format!("  {} %", Percent(self.loss_percent()));
        count("lost", tally.lost, &loss)?;
        if tally.unsent > 0 {
            count("not sent", tally.unsent, "  due, but never left")?;
        }
        if tally.ignored > 0 {
            count("ignored", tally.ignored, "  late or alien")?;
        }
        if tally.answered > 0 {
            for (at, (name, _, latency)) in self.percentiles().enumerate() {
                let title = if at == 0 { "latency" } else { "" };
                let latency = shown(float(latency));
                writeln!(f, "{title:<9}{name:<6}{latency:>9}")?;
            }
        }
        Ok(())
    }
}

/// A share, not rounded to none.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0.0 => f.write_str("0"),
            ..0.001 => f.write_str("under 0.001"),
            percent => write!(f, "{percent:.3}"),
        }
    }
}

/// A whole number with a comma before every three digits.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const QUANTILES: [(&str, &str, f64); 4] = [
    ("50 %", "p50", 0.5),
    ("90 %", "p90", 0.9),
    ("99 %", "p99", 0.99),
    ("99.9 %", "p99_9", 0.999),
];
/// The share of requests that may be missing although a rate counts as reached.
const TOLERATED: f64 = 0.01;
