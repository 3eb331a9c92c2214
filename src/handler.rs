//! Handlers: what the answer to a request is.

mod context;
mod dedup;
mod into_reply;
mod reply;
mod swap;

use std::sync::Arc;

pub use self::context::Context;
pub use self::dedup::Dedup;
#[cfg(feature = "tokio")]
pub use self::dedup::DedupReply;
pub(crate) use self::dedup::RequestHash;
pub use self::into_reply::IntoReply;
pub use self::reply::{Reply, ReplyError};
pub use self::swap::{Current, Swap};
use crate::codec::Codec;

/// What answers requests.
///
/// The server calls [`handle`](Self::handle) once for every datagram that is a request and passed
/// its guards. A handler sends no response, one, or [several](MAX_RESPONSES). Silence is a valid answer:
/// a server on the Internet should say nothing to what it does not like.
///
/// A handler is shared by all workers of a server, so it takes `&self`; what changes goes into an
/// atomic or a mutex. It runs on the thread that receives: while it waits for something, no other
/// request of that worker is answered.
///
/// # Errors and panics
///
/// If `handle` returns an error or panics, nothing of what it sent for this request leaves; the
/// request is counted as dropped, and the server goes on.
///
/// # Closures
///
/// A closure from a request to what can [become replies](IntoReply) is a handler. Its parameter
/// needs its type. A closure cannot read the [`Context`], return an answer that borrows from the
/// request, or decide at run time how many responses to send. For these, implement the trait:
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
///
/// ServerCore::new(Text, |line: &str| {
///     line.strip_prefix("upper ").map(str::to_uppercase)
/// });
/// ```
///
/// # A minimal implementation
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Context, Handler, Reply, ReplyError};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Default)]
/// struct Counter(AtomicU64);
///
/// impl Handler<Text> for Counter {
///     fn handle(
///         &self,
///         request: &str,
///         context: &Context,
///         reply: &mut Reply<'_, Text>,
///     ) -> Result<(), ReplyError> {
///         if request != "next" {
///             return Ok(());
///         }
///         let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
///         reply.send(&format_args!("{count}, for {}", context.peer))
///     }
/// }
/// ```
pub trait Handler<C: Codec> {
    /// Answers one request.
    fn handle(
        &self,
        request: C::Request<'_>,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError>;
}

impl<C, F, R> Handler<C> for F
where
    C: Codec,
    F: for<'a> Fn(C::Request<'a>) -> R,
    R: IntoReply<C>,
{
    fn handle(
        &self,
        request: C::Request<'_>,
        _: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        self(request).reply(reply)
    }
}

/// A handler that is shared is a handler.
impl<C: Codec, H: Handler<C>> Handler<C> for Arc<H> {
    fn handle(
        &self,
        request: C::Request<'_>,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        H::handle(self, request, context, reply)
    }
}

/// The most datagrams that one request can be answered with.
///
/// ```
/// use rejoinder::codec::Raw;
/// use rejoinder::handler::MAX_RESPONSES;
/// use rejoinder::{Context, Handler, Reply, ReplyError};
///
/// /// Counts down from the request's first byte, a datagram for each number.
/// struct Countdown;
///
/// impl Handler<Raw> for Countdown {
///     fn handle(&self, request: &[u8], _: &Context, reply: &mut Reply<'_, Raw>) -> Result<(), ReplyError> {
///         let from = request.first().copied().unwrap_or(0).min(MAX_RESPONSES as u8);
///         (0..from).rev().try_for_each(|number| reply.send(&[number]))
///     }
/// }
/// # let net = rejoinder::sim::SimNet::new();
/// # let server = "10.0.0.1:9999".parse()?;
/// # net.host(server, rejoinder::sans_io::ServerCore::new(Raw, Countdown))?;
/// # assert_eq!(rejoinder::Client::new(net.clone(), Raw, server).request(b"\xff")?, [15]);
/// # net.advance(std::time::Duration::from_secs(1));
/// # assert_eq!(net.trace().total(), 17);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const MAX_RESPONSES: usize = 16;
