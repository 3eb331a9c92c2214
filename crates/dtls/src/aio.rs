//! The same engines on tokio.

mod half;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker, ready};

use rejoinder::aio::{AsyncConnect, AsyncTransport};
use rejoinder::gate::Gate;
use rejoinder::transport::{Inbox, Outbox, SendReport};
use rejoinder::{ConfigError, Identity, Timestamp};

use self::half::{Alarm, Half};
use crate::builder::DtlsBuilder;
use crate::connect::{self, Connector};
use crate::driver::{Driver, Machine, as_inner};
use crate::engine::Engine;
use crate::session::{Sent, Session};
use crate::stats::DtlsStats;
use crate::transport::{BATCH, add};

/// A DTLS server as an [`AsyncTransport`], around any other: see [`Dtls`](crate::Dtls).
///
/// ```
/// use rejoinder::aio::{AsyncSim, Client, Server};
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sim::SimNet;
/// use rejoinder_dtls::{ClientConfig, Dtls};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::seeded(7);
/// let addr = "10.0.0.1:5684".parse()?;
/// let endpoint = AsyncSim::new(net.bind(addr)?);
/// let transport = Dtls::builder().psk(|_: &[u8]| Some(vec![7; 16])).wrap_async(endpoint)?;
/// let server = Server::builder(Tagged(Text)).with_transport(transport)?;
/// let handle = server.handle();
///
/// let connector = ClientConfig::psk("me", [7; 16]).connector(net, &Tagged(Text))?;
/// let client = Client::builder(Tagged(Text)).with_connector(connector, addr)?;
/// let asking = async {
///     let answer = client.request("quiet").await.map(|answer| answer.get().to_owned());
///     handle.shutdown();
///     answer
/// };
/// let (stats, answer) = tokio::join!(
///     server.serve(async |text: &str| text.to_uppercase()),
///     asking,
/// );
/// assert_eq!(answer?, "QUIET");
/// assert_eq!(stats?.replied, 1);
/// # Ok(())
/// # }
/// ```
pub struct AsyncDtls<T: AsyncTransport, G: Gate = ()> {
    inner: T,
    driver: Driver<Engine<G>>,
    /// What the server sends.
    out: Outbox,
    alarm: Alarm,
    /// Whether the transport inside has taken a part of the engine's replies.
    is_replying: bool,
    /// Whether it has taken a part of the records, and what became of them so far.
    records: Option<SendReport>,
    /// How many datagrams of the caller's outbox are protected or refused already.
    protected: usize,
}

impl<G: Gate> DtlsBuilder<G> {
    /// An async transport with these settings, around another.
    ///
    /// # Errors
    ///
    /// As those of [`wrap`](Self::wrap).
    pub fn wrap_async<T: AsyncTransport>(
        self,
        transport: T,
    ) -> Result<AsyncDtls<T, G>, ConfigError> {
        let mut engine = self.engine()?;
        if let Ok(addr) = transport.local_addr() {
            engine.set_own_addr(addr);
        }
        Ok(AsyncDtls {
            inner: transport,
            out: engine.outbox(),
            driver: Driver::new(engine, BATCH),
            alarm: Alarm::default(),
            is_replying: false,
            records: None,
            protected: 0,
        })
    }
}

impl<T: AsyncTransport, G: Gate> AsyncDtls<T, G> {
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

    /// Sends what the engine has queued, unless records are half sent: one outbox after the other.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.records.is_some() || self.driver.replies.is_empty() {
            return Poll::Ready(());
        }
        self.is_replying = true;
        // What is lost is repeated, as on any network.
        let lost = &mut SendReport::default();
        ready!(self.inner.poll_send(cx, &self.driver.replies, lost));
        self.driver.replies.clear();
        self.is_replying = false;
        Poll::Ready(())
    }
}

impl<T: AsyncTransport, G: Gate> AsyncTransport for AsyncDtls<T, G> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        loop {
            // A half sent outbox must not change.
            ready!(self.poll_replies(cx));
            let now = self.inner.now();
            self.driver.machine.on_timer(now, &mut self.driver.replies);
            let delivered = self.deliver(inbox);
            if delivered > 0 {
                let _ = self.poll_replies(cx);
                return Poll::Ready(Ok(delivered));
            }
            ready!(self.poll_replies(cx));
            if !self.driver.has_room() {
                // Records are half sent, and the task that sends them is woken.
                return Poll::Pending;
            }
            ready!(self.poll_inner(cx))?;
        }
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        self.try_receive(inbox)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        report: &mut SendReport,
    ) -> Poll<()> {
        loop {
            if self.is_replying {
                ready!(self.poll_replies(cx));
            }
            if self.records.is_none() {
                let now = self.inner.now();
                let records = &mut self.out;
                records.set_unordered(outbox.is_unordered());
                for datagram in outbox.iter().skip(self.protected) {
                    if !self.out.has_room_for(Engine::<G>::MAX_REPLIES) {
                        break;
                    }
                    let engine = &mut self.driver.machine;
                    if let Err(error) = engine.protect(now, &datagram, &mut self.out) {
                        report.record_failure(error);
                    }
                    self.protected += 1;
                }
            }
            if !self.out.is_empty() {
                let part = self.records.get_or_insert_default();
                ready!(self.inner.poll_send(cx, &self.out, part));
                add(report, self.records.take().unwrap_or_default());
                self.out.clear();
            }
            if self.protected == outbox.len() {
                self.protected = 0;
                return Poll::Ready(());
            }
        }
    }

    as_inner!();
}

