//! Pure cores: the server and the client without sockets, clocks or threads.

pub use crate::backoff::ReceiveBackoff;
pub use crate::client::{ClientCore, ClientStats, SocketEvent, SocketId};
pub use crate::server::ServerCore;
