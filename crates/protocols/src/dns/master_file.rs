//! Master files as name servers take them, written as the parser takes them.
//!
//! BIND and others read times with units (`1h`, `2W3d`) and records without a class, in any order of TTL
//! and class (RFC 1035 §5.1 and RFC 2308 §4 have neither the units nor a `$TTL` with one). Here each
//! entry is split into its words, and written again in one line with the TTL in seconds and the class.

/// The same entries with the numbers of their first lines, with times in seconds and a class in each record. An
/// error names the line.
pub(super) fn entries(text: &str) -> Result<Vec<(usize, String)>, String> {
    let mut entries = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let entry = Entry::read(&mut rest).map_err(|problem| format!("line {line}: {problem}"))?;
        let mut written = String::new();
        entry.write(&mut written);
        if !written.is_empty() {
            written.push('\n');
            entries.push((line, written));
        }
        line += entry.line_ends;
    }
    Ok(entries)
}

/// What stands between two line ends outside parentheses.
struct Entry<'a> {
    /// Whether it begins with a space, and so belongs to the owner before.
    is_indented: bool,
    /// As they stand there, quotes included.
    words: Vec<&'a str>,
    line_ends: usize,
}

impl<'a> Entry<'a> {
    /// What is open at the end of the file is an error at the first line of its entry: it would swallow
    /// all that follows.
    fn read(rest: &mut &'a str) -> Result<Self, String> {
        let mut entry = Self {
            is_indented: rest.starts_with([' ', '\t']),
            words: Vec::new(),
            line_ends: 0,
        };
        let text = *rest;
        let mut depth = 0_usize;
        let mut word = None;
        let mut chars = text.char_indices();
        let mut is_quoted = false;
        while let Some((at, c)) = chars.next() {
            if is_quoted {
                match c {
                    '\\' => drop(chars.next()),
                    '"' => is_quoted = false,
                    // RFC 1035 §5.1 allows it, but nothing writes it: a quote was forgotten.
                    '\n' => return Err("a quote is not closed".to_owned()),
                    _ => {}
                }
                continue;
            }
            let ends_a_word = c.is_ascii_whitespace() || ['(', ')', ';'].contains(&c);
            if ends_a_word && let Some(begin) = word.take() {
                entry.words.push(&text[begin..at]);
            }
            match c {
                '\n' => {
                    entry.line_ends += 1;
                    if depth == 0 {
                        *rest = &text[at + 1..];
                        return entry.checked();
                    }
                }
                '(' => depth += 1,
                ')' => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or("a parenthesis is closed that is not open")?;
                }
                ';' => {
                    // A comment, up to the line's end.
                    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
                    while chars.offset() < end {
                        chars.next();
                    }
                }
                c if c.is_ascii_whitespace() => {}
                c => {
                    word.get_or_insert(at);
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => is_quoted = true,
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
        entry.words.extend(word.map(|begin| &text[begin..]));
        *rest = "";
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

    fn write(&self, out: &mut String) {
        let mut words = self.words.iter().copied();
        let mut put = |word: &str| {
            if !out.is_empty() && !out.ends_with(['\n', ' ']) {
                out.push(' ');
            }
            out.push_str(word);
        };
        if self.words.is_empty() {
            return;
        }
        if self.words[0].starts_with('$') {
            let is_ttl = self.words[0].eq_ignore_ascii_case("$TTL");
            for word in words {
                put(&seconds(word)
                    .filter(|_| is_ttl)
                    .unwrap_or_else(|| word.to_owned()));
            }
            return;
        }
        if self.is_indented {
            put(" ");
        } else {
            put(words.next().unwrap_or_default());
        }
        let (mut ttl, mut class) = (None, "IN");
        let mut rtype = None;
        for word in words.by_ref() {
            if let Some(time) = seconds(word) {
                ttl = Some(time);
            } else if is_class(word) {
                class = word;
            } else {
                rtype = Some(word);
                break;
            }
        }
        if let Some(ttl) = ttl {
            put(&ttl);
        }
        put(class);
        let rtype = rtype.unwrap_or_default();
        put(rtype);
        let is_soa = rtype.eq_ignore_ascii_case("SOA");
        for (index, word) in words.enumerate() {
            // Refresh, retry, expire and minimum follow two names and the serial number.
            put(&seconds(word)
                .filter(|_| is_soa && index >= 3)
                .unwrap_or_else(|| word.to_owned()));
        }
    }
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
        assert_eq!(entries(text), Ok(expected.to_vec()));
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
            assert_eq!(entries(text).unwrap_err(), problem);
        }
        // A parenthesis in a comment or a quote is none.
        assert!(entries("a TXT \"(\" ; (\n").is_ok());
    }
}
