//! Handlers: what the answer to a request is.

mod dedup;
mod swap;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use self::dedup::Dedup;
#[cfg(feature = "tokio")]
pub use self::dedup::DedupReply;
pub(crate) use self::dedup::RequestHash;
pub use self::swap::{Current, Swap};
use crate::codec::{Codec, TooLong, Writer};
use crate::identity::Identity;
use crate::timestamp::Timestamp;
use crate::transport::{Delivery, Egress, Meta, Outbox, Proxied, PushError, egress, local_addr};

/// What answers requests.
///
/// The server calls [`handle`](Self::handle) once for every datagram that is a request and passed
/// its guards. A handler sends no reply, one, or [several](MAX_RESPONSES). Silence is a valid answer:
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
/// request, or decide at run time how many replies to send. For these, implement the trait:
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

/// What a handler knows about a request beside its content.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Context, Handler, Reply, ReplyError};
///
/// /// Tells whoever asks how he is seen from here, as STUN does.
/// struct WhoAmI;
///
/// impl Handler<Text> for WhoAmI {
///     fn handle(
///         &self,
///         _: &str,
///         context: &Context,
///         reply: &mut Reply<'_, Text>,
///     ) -> Result<(), ReplyError> {
///         reply.send(&context.peer)
///     }
/// }
/// # let net = rejoinder::sim::SimNet::new();
/// # let server = "10.0.0.1:9999".parse()?;
/// # net.host(server, rejoinder::sans_io::ServerCore::new(Text, WhoAmI))?;
/// # let mut client = rejoinder::Client::new(net.from_host("10.0.0.2".parse()?), Text, server);
/// # assert_eq!(client.request("?")?, "10.0.0.2:49152");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A clone counts a reference to the identity, if there is one, and allocates nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Who asked, as far as one can know: the sender of a datagram is easily forged. Behind a
    /// [proxy](crate::ServerBuilder::behind) it is the client that the proxy names.
    pub peer: SocketAddr,
    /// The proxy that the request came by, where the server is behind one: the response goes there.
    pub proxied: Option<Proxied>,
    /// The address that was asked, if the OS reports it; the response leaves from there.
    pub local: Option<IpAddr>,
    /// The port that was asked; 0 if that is unknown.
    pub local_port: u16,
    /// The index of the interface that the request came in by; 0 if that is unknown.
    pub interface: u32,
    /// Whether the request was sent to this machine or to a group, as far as is known.
    pub delivery: Delivery,
    /// When the batch with this request was received.
    pub now: Timestamp,
    /// The id of the request, if the codec finds one in it: what
    /// [`Codec::request_id`] returns. Requests of one peer that differ in
    /// their ids are different requests, even with the same content.
    pub request_id: Option<u64>,
    /// That of a deferred request, whose bytes the handler's wrappers cannot see.
    pub(crate) request_hash: RequestHash,
    identity: Option<Identity>,
}

