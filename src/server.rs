//! The server: a short loop around a pure core.

mod builder;
mod core;
mod handle;
mod log;
mod source;
mod stats;

use std::io;
use std::iter;
use std::mem;
use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use self::builder::Limits;
pub use self::builder::ServerBuilder;
pub use self::core::ServerCore;
pub use self::handle::ServerHandle;
use self::handle::Shared;
pub use self::stats::Stats;
use crate::backoff::Failures;
use crate::codec::{Codec, Correlation};
use crate::gate::Gate;
use crate::handler::{Handler, MAX_REPLIES};
use crate::transport::{ErrorClass, Inbox, MAX_V6_DATAGRAM_BYTES, Outbox, Transport, Wait};
#[cfg(feature = "udp")]
use crate::udp::UdpTransport;

/// A server: a transport, a codec, and with [`serve`](Self::serve) a handler.
///
/// ```no_run
/// use rejoinder::codec::Text;
/// use rejoinder::Server;
///
/// Server::bind("127.0.0.1:9999", Text)?.serve(|line: &str| {
///     match line.strip_prefix("upper ") {
///         Some(rest) => Some(rest.to_uppercase()),
///         None => None, // silence is a valid answer
///     }
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

impl<C: Codec> Server<(), C> {
    /// A builder with the defaults of [`ServerBuilder`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Text).max_reply_bytes(1_232).bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder(codec: C) -> ServerBuilder<C> {
        ServerBuilder::new(codec)
    }
}

#[cfg(feature = "udp")]
impl<C: Codec> Server<UdpTransport, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::bind("127.0.0.1:0", Text)?;
    /// assert_ne!(server.local_addr()?.port(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(addr: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        let transport = UdpTransport::bind(addr)?;
        Ok(Server::builder(codec).with_transport(transport))
    }
}

impl<T: Transport, C: Codec, G: Gate> Server<T, C, G> {
    /// The address that the server can be asked at; that of its first transport, if they
    /// [differ](ServerBuilder::with_transports).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::bind("127.0.0.1:0", Text)?;
    /// println!("listening on {}", server.local_addr()?); // 127.0.0.1:40213
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.workers[0].transport.local_addr()
    }

    /// A handle that stops the server and reads its counters, from wherever it is.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::bind("127.0.0.1:0", Text)?;
    /// let handle = server.handle();
    /// handle.shutdown(); // before it begins, so it only answers what has arrived
    /// let stats = server.serve(|text: &str| Some(text.to_owned()))?;
    /// assert_eq!(handle.stats(), stats);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Answers requests until [`ServerHandle::shutdown`] is called, and returns the counters.
    ///
    /// No datagram, no error of the socket and no panic of the handler ends it early: they are
    /// counted. Only a socket that is gone does ([`ServeError::TransportGone`]). After an error in
    /// receiving that stays, the server waits before it tries again: 1 ms, and twice as long each
    /// time up to 100 ms; errors that anybody can cause with a packet ([`ErrorClass::Peer`]) make it
    /// wait 1 ms at the most. A reply that the system refuses is not tried again. A
    /// [limit](ServeError::LimitOutOfRange) that is out of range is told before it begins.
    ///
    /// A panic can be survived only where it unwinds: with `panic = "abort"` the first one ends the
    /// program. And the panic hook runs for each, also for those that are survived: the default one
    /// prints the message as it is, however often it happens and whatever it quotes. A program whose
    /// panics somebody outside might cause sets [a hook](std::panic::set_hook) that
    /// [escapes](crate::escape::Escaped) what it prints, and limits it.
    ///
    /// Where the handler is slow, finished replies do not wait for the rest of a batch for much longer
    /// than 10 ms, see [`ServerCore::handle_with_clock`].
    ///
    /// The handler is shared by all [workers](ServerBuilder::workers). The first of them is the
    /// calling thread. If one worker ends with an error or a panic, the others are asked to end.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Client, Server};
    /// use std::thread;
    ///
    /// let server = Server::bind("127.0.0.1:0", Text)?;
    /// let (addr, handle) = (server.local_addr()?, server.handle());
    /// let serving = thread::spawn(move || server.serve(|text: &str| Some(text.to_uppercase())));
    ///
    /// assert_eq!(Client::connect(addr, Text)?.request("quiet")?, "QUIET");
    /// handle.shutdown();
    /// let stats = serving.join().expect("nothing panics there")?;
    /// assert_eq!((stats.received, stats.replied), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    let mut outbox = Outbox::new(MAX_REPLIES_PER_BATCH, limits.max_reply_bytes);
    if let Correlation::Id { .. } = codec.correlation() {
        outbox = outbox.in_any_order();
    }
    let mut core = ServerCore::new(codec, handler)
        .gate(gate)
        .blocked_ports(blocked_ports.iter().copied());
    for &addr in own {
        core = core.local_addr(addr);
    }
    core = core.is_local_ip(T::is_local_ip);
    if let Some(max_age) = limits.max_age {
        core = core.max_age(max_age);
    }
    let wait = if limits.busy_poll {
        Wait::Spin(STOP_CHECK)
    } else {
        Wait::For(STOP_CHECK)
    };
    let mut inbox = Inbox::new(limits.batch, limits.max_request_bytes);
    let mut drained = 0;
    let mut failures = Failures::default();
    let mut drain_failures = 0;
    loop {
        let stopping = shared.is_ending();
        let wait = match stopping {
            true if drained >= MAX_DRAINED => break,
            true => Wait::No,
            false => wait,
        };
        match transport.recv(&mut inbox, wait) {
            Ok(0) if stopping => break,
            Ok(received) => {
                failures = Failures::default();
                drain_failures = 0;
                if stopping {
                    drained = received.saturating_add(drained);
                }
            }
            Err(error) => {
                core.on_receive_error(transport.now(), &error);
                shared.publish(index, &core.snapshot(inbox.len()));
                let class = ErrorClass::classify_receive(&error);
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
                } else if drain_failures == MAX_DRAIN_FAILURES {
                    // Interruptions are among them: a transport may report those without end.
                    break;
                } else {
                    drain_failures += 1;
                }
            }
        }
        core.set_kernel_drops(transport.kernel_drops());
        let received = transport.now();
        while !inbox.is_empty() {
            let clock = || transport.now();
            core.handle_with_clock(received, clock, &mut inbox, &mut outbox);
            core.on_sent(&transport.send(&outbox));
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

/// Why a server ended without having been asked to.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::{ServeError, Server};
///
/// let endpoint = SimNet::new().bind("10.0.0.1:9999".parse()?)?;
/// let server = Server::builder(Text)
///     .max_request_bytes(70_000)
///     .with_transport(endpoint);
/// match server.serve(|text: &str| Some(text.to_owned())) {
///     Err(ServeError::LimitOutOfRange { limit, bytes }) => {
///         assert_eq!((limit, bytes), ("max_request_bytes", 70_000));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    #[error("{limit} is {bytes}, but no datagram has more than {MAX_V6_DATAGRAM_BYTES} bytes")]
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

/// How often an idle server looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(250);
/// How many replies leave at once: more would not be faster.
const MAX_REPLIES_PER_BATCH: usize = 1_024 + MAX_REPLIES;
/// How many datagrams each worker still answers after it was asked to end.
const MAX_DRAINED: usize = 65_536;
/// How many times in a row receiving may fail before a server that was asked to end gives up.
const MAX_DRAIN_FAILURES: u32 = 16;
