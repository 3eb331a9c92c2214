/// From which local ports a [`Client`](crate::Client) sends.
///
/// A port that is used for long is easier to forge a response to, and a device on the way (a NAT, a load
/// balancer) that has lost track of it makes a client deaf. A server that knows its peers by their ports
/// wants it kept.
///
/// Where the protocol has [no ids](crate::Correlation::Socket), each request has a port of its own in any
/// case, so that the first three are one.
///
/// ```
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sim::SimNet;
/// use rejoinder::transport::LocalPort;
/// use rejoinder::Client;
///
/// let server = "10.0.0.1:9999".parse()?;
/// let mut client = Client::builder(Tagged(Text))
///     .local_port(LocalPort::PerRequest)
///     .with_connector(SimNet::new(), server)?;
/// client.submit("one")?;
/// client.submit("two")?;
/// assert_eq!(client.stats().sockets, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalPort {
    /// Requests share one as long as their ids last and the OS sends from it. For services that keep
    /// something by the peer's address, as a session, or the memory of [`Dedup`](crate::handler::Dedup).
    /// Of several addresses of a server, one that has responded is left only after a request that it did not
    /// respond to in all of its time, or that it refused.
    Kept,
    /// As [`Kept`](Self::Kept), but requests get another port also after five minutes, and when sends
    /// in a row are not answered in their time. A retransmission may then come to the server as the
    /// request of another peer.
    #[default]
    Renewed,
    /// Each request has its own, so that a forger has to guess both its id and its port (RFC 5452 §9.2).
    /// It costs a socket for each request that is in flight or
    /// [cools down](crate::ClientBuilder::max_cooling_sockets).
    PerRequest,
    /// Each request has its own, and each retransmission another: where packets are distributed by their
    /// ports, it takes another way. Responses are accepted on all of them.
    PerSend,
}
