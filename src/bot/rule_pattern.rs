use regex::Regex;

/// The pattern of a [`Rule`](super::Rule): a text in the syntax of the `regex` crate, or a
/// [`regex::Regex`] that the caller has compiled.
///
/// It is made by `into()` from a `&str`, a `String`, a `Regex` or a `&Regex`.
///
/// A text is the better choice where there is one. The robot knows what each rule needs and asks only those
/// that can match, it bounds the memory of the automata, and it bounds the work of a request. A `Regex` does
/// not show how it was built, so it runs as it is: it is asked for every request that no earlier rule answers,
/// it is counted as one step a byte, and its memory is not counted. Compile it with
/// [`RegexBuilder::size_limit`](regex::RegexBuilder::size_limit) to bound what it takes.
///
/// ```
/// use regex::Regex;
/// use rejoinder::bot::{Robot, Rule, RulePattern};
///
/// let text = RulePattern::from(r"(?<what>\w+)!");
/// let regex = RulePattern::from(Regex::new(r"(?<what>\w+)!")?);
/// for pattern in [text, regex] {
///     let robot = Robot::builder().rules([Rule::new(pattern, "{what}?")]).build()?;
///     assert_eq!(robot.answer("rain!").to_string(), "rain?");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RulePattern(pub(super) Source);

#[derive(Clone, Debug)]
pub(super) enum Source {
    Text(String),
    Given(Regex),
}

impl Source {
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Given(regex) => regex.as_str(),
        }
    }
}

impl From<&str> for RulePattern {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for RulePattern {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<String> for RulePattern {
    fn from(text: String) -> Self {
        Self(Source::Text(text))
    }
}

impl From<Regex> for RulePattern {
    fn from(regex: Regex) -> Self {
        Self(Source::Given(regex))
    }
}

impl From<&Regex> for RulePattern {
    fn from(regex: &Regex) -> Self {
        regex.clone().into()
    }
}
