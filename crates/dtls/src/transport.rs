//! A server's transport: an engine around another transport.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use rejoinder::gate::Gate;
use rejoinder::transport::{Inbox, Outbox, SendReport};
use rejoinder::{Identity, Timestamp, Transport, Wait};

use crate::builder::DtlsBuilder;
use crate::driver::{Driver, as_inner};
use crate::engine::Engine;
use crate::stats::DtlsStats;

/// A DTLS server as a [`Transport`], around any other.
///
/// What a [`Server`](rejoinder::Server) receives from it came protected from a peer that has proved who
/// it is, and what the server sends leaves protected. Handshakes, alerts and repetitions stay inside.
///
/// ```no_run
/// use rejoinder::Server;
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::udp::UdpTransport;
/// use rejoinder_dtls::{Dtls, PskFile};
///
/// let transport = Dtls::builder()
///     .psk(PskFile::read("psk.txt")?)
///     .wrap(UdpTransport::bind("0.0.0.0:5684")?)?;
/// Server::builder(Tagged(Text))
///     .max_response_bytes(transport.max_payload_bytes())
///     .with_transport(transport)?
///     .serve(|text: &str| Some(text.to_uppercase()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A payload for a peer with which there is no association fails with the kind
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset), and one that is longer than
/// [`max_payload_bytes`](DtlsBuilder::max_payload_bytes) with EMSGSIZE. Both are the
/// [peer's](rejoinder::transport::ErrorClass::Peer) and end no server.
///
/// # Dropping it
///
/// It closes its associations: each peer is sent a `close_notify` (RFC 5246 §7.2.1), so that clients
/// shake hands again instead of waiting.
pub struct Dtls<T: Transport, G: Gate = ()> {
    inner: T,
    driver: Driver<Engine<G>>,
    /// What the server sends.
    records: Outbox,
}

impl Dtls<NoTransport> {
    /// A builder with the defaults of [`DtlsBuilder`].
    ///
    /// ```
    /// use rejoinder_dtls::Dtls;
    ///
    /// let builder = Dtls::builder().psk(|_: &[u8]| None);
    /// ```
    pub fn builder() -> DtlsBuilder {
        DtlsBuilder::new()
    }
}

impl<T: Transport, G: Gate> Dtls<T, G> {
    pub(crate) fn new(inner: T, mut engine: Engine<G>) -> Self {
        if let Ok(addr) = inner.local_addr() {
            engine.set_own_addr(addr);
        }
        Self {
            inner,
            records: engine.outbox(),
            driver: Driver::new(engine, BATCH),
        }
    }

    /// What the engine has counted.
    pub fn stats(&self) -> &DtlsStats {
        self.driver.machine.stats()
    }

    /// Who a peer is: see [`Engine::identity`].
    pub fn identity(&self, peer: SocketAddr) -> Option<&Identity> {
        self.driver.machine.identity(peer)
    }

    /// The longest payload that can be sent.
    pub fn max_payload_bytes(&self) -> usize {
        self.driver.machine.max_payload_bytes()
    }

    /// The transport inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport, G: Gate> Transport for Dtls<T, G> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.driver.recv(&mut self.inner, inbox, wait)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut report = SendReport::default();
        let now = self.inner.now();
        self.records.set_unordered(outbox.is_unordered());
        for datagram in outbox.iter() {
            let engine = &mut self.driver.machine;
            if let Err(error) = engine.protect(now, &datagram, &mut self.records) {
                report.record_failure(error);
            }
            if !self.records.has_room_for(Engine::<G>::MAX_REPLIES) {
                add(&mut report, self.inner.send(&self.records));
                self.records.clear();
                self.records.set_unordered(outbox.is_unordered());
            }
        }
        if !self.records.is_empty() {
            add(&mut report, self.inner.send(&self.records));
            self.records.clear();
        }
        report
    }

    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        self.inner.wait_for_room(wait)
    }

    as_inner!();
}

impl<T: Transport, G: Gate> Drop for Dtls<T, G> {
    fn drop(&mut self) {
        let now = self.inner.now();
        let Self { inner, driver, .. } = self;
        while driver.machine.close_all(now, &mut driver.replies) {
            driver.flush(inner);
        }
        driver.flush(inner);
    }
}

impl<T: Transport + fmt::Debug, G: Gate> fmt::Debug for Dtls<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("inner", &self.inner)
            .field("engine", &self.driver.machine)
            .finish_non_exhaustive()
    }
}

/// Stands for the transport in [`Dtls::builder`], which has none yet.
#[derive(Debug)]
pub struct NoTransport(std::convert::Infallible);

impl Transport for NoTransport {
    fn recv(&mut self, _: &mut Inbox, _: Wait) -> io::Result<usize> {
        match self.0 {}
    }

    fn send(&mut self, _: &Outbox) -> SendReport {
        match self.0 {}
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.0 {}
    }
}

/// Adds what became of one part of an outbox.
pub(crate) fn add(report: &mut SendReport, part: SendReport) {
    report.sent += part.sent;
    let Some(error) = part.last_error else {
        return;
    };
    for _ in 1..part.failed {
        let same = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => error.kind().into(),
        };
        report.record_failure(same);
    }
    if part.failed > 0 {
        report.record_failure(error);
    }
}

/// As many as a server receives at once.
pub(crate) const BATCH: usize = 128;
