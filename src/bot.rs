//! Robots: handlers made of rules.

mod answer;
mod builder;
mod error;
mod fast_match;
#[cfg(feature = "rules")]
mod file;
mod index;
mod pattern;
mod reflection;
mod robot;
mod rule;
mod substitution;
mod template;
mod zurich;

pub use self::answer::RobotAnswer;
pub use self::builder::RobotBuilder;
pub use self::error::RuleError;
#[cfg(feature = "rules")]
pub use self::file::{RuleFileError, RuleFileProblem};
pub use self::robot::Robot;
pub use self::rule::Rule;
pub use self::zurich::zurich;
