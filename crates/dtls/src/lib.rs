//! DTLS 1.2 for [`rejoinder`]: a transport around any other, for servers and clients, with pre-shared
//! keys or certificates.
//!
//! ```
//! use rejoinder::Client;
//! use rejoinder::codec::{Tagged, Text};
//! use rejoinder::handler::{Context, Reply, ReplyError};
//! use rejoinder::sans_io::ServerCore;
//! use rejoinder::sim::SimNet;
//! use rejoinder::Handler;
//! use rejoinder_dtls::{ClientConfig, Dtls, DtlsNode};
//!
//! /// Greets by name.
//! struct Greeter;
//!
//! impl Handler<Tagged<Text>> for Greeter {
//!     fn handle(
//!         &self,
//!         _: &str,
//!         context: &Context,
//!         reply: &mut Reply<'_, Tagged<Text>>,
//!     ) -> Result<(), ReplyError> {
//!         let name = context.identity().expect("every peer has a key");
//!         reply.send(&format_args!("hello, {name}"))
//!     }
//! }
//!
//! // On a network in memory; over UDP, `Dtls::builder().wrap(transport)` is the same.
//! let net = SimNet::seeded(1);
//! let server = "10.0.0.1:5684".parse()?;
//! let engine = Dtls::builder()
//!     .psk(|identity: &[u8]| (identity == b"lamp-7").then(|| vec![0x5a; 16]))
//!     .engine()?;
//! net.host(server, DtlsNode::new(engine, ServerCore::new(Tagged(Text), Greeter)))?;
//!
//! let config = ClientConfig::psk("lamp-7", [0x5a; 16]);
//! let mut client = Client::new(config.connector(net, &Tagged(Text))?, Tagged(Text), server);
//! assert_eq!(client.request("who am I?")?, "hello, lamp-7");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - [`Dtls`] wraps a server's transport, and [`DtlsBuilder`] sets it up.
//! - [`Connector`] opens a client's transports, and [`ClientConfig`] sets it up.
//! - [`Engine`] is the server without its surroundings; [`DtlsNode`] runs one on a
//!   [`SimNet`](rejoinder::sim::SimNet).
//! - [`KeyStore`] finds keys; [`PskFile`] is one from a file. [`read_secret_file`] reads private files only.
//! - [`CertifiedKey`] and [`Authorities`] are certificates, to show and to accept.
//! - [`DtlsStats`] has the counters.
#![cfg_attr(
    feature = "tokio",
    doc = "- [`AsyncDtls`] and [`Connector`] are the same on tokio, see [`aio`](rejoinder::aio)."
)]
//!
//! The protocol's own machine is `dimpl`, which no signature here names.
//!
//! # How a handshake goes
//!
//! ```text
//! client                                 server
//! ClientHello                    →
//!                                ←       HelloVerifyRequest       nothing is remembered
//! ClientHello, cookie            →                                a handshake begins
//!                                ←       ServerHello … ServerHelloDone
//! ClientKeyExchange … Finished   →
//!                                ←       ChangeCipherSpec, Finished   an association
//! ```
//!
//! Before the cookie, the engine checks the source (impossible addresses, [reflectors'
//! ports](DtlsBuilder::blocked_ports), its own address) and asks its [gate](DtlsBuilder::gate).
//!
//! The implementation makes cookies of its own from a secret of each association, so it would need an
//! association for every hello. This crate makes and checks the cookies outside (`HMAC-SHA-256` over the
//! minute, the address and the hello), and has the implementation begin behind the exchange. For that it
//! gives the implementation a provider of cryptography that returns the verified cookie where the
//! implementation asks for its own. [`DtlsBuilder::engine`] tries it out and fails if a later
//! implementation does not ask any more.
//!
//! # What is missing in the implementation
//!
//! | missing | here |
//! | --- | --- |
//! | cookies before state | made outside, see above |
//! | alerts on failure | sent outside, in the clear, until this end has keys; a client that refuses the server's last flight sends none |
//! | the peer's identity | taken from the question for its key |
//! | record numbers of RFC 6347 §4.2.1 | the numbers of records in the clear are shifted to those of the client |
//! | `TLS_PSK_WITH_AES_128_GCM_SHA256` and other suites | missing |
//! | chains of certificates | the peer's own certificate must be signed by an authority directly |
//! | secure renegotiation named in a client's hello (RFC 5746 §3.4) | missing: servers that demand it, such as tinydtls, refuse the client with `handshake_failure` |
//! | SNI (RFC 6066 §3) | missing: a server has one certificate |
//! | a client without a certificate | a key that signs nothing stands in; a server that asks for one is refused with the reason |
//! | records that fail to authenticate in a handshake | end it; RFC 6347 §4.1.2.7 would discard them |
//! | DTLS 1.3 without state before the address is verified | not offered: its transcript has the first hello in it (RFC 8446 §4.4.1), which the implementation must have seen |
//! | buffers that shrink | records are bounded before it sees them, and passed one by one: see [`max_associations`](DtlsBuilder::max_associations) |
//! | fragments of a hello | dropped and [counted](DtlsDrop::FragmentedHello), as OpenSSL's `DTLSv1_listen` does |
//!
//! # Features
//!
//! - `rust-crypto` (default): cryptography in Rust alone.
//! - `aws-lc-rs`: AWS-LC in its place. It needs a C compiler, and on some targets `CMake`.
//! - `tokio`: servers and clients on tokio.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(any(feature = "rust-crypto", feature = "aws-lc-rs")))]
compile_error!("rejoinder-dtls needs the feature `rust-crypto` (the default) or `aws-lc-rs`");

#[cfg(feature = "tokio")]
mod aio;
mod association;
mod builder;
mod certificate;
mod clock;
mod connect;
mod cookie;
mod driver;
mod engine;
mod failure;
mod hello;
mod node;
mod provider;
mod psk;
mod record;
mod secret;
mod session;
mod settings;
mod stats;
mod table;
mod transport;

#[cfg(feature = "tokio")]
pub use self::aio::{AsyncDtls, AsyncDtlsClient};
pub use self::builder::DtlsBuilder;
pub use self::certificate::{Authorities, CertificateError, CertifiedKey};
pub use self::connect::{ClientConfig, Connector, DtlsClient};
pub use self::engine::{Delivered, Engine, SendError};
pub use self::node::DtlsNode;
pub use self::psk::{KeyStore, PskFile, PskFileError};
pub use self::secret::{SecretFileError, read_secret_file};
pub use self::stats::{DtlsDrop, DtlsStats, HandshakeFailure};
pub use self::transport::{Dtls, NoTransport};

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
