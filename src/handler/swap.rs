use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::{Context, Handler, Reply, ReplyError};
use crate::codec::Codec;

/// A handler that can be replaced while a server uses it: new rules, another table, from any thread.
///
/// Clones share the handler: the server gets one clone, and the thread that reloads a file keeps
/// another. Each request is answered by one handler from its beginning to its end, the one that was
/// there when it was taken up.
///
/// No lock is taken for a request, and with several workers none writes memory that another reads. A worker
/// reads the shared pointer, and notes what it uses in a slot of its own thread; a replacement looks through
/// these slots (the crate `arc-swap` does it). So a request costs some nanoseconds more, and a replacement
/// costs more than with a lock.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::handler::Swap;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
/// use rejoinder::bot::Robot;
///
/// let swap = Swap::new(Robot::builder().fallback("the old rules").build()?);
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(server, ServerCore::new(Text, swap.clone()))?;
///
/// let mut client = Client::new(net, Text, server);
/// assert_eq!(client.request("?")?, "the old rules");
/// swap.replace(Robot::builder().fallback("the new rules").build()?);
/// assert_eq!(client.request("?")?, "the new rules");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Swap<H>(Arc<ArcSwap<H>>);

impl<H> Swap<H> {
    /// Begins with this handler.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(handler)))
    }

    /// Replaces the handler for requests that start from now on, and returns the old one.
    ///
    /// Requests that are in progress are not waited for; they keep the old handler alive until they are
    /// done. The thread that lets go of it last frees it. To free a large one on this thread, and not on a worker's, keep
    /// what is returned until [`Arc::strong_count`] is 1.
    ///
    /// ```
    /// use rejoinder::handler::Swap;
    ///
    /// let swap = Swap::new("old");
    /// assert_eq!(*swap.replace("new"), "old");
    /// ```
    pub fn replace(&self, handler: H) -> Arc<H> {
        self.0.swap(Arc::new(handler))
    }

    /// The handler of now, for a handler that wraps this one. To be let go of soon, at the latest at the end of
    /// the request: it is kept alive as long, and a thread that holds more than eight at once writes to memory
    /// that others read.
    ///
    /// ```
    /// use rejoinder::handler::Swap;
    ///
    /// let swap = Swap::new(vec!["old"]);
    /// let current = swap.current();
    /// swap.replace(vec!["new"]);
    /// assert_eq!(*current, ["old"]);
    /// assert_eq!(*swap.current(), ["new"]);
    /// ```
    pub fn current(&self) -> Current<H> {
        Current(self.0.load())
    }
}

impl<C: Codec, H: Handler<C>> Handler<C> for Swap<H> {
    fn handle(
        &self,
        request: C::Request<'_>,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        self.0.load().handle(request, context, reply)
    }
}

impl<H> Clone for Swap<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: fmt::Debug> fmt::Debug for Swap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Swap").field(&**self.0.load()).finish()
    }
}

/// A handler that is [in use](Swap::current), and stays the same meanwhile.
///
/// ```
/// use rejoinder::handler::{Current, Swap};
///
/// let swap = Swap::new(String::from("old"));
/// let current: Current<String> = swap.current();
/// assert_eq!(current.len(), 3);
/// ```
pub struct Current<H>(Guard<Arc<H>>);

impl<H> Deref for Current<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.0
    }
}

impl<H: fmt::Debug> fmt::Debug for Current<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&**self).finish()
    }
}
