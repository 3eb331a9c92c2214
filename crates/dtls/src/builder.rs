//! How a server is set up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rejoinder::gate::{Gate, REFLECTOR_PORTS, RateLimit};
use rejoinder::{ConfigError, Transport};

use crate::association::{Credentials, Policy};
use crate::certificate::{Authorities, CertifiedKey, Role};
use crate::engine::{Engine, Parts, next_seed};
use crate::psk::KeyStore;
use crate::record::MAX_PLAINTEXT_BYTES;
use crate::settings::{Configs, HANDSHAKE_DATAGRAM_BYTES, Mode, Settings};
use crate::transport::Dtls;

/// How a DTLS server proves who it is, which clients it serves, and how much it remembers.
///
/// It needs [`psk`](Self::psk) or [`certificate`](Self::certificate), and may have both: then the client
/// chooses, by the order of its cipher suites.
///
/// ```
/// use rejoinder_dtls::Dtls;
/// use std::time::Duration;
///
/// let builder = Dtls::builder()
///     .psk(|identity: &[u8]| (identity == b"lamp-7").then(|| vec![0x5a; 16]))
///     .max_associations(10_000)
///     .idle_timeout(Duration::from_secs(3_600));
/// assert!(builder.engine().is_ok());
/// ```
#[must_use]
pub struct DtlsBuilder<G = RateLimit> {
    keys: Option<Arc<dyn KeyStore>>,
    hint: Option<Vec<u8>>,
    certificate: Option<CertifiedKey>,
    client_authorities: Option<Authorities>,
    settings: Settings,
    idle_timeout: Duration,
    blocked_ports: Vec<u16>,
    max_handshakes: usize,
    max_associations: usize,
    gate: G,
    seed: Option<u64>,
}

impl DtlsBuilder {
    pub(crate) fn new() -> Self {
        Self {
            keys: None,
            hint: None,
            certificate: None,
            client_authorities: None,
            settings: Settings {
                handshake_timeout: Duration::from_secs(5),
                retransmit_after: Duration::from_secs(1),
                handshake_datagram_bytes: HANDSHAKE_DATAGRAM_BYTES,
                max_payload_bytes: MAX_PLAINTEXT_BYTES,
                max_request_bytes: MAX_REQUEST_BYTES,
            },
            idle_timeout: Duration::from_secs(15 * 60),
            blocked_ports: REFLECTOR_PORTS.to_vec(),
            max_handshakes: 1_024,
            max_associations: 16_384,
            gate: RateLimit::default(),
            seed: None,
        }
    }
}

