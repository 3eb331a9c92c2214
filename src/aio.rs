//! Servers and clients on tokio: the same machine as the blocking ones, driven by readiness.
//!
//! ```
//! use rejoinder::codec::{Tagged, Text};
//! # use std::collections::HashMap;
//! # struct Db(HashMap<&'static str, &'static str>);
//! # impl Db {
//! #     async fn get(&self, key: &str) -> Option<String> {
//! #         tokio::task::yield_now().await;
//! #         self.0.get(key).map(ToString::to_string)
//! #     }
//! # }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = Db(HashMap::from([("a", "one"), ("b", "two")]));
//! let server = rejoinder::aio::Server::bind("127.0.0.1:0", Tagged(Text)).await?;
//! let (addr, handle) = (server.local_addr()?, server.handle());
//! let serving = tokio::spawn(server.serve(async move |key: &str| db.get(key).await));
//! let client = rejoinder::aio::Client::connect(addr, Tagged(Text)).await?;
//! let (a, b) = tokio::join!(client.request("a"), client.request("b"));
//! assert_eq!((a?.get(), b?.get()), ("one", "two"));
//! handle.shutdown();
//! let stats = serving.await??;
//! # assert_eq!(stats.replied, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # How a server works
//!
//! A handler is an async closure, an async function or an [`AsyncHandler`]. It borrows the request
//! across its awaits. Each [worker](Worker) is one task with one socket: it keeps the futures of its
//! handlers in slots of its own, which are used again. There is no task, no channel and, once the
//! slots are there, no allocation per request. Responses of handlers that finish together leave in one
//! system call.
//!
//! Nothing has to be `Send` or `'static`, unless the program spawns [`Server::serve`].
//!
//! # Limits
//!
//! - [`max_in_flight`](crate::ServerBuilder::max_in_flight): how many requests a worker's handlers
//!   work on at a time. What happens to further ones is [`WhenFull`].
//! - [`handler_timeout`](crate::ServerBuilder::handler_timeout): how long a handler may take.
//! - [`grace`](crate::ServerBuilder::grace): how long handlers may go on after a shutdown.
//!
//! # Order
//!
//! Responses leave in the order in which their handlers finish. Where responses carry no
//! [ids](crate::Correlation::Id), a peer with several requests in flight on one socket cannot match
//! them: see [`ordered_per_peer`](crate::ServerBuilder::ordered_per_peer).

mod alarm;
mod client;
mod config;
mod connect;
mod handler;
mod runtime;
mod server;
mod sim;
pub mod store;
mod sync;
#[cfg(feature = "tower")]
mod tower;
mod transport;
mod udp;
mod wakes;

pub use self::client::{Client, Discovery, Response};
pub(crate) use self::config::AioConfig;
pub use self::config::WhenFull;
pub use self::connect::AsyncConnect;
pub use self::handler::{AsyncHandler, SharedHandler};
pub use self::runtime::Tokio;
pub use self::server::{Server, Worker};
pub use self::sim::AsyncSim;
#[cfg(feature = "tower")]
pub use self::tower::ServiceHandler;
pub use self::transport::AsyncTransport;
pub use self::udp::AsyncUdp;
