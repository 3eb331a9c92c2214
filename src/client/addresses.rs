//! What of a client can be changed while it is in use.

use std::net::SocketAddr;

use super::Client;
use crate::codec::Codec;
use crate::transport::Connect;

impl<N: Connect, C: Codec> Client<N, C> {
    /// The address that the next request is sent to first: of several, the one that requests moved to last.
    pub fn peer(&self) -> SocketAddr {
        self.core.peer()
    }

    /// Replaces the server's addresses, because its name has others now. A client never resolves a name by
    /// itself: do so when requests [fail](crate::RequestError), where a wait for the resolver does no harm.
    ///
    /// - New requests begin with `peer`, unless the address that they would begin with is among the new ones.
    /// - A request in flight whose address is not among them is sent to one of them at the next call that
    ///   sends, if [`Retry::max_sends`](crate::Retry::max_sends) allows it and it is not
    ///   [acknowledged](crate::codec::ResponseKind::Acknowledged). The response may still come from an old one.
    ///   Its deadline stays.
    /// - Round-trip times that were measured are kept.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let [old, new] = ["10.0.0.1:9999".parse()?, "10.0.0.2:9999".parse()?];
    /// net.host(new, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let mut client = Client::new(net, Text, old);
    /// # let resolve = || vec![new];
    /// if let Err(RequestError::TimedOut { .. }) = client.request("anyone?") {
    ///     if let [first, others @ ..] = &resolve()[..] {
    ///         client.set_peers(*first, others);
    ///     }
    /// }
    /// assert_eq!(client.request("anyone?")?, "ANYONE?");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_peers(&mut self, peer: SocketAddr, others: &[SocketAddr]) {
        self.core.set_peers(self.driver.now(), peer, others);
    }
}
