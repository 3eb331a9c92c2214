use std::future;
use std::sync::Arc;

use super::driver::{Driver, Ended};
use super::inline::Inline;
use super::result_of;
use super::slots::{self, Env, Slots};
use crate::aio::handler::AsyncHandler;
use crate::aio::transport::AsyncTransport;
use crate::codec::Codec;
use crate::gate::Gate;
use crate::handler::Handler;
use crate::sans_io::ServerCore;
use crate::server::{self, ServeError, Shared, Stats, WorkerConfig};

/// One worker of a [`Server`](super::Server): a transport and what serves it.
///
/// [`Server::into_workers`](super::Server::into_workers) returns them.
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
    pub(super) transport: T,
    pub(super) core: ServerCore<C, (), G>,
    pub(super) config: WorkerConfig,
    pub(super) place: Place,
}

impl<T: AsyncTransport, C: Codec, G: Gate> Worker<T, C, G> {
    /// Serves, as [`Server::serve`](super::Server::serve) does, and returns the counters of this worker.
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

    /// Serves, as [`Server::serve_sync`](super::Server::serve_sync) does, and returns the counters of this worker.
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

    pub(super) async fn run<H>(self, handler: H) -> Ended
    where
        C: Clone,
        H: AsyncHandler<C>,
    {
        let codec = self.core.codec().clone();
        let slots = Slots::new(Env { codec, handler }, slots::run, self.config.aio);
        let mut driver = Driver::new(self.transport, self.core, slots, self.config, self.place);
        future::poll_fn(move |cx| driver.poll(cx)).await
    }

    pub(super) async fn run_sync<H: Handler<C>>(self, handler: H) -> Ended {
        let core = self.core.with_handler(handler);
        let mut driver = Driver::new(self.transport, core, Inline, self.config, self.place);
        future::poll_fn(move |cx| driver.poll(cx)).await
    }
}

/// A worker's place among the others of its server. Dropping it ends the worker.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.worker_finished();
    }
}
