//! Rule sets in TOML.

mod place;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use self::place::{place_in_string, rule_at};
use super::boundary::floor_char_boundary;
use super::error::RuleError;
use super::flags::Flags;
use super::robot::Robot;
use super::rule::Rule;
use crate::escape::Escaped;

/// Why a text is no rule set, and where.
///
/// ```
/// use rejoinder::bot::{Robot, RuleError, RuleFileProblem};
///
/// let text = "[[rule]]\npattern = '你好'\nanswer = '你好{1}！'\n";
/// let error = Robot::from_toml(text).unwrap_err();
/// assert_eq!((error.line, error.column), (3, 13));
/// assert!(matches!(error.problem, RuleFileProblem::Rule(RuleError::Template { rule: 1, .. })));
/// assert_eq!(
///     error.to_string(),
///     "line 3, column 13: rule 1: bad template 1 at byte 6: `{1}`, but the pattern has no such group"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
#[non_exhaustive]
pub struct RuleFileError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters (Unicode scalar values).
    pub column: usize,
    /// What is wrong.
    pub problem: RuleFileProblem,
}

/// What is wrong with a text that is no rule set.
///
/// ```
/// use rejoinder::bot::{Robot, RuleFileProblem};
///
/// let error = Robot::from_toml("[[rule]]\npatern = 'a'\n").unwrap_err();
/// assert!(matches!(error.problem, RuleFileProblem::Format { rule: Some(1), .. }));
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleFileProblem {
    /// It is not TOML, or something is missing, unknown or of the wrong type.
    #[error("{}{problem}", InRule(*rule))]
    Format {
        /// The number of the rule that it is in, from 1, if it is in one.
        rule: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// The rules are no robot.
    #[error("{0}")]
    Rule(RuleError),
    /// It is not UTF-8. The place is that of the first byte that is not.
    #[error("not UTF-8")]
    NotUtf8,
    /// There is no rule in it: it is empty, or half written.
    #[error("there is no rule: it needs at least one `[[rule]]`")]
    NoRules,
}

/// The beginning of a message about what may be within a rule.
struct InRule(Option<usize>);

impl fmt::Display for InRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rule) => write!(f, "rule {rule}: "),
            None => Ok(()),
        }
    }
}

impl Robot {
    /// Builds a robot from a rule set in TOML, as [a page of the guide](crate::guide::rules) describes
    /// it: the bytes of a file, or a text. The same as [`RuleFile::parse`] and [`RuleFile::build`].
    ///
    /// What is wrong with the text or the rules is an error with its place; there is no robot then.
    ///
    /// Needs the feature `rules`.
    ///
    /// ```
    /// use rejoinder::bot::Robot;
    ///
    /// let robot = Robot::from_toml(r#"
    ///     fallback = ["Go on.", "请继续。"]
    ///
    ///     [[rule]]
    ///     pattern = '(?i)i am (?<what>[^.!?]+)'
    ///     answer = ["Why are you {~what}?", "Since when are you {~what}?"]
    ///
    ///     [[rule]]
    ///     pattern = '我觉得(.+)'
    ///     answer = "为什么觉得{~1}？"
    ///     anywhere = true
    ///
    ///     [reflect]
    ///     my = "your"
    ///     "我" = "你"
    ///     "你" = "我"
    /// "#)?;
    /// assert_eq!(robot.answer("我的朋友，我觉得你懂我").to_string(), "为什么觉得我懂你？");
    /// # Ok::<(), rejoinder::bot::RuleFileError>(())
    /// ```
    pub fn from_toml(file: impl AsRef<[u8]>) -> Result<Self, RuleFileError> {
        RuleFile::parse(file)?.build()
    }
}

/// A rule set in TOML whose rules are not compiled yet: to see how many they are, or to allow them more
/// memory.
///
/// A byte order mark at the beginning is left out, and a line may end in `\r\n`; the last one need not end.
///
/// Needs the feature `rules`.
///
/// ```
/// use rejoinder::bot::RuleFile;
///
/// let file = RuleFile::parse(b"[[rule]]\r\npattern = 'hi'\r\nanswer = 'Hi.'")?;
/// assert_eq!(file.rules(), 1);
/// let robot = file.memory_limit(1 << 30).build()?;
/// assert_eq!(robot.answer("hi").to_string(), "Hi.");
/// assert!(robot.warnings().is_empty());
/// # Ok::<(), rejoinder::bot::RuleFileError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct RuleFile {
    /// With one kind of line end.
    text: String,
    set: RuleSet,
    memory_limit: Option<usize>,
}

