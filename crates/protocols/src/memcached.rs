//! memcached over UDP: a client for values of any size, and what a test server needs.
//!
//! A value that does not fit into one datagram comes in several. The client puts them together in whatever
//! order they arrive, within [bounds](rejoinder::ClientBuilder::max_response), and after its deadline
//! [names those that are missing](rejoinder::RequestError::Incomplete).
//!
//! UDP is off by default in memcached since version 1.5.6, because forged requests made it send large
//! responses to others (CVE-2018-1000115). Use it on networks where no source address can be forged.

pub mod codec;
mod text;
