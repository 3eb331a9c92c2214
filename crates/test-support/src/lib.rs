//! What tests of several packages share.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

pub mod fates;
pub mod fleet;
#[cfg(target_os = "linux")]
pub mod network;
pub mod process;
pub mod robot;
pub mod scratch;
pub mod settings;
pub mod storm;
pub mod victim;
