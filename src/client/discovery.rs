use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Client, ClientCore, RequestError, Ticket};
use crate::codec::Codec;
use crate::transport::{Connect, Wait};

impl<N: Connect, C: Codec> Client<N, C> {
    /// Asks a multicast or broadcast address, and takes the responses of all who respond within `time`,
    /// each with its peer.
    ///
    /// A response is one that [decodes](Codec::decode_response), carries the request's
    /// [id](Codec::response_id) if the protocol has ids, and [matches](Codec::response_matches). It may
    /// come from any peer; each peer counts once, so a duplicate, or a second response, is ignored, and so
    /// is all beyond the [bounds](crate::ClientBuilder::max_responders). A response of several datagrams is
    /// ignored, too.
    ///
    /// The request has a socket of its own, with a local port that is not used for others. It is sent
    /// again as [`Retry`](crate::Retry) says, with the first timeout that is set there, because a datagram to a group
    /// is lost as easily as others: one second, then two, as multicast DNS does (RFC 6762 §5.2). Every
    /// member may respond to each copy. Where a protocol forbids that (CoAP, RFC 7252 §8.1), set
    /// [`Retry::never`](crate::Retry::never). Other requests in flight go on meanwhile.
    ///
    /// A broadcast address must be allowed, with [`UdpOptions::broadcast`](crate::udp::UdpOptions::broadcast).
    ///
    /// # Errors
    ///
    /// As those of [`submit`](Self::submit).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let group = "239.1.2.3".parse()?;
    /// for (member, name) in [("10.0.0.1".parse()?, "lamp"), ("10.0.0.2".parse()?, "door")] {
    ///     net.host((member, 9999).into(), ServerCore::new(Text, move |_: &str| Some(name.to_owned())))?;
    ///     net.join_group(group, member);
    /// }
    ///
    /// let mut client = Client::new(net, Text, (group, 9999).into());
    /// let mut names = Vec::new();
    /// let mut discovery = client.discover("who is there?", Duration::from_secs(2))?;
    /// while let Some((peer, response)) = discovery.next_response() {
    ///     names.push(format!("{}: {}", peer.ip(), response?));
    /// }
    /// assert_eq!(names, ["10.0.0.1: lamp", "10.0.0.2: door"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discover(
        &mut self,
        request: C::Request<'_>,
        time: Duration,
    ) -> Result<Discovery<'_, N, C>, RequestError> {
        let ticket = self.driver.discover(&mut self.core, request, time)?;
        Ok(Discovery {
            client: self,
            ticket,
        })
    }
}

/// The responses of the members of a group, as they come: [`Client::discover`] returns it.
///
/// Dropping it ends the discovery.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
/// use std::time::Duration;
///
/// let mut client = Client::new(SimNet::new(), Text, "239.1.2.3:9999".parse()?);
/// let discovery = client.discover("who is there?", Duration::from_secs(2))?;
/// drop(discovery); // never mind: nothing was sent
/// assert_eq!(client.in_flight(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the request is sent when the first response is asked for"]
pub struct Discovery<'a, N: Connect, C: Codec> {
    client: &'a mut Client<N, C>,
    ticket: Ticket,
}

impl<N: Connect, C: Codec> Discovery<'_, N, C> {
    /// Waits for a response of a peer that has not responded yet. `None` when the time of the discovery
    /// is over.
    ///
    /// An error is [`RequestError::Refused`], from a peer that will not respond; others may. Or, as the
    /// last item and with the group's address, it is the reason why the request could not be sent.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let mut client = Client::new(net.clone(), Text, "239.1.2.3:9999".parse()?);
    /// let mut discovery = client.discover("who is there?", Duration::from_secs(2))?;
    /// assert!(discovery.next_response().is_none()); // the group has no members
    /// drop(discovery);
    /// assert_eq!(net.now().monotonic, Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_response(&mut self) -> Option<(SocketAddr, Result<C::Response<'_>, RequestError>)> {
        let ticket = self.ticket;
        let Client { core, driver } = &mut *self.client;
        let has_result = |core: &ClientCore<C>| core.has_result(ticket);
        if !has_result(core) {
            driver.drive(core, Wait::Forever, has_result);
        }
        let group = core.peer();
        Some(match core.take_result(ticket)? {
            Ok(response) => (response.peer(), response.decode()),
            Err(error) => (error.peer().unwrap_or(group), Err(error)),
        })
    }
}

impl<N: Connect, C: Codec> Drop for Discovery<'_, N, C> {
    fn drop(&mut self) {
        self.client.cancel(self.ticket);
    }
}

impl<N: Connect, C: Codec> fmt::Debug for Discovery<'_, N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
