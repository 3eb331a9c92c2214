//! The server: a short loop around a pure core.

mod core;
mod gate;
mod log;
mod stats;

use std::fmt;
use std::io;
use std::iter;
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use self::core::ServerCore;
use self::core::Snapshot;
pub use self::gate::{
    AmplificationLimit, Gate, REFLECTOR_PORTS, RateLimit, RateLimitBuilder, RateLimitError, Replies,
};
pub use self::stats::{DropReason, Stats};
use crate::codec::Codec;
use crate::handler::{Handler, MAX_REPLIES};
use crate::transport::{
    ErrorClass, Inbox, MAX_DATAGRAM_BYTES, Outbox, Transport, UdpFeature, UdpOptions, UdpTransport,
    Wait,
};

/// A server: a transport, a codec, and with [`serve`](Self::serve) a handler.
///
/// ```no_run
/// use rejoinder::{Server, Text};
///
/// Server::bind("127.0.0.1:9999", Text)?.serve(|line: &str| match line.strip_prefix("upper ") {
///     Some(rest) => Some(rest.to_uppercase()),
///     None => None, // silence is a valid answer
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server<T, C, G = ()> {
    /// One at least.
    workers: Vec<Worker<T, C, G>>,
    limits: Limits,
    blocked_ports: Vec<u16>,
    shared: Arc<Shared>,
}

/// What each thread has of its own.
#[derive(Debug)]
struct Worker<T, C, G> {
    transport: T,
    codec: C,
    gate: G,
}

impl<C: Codec> Server<UdpTransport, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    pub fn bind(addr: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        let transport = UdpTransport::bind(addr)?;
        Ok(ServerBuilder::new(codec).on(transport))
    }
}

impl<T: Transport, C: Codec, G: Gate> Server<T, C, G> {
    /// The address that the server can be asked at; that of its first transport, if they
    /// [differ](ServerBuilder::on_all).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.workers[0].transport.local_addr()
    }

    /// A handle that stops the server and reads its counters, from wherever it is.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Answers requests until [`ServerHandle::stop`] is called, and returns the counters.
    ///
    /// No datagram, no error of the socket and no panic of the handler ends it early: they are
    /// counted. After an error that stays it waits before it tries again: 1 ms, and twice as long
    /// each time up to 100 ms; errors that anybody can cause with a packet
    /// ([`ErrorClass::Peer`]) make it wait 1 ms at the most. Nothing is tried again in sending. The
    /// one exception is a socket that is gone. A [limit](ServeError::LimitOutOfRange) that is out of
    /// range is told before it begins.
    ///
    /// A panic can be survived only where it unwinds: with `panic = "abort"` the first one ends the
    /// program. And the panic hook runs for each, also for those that are survived: the default one
    /// prints the message as it is, however often it happens and whatever it quotes. A program whose
    /// panics somebody outside might cause sets [a hook](std::panic::set_hook) that
    /// [escapes](crate::Escaped) what it prints, and limits it.
    ///
    /// Where the handler is slow, finished replies do not wait for the rest of a batch for much longer
    /// than 10 ms, see [`ServerCore::handle_with_clock`].
    ///
    /// The handler is shared by all [workers](ServerBuilder::workers). The first of them is the
    /// calling thread. If one worker ends with an error or a panic, the others are asked to end.
    pub fn serve<H>(self, handler: H) -> Result<Stats, ServeError>
    where
        T: Send,
        C: Send,
        G: Send,
        H: Handler<C> + Send + Sync,
    {
        self.limits.check()?;
        log::started(&self.local_addr());
        let Self {
            workers,
            limits,
            blocked_ports,
            shared,
        } = self;
        let handler = Arc::new(handler);
        // Two workers that face each other must go quiet too.
        let own: Vec<_> = workers
            .iter()
            .filter_map(|worker| worker.transport.local_addr().ok())
            .collect();
        let work = |worker, index| {
            let end_all = EndAll(&shared);
            let handler = Arc::clone(&handler);
            let ended = work(
                worker,
                handler,
                limits,
                &blocked_ports,
                &own,
                &shared,
                index,
            );
            if ended.gone.is_none() {
                mem::forget(end_all);
            }
            ended
        };
        let work = &work;
        let mut workers = workers.into_iter().zip(0..);
        let (first, _) = workers.next().expect("a server has a worker");
        let stats = thread::scope(|scope| {
            let mut no_thread = None;
            let mut others = Vec::new();
            for (worker, index) in workers {
                let thread = thread::Builder::new().name(format!("worker {index}"));
                match thread.spawn_scoped(scope, move || work(worker, index)) {
                    Ok(thread) => others.push(thread),
                    Err(source) => {
                        shared.end();
                        no_thread = Some(source);
                        break;
                    }
                }
            }
            // Even if there are too few of them: what has arrived is answered.
            let first = work(first, 0);
            let mut total = Stats::default();
            let others = others.into_iter().map(|thread| {
                let result = thread.join();
                result.unwrap_or_else(|payload| panic::resume_unwind(payload))
            });
            let mut gone = None;
            for worker in iter::once(first).chain(others) {
                total += worker.stats;
                gone = gone.or(worker.gone);
            }
            match (no_thread, gone) {
                (None, None) => Ok(total),
                (Some(source), _) => Err(ServeError::Thread { source }),
                (None, Some(source)) => Err(ServeError::TransportGone {
                    source,
                    stats: Box::new(total),
                }),
            }
        })?;
        log::ended(&stats);
        Ok(stats)
    }
}