impl Context {
    /// The context of a datagram: for drivers, and for tests of a handler on its own.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Timestamp};
    ///
    /// let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// assert_eq!(Context::new(&meta, Timestamp::system()).peer, meta.peer);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn new(meta: &Meta, now: Timestamp) -> Self {
        Self {
            peer: meta.peer,
            proxied: None,
            local: meta.local,
            local_port: meta.local_port,
            interface: meta.interface,
            delivery: meta.delivery,
            now,
            request_id: None,
            request_hash: RequestHash::default(),
            identity: None,
        }
    }

    /// The identity of the peer, if the transport or the codec authenticated it. If both did, it is the
    /// codec's.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Context, Handler, Identity, Reply, ReplyError};
    ///
    /// /// Opens the door to one peer.
    /// struct Door;
    ///
    /// impl Handler<Text> for Door {
    ///     fn handle(&self, _: &str, context: &Context, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
    ///         match context.identity().and_then(Identity::as_str) {
    ///             Some("caretaker") => reply.send(&"open"),
    ///             _ => Ok(()), // no response
    ///         }
    ///     }
    /// }
    /// # let meta = rejoinder::transport::Meta::new("192.0.2.1:7777".parse()?);
    /// # let context = Context::new(&meta, rejoinder::Timestamp::system());
    /// # for (context, replies) in [
    /// #     (context.clone(), 0),
    /// #     (context.with_identity(Some(Identity::from("caretaker"))), 1),
    /// # ] {
    /// #     let mut outbox = rejoinder::transport::Outbox::new(16, 20);
    /// #     Door.handle("?", &context, &mut Reply::new(&Text, b"?", &context, &mut outbox))?;
    /// #     assert_eq!(outbox.len(), replies);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The same context with an identity, or with none: for drivers, and for tests of a handler.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Identity, Timestamp};
    ///
    /// let sensor = Identity::from("sensor 7");
    /// let context = Context::new(&Meta::new("192.0.2.1:7777".parse()?), Timestamp::system());
    /// let context = context.with_identity(Some(sensor.clone()));
    /// assert_eq!(context.identity(), Some(&sensor));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn with_identity(mut self, identity: Option<Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// The address and the port that were asked, if both are known.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Timestamp};
    ///
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("198.51.100.1".parse()?);
    /// meta.local_port = 9999;
    /// let context = Context::new(&meta, Timestamp::system());
    /// assert_eq!(context.local_addr(), Some("198.51.100.1:9999".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn local_addr(&self) -> Option<SocketAddr> {
        local_addr(self.local, self.local_port, self.interface)
    }

    fn egress(&self) -> Egress {
        egress(self.reply_to(), self.local, self.interface, self.delivery)
    }

    fn reply_to(&self) -> SocketAddr {
        self.proxied.map_or(self.peer, |one| one.proxy)
    }

    pub(crate) fn with_proxied(mut self, proxied: Option<Proxied>) -> Self {
        self.proxied = proxied;
        self
    }

    /// The same context with the id of the request.
    ///
    /// ```
    /// # use rejoinder::transport::Meta;
    /// # use rejoinder::{Context, Timestamp};
    /// # let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// let context = Context::new(&meta, Timestamp::system()).with_request_id(Some(7));
    /// assert_eq!(context.request_id, Some(7));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn with_request_id(mut self, id: Option<u64>) -> Self {
        self.request_id = id;
        self
    }
}

/// The way back to the one who asked.
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
///             return Ok(()); // silence
///         }
///         reply.send(&format_args!("hello, {name}"))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Reply<'a, C> {
    codec: &'a C,
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

    /// The datagram that is answered.
    pub(crate) fn request(&self) -> &[u8] {
        self.request
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
            // An id says which request is answered, not which of several replies comes first.
            self.outbox.set_unordered(false);
        }
        Ok(())
    }
}

