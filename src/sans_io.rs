//! Pure cores: the server and the client without sockets, clocks or threads.

pub use crate::client::ClientCore;
pub use crate::server::ServerCore;
