use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, SystemTime};

use super::log::Log;
use super::source::SourceCheck;
use super::stats::{Fate, Stats};
use crate::codec::Codec;
use crate::drop_reason::DropReason;
use crate::gate::{Gate, ReplySize};
use crate::handler::{Context, Handler, MAX_REPLIES, Reply, ReplyError};
use crate::sim::Node;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, ErrorClass, Inbox, Outbox, SendReport};

/// The server without its surroundings: no socket, no clock, no thread, only a function from
/// datagrams to datagrams.
///
/// [`Server`](crate::Server) drives one over a transport; a [`SimNet`](crate::sim::SimNet) hosts one in
/// memory; a test, or a driver of your own, calls it directly:
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::Timestamp;
///
/// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// inbox.push(b"quiet", Meta::new("192.0.2.1:7777".parse()?));
/// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
/// assert_eq!(
///     outbox.iter().next().map(|reply| reply.bytes),
///     Some(&b"QUIET"[..])
/// );
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct ServerCore<C, H, G = ()> {
    codec: C,
    handler: H,
    gate: G,
    sources: SourceCheck,
    max_age: Option<Duration>,
    stats: Stats,
    last_receive_error: Option<LastError>,
    last_send_error: Option<LastError>,
    log: Log,
    /// When the latest batch was received, for the log.
    latest: Timestamp,
    /// What the clock said when it was last read between requests.
    last_read: Duration,
}

impl<C: Codec, H: Handler<C>> ServerCore<C, H> {
    /// A core that has seen nothing yet.
    pub fn new(codec: C, handler: H) -> Self {
        Self {
            codec,
            handler,
            gate: (),
            sources: SourceCheck::default(),
            max_age: None,
            stats: Stats::default(),
            last_receive_error: None,
            last_send_error: None,
            log: Log::default(),
            latest: Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH),
            last_read: Duration::ZERO,
        }
    }
}

impl<C: Codec, H: Handler<C>, G: Gate> ServerCore<C, H, G> {
    /// Adds a gate, after those that are there.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::AmplificationLimit;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
    /// let core = core.gate(AmplificationLimit::default());
    /// ```
    pub fn gate<G2: Gate>(self, gate: G2) -> ServerCore<C, H, (G, G2)> {
        ServerCore {
            codec: self.codec,
            handler: self.handler,
            gate: (self.gate, gate),
            sources: self.sources,
            max_age: self.max_age,
            stats: self.stats,
            last_receive_error: self.last_receive_error,
            last_send_error: self.last_send_error,
            log: self.log,
            latest: self.latest,
            last_read: self.last_read,
        }
    }

