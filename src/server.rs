//! The server: a short loop around a pure core.

mod core;
mod stats;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use self::core::ServerCore;
pub use self::stats::{DropReason, Stats};
use crate::codec::Codec;
use crate::handler::{Handler, MAX_REPLIES};
use crate::transport::{
    Inbox, MAX_DATAGRAM_BYTES, Outbox, Transport, UdpOptions, UdpTransport, Wait,
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
pub struct Server<T, C> {
    transport: T,
    codec: C,
    limits: Limits,
    shared: Arc<Shared>,
}

impl<C: Codec> Server<UdpTransport, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    pub fn bind(addr: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        ServerBuilder::new(codec).bind(addr)
    }
}

impl<T: Transport, C: Codec> Server<T, C> {
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
    /// counted, and after an error that repeats itself it waits a little, at most 100 ms, before it
    /// tries again. The one exception is a socket that is gone.
    pub fn serve<H: Handler<C>>(self, handler: H) -> Result<Stats, ServeError> {
        let Self {
            mut transport,
            codec,
            limits,
            shared,
        } = self;
        let mut core = ServerCore::new(codec, handler);
        let mut inbox = Inbox::new(limits.batch, limits.max_request_bytes);
        let mut outbox = Outbox::new(limits.batch.max(MAX_REPLIES), limits.max_reply_bytes);
        let mut drained = 0;
        let mut failures = 0;
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
                    failures = 0;
                    if stopping {
                        drained += received;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    core.receive_failed();
                    shared.publish(core.stats());
                    if error.kind() == ErrorKind::NotConnected {
                        return Err(ServeError::TransportGone { source: error });
                    }
                    failures += 1;
                    // An error says nothing about the datagrams that wait behind it.
                    if !stopping {
                        thread::sleep(backoff(failures));
                    } else if failures >= MAX_DRAIN_FAILURES {
                        break;
                    }
                }
            }
            let now = transport.now();
            while !inbox.is_empty() {
                core.handle(now, &mut inbox, &mut outbox);
                core.sent(&transport.send(&outbox));
                outbox.clear();
                shared.publish(core.stats().with_pending(inbox.len()));
            }
        }
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
pub struct ServerBuilder<C> {
    codec: C,
    udp: UdpOptions,
    limits: Limits,
}

impl<C: Codec> ServerBuilder<C> {
    /// The defaults.
    pub fn new(codec: C) -> Self {
        Self {
            codec,
            udp: UdpOptions::new(),
            limits: Limits {
                max_request_bytes: MAX_DATAGRAM_BYTES,
                max_reply_bytes: MAX_DATAGRAM_BYTES,
                batch: 64,
            },
        }
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
    pub fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Server<UdpTransport, C>> {
        let transport = self.udp.bind(addr)?;
        Ok(self.on(transport))
    }

    /// A server on a transport that is open already.
    pub fn on<T: Transport>(self, transport: T) -> Server<T, C> {
        Server {
            transport,
            codec: self.codec,
            limits: self.limits,
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
        *self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// One lock per batch costs less than one atomic addition per counter and datagram would, and
    /// readers see counters that fit together.
    stats: Mutex<Stats>,
}

impl Shared {
    fn publish(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// 0 for a first failure, which may have been caused by a single packet; then 1 ms, doubled up to
/// 100 ms.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(1 << (failures - 2).min(7)).min(Duration::from_millis(100)),
    }
}

/// How often an idle server looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// How many datagrams are still answered after the server was asked to end.
const MAX_DRAINED: usize = 65_536;
/// How many times in a row receiving may fail before a server that was asked to end gives up.
const MAX_DRAIN_FAILURES: u32 = 16;
