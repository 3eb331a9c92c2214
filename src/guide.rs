//! Longer explanations than an item's documentation has room for. Their code is compiled and run.
//!
//! Each page begins with what you will have at its end, and each stands for itself. If all of this
//! is new, read them in this order:
//!
//! 1. [`handler`]: what the answer is. With [`Text`](crate::codec::Text), that is a whole bot.
//! 2. [`codec`]: a protocol of your own, or an existing one.
//! 3. [`bad_network`]: how a bot is tested where datagrams get lost.
//! 4. [`gate`]: who is let in.
//! 5. [`transport`]: datagrams over something else than UDP.
//! 6. [`production`]: a server that is left alone, and what its counters mean.
//! 7. [`security`]: what an attacker can do, and keys against it.
//! 8. [`fleet`]: several nodes behind proxies and balancers, replaced without loss.
#![cfg_attr(
    feature = "tokio",
    doc = "9. [`on_tokio`]: handlers that wait, and clients of async programs."
)]
#![cfg_attr(
    feature = "tokio",
    doc = "10. [`shared_state`]: what several nodes of a service share, and while their store is down."
)]
#![cfg_attr(
    feature = "rules",
    doc = "11. [`rules`]: robots from files, and what a pattern and a template can do."
)]
//!
//! If you come from somewhere else, begin at [`from_socketserver`] (Python), [`from_udp_framed`]
//! (tokio), [`from_coap_rs`] (the crate `coap`) or [`from_packet_conn`] (Go).
//!
//! ```
//! use rejoinder::codec::Text;
//! use rejoinder::sans_io::ServerCore;
//! use rejoinder::sim::SimNet;
//! use rejoinder::Client;
//!
//! let net = SimNet::new();
//! let bot = "10.0.0.1:9999".parse()?;
//! net.host(
//!     bot,
//!     ServerCore::new(Text, |line: &str| line.strip_suffix('?').map(str::to_owned)),
//! )?;
//! assert_eq!(
//!     Client::new(net, Text, bot).request("is anybody there?")?,
//!     "is anybody there"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "tokio")]
#[doc = include_str!("guide/async.md")]
pub mod on_tokio {}
#[doc = include_str!("guide/bad_network.md")]
pub mod bad_network {}
#[doc = include_str!("guide/production.md")]
pub mod production {}
#[doc = include_str!("guide/fleet.md")]
pub mod fleet {}

#[cfg(feature = "rules")]
#[doc = include_str!("guide/rules.md")]
pub mod rules {}
#[doc = include_str!("guide/codec.md")]
pub mod codec {}
#[doc = include_str!("guide/from_coap_rs.md")]
pub mod from_coap_rs {}
#[doc = include_str!("guide/from_packet_conn.md")]
pub mod from_packet_conn {}
#[doc = include_str!("guide/from_socketserver.md")]
pub mod from_socketserver {}
#[doc = include_str!("guide/from_udp_framed.md")]
pub mod from_udp_framed {}
#[doc = include_str!("guide/gate.md")]
pub mod gate {}
#[doc = include_str!("guide/handler.md")]
pub mod handler {}
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/shared_state.md")]
pub mod shared_state {}
#[doc = include_str!("guide/security.md")]
pub mod security {}
#[doc = include_str!("guide/stability.md")]
pub mod stability {}
#[doc = include_str!("guide/transport.md")]
pub mod transport {}
