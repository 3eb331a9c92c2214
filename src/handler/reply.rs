use std::error::Error;

use super::{Context, MAX_RESPONSES, RequestHash};
use crate::codec::{Codec, TooLong, Writer};
use crate::transport::{Outbox, PushError};

/// Queues the responses to one request.
///
/// A handler answers with [`send`](Self::send), as often as it wants to, up to [`MAX_RESPONSES`].
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Context, Handler, Reply, ReplyError};
///
/// struct Greeter;
///
/// impl Handler<Text> for Greeter {
///     fn handle(
///         &self,
///         name: &str,
///         _: &Context,
///         reply: &mut Reply<'_, Text>,
///     ) -> Result<(), ReplyError> {
///         if name.is_empty() {
///             return Ok(()); // no response
///         }
///         reply.send(&format_args!("hello, {name}"))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Reply<'a, C> {
    pub(super) codec: &'a C,
    request: &'a [u8],
    context: &'a Context,
    outbox: &'a mut Outbox,
    sent: usize,
}

impl<'a, C: Codec> Reply<'a, C> {
    /// A way back that leads into `outbox`, for the sender of `request`, a whole datagram: for
    /// drivers, and for tests of a handler on its own.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Meta, Outbox};
    /// use rejoinder::{Context, Handler, Reply, Timestamp};
    ///
    /// let handler = |name: &str| [format!("hello, {name}"), format!("and bye, {name}")];
    /// let context = Context::new(&Meta::new("192.0.2.1:7777".parse()?), Timestamp::system());
    /// let mut outbox = Outbox::new(16, 512);
    /// let mut reply = Reply::new(&Text, b"Ada", &context, &mut outbox);
    /// handler.handle("Ada", &context, &mut reply)?;
    /// let sent: Vec<_> = reply.sent().collect();
    /// assert_eq!(sent, [&b"hello, Ada"[..], b"and bye, Ada"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(
        codec: &'a C,
        request: &'a [u8],
        context: &'a Context,
        outbox: &'a mut Outbox,
    ) -> Self {
        Self {
            codec,
            request,
            context,
            outbox,
            sent: 0,
        }
    }

    /// Encodes an answer into the outgoing batch. After an error nothing of this answer is sent,
    /// and another can be tried: a shorter one, say.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Context, Handler, Reply, ReplyError};
    ///
    /// /// Repeats what it hears, as much as a datagram holds.
    /// struct Echo;
    ///
    /// impl Handler<Text> for Echo {
    ///     fn handle(&self, text: &str, _: &Context, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
    ///         match reply.send(&format_args!("you said: {text}")) {
    ///             Err(ReplyError::TooLong(_)) => reply.send(&"you said too much"),
    ///             other => other,
    ///         }
    ///     }
    /// }
    /// # let meta = rejoinder::transport::Meta::new("192.0.2.1:7777".parse()?);
    /// # let context = Context::new(&meta, rejoinder::Timestamp::system());
    /// # let mut outbox = rejoinder::transport::Outbox::new(16, 20);
    /// # for (said, heard) in [("hello", "you said: hello"), ("hello, hello", "you said too much")] {
    /// #     outbox.clear();
    /// #     Echo.handle(said, &context, &mut Reply::new(&Text, b"", &context, &mut outbox))?;
    /// #     assert_eq!(outbox.iter().next().map(|reply| reply.bytes), Some(heard.as_bytes()));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn send(&mut self, answer: C::Answer<'_>) -> Result<(), ReplyError> {
        let (codec, now, request) = (self.codec, self.context.now, self.request);
        self.push(|out| {
            codec
                .encode_response(now, request, answer, out)
                .map_err(|error| ReplyError::Encode(error.into()))
        })
    }

    /// Sends a datagram as it is, past the codec: one that was [sent](Self::sent) before, say.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Meta, Outbox};
    /// # use rejoinder::{Context, Reply, Timestamp};
    /// # let context = Context::new(&Meta::new("192.0.2.1:7777".parse()?), Timestamp::system());
    /// # let mut outbox = Outbox::new(16, 512);
    /// let kept = b"what was sent the first time";
    /// let mut reply = Reply::new(&Text, b"again?", &context, &mut outbox);
    /// reply.send_encoded(kept)?;
    /// assert_eq!(reply.sent().next(), Some(&kept[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_encoded(&mut self, datagram: &[u8]) -> Result<(), ReplyError> {
        self.push(|out| {
            out.put(datagram);
            Ok(())
        })
    }

    /// The datagrams that this request was answered with so far, as they will leave: what a
    /// handler that wraps another sees of the other's answers.
    ///
    /// ```
    /// use rejoinder::{Codec, Context, Handler, Reply, ReplyError};
    ///
    /// /// Shows what another handler answers.
    /// struct Shown<H>(H);
    ///
    /// impl<C: Codec, H: Handler<C>> Handler<C> for Shown<H> {
    ///     fn handle(
    ///         &self,
    ///         request: C::Request<'_>,
    ///         context: &Context,
    ///         reply: &mut Reply<'_, C>,
    ///     ) -> Result<(), ReplyError> {
    ///         self.0.handle(request, context, reply)?;
    ///         for datagram in reply.sent() {
    ///             println!("to {}: {} bytes", context.peer, datagram.len());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn sent(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.outbox
            .iter()
            .skip(self.outbox.len() - self.sent)
            .map(|datagram| datagram.bytes)
    }

    /// What the transmissions of the request have in common.
    pub(crate) fn request_hash(&self) -> RequestHash {
        RequestHash::of(self.codec, self.request)
    }

    #[inline]
    fn push(
        &mut self,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), ReplyError>,
    ) -> Result<(), ReplyError> {
        if self.sent == MAX_RESPONSES {
            return Err(ReplyError::TooMany {
                limit: MAX_RESPONSES,
            });
        }
        self.outbox
            .try_push_with(self.context.reply_to(), self.context.egress(), |space| {
                let mut out = Writer::new(space);
                write(&mut out)?;
                out.finish().map_err(ReplyError::TooLong)
            })?;
        self.sent += 1;
        if self.sent > 1 {
            // An id identifies the request, not the order of several responses to it.
            self.outbox.set_unordered(false);
        }
        Ok(())
    }
}

