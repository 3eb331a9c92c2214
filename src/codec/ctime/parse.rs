use chrono::Datelike;

use super::civil_time::{CivilTime, MONTHS, WEEKDAYS};
use super::{CLOSING, CtimeError, OPENING};

/// Splits a response into its time and the bytes after the header.
pub(super) fn parse_header(datagram: &[u8]) -> Result<(CivilTime, &[u8]), CtimeError> {
    let mut rest = Parser {
        datagram,
        offset: 0,
    };
    rest.literal(OPENING, "`[b'`")?;
    let weekday_at = rest.offset;
    let weekday = rest.name(&WEEKDAYS, "the English name of a weekday, in three letters")?;
    rest.literal(" ", "a space")?;
    let month = rest.name(&MONTHS, "the English name of a month, in three letters")?;
    rest.literal(" ", "a space")?;
    let day_at = rest.offset;
    if rest.datagram.get(day_at) == Some(&b' ') {
        rest.offset += 1;
    }
    let padded = rest.offset > day_at;
    let day = rest.number(if padded { 1 } else { 2 }, PADDED_DAY)?;
    if !padded && day < 10 {
        return Err(Parser::error(day_at, PADDED_DAY));
    }
    rest.literal(" ", "a space")?;
    let hour = rest.below(24, "an hour from 00 to 23")?;
    rest.literal(":", "a colon")?;
    let minute = rest.below(60, "a minute from 00 to 59")?;
    rest.literal(":", "a colon")?;
    let second = rest.below(60, "a second from 00 to 59")?;
    rest.literal(" ", "a space")?;
    let year = rest.year()?;
    rest.literal(CLOSING, "`']`")?;

    let time = u8::try_from(month + 1)
        .ok()
        .and_then(|month| CivilTime::new(year, month, day, hour, minute, second))
        .ok_or(Parser::error(day_at, "a day that the month has"))?;
    if time.0.weekday().num_days_from_sunday() as usize != weekday {
        return Err(Parser::error(weekday_at, "the weekday of that date"));
    }
    Ok((time, &datagram[rest.offset..]))
}

struct Parser<'a> {
    datagram: &'a [u8],
    offset: usize,
}

impl Parser<'_> {
    fn error(offset: usize, expected: &'static str) -> CtimeError {
        CtimeError::NotAResponse { offset, expected }
    }

    fn literal(&mut self, literal: &str, expected: &'static str) -> Result<(), CtimeError> {
        if !self.datagram[self.offset..].starts_with(literal.as_bytes()) {
            return Err(Self::error(self.offset, expected));
        }
        self.offset += literal.len();
        Ok(())
    }

    fn name(&mut self, names: &[&str], expected: &'static str) -> Result<usize, CtimeError> {
        let rest = &self.datagram[self.offset..];
        let index = names
            .iter()
            .position(|name| rest.starts_with(name.as_bytes()))
            .ok_or(Self::error(self.offset, expected))?;
        self.offset += names[index].len();
        Ok(index)
    }

    /// Exactly `digits` digits, at most two.
    fn number(&mut self, digits: usize, expected: &'static str) -> Result<u8, CtimeError> {
        let number = self
            .datagram
            .get(self.offset..self.offset + digits)
            .filter(|number| number.iter().all(u8::is_ascii_digit))
            .ok_or(Self::error(self.offset, expected))?;
        self.offset += digits;
        Ok(number
            .iter()
            .fold(0, |sum, digit| sum * 10 + (digit - b'0')))
    }

    fn below(&mut self, limit: u8, expected: &'static str) -> Result<u8, CtimeError> {
        let at = self.offset;
        let number = self.number(2, expected)?;
        if number < limit {
            Ok(number)
        } else {
            Err(Self::error(at, expected))
        }
    }

    fn year(&mut self) -> Result<u16, CtimeError> {
        let rest = &self.datagram[self.offset..];
        let digits = rest
            .iter()
            .take(5)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=4).contains(&digits) || rest[0] == b'0' {
            return Err(Self::error(
                self.offset,
                "a year from 1 to 9999, not padded",
            ));
        }
        self.offset += digits;
        Ok(rest[..digits]
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
    }
}

const PADDED_DAY: &str = "a day of the month, padded to two characters with a space";
