//! Tests of the example programs, against the original's and as processes.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[cfg(unix)]
mod original;
#[cfg(unix)]
mod programs;
#[cfg(all(unix, feature = "signed"))]
mod signed;
