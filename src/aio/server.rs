mod builder;
mod driver;
mod inline;
mod slots;
mod worker;

use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::ToSocketAddrs;

use self::driver::Ended;
use self::worker::Place;
pub use self::worker::Worker;
use super::handler::{AsyncHandler, SharedHandler};
use super::runtime::Tokio;
use super::transport::AsyncTransport;
use super::udp::AsyncUdp;
use crate::codec::Codec;
use crate::config_error::ConfigError;
use crate::gate::Gate;
use crate::handler::Handler;
use crate::sans_io::ServerCore;
use crate::server::{self, ServeError, ServerBuilder, ServerHandle, Shared, Stats, WorkerConfig};

/// A server on tokio: transports, a codec, and with [`serve`](Self::serve) a handler.
///
/// It has the same [settings](ServerBuilder), gates, counters and [handle](ServerHandle) as the
/// blocking [`Server`](crate::Server).
///
/// ```
/// use rejoinder::aio;
/// use rejoinder::codec::Text;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// # server.handle().shutdown();
/// let stats = server
///     .serve_until(
///         async |name: &str| {
///             tokio::task::yield_now().await; // a database, say
///             format!("hello, {name}")
///         },
///         tokio::time::sleep(std::time::Duration::from_millis(1)), // Ctrl-C, say
///     )
///     .await?;
/// println!("{stats}");
/// # Ok(())
/// # }
/// ```
///
/// # Its type
///
/// `G` are the gates, in pairs as [`gate`](ServerBuilder::gate) adds them: `()` without, `((), A)` with one,
/// `(((), A), B)` with two.
///
/// ```
/// use rejoinder::aio::{self, AsyncUdp};
/// use rejoinder::codec::Text;
/// use rejoinder::gate::RateLimit;
///
/// struct Bot {
///     server: aio::Server<AsyncUdp, Text, ((), RateLimit)>,
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = aio::Server::builder(Text).gate(RateLimit::default());
/// let bot = Bot { server: builder.bind("127.0.0.1:0").await? };
/// println!("at {}", bot.server.local_addr()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server<T, C, G = ()> {
    /// One at least.
    workers: Vec<Worker<T, C, G>>,
    shared: Arc<Shared>,
}

impl Server<AsyncUdp, ()> {
    /// The settings of a server. Its `bind` is async, and
    /// [`with_transport`](ServerBuilder::with_transport) takes an [`AsyncTransport`].
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = aio::Server::builder(Text).max_in_flight(10_000);
    /// let server = builder.bind("127.0.0.1:0").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder<C: Codec>(codec: C) -> ServerBuilder<C, (), Tokio> {
        ServerBuilder::new(codec)
    }
}

impl<C: Codec + Clone> Server<AsyncUdp, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    ///
    /// # Errors
    ///
    /// A setting out of range, the OS's refusal of a socket, or a name that cannot be resolved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn bind(addr: impl ToSocketAddrs, codec: C) -> Result<Self, ConfigError> {
        Server::builder(codec).bind(addr).await
    }
}

impl<T, C, G> Server<T, C, G> {
    fn new(transports: Vec<T>, cores: Vec<ServerCore<C, (), G>>, config: WorkerConfig) -> Self {
        let shared = Arc::new(Shared::new(transports.len()));
        let workers = transports.into_iter().zip(cores).enumerate();
        let workers = workers.map(|(index, (transport, core))| Worker {
            transport,
            core,
            config,
            place: Place {
                shared: Arc::clone(&shared),
                index,
            },
        });
        Self {
            workers: workers.collect(),
            shared,
        }
    }
}