/// How the life of a worker ended.
struct Ended {
    stats: Stats,
    /// What the transport said, if nobody had asked the worker to end.
    gone: Option<io::Error>,
}

/// The life of one worker.
fn work<T: Transport, C: Codec, G: Gate, H: Handler<C>>(
    worker: Worker<T, C, G>,
    handler: Arc<H>,
    limits: Limits,
    blocked_ports: &[u16],
    own: &[SocketAddr],
    shared: &Shared,
    index: usize,
) -> Ended {
    let Worker {
        mut transport,
        codec,
        gate,
    } = worker;
    let mut core = ServerCore::shared(codec, handler)
        .gate(gate)
        .blocked_ports(blocked_ports.iter().copied());
    for &addr in own {
        core = core.local_addr(addr);
    }
    if let Some(max_age) = limits.max_age {
        core = core.max_age(max_age);
    }
    let wait = if limits.busy_poll {
        Wait::Spin(STOP_CHECK)
    } else {
        Wait::For(STOP_CHECK)
    };
    let mut inbox = Inbox::new(limits.batch, limits.max_request_bytes);
    let mut outbox = Outbox::new(MAX_REPLIES_PER_BATCH, limits.max_reply_bytes);
    let mut drained = 0;
    let mut failures = Failures::default();
    loop {
        let stopping = shared.stop.load(Ordering::Relaxed);
        let wait = match stopping {
            true if drained >= MAX_DRAINED => break,
            true => Wait::No,
            false => wait,
        };
        match transport.recv(&mut inbox, wait) {
            Ok(0) if stopping => break,
            Ok(received) => {
                failures = Failures::default();
                if stopping {
                    drained += received;
                }
            }
            Err(error) => {
                core.receive_failed(transport.now(), &error);
                shared.publish(index, &core.snapshot(inbox.len()));
                let class = ErrorClass::of(&error);
                if class == ErrorClass::Gone {
                    return Ended {
                        stats: core.stats(),
                        gone: Some(error),
                    };
                }
                let pause = failures.pause_after(class);
                // An error says nothing about the datagrams that wait behind it.
                if !stopping {
                    thread::sleep(pause);
                } else if failures.in_a_row() >= MAX_DRAIN_FAILURES {
                    break;
                }
            }
        }
        core.kernel_dropped(transport.kernel_drops());
        let received = transport.now();
        while !inbox.is_empty() {
            let clock = || transport.now();
            core.handle_with_clock(received, clock, &mut inbox, &mut outbox);
            core.sent(&transport.send(&outbox));
            outbox.clear();
            shared.publish(index, &core.snapshot(inbox.len()));
        }
    }
    Ended {
        stats: core.stats(),
        gone: None,
    }
}

/// Asks all workers to end when it is dropped.
struct EndAll<'a>(&'a Shared);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Options of a server. Every one has a default that is right for most.
///
/// ```
/// use rejoinder::{ServerBuilder, Text};
///
/// let server = ServerBuilder::new(Text).max_request_bytes(1200).bind("127.0.0.1:0")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerBuilder<C, G = ()> {
    codec: C,
    gate: G,
    blocked_ports: Vec<u16>,
    udp: UdpOptions,
    limits: Limits,
    workers: usize,
}

