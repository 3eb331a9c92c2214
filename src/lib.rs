//! Request/response over datagrams: a service, a client or a bot is a codec and a handler.
//!
//! One complete round trip, on a network in memory, without a socket or a thread:
//!
//! ```
//! use rejoinder::bot::zurich;
//! use rejoinder::codec::Ctime;
//! use rejoinder::sans_io::ServerCore;
//! use rejoinder::sim::SimNet;
//! use rejoinder::Client;
//!
//! let net = SimNet::new();
//! let server = "10.0.0.1:8888".parse()?;
//! net.host(server, ServerCore::new(Ctime::utc(), zurich()))?;
//!
//! let mut client = Client::new(net, Ctime::utc(), server);
//! let frame = client.request("你好吗？")?;
//! assert_eq!(frame.text, "【机器人】小Zurich 好!");
//! assert_eq!(
//!     frame.to_string(),
//!     "[b'Sat Jan  1 00:00:00 2000']【机器人】小Zurich 好!"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same handler on a real socket is
//! `Server::bind("127.0.0.1:8888", Ctime::local())?.serve(zurich())`. A handler of your own can be as
//! little as a closure: see [`Handler`].
//!
//! # The layers
//!
//! ```text
//!            Server                                Client
//!   a loop around ServerCore             a loop around ClientCore
//!      │            │                        │            │
//!   Handler ── Codec (Ctime, Text, Raw, yours) ──────── Codec
//!   (Robot,         │                                     │
//!   closures)  Inbox, Outbox                       Inbox, Outbox
//!                   │                                     │
//!              Transport (UdpTransport, SimNet's, yours) ─┘
//! ```
//!
//! - A [`Transport`] receives and sends datagrams, many at a time.
//! - A [`Codec`] gives their bytes a meaning, in both directions.
//! - A [`Handler`] makes the answer to a request.
//! - A [`Gate`](gate::Gate) drops datagrams before they are decoded, or responses before they leave.
//!   A server has none unless [`ServerBuilder::gate`] adds one.
//! - The module [`proxy`] reads the headers of trusted proxies in front of a server.
//!
//! The cores in [`sans_io`] hold the rules. They know neither sockets nor clocks: time is an argument
//! ([`Timestamp`]). [`Server`] and [`Client`] drive them over a transport, and block. With the feature
//! `tokio`, `aio::Server` and `aio::Client` drive them on tokio, and a handler may await.
//!
//! # Where to go on
//!
//! - The [guide]: how to write a [handler](guide::handler), a [codec](guide::codec), a
//!   [gate](guide::gate) and a [transport](guide::transport), how to test on a
//!   [bad network](guide::bad_network), and what differs if you come from Python's
//!   [`socketserver`](guide::from_socketserver), tokio's [`UdpFramed`](guide::from_udp_framed), the
//!   crate [`coap`](guide::from_coap_rs) or [Go](guide::from_packet_conn).
//! - A server on the Internet: the gates of [`gate`], and the checks that are always on
//!   ([`DropReason`]). Duplicated requests: [`handler::Dedup`].
//! - A server behind proxies such as nginx: [`proxy`] and [`ServerBuilder::behind`].
//! - State that several nodes share: the module `aio::store`, and the page `guide::shared_state` (feature
//!   `tokio`).
//! - Servers and clients on tokio: the module `aio`, and the page `guide::on_tokio` (feature `tokio`).
//! - A client with many requests in flight: [`Client::submit`], [`Correlation`], [`codec::Tagged`],
//!   which adds ids to any codec, and [`Retry`].
//! - A network that loses, duplicates, reorders, delays and corrupts: [`sim`].
//! - A server in production, and what its counters mean: [`guide::production`]. Several of them behind a
//!   balancer: [`guide::fleet`].
//! - Peers that prove who they are: `codec::Signed` (feature `signed`), [`Identity`], [`Context::identity`].
//!   Encryption: DTLS 1.2 as a transport, in the package `rejoinder-dtls`. Which to choose:
//!   [`guide::security`].
//! - Robots from files: the page `guide::rules` (feature `rules`).
//! - What a release may change: [`guide::stability`].
//!
//! # When not to use it
//!
//! Use something else if you need streams, QUIC, messages above 65,507 bytes, or a complete DNS
//! or `CoAP` stack.
//!
//! # Features
//!
//! On by default:
//!
//! - `bot`: the module `bot`, robots made of rules. Without it, no regex engine is compiled.
//! - `ctime`: `codec::Ctime`. Without it, `chrono` is not compiled.
//! - `udp`: UDP sockets, the module `udp`, `Server::bind` and `Client::connect`. Without it, no socket
//!   library is compiled, and the crate builds for targets that have no sockets.
//!
//! Off by default:
//!
//! - `rules`: rule sets of robots from files, in TOML. Turns on `bot`.
//! - `signed`: `codec::Signed`, messages that prove which key's holder made them.
//! - `testing`: conformance tests for transports, codecs and handlers of your own, a transport that
//!   fails on demand, and fault scripts for proptest.
//! - `tokio`: the module `aio`, servers and clients on tokio. Turns on `udp`.
//! - `tower`: tower services as async handlers, and clients as services. Turns on `tokio`.
//! - `tracing`: the server logs to the program's `tracing` subscriber.
//!
//! # Invariants
//!
//! - Every datagram received is counted as replied, silent, dropped (with the reason), deferred or
//!   pending ([`Stats`]), at every moment.
//! - A response never triggers a response, so two servers that face each other go quiet.
//! - No datagram, no panic of a handler and no error of a socket ends a server, unless the socket is
//!   closed. A panic must unwind for that: `panic = "abort"` ends the process ([`Server::serve`]).
//! - A truncated datagram is detected, counted and dropped.
//! - Malformed input gets no response, unless the protocol demands one ([`Codec::encode_rejection`]), and
//!   then none longer than the request.
//! - Only the peer that was asked can answer, and nothing makes a client's deadline later.
//! - Every queue and table of a server and a client has a fixed size.
//!
//! UDP itself proves nothing about the sender of a datagram and encrypts nothing. The page
//! [`guide::security`] lists the layers that do.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "bot", feature = "ctime", feature = "udp")),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the guide and the builders name items of the default features; with these, every link resolves"
    )
)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "tokio")]
pub mod aio;
mod backoff;
#[cfg(feature = "bot")]
pub mod bot;
mod client;
pub mod codec;
mod config_error;
mod drop_reason;
pub mod escape;
pub mod gate;
pub mod guide;
pub mod handler;
mod identity;
mod keyed_hash;
mod panics;
mod prefix;
pub mod proxy;
pub mod sans_io;
mod server;
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;
pub mod transport;
#[cfg(feature = "udp")]
pub mod udp;

#[doc(inline)]
pub use self::client::{Client, ClientBuilder, Discovery, RequestError, Retry, Ticket};
#[doc(inline)]
pub use self::codec::{Codec, Correlation, Writer};
#[doc(inline)]
pub use self::config_error::ConfigError;
#[doc(inline)]
pub use self::drop_reason::DropReason;
#[doc(inline)]
pub use self::handler::{Context, Handler, IntoReply, Reply, ReplyError};
#[doc(inline)]
pub use self::identity::Identity;
#[doc(inline)]
pub use self::server::{ServeError, Server, ServerBuilder, ServerHandle, Stats};
#[doc(inline)]
pub use self::timestamp::Timestamp;
#[doc(inline)]
pub use self::transport::{Transport, Wait};

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
