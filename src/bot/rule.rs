use std::fmt;
use std::sync::Arc;

use regex::{Captures, Regex};

use super::flags::Flags;
use super::rule_pattern::RulePattern;

/// A rule of a robot: what it matches, and what it answers.
///
/// A pattern is a regular expression in the syntax of the `regex` crate. It must match at the very
/// beginning of the request, though not up to its end, or [`anywhere`](Self::anywhere) if that is
/// asked for. If there is a `$` in it, and it does not match the request, it is tried once more on the
/// request without one line end (`\n` or `\r\n`) at its end, because many programs send one: `help$`
/// matches `help` and `help` with a line end. `\z` alone has no such second try.
///
/// A template is the text of an answer, in which
///
/// - `{1}` or `{name}` stands for what that group of the pattern matched: nothing, if it took no
///   part in the match;
/// - `{0}` stands for all that matched;
/// - `{~1}`, `{~name}` and `{~0}` stand for the same after the robot's
///   [reflections](super::RobotBuilder::reflect);
/// - `{{` and `}}` stand for braces.
///
/// ```
/// use rejoinder::bot::{Robot, Rule};
///
/// let robot = Robot::builder()
///     .rules([
///         Rule::new("(?i)hello|hi", "Hello. What is on your mind?").or_template("Hi there."),
///         Rule::new(r"(?i)\bmy (?<who>mother|father)\b", "Tell me about your {who}.").anywhere(),
///     ])
///     .build()?;
/// assert_eq!(robot.answer("It is my father!").to_string(), "Tell me about your father.");
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Rule {
    pub(super) pattern: RulePattern,
    pub(super) flags: Flags,
    /// At least one.
    pub(super) answers: Vec<RuleAnswer>,
    pub(super) anywhere: bool,
}

#[derive(Clone, Debug)]
pub(super) enum RuleAnswer {
    Template(String),
    Computed(Compute),
}

/// A function that makes an answer of what the groups of a pattern matched.
#[derive(Clone)]
pub(super) struct Compute(Arc<ComputeFn>);

type ComputeFn = dyn Fn(&Captures<'_>) -> String + Send + Sync;

impl Compute {
    pub(super) fn call(&self, captures: &Captures<'_>) -> String {
        self.0(captures)
    }
}

impl fmt::Debug for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Compute").finish_non_exhaustive()
    }
}

impl Rule {
    /// A rule that matches at the very beginning of a request.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let robot = Robot::builder().rules([Rule::new("a(.)", "<{1}>")]).build()?;
    /// assert_eq!(robot.answer("abc").to_string(), "<b>");
    /// assert_eq!(robot.answer("cab").to_string(), "");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    ///
    /// The pattern is a text, or a [`Regex`] ([`RulePattern`] lists the differences).
    pub fn new(pattern: impl Into<RulePattern>, template: impl Into<String>) -> Self {
        Self::with_answer(pattern.into(), RuleAnswer::Template(template.into()))
    }

