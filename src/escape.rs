//! Making text from the network safe to show.

use std::fmt::{self, Write as _};

/// Shows text that came from the network without letting it act on the terminal or the log.
///
/// Control characters (C0, DEL and C1, so newlines and ANSI sequences too) and the invisible
/// characters that change the direction of the text around them (Unicode's `Bidi_Control`, UAX #9)
/// are written as Rust escapes, `\n` or `\u{1b}`; so are U+2028 and U+2029, which some viewers
/// take for line ends. Everything else is shown as it is, backslashes included.
///
/// ```
/// use rejoinder::escape::Escaped;
///
/// assert_eq!(Escaped("好\u{1b}[31m\n").to_string(), r"好\u{1b}[31m\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0;
        for (at, unsafe_char) in self.0.char_indices().filter(|&(_, c)| acts_on_display(c)) {
            f.write_str(&self.0[shown..at])?;
            for escaped in unsafe_char.escape_default() {
                f.write_char(escaped)?;
            }
            shown = at + unsafe_char.len_utf8();
        }
        f.write_str(&self.0[shown..])
    }
}

fn acts_on_display(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        let text = r"你好 C:\new %s {} $(x) e\u{301} 👩‍💻";
        assert_eq!(Escaped(text).to_string(), text);
    }

    #[test]
    fn controls_and_bidirectional_overrides_are_escaped() {
        let hostile = "a\0b\r\nc\u{7f}d\u{9b}2Je\u{202e}f\u{2066}g\u{2028}h";
        assert_eq!(
            Escaped(hostile).to_string(),
            r"a\u{0}b\r\nc\u{7f}d\u{9b}2Je\u{202e}f\u{2066}g\u{2028}h"
        );
    }
}
