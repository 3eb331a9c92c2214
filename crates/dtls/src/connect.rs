//! Clients: how they are set up, and their transports.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rejoinder::transport::{Connect, Inbox, Outbox, SendReport};
use rejoinder::{Codec, ConfigError, Correlation, Timestamp, Transport, Wait};
use rustls_pki_types::ServerName;

use crate::association::{Credentials, Policy};
use crate::certificate::{Authorities, CertificateError, CertifiedKey, Role};
use crate::driver::{Driver, Machine, as_inner, shorter};
use crate::psk::{MAX_IDENTITY_BYTES, PskFile, is_usable};
use crate::record::MAX_PLAINTEXT_BYTES;
use crate::session::{Client, Sent, Session};
use crate::settings::{Configs, HANDSHAKE_DATAGRAM_BYTES, Mode, Settings};
use crate::transport::add;

/// How a DTLS client proves who it is, and which servers it trusts.
///
/// ```
/// use rejoinder::Client;
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::udp::UdpConnector;
/// use rejoinder_dtls::ClientConfig;
///
/// let codec = Tagged(Text);
/// let connector = ClientConfig::psk("lamp-7", [0x5a; 16])
///     .connector(UdpConnector::default(), &codec)?;
/// let client = Client::new(connector, codec, "127.0.0.1:5684".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientConfig {
    trust: Trust,
    own: Option<CertifiedKey>,
    settings: Settings,
    is_seeded: bool,
}

#[derive(Clone)]
enum Trust {
    Psk { identity: Vec<u8>, key: Vec<u8> },
    Certificates(Authorities, ServerName<'static>),
}

impl ClientConfig {
    /// A client with a pre-shared key: an identity of 1 to 128 bytes and a key of 1 to 64, best 16
    /// random ones or more (RFC 4279 §5.3 and §7.2).
    pub fn psk(identity: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self::new(Trust::Psk {
            identity: identity.into(),
            key: key.into(),
        })
    }

    /// A client with the identity and the key of the first line of a file. Without a line it is refused
    /// by [`connector`](Self::connector).
    ///
    /// ```no_run
    /// use rejoinder_dtls::{ClientConfig, PskFile};
    ///
    /// let config = ClientConfig::psk_file(&PskFile::read("psk.txt")?);
    /// # Ok::<(), rejoinder_dtls::PskFileError>(())
    /// ```
    pub fn psk_file(file: &PskFile) -> Self {
        let (identity, key) = file.first().unwrap_or_default();
        Self::psk(identity, key)
    }

    /// A client that accepts a server with a certificate for `name`, a DNS name or an IP address, that
    /// one of the authorities has signed.
    ///
    /// # Errors
    ///
    /// If the name is neither.
    ///
    /// ```no_run
    /// use rejoinder_dtls::{Authorities, ClientConfig};
    ///
    /// let authorities = Authorities::from_pem_file("ca.pem")?;
    /// let config = ClientConfig::certificates(authorities, "server.example")?;
    /// # Ok::<(), rejoinder_dtls::CertificateError>(())
    /// ```
    pub fn certificates(authorities: Authorities, name: &str) -> Result<Self, CertificateError> {
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| CertificateError::Name(name.to_owned()))?;
        Ok(Self::new(Trust::Certificates(authorities, server)))
    }

    fn new(trust: Trust) -> Self {
        Self {
            trust,
            own: None,
            settings: Settings {
                handshake_timeout: Duration::from_secs(10),
                retransmit_after: Duration::from_secs(1),
                handshake_datagram_bytes: HANDSHAKE_DATAGRAM_BYTES,
                max_payload_bytes: MAX_PLAINTEXT_BYTES,
                max_request_bytes: MAX_PLAINTEXT_BYTES,
            },
            is_seeded: false,
        }
    }

    /// Shows a certificate to a server that asks for one. With a pre-shared key it is not used.
    pub fn certificate(mut self, own: CertifiedKey) -> Self {
        self.own = Some(own);
        self
    }