impl<T: AsyncTransport, G: Gate> Drop for AsyncDtls<T, G> {
    /// Closes the associations, as far as the transport inside takes that at once.
    fn drop(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        let now = self.inner.now();
        while self.records.is_none() && self.poll_replies(cx).is_ready() {
            let is_left = self.driver.machine.close_all(now, &mut self.driver.replies);
            if !is_left {
                let _ = self.poll_replies(cx);
                return;
            }
        }
    }
}

impl<T: AsyncTransport + fmt::Debug, G: Gate> fmt::Debug for AsyncDtls<T, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncDtls")
            .field("inner", &self.inner)
            .field("engine", &self.driver.machine)
            .finish_non_exhaustive()
    }
}

impl<N: AsyncConnect> AsyncConnect for Connector<N> {
    type Transport = AsyncDtlsClient<N::Transport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        let session = self.session(peer, |bytes| self.net.entropy(bytes))?;
        Ok(AsyncDtlsClient::new(self.net.connect(peer)?, session))
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.net.entropy(bytes)
    }
}

/// A client's async transport: one association over another transport. [`Connector`] opens them.
pub struct AsyncDtlsClient<T: AsyncTransport> {
    inner: T,
    driver: Driver<Session>,
    alarm: Alarm,
    /// Whether the transport inside has taken a part of the outbox, and what became of it so far.
    sending: Option<SendReport>,
    /// How many datagrams of the caller's outbox are dealt with already.
    protected: usize,
    /// How many of them wait for the handshake.
    kept: usize,
}

impl<T: AsyncTransport> AsyncDtlsClient<T> {
    fn new(inner: T, session: Session) -> Self {
        Self {
            inner,
            driver: Driver::new(session, connect::BATCH),
            alarm: Alarm::default(),
            sending: None,
            protected: 0,
            kept: 0,
        }
    }

    /// Sends what is queued, and returns what became of it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<SendReport> {
        if self.driver.replies.is_empty() {
            return Poll::Ready(SendReport::default());
        }
        let report = self.sending.get_or_insert_default();
        ready!(self.inner.poll_send(cx, &self.driver.replies, report));
        self.driver.replies.clear();
        Poll::Ready(self.sending.take().unwrap_or_default())
    }
}

impl<T: AsyncTransport> AsyncTransport for AsyncDtlsClient<T> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        loop {
            if self.protected > 0 && self.sending.is_some() {
                // The caller's records are half sent, and its task is woken when they can go on.
                return Poll::Pending;
            }
            let _ = ready!(self.poll_flush(cx));
            let now = self.inner.now();
            let outbox = &mut self.driver.replies;
            self.driver.machine.on_timer(now, outbox);
            let delivered = self.deliver(inbox);
            let flushed = self.poll_flush(cx);
            if delivered > 0 {
                return Poll::Ready(Ok(delivered));
            }
            if let Some(error) = self.driver.machine.take_error() {
                return Poll::Ready(Err(error));
            }
            let _ = ready!(flushed);
            if !self.driver.raw.is_empty() {
                continue;
            }
            ready!(self.poll_inner(cx))?;
        }
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        self.try_receive(inbox)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        report: &mut SendReport,
    ) -> Poll<()> {
        if self.protected == 0 {
            // What was queued before is not the caller's.
            let _ = ready!(self.poll_flush(cx));
        }
        loop {
            if self.sending.is_none() {
                let now = self.inner.now();
                for datagram in outbox.iter().skip(self.protected) {
                    if !self.driver.has_room() {
                        break;
                    }
                    match self.driver.protect(now, &datagram) {
                        Ok(Sent::Queued) => {}
                        Ok(Sent::Kept) => self.kept += 1,
                        Err(error) => report.record_failure(error),
                    }
                    self.protected += 1;
                }
            }
            let mut part = ready!(self.poll_flush(cx));
            let kept = std::mem::take(&mut self.kept);
            if kept > 0 {
                // What left is a hello, on which all that was kept depends.
                if part.failed > 0 {
                    (part.sent, part.failed) = (0, kept);
                } else {
                    part = SendReport::accepted(kept);
                }
            }
            add(report, part);
            if self.protected == outbox.len() {
                self.protected = 0;
                return Poll::Ready(());
            }
        }
    }

    as_inner!();
}

impl<T: AsyncTransport> Drop for AsyncDtlsClient<T> {
    /// Closes the association, if the transport inside takes that at once.
    fn drop(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_flush(cx).is_ready() {
            let now = self.inner.now();
            self.driver.machine.close(now, &mut self.driver.replies);
            let _ = self.poll_flush(cx);
        }
    }
}

impl<T: AsyncTransport + fmt::Debug> fmt::Debug for AsyncDtlsClient<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncDtlsClient")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<T: AsyncTransport, G: Gate> Half for AsyncDtls<T, G> {
    type Inner = T;
    type Machine = Engine<G>;

    fn parts(&mut self) -> (&mut T, &mut Driver<Engine<G>>, &mut Alarm) {
        (&mut self.inner, &mut self.driver, &mut self.alarm)
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_replies(cx)
    }
}

impl<T: AsyncTransport> Half for AsyncDtlsClient<T> {
    type Inner = T;
    type Machine = Session;

    fn parts(&mut self) -> (&mut T, &mut Driver<Session>, &mut Alarm) {
        (&mut self.inner, &mut self.driver, &mut self.alarm)
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flush(cx).map(drop)
    }
}
