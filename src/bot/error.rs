/// Why a robot could not be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A pattern is no regular expression, or a too large one.
    #[error("rule {rule}: bad pattern: {problem}")]
    Pattern {
        /// The number of the rule, from 1.
        rule: usize,
        /// What is wrong, and where.
        problem: String,
    },
    /// A template is malformed, or names a group that its pattern does not have.
    #[error("rule {rule}: bad template at byte {offset}: {problem}")]
    Template {
        /// The number of the rule, from 1.
        rule: usize,
        /// Where in the template, in bytes.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
    /// A substitution is empty, or there are two for the same text, or too many in all.
    #[error("bad substitution of `{from}`: {problem}")]
    Substitution {
        /// What was to be replaced.
        from: String,
        /// What is wrong.
        problem: String,
    },
}