    /// How long a handshake may take. Default: 10 seconds, more than zero and at most ten years.
    ///
    /// ```
    /// use rejoinder_dtls::ClientConfig;
    /// use std::time::Duration;
    ///
    /// let config = ClientConfig::psk("me", [7; 16])
    ///     .handshake_timeout(Duration::from_secs(3))
    ///     .retransmit_after(Duration::from_millis(200));
    /// ```
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.settings.handshake_timeout = time;
        self
    }

    /// As [`DtlsBuilder::retransmit_after`](crate::DtlsBuilder::retransmit_after).
    pub fn retransmit_after(mut self, time: Duration) -> Self {
        self.settings.retransmit_after = time;
        self
    }

    /// As [`DtlsBuilder::max_payload_bytes`](crate::DtlsBuilder::max_payload_bytes).
    pub fn max_payload_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_payload_bytes = bytes;
        self
    }

    /// As [`DtlsBuilder::handshake_datagram_bytes`](crate::DtlsBuilder::handshake_datagram_bytes).
    pub fn handshake_datagram_bytes(mut self, bytes: usize) -> Self {
        self.settings.handshake_datagram_bytes = bytes;
        self
    }

    /// Lets random values follow from the connector's [entropy](Connect::entropy), as
    /// [`DtlsBuilder::insecure_seed`](crate::DtlsBuilder::insecure_seed) does: **for simulations, and for
    /// nothing else**.
    pub fn insecure_seeds(mut self) -> Self {
        self.is_seeded = true;
        self
    }

    /// A connector for a [`Client`](rejoinder::Client) with this codec, over another connector.
    ///
    /// # Errors
    ///
    /// If a setting, the identity or the key is out of range, or the codec matches responses to requests
    /// by their [socket](Correlation::Socket). Then every request would have a socket of its own, and a
    /// handshake. Use a codec with ids; [`Tagged`](rejoinder::codec::Tagged) gives them to any other.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder_dtls::ClientConfig;
    ///
    /// let config = ClientConfig::psk("me", [7; 16]);
    /// let error = config.connector(SimNet::new(), &Text).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "codec is one that matches responses by their socket, must be one with ids, such as \
    ///      `Tagged`: each request would need a handshake of its own"
    /// );
    /// ```
    pub fn connector<N, C: Codec>(self, net: N, codec: &C) -> Result<Connector<N>, ConfigError> {
        if codec.correlation() == Correlation::Socket {
            return Err(ConfigError::out_of_range(
                "codec",
                "one that matches responses by their socket",
                "one with ids, such as `Tagged`: each request would need a handshake of its own",
            ));
        }
        self.settings.check()?;
        let (mode, credentials, authorities, name) = match self.trust {
            Trust::Psk { identity, key } => {
                if identity.is_empty() || identity.len() > MAX_IDENTITY_BYTES {
                    let value = format!("{} bytes long", identity.len());
                    return Err(ConfigError::out_of_range("identity", value, "1 to 128"));
                }
                if !is_usable(&key) {
                    let value = format!("{} bytes long", key.len());
                    return Err(ConfigError::out_of_range("key", value, "1 to 64"));
                }
                let mode = Mode::PskClient { identity, key };
                (mode, Credentials::Psk, None, None)
            }
            Trust::Certificates(authorities, name) => {
                let mode = Mode::Certificate {
                    asks_for_certificate: true,
                };
                let own = self.own.map(Credentials::Certificate);
                let own = own.unwrap_or(Credentials::Nothing);
                (mode, own, Some(authorities), Some(name))
            }
        };
        let client = Client {
            configs: Configs::new(mode, &self.settings)?,
            credentials,
            policy: Policy {
                role: Role::Server,
                authorities,
                name,
            },
            settings: self.settings,
        };
        Ok(Connector {
            net,
            client: Arc::new(client),
            is_seeded: self.is_seeded,
        })
    }
}

