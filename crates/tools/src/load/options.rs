//! What stands on the command line.

use std::fmt::Display;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::load::answers::Message;
use crate::load::numbers::{PLACEHOLDER, stands_apart};
use crate::load::run::Plan;
use crate::load::summary::Thresholds;
use crate::program::Failure;
use crate::program::input::Lines;

/// Send as many requests as a server can bear, or at a rate, check every answer, and measure
///
/// In a message, the letter n in braces is replaced by a number in 12 letters, a new one each time, which
/// identifies the answer. Where an answer does not repeat it, each request gets a socket of its own, because
/// nothing else identifies late answers. That is slower.
///
/// A right answer is the one expected. Unless that is said, it is the first one to the same message.
///
/// What a peer has in flight may travel in one piece, where the kernel segments datagrams (Linux), and is
/// then cheap on both sides. Many clients with a question each are --peers 128 --in-flight 1.
///
/// In a closed loop, a server that pauses is asked less, and so the times hide what others would have
/// waited. With --rate, time counts from when a request was due, even if it left late (what Gil Tene calls
/// coordinated omission is thus avoided).
///
/// Another machine must be allowed, so that a slip of the finger floods no stranger.
///
/// The exit code is 0 if all went well; 1 if a threshold was missed, an answer was wrong, none came, or
/// the rate was not held; 2 for bad arguments. Ctrl-C ends a run early, and prints the numbers so far.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server: HOST:PORT, or only one of them
    #[arg(default_value = "127.0.0.1:8888")]
    target: String,
    /// How long to measure: 10 or 10s, 250ms, 2m
    #[arg(
        short, long, value_name = "TIME", value_parser = duration, allow_negative_numbers = true,
        default_value = "10s", help_heading = "How much"
    )]
    duration: Duration,
    /// For how long to ask before that, without measuring
    #[arg(
        short, long, value_name = "TIME", value_parser = time_up_to_a_day, allow_negative_numbers = true,
        default_value = "1s", help_heading = "How much"
    )]
    warmup: Duration,
    /// How many sockets to ask from
    #[arg(
        short, long, value_name = "NUMBER", value_parser = count, allow_negative_numbers = true,
        default_value = "16", help_heading = "How much"
    )]
    peers: usize,
    /// How many requests each of them has in flight at most. Default: 32; with --rate, 16384 by all
    /// together
    #[arg(
        short = 'n', long, value_name = "NUMBER", value_parser = count, allow_negative_numbers = true,
        help_heading = "How much"
    )]
    in_flight: Option<usize>,
    /// How many requests to send per second, in all and evenly. Default: a closed loop, in which every
    /// answer is followed by another request
    #[arg(
        short, long, value_name = "NUMBER", value_parser = rate, allow_negative_numbers = true,
        help_heading = "How much"
    )]
    rate: Option<u32>,
    /// After how long a request is lost. None is sent again
    #[arg(
        short, long, value_name = "TIME", value_parser = timeout, allow_negative_numbers = true,
        default_value = "1s", help_heading = "How much"
    )]
    timeout: Duration,
    /// Let TARGET be another machine
    #[arg(long, help_heading = "How much")]
    allow_remote: bool,
    /// What to ask; several take turns. Default: 你 and 吗？ with n in braces between them
    #[arg(
        short, long, value_name = "TEXT", value_parser = message, allow_hyphen_values = true,
        help_heading = "What"
    )]
    message: Vec<Message>,
    /// A message in each line; after a tab, the answer expected
    #[arg(long, value_name = "FILE", help_heading = "What")]
    messages: Vec<PathBuf>,
    /// The text of the right answer, without the frame's time
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "What"
    )]
    expect: Option<String>,
    /// Every frame is right
    #[arg(long, help_heading = "What")]
    any_answer: bool,
    /// Of the numbers; the same one asks the same. Default: a random one
    #[arg(
        long, value_name = "NUMBER", value_parser = seed, allow_negative_numbers = true,
        help_heading = "What"
    )]
    seed: Option<u64>,
    /// Exit code 1 if more than 1 % of the right answers took longer
    #[arg(
        long, value_name = "TIME", value_parser = time_up_to_a_day, allow_negative_numbers = true,
        help_heading = "What for"
    )]
    max_p99: Option<Duration>,
    /// Exit code 1 if more of the requests were lost
    #[arg(
        long, value_name = "PERCENT", value_parser = percent, allow_negative_numbers = true,
        help_heading = "What for"
    )]
    max_loss: Option<f64>,
    /// Print the numbers as a JSON object in one line, instead of lines and a plot
    #[arg(long, help_heading = "What for")]
    json: bool,
    /// Write a plot of the latency by percentile
    #[arg(long, value_name = "FILE", help_heading = "What for")]
    svg: Option<PathBuf>,
    /// Write a report with the numbers and the plots, as one page without anything outside it
    #[arg(long, value_name = "FILE", help_heading = "What for")]
    html: Option<PathBuf>,
}

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
    pub(crate) html: Option<PathBuf>,
}

