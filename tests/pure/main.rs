//! Tests that need no other program and no network but loopback: the cores, the codecs, the robot and the
//! simulated network. Miri runs those that open no socket.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[cfg(feature = "tokio")]
mod aio_client;
#[cfg(feature = "tokio")]
mod aio_discovery;
#[cfg(feature = "tokio")]
mod aio_server;
#[cfg(feature = "tokio")]
mod aio_store;
mod bad_network;
mod behind;
mod client;
mod client_addresses;
mod client_core;
mod client_routes;
mod client_sockets;
mod codec;
#[cfg(feature = "testing")]
mod conformance;
mod dedup;
mod deferral;
mod documentation;
mod gates;
mod identity;
#[cfg(feature = "tracing")]
mod logging;
mod production;
mod robot;
mod robot_bounds;
mod robot_patterns;
#[cfg(feature = "rules")]
mod rule_files;
mod rules;
mod server_core;
#[cfg(feature = "signed")]
mod signed;
mod sim;
mod swap;