impl<C: Codec> ServerBuilder<C> {
    /// The defaults.
    pub fn new(codec: C) -> Self {
        Self {
            codec,
            gate: (),
            blocked_ports: REFLECTOR_PORTS.to_vec(),
            udp: UdpOptions::new(),
            limits: Limits {
                max_age: None,
                max_request_bytes: MAX_DATAGRAM_BYTES,
                max_reply_bytes: MAX_DATAGRAM_BYTES,
                batch: 64,
                busy_poll: false,
            },
            workers: 1,
        }
    }
}

impl<C: Codec, G: Gate> ServerBuilder<C, G> {
    /// Adds a [gate](Gate), after those that are there. Default: none, beside what is
    /// [always on](DropReason).
    ///
    /// A server on a public address should have a [`RateLimit`](crate::RateLimit).
    pub fn gate<G2: Gate>(self, gate: G2) -> ServerBuilder<C, (G, G2)> {
        ServerBuilder {
            codec: self.codec,
            gate: (self.gate, gate),
            blocked_ports: self.blocked_ports,
            udp: self.udp,
            limits: self.limits,
            workers: self.workers,
        }
    }

    /// The source ports that are never answered, instead of [`REFLECTOR_PORTS`]. None at all means
    /// that only port 0 is not.
    #[must_use]
    pub fn blocked_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.blocked_ports = ports.into_iter().collect();
        self
    }

    /// How old a request may be when its turn comes; an older one is dropped unread, as
    /// [`Stale`](DropReason::Stale). Set it to the time after which clients have given up. Default:
    /// no limit. Zero drops whatever waited at all.
    ///
    /// Its age is the time that it waited in the system's queue, if the transport knows
    /// ([`Meta::waited`](crate::Meta::waited); over UDP on Linux it does, see
    /// [`UdpFeature::Timestamp`]), and the time since it was received. The clock is then read for
    /// each request, by the system and by the server.
    ///
    /// The system notes the time of arrival by the civil clock. If that is set while datagrams wait in
    /// the queue, they seem older or younger by as much; what seems to have come later than now, or
    /// over an hour ago, counts as not having waited there.
    ///
    /// Linux notes times of arrival only while a socket of the machine asks for them, and takes a
    /// moment to begin: what waits in the queue meanwhile seems to arrive when it is received.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.limits.max_age = Some(max_age);
        self
    }

    /// The longest request that is read, in bytes; longer ones are dropped as
    /// [`Truncated`](DropReason::Truncated). Default: 65,507, all that a datagram can carry over
    /// IPv4. Up to 65,527, which is all over IPv6 (RFC 8200 §3); more is an error of
    /// [`bind`](Self::bind), or of [`serve`](Server::serve) after [`on`](Self::on). Zero reads
    /// empty requests only.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_request_bytes = bytes;
        self
    }

    /// The longest reply that is sent, in bytes; a handler that tries a longer one gets
    /// [`TooLong`](crate::ReplyError::TooLong). Default: 65,507. Up to 65,527, as for
    /// [requests](Self::max_request_bytes). With zero, only empty replies are.
    #[must_use]
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_reply_bytes = bytes;
        self
    }

    /// How the sockets of [`bind`](Self::bind) are opened.
    #[must_use]
    pub fn udp(mut self, options: UdpOptions) -> Self {
        self.udp = options;
        self
    }

    /// How many threads serve, each with a socket of its own on the same address, a clone of the
    /// codec and of the gates, and the one handler. The system spreads peers among the sockets, so
    /// the requests of one peer are answered by one worker, in order. Default: 1.
    ///
    /// It is for [`bind`](Self::bind), and more than one needs Linux: there and elsewhere see
    /// [`UdpOptions::bind_group`]. Zero is an error.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Whether the server waits for requests without ever giving up the processor. It saves the
    /// time to fall asleep and wake up, several microseconds per request at low load, and costs all
    /// of one core per worker, idle or not. Default: `false`.
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: bool) -> Self {
        self.limits.busy_poll = busy_poll;
        self
    }

    /// A server on UDP sockets of its own.
    ///
    /// A limit that is out of range is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput).
    pub fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Server<UdpTransport, C, G>>
    where
        C: Clone,
        G: Clone,
    {
        let check = self.limits.check();
        check.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let udp = match self.limits.max_age {
            Some(_) => self.udp.clone().with(UdpFeature::Timestamp),
            None => self.udp.clone(),
        };
        let mut group = udp.bind_group(addr, self.workers)?;
        let last = group.pop().expect("a group has a socket");
        Ok(self.with_all(group, last))
    }

    /// A server on a transport that is open already, with one worker.
    pub fn on<T: Transport>(self, transport: T) -> Server<T, C, G> {
        self.with(Vec::new(), transport)
    }

    /// A server on several transports that are open already, with a worker for each: on sockets that
    /// a service manager passes, say. They may have different addresses.
    ///
    /// The requests of one peer are answered in order if they all arrive at the same transport, as
    /// they do in a [group](UdpOptions::bind_group). None at all is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput).
    ///
    /// ```
    /// use rejoinder::{ServerBuilder, Text, UdpTransport};
    ///
    /// let transports = [UdpTransport::bind("127.0.0.1:0")?, UdpTransport::bind("127.0.0.1:0")?];
    /// let server = ServerBuilder::new(Text).on_all(transports)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_all<T: Transport>(
        self,
        transports: impl IntoIterator<Item = T>,
    ) -> io::Result<Server<T, C, G>>
    where
        C: Clone,
        G: Clone,
    {
        let mut transports: Vec<_> = transports.into_iter().collect();
        let last = transports.pop().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a server has a transport")
        })?;
        Ok(self.with_all(transports, last))
    }

    fn with_all<T>(self, transports: Vec<T>, last: T) -> Server<T, C, G>
    where
        C: Clone,
        G: Clone,
    {
        let workers = transports.into_iter().map(|transport| Worker {
            transport,
            codec: self.codec.clone(),
            gate: self.gate.clone(),
        });
        let workers = workers.collect();
        self.with(workers, last)
    }

    fn with<T>(self, mut workers: Vec<Worker<T, C, G>>, transport: T) -> Server<T, C, G> {
        workers.push(Worker {
            transport,
            codec: self.codec,
            gate: self.gate,
        });
        Server {
            shared: Arc::new(Shared::new(workers.len())),
            workers,
            limits: self.limits,
            blocked_ports: self.blocked_ports,
        }
    }
}

