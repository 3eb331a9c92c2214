//! Settings that both roles have, and the implementation's configurations made of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Config, PskResolver};
use rejoinder::ConfigError;
use rejoinder::transport::Outbox;

use crate::provider::{note_identity, provider};
use crate::psk::{KeyStore, is_usable};
use crate::record::{HEADER_BYTES, MAX_PLAINTEXT_BYTES};

/// `TLS_PSK_WITH_AES_128_CCM_8`, the mandatory suite of CoAP with pre-shared keys: RFC 7252 §9.1.3.1.
pub(crate) const PSK_SUITES: [u16; 1] = [0xc0a8];
/// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, `…_AES_256_GCM_SHA384`, `…_CHACHA20_POLY1305_SHA256`.
pub(crate) const CERTIFICATE_SUITES: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];

/// The most that protection adds to the fragment of a record: an explicit nonce of 8 bytes and a tag of 16
/// (RFC 5288 §3).
pub(crate) const PROTECTION_BYTES: usize = 8 + 16;
/// The most that protection and the header add to a payload.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + PROTECTION_BYTES;

/// What both roles have.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) handshake_timeout: Duration,
    pub(crate) retransmit_after: Duration,
    pub(crate) handshake_datagram_bytes: usize,
    pub(crate) max_payload_bytes: usize,
    /// A server's: the longest payload that is received.
    pub(crate) max_request_bytes: usize,
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (setting, value, range) in [
            (
                "handshake_datagram_bytes",
                self.handshake_datagram_bytes,
                256..=16_384,
            ),
            (
                "max_payload_bytes",
                self.max_payload_bytes,
                1..=MAX_PLAINTEXT_BYTES,
            ),
            (
                "max_request_bytes",
                self.max_request_bytes,
                1..=MAX_PLAINTEXT_BYTES,
            ),
        ] {
            if !range.contains(&value) {
                let range = format!("{} to {}", range.start(), range.end());
                return Err(ConfigError::out_of_range(setting, value, range));
            }
        }
        for (setting, value) in [
            ("handshake_timeout", self.handshake_timeout),
            ("retransmit_after", self.retransmit_after),
        ] {
            if value.is_zero() {
                return Err(ConfigError::out_of_range(setting, "0", "more than 0"));
            }
        }
        Ok(())
    }

    /// The most that one datagram with a payload has.
    pub(crate) fn max_datagram_bytes(&self) -> usize {
        (self.max_payload_bytes + OVERHEAD_BYTES).max(self.handshake_datagram_bytes)
    }

    /// An outbox for so many short datagrams, and for those of a step at their greatest length.
    pub(crate) fn outbox(&self, datagrams: usize) -> Outbox {
        // An arena has room for a fixed number of datagrams of the greatest length.
        let least = MAX_REPLIES.div_ceil(Outbox::ARENA_DATAGRAMS) * self.max_datagram_bytes();
        Outbox::new(datagrams, least)
    }
}

/// With what a mode authenticates.
#[derive(Clone)]
pub(crate) enum Mode {
    PskServer {
        keys: Arc<dyn KeyStore>,
        hint: Option<Vec<u8>>,
    },
    PskClient {
        identity: Vec<u8>,
        key: Vec<u8>,
    },
    Certificate {
        asks_for_certificate: bool,
    },
}

impl Mode {
    /// The most records that a handshake holds because others before them are missing. Each takes up to
    /// 5.4 KB beside its bytes, as the implementation parses it.
    fn max_queued_in(&self) -> usize {
        match self {
            // A key exchange, `ChangeCipherSpec`, `Finished`, and some of them repeated.
            Self::PskServer { .. } | Self::PskClient { .. } => 6,
            // A certificate in fragments beside them.
            Self::Certificate { .. } => 16,
        }
    }
}

/// The configurations of one mode.
#[derive(Clone)]
pub(crate) struct Configs {
    mode: Mode,
    settings: Settings,
    shared: Arc<Config>,
}

impl Configs {
    pub(crate) fn new(mode: Mode, settings: &Settings) -> Result<Self, ConfigError> {
        let shared = build(&mode, settings, None)?;
        Ok(Self {
            mode,
            settings: settings.clone(),
            shared,
        })
    }

    /// The configuration of one association. With a seed it is one of its own, whose random numbers
    /// follow from it.
    pub(crate) fn get(&self, seed: Option<u64>) -> Arc<Config> {
        match seed {
            None => Arc::clone(&self.shared),
            Some(_) => {
                build(&self.mode, &self.settings, seed).unwrap_or_else(|_| Arc::clone(&self.shared))
            }
        }
    }
}

fn build(mode: &Mode, settings: &Settings, seed: Option<u64>) -> Result<Arc<Config>, ConfigError> {
    let mut builder = Config::builder()
        .with_crypto_provider(provider())
        .mtu(settings.handshake_datagram_bytes)
        .handshake_timeout(settings.handshake_timeout)
        .flight_start_rto(settings.retransmit_after)
        .max_queue_tx(MAX_QUEUED)
        .max_queue_rx(mode.max_queued_in())
        .dtls13_cipher_suites(&[]);
    builder = match mode {
        Mode::PskServer { keys, hint } => {
            let resolver = Resolver(AssertUnwindSafe(Arc::clone(keys)));
            builder
                .with_psk_server(hint.clone(), Arc::new(resolver))
                .dtls12_cipher_suites(&suites(&PSK_SUITES))
        }
        Mode::PskClient { identity, key } => {
            let key = key.clone();
            let key: Arc<dyn KeyStore> = Arc::new(move |_: &[u8]| Some(key.clone()));
            builder
                .with_psk_client(identity.clone(), Arc::new(Resolver(AssertUnwindSafe(key))))
                .dtls12_cipher_suites(&suites(&PSK_SUITES))
        }
        Mode::Certificate {
            asks_for_certificate,
        } => builder
            .require_client_certificate(*asks_for_certificate)
            .dtls12_cipher_suites(&suites(&CERTIFICATE_SUITES)),
    };
    if let Some(seed) = seed {
        builder = builder.dangerously_set_rng_seed(seed);
    }
    let config = builder.build().map_err(std::io::Error::other)?;
    Ok(Arc::new(config))
}

fn suites(codes: &[u16]) -> Vec<Dtls12CipherSuite> {
    codes
        .iter()
        .map(|&code| Dtls12CipherSuite::from_u16(code))
        .collect()
}

/// A store of keys as the implementation asks it.
struct Resolver(AssertUnwindSafe<Arc<dyn KeyStore>>);

impl PskResolver for Resolver {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.key(identity).filter(|key| is_usable(key))?;
        note_identity(identity);
        Some(key)
    }
}

/// Datagrams of one flight of a handshake: a certificate of 16 KiB in datagrams of 1,232 bytes is 14.
const MAX_QUEUED: usize = 24;
/// How many datagrams a step queues at most: the flights before and after, and one more.
pub(crate) const MAX_REPLIES: usize = 2 * MAX_QUEUED + 1;
/// Room for the longest record.
pub(crate) const SCRATCH_BYTES: usize = 20_480;
/// IPv6 carries packets of 1,280 bytes everywhere (RFC 8200 §5), less the headers of IPv6 and UDP.
pub(crate) const HANDSHAKE_DATAGRAM_BYTES: usize = 1_280 - 40 - 8;