impl<G: Gate> DtlsBuilder<G> {
    /// Serves clients with pre-shared keys: cipher suite `TLS_PSK_WITH_AES_128_CCM_8` (RFC 6655), the
    /// mandatory one of CoAP (RFC 7252 §9.1.3.1).
    pub fn psk(mut self, keys: impl KeyStore + 'static) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }

    /// A hint for clients that have several identities (RFC 4279 §5.2). Default: none is sent.
    ///
    /// ```
    /// use rejoinder_dtls::Dtls;
    ///
    /// let builder = Dtls::builder().psk(|_: &[u8]| None).psk_hint("lamps");
    /// ```
    pub fn psk_hint(mut self, hint: impl Into<Vec<u8>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Shows a certificate: cipher suites `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`,
    /// `TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384` (RFC 5289) and
    /// `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256` (RFC 7905).
    pub fn certificate(mut self, own: CertifiedKey) -> Self {
        self.certificate = Some(own);
        self
    }

    /// Asks clients for a certificate that one of these has signed, and refuses those that have none.
    /// Default: it is not asked for, and a client that comes without a pre-shared key has no identity.
    ///
    /// ```no_run
    /// use rejoinder_dtls::{Authorities, CertifiedKey, Dtls};
    ///
    /// let builder = Dtls::builder()
    ///     .certificate(CertifiedKey::from_pem_files("server.pem", "server.key")?)
    ///     .client_authorities(Authorities::from_pem_file("clients.pem")?);
    /// # Ok::<(), rejoinder_dtls::CertificateError>(())
    /// ```
    pub fn client_authorities(mut self, authorities: Authorities) -> Self {
        self.client_authorities = Some(authorities);
        self
    }

    /// The gate that every `ClientHello` passes before it is answered. In place of the default, a
    /// [`RateLimit`] of 100 replies a second for each network.
    ///
    /// It is asked `accept` first. Then it is asked `allow_responses`, with the number of datagrams and of
    /// bytes that the whole flight has. A flight that it forbids does not leave, and its handshake has not
    /// begun. Later flights, and alerts, are asked about in the same way. Where the gate forbids them they
    /// count as [lost](crate::DtlsStats::lost_replies). Repetitions by a [timer](Self::retransmit_after) are
    /// not asked about: the [time of a handshake](Self::handshake_timeout) bounds them, with the defaults to
    /// two.
    ///
    /// ```
    /// use rejoinder::gate::RateLimit;
    /// use rejoinder_dtls::Dtls;
    ///
    /// let limit = RateLimit::builder().responses_per_second(10).build()?;
    /// let builder = Dtls::builder().psk(|_: &[u8]| None).gate(limit);
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn gate<G2: Gate>(self, gate: G2) -> DtlsBuilder<G2> {
        DtlsBuilder {
            keys: self.keys,
            hint: self.hint,
            certificate: self.certificate,
            client_authorities: self.client_authorities,
            settings: self.settings,
            idle_timeout: self.idle_timeout,
            blocked_ports: self.blocked_ports,
            max_handshakes: self.max_handshakes,
            max_associations: self.max_associations,
            gate,
            seed: self.seed,
        }
    }

    /// Source ports that are never answered. Default: [`REFLECTOR_PORTS`].
    pub fn blocked_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.blocked_ports = ports.into_iter().collect();
        self
    }

    /// How many handshakes may go on at once, each behind a valid cookie. Another one takes the place of
    /// the oldest. Default: 1,024, at least 1.
    ///
    /// Each takes up to 40 KiB with a pre-shared key, and 128 KiB with certificates, whatever its peer sends.
    /// With the defaults that is 128 MiB at most, for each worker.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.max_handshakes = handshakes;
        self
    }

