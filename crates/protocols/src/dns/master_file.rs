//! Master files as name servers take them, written as the parser takes them.
//!
//! BIND and others read times with units (`1h`, `2W3d`) and records without a class, in any order of TTL
//! and class (RFC 1035 §5.1 and RFC 2308 §4 have neither the units nor a `$TTL` with one). Here each
//! entry is split into its words, and written again in one line with the TTL in seconds and the class.

use std::fmt::Write as _;
use std::str::FromStr;

use domain::base::iana::Rtype;

use super::text_forms;

/// What the parser reads of one entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where the entry begins in the file.
    pub(super) number: usize,
    /// The entry in one line of printable ASCII, with times in seconds and a class in each record.
    pub(super) text: String,
    /// The type of the record, if another with the same text form stands in `text`.
    pub(super) rtype: Option<Rtype>,
}

/// The entries of a file, but for empty ones. An error names the line.
pub(super) fn entries(file: &[u8]) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    let mut rest = file;
    let mut number = 1;
    while !rest.is_empty() {
        let problem = |problem| format!("line {number}: {problem}");
        let entry = Entry::read(&mut rest).map_err(problem)?;
        let (mut text, rtype) = entry.written().map_err(problem)?;
        if !text.is_empty() {
            text.push('\n');
            lines.push(Line {
                number,
                text,
                rtype,
            });
        }
        number += entry.line_ends;
    }
    Ok(lines)
}

/// What stands between two line ends outside parentheses.
struct Entry {
    /// Whether it begins with a space, and so belongs to the owner before.
    is_indented: bool,
    /// As they stand there, quotes included, in printable ASCII.
    words: Vec<String>,
    line_ends: usize,
}

impl Entry {
    /// What is open at the end of the file is an error at the first line of its entry: it would swallow
    /// all that follows.
    fn read(rest: &mut &[u8]) -> Result<Self, String> {
        let file = *rest;
        let mut entry = Self {
            is_indented: file.starts_with(b" ") || file.starts_with(b"\t"),
            words: Vec::new(),
            line_ends: 0,
        };
        let mut depth = 0_usize;
        let mut word = None;
        let mut is_quoted = false;
        let mut at = 0;
        while let Some(&byte) = file.get(at) {
            let begin = at;
            at += 1;
            if is_quoted {
                match byte {
                    b'\\' if file.get(at) != Some(&b'\n') => at += 1,
                    b'"' => is_quoted = false,
                    // RFC 1035 §5.1 allows it, but nothing writes it: a quote was forgotten.
                    b'\n' => return Err("a quote is not closed".to_owned()),
                    _ => {}
                }
                continue;
            }
            let ends_a_word = byte.is_ascii_whitespace() || b"();".contains(&byte);
            if ends_a_word && let Some(first) = word.take() {
                entry.words.push(in_ascii(&file[first..begin]));
            }
            match byte {
                b'\n' => {
                    entry.line_ends += 1;
                    if depth == 0 {
                        *rest = &file[at..];
                        return entry.checked();
                    }
                }
                b'(' => depth += 1,
                b')' => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or("a parenthesis is closed that is not open")?;
                }
                b';' => {
                    // A comment, up to the line's end.
                    let rest = file[at..].iter();
                    at += rest.take_while(|byte| **byte != b'\n').count();
                }
                _ if ends_a_word => {}
                _ => {
                    word.get_or_insert(begin);
                    match byte {
                        b'\\' if file.get(at) != Some(&b'\n') => at += 1,
                        b'"' => is_quoted = true,
                        _ => {}
                    }
                }
            }
        }
        if is_quoted {
            return Err("a quote is not closed".to_owned());
        }
        if depth > 0 {
            return Err("a parenthesis is not closed".to_owned());
        }
        entry
            .words
            .extend(word.map(|first| in_ascii(&file[first..])));
        *rest = &[];
        entry.checked()
    }

    /// Directives that would read or make more entries are refused.
    fn checked(self) -> Result<Self, String> {
        match self.words.first() {
            Some(word)
                if ["$INCLUDE", "$GENERATE"]
                    .iter()
                    .any(|one| one.eq_ignore_ascii_case(word)) =>
            {
                Err(format!(
                    "{word} is not supported: put the records into this file"
                ))
            }
            _ => Ok(self),
        }
    }

    /// The text for the parser, and the record's type if the text has another.
    fn written(&self) -> Result<(String, Option<Rtype>), String> {
        let Some(first) = self.words.first() else {
            return Ok((String::new(), None));
        };
        if first.starts_with('$') {
            let is_ttl = first.eq_ignore_ascii_case("$TTL");
            let words = self
                .words
                .iter()
                .map(|word| seconds(word).filter(|_| is_ttl));
            let words = words.zip(&self.words);
            let words = words.map(|(time, word)| time.unwrap_or_else(|| word.clone()));
            return Ok((words.collect::<Vec<_>>().join(" "), None));
        }
        let (owner, mut words) = if self.is_indented {
            ("", self.words.as_slice())
        } else {
            (first.as_str(), &self.words[1..])
        };
        let (mut ttl, mut class) = (String::new(), "IN");
        while let Some((word, rest)) = words.split_first() {
            if let Some(time) = seconds(word) {
                ttl = time + " ";
            } else if is_class(word) {
                class = word;
            } else {
                break;
            }
            words = rest;
        }
        let (rtype, words) = words.split_first().ok_or("a record without a type")?;
        let head = format!("{owner} {ttl}{class}");
        if words.first().is_some_and(|word| word == r"\#") {
            return Ok((format!("{head} {rtype} {}", words.join(" ")), None));
        }
        match Rtype::from_str(rtype) {
            Ok(Rtype::SOA) => {
                let words = words.iter().enumerate().map(|(index, word)| {
                    // Refresh, retry, expire and minimum follow two names and the serial number.
                    seconds(word)
                        .filter(|_| index >= 3)
                        .unwrap_or_else(|| word.clone())
                });
                let words: Vec<String> = words.collect();
                Ok((format!("{head} SOA {}", words.join(" ")), None))
            }
            Ok(known) => {
                if let Some(data) = text_forms::data(known, words) {
                    let data = data?;
                    let mut text = format!("{head} {rtype} \\# {} ", data.len());
                    for byte in data {
                        let _ = write!(text, "{byte:02x}");
                    }
                    return Ok((text, None));
                }
                let like = text_forms::like(known);
                let written = like.map_or_else(|| rtype.clone(), |like| like.to_string());
                let text = format!("{head} {written} {}", words.join(" "));
                Ok((text, like.map(|_| known)))
            }
            Err(_) => Ok((format!("{head} {rtype} {}", words.join(" ")), None)),
        }
    }
}

