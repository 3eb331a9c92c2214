//! Servers behind proxies and load balancers: who the client is, from the PROXY header of a datagram.
//!
//! A proxy in front of a UDP service sends from its own address, so the server sees one peer, and
//! all clients share one rate limit. With the [PROXY protocol], the proxy puts a header with the
//! client's address in front of the datagram.
//! [`ServerBuilder::behind`](crate::ServerBuilder::behind) has a server read it: checks, gates,
//! `Dedup` and the handler then see the client, and the response goes to the proxy.
//!
//! [PROXY protocol]: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

mod flows;
mod header;
mod proxies;

pub use self::header::{Header, HeaderError, Tlvs};
pub(crate) use self::proxies::{MAX_HEADER_BYTES, Unwrapped};
pub use self::proxies::{Proxies, ProxiesBuilder, ProxyMode};
