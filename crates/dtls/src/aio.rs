//! The same engines on tokio.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rejoinder::aio::{AsyncConnect, AsyncTransport};
use rejoinder::gate::Gate;
use rejoinder::transport::{Inbox, Outbox, SendReport};
use rejoinder::{ConfigError, Identity, Timestamp};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::builder::DtlsBuilder;
use crate::connect::{Connector, Driver as ClientDriver};
use crate::engine::Engine;
use crate::session::{self, Sent, Session};
use crate::stats::DtlsStats;
use crate::transport::{Driver, add};

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
    driver: Driver<G>,
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
            driver: Driver::new(engine),
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

    /// Works through what was received, as far as the inbox and the replies have room.
    fn deliver(&mut self, inbox: &mut Inbox) -> usize {
        let now = self.inner.now();
        let mut delivered = 0;
        while self.driver.replies.has_room_for(Engine::<G>::MAX_REPLIES)
            && self.driver.step(now, inbox, &mut delivered)
        {}
        delivered
    }
}

impl<T: AsyncTransport, G: Gate> AsyncTransport for AsyncDtls<T, G> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        loop {
            // A half sent outbox must not change.
            ready!(self.poll_replies(cx));
            let now = self.inner.now();
            self.driver.engine.on_timer(now, &mut self.driver.replies);
            let delivered = self.deliver(inbox);
            if delivered > 0 {
                let _ = self.poll_replies(cx);
                return Poll::Ready(Ok(delivered));
            }
            ready!(self.poll_replies(cx));
            if !self.driver.replies.has_room_for(Engine::<G>::MAX_REPLIES) {
                // Records are half sent, and the task that sends them is woken.
                return Poll::Pending;
            }
            match self.inner.poll_recv(cx, &mut self.driver.raw) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let timer = self.driver.engine.next_timer();
                    let now = self.inner.now().monotonic;
                    if !self.alarm.is_over(cx, now, timer) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_replies(cx).is_pending() {
            return Ok(0);
        }
        let mut delivered = self.deliver(inbox);
        let mut received = Ok(0);
        if delivered == 0 && self.driver.raw.is_empty() {
            received = self.inner.try_recv(&mut self.driver.raw);
            delivered = self.deliver(inbox);
        }
        let _ = self.poll_replies(cx);
        received.map(|_| delivered)
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
                let records = &mut self.driver.records;
                records.set_unordered(outbox.is_unordered());
                for datagram in outbox.iter().skip(self.protected) {
                    if !self.driver.records.has_room_for(Engine::<G>::MAX_REPLIES) {
                        break;
                    }
                    if let Err(error) = self.driver.protect(now, &datagram) {
                        report.record_failure(error);
                    }
                    self.protected += 1;
                }
            }
            if !self.driver.records.is_empty() {
                let part = self.records.get_or_insert_default();
                ready!(self.inner.poll_send(cx, &self.driver.records, part));
                add(report, self.records.take().unwrap_or_default());
                self.driver.records.clear();
            }
            if self.protected == outbox.len() {
                self.protected = 0;
                return Poll::Ready(());
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
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

impl<T: AsyncTransport, G: Gate> Drop for AsyncDtls<T, G> {
    /// Closes the associations, as far as the transport inside takes that at once.
    fn drop(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        let now = self.inner.now();
        while self.records.is_none() && self.poll_replies(cx).is_ready() {
            let is_left = self.driver.engine.close_all(now, &mut self.driver.replies);
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
            .field("engine", &self.driver.engine)
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
    driver: ClientDriver,
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
            driver: ClientDriver::new(session),
            alarm: Alarm::default(),
            sending: None,
            protected: 0,
            kept: 0,
        }
    }

    /// Sends what is queued, and returns what became of it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<SendReport> {
        if self.driver.outbox.is_empty() {
            return Poll::Ready(SendReport::default());
        }
        let report = self.sending.get_or_insert_default();
        ready!(self.inner.poll_send(cx, &self.driver.outbox, report));
        self.driver.outbox.clear();
        Poll::Ready(self.sending.take().unwrap_or_default())
    }

    fn deliver(&mut self, inbox: &mut Inbox) -> usize {
        let now = self.inner.now();
        let mut delivered = 0;
        while self.driver.outbox.has_room_for(session::MAX_REPLIES)
            && self.driver.step(now, inbox, &mut delivered)
        {}
        delivered
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
            let outbox = &mut self.driver.outbox;
            self.driver.session.on_timer(now, outbox);
            let delivered = self.deliver(inbox);
            let flushed = self.poll_flush(cx);
            if delivered > 0 {
                return Poll::Ready(Ok(delivered));
            }
            if let Some(error) = self.driver.session.take_error() {
                return Poll::Ready(Err(error));
            }
            let _ = ready!(flushed);
            if !self.driver.raw.is_empty() {
                continue;
            }
            match self.inner.poll_recv(cx, &mut self.driver.raw) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let timer = self.driver.session.next_timer();
                    let now = self.inner.now().monotonic;
                    if !self.alarm.is_over(cx, now, timer) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_flush(cx).is_pending() {
            return Ok(0);
        }
        let mut delivered = self.deliver(inbox);
        let mut received = Ok(0);
        if delivered == 0 && self.driver.raw.is_empty() {
            received = self.inner.try_recv(&mut self.driver.raw);
            delivered = self.deliver(inbox);
        }
        let _ = self.poll_flush(cx);
        received.map(|_| delivered)
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
                    if !self.driver.outbox.has_room_for(session::MAX_REPLIES) {
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

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
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

impl<T: AsyncTransport> Drop for AsyncDtlsClient<T> {
    /// Closes the association, if the transport inside takes that at once.
    fn drop(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_flush(cx).is_ready() {
            let now = self.inner.now();
            self.driver.session.close(now, &mut self.driver.outbox);
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

/// One timer, which is set again only when it has to fire earlier.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Alarm {
    /// Whether the timer of a clock that reads `now` is over, or the alarm went off, perhaps too early.
    /// If not, the task is woken then.
    fn is_over(&mut self, cx: &mut Context<'_>, now: Duration, timer: Option<Duration>) -> bool {
        let Some(timer) = timer else {
            return false;
        };
        let at = Instant::now() + timer.saturating_sub(now);
        if self.at.is_none_or(|set| at < set) {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(at),
                None => self.sleep = Some(Box::pin(sleep_until(at))),
            }
            self.at = Some(at);
        }
        let sleep = self.sleep.as_mut().expect("it was set above");
        let is_over = sleep.as_mut().poll(cx).is_ready();
        if is_over {
            self.at = None;
        }
        is_over
    }
}
