use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::index::Index;
use super::pattern::Pattern;
use super::reflection::Reflection;
use super::substitution::Substitutions;
use super::template::Template;
use super::warning::RuleWarning;

/// A robot: answers text by rules.
///
/// The rules are tried in order. The first whose pattern matches makes the answer from one of its
/// templates. Without a match, a fallback does. Then the substitutions are applied to the whole
/// answer, in one pass from left to right: what one has put in, no other changes. Where several
/// fit, the longest wins.
///
/// A robot is a [`Handler`](crate::Handler) for every codec of text, and every request gets exactly one answer: the
/// first fallback, if the answer would be longer than a datagram may be. (Where that is longer too, it
/// is an error, and there is none.)
///
/// The same request always gets the same answer, in time proportional to its length, whatever the
/// patterns; and the work for one request has a bound, whatever the number of rules. A robot counts its
/// steps, and a step is a byte that one rule's automaton reads (four nanoseconds at most): 250,000 for a
/// request of up to 1,315 bytes, 190 per byte for a longer one. So a request of 1,200 bytes takes a
/// millisecond at most, and one of 65,507 bytes 50. If the steps are used up, the search stops, a fallback
/// answers, and [`exhausted`](Self::exhausted) counts it. The count depends on the rules and the request
/// alone. What a [`Regex`](regex::Regex) of the caller's own does is not counted exactly, nor is a
/// [computed](super::Rule::computed) answer.
///
/// Each thread that answers keeps memory in proportion to the largest automaton of a rule. Answering
/// allocates nothing once it is warm, unless a template uses a group with a number above 15, or an answer is
/// computed.
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
    /// Whether there is one rule, which needs no search but [`Pattern::run`], and no budget.
    pub(super) is_single_run: bool,
    /// `None` for few rules.
    pub(super) index: Option<Index>,
    /// At least one.
    pub(super) fallbacks: Vec<Template>,
    pub(super) reflection: Option<Reflection>,
    pub(super) substitutions: Option<Substitutions>,
    /// By how much reflections and substitutions can make a text longer, as a factor.
    pub(super) growth: usize,
    pub(super) warnings: Vec<RuleWarning>,
    pub(super) memory_bytes: usize,
    /// Shared by clones.
    pub(super) exhausted: Arc<AtomicU64>,
}

impl Robot {
    /// How many rules there are.
    ///
    /// ```
    /// assert_eq!(rejoinder::bot::zurich().rules(), 1);
    /// ```
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// How much memory the rules take for good, in bytes: automata, tables and texts.
    ///
    /// ```
    /// assert!(rejoinder::bot::zurich().memory_bytes() < 10_000);
    /// ```
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// What is allowed, but hardly meant: rules that never answer.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().rule("hi", "Hi.").rule("hi", "Hello.").build()?;
    /// assert_eq!(
    ///     robot.warnings()[0].to_string(),
    ///     "rule 2 never answers: its pattern is the same as that of rule 1"
    /// );
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn warnings(&self) -> &[RuleWarning] {
        &self.warnings
    }

    /// How many requests a fallback has answered because the search for a rule took too much work, by this
    /// robot and its clones.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// zurich.answer(&"你".repeat(20_000));
    /// assert_eq!(zurich.exhausted(), 0);
    /// ```
    pub fn exhausted(&self) -> u64 {
        self.exhausted.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    /// From 1.
    pub(super) number: usize,
    /// Whether it matches every request, as far as is known.
    pub(super) matches_all: bool,
    pub(super) pattern: Pattern,
    /// At least one.
    pub(super) templates: Vec<Template>,
}
