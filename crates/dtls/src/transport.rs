//! A server's transport: an engine around another transport.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::gate::Gate;
use rejoinder::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::{Identity, Timestamp, Transport, Wait};

use crate::builder::DtlsBuilder;
use crate::engine::{Delivered, Engine};
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
    driver: Driver<G>,
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
            driver: Driver::new(engine),
        }
    }

    /// What the engine has counted.
    pub fn stats(&self) -> &DtlsStats {
        self.driver.engine.stats()
    }

    /// Who a peer is: see [`Engine::identity`].
    pub fn identity(&self, peer: SocketAddr) -> Option<&Identity> {
        self.driver.engine.identity(peer)
    }

    /// The longest payload that can be sent.
    pub fn max_payload_bytes(&self) -> usize {
        self.driver.engine.max_payload_bytes()
    }

    /// The transport inside.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// Sends what the engine has queued. What is lost is repeated, as on any network.
    fn flush(&mut self) {
        if !self.driver.replies.is_empty() {
            let _ = self.inner.send(&self.driver.replies);
            self.driver.replies.clear();
        }
    }

    /// Works through what was received, as far as the inbox has space.
    fn deliver(&mut self, inbox: &mut Inbox) -> usize {
        let now = self.inner.now();
        let mut delivered = 0;
        while self.driver.step(now, inbox, &mut delivered) {
            if !self.driver.replies.has_room_for(Engine::<G>::MAX_REPLIES) {
                self.flush();
            }
        }
        self.flush();
        delivered
    }
}

impl<T: Transport, G: Gate> Transport for Dtls<T, G> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let end = wait.deadline(self.inner.now().monotonic);
        let delivered = self.deliver(inbox);
        if delivered > 0 {
            return Ok(delivered);
        }
        loop {
            let now = self.inner.now();
            self.driver.engine.on_timer(now, &mut self.driver.replies);
            self.flush();
            let timer = self.driver.engine.next_timer();
            let received = self.inner.recv(
                &mut self.driver.raw,
                shorter(wait, now.monotonic, end, timer),
            );
            // An error says nothing about the datagrams that came before it.
            let delivered = self.deliver(inbox);
            let is_over = matches!(wait, Wait::No) || self.inner.now().monotonic >= end;
            match received {
                Err(error) => return Err(error),
                Ok(_) if delivered > 0 || is_over => return Ok(delivered),
                Ok(_) => {}
            }
        }
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut report = SendReport::default();
        let now = self.inner.now();
        self.driver.records.set_unordered(outbox.is_unordered());
        for datagram in outbox.iter() {
            if let Err(error) = self.driver.protect(now, &datagram) {
                report.record_failure(error);
            }
            if !self.driver.records.has_room_for(Engine::<G>::MAX_REPLIES) {
                add(&mut report, self.inner.send(&self.driver.records));
                self.driver.records.clear();
                self.driver.records.set_unordered(outbox.is_unordered());
            }
        }
        if !self.driver.records.is_empty() {
            add(&mut report, self.inner.send(&self.driver.records));
            self.driver.records.clear();
        }
        report
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn wait_for_room(&mut self, wait: Wait) -> io::Result<()> {
        self.inner.wait_for_room(wait)
    }

    fn is_local_ip(addr: SocketAddr) -> bool {
        T::is_local_ip(addr)
    }

    fn kernel_drops(&self) -> u64 {
        self.inner.kernel_drops()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

impl<T: Transport, G: Gate> Drop for Dtls<T, G> {
    fn drop(&mut self) {
        let now = self.inner.now();
        while self.driver.engine.close_all(now, &mut self.driver.replies) {
            self.flush();
        }
        self.flush();
    }
}

impl<T: Transport + fmt::Debug, G: Gate> fmt::Debug for Dtls<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("inner", &self.inner)
            .field("engine", &self.driver.engine)
            .finish_non_exhaustive()
    }
}

/// An engine and its batches.
pub(crate) struct Driver<G> {
    pub(crate) engine: Engine<G>,
    /// What came from the transport inside.
    pub(crate) raw: Inbox,
    /// What the engine sends of its own accord.
    pub(crate) replies: Outbox,
    /// What the server sends.
    pub(crate) records: Outbox,
    /// Payloads for which the inbox had no space: those of one datagram at most.
    waiting: VecDeque<(Vec<u8>, Meta, Option<Identity>)>,
}

impl<G: Gate> Driver<G> {
    pub(crate) fn new(engine: Engine<G>) -> Self {
        Self {
            raw: Inbox::new(BATCH, MAX_DATAGRAM_BYTES),
            replies: engine.outbox(),
            records: engine.outbox(),
            waiting: VecDeque::new(),
            engine,
        }
    }

    /// Takes one payload or one datagram. Returns whether there was any, and space for it.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        inbox: &mut Inbox,
        delivered: &mut usize,
    ) -> bool {
        if !inbox.has_space() {
            return false;
        }
        if let Some((bytes, meta, identity)) = self.waiting.pop_front() {
            push(inbox, &bytes, meta, identity.as_ref());
            *delivered += 1;
            return true;
        }
        let Some(datagram) = self.raw.pop() else {
            return false;
        };
        let waiting = &mut self.waiting;
        let mut deliver = |payload: Delivered<'_>| {
            if inbox.has_space() {
                push(inbox, payload.bytes, payload.meta, payload.identity);
                *delivered += 1;
            } else {
                let identity = payload.identity.cloned();
                waiting.push_back((payload.bytes.to_vec(), payload.meta, identity));
            }
        };
        self.engine
            .receive(now, &datagram, &mut self.replies, &mut deliver);
        true
    }

    /// Queues a payload, protected.
    pub(crate) fn protect(
        &mut self,
        now: Timestamp,
        datagram: &rejoinder::transport::Outgoing<'_>,
    ) -> io::Result<()> {
        let (peer, egress) = (datagram.peer, datagram.egress);
        self.engine
            .send(now, peer, egress, datagram.bytes, &mut self.records)
            .map_err(io::Error::from)
    }
}

/// Puts a payload into an inbox, with the name of its sender.
pub(crate) fn push(inbox: &mut Inbox, bytes: &[u8], meta: Meta, identity: Option<&Identity>) {
    match identity {
        Some(identity) => inbox.push_identified(bytes, meta, identity),
        None => inbox.push(bytes, meta),
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

/// A wait that ends with another, or at a timer if that is earlier.
pub(crate) fn shorter(wait: Wait, now: Duration, end: Duration, timer: Option<Duration>) -> Wait {
    let end = timer.map_or(end, |timer| timer.min(end));
    if end == Duration::MAX {
        return Wait::Forever;
    }
    let left = end.saturating_sub(now);
    match wait {
        Wait::No => Wait::No,
        _ if left.is_zero() => Wait::No,
        Wait::Spin(_) => Wait::Spin(left),
        _ => Wait::For(left),
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
const BATCH: usize = 128;
