/// A rule of a robot: what it matches, and what it answers.
///
/// A pattern is a regular expression in the syntax of the `regex` crate. It must match at the very
/// beginning of the request, though not up to its end, or [`anywhere`](Self::anywhere) if that is
/// asked for.
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
    pub(super) pattern: String,
    /// At least one.
    pub(super) templates: Vec<String>,
    pub(super) anywhere: bool,
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
    pub fn new(pattern: impl Into<String>, template: impl Into<String>) -> Self {
        Self {
            pattern: pattern.into(),
            templates: vec![template.into()],
            anywhere: false,
        }
    }

    /// Adds another template.
    ///
    /// Which one makes the answer depends on the request alone: the same request gets the same answer
    /// for ever, so that a retransmission cannot be told from the first by its answer. Of *n*
    /// templates, the one with the number *h* mod *n*, counted from 0, is taken, where *h* is
    /// SipHash-2-4 of the request's bytes under the key of 16 zero bytes. That function is fixed by
    /// its paper ([Aumasson and Bernstein, 2012](https://www.aumasson.jp/siphash/siphash.pdf)),
    /// whereas the standard library promises nothing about its hashes, and so the choice is the same
    /// on every platform and in every version. Anybody can compute it: it is no secret, and no dice.
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
        self.templates.push(template.into());
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
}
