mod civil_time;
mod parse;

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::str::{self, Utf8Error};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Datelike, Local};

pub use self::civil_time::CivilTime;
use self::civil_time::YEARS;
use self::parse::parse_header;
use super::{Codec, Writer};
use crate::timestamp::Timestamp;

/// The ctime protocol, 小Zurich's own.
///
/// A request is a datagram of UTF-8 text, not empty. A response is `[b'`, the server's local time
/// as C's `ctime` writes it (without the newline), `']`, and UTF-8 text up to the end of the
/// datagram:
///
/// ```text
/// [b'Sun Jul  7 17:17:58 2019']【机器人】小Zurich 好!
/// ```
///
/// A datagram with a valid response header [is a response](Codec::is_response), whatever follows.
/// Each thread makes the header once per second and zone, and keeps it.
///
/// ```
/// use rejoinder::codec::Ctime;
/// use rejoinder::Codec;
///
/// let frame = Ctime::local().decode_response("[b'Sun Jul  7 17:17:58 2019']好".as_bytes())?;
/// assert_eq!(
///     (frame.time.year(), frame.time.day(), frame.text),
///     (2019, 7, "好")
/// );
/// # Ok::<(), rejoinder::codec::CtimeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ctime {
    zone: Zone,
    answers_malformed: bool,
}

impl Ctime {
    /// Frames carry the machine's local time, as the protocol wants it.
    ///
    /// ```
    /// use rejoinder::codec::Ctime;
    /// use rejoinder::Server;
    ///
    /// let server = Server::bind("127.0.0.1:0", Ctime::local())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local() -> Self {
        Self::in_zone(Zone::Local)
    }

    /// Frames carry Coordinated Universal Time: the same on every machine, so the one for tests.
    ///
    /// ```
    /// use rejoinder::codec::Ctime;
    /// use rejoinder::{Codec, Timestamp, Writer};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let mut space = [0; 64];
    /// let mut out = Writer::new(&mut space);
    /// let epoch = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
    /// Ctime::utc().encode_response(epoch, b"", &"hello", &mut out)?;
    /// let len = out.finish()?;
    /// assert_eq!(&space[..len], b"[b'Thu Jan  1 00:00:00 1970']hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn utc() -> Self {
        Self::in_zone(Zone::Utc)
    }

    fn in_zone(zone: Zone) -> Self {
        Self {
            zone,
            answers_malformed: false,
        }
    }

    /// Whether a server answers what is no request, see
    /// [`Codec::encode_rejection`]. Default: no, which is right on the Internet.
    ///
    /// The answer is a frame without a text, of the first second of 1970: 29 bytes. A datagram with fewer
    /// bytes is not answered, because a rejection is never longer than the datagram. It is for servers
    /// behind a proxy that counts an unanswered request as a failure, such as nginx: the page
    /// [`guide::fleet`](crate::guide::fleet) has the settings that make it unnecessary.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Ctime;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Timestamp};
    ///
    /// let codec = Ctime::local().answer_malformed(true);
    /// let mut core = Server::builder(codec).core(|text: &str| Some(text.to_owned()));
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(&[0xff; 29], Meta::new("192.0.2.1:7777".parse()?));
    /// inbox.push(&[0xff; 28], Meta::new("192.0.2.1:7777".parse()?));
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// let sent: Vec<_> = outbox.iter().map(|one| one.bytes).collect();
    /// assert_eq!(sent, [b"[b'Thu Jan  1 00:00:00 1970']"]);
    /// assert_eq!(core.stats().dropped(DropReason::Malformed), 2);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn answer_malformed(mut self, answer: bool) -> Self {
        self.answers_malformed = answer;
        self
    }

    /// Writes the header for the second in which `wall` lies.
    #[inline]
    fn put_header(&self, wall: SystemTime, out: &mut Writer<'_>) -> Result<(), CtimeError> {
        LATEST.with_borrow_mut(|latest| {
            let latest = &mut latest[self.zone as usize];
            let header = match &*latest {
                Some(header) if header.second.contains(&wall) => header,
                _ => latest.insert(Header::new(wall, self.zone)?),
            };
            out.put(&header.bytes[..header.len]);
            Ok(())
        })
    }
}

impl Default for Ctime {
    fn default() -> Self {
        Self::local()
    }
}

impl Codec for Ctime {
    type Request<'a> = &'a str;
    type Response<'a> = CtimeFrame<'a>;
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = CtimeError;

    #[inline]
    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, CtimeError> {
        if datagram.is_empty() {
            return Err(CtimeError::EmptyRequest);
        }
        Ok(str::from_utf8(datagram)?)
    }

    fn encode_response(
        &self,
        now: Timestamp,
        _: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), CtimeError> {
        self.put_header(now.wall, out)?;
        Ok(write!(out, "{answer}")?)
    }

    /// An empty request, and one that a server would take for a response, are errors: neither
    /// would ever be answered.
    fn encode_request(
        &self,
        _: u64,
        request: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), CtimeError> {
        if request.is_empty() {
            return Err(CtimeError::EmptyRequest);
        }
        if self.is_response(request.as_bytes()) {
            return Err(CtimeError::RequestIsResponse);
        }
        out.put(request.as_bytes());
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<CtimeFrame<'a>, CtimeError> {
        let (time, text) = parse_header(datagram)?;
        let text = str::from_utf8(text)
            // The header is ASCII, so the first error is the same.
            .map_err(|error| str::from_utf8(datagram).err().unwrap_or(error))?;
        Ok(CtimeFrame { time, text })
    }

