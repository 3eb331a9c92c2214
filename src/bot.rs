//! Robots: handlers made of rules.

mod answer;
mod automata;
mod boundary;
mod budget;
mod builder;
mod dfa;
mod error;
mod fast_match;
#[cfg(feature = "rules")]
mod file;
mod flags;
mod given;
mod groups;
mod index;
mod pattern;
mod pike_vm;
mod reflection;
mod robot;
mod rule;
mod rule_pattern;
mod substitution;
mod template;
mod warning;
mod zurich;

pub use self::answer::RobotAnswer;
pub use self::builder::RobotBuilder;
pub use self::error::RuleError;
#[cfg(feature = "rules")]
pub use self::file::{RuleFile, RuleFileError, RuleFileProblem};
pub use self::robot::Robot;
pub use self::rule::Rule;
pub use self::rule_pattern::RulePattern;
pub use self::warning::{RuleProblem, RuleWarning};
pub use self::zurich::zurich;
