mod batch;
mod deferral;
mod pipeline;
mod proxied;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

pub use self::deferral::Deferred;
pub(super) use self::proxied::Behind;
use super::last_error::LastError;
use super::log::Log;
use super::source::SourceCheck;
use super::stats::Stats;
use crate::codec::{Codec, Correlation};
use crate::gate::Gate;
use crate::handler::Handler;
use crate::sim::Node;
use crate::timestamp::Timestamp;
use crate::transport::{ErrorClass, Inbox, Outbox, SendReport};

/// The server without its surroundings: no socket, no clock, no thread, only a function from
/// datagrams to datagrams.
///
/// [`Server`](crate::Server) drives one core per transport; a [`SimNet`](crate::sim::SimNet) hosts one
/// in memory; a driver of your own does what they do:
///
/// 1. Receive a batch into an [`Inbox`]. Report an error with
///    [`on_receive_error`](Self::on_receive_error), and pause as
///    [`ReceiveBackoff`](crate::sans_io::ReceiveBackoff) says.
/// 2. Until the inbox is empty: [`handle`](Self::handle) it, send the [`Outbox`], report what became
///    of that with [`on_sent`](Self::on_sent), clear the outbox.
///
/// ```
/// use rejoinder::Timestamp;
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
///
/// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// inbox.push(b"quiet", Meta::new("192.0.2.1:7777".parse()?));
/// while !inbox.is_empty() {
///     core.handle(Timestamp::system(), &mut inbox, &mut outbox);
///     for response in outbox.iter() {
///         assert_eq!(response.bytes, b"QUIET"); // send it
///     }
///     core.on_sent(&SendReport::accepted(outbox.len()));
///     outbox.clear();
/// }
/// assert_eq!(core.stats().responses_sent, 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Handlers that wait
///
/// A driver whose handlers wait for something, a database say, does not call `handle`. It takes
/// requests out with [`defer_next`](Self::defer_next), keeps each until its answer is there, and ends
/// it with [`answer_deferred`](Self::answer_deferred) or [`drop_deferred`](Self::drop_deferred). The
/// checks, gates and counters are the same.
pub struct ServerCore<C, H, G = ()> {
    codec: C,
    handler: H,
    gate: G,
    sources: SourceCheck,
    behind: Option<Behind>,
    max_age: Option<Duration>,
    /// Whether responses carry ids, so that their order does not matter.
    unordered: bool,
    stats: Stats,
    /// Datagrams that the latest [`handle`](Self::handle) left in the inbox.
    pending: usize,
    last_receive_error: Option<LastError>,
    last_send_error: Option<LastError>,
    log: Log,
    /// When the latest batch was received, for the log.
    latest: Timestamp,
    /// What the clock said when it was last read between requests.
    last_read: Duration,
}

impl<C: Codec, H: Handler<C>> ServerCore<C, H> {
    /// A core with the defaults of [`ServerBuilder`](crate::ServerBuilder).
    /// [`ServerBuilder::core`](crate::ServerBuilder::core) makes one with gates and
    /// other settings.
    pub fn new(codec: C, handler: H) -> Self {
        Self::assemble(codec, handler, (), SourceCheck::default(), None, None)
    }
}

