use std::time::Duration;

/// Why a datagram proves nothing or is no message, or a message could not be written.
///
/// ```
/// use rejoinder::codec::{Signed, SignedError, SigningKey, Text};
/// use rejoinder::{Codec, Timestamp};
/// use std::time::Duration;
///
/// let now = Timestamp::system();
/// let codec = Signed::builder(Text).key(SigningKey::new(1, [1; 32])).build(now)?;
/// assert_eq!(codec.authenticate(now, b"hello"), Err(SignedError::NotSigned));
///
/// let error = SignedError::<std::convert::Infallible>::TooOld {
///     age: Duration::from_secs(90),
///     window: Duration::from_secs(60),
/// };
/// assert_eq!(error.to_string(), "signed 90s ago, the window is 60s: compare the clocks");
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError<E> {
    /// It is too short, or does not begin with the mark of its direction.
    #[error("not a signed message")]
    NotSigned,
    /// No key has this number.
    #[error("no key has the number {id}")]
    UnknownKey {
        /// The number in the message, which proves nothing.
        id: u32,
    },
    /// The MAC is wrong: another secret, another service, or a change on the way.
    #[error("wrong signature: another secret or service, or a change on the way")]
    WrongSignature,
    /// The time in the request is too far before the server's.
    #[error("signed {age:?} ago, the window is {window:?}: compare the clocks")]
    TooOld {
        /// By how much.
        age: Duration,
        /// By how much it may be ([`window`](super::SignedBuilder::window)).
        window: Duration,
    },
    /// The time in the request is too far after the server's: a clock is wrong.
    #[error("signed {ahead:?} in the future, the window is {window:?}: compare the clocks")]
    TooEarly {
        /// By how much.
        ahead: Duration,
        /// By how much it may be ([`window`](super::SignedBuilder::window)).
        window: Duration,
    },
    /// This transmission of the request was accepted before, or a later one was.
    #[error("replayed: this transmission was accepted before, or a later one was")]
    Replayed,
    /// It was signed before the codec was built, or is as old as requests that are remembered no more. It may
    /// be a replay.
    #[error("signed before the codec was built, or too long ago for a check against replay")]
    Forgotten,
    /// What is signed is no message of the inner codec.
    #[error(transparent)]
    Inner(#[from] E),
}