    /// A rule whose answer is computed from what the groups of a [`Regex`] matched: the time, a sum, what is
    /// looked up.
    ///
    /// The function is called once for each request that the rule answers, on the thread that serves it, and
    /// other requests of that thread wait meanwhile. It allocates, in contrast to a template. Substitutions
    /// apply to its text; reflections do not. If it panics, so does [`Robot::answer`](super::Robot::answer),
    /// and a server drops the request and goes on.
    ///
    /// ```
    /// use regex::Regex;
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let sum = Rule::computed(Regex::new(r"([0-9]{1,9}) \+ ([0-9]{1,9})")?, |groups| {
    ///     let number = |group| groups.get(group).and_then(|number| number.as_str().parse::<u64>().ok());
    ///     number(1).unwrap_or(0) + number(2).unwrap_or(0)
    /// });
    /// let robot = Robot::builder().rules([sum.anywhere()]).build()?;
    /// assert_eq!(robot.answer("how much is 2 + 40?").to_string(), "42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn computed<F, A>(regex: Regex, answer: F) -> Self
    where
        F: Fn(&Captures<'_>) -> A + Send + Sync + 'static,
        A: fmt::Display,
    {
        let compute = Compute(Arc::new(move |captures| answer(captures).to_string()));
        Self::with_answer(regex.into(), RuleAnswer::Computed(compute))
    }

    fn with_answer(pattern: RulePattern, answer: RuleAnswer) -> Self {
        Self {
            pattern,
            flags: Flags::default(),
            answers: vec![answer],
            anywhere: false,
        }
    }

    /// Adds another template.
    ///
    /// The choice depends on the request alone, so a retransmission gets the same answer. Of *n*
    /// templates, number *h* mod *n* is chosen, counted from 0. *h* is SipHash-2-4 of the request's
    /// bytes under a key of 16 zero bytes. The function is fixed by its paper ([Aumasson and
    /// Bernstein, 2012](https://www.aumasson.jp/siphash/siphash.pdf)), so the choice is the same on
    /// every platform and in every version. It is neither random nor secret.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("(?i)h(i|ello)", "Hello.").or_template("Hi there.").or_template("Good day.");
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("hi").to_string(), "Hello.");
    /// assert_eq!(robot.answer("hi").to_string(), "Hello.");
    /// assert_eq!(robot.answer("hello").to_string(), "Good day.");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn or_template(mut self, template: impl Into<String>) -> Self {
        self.answers.push(RuleAnswer::Template(template.into()));
        self
    }

    /// Lets the pattern match anywhere in the request, and not only at its beginning. Of several
    /// places, it is the first.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let robot = Robot::builder().rules([Rule::new("[0-9]+", "{0}?").anywhere()]).build()?;
    /// assert_eq!(robot.answer("between 12 and 34").to_string(), "12?");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn anywhere(mut self) -> Self {
        self.anywhere = true;
        self
    }

    /// Whether letters match in either case, as with `(?i)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("help", "yes").case_insensitive(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("HELP").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn case_insensitive(mut self, yes: bool) -> Self {
        self.flags.case_insensitive = yes;
        self
    }

    /// Whether `^` and `$` match at the beginning and the end of each line, as with `(?m)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("^b$", "yes").anywhere().multi_line(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("a\nb\nc").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn multi_line(mut self, yes: bool) -> Self {
        self.flags.multi_line = yes;
        self
    }

    /// Whether `.` matches a newline too, as with `(?s)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("a.b", "yes").dot_matches_new_line(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("a\nb").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn dot_matches_new_line(mut self, yes: bool) -> Self {
        self.flags.dot_matches_new_line = yes;
        self
    }

    /// Whether `\r\n` is a line end for `.`, `^` and `$`, as with `(?R)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("^b$", "yes").anywhere().multi_line(true).crlf(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("a\r\nb\r\n").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn crlf(mut self, yes: bool) -> Self {
        self.flags.crlf = yes;
        self
    }

    /// Whether white space in the pattern is ignored, and `#` begins a comment, as with `(?x)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("a b # and no more", "yes").ignore_whitespace(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("ab").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn ignore_whitespace(mut self, yes: bool) -> Self {
        self.flags.ignore_whitespace = yes;
        self
    }

    /// Whether repetitions are lazy without a `?`, and greedy with one, as with `(?U)`. Default: `false`.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new("a+", "yes").swap_greed(true);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("aaa").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn swap_greed(mut self, yes: bool) -> Self {
        self.flags.swap_greed = yes;
        self
    }

    /// Whether classes, borders of words and case follow Unicode, as with `(?u)`, or ASCII only. Default: `true`.
    ///
    /// Without it, a pattern that could match part of a character, such as `.`, is an error of
    /// [`build`](super::RobotBuilder::build).
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let rule = Rule::new(r"\w+$", "yes").unicode(false);
    /// let robot = Robot::builder().rules([rule]).build()?;
    /// assert_eq!(robot.answer("abc").to_string(), "yes");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn unicode(mut self, yes: bool) -> Self {
        self.flags.unicode = yes;
        self
    }
}
