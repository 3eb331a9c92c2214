//! How answers are shown.
//!
//! With `--json`, each message makes one line with one object. Its members:
//!
//! | member | type | what it is |
//! | --- | --- | --- |
//! | `message` | string | what was asked; what was not UTF-8 in it is U+FFFD here |
//! | `server` | string | who was asked, `127.0.0.1:8888` or `[::1]:8888` |
//! | `text` | string | the answer, without the frame's header |
//! | `time` | string | when the server answered, by its clock and in its time zone: `2019-07-07T17:17:58` |
//! | `clock_ahead_s` | integer | how many seconds its clock is ahead of the one here, the difference of the time zones included; negative if it is behind |
//! | `round_trip_us` | integer | microseconds from the question to the answer, with all that was sent again |
//! | `error` | object | why there is no answer; then the last four are not there |
//!
//! An `error` has a `kind`, a word for programs that stays the same, and a `message` for people. The
//! kinds are `timed_out`, `malformed_answer`, `nobody_listening`, `unreachable`, `cannot_connect`,
//! `not_sent`, `message_not_utf8`, `message_not_allowed`, `message_too_long`, `too_many_unanswered`
//! and `other`. Two concern no single message, and have neither `message` nor `server` beside them:
//! `no_address` (of the server's name) and `io` (standard input cannot be read, for example).

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{Local, NaiveDate, NaiveDateTime, TimeDelta};
use rejoinder::codec::{CivilTime, CtimeFrame};
use rejoinder::escape::Escaped;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::program::{complain, print};

/// What is shown of an answer, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) shape: Shape,
    pub(crate) round_trip: bool,
}

/// What is shown of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of it, as it came.
    #[default]
    Frame,
    Text,
    TimeAndText,
}

/// An answer, and when it came.
pub(crate) struct Answer {
    server: SocketAddr,
    frame: String,
    text: String,
    time: NaiveDateTime,
    ahead_s: i64,
    round_trip: Duration,
}

/// Why there is no answer.
pub(crate) struct Problem {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Answer {
    /// An answer that has just arrived.
    pub(crate) fn new(server: SocketAddr, frame: &CtimeFrame<'_>, round_trip: Duration) -> Self {
        let time = date_and_time(frame.time);
        Self {
            server,
            frame: frame.to_string(),
            text: frame.text.to_owned(),
            time,
            ahead_s: ahead(time, Local::now().naive_local(), round_trip),
            round_trip,
        }
    }
}

impl Answer {
    /// The address that sent it.
    #[cfg(test)]
    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }
}

impl Output {
    /// A line about a message that was answered.
    pub(crate) fn answer(self, message: &[u8], answer: &Answer) -> io::Result<()> {
        let time = answer.time.format(ISO_8601);
        if self.json {
            return write_json(&Line {
                message: Some(String::from_utf8_lossy(message)),
                server: Some(answer.server),
                text: Some(&answer.text),
                time: Some(time.to_string()),
                clock_ahead_s: Some(answer.ahead_s),
                round_trip_us: Some(answer.round_trip.as_micros()),
                error: None,
            });
        }
        let mut line = Vec::new();
        if self.shape == Shape::TimeAndText {
            write!(line, "{time} ({})  ", signed(answer.ahead_s))?;
        }
        if self.round_trip {
            write!(line, "{:.3} ms  ", answer.round_trip.as_secs_f64() * 1e3)?;
        }
        let shown = match self.shape {
            Shape::Frame => &answer.frame,
            Shape::Text | Shape::TimeAndText => &answer.text,
        };
        writeln!(line, "{}", Escaped(shown))?;
        print(&line)
    }

    /// A line about what went wrong: with a message, if with one only.
    pub(crate) fn problem(
        self,
        message: Option<&[u8]>,
        server: Option<SocketAddr>,
        problem: &Problem,
    ) -> io::Result<()> {
        if !self.json {
            complain(&problem.message);
            return Ok(());
        }
        let error = ErrorObject {
            kind: problem.kind,
            message: &problem.message,
        };
        write_json(&Line {
            message: message.map(String::from_utf8_lossy),
            server,
            error: Some(error),
            ..Line::default()
        })
    }
}

#[derive(Default, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_ahead_s: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_us: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    kind: &'a str,
    message: &'a str,
}

fn write_json(line: &Line<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    line.serialize(&mut Serializer::with_formatter(&mut bytes, Harmless))?;
    bytes.push(b'\n');
    print(&bytes)
}

/// JSON that can be shown on a terminal. JSON itself wants the first 32 characters escaped; other
/// control characters, and the changes of direction, may be.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut shown = 0;
        for (at, harmful) in fragment.char_indices().filter(|&(_, c)| acts_on_display(c)) {
            out.write_all(&fragment.as_bytes()[shown..at])?;
            for unit in harmful.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            shown = at + harmful.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[shown..])
    }
}

/// Whether a character is one of those that [`Escaped`] escapes.
pub(crate) fn acts_on_display(c: char) -> bool {
    let mut bytes = [0; 4];
    let text = &*c.encode_utf8(&mut bytes);
    !c.is_ascii_graphic() && Escaped(text).to_string() != text
}

fn date_and_time(time: CivilTime) -> NaiveDateTime {
    let date = NaiveDate::from_ymd_opt(time.year().into(), time.month().into(), time.day().into());
    date.and_then(|date| {
        date.and_hms_opt(
            time.hour().into(),
            time.minute().into(),
            time.second().into(),
        )
    })
    .expect("a civil time has a date and a time of day")
}

/// How many seconds the server's clock is ahead of ours. It showed the second `theirs` somewhere in
/// the round trip that is over `now`: in the middle, most likely.
fn ahead(theirs: NaiveDateTime, now: NaiveDateTime, round_trip: Duration) -> i64 {
    let half = TimeDelta::from_std(round_trip / 2).unwrap_or_default();
    theirs.and_utc().timestamp() - (now - half).and_utc().timestamp()
}

/// `+8:00:00`.
fn signed(seconds: i64) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    let (minutes, second) = (seconds / 60, seconds % 60);
    format!("{sign}{}:{:02}:{second:02}", minutes / 60, minutes % 60)
}

const ISO_8601: &str = "%Y-%m-%dT%H:%M:%S";
