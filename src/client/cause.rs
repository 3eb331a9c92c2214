//! What an error of a socket says to a client.

use std::io::{self, ErrorKind};

use crate::transport::ErrorClass;

/// The same error once more, for one more request.
pub(super) fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether the error says that the peer cannot be reached.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    is_refusal(error)
        || matches!(
            error.kind(),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        )
}

/// Whether the error says that the peer's port is closed, rather than that there is no way to the
/// peer. Windows reports it as a reset.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// Whether the error of opening a socket means that memory, descriptors (which have no class of their
/// own) or ports are exhausted, so that closing another socket could help.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || matches!(
            ErrorClass::classify(error),
            ErrorClass::Resources | ErrorClass::Other
        )
}

/// Whether the error of sending says that the socket has become useless, as one whose source address
/// is no longer the machine's, so that another may be better: ENETUNREACH, EADDRNOTAVAIL, EINVAL,
/// EPERM.
pub(super) fn is_of_socket(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::InvalidInput
            | ErrorKind::PermissionDenied
    )
}
