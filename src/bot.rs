//! Robots: handlers made of rules.

mod pattern;
mod rules;
mod template;
mod zurich;

pub use self::rules::{Answer, Robot, RobotBuilder, RuleError};
pub use self::zurich::zurich;
