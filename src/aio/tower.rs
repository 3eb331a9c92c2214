//! Services of tower as handlers, and clients as services.

use std::error::Error;
use std::fmt;
use std::future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use tower_service::Service;

use super::client::{Client, Response};
use super::connect::AsyncConnect;
use super::handler::AsyncHandler;
use crate::client::RequestError;
use crate::codec::Codec;
use crate::handler::{Context, IntoReply};

/// An [`AsyncHandler`] made of a tower [`Service`] and a function that makes the service's request.
///
/// A service owns its requests, so what it needs of a request is copied. Each request is served by a
/// clone, which is [ready](Service::poll_ready) first: layers that limit or shed load share their state
/// among clones. An error of the service is an error of the handler.
///
/// ```
/// use rejoinder::aio::{self, ServiceHandler};
/// use rejoinder::codec::Text;
/// use rejoinder::Context;
/// # use std::{convert::Infallible, future::{ready, Ready}, task::{self, Poll}};
/// # use tower_service::Service;
/// # #[derive(Clone)]
/// # struct Shout;
/// # impl Service<String> for Shout {
/// #     type Response = String;
/// #     type Error = Infallible;
/// #     type Future = Ready<Result<String, Infallible>>;
/// #     fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> { Poll::Ready(Ok(())) }
/// #     fn call(&mut self, text: String) -> Self::Future { ready(Ok(text.to_uppercase())) }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::bind("127.0.0.1:0", Text).await?;
/// # server.handle().shutdown();
/// let service = Shout; // a `Service<String>`, with what layers you like around it
/// let handler = ServiceHandler::new(service, |text: &str, _: &Context| text.to_owned());
/// server.serve(handler).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceHandler<S, F> {
    service: S,
    request: F,
}

impl<S, F> ServiceHandler<S, F> {
    /// A handler that asks `service` what `request` makes of each request.
    pub fn new(service: S, request: F) -> Self {
        Self { service, request }
    }
}

impl<S, F> fmt::Debug for ServiceHandler<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandler").finish_non_exhaustive()
    }
}

impl<C, S, F, Q> AsyncHandler<C> for ServiceHandler<S, F>
where
    C: Codec,
    F: Fn(C::Request<'_>, &Context) -> Q,
    S: Service<Q> + Clone,
    S::Response: IntoReply<C>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Reply = Result<S::Response, S::Error>;

    async fn handle<'a>(&'a self, request: C::Request<'a>, context: &'a Context) -> Self::Reply {
        let request = (self.request)(request, context);
        let mut service = self.service.clone();
        future::poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    }
}

/// For codecs whose requests are text. It is always ready: a request waits for room in the window by
/// itself.
///
/// tower's `retry` is of little use around it: the client [retransmits](crate::Retry) what is lost, with
/// the same id, so that a server can recognise the copy.
impl<N, C> Service<String> for Client<N, C>
where
    N: AsyncConnect<Transport: Send> + Send + 'static,
    C: for<'a> Codec<Request<'a> = &'a str> + Send + Sync + 'static,
{
    type Response = Response<C>;
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<C>, RequestError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), RequestError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: String) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.request(&request).await })
    }
}

/// For codecs whose requests are bytes, as that for text.
impl<N, C> Service<Bytes> for Client<N, C>
where
    N: AsyncConnect<Transport: Send> + Send + 'static,
    C: for<'a> Codec<Request<'a> = &'a [u8]> + Send + Sync + 'static,
{
    type Response = Response<C>;
    type Error = RequestError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<C>, RequestError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), RequestError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Bytes) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.request(&request).await })
    }
}