impl RuleFile {
    /// Reads the bytes of a file, or a text.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, RuleFileError> {
        let file = file.as_ref();
        let file = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
        let text = str::from_utf8(file).map_err(|error| {
            let valid = String::from_utf8_lossy(&file[..error.valid_up_to()]);
            RuleFileError::at(&valid, valid.len(), RuleFileProblem::NotUtf8)
        })?;
        // A line's end is a line's end, however the file was checked out.
        let text = text.replace("\r\n", "\n");
        let set: RuleSet =
            toml::from_str(&text).map_err(|error| RuleFileError::format(&text, &error))?;
        Ok(Self {
            text,
            set,
            memory_limit: None,
        })
    }

    /// How many rules there are. Without one, [`build`](Self::build) fails.
    pub fn rules(&self) -> usize {
        self.set.rule.len()
    }

    /// How much memory the rules may take, in bytes, as
    /// [`RobotBuilder::memory_limit`](super::RobotBuilder::memory_limit) says. Default: 64 MiB.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Compiles the rules. The robot's [warnings](Robot::warnings) have the lines of the file.
    pub fn build(&self) -> Result<Robot, RuleFileError> {
        let set = &self.set;
        let mut builder = Robot::builder().rules(set.rule.iter().map(RuleEntry::rule));
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        for answer in &set.fallback.0 {
            builder = builder.fallback(answer.get_ref());
        }
        for (from, to) in &set.reflect {
            builder = builder.reflect(from.get_ref(), to);
        }
        for (from, to) in &set.substitute {
            builder = builder.substitute(from.get_ref(), to);
        }
        let mut robot = builder.build().map_err(|error| {
            let offset = set.place(&self.text, &error);
            RuleFileError::at(&self.text, offset, RuleFileProblem::Rule(error))
        })?;
        if set.rule.is_empty() {
            return Err(RuleFileError::at(&self.text, 0, RuleFileProblem::NoRules));
        }
        let line_ends: Vec<_> = self.text.match_indices('\n').map(|(at, _)| at).collect();
        for warning in &mut robot.warnings {
            let start = set.rule[warning.rule - 1].pattern.span().start;
            warning.line = Some(line_ends.partition_point(|end| *end < start) + 1);
        }
        Ok(robot)
    }
}

impl RuleFileError {
    /// What is wrong before there are rules.
    fn format(text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start);
        let problem = RuleFileProblem::Format {
            rule: rule_at(text, offset),
            problem: Escaped(error.message()).to_string(),
        };
        Self::at(text, offset, problem)
    }

    fn at(text: &str, offset: usize, problem: RuleFileProblem) -> Self {
        let before = &text[..floor_char_boundary(text, offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = &before[line_start..];
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            problem,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule set")]
struct RuleSet {
    #[serde(default)]
    fallback: Texts,
    #[serde(default)]
    rule: Vec<RuleEntry>,
    #[serde(default)]
    reflect: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    substitute: BTreeMap<Spanned<String>, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule")]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
struct RuleEntry {
    pattern: Spanned<String>,
    answer: Texts,
    #[serde(default)]
    anywhere: bool,
    #[serde(default)]
    case_insensitive: bool,
    #[serde(default)]
    multi_line: bool,
    #[serde(default)]
    dot_matches_new_line: bool,
    #[serde(default)]
    crlf: bool,
    #[serde(default)]
    ignore_whitespace: bool,
    #[serde(default)]
    swap_greed: bool,
    unicode: Option<bool>,
}

/// A text, or several.
#[derive(Debug, Default)]
struct Texts(Vec<Spanned<String>>);

impl RuleSet {
    /// Where in the file an error is.
    fn place(&self, file: &str, error: &RuleError) -> usize {
        let key = |pairs: &BTreeMap<Spanned<String>, String>, from: &String| {
            let mut keys = pairs.keys();
            keys.find(|key| key.get_ref() == from)
                .map_or(0, |key| key.span().start)
        };
        match error {
            RuleError::Pattern { rule, offset, .. } => {
                place_in_string(file, &self.rule[rule - 1].pattern, *offset)
            }
            RuleError::Template {
                rule,
                template,
                offset,
                ..
            } => place_in_string(file, &self.rule[rule - 1].answer.0[template - 1], *offset),
            RuleError::TooManyRules { rule, .. } => {
                let last = self.rule.get(rule.saturating_sub(1));
                last.map_or(0, |rule| rule.pattern.span().start)
            }
            RuleError::Substitution { from, .. } => key(&self.substitute, from),
            RuleError::Reflection { from, .. } => key(&self.reflect, from),
        }
    }
}

impl RuleEntry {
    fn rule(&self) -> Rule {
        let mut templates = self.answer.0.iter().map(|text| text.get_ref().as_str());
        let first = templates
            .next()
            .expect("an array of answers has one at least");
        let mut rule = templates.fold(Rule::new(self.pattern.get_ref(), first), Rule::or_template);
        rule.anywhere = self.anywhere;
        rule.flags = self.flags();
        rule
    }

    fn flags(&self) -> Flags {
        Flags {
            case_insensitive: self.case_insensitive,
            multi_line: self.multi_line,
            dot_matches_new_line: self.dot_matches_new_line,
            crlf: self.crlf,
            ignore_whitespace: self.ignore_whitespace,
            swap_greed: self.swap_greed,
            unicode: self.unicode.unwrap_or(true),
        }
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Spanned::<OneOrMany>::deserialize(deserializer)?;
        let span = texts.span();
        Ok(Self(match texts.into_inner() {
            OneOrMany::One(text) => vec![Spanned::new(span, text)],
            OneOrMany::Many(texts) => texts,
        }))
    }
}

enum OneOrMany {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of one or more")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<OneOrMany, A::Error> {
                let mut many = Vec::new();
                while let Some(text) = texts.next_element()? {
                    many.push(text);
                }
                if many.is_empty() {
                    return Err(de::Error::invalid_length(0, &self));
                }
                Ok(OneOrMany::Many(many))
            }
        }

        deserializer.deserialize_any(Texts)
    }
}

/// U+FEFF in UTF-8, which some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