impl Options {
    pub(crate) fn new(arguments: Arguments) -> Result<Self, Failure> {
        let mut all = arguments.message;
        for path in &arguments.messages {
            all.extend(messages(path)?);
        }
        let options = Self {
            target: arguments.target,
            allow_remote: arguments.allow_remote,
            plan: Plan {
                warmup: arguments.warmup,
                duration: arguments.duration,
                rate: arguments.rate,
            },
            peers: arguments.peers,
            in_flight: arguments.in_flight,
            timeout: arguments.timeout,
            messages: all,
            any_answer: arguments.any_answer,
            seed: arguments.seed,
            thresholds: Thresholds {
                max_p99: arguments.max_p99,
                max_loss: arguments.max_loss,
            },
            json: arguments.json,
            svg: arguments.svg,
            html: arguments.html,
        };
        options.check(arguments.expect.as_deref())
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

fn duration(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(1), DAY)
}

fn time_up_to_a_day(text: &str) -> Result<Duration, String> {
    time(text, Duration::ZERO, DAY)
}

fn timeout(text: &str) -> Result<Duration, String> {
    time(text, Duration::from_millis(1), Duration::from_secs(60))
}

fn count(text: &str) -> Result<usize, String> {
    number(text, 1, MOST)
}

fn rate(text: &str) -> Result<u32, String> {
    number(text, 1, 10_000_000)
}

fn seed(text: &str) -> Result<u64, String> {
    number(text, 0, u64::MAX)
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
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut lines = Lines::new(BufReader::new(file));
    let mut messages = Vec::new();
    let mut bytes = 0;
    while let Some(line) = lines.next_line().map_err(|error| fail(error.to_string()))? {
        let number = line.number;
        let text = line.text.map_err(|bad| fail(bad.describe(number)))?;
        bytes += text.len();
        if bytes > MOST_BYTES {
            return Err(fail(format!("more than {MOST_BYTES} bytes")));
        }
        let (asked, expected) = match text.split_once('\t') {
            Some((asked, expected)) => (asked, Some(expected)),
            None => (text.as_str(), None),
        };
        if text.is_empty() {
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
        return Err(fail("no message in it, must have one on each line".into()));
    }
    Ok(messages)
}

/// What the robot answers with a compliment to.
const DEFAULT_MESSAGE: &str = "你{n}吗？";
/// With so many for each of 16 peers, a closed loop takes a server all it can do.
const IN_FLIGHT: usize = 32;
/// In an open loop, of all peers together: more are only in flight if the target is in trouble.
const OPEN_LOOP: usize = 16_384;
/// Of peers, of requests in flight, and of both together.
const MOST: usize = 65_535;
/// Of a file of messages.
const MOST_BYTES: usize = 4 << 20;
const DAY: Duration = Duration::from_secs(86_400);