impl<T: AsyncTransport, C: Codec, G: Gate> Server<T, C, G> {
    /// The address that the server can be asked at; that of its first transport, if they differ.
    ///
    /// # Errors
    ///
    /// Those of the transport.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.workers[0].transport.local_addr()
    }

    /// A handle that shuts the server down and reads its counters.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Answers requests until [`ServerHandle::shutdown`] is called, and returns the counters.
    ///
    /// After the shutdown it answers what has arrived, and waits for the handlers in flight for as long
    /// as [`grace`](ServerBuilder::grace) allows.
    ///
    /// No datagram, no error of the socket and no panic of the handler ends it early: they are
    /// counted. [Errors in receiving](crate::sans_io::ReceiveBackoff) make it pause. It survives a panic only
    /// if panics unwind: with `panic = "abort"` in the Cargo profile, the first one ends the process.
    ///
    /// It is one task, also with several [workers](ServerBuilder::workers): on a runtime with several
    /// threads, [`into_workers`](Self::into_workers) uses a core for each.
    ///
    /// Dropping the future drops the handlers' futures, and the requests in flight as
    /// [`Cancelled`](crate::DropReason::Cancelled); the handle shows the last counters.
    ///
    /// # Errors
    ///
    /// [`ServeError::TransportGone`]: there is nothing left to receive from.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
    /// let handle = server.handle();
    /// handle.shutdown(); // before it begins, so it only answers what has arrived
    /// let stats = server.serve(async |text: &str| text.to_owned()).await?;
    /// assert!(handle.is_finished());
    /// assert_eq!(handle.stats(), stats);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve<H>(self, handler: H) -> Result<Stats, ServeError>
    where
        C: Clone,
        H: AsyncHandler<C>,
    {
        server::log_started(&self.local_addr());
        let handler = SharedHandler::new(handler);
        let workers = self.workers.into_iter();
        join(workers.map(|worker| worker.run(handler.clone()))).await
    }

    /// [`serve`](Self::serve), and a [shutdown](ServerHandle::shutdown) once `until` is ready.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
    /// let at_once = std::future::ready(());
    /// server.serve_until(async |text: &str| text.to_owned(), at_once).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_until<H>(self, handler: H, until: impl Future) -> Result<Stats, ServeError>
    where
        C: Clone,
        H: AsyncHandler<C>,
    {
        let handle = self.handle();
        let mut serving = pin!(self.serve(handler));
        let mut until = pin!(until);
        let mut is_over = false;
        future::poll_fn(move |cx| {
            if !is_over && until.as_mut().poll(cx).is_ready() {
                is_over = true;
                handle.shutdown();
            }
            serving.as_mut().poll(cx)
        })
        .await
    }

    /// [`serve`](Self::serve) for a handler that does not await: its answers are encoded where they
    /// leave from, without a copy of the request.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::bot::zurich;
    /// use rejoinder::codec::Ctime;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = aio::Server::bind("127.0.0.1:0", Ctime::local()).await?;
    /// # server.handle().shutdown();
    /// server.serve_sync(zurich()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_sync<H: Handler<C>>(self, handler: H) -> Result<Stats, ServeError> {
        server::log_started(&self.local_addr());
        let handler = Arc::new(handler);
        let workers = self.workers.into_iter();
        join(workers.map(|worker| worker.run_sync(Arc::clone(&handler)))).await
    }

    /// The workers, each to be spawned as a task of its own.
    ///
    /// ```
    /// use rejoinder::aio::Server;
    /// use rejoinder::codec::Text;
    /// use tokio::task::JoinSet;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(target_os = "linux")] {
    /// let server = Server::builder(Text).workers(2).bind("127.0.0.1:0").await?;
    /// let handle = server.handle();
    /// let greet = async |name: &str| format!("hello, {name}");
    /// let mut serving = JoinSet::new();
    /// for worker in server.into_workers() {
    ///     serving.spawn(worker.serve(greet));
    /// }
    /// handle.shutdown();
    /// while let Some(ended) = serving.join_next().await {
    ///     ended??;
    /// }
    /// println!("{}", handle.stats());
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_workers(self) -> Vec<Worker<T, C, G>> {
        self.workers
    }
}

/// Runs all workers in one task.
async fn join(
    workers: impl Iterator<Item = impl Future<Output = Ended>>,
) -> Result<Stats, ServeError> {
    let mut running: Vec<_> = workers.map(|worker| Some(Box::pin(worker))).collect();
    let mut ended = Vec::with_capacity(running.len());
    future::poll_fn(|cx| {
        for slot in &mut running {
            if let Some(worker) = slot
                && let Poll::Ready(result) = worker.as_mut().poll(cx)
            {
                ended.push(result);
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    result_of(ended)
}

fn result_of(workers: impl IntoIterator<Item = Ended>) -> Result<Stats, ServeError> {
    let mut total = Stats::default();
    let mut gone = None;
    for worker in workers {
        total += worker.stats;
        gone = gone.or(worker.gone);
    }
    server::log_ended(&total);
    match gone {
        None => Ok(total),
        Some(source) => Err(ServeError::TransportGone {
            source,
            stats: Box::new(total),
        }),
    }
}