/// What can become the replies to a request: what a closure that is a [`Handler`] may return.
///
/// | value | replies |
/// | --- | --- |
/// | `()` or `None` | none |
/// | `Some(x)` | those of `x` |
/// | `[x, y, z]` | those of each, in order |
/// | `Ok(x)` | those of `x` |
/// | `Err(error)` | none; counted as [`HandlerFailed`](crate::DropReason::HandlerFailed) and logged |
/// | `String`, `&'static str`, `Cow<'static, str>` | one, of a codec whose answers are text |
/// | `Vec<u8>`, `&'static [u8]`, `bytes::Bytes`, `bytes::BytesMut` | one, of a codec whose answers are bytes |
///
/// For the answer type of your own codec, one line is enough:
///
/// ```
/// # use rejoinder::{Codec, Timestamp, Writer};
/// # struct Numbers;
/// # impl Codec for Numbers {
/// #     type Request<'a> = u32; type Response<'a> = u32; type Answer<'a> = u32;
/// #     type Error = std::convert::Infallible;
/// #     fn decode_request<'a>(&self, d: &'a [u8]) -> Result<u32, Self::Error> { Ok(d.len() as u32) }
/// #     fn encode_response(&self, _: Timestamp, _: &[u8], a: u32, out: &mut Writer<'_>) -> Result<(), Self::Error> { out.put(&a.to_be_bytes()); Ok(()) }
/// #     fn encode_request(&self, _: u64, _: u32, _: &mut Writer<'_>) -> Result<(), Self::Error> { Ok(()) }
/// #     fn decode_response<'a>(&self, d: &'a [u8]) -> Result<u32, Self::Error> { Ok(d.len() as u32) }
/// #     fn is_response(&self, _: &[u8]) -> bool { false }
/// # }
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::{IntoReply, Reply, ReplyError};
///
/// impl IntoReply<Numbers> for u32 {
///     fn reply(self, reply: &mut Reply<'_, Numbers>) -> Result<(), ReplyError> {
///         reply.send(self)
///     }
/// }
/// ServerCore::new(Numbers, |number: u32| number + 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot become the replies of the codec `{C}`",
    label = "no `IntoReply<{C}>`",
    note = "return `()`, an `Option`, an array, a `Result`, or an answer of the codec: text for `Text`, bytes for `Raw`",
    note = "an async closure is a handler for `aio::Server`, with the feature `tokio`"
)]
pub trait IntoReply<C: Codec> {
    /// Sends the replies.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::{IntoReply, Reply, ReplyError};
    ///
    /// /// A name to greet.
    /// struct Greeting(String);
    ///
    /// impl IntoReply<Text> for Greeting {
    ///     fn reply(self, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
    ///         reply.send(&format_args!("hello, {}", self.0))
    ///     }
    /// }
    /// ServerCore::new(Text, |name: &str| Some(Greeting(name.to_owned())));
    /// ```
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError>;
}

impl<C: Codec> IntoReply<C> for () {
    fn reply(self, _: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        Ok(())
    }
}

impl<C: Codec, R: IntoReply<C>> IntoReply<C> for Option<R> {
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        self.map_or(Ok(()), |answer| answer.reply(reply))
    }
}

/// `Err` sends nothing: the request is dropped as
/// [`HandlerFailed`](crate::DropReason::HandlerFailed).
impl<C, R, E> IntoReply<C> for Result<R, E>
where
    C: Codec,
    R: IntoReply<C>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        match self {
            Ok(answer) => answer.reply(reply),
            Err(error) => Err(ReplyError::Handler(error.into())),
        }
    }
}

impl<C: Codec, R: IntoReply<C>, const N: usize> IntoReply<C> for [R; N] {
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        self.into_iter().try_for_each(|answer| answer.reply(reply))
    }
}

macro_rules! text_reply {
    ($($text:ty),*) => {$(
        impl<C> IntoReply<C> for $text
        where
            C: for<'a> Codec<Answer<'a> = &'a dyn fmt::Display>,
        {
            fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
                reply.send(&self)
            }
        }
    )*};
}
text_reply!(String, &'static str, Cow<'static, str>);

macro_rules! bytes_reply {
    ($($bytes:ty),*) => {$(
        impl<C> IntoReply<C> for $bytes
        where
            C: for<'a> Codec<Answer<'a> = &'a [u8]>,
        {
            fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
                reply.send(&self)
            }
        }
    )*};
}
bytes_reply!(Vec<u8>, &'static [u8], Bytes, BytesMut);

/// Why a reply could not be queued.
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
    /// It would be longer than a datagram may be.
    #[error("the reply is too long")]
    TooLong(#[source] TooLong),
    /// The codec could not encode it.
    #[error("the reply could not be encoded")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
    /// The request was answered with as many datagrams as it can be.
    #[error("too many replies to one request: the limit is {limit}")]
    TooMany {
        /// [`MAX_RESPONSES`].
        limit: usize,
    },
    /// The outbox has no room: it was made too small, or was not empty.
    #[error("the outbox is full")]
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
