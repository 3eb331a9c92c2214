//! What stands on the command line.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::load::answers::Message;
use crate::load::numbers::{PLACEHOLDER, stands_apart};
use crate::load::run::Plan;
use crate::load::summary::Thresholds;
use crate::program::{DEFAULT, Failure};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) target: String,
    pub(crate) allow_remote: bool,
    pub(crate) plan: Plan,
    pub(crate) peers: usize,
    pub(crate) in_flight: Option<usize>,
    pub(crate) timeout: Duration,
    pub(crate) messages: Vec<Message>,
    pub(crate) any_answer: bool,
    pub(crate) seed: Option<u64>,
    pub(crate) thresholds: Thresholds,
    pub(crate) json: bool,
    pub(crate) svg: Option<PathBuf>,
}

impl Options {
    /// `None` if help is asked for.
    pub(crate) fn parse(args: lexopt::Parser) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            target: DEFAULT.to_string(),
            allow_remote: false,
            plan: Plan {
                warmup: Duration::from_secs(1),
                duration: Duration::from_secs(10),
                rate: None,
            },
            peers: PEERS,
            in_flight: None,
            timeout: Duration::from_secs(1),
            messages: Vec::new(),
            any_answer: false,
            seed: None,
            thresholds: Thresholds::default(),
            json: false,
            svg: None,
        };
        let mut target = None;
        let mut expected = None;
        let mut args = Arguments(args);
        while let Some(arg) = args.0.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Short('d') | Long("duration") => {
                    options.plan.duration = args.value("--duration", |text| {
                        time(text, Duration::from_millis(1), DAY)
                    })?;
                }
                Short('w') | Long("warmup") => {
                    options.plan.warmup =
                        args.value("--warmup", |text| time(text, Duration::ZERO, DAY))?;
                }
                Short('p') | Long("peers") => {
                    options.peers = args.value("--peers", |text| number(text, 1, MOST))?;
                }
                Short('n') | Long("in-flight") => {
                    options.in_flight =
                        Some(args.value("--in-flight", |text| number(text, 1, MOST))?);
                }
                Short('r') | Long("rate") => {
                    options.plan.rate =
                        Some(args.value("--rate", |text| number(text, 1, 10_000_000))?);
                }
                Short('t') | Long("timeout") => {
                    options.timeout = args.value("--timeout", |text| {
                        time(text, Duration::from_millis(1), Duration::from_secs(60))
                    })?;
                }
                Short('m') | Long("message") => {
                    let message = args.value("--message", message)?;
                    options.messages.push(message);
                }
                Long("messages") => {
                    let path = PathBuf::from(args.0.value()?);
                    options.messages.extend(messages(&path)?);
                }
                Short('e') | Long("expect") => {
                    expected = Some(args.value("--expect", |text| Ok(text.to_owned()))?);
                }
                Long("any-answer") => options.any_answer = true,
                Long("seed") => {
                    options.seed = Some(args.value("--seed", |text| number(text, 0, u64::MAX))?);
                }
                Long("max-p99") => {
                    options.thresholds.max_p99 =
                        Some(args.value("--max-p99", |text| time(text, Duration::ZERO, DAY))?);
                }
                Long("max-loss") => {
                    options.thresholds.max_loss = Some(args.value("--max-loss", percent)?);
                }
                Long("json") => options.json = true,
                Long("svg") => options.svg = Some(args.0.value()?.into()),
                Long("allow-remote") => options.allow_remote = true,
                Value(value) if target.is_none() => target = Some(value.string()?),
                _ => return Err(arg.unexpected().into()),
            }
        }
        if let Some(target) = target {
            options.target = target;
        }
        options.check(expected.as_deref()).map(Some)
    }

    /// What concerns several options.
    fn check(mut self, expected: Option<&str>) -> Result<Self, Failure> {
        if self.peers.saturating_mul(self.in_flight()) > MOST {
            return Err(Failure::Usage(format!(
                "--peers {} times --in-flight {} are more than {MOST} requests at once",
                self.peers,
                self.in_flight()
            )));
        }
        if self.any_answer && expected.is_some() {
            return Err(Failure::Usage(
                "--expect and --any-answer contradict each other".into(),
            ));
        }
        if self.messages.is_empty() {
            self.messages.push(Message::new(DEFAULT_MESSAGE));
        }
        if let Some(expected) = expected {
            for message in &mut self.messages {
                message.expect(expected);
            }
        }
        Ok(self)
    }

    /// How many requests each peer may have in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.unwrap_or(match self.plan.rate {
            None => IN_FLIGHT,
            Some(_) => (OPEN_LOOP / self.peers).max(1),
        })
    }
}

