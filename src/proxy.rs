//! Servers behind proxies and load balancers: who the client is, from the PROXY header of a datagram.
//!
//! A proxy in front of a UDP service sends from its own address, so without help a server sees one
//! peer and one rate limit for everybody. With the [PROXY protocol] the proxy puts a header in front of
//! the datagram that names the client. [`ServerBuilder::behind`](crate::ServerBuilder::behind) has a
//! server read it: checks, gates, `Dedup` and the handler then see the client, and the response goes to
//! the proxy.
//!
//! [PROXY protocol]: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

mod flows;
mod header;
mod proxies;

pub use self::header::{Header, HeaderError, Tlvs};
pub(crate) use self::proxies::{MAX_HEADER_BYTES, Unwrapped};
pub use self::proxies::{Proxies, ProxiesBuilder, ProxyMode};