    /// The source ports that are never answered, see
    /// [`ServerBuilder::blocked_ports`](crate::ServerBuilder::blocked_ports).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Timestamp};
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let mut core = ServerCore::new(Text, echo).blocked_ports([7777]);
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(b"hello", Meta::new("192.0.2.1:7777".parse()?));
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::SourceReflector), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn blocked_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.sources.set_blocked_ports(ports);
        self
    }

    /// The address that the server is bound to: what claims to come from there is dropped. A server
    /// with several addresses says each of them. Default: none is known.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Timestamp};
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let mut core = ServerCore::new(Text, echo).local_addr("192.0.2.1:9999".parse()?);
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(b"hello", Meta::new("192.0.2.1:9999".parse()?));
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::SourceOwn), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.sources.add_own(addr);
        self
    }

    /// How to find out whether an address is one of this machine's, as
    /// [`Transport::is_local_ip`](crate::Transport::is_local_ip) does. It is asked about peers that have
    /// one of the server's own ports, where the server is bound to all addresses: what comes from the
    /// machine itself is dropped, because the server would answer itself for ever. Each address is
    /// asked about once a second at most. Default: every such peer is taken for the server itself.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Timestamp};
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let mut core = ServerCore::new(Text, echo)
    ///     .local_addr("0.0.0.0:9999".parse()?)
    ///     .is_local_ip(|addr| addr.ip().is_loopback());
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// for peer in ["192.0.2.1:9999", "127.0.0.1:9999"] {
    ///     inbox.push(b"hello", Meta::new(peer.parse()?));
    /// }
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::SourceOwn), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn is_local_ip(mut self, is_local: fn(SocketAddr) -> bool) -> Self {
        self.sources.set_is_local(is_local);
        self
    }

    /// How old a request may be, see [`ServerBuilder::max_age`](crate::ServerBuilder::max_age).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Timestamp};
    /// use std::time::Duration;
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let mut core = ServerCore::new(Text, echo).max_age(Duration::from_secs(5));
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?);
    /// meta.waited = Duration::from_secs(6);
    /// inbox.push(b"hello?", meta);
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::Stale), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Takes datagrams out of the inbox and queues the replies, until the inbox is empty or the
    /// outbox has no room for the replies to one more. `now` is when the inbox was received.
    ///
    /// # Panics
    ///
    /// If the outbox has no room even when empty: it must hold at least [`MAX_REPLIES`] datagrams.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::handler::MAX_REPLIES;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::Timestamp;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
    /// // Room for the replies to one request at a time.
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(MAX_REPLIES, 512));
    /// for word in [b"one", b"two"] {
    ///     inbox.push(word, Meta::new("192.0.2.1:7777".parse()?));
    /// }
    /// let mut answers = Vec::new();
    /// while !inbox.is_empty() {
    ///     core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    ///     answers.extend(outbox.iter().map(|reply| reply.bytes.to_vec())); // send them
    ///     outbox.clear();
    /// }
    /// assert_eq!(answers, [b"ONE", b"TWO"]);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn handle(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.handle_with_clock(now, || now, inbox, outbox);
    }

    /// The same, with a clock to see how long requests and replies wait for the handler: this also
    /// returns after 10 ms if there are replies, so that they leave although the handler is slow.
    ///
    /// The clock is read after the first request, after twice as many, and so on (after eight times
    /// as many, while the 10 ms are far), and at least after every 64th, while there are more: a lone
    /// request costs no reading. (After 10 ms without a reply it is read after each.) If a
    /// [`max_age`](Self::max_age) is set, it is read before each request.
    ///
    /// # Panics
    ///
    /// As [`handle`](Self::handle).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::Timestamp;
    /// use std::cell::Cell;
    /// use std::time::{Duration, SystemTime};
    ///
    /// // Each reading of the clock is 10 ms after the one before.
    /// let elapsed = Cell::new(Duration::ZERO);
    /// let clock = || {
    ///     elapsed.set(elapsed.get() + Duration::from_millis(10));
    ///     Timestamp::new(elapsed.get(), SystemTime::UNIX_EPOCH)
    /// };
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// for word in [b"one", b"two"] {
    ///     inbox.push(word, Meta::new("192.0.2.1:7777".parse()?));
    /// }
    /// core.handle_with_clock(clock(), clock, &mut inbox, &mut outbox);
    /// // The first answer is not to wait for the second request.
    /// assert_eq!((outbox.len(), inbox.len()), (1, 1));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn handle_with_clock(
        &mut self,
        received: Timestamp,
        clock: impl Fn() -> Timestamp,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) {
        assert!(
            !outbox.is_empty() || outbox.has_room_for(MAX_REPLIES),
            "an outbox holds the replies to one request"
        );
        self.latest = received;
        // The rest of a batch that was left to let replies go begins where that was seen.
        let mut begun = received.monotonic.max(self.last_read);
        let mut at = received.monotonic;
        let mut handled = 0;
        let mut next_read = usize::from(self.max_age.is_none());
        while outbox.has_room_for(MAX_REPLIES) && !inbox.is_empty() {
            if handled == next_read {
                at = clock().monotonic;
                self.last_read = at;
                if handled == 0 {
                    begun = at;
                }
                let elapsed = at.saturating_sub(begun);
                if elapsed >= FLUSH_AFTER && !outbox.is_empty() {
                    break;
                }
                next_read += match self.max_age {
                    // At the pace so far, half of the time will be over then.
                    None if elapsed < FLUSH_AFTER / 16 => (7 * handled).clamp(1, MAX_UNTIMED),
                    None if elapsed < FLUSH_AFTER => handled.clamp(1, MAX_UNTIMED),
                    _ => 1,
                };
            }
            handled += 1;
            let datagram = inbox.pop().expect("it is not empty");
            let waited = at
                .saturating_sub(received.monotonic)
                .saturating_add(datagram.meta.waited);
            let is_stale = self.max_age.is_some_and(|max_age| waited > max_age);
            let fate = self.answer(received, &datagram, is_stale, outbox);
            self.stats.count(fate);
        }
    }

    /// The whole life of a datagram.
    fn answer(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        is_stale: bool,
        outbox: &mut Outbox,
    ) -> Fate {
        let queued = outbox.len();
        // What a panic could leave half done is the handler's own state, which is its own affair,
        // and the outbox, which is set back. The codec and the gates are inside too: they should
        // never panic, but one datagram that makes them do so must not be the end of the server.
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            self.answer_or_panic(now, datagram, is_stale, outbox)
        }));
        let refusal = match result {
            Ok(Ok(fate)) => return fate,
            Ok(Err(refusal)) => refusal,
            Err(payload) => {
                drop_quietly(payload);
                Refusal::For(DropReason::HandlerPanicked)
            }
        };
        outbox.truncate(queued);
        let (reason, cause): (_, Option<&(dyn Error + 'static)>) = match &refusal {
            Refusal::For(reason) => (*reason, None),
            Refusal::Malformed(error) => (DropReason::Malformed, Some(error)),
            Refusal::Reply(error) => (DropReason::ReplyFailed, Some(error)),
        };
        // To show an error of the codec is its own code again, and so is to drop it. Each has a
        // catch of its own: a panic within a panic would be the end.
        let log = &mut self.log;
        quietly(|| log.dropped(now, &datagram.meta, reason, cause));
        quietly(|| drop(refusal));
        Fate::Dropped(reason)
    }

    fn answer_or_panic(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        is_stale: bool,
        outbox: &mut Outbox,
    ) -> Result<Fate, Refusal<C::Error>> {
        let Datagram { bytes, meta } = datagram;
        if meta.truncated {
            return Err(Refusal::For(DropReason::Truncated));
        }
        self.sources.check(now.monotonic, meta)?;
        if is_stale {
            return Err(Refusal::For(DropReason::Stale));
        }
        if self.codec.is_response(bytes) {
            return Err(Refusal::For(DropReason::Response));
        }
        self.gate.accept(now, datagram)?;
        let request = self
            .codec
            .decode_request(bytes)
            .map_err(Refusal::Malformed)?;
        let queued = outbox.len();
        let context = Context::new(meta, now);
        let mut reply = Reply::new(&self.codec, bytes, &context, outbox);
        self.handler
            .handle(request, &context, &mut reply)
            .map_err(Refusal::Reply)?;
        if outbox.len() == queued {
            return Ok(Fate::Silent);
        }
        let replies = ReplySize::new(outbox.len() - queued, outbox.bytes_from(queued));
        self.gate.release(now, datagram, replies)?;
        Ok(Fate::Replied)
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
    /// let mut sent = SendReport {
    ///     datagrams: 2,
    ///     ..SendReport::default()
    /// };
    /// sent.fail(std::io::ErrorKind::HostUnreachable.into());
    /// core.on_sent(&sent);
    /// assert_eq!(
    ///     (core.stats().replies_sent, core.stats().replies_failed),
    ///     (2, 1)
    /// );
    /// ```
    pub fn on_sent(&mut self, sent: &SendReport) {
        self.stats.count_sent(sent);
        if let Some(error) = &sent.error {
            self.last_send_error = Some(LastError::new(error));
            self.log.send_failed(self.latest, error, sent.failed);
        }
    }

    /// Counts an attempt to receive that failed.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::ErrorClass;
    /// use rejoinder::Timestamp;
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
        // That a signal came is nothing to look at.
        if ErrorClass::classify(error) != ErrorClass::Interrupted {
            self.last_receive_error = Some(LastError::new(error));
        }
        self.log.on_receive_error(now, error);
    }

    /// Notes how many datagrams the system has dropped in all, see
    /// [`Transport::kernel_drops`](crate::Transport::kernel_drops).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// core.set_kernel_drops(3);
    /// core.set_kernel_drops(5); // two more, not five
    /// assert_eq!(core.stats().kernel_drops, 5);
    /// ```
    pub fn set_kernel_drops(&mut self, datagrams: u64) {
        self.stats.kernel_drops = datagrams;
    }

    /// The counters. Nothing is pending here: what was not popped was not seen.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    ///
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// assert_eq!(core.stats().received, 0);
    /// ```
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// What [`ServerHandle`](super::ServerHandle) shows, with `pending` datagrams not popped yet.
    pub(super) fn snapshot(&self, pending: usize) -> Snapshot {
        Snapshot {
            stats: self.stats.with_pending(pending),
            last_receive_error: self.last_receive_error,
            last_send_error: self.last_send_error,
        }
    }
}

