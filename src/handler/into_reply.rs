use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{Reply, ReplyError};
use crate::codec::Codec;

/// What can become the replies to a request: what a closure that is a [`Handler`](crate::Handler) may return.
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
    /// Queues the responses.
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
