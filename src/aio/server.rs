mod driver;
mod inline;
mod slots;

use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::{self, ToSocketAddrs};

use self::driver::{Driver, Ended};
use self::inline::Inline;
use self::slots::{Env, Slots};
use super::handler::{AsyncHandler, SharedHandler};
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
#[derive(Debug)]
pub struct Server<T, C, G = ()> {
    /// One at least.
    workers: Vec<Worker<T, C, G>>,
    shared: Arc<Shared>,
}

impl Server<AsyncUdp, ()> {
    /// The settings of a server: [`ServerBuilder::bind_async`] or
    /// [`with_async_transport`](ServerBuilder::with_async_transport) makes it.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = aio::Server::builder(Text).max_in_flight(10_000);
    /// let server = builder.bind_async("127.0.0.1:0").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder<C: Codec>(codec: C) -> ServerBuilder<C> {
        server::Server::builder(codec)
    }
}

impl<C: Codec + Clone> Server<AsyncUdp, C> {
    /// A UDP server on the first of the addresses that can be had, with the defaults of
    /// [`ServerBuilder`].
    ///
    /// # Errors
    ///
    /// Those of [`ServerBuilder::bind_async`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn bind(addr: impl ToSocketAddrs, codec: C) -> Result<Self, ConfigError> {
        server::Server::builder(codec).bind_async(addr).await
    }
}

impl<C: Codec + Clone, G: Gate + Clone> ServerBuilder<C, G> {
    /// A server on tokio, with UDP sockets of its own that are bound to the first of the addresses
    /// that can be had. Names are resolved without blocking.
    ///
    /// # Errors
    ///
    /// A setting out of range, the OS's refusal of a socket, or a name that cannot be resolved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder(Text).bind_async("127.0.0.1:0").await?;
    /// assert!(server.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bind_async(
        self,
        addr: impl ToSocketAddrs,
    ) -> Result<Server<AsyncUdp, C, G>, ConfigError> {
        let addrs: Vec<SocketAddr> = net::lookup_host(addr).await?.collect();
        let group = self.bind_group(&addrs[..])?;
        let group: io::Result<Vec<_>> = group.into_iter().map(AsyncUdp::new).collect();
        self.with_async_transports(group?)
    }

    /// A server on several transports that are open already, with a worker for each. There must be at
    /// least one.
    ///
    /// # Errors
    ///
    /// A setting out of range.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::aio::AsyncUdp;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let one = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let other = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let server = Server::builder(Text).with_async_transports([one, other])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_async_transports<T: AsyncTransport>(
        mut self,
        transports: impl IntoIterator<Item = T>,
    ) -> Result<Server<T, C, G>, ConfigError> {
        let transports: Vec<_> = transports.into_iter().collect();
        // Two workers that face each other must go quiet too.
        for addr in transports.iter().filter_map(|one| one.local_addr().ok()) {
            self = self.local_addr(addr);
        }
        let cores = transports
            .iter()
            .map(|_| {
                let mut core = self.clone().core(());
                core.set_is_local_ip(T::is_local_ip);
                core
            })
            .collect::<Vec<_>>();
        Server::new(transports, cores, self.config)
    }
}

impl<C: Codec, G: Gate> ServerBuilder<C, G> {
    /// A server on a transport that is open already, with one worker.
    ///
    /// # Errors
    ///
    /// A setting out of range.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::aio::AsyncUdp;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let udp = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let server = Server::builder(Text).with_async_transport(udp)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_async_transport<T: AsyncTransport>(
        mut self,
        transport: T,
    ) -> Result<Server<T, C, G>, ConfigError> {
        if let Ok(addr) = transport.local_addr() {
            self = self.local_addr(addr);
        }
        let config = self.config;
        let mut core = self.core(());
        core.set_is_local_ip(T::is_local_ip);
        Server::new(vec![transport], vec![core], config)
    }
}

impl<T, C, G> Server<T, C, G> {
    fn new(
        transports: Vec<T>,
        cores: Vec<ServerCore<C, (), G>>,
        config: WorkerConfig,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        if transports.is_empty() {
            return Err(ConfigError::out_of_range("transports", 0, "at least 1"));
        }
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
        Ok(Self {
            workers: workers.collect(),
            shared,
        })
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
    /// counted. [Errors in receiving](crate::sans_io::ReceiveBackoff) make it pause.
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
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    /// use tokio::task::JoinSet;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(target_os = "linux")] {
    /// let server = Server::builder(Text).workers(2).bind_async("127.0.0.1:0").await?;
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

/// One worker of a [`Server`]: a transport and what serves it.
///
/// [`Server::into_workers`] returns them.
///
/// ```
/// use rejoinder::aio;
/// use rejoinder::codec::Text;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// let handle = server.handle();
/// let workers = server.into_workers().into_iter();
/// let tasks: Vec<_> = workers
///     .map(|worker| tokio::spawn(worker.serve(async |text: &str| text.to_uppercase())))
///     .collect();
/// handle.shutdown();
/// for task in tasks {
///     println!("{}", task.await??);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker<T, C, G = ()> {
    transport: T,
    core: ServerCore<C, (), G>,
    config: WorkerConfig,
    place: Place,
}

impl<T: AsyncTransport, C: Codec, G: Gate> Worker<T, C, G> {
    /// Serves, as [`Server::serve`] does, and returns the counters of this worker.
    ///
    /// # Errors
    ///
    /// [`ServeError::TransportGone`]: there is nothing left to receive from. The other workers are then
    /// shut down.
    pub async fn serve<H>(self, handler: H) -> Result<Stats, ServeError>
    where
        C: Clone,
        H: AsyncHandler<C>,
    {
        server::log_started(&self.transport.local_addr());
        result_of([self.run(handler).await])
    }

    /// Serves, as [`Server::serve_sync`] does, and returns the counters of this worker.
    ///
    /// # Errors
    ///
    /// As of [`serve`](Self::serve).
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
    /// # server.handle().shutdown();
    /// for worker in server.into_workers() {
    ///     worker.serve_sync(|text: &str| Some(text.to_uppercase())).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve_sync<H: Handler<C>>(self, handler: H) -> Result<Stats, ServeError> {
        server::log_started(&self.transport.local_addr());
        result_of([self.run_sync(handler).await])
    }

    async fn run<H>(self, handler: H) -> Ended
    where
        C: Clone,
        H: AsyncHandler<C>,
    {
        let codec = self.core.codec().clone();
        let slots = Slots::new(Env { codec, handler }, slots::run, self.config.aio);
        let mut driver = Driver::new(self.transport, self.core, slots, self.config, self.place);
        future::poll_fn(move |cx| driver.poll(cx)).await
    }

    async fn run_sync<H: Handler<C>>(self, handler: H) -> Ended {
        let core = self.core.with_handler(handler);
        let mut driver = Driver::new(self.transport, core, Inline, self.config, self.place);
        future::poll_fn(move |cx| driver.poll(cx)).await
    }
}

/// A worker's place among the others of its server. Dropping it ends the worker.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    index: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.worker_finished();
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