impl<C: Codec, H, G: Gate> ServerCore<C, H, G> {
    pub(super) fn assemble(
        codec: C,
        handler: H,
        gate: G,
        sources: SourceCheck,
        behind: Option<Behind>,
        max_age: Option<Duration>,
    ) -> Self {
        Self {
            unordered: matches!(codec.correlation(), Correlation::Id { .. }),
            codec,
            handler,
            gate,
            sources,
            behind,
            max_age,
            stats: Stats::default(),
            pending: 0,
            last_receive_error: None,
            last_send_error: None,
            log: Log::default(),
            latest: Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH),
            last_read: Duration::ZERO,
        }
    }

    /// The same core with another handler.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let core = Server::builder(Text).core(()).with_handler(echo);
    /// ```
    pub fn with_handler<H2>(self, handler: H2) -> ServerCore<C, H2, G> {
        ServerCore {
            codec: self.codec,
            handler,
            gate: self.gate,
            sources: self.sources,
            behind: self.behind,
            max_age: self.max_age,
            unordered: self.unordered,
            stats: self.stats,
            pending: self.pending,
            last_receive_error: self.last_receive_error,
            last_send_error: self.last_send_error,
            log: self.log,
            latest: self.latest,
            last_read: self.last_read,
        }
    }

    /// Adds an address that the server is bound to, see
    /// [`ServerBuilder::local_addr`](crate::ServerBuilder::local_addr).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// core.add_local_addr("192.0.2.1:9999".parse()?);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn add_local_addr(&mut self, addr: SocketAddr) {
        self.sources.add_own(addr);
    }

    /// Sets how to find out whether an address is one of this machine's, as
    /// [`Transport::is_local_ip`](crate::Transport::is_local_ip) does. Default: it is not known, and a
    /// server that is bound to all addresses takes every peer with its own port for itself.
    ///
    /// The core asks about peers that have one of the server's own ports, where the server is bound to
    /// all addresses, and drops what comes from the machine itself: the server would answer itself
    /// without end. It asks about each address once a second at most.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Server, Timestamp};
    ///
    /// let mut core = Server::builder(Text).core(|text: &str| Some(text.to_owned()));
    /// core.add_local_addr("0.0.0.0:9999".parse()?);
    /// core.set_is_local_ip(|addr| addr.ip().is_loopback());
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// for peer in ["192.0.2.1:9999", "127.0.0.1:9999"] {
    ///     inbox.push(b"hello", Meta::new(peer.parse()?));
    /// }
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::SourceOwn), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn set_is_local_ip(&mut self, is_local: fn(SocketAddr) -> bool) {
        self.sources.set_is_local(is_local);
    }

    /// The codec.
    ///
    /// ```
    /// use rejoinder::Codec;
    /// use rejoinder::codec::Text;
    ///
    /// let core = rejoinder::Server::builder(Text).core(());
    /// assert_eq!(core.codec().decode_request(b"hello"), Ok("hello"));
    /// ```
    pub fn codec(&self) -> &C {
        &self.codec
    }
}

impl<C, H, G> ServerCore<C, H, G> {
    /// Counts what became of the outbox.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::SendReport;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// let mut report = SendReport::accepted(2);
    /// report.record_failure(std::io::ErrorKind::HostUnreachable.into());
    /// core.on_sent(&report);
    /// assert_eq!(
    ///     (core.stats().responses_sent, core.stats().responses_failed),
    ///     (2, 1)
    /// );
    /// ```
    pub fn on_sent(&mut self, report: &SendReport) {
        self.stats.count_sent(report);
        if let Some(error) = &report.last_error {
            self.last_send_error = Some(LastError::new(error));
            self.log.send_failed(self.latest, error, report.failed);
        }
    }

    /// Counts an attempt to receive that failed.
    ///
    /// ```
    /// use rejoinder::Timestamp;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::ErrorClass;
    /// use std::io;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// core.on_receive_error(
    ///     Timestamp::system(),
    ///     &io::Error::from(io::ErrorKind::ConnectionRefused),
    /// );
    /// assert_eq!(core.stats().receive_errors_of(ErrorClass::Peer), 1);
    /// ```
    pub fn on_receive_error(&mut self, now: Timestamp, error: &io::Error) {
        self.stats.count_receive_error(error);
        // A signal is no error worth keeping.
        if ErrorClass::classify(error) != ErrorClass::Interrupted {
            self.last_receive_error = Some(LastError::new(error));
        }
        self.log.receive_failed(now, error);
    }

    /// Sets how many datagrams the kernel has dropped in total, see
    /// [`Transport::kernel_drops`](crate::Transport::kernel_drops).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// core.set_kernel_drops(3);
    /// core.set_kernel_drops(5);
    /// assert_eq!(core.stats().kernel_drops, 5);
    /// ```
    pub fn set_kernel_drops(&mut self, total: u64) {
        self.stats.kernel_drops = total;
    }

    /// The counters. [`pending`](Stats::pending) are the datagrams that the latest call left in the
    /// inbox.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// assert_eq!(core.stats().received, 0);
    /// ```
    pub fn stats(&self) -> Stats {
        self.stats.with_pending(self.pending)
    }

    /// The latest error in receiving, whenever that was.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// assert!(core.last_receive_error().is_none());
    /// ```
    pub fn last_receive_error(&self) -> Option<io::Error> {
        self.last_receive_error.map(Into::into)
    }

    /// The latest error in sending, whenever that was.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// assert!(core.last_send_error().is_none());
    /// ```
    pub fn last_send_error(&self) -> Option<io::Error> {
        self.last_send_error.map(Into::into)
    }
}

impl<C: Codec, H: Handler<C>, G: Gate> Node for ServerCore<C, H, G> {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.handle(now, inbox, outbox);
    }

    fn on_sent(&mut self, report: &SendReport) {
        self.on_sent(report);
    }
}

impl<C, H, G> fmt::Debug for ServerCore<C, H, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCore")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