impl<C: Codec, H: Handler<C>, G: Gate> Node for ServerCore<C, H, G> {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.handle(now, inbox, outbox);
    }

    fn on_sent(&mut self, sent: &SendReport) {
        self.on_sent(sent);
    }
}

impl<C, H, G> fmt::Debug for ServerCore<C, H, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCore")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A core's counters, and its latest troubles.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) stats: Stats,
    pub(super) last_receive_error: Option<LastError>,
    pub(super) last_send_error: Option<LastError>,
}

/// An error in a form that can be copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastError {
    kind: ErrorKind,
    os_code: Option<i32>,
}

impl LastError {
    fn new(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            os_code: error.raw_os_error(),
        }
    }
}

impl From<LastError> for io::Error {
    fn from(error: LastError) -> Self {
        match error.os_code {
            Some(code) => Self::from_raw_os_error(code),
            None => error.kind.into(),
        }
    }
}

/// Why nothing is sent for a datagram.
enum Refusal<E> {
    For(DropReason),
    Malformed(E),
    Reply(ReplyError),
}

impl<E> From<DropReason> for Refusal<E> {
    fn from(reason: DropReason) -> Self {
        Self::For(reason)
    }
}

/// Does what should not panic, and goes on if it does.
#[inline]
fn quietly(act: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(act)) {
        drop_quietly(payload);
    }
}

/// Drops what a panic was raised with, which may panic in turn.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(next) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // It could go on like this for ever.
        mem::forget(next);
    }
}

/// How long the first replies of a batch may wait for the others, where a clock tells.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// The most requests between two readings of the clock.
const MAX_UNTIMED: usize = 64;