/// The same word with escapes for all bytes that are not printable ASCII (RFC 1035 §5.1). A master file has
/// bytes, whatever their encoding is.
fn in_ascii(word: &[u8]) -> String {
    let mut text = String::with_capacity(word.len());
    let mut bytes = word.iter();
    while let Some(&byte) = bytes.next() {
        let (byte, is_escaped) = match (byte, bytes.as_slice()) {
            (b'\\', [next, rest @ ..]) => {
                bytes = rest.iter();
                (*next, true)
            }
            _ => (byte, false),
        };
        match byte {
            b' '..=b'~' => {
                text.extend(is_escaped.then_some('\\'));
                text.push(byte.into());
            }
            _ => {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    text
}

/// `IN`, and `CLASS1` as RFC 3597 §5 writes it.
fn is_class(word: &str) -> bool {
    let is = |one: &str| one.eq_ignore_ascii_case(word);
    let number = word
        .get(..5)
        .filter(|name| name.eq_ignore_ascii_case("CLASS"));
    ["IN", "CH", "HS", "CS"].into_iter().any(is)
        || number.is_some_and(|_| word[5..].bytes().all(|byte| byte.is_ascii_digit()))
}

/// The seconds of `3600`, `1h` or `1w2d3h4m5s`.
fn seconds(word: &str) -> Option<String> {
    let mut total = 0_u32;
    let mut number = None::<u32>;
    for c in word.chars() {
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            c => {
                let digit = c.to_digit(10)?;
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let last = match (number, word) {
        (Some(number), _) => number,
        (None, "") => return None,
        (None, _) => 0,
    };
    total.checked_add(last).map(|total| total.to_string())
}

#[cfg(test)]
mod tests {
    use super::{entries, seconds};

    /// Numbers and texts of a file's entries.
    fn read(file: &[u8]) -> Vec<(usize, String)> {
        let lines = entries(file).expect("it is a master file");
        lines
            .into_iter()
            .map(|line| (line.number, line.text))
            .collect()
    }

    #[test]
    fn times_have_units() {
        for (word, expected) in [
            ("0", Some("0")),
            ("3600", Some("3600")),
            ("1h", Some("3600")),
            ("1H30M", Some("5400")),
            ("1w1d", Some("691200")),
            ("1h5", Some("3605")),
            ("", None),
            ("h", None),
            ("1x", None),
            ("A", None),
            ("99999999999", None),
            ("9999999w", None),
        ] {
            assert_eq!(seconds(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn records_are_written_in_one_form() {
        let text = "$ORIGIN example.org. ; a comment\n\
            $TTL 1h\n\
            @ SOA ns root ( 1 ; serial\n 3H 1H\n 1W 1H )\n\
            \tNS ns\n\
            www 1d A 192.0.2.1\r\n\
            www IN 5m AAAA ::1\n\n\
            txt TXT \"a ; (b\" c\\;d";
        let expected = [
            (1, "$ORIGIN example.org.\n"),
            (2, "$TTL 3600\n"),
            (3, "@ IN SOA ns root 1 10800 3600 604800 3600\n"),
            (6, " IN NS ns\n"),
            (7, "www 86400 IN A 192.0.2.1\n"),
            (8, "www 300 IN AAAA ::1\n"),
            (10, "txt IN TXT \"a ; (b\" c\\;d\n"),
        ];
        let expected = expected.map(|(line, entry)| (line, entry.to_owned()));
        assert_eq!(read(text.as_bytes()), expected);
    }

    #[test]
    fn what_is_open_at_the_end_is_named_with_its_line() {
        for (text, problem) in [
            (
                "a A 1.2.3.4\n@ SOA (ns root\n1 2 3",
                "line 2: a parenthesis is not closed",
            ),
            (
                "a A 1.2.3.4 )\n",
                "line 1: a parenthesis is closed that is not open",
            ),
            (
                "\n\na TXT \"b\nc TXT \"d\"\n",
                "line 3: a quote is not closed",
            ),
            ("a TXT \"b\\\"", "line 1: a quote is not closed"),
            (
                "\n$include other.zone\n",
                "line 2: $include is not supported: put the records into this file",
            ),
            (
                "$GENERATE 1-9 host$ A 192.0.2.$",
                "line 1: $GENERATE is not supported: put the records into this file",
            ),
        ] {
            assert_eq!(entries(text.as_bytes()).unwrap_err(), problem);
        }
        // A parenthesis in a comment or a quote is none.
        assert!(entries(b"a TXT \"(\" ; (\n").is_ok());
    }
}