/// Stops a [`Server`] and reads its counters while it runs.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// Asks the server to end. It answers what has arrived already, the system's queue included
    /// (at most 65,536 datagrams per worker), and returns from [`serve`](Server::serve): within half a second,
    /// unless a handler keeps it longer.
    ///
    /// All that it does is to set a flag, so a signal handler may call it.
    pub fn stop(&self) {
        self.shared.end();
    }

    /// The counters of all workers together, each after its latest batch. They are consistent with
    /// each other.
    pub fn stats(&self) -> Stats {
        self.shared.snapshots().map(|worker| worker.stats).sum()
    }

    /// The latest error in receiving, whenever that was; with several workers, that of one which
    /// had any.
    pub fn last_receive_error(&self) -> Option<io::Error> {
        let mut errors = self
            .shared
            .snapshots()
            .map(|worker| worker.last_receive_error);
        errors.find_map(|error| error.map(Into::into))
    }

    /// The latest error in sending, likewise.
    pub fn last_send_error(&self) -> Option<io::Error> {
        let mut errors = self.shared.snapshots().map(|worker| worker.last_send_error);
        errors.find_map(|error| error.map(Into::into))
    }
}

/// Why a server ended without having been asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// There is nothing left to receive from: the socket was closed underneath, for example.
    #[error("the transport is gone")]
    TransportGone {
        /// What the transport said.
        source: io::Error,
        /// The last counters, of all workers together.
        stats: Box<Stats>,
    },
    /// A limit of the [`ServerBuilder`] is one that no datagram can reach. A server that was
    /// [bound](ServerBuilder::bind) has heard of it there.
    #[error("{limit} is {bytes}, but no datagram has more than {MAX_LIMIT_BYTES} bytes")]
    LimitOutOfRange {
        /// The name of the option.
        limit: &'static str,
        /// What it was set to, in bytes.
        bytes: usize,
    },
    /// There are not as many threads to be had as the server was to have.
    #[error("a worker could not be started")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    max_request_bytes: usize,
    max_reply_bytes: usize,
    /// In buffers for receiving.
    batch: usize,
    busy_poll: bool,
    max_age: Option<Duration>,
}

