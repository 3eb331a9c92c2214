//! placeholder docs
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(any(feature = "rust-crypto", feature = "aws-lc-rs")))]
compile_error!("rejoinder-dtls needs the feature `rust-crypto` (the default) or `aws-lc-rs`");

mod association;
mod builder;
mod certificate;
mod connect;
mod cookie;
mod engine;
mod hello;
mod node;
mod provider;
mod psk;
mod record;
mod session;
mod settings;
mod stats;
mod table;
mod transport;

pub use self::builder::DtlsBuilder;
pub use self::certificate::{Authorities, CertificateError, CertifiedKey};
pub use self::connect::{ClientConfig, Connector, DtlsClient};
pub use self::engine::{Delivered, Engine, SendError};
pub use self::node::DtlsNode;
pub use self::psk::{KeyStore, PskFile, PskFileError};
pub use self::stats::{DtlsDrop, DtlsStats, HandshakeFailure};
pub use self::transport::{Dtls, NoTransport};
