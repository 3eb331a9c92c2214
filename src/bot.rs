//! Robots: handlers made of rules.

mod error;
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

pub use self::error::RuleError;
#[cfg(feature = "rules")]
pub use self::file::{RuleFileError, RuleFileProblem};
pub use self::robot::{Robot, RobotAnswer, RobotBuilder};
pub use self::rule::Rule;
pub use self::zurich::zurich;
