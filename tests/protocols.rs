//! Other people's protocols: what the examples say byte for byte, and what programs that nobody here
//! wrote make of it.
//!
//! Tests that need such programs are ignored unless asked for:
//! `cargo build --examples && cargo test --test protocols -- --ignored`.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

#[allow(dead_code, reason = "the program around the codec")]
#[path = "../examples/coap.rs"]
mod coap;
#[allow(dead_code, reason = "the program around the codec")]
#[path = "../examples/dns.rs"]
mod dns;
#[path = "protocols/golden.rs"]
mod golden;
#[allow(dead_code, reason = "the program around the handler")]
#[path = "../examples/inetd.rs"]
mod inetd;
#[allow(dead_code, reason = "this file uses a part of it")]
#[path = "support/process.rs"]
mod process;
#[path = "protocols/programs.rs"]
mod programs;
#[allow(dead_code, reason = "the program around the codec")]
#[path = "../examples/sntp.rs"]
mod sntp;
#[allow(dead_code, reason = "the program around the codec")]
#[path = "../examples/stun.rs"]
mod stun;
