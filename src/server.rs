//! The server: a short loop around a pure core.

mod builder;
mod config;
mod core;
mod dropped;
mod handle;
mod last_error;
mod log;
mod shared;
mod source;
mod stats;
mod worker;

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::panic;
use std::sync::Arc;
use std::thread;

pub use self::builder::ServerBuilder;
pub(crate) use self::config::WorkerConfig;
pub use self::core::{Deferred, ServerCore};
pub use self::handle::ServerHandle;
#[cfg(feature = "tokio")]
pub(crate) use self::log::{ended as log_ended, started as log_started};
pub(crate) use self::shared::Shared;
pub use self::stats::Stats;
#[cfg(feature = "tokio")]
pub(crate) use self::worker::{BATCH, MAX_DRAIN_FAILURES, MAX_DRAINED, MAX_RESPONSES_PER_BATCH};
use self::worker::{Ended, Worker};
use crate::codec::Codec;
#[cfg(feature = "udp")]
use crate::config_error::ConfigError;
use crate::gate::Gate;
use crate::handler::Handler;
use crate::transport::Transport;
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
///         None => None, // no response
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server<T, C, G = ()> {
    /// One at least.
    workers: Vec<(T, ServerCore<C, (), G>)>,
    config: WorkerConfig,
    shared: Arc<Shared>,
}

/// The type parameter is a stand-in: the transport is chosen when the server is built.
impl<C: Codec> Server<(), C> {
    /// A builder with the defaults of [`ServerBuilder`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Text).max_response_bytes(1_232).bind("127.0.0.1:0")?;
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
    pub fn bind(addr: impl ToSocketAddrs, codec: C) -> Result<Self, ConfigError> {
        Server::builder(codec).with_transport(UdpTransport::bind(addr)?)
    }
}

impl<T, C, G> Server<T, C, G> {
    fn new(workers: Vec<(T, ServerCore<C, (), G>)>, config: WorkerConfig) -> Self {
        Self {
            shared: Arc::new(Shared::new(workers.len())),
            workers,
            config,
        }
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
        self.workers[0].0.local_addr()
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
    /// counted. Only a socket that is closed does ([`ServeError::TransportGone`]). After an error in
    /// receiving, the server pauses as [`ReceiveBackoff`](crate::sans_io::ReceiveBackoff) says. A
    /// response that the OS refuses is not sent again.
    ///
    /// The server survives a panic only if panics unwind, which is the default: with `panic = "abort"` in
    /// the Cargo profile, the first one ends the process. The panic hook runs for each panic, also for those
    /// that are survived: the default one prints the message as it is, however often, whatever it quotes. A program
    /// whose panics a peer could cause sets [a hook](std::panic::set_hook) that
    /// [escapes](crate::escape::Escaped) what it prints, and limits it.
    ///
    /// Where the handler is slow, finished responses do not wait for the rest of a batch for much longer
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
        log::started(&self.local_addr());
        let Self {
            workers,
            config,
            shared,
        } = self;
        let handler = Arc::new(handler);
        let run_worker = |(transport, core): (T, ServerCore<C, (), G>), index| {
            let _finished = Finished(&shared);
            let core = core.with_handler(Arc::clone(&handler));
            let ended = Worker::new(transport, core, config, &shared, index).run();
            if ended.gone.is_some() {
                shared.shut_down();
            }
            ended
        };
        let run_worker = &run_worker;
        let count = workers.len();
        let mut workers = workers.into_iter().zip(0..);
        let (first, _) = workers.next().expect("a server has a worker");
        let stats = thread::scope(|scope| {
            let mut no_thread = None;
            let mut others = Vec::with_capacity(count - 1);
            for (worker, index) in workers {
                let thread = thread::Builder::new().name(format!("worker {index}"));
                match thread.spawn_scoped(scope, move || run_worker(worker, index)) {
                    Ok(thread) => others.push(thread),
                    Err(source) => {
                        no_thread = Some(ServeError::Thread {
                            started: others.len() + 1,
                            workers: count,
                            source,
                        });
                        break;
                    }
                }
            }
            if no_thread.is_some() {
                // What has arrived is answered, by those that there are.
                shared.shut_down();
                (others.len()..count - 1).for_each(|_| shared.worker_finished());
            }
            let first = run_worker(first, 0);
            let others = others.into_iter().map(|thread| {
                let result = thread.join();
                result.unwrap_or_else(|payload| panic::resume_unwind(payload))
            });
            let mut total = first.stats;
            let mut gone = first.gone;
            for Ended { stats, gone: other } in others {
                total += stats;
                gone = gone.or(other);
            }
            match (no_thread, gone) {
                (None, None) => Ok(total),
                (Some(no_thread), _) => Err(no_thread),
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

/// Counts a worker as finished when it is dropped, and shuts all others down if that is by a panic.
struct Finished<'a>(&'a Shared);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.shut_down();
        }
        self.0.worker_finished();
    }
}

/// Why a server ended without having been asked to.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::{Inbox, Outbox, SendReport};
/// use rejoinder::{ServeError, Server, Transport, Wait};
/// use std::io::{self, ErrorKind};
/// use std::net::SocketAddr;
///
/// /// A socket that was closed underneath.
/// struct Closed;
///
/// impl Transport for Closed {
///     fn recv(&mut self, _: &mut Inbox, _: Wait) -> io::Result<usize> {
///         Err(ErrorKind::NotConnected.into())
///     }
///     fn send(&mut self, _: &Outbox) -> SendReport {
///         SendReport::default()
///     }
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         Err(ErrorKind::NotConnected.into())
///     }
/// }
///
/// let server = Server::builder(Text).with_transport(Closed)?;
/// match server.serve(|text: &str| Some(text.to_owned())) {
///     Err(ServeError::TransportGone { stats, .. }) => assert_eq!(stats.receive_errors, 1),
///     other => panic!("{other:?}"),
/// }
///
/// let error = ServeError::Thread { started: 3, workers: 64, source: ErrorKind::WouldBlock.into() };
/// assert_eq!(
///     error.to_string(),
///     "only 3 of 64 workers could be started: use fewer, or allow more threads"
/// );
/// # Ok::<(), rejoinder::ConfigError>(())
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
    /// There are not as many threads to be had as the server was to have.
    #[error(
        "only {started} of {workers} workers could be started: use fewer, or allow more threads"
    )]
    Thread {
        /// How many workers ran, that of the calling thread among them. They answered what had arrived.
        started: usize,
        /// How many [`workers`](ServerBuilder::workers) there were to be.
        workers: usize,
        /// The error of the OS.
        source: io::Error,
    },
}