struct Arguments(lexopt::Parser);

impl Arguments {
    /// The value of an option. What is wrong with it is told in one line that names the option.
    fn value<T>(
        &mut self,
        option: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let value = self.0.value()?.string()?;
        parse(&value).map_err(|problem| Failure::Usage(format!("{option} `{value}`: {problem}")))
    }
}

fn number<T>(text: &str, least: T, most: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + Copy + Display,
{
    text.parse()
        .ok()
        .filter(|&number| least <= number && number <= most)
        .ok_or_else(|| format!("not a whole number from {least} to {most}"))
}

/// A number of seconds, or of another unit that follows it.
fn time(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let seconds = match text[digits.len()..].trim() {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "ms" => 1e-3,
        "us" | "µs" | "μs" => 1e-6,
        _ => f64::NAN,
    };
    digits
        .trim()
        .parse()
        .ok()
        .and_then(|number: f64| Duration::try_from_secs_f64(number * seconds).ok())
        .filter(|time| (least..=most).contains(time))
        .ok_or_else(|| {
            format!(
                "not a time from {least:?} to {}s, such as 10s, 250ms or 80us",
                most.as_secs()
            )
        })
}

fn percent(text: &str) -> Result<f64, String> {
    text.trim_end_matches('%')
        .trim()
        .parse()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "not a number of per cent from 0 to 100".to_owned())
}

fn message(text: &str) -> Result<Message, String> {
    if text.is_empty() {
        Err("an empty message is never answered".into())
    } else if !stands_apart(text) {
        Err(format!(
            "{PLACEHOLDER} cannot stand next to a letter or another {PLACEHOLDER}"
        ))
    } else {
        Ok(Message::new(text))
    }
}

/// One message a line; after a tab, the answer that is expected.
fn messages(path: &Path) -> Result<Vec<Message>, Failure> {
    let fail =
        |problem: String| Failure::Usage(format!("--messages {}: {problem}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(fail(format!("more than {MOST_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| fail(error.to_string()))?;
    let mut messages = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let (asked, expected) = match line.split_once('\t') {
            Some((asked, expected)) => (asked, Some(expected)),
            None => (line, None),
        };
        if line.is_empty() {
            continue;
        }
        let mut message =
            message(asked).map_err(|problem| fail(format!("line {number}: {problem}")))?;
        if let Some(expected) = expected {
            message.expect(expected);
        }
        messages.push(message);
    }
    if messages.is_empty() {
        return Err(fail("no message in it".into()));
    }
    Ok(messages)
}

/// What the robot answers with a compliment to.
const DEFAULT_MESSAGE: &str = "你{n}吗？";
/// With so many peers and requests in flight each, a closed loop takes a server all it can do.
const PEERS: usize = 16;
/// See above.
const IN_FLIGHT: usize = 32;
/// In an open loop, of all peers together: more are only in flight if the target is in trouble.
const OPEN_LOOP: usize = 16_384;
/// Of peers, of requests in flight, and of both together.
const MOST: usize = 65_535;
/// Of a file of messages.
const MOST_BYTES: u64 = 4 << 20;
const DAY: Duration = Duration::from_secs(86_400);