/// Neither identity nor key.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("certificate", &self.own)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Opens DTLS transports for a client: see [`ClientConfig::connector`].
///
/// Each transport shakes hands when the first payload is sent, and again after the server has closed.
/// Payloads wait for the handshake, up to 1,024; one that the client sends again meanwhile waits once.
/// A handshake that fails is an error of the kind [`HostUnreachable`](io::ErrorKind::HostUnreachable)
/// that names the reason, and the next one begins a second later at the earliest. Requests that have no
/// answer by their deadline fail with it. With
/// [`fail_when_unreachable`](rejoinder::ClientBuilder::fail_when_unreachable) requests fail with it at
/// once.
#[derive(Clone)]
pub struct Connector<N> {
    pub(crate) net: N,
    client: Arc<Client>,
    is_seeded: bool,
}

impl<N> Connector<N> {
    pub(crate) fn session(
        &self,
        peer: SocketAddr,
        entropy: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Session> {
        let mut seed = None;
        if self.is_seeded {
            let mut bytes = [0; 8];
            entropy(&mut bytes)?;
            seed = Some(u64::from_le_bytes(bytes));
        }
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Ok(Session::new(Arc::clone(&self.client), peer, seed))
    }
}

impl<N: Connect> Connect for Connector<N> {
    type Transport = DtlsClient<N::Transport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        let session = self.session(peer, |bytes| self.net.entropy(bytes))?;
        Ok(DtlsClient::new(self.net.connect(peer)?, session))
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.net.entropy(bytes)
    }

    fn wait_any(
        &self,
        transports: &[&Self::Transport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let now = self.net.now().monotonic;
        let timer = |one: &&Self::Transport| one.driver.machine.next_timer();
        let next = transports.iter().filter_map(timer).min();
        let wait = shorter(wait, now, wait.deadline(now), next);
        let inner: Vec<_> = transports.iter().map(|one| &one.inner).collect();
        self.net.wait_any(&inner, wait, ready)?;
        let now = self.net.now().monotonic;
        for (index, one) in transports.iter().enumerate() {
            let is_due = timer(one).is_some_and(|due| due <= now);
            if (is_due || one.driver.has_received() || one.driver.machine.has_error())
                && !ready.contains(&index)
            {
                ready.push(index);
            }
        }
        Ok(())
    }
}

impl<N: fmt::Debug> fmt::Debug for Connector<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}

/// A client's transport: one association over another transport. [`Connector`] opens them.
///
/// A payload for another address than the server's fails with the kind
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
///
/// Dropping it closes the association.
pub struct DtlsClient<T: Transport> {
    inner: T,
    driver: Driver<Session>,
}

impl<T: Transport> DtlsClient<T> {
    fn new(inner: T, session: Session) -> Self {
        Self {
            inner,
            driver: Driver::new(session, BATCH),
        }
    }
}

impl<T: Transport> Transport for DtlsClient<T> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.driver.recv(&mut self.inner, inbox, wait)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut report = SendReport::default();
        let now = self.inner.now();
        let mut kept = 0;
        for datagram in outbox.iter() {
            match self.driver.protect(now, &datagram) {
                Err(error) => report.record_failure(error),
                Ok(Sent::Kept) => kept += 1,
                Ok(Sent::Queued) => {}
            }
            if !self.driver.has_room() {
                add(&mut report, self.inner.send(&self.driver.replies));
                self.driver.replies.clear();
            }
        }
        let mut left = SendReport::default();
        if !self.driver.replies.is_empty() {
            left = self.inner.send(&self.driver.replies);
            self.driver.replies.clear();
        }
        if kept > 0 {
            // What left is a hello, on which all that was kept depends.
            if left.failed > 0 {
                (left.sent, left.failed) = (0, kept);
            } else {
                left = SendReport::accepted(kept);
            }
        }
        add(&mut report, left);
        report
    }

    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        self.inner.wait_for_room(wait)
    }

    as_inner!();
}

impl<T: Transport> Drop for DtlsClient<T> {
    fn drop(&mut self) {
        let now = self.inner.now();
        let Self { inner, driver } = self;
        driver.machine.close(now, &mut driver.replies);
        driver.flush(inner);
    }
}

impl<T: Transport + fmt::Debug> fmt::Debug for DtlsClient<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsClient")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// Buffers for receiving.
pub(crate) const BATCH: usize = 64;
