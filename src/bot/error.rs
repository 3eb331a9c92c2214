use crate::escape::Escaped;

/// Why a robot could not be built.
///
/// ```
/// use rejoinder::bot::{Robot, RuleError};
///
/// let error = Robot::builder().rule("I am (.*)", "Why are you {2}?").build().unwrap_err();
/// assert!(matches!(error, RuleError::Template { rule: 1, template: 1, offset: 12, .. }));
/// assert_eq!(
///     error.to_string(),
///     "rule 1: bad template 1 at byte 12: `{2}`, but the pattern has no such group"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A pattern is no regular expression, or a too large one.
    #[error("rule {rule}: bad pattern at byte {offset}: {problem}")]
    Pattern {
        /// The number of the rule, from 1.
        rule: usize,
        /// Where in the pattern, in bytes; 0 for what is wrong with all of it.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
    /// A template is malformed, or names a group that its pattern does not have.
    #[error("rule {rule}: bad template {template} at byte {offset}: {problem}")]
    Template {
        /// The number of the rule, from 1.
        rule: usize,
        /// The number of the template among those of the rule, from 1.
        template: usize,
        /// Where in the template, in bytes.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
    /// The rules take more memory than they may.
    #[error(
        "the rules up to rule {rule} take {bytes} bytes, more than the limit of {limit}: raise it with \
         `memory_limit`, or leave out rules"
    )]
    TooManyRules {
        /// The number of the rule that does not fit any more, from 1.
        rule: usize,
        /// What the rules up to that one take, in bytes.
        bytes: usize,
        /// What they may take ([`RobotBuilder::memory_limit`](super::RobotBuilder::memory_limit)).
        limit: usize,
    },
    /// A substitution is empty, or there are two for the same text, or too many in all.
    #[error("bad substitution of `{}`: {problem}", Escaped(from))]
    Substitution {
        /// What was to be replaced.
        from: String,
        /// What is wrong.
        problem: String,
    },
    /// A reflection is empty, or there are two for the same words.
    #[error("bad reflection of `{}`: {problem}", Escaped(from))]
    Reflection {
        /// The words that were to be replaced.
        from: String,
        /// What is wrong.
        problem: String,
    },
}
