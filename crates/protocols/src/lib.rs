//! Protocols of others as codecs and handlers of `rejoinder`. The programs are among the examples.

pub mod coap;
pub mod dns;
pub mod inetd;
pub mod memcached;
pub mod sntp;
pub mod stun;
