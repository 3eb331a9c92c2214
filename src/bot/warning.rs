use std::fmt;

/// A rule that is valid, but probably a mistake.
///
/// It displays as one line: with the line of the file, if the rules come from one.
///
/// ```
/// use rejoinder::bot::{Robot, RuleProblem};
///
/// let robot = Robot::builder().rule("", "Pardon?").rule("hi", "Hi.").build()?;
/// let warning = &robot.warnings()[0];
/// assert_eq!((warning.rule, warning.line), (1, None));
/// assert_eq!(warning.problem, RuleProblem::MatchesAll);
/// assert_eq!(
///     warning.to_string(),
///     "rule 1 matches every request, so no rule behind it ever answers: its pattern matches the empty text"
/// );
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleWarning {
    /// The number of the rule, from 1.
    pub rule: usize,
    /// The line of its pattern, from 1, if the rules come from a file.
    pub line: Option<usize>,
    /// What is odd about it.
    pub problem: RuleProblem,
}

/// What is odd about a rule.
///
/// ```
/// use rejoinder::bot::{Robot, RuleProblem};
///
/// let robot = Robot::builder().rule("hi", "Hi.").rule("hi", "Hello.").build()?;
/// assert_eq!(robot.warnings()[0].problem, RuleProblem::Repeated { earlier: 1 });
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleProblem {
    /// An earlier rule has the same pattern, so this one never answers.
    Repeated {
        /// The number of the earlier rule, from 1.
        earlier: usize,
    },
    /// The pattern is empty, or matches every request for another reason, and other rules follow.
    MatchesAll,
    /// The pattern is empty, and no rule follows: a fallback does the same.
    Empty,
}

impl fmt::Display for RuleWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        let rule = self.rule;
        match self.problem {
            RuleProblem::Repeated { earlier } => write!(
                f,
                "rule {rule} never answers: its pattern is the same as that of rule {earlier}"
            ),
            RuleProblem::MatchesAll => write!(
                f,
                "rule {rule} matches every request, so no rule behind it ever answers: its pattern \
                 matches the empty text"
            ),
            RuleProblem::Empty => write!(
                f,
                "rule {rule} matches every request: its pattern is empty; a fallback does the same"
            ),
        }
    }
}
