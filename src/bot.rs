//! Robots: handlers made of rules.

mod error;
mod pattern;
mod rules;
mod template;
mod zurich;

pub use self::error::RuleError;
pub use self::rules::{Answer, Robot, RobotBuilder};
pub use self::zurich::zurich;
