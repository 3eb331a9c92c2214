use std::error::Error;
use std::fmt;

use crate::codec::Codec;
use crate::handler::{IntoReply, Reply, ReplyError};

/// What a handler in a [`SharedDedup`](super::SharedDedup) answers: the handler's answer, the same once more, or nothing.
///
/// ```
/// use rejoinder::aio::AsyncHandler;
/// use rejoinder::aio::store::{MemoryStore, SharedDedup, SharedReply};
/// use rejoinder::codec::Text;
///
/// fn only_once(_: &impl AsyncHandler<Text, Reply = SharedReply<String>>) {}
///
/// let shop = async |text: &str| format!("bought a {text}");
/// let key = |text: &&str| Some((*text).to_owned());
/// only_once(&SharedDedup::new(shop, key, MemoryStore::new(1_024)));
/// ```
pub struct SharedReply<R>(pub(super) Replies<R>);

pub(super) enum Replies<R> {
    Answer(R),
    None,
    /// The store is down, and the request is dropped.
    Down(Box<dyn Error + Send + Sync>),
}

impl<C: Codec, R: IntoReply<C>> IntoReply<C> for SharedReply<R> {
    fn reply(self, reply: &mut Reply<'_, C>) -> Result<(), ReplyError> {
        match self.0 {
            Replies::Answer(answer) => answer.reply(reply),
            Replies::None => Ok(()),
            Replies::Down(error) => Err(ReplyError::Handler(error)),
        }
    }
}

impl<R> fmt::Debug for SharedReply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReply").finish_non_exhaustive()
    }
}
