use super::index::Index;
use super::pattern::Pattern;
use super::reflection::Reflection;
use super::substitution::Substitutions;
use super::template::Template;

/// A robot: answers text by rules.
///
/// The rules are tried in order, and the first whose pattern matches the request makes the answer
/// from one of its templates; with no match, a fallback does. Then the substitutions are applied to
/// the whole answer, in one pass from left to right: what one has put in, no other changes. Where
/// several fit, the longest wins.
///
/// A robot is a [`Handler`](crate::Handler) for every codec of text, and every request gets exactly one answer: the
/// first fallback, if the answer would be longer than a datagram may be. (Where that is longer too, it
/// is an error, and there is none.)
///
/// The same request always gets the same answer, in time proportional to its length, whatever the
/// patterns. Each thread that answers keeps what the search for each rule needs: space in proportion
/// to the pattern, and a cache with a bound (2 MiB in each direction for one rule, for more than 16 an
/// equal part of 32 MiB, but at least 64 KiB). Answering allocates nothing once it is warm, unless a
/// template uses a group with a number above 15. Some patterns, though not 小Zurich's, add to the cache
/// when a text leads them where none has led before.
///
/// ```
/// use rejoinder::bot::Robot;
///
/// let robot = Robot::builder()
///     .rule("I am (?<what>[^.!?]+)", "Why are you {~what}?")
///     .reflect("my", "your")
///     .fallback("Go on.")
///     .build()?;
/// assert_eq!(robot.answer("I am proud of my robot!").to_string(), "Why are you proud of your robot?");
/// assert_eq!(robot.answer("Well, I am.").to_string(), "Go on.");
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Robot {
    pub(super) rules: Vec<CompiledRule>,
    /// `None` for few rules.
    pub(super) index: Option<Index>,
    /// At least one.
    pub(super) fallbacks: Vec<Template>,
    pub(super) reflection: Option<Reflection>,
    pub(super) substitutions: Option<Substitutions>,
}

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    /// From 1.
    pub(super) number: usize,
    pub(super) pattern: Pattern,
    /// At least one.
    pub(super) templates: Vec<Template>,
}