    /// A frame of no time in particular: what a rejection says must not depend on a clock.
    fn encode_rejection(&self, _: &[u8], _: &CtimeError, out: &mut Writer<'_>) {
        if self.answers_malformed {
            out.put(REJECTION);
        }
    }

    #[inline]
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.starts_with(OPENING.as_bytes()) && parse_header(datagram).is_ok()
    }
}

/// A response of the ctime protocol, taken apart.
///
/// It displays as exactly the bytes it was decoded from.
///
/// ```
/// use rejoinder::codec::Ctime;
/// use rejoinder::Codec;
///
/// let datagram = "[b'Sun Jul  7 17:17:58 2019']【机器人】小Zurich 好!";
/// let frame = Ctime::local().decode_response(datagram.as_bytes())?;
/// assert_eq!(frame.text, "【机器人】小Zurich 好!");
/// assert_eq!(frame.time.to_string(), "Sun Jul  7 17:17:58 2019");
/// assert_eq!(frame.to_string(), datagram);
/// # Ok::<(), rejoinder::codec::CtimeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CtimeFrame<'a> {
    /// When the server answered, by its own clock and in its own time zone.
    pub time: CivilTime,
    /// What it answered.
    pub text: &'a str,
}

impl fmt::Display for CtimeFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OPENING}{}{CLOSING}{}", self.time, self.text)
    }
}

/// Why bytes are no message of the ctime protocol, or a message could not be written.
///
/// ```
/// use rejoinder::codec::{Ctime, CtimeError};
/// use rejoinder::Codec;
///
/// let ctime = Ctime::utc();
/// assert_eq!(ctime.decode_request(b""), Err(CtimeError::EmptyRequest));
/// let error = ctime
///     .decode_response(b"[b'Sun Jul 32 17:17:58 2019']")
///     .unwrap_err();
/// assert!(
///     matches!(error, CtimeError::NotAResponse { offset: 11, .. }),
///     "{error}"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CtimeError {
    /// A request has at least one byte.
    #[error("the request is empty: it needs at least 1 byte")]
    EmptyRequest,
    /// A server drops a request that is also a valid response.
    #[error("the request begins like a response, so a server would drop it")]
    RequestIsResponse,
    /// The text is not UTF-8. The index counts from the start of the datagram.
    #[error("not UTF-8")]
    NotUtf8(#[from] Utf8Error),
    /// The datagram does not begin like a response.
    #[error("no response: expected {expected} at byte {offset}")]
    NotAResponse {
        /// Where it stops looking like one, in bytes from the start of the datagram.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A ctime text has no room for the year of the clock, or of the date.
    #[error("the year is not between 1 and 9999")]
    YearOutOfRange,
    /// The answer's own `Display` implementation failed.
    #[error("the answer's `Display` returned an error")]
    Display(#[from] fmt::Error),
}

#[derive(Clone, Copy, Debug)]
enum Zone {
    Local,
    Utc,
}

thread_local! {
    /// The latest header of each zone. In the codec itself, it would keep servers on tokio from being
    /// spawned: their futures share the codec.
    static LATEST: RefCell<[Option<Header>; 2]> = const { RefCell::new([None, None]) };
}

/// A response's header, ready to be copied into every datagram of its second.
#[derive(Clone, Debug)]
struct Header {
    second: Range<SystemTime>,
    bytes: [u8; HEADER_BYTES],
    len: usize,
}

impl Header {
    fn new(wall: SystemTime, zone: Zone) -> Result<Self, CtimeError> {
        let unix_second = unix_second(wall).ok_or(CtimeError::YearOutOfRange)?;
        let time = civil_time(unix_second, zone).ok_or(CtimeError::YearOutOfRange)?;
        let mut bytes = [0; HEADER_BYTES];
        let mut out = Writer::new(&mut bytes);
        write!(out, "{OPENING}{time}{CLOSING}")?;
        let len = out.finish().expect("no ctime text has over 24 characters");
        Ok(Self {
            second: second_from(unix_second).ok_or(CtimeError::YearOutOfRange)?,
            bytes,
            len,
        })
    }
}

/// Whole seconds since 1970, rounded down; negative before.
fn unix_second(wall: SystemTime) -> Option<i64> {
    match wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok(),
        Err(error) => {
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).ok()?;
            Some(-seconds - i64::from(before.subsec_nanos() > 0))
        }
    }
}

/// All times within one second, numbered as by [`unix_second`].
fn second_from(unix_second: i64) -> Option<Range<SystemTime>> {
    let distance = Duration::from_secs(unix_second.unsigned_abs());
    let start = match unix_second {
        0.. => SystemTime::UNIX_EPOCH.checked_add(distance)?,
        _ => SystemTime::UNIX_EPOCH.checked_sub(distance)?,
    };
    Some(start..start.checked_add(Duration::from_secs(1))?)
}

/// The one place where a moment becomes a date.
fn civil_time(second: i64, zone: Zone) -> Option<CivilTime> {
    let utc = DateTime::from_timestamp(second, 0)?;
    // Far outside the years that matter, adding a zone's offset could overflow.
    if !(YEARS.start() - 1..=YEARS.end() + 1).contains(&utc.year()) {
        return None;
    }
    CivilTime::in_range(match zone {
        Zone::Local => utc.with_timezone(&Local).naive_local(),
        Zone::Utc => utc.naive_utc(),
    })
}

const REJECTION: &[u8] = b"[b'Thu Jan  1 00:00:00 1970']";
const OPENING: &str = "[b'";
const CLOSING: &str = "']";
/// `Sun Jul  7 17:17:58 2019` between the brackets.
const HEADER_BYTES: usize = OPENING.len() + 24 + CLOSING.len();