impl Limits {
    fn check(&self) -> Result<(), ServeError> {
        let limits = [
            ("max_request_bytes", self.max_request_bytes),
            ("max_reply_bytes", self.max_reply_bytes),
        ];
        match limits.into_iter().find(|limit| limit.1 > MAX_LIMIT_BYTES) {
            None => Ok(()),
            Some((limit, bytes)) => Err(ServeError::LimitOutOfRange { limit, bytes }),
        }
    }
}

struct Shared {
    stop: AtomicBool,
    workers: Box<[Published]>,
}

/// What one worker shows to the others.
///
/// One lock per batch costs less than one atomic addition per counter and datagram would, and
/// readers see counters that fit together. Two workers do not write to the same line of the cache.
#[derive(Default)]
#[repr(align(128))]
struct Published(Mutex<Snapshot>);

impl Shared {
    fn new(workers: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            workers: iter::repeat_with(Published::default)
                .take(workers)
                .collect(),
        }
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn publish(&self, worker: usize, snapshot: &Snapshot) {
        *self.workers[worker]
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = *snapshot;
    }

    fn snapshots(&self) -> impl Iterator<Item = Snapshot> {
        let lock = |one: &Published| *one.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.workers.iter().map(lock)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// How often receiving failed since it last succeeded.
#[derive(Debug, Default)]
struct Failures {
    lasting: u32,
    /// Of the class that anybody can cause.
    provoked: u32,
}

impl Failures {
    fn in_a_row(&self) -> u32 {
        self.lasting.saturating_add(self.provoked)
    }

    /// How long to wait after one more failure. A first one may pass at once. Each that was
    /// provoked is gone once it was told, and a pause would only help whoever provokes them; yet a
    /// system that told the same one again and again must not be asked without a pause.
    fn pause_after(&mut self, class: ErrorClass) -> Duration {
        match class {
            ErrorClass::Interrupted => Duration::ZERO,
            ErrorClass::Peer => {
                self.provoked = self.provoked.saturating_add(1);
                match self.provoked {
                    0..=FREE_PROVOKED => Duration::ZERO,
                    _ => MIN_PAUSE,
                }
            }
            _ => {
                self.lasting = self.lasting.saturating_add(1);
                match self.lasting {
                    1 => Duration::ZERO,
                    times => MAX_PAUSE.min(MIN_PAUSE * (1 << (times - 2).min(7))),
                }
            }
        }
    }
}

/// The most that fits into a datagram of UDP over IPv6: 65,535 bytes less the header of UDP.
const MAX_LIMIT_BYTES: usize = 65_527;
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// How many provoked failures in a row cost no pause.
const FREE_PROVOKED: u32 = 64;
/// How often an idle server looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// How many replies leave at once: more would not be faster.
const MAX_REPLIES_PER_BATCH: usize = 1_024 + MAX_REPLIES;
/// How many datagrams each worker still answers after it was asked to end.
const MAX_DRAINED: usize = 65_536;
/// How many times in a row receiving may fail before a server that was asked to end gives up.
const MAX_DRAIN_FAILURES: u32 = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ErrorClass, Failures};

    #[test]
    fn a_lasting_failure_is_met_with_longer_and_longer_pauses() {
        let mut failures = Failures::default();
        let pauses = [(); 12].map(|()| failures.pause_after(ErrorClass::Resources).as_millis());
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100]);
    }

    #[test]
    fn failures_that_anybody_can_cause_do_not_slow_a_server_down() {
        let mut failures = Failures::default();
        let pauses = || failures.pause_after(ErrorClass::Peer);
        let pauses: Vec<_> = std::iter::repeat_with(pauses).take(1_000).collect();
        assert!(pauses[..64].iter().all(Duration::is_zero));
        assert!(pauses[64..].iter().all(|pause| pause.as_millis() == 1));
        assert!(failures.pause_after(ErrorClass::Interrupted).is_zero());
    }
}
