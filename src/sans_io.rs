//! Pure cores: the server and the client without sockets, clocks or threads.
//!
//! Time and randomness are arguments. [`Server`](crate::Server) and [`Client`](crate::Client) are loops
//! around these cores and use nothing that is not public here.
//!
//! This module is [not final](crate::guide::stability).

pub use crate::backoff::ReceiveBackoff;
pub use crate::client::{ClientCore, ClientStats, RawResponse, SocketEvent, SocketId};
pub use crate::server::{Deferred, ServerCore};
