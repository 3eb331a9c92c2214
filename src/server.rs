//! The server: a short loop around a pure core.

mod core;
mod gate;
mod log;
mod stats;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
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
    ErrorClass, Inbox, MAX_DATAGRAM_BYTES, Outbox, Transport, UdpOptions, UdpTransport, Wait,
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
    transport: T,
    codec: C,
    gate: G,
    limits: Limits,
    blocked_ports: Vec<u16>,
    shared: Arc<Shared>,
}

impl<C: Codec> Server<UdpTransport, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    pub fn bind(addr: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        ServerBuilder::new(codec).bind(addr)
    }
}

impl<T: Transport, C: Codec, G: Gate> Server<T, C, G> {
    /// The address that the server can be asked at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.transport.local_addr()
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
    /// one exception is a socket that is gone.
    pub fn serve<H: Handler<C>>(self, handler: H) -> Result<Stats, ServeError> {
        let Self {
            mut transport,
            codec,
            gate,
            limits,
            blocked_ports,
            shared,
        } = self;
        let addr = transport.local_addr();
        log::started(&addr);
        let mut core = ServerCore::new(codec, handler)
            .gate(gate)
            .blocked_ports(blocked_ports);
        if let Ok(addr) = addr {
            core = core.local_addr(addr);
        }
        if let Some(max_age) = limits.max_age {
            core = core.max_age(max_age);
        }
        let mut inbox = Inbox::new(limits.batch, limits.max_request_bytes);
        let mut outbox = Outbox::new(limits.batch.max(MAX_REPLIES), limits.max_reply_bytes);
        let mut drained = 0;
        let mut failures = Failures::default();
        loop {
            let stopping = shared.stop.load(Ordering::Relaxed);
            let wait = match stopping {
                true if drained >= MAX_DRAINED => break,
                true => Wait::No,
                false => Wait::For(STOP_CHECK),
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
                    shared.publish(&core.snapshot(inbox.len()));
                    let class = ErrorClass::of(&error);
                    if class == ErrorClass::Gone {
                        return Err(ServeError::TransportGone { source: error });
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
            let received = transport.now();
            while !inbox.is_empty() {
                let clock = || transport.now();
                core.handle_with_clock(received, clock, &mut inbox, &mut outbox);
                core.sent(&transport.send(&outbox));
                outbox.clear();
                shared.publish(&core.snapshot(inbox.len()));
            }
        }
        log::ended(&core.stats());
        Ok(core.stats())
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
            },
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
    /// ([`Meta::waited`](crate::Meta::waited)), and the time since it was received. The clock is
    /// then read once more for each request.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.limits.max_age = Some(max_age);
        self
    }

    /// The longest request that is read, in bytes; longer ones are dropped as
    /// [`Truncated`](DropReason::Truncated). Default: 65,507, all that a datagram can carry.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_request_bytes = bytes;
        self
    }

    /// The longest reply that is sent, in bytes; a handler that tries a longer one gets
    /// [`TooLong`](crate::ReplyError::TooLong). Default: 65,507.
    #[must_use]
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_reply_bytes = bytes;
        self
    }

    /// How the socket of [`bind`](Self::bind) is opened.
    #[must_use]
    pub fn udp(mut self, options: UdpOptions) -> Self {
        self.udp = options;
        self
    }

    /// A server on a UDP socket of its own.
    pub fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Server<UdpTransport, C, G>> {
        let transport = self.udp.bind(addr)?;
        Ok(self.on(transport))
    }

    /// A server on a transport that is open already.
    pub fn on<T: Transport>(self, transport: T) -> Server<T, C, G> {
        Server {
            transport,
            codec: self.codec,
            gate: self.gate,
            limits: self.limits,
            blocked_ports: self.blocked_ports,
            shared: Arc::default(),
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
    /// (at most 65,536 datagrams), and returns from [`serve`](Server::serve): within half a second,
    /// unless a handler keeps it longer.
    ///
    /// All that it does is to set a flag, so a signal handler may call it.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// The counters after the latest batch. They are consistent with each other.
    pub fn stats(&self) -> Stats {
        self.shared.snapshot().stats
    }

    /// The latest error in receiving, whenever that was.
    pub fn last_receive_error(&self) -> Option<io::Error> {
        self.shared.snapshot().last_receive_error.map(Into::into)
    }

    /// The latest error in sending, whenever that was.
    pub fn last_send_error(&self) -> Option<io::Error> {
        self.shared.snapshot().last_send_error.map(Into::into)
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
    },
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    max_request_bytes: usize,
    max_reply_bytes: usize,
    /// In buffers for receiving, and datagrams for sending.
    batch: usize,
    max_age: Option<Duration>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// One lock per batch costs less than one atomic addition per counter and datagram would, and
    /// readers see counters that fit together.
    snapshot: Mutex<Snapshot>,
}

impl Shared {
    fn publish(&self, snapshot: &Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = *snapshot;
    }

    fn snapshot(&self) -> Snapshot {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
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

const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// How many provoked failures in a row cost no pause.
const FREE_PROVOKED: u32 = 64;
/// How often an idle server looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// How many datagrams are still answered after the server was asked to end.
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