    /// How long a handshake may take. Default: 5 seconds, more than zero and at most ten years.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.settings.handshake_timeout = time;
        self
    }

    /// When a flight of a handshake is repeated for the first time, give or take a quarter; then twice
    /// as long each time. Default: 1 second (RFC 6347 §4.2.4.1), more than zero and at most ten years.
    pub fn retransmit_after(mut self, time: Duration) -> Self {
        self.settings.retransmit_after = time;
        self
    }

    /// How many associations are kept. Another one takes the place of that which was used least
    /// recently, which is closed without a word. Default: 16,384, at least 1.
    ///
    /// # Memory
    ///
    /// Each takes about 7 KB with a pre-shared key and 12 KB with certificates. It grows with the records
    /// that it receives, forged ones too, and sends, and does not shrink: the implementation keeps its
    /// buffers. The most is twice the longest record more. With the default of
    /// [`max_request_bytes`](Self::max_request_bytes), and responses that are not longer, that is 16 KiB with
    /// a key and 22 KiB with certificates. An allocator counted it: `cargo test --test memory`. A peer
    /// with a valid key or certificate can make its handshake leave up to 4 or 24 KiB more. So the default
    /// number takes 320 or 736 MiB at most, for each worker. Responses of 16,384 bytes, the most that
    /// [`max_payload_bytes`](Self::max_payload_bytes) allows, take 24 KiB more each.
    pub fn max_associations(mut self, associations: usize) -> Self {
        self.max_associations = associations;
        self
    }

    /// How long an association is kept without a payload in either direction. Default: 15 minutes, more
    /// than zero.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = time;
        self
    }

    /// The longest payload that is sent, in one record and one datagram. Its datagram has up to 37 bytes
    /// more: a header of 13, with AES-GCM a nonce of 8, and a tag of 16 (of 8 with `CCM_8`).
    /// Default and greatest: 16,384 (RFC 6347 §4.1).
    ///
    /// Without fragments of IP, 1,195 bytes fit everywhere (an IPv6 packet of 1,280 bytes).
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_payload_bytes = bytes;
        self
    }

    /// The longest payload that is received. A datagram with a longer record is dropped before anything is
    /// decrypted, and counted as [`TooLong`](crate::DtlsDrop::TooLong). With suites whose protection is
    /// shorter than that of AES-GCM, up to 8 bytes more pass. Default: 4,096; 1 to 16,384 (RFC 6347 §4.1).
    ///
    /// It bounds the [memory](Self::max_associations) of an association.
    ///
    /// ```
    /// use rejoinder_dtls::Dtls;
    ///
    /// let builder = Dtls::builder().psk(|_: &[u8]| None).max_request_bytes(1_152);
    /// assert!(builder.engine().is_ok());
    /// ```
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_request_bytes = bytes;
        self
    }

    /// The longest datagram of a handshake; longer messages are sent in fragments (RFC 6347 §4.2.3).
    /// Default: 1,232, what fits into the IPv6 packets that every link carries; 256 to 16,384.
    pub fn handshake_datagram_bytes(mut self, bytes: usize) -> Self {
        self.settings.handshake_datagram_bytes = bytes;
        self
    }

    /// Lets cookies, random values and the jitter of repetitions follow from a seed: **for simulations,
    /// and for nothing else**. The implementation still puts the time into its random values, and draws
    /// ephemeral keys and signatures from the OS. So runs with one seed send datagrams of the same
    /// lengths at the same times, but not the same bytes.
    pub fn insecure_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A transport with these settings, around another.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, there is neither a store of keys nor a certificate, or the OS gives
    /// no random numbers.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder_dtls::Dtls;
    ///
    /// let endpoint = SimNet::new().bind("10.0.0.1:5684".parse()?)?;
    /// let transport = Dtls::builder().psk(|_: &[u8]| None).wrap(endpoint)?;
    /// assert_eq!(transport.stats().received, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wrap<T: Transport>(self, transport: T) -> Result<Dtls<T, G>, ConfigError> {
        Ok(Dtls::new(transport, self.engine()?))
    }

    /// An engine with these settings, for a driver of your own.
    ///
    /// # Errors
    ///
    /// As those of [`wrap`](Self::wrap).
    pub fn engine(self) -> Result<Engine<G>, ConfigError> {
        self.settings.check()?;
        for (setting, value) in [
            ("max_handshakes", self.max_handshakes),
            ("max_associations", self.max_associations),
        ] {
            if value == 0 {
                return Err(ConfigError::out_of_range(setting, 0, "at least 1"));
            }
        }
        if self.idle_timeout.is_zero() {
            return Err(ConfigError::out_of_range(
                "idle_timeout",
                "0",
                "more than 0",
            ));
        }
        let keys = self.keys.map(|keys| {
            let hint = self.hint;
            Configs::new(Mode::PskServer { keys, hint }, &self.settings)
        });
        let asks_for_certificate = self.client_authorities.is_some();
        let certificate = self.certificate.map(|own| {
            let mode = Mode::Certificate {
                asks_for_certificate,
            };
            let configs = Configs::new(mode, &self.settings);
            configs.map(|configs| (configs, Credentials::Certificate(own)))
        });
        let (psk, certificate) = (keys.transpose()?, certificate.transpose()?);
        if psk.is_none() && certificate.is_none() {
            let range = "called, or `certificate`: there is nothing to authenticate with";
            return Err(ConfigError::out_of_range("psk", "not called", range));
        }
        let mut seed = self.seed;
        let secret = secret(seed.as_mut())?;
        let parts = Parts {
            psk,
            certificate,
            policy: Policy {
                role: Role::Client,
                authorities: self.client_authorities,
                name: None,
            },
            settings: self.settings,
            idle_timeout: self.idle_timeout,
            blocked_ports: self.blocked_ports,
            gate: self.gate,
            secret,
            max_handshakes: self.max_handshakes,
            max_associations: self.max_associations,
            seed,
        };
        Engine::new(parts).ok_or_else(|| {
            let text = "this version of the DTLS implementation does not take cookies from outside";
            io::Error::new(io::ErrorKind::Unsupported, text).into()
        })
    }
}

/// The longest request that a server takes by default: three times what `CoAP` suggests (RFC 7252 §4.6).
const MAX_REQUEST_BYTES: usize = 4_096;

/// The secret of the cookies.
fn secret(seed: Option<&mut u64>) -> Result<[u8; 32], ConfigError> {
    let mut secret = [0; 32];
    match seed {
        None => getrandom::fill(&mut secret).map_err(io::Error::from)?,
        Some(seed) => {
            for part in secret.chunks_exact_mut(8) {
                part.copy_from_slice(&next_seed(seed).to_le_bytes());
            }
        }
    }
    Ok(secret)
}

impl<G> std::fmt::Debug for DtlsBuilder<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DtlsBuilder")
            .field("certificate", &self.certificate)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
