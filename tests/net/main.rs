//! Tests that need sockets, on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[cfg(feature = "tokio")]
mod aio;
mod client_udp;
#[cfg(feature = "testing")]
mod fast_path;
mod faults;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod namespaces;
mod server_udp;
mod udp;
#[cfg(target_os = "linux")]
mod workers;
