use regex_syntax::ParserBuilder;

/// How a pattern is read, by the names of `regex::RegexBuilder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Flags {
    pub(super) case_insensitive: bool,
    pub(super) multi_line: bool,
    pub(super) dot_matches_new_line: bool,
    pub(super) crlf: bool,
    pub(super) ignore_whitespace: bool,
    pub(super) swap_greed: bool,
    pub(super) unicode: bool,
}

impl Flags {
    pub(super) fn parser(self) -> ParserBuilder {
        let mut parser = ParserBuilder::new();
        parser
            .case_insensitive(self.case_insensitive)
            .multi_line(self.multi_line)
            .dot_matches_new_line(self.dot_matches_new_line)
            .crlf(self.crlf)
            .ignore_whitespace(self.ignore_whitespace)
            .swap_greed(self.swap_greed)
            .unicode(self.unicode)
            // A match of text that ended within a character would be no text.
            .utf8(true);
        parser
    }
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            case_insensitive: false,
            multi_line: false,
            dot_matches_new_line: false,
            crlf: false,
            ignore_whitespace: false,
            swap_greed: false,
            unicode: true,
        }
    }
}
