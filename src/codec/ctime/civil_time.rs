use std::fmt;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::CtimeError;

/// A date and a time of day, to the second, in an unknown time zone: the content of a ctime text.
/// The year lies between 1 and 9999 in the Gregorian calendar.
///
/// It displays as C's `ctime` writes it, without the newline: English names whatever the locale,
/// the day of the month padded with a space to two characters, the year not padded.
///
/// ```
/// use rejoinder::codec::CivilTime;
///
/// let time = CivilTime::new(2019, 7, 7, 17, 17, 58).expect("a real date");
/// assert_eq!(time.to_string(), "Sun Jul  7 17:17:58 2019");
/// assert_eq!((time.year(), time.month(), time.day()), (2019, 7, 7));
/// assert_eq!((time.hour(), time.minute(), time.second()), (17, 17, 58));
/// assert_eq!(CivilTime::new(2019, 2, 30, 0, 0, 0), None);
/// ```
///
/// It converts to and from `chrono`'s value for the same thing:
///
/// ```
/// use chrono::{NaiveDateTime, TimeDelta};
/// use rejoinder::codec::{CivilTime, Ctime};
/// use rejoinder::Codec;
///
/// let frame = Ctime::utc().decode_response(b"[b'Sun Jul  7 17:17:58 2019']hi")?;
/// let later = NaiveDateTime::from(frame.time) + TimeDelta::seconds(2);
/// assert_eq!(CivilTime::try_from(later)?.to_string(), "Sun Jul  7 17:18:00 2019");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CivilTime(pub(super) NaiveDateTime);

impl CivilTime {
    /// `None` if there is no such date or time of day, or the year is not in 1 to 9999.
    pub fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let date = NaiveDate::from_ymd_opt(year.into(), month.into(), day.into())?;
        let time = NaiveTime::from_hms_opt(hour.into(), minute.into(), second.into())?;
        Self::in_range(date.and_time(time))
    }

    pub(super) fn in_range(time: NaiveDateTime) -> Option<Self> {
        YEARS.contains(&time.year()).then_some(Self(time))
    }

    /// 1 to 9999.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "1 to 9999"
    )]
    pub fn year(self) -> u16 {
        self.0.year() as u16
    }

    /// 1 (January) to 12.
    #[expect(clippy::cast_possible_truncation, reason = "1 to 12")]
    pub fn month(self) -> u8 {
        self.0.month() as u8
    }

    /// Day of the month, 1 to 31.
    #[expect(clippy::cast_possible_truncation, reason = "1 to 31")]
    pub fn day(self) -> u8 {
        self.0.day() as u8
    }

    /// 0 to 23.
    #[expect(clippy::cast_possible_truncation, reason = "0 to 23")]
    pub fn hour(self) -> u8 {
        self.0.hour() as u8
    }

    /// 0 to 59.
    #[expect(clippy::cast_possible_truncation, reason = "0 to 59")]
    pub fn minute(self) -> u8 {
        self.0.minute() as u8
    }

    /// 0 to 59: like POSIX time, it knows no leap seconds.
    #[expect(clippy::cast_possible_truncation, reason = "0 to 59")]
    pub fn second(self) -> u8 {
        self.0.second() as u8
    }
}

impl fmt::Display for CivilTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // C11 7.27.3.1, asctime: "%.3s %.3s%3d %.2d:%.2d:%.2d %d".
        write!(
            f,
            "{} {}{:3} {:02}:{:02}:{:02} {}",
            WEEKDAYS[self.0.weekday().num_days_from_sunday() as usize],
            MONTHS[self.0.month0() as usize],
            self.day(),
            self.hour(),
            self.minute(),
            self.second(),
            self.year(),
        )
    }
}

/// The same date and time of day as a `chrono` value, for arithmetic and formatting.
impl From<CivilTime> for NaiveDateTime {
    fn from(time: CivilTime) -> Self {
        time.0
    }
}

/// Fails with [`CtimeError::YearOutOfRange`] if the year is not in 1 to 9999. A fraction of a second is cut off, and so is a leap second's
/// (`chrono` counts it as a fraction of 1 or more), because a ctime text has whole seconds only.
impl TryFrom<NaiveDateTime> for CivilTime {
    type Error = CtimeError;

    fn try_from(time: NaiveDateTime) -> Result<Self, CtimeError> {
        let whole = time.with_nanosecond(0).and_then(Self::in_range);
        whole.ok_or(CtimeError::YearOutOfRange)
    }
}

pub(super) const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;
pub(super) const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
pub(super) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