/// Why a response could not be queued.
///
/// ```
/// use rejoinder::codec::{Text, TooLong};
/// use rejoinder::transport::{Meta, Outbox};
/// use rejoinder::{Context, Reply, ReplyError, Timestamp};
///
/// let context = Context::new(&Meta::new("192.0.2.1:7777".parse()?), Timestamp::system());
/// let mut outbox = Outbox::new(16, 4);
/// let mut reply = Reply::new(&Text, b"?", &context, &mut outbox);
/// let too_long = TooLong { bytes: 5, limit: 4 };
/// assert!(matches!(reply.send(&"12345"), Err(ReplyError::TooLong(error)) if error == too_long));
/// assert!(reply.send(&"1234").is_ok());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It would be longer than [`max_response_bytes`](crate::ServerBuilder::max_response_bytes), or than the
    /// [`Outbox`] takes.
    #[error("the response is longer than `max_response_bytes`")]
    TooLong(#[source] TooLong),
    /// The codec could not encode it.
    #[error("the response could not be encoded")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
    /// The request was answered with as many datagrams as it can be.
    #[error("too many responses to one request: the limit is {limit}")]
    TooMany {
        /// [`MAX_RESPONSES`].
        limit: usize,
    },
    /// The outbox has no room: it was made too small, or was not empty.
    #[error("the outbox is full: clear it, or make it larger")]
    OutboxFull,
    /// The handler has no answer because of an error of its own. The request is counted as
    /// [`HandlerFailed`](crate::DropReason::HandlerFailed), and the error is logged.
    #[error("the handler failed")]
    Handler(#[source] Box<dyn Error + Send + Sync>),
}

impl From<PushError> for ReplyError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Full => Self::OutboxFull,
            PushError::TooLong(error) => Self::TooLong(error),
        }
    }
}
