use std::sync::Arc;

use crate::codec::Codec;
use crate::handler::{Context, IntoReply};

/// Decides, in its own time, what the answer to a request is: a [`Handler`](crate::Handler) that may
/// await.
///
/// An async closure or an async function is one. Its parameter needs a type, which is the codec's; what
/// it returns is an [`IntoReply`]: nothing, an answer, several, or a `Result`.
///
/// ```
/// use rejoinder::aio;
/// use rejoinder::codec::Text;
/// use std::sync::Arc;
/// # struct Db;
/// # impl Db { async fn get(&self, key: &str) -> Result<Option<String>, std::io::Error> { Ok(Some(key.to_owned())) } }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// server.handle().shutdown();
/// let db = Arc::new(Db);
/// server.serve(async |key: &str| db.get(key).await).await?;
/// # Ok(())
/// # }
/// ```
///
/// A handler that needs the [`Context`] is a type with this trait:
///
/// ```
/// use rejoinder::aio::{self, AsyncHandler};
/// use rejoinder::codec::Text;
/// use rejoinder::Context;
///
/// struct WhoAmI;
///
/// impl AsyncHandler<Text> for WhoAmI {
///     type Reply = String;
///
///     async fn handle(&self, _: &str, context: &Context) -> String {
///         tokio::task::yield_now().await;
///         context.peer.to_string()
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// # server.handle().shutdown();
/// # server.serve(WhoAmI).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What a handler must not do
///
/// - Block. It stops the worker, with all handlers that the worker has in flight. What blocks or
///   computes for long goes into [`tokio::task::spawn_blocking`], and the handler awaits that.
/// - Count on being finished. Its future is dropped at its
///   [time limit](crate::ServerBuilder::handler_timeout), at the end of a shutdown, and with the
///   future of [`serve`](super::Server::serve).
///
/// A panic is caught, and the request is dropped as
/// [`HandlerPanicked`](crate::DropReason::HandlerPanicked).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an async handler for the codec `{C}`",
    label = "not an async handler",
    note = "an async closure names the codec's request type, `async |request: &str| ..` for `Text`, and returns a type that implements `IntoReply`",
    note = "a `Handler` that does not await is for `serve_sync`"
)]
pub trait AsyncHandler<C: Codec> {
    /// What becomes the responses.
    type Reply: IntoReply<C>;

    /// Returns the answer. `context.now` is when the request was received.
    ///
    /// An implementation for one codec is written as an `async fn` with plain references. One that is
    /// generic over the codec names the lifetime: `async fn handle<'a>(&'a self, request:
    /// C::Request<'a>, context: &'a Context) -> ..`.
    fn handle<'a>(
        &'a self,
        request: C::Request<'a>,
        context: &'a Context,
    ) -> impl Future<Output = Self::Reply>;
}

impl<C, F, R> AsyncHandler<C> for F
where
    C: Codec,
    F: for<'a> AsyncFn(C::Request<'a>) -> R,
    R: IntoReply<C>,
{
    type Reply = R;

    async fn handle<'a>(&'a self, request: C::Request<'a>, _: &'a Context) -> R {
        self(request).await
    }
}

/// A handler that several [workers](super::Worker) share.
///
/// An async closure that implements `Clone` needs it not: each worker can have a clone.
///
/// ```
/// use rejoinder::aio::{Server, SharedHandler};
/// use rejoinder::codec::Text;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use tokio::task::JoinSet;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(target_os = "linux")] {
/// let server = Server::builder(Text).workers(2).bind("127.0.0.1:0").await?;
/// # server.handle().shutdown();
/// let asked = AtomicU64::new(0);
/// let count = SharedHandler::new(async move |_: &str| {
///     let number = asked.fetch_add(1, Ordering::Relaxed);
///     format!("request {number}")
/// });
/// let mut serving = JoinSet::new();
/// for worker in server.into_workers() {
///     serving.spawn(worker.serve(count.clone()));
/// }
/// while let Some(ended) = serving.join_next().await {
///     println!("{}", ended??);
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SharedHandler<H>(Arc<H>);

impl<H> SharedHandler<H> {
    /// Shares a handler.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(handler))
    }
}

impl<H> Clone for SharedHandler<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Codec, H: AsyncHandler<C>> AsyncHandler<C> for SharedHandler<H> {
    type Reply = H::Reply;

    fn handle<'a>(
        &'a self,
        request: C::Request<'a>,
        context: &'a Context,
    ) -> impl Future<Output = Self::Reply> {
        self.0.handle(request, context)
    }
}
