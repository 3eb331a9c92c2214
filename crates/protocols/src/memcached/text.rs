//! The lines of the text protocol, in the one form in which memcached writes them.

use std::fmt::Write as _;

use rejoinder::Writer;

use super::codec::{MemcachedError, Request, Response};

pub(super) fn request(text: &[u8]) -> Result<Request<'_>, MemcachedError> {
    let (line, rest) = split_line(text).ok_or(MemcachedError::Command)?;
    let mut words = line.split(|byte| *byte == b' ');
    let request = match words.next() {
        Some(b"get") => {
            let key = words.next().ok_or(MemcachedError::Command)?;
            rest.is_empty().then_some(Request::Get { key })
        }
        Some(b"set") => {
            let key = words.next().ok_or(MemcachedError::Command)?;
            let mut number = || words.next().and_then(number);
            match (number(), number(), number()) {
                (Some(flags), Some(expires), Some(bytes)) => {
                    data(rest, bytes, b"\r\n").map(|data| Request::Set {
                        key,
                        flags,
                        expires,
                        data,
                    })
                }
                _ => None,
            }
        }
        _ => None,
    };
    match request {
        Some(request) if words.next().is_none() => {
            check_key(key(request))?;
            Ok(request)
        }
        _ => Err(MemcachedError::Command),
    }
}

pub(super) fn write(request: Request<'_>, out: &mut Writer<'_>) -> Result<(), MemcachedError> {
    check_key(key(request))?;
    match request {
        Request::Get { key } => {
            out.put(b"get ");
            out.put(key);
        }
        Request::Set {
            key,
            flags,
            expires,
            data,
        } => {
            out.put(b"set ");
            out.put(key);
            let _ = write!(out, " {flags} {expires} {}\r\n", data.len());
            out.put(data);
        }
    }
    out.put(b"\r\n");
    Ok(())
}

pub(super) fn response(text: &[u8]) -> Result<Response<'_>, MemcachedError> {
    if is_error(text) {
        return Err(MemcachedError::Server(text.trim_ascii_end().to_vec()));
    }
    match text {
        b"END\r\n" => Ok(Response::NotFound),
        b"STORED\r\n" => Ok(Response::Stored),
        _ => value(text).ok_or(MemcachedError::Response),
    }
}

/// Whether the server says that it could not do it.
pub(super) fn is_error(text: &[u8]) -> bool {
    let starts: [&[u8]; 3] = [b"ERROR\r\n", b"CLIENT_ERROR ", b"SERVER_ERROR "];
    starts.iter().any(|start| text.starts_with(start))
}

/// `VALUE KEY FLAGS BYTES`, the value, `END`.
fn value(text: &[u8]) -> Option<Response<'_>> {
    let (line, rest) = split_line(text)?;
    let mut words = line.split(|byte| *byte == b' ');
    if words.next()? != b"VALUE" {
        return None;
    }
    let key = words.next()?;
    check_key(key).ok()?;
    let flags = number(words.next()?)?;
    let bytes = number(words.next()?)?;
    if words.next().is_some() {
        return None;
    }
    let data = data(rest, bytes, b"\r\nEND\r\n")?;
    Some(Response::Value { key, flags, data })
}

/// What stands before `end`, if that is so long.
fn data<'a>(text: &'a [u8], bytes: u32, end: &[u8]) -> Option<&'a [u8]> {
    let data = text.strip_suffix(end)?;
    (u32::try_from(data.len()) == Ok(bytes)).then_some(data)
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    // Far more than a line with the longest key has.
    let head = &text[..text.len().min(512)];
    let end = head.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&text[..end], &text[end + 2..]))
}

/// Decimal digits as they are written: no sign, no zero in front.
fn number(word: &[u8]) -> Option<u32> {
    let is_written_so =
        word.iter().all(u8::is_ascii_digit) && (word == b"0" || !word.starts_with(b"0"));
    str::from_utf8(word)
        .ok()
        .filter(|_| is_written_so)?
        .parse()
        .ok()
}

fn key(request: Request<'_>) -> &[u8] {
    match request {
        Request::Get { key } | Request::Set { key, .. } => key,
    }
}

fn check_key(key: &[u8]) -> Result<(), MemcachedError> {
    let is_word = key.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    if is_word && (1..=250).contains(&key.len()) {
        Ok(())
    } else {
        Err(MemcachedError::Key { bytes: key.len() })
    }
}
