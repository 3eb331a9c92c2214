//! Handshakes and exchanges on a network in memory, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod attacks;
mod bad_network;
mod certificates;
mod conformance;
mod exchange;
mod flights;
mod late_response;
#[cfg(feature = "tokio")]
mod on_tokio;
mod pipe;
mod support;
