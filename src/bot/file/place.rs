//! Where in a file something is.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

/// The number of the rule that a place in the file is in.
///
/// An error of serde has a place but no index of the array element. A table ends at the next
/// header, and a parser that recovers from errors finds the headers.
pub(super) fn rule_at(file: &str, offset: usize) -> Option<usize> {
    let (table, _) = DeTable::parse_recoverable(file);
    let starts = table.get_ref().iter().flat_map(|(key, value)| {
        let rules = value.get_ref().as_array();
        let rules = rules.filter(|_| key.get_ref() == "rule");
        let other = rules.is_none().then(|| (key.span().start, None));
        let starts = rules.into_iter().flatten().map(|rule| rule.span().start);
        starts.zip((1..).map(Some)).chain(other)
    });
    let last = starts.filter(|(start, _)| *start <= offset);
    last.max_by_key(|(start, _)| *start)?.1
}

/// Where in the file a string's byte with this number is.
pub(super) fn place_in_string(file: &str, string: &Spanned<String>, byte: usize) -> usize {
    let Range { start, end } = string.span();
    let source = &file[start..end];
    let quotes = match source.as_bytes() {
        [b'"', b'"', b'"', ..] | [b'\'', b'\'', b'\'', ..] => 3,
        _ => 1,
    };
    let escapes = source.starts_with('"');
    let mut at = quotes;
    if quotes == 3 && source[at..].starts_with('\n') {
        at += 1;
    }
    let mut left = byte;
    while let Some((source_len, len)) = next_in_string(&source[at..], escapes)
        && (len == 0 || len <= left)
    {
        at += source_len;
        left -= len;
    }
    start + at
}

/// How many bytes the next character or escape has in the file, and in the string.
fn next_in_string(source: &str, escapes: bool) -> Option<(usize, usize)> {
    let first = source.chars().next()?;
    if first != '\\' || !escapes {
        return Some((first.len_utf8(), first.len_utf8()));
    }
    let hex = |digits: usize| {
        let value = source.get(2..2 + digits)?;
        let c = char::from_u32(u32::from_str_radix(value, 16).ok()?)?;
        Some((2 + digits, c.len_utf8()))
    };
    match source[1..].chars().next()? {
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        // The line's end and the indentation of the next are no part of the string.
        ' ' | '\t' | '\n' => {
            let rest = source[1..].trim_start_matches([' ', '\t', '\n']);
            Some((source.len() - rest.len(), 0))
        }
        _ => Some((2, 1)),
    }
}
