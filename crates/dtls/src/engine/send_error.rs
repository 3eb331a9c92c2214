//! Why a payload was not sent.

use std::io;
use std::net::SocketAddr;

/// Why a payload was not sent.
///
/// It converts into an [`io::Error`] of the class [`Peer`](rejoinder::transport::ErrorClass::Peer), so
/// that it ends no server.
///
/// ```
/// use rejoinder::transport::ErrorClass;
/// use rejoinder_dtls::SendError;
///
/// let error = SendError::TooLong { bytes: 20_000, max_bytes: 16_384 };
/// assert_eq!(error.to_string(), "20000 bytes do not fit into a record of at most 16384");
/// assert_eq!(ErrorClass::classify(&error.into()), ErrorClass::Peer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no association with the peer: it was closed, displaced, or never there.
    #[error("there is no association with {0}")]
    NoAssociation(SocketAddr),
    /// The peer has another association than the one that the payload is for, which came in its place: see
    /// [`Engine::send`](crate::Engine::send).
    #[error("another association with {0} has taken the place of the one that asked")]
    Superseded(SocketAddr),
    /// The payload does not fit into one record. It is not split: a datagram is a message.
    #[error("{bytes} bytes do not fit into a record of at most {max_bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The association failed.
    #[error("the association with {0} is broken")]
    Broken(SocketAddr),
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLong { .. } => Self::from_raw_os_error(EMSGSIZE),
            _ => Self::new(io::ErrorKind::ConnectionReset, error),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const EMSGSIZE: i32 = 90;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EMSGSIZE: i32 = 40;
/// WSAEMSGSIZE.
#[cfg(not(unix))]
const EMSGSIZE: i32 = 10_040;
