use std::fmt;
use std::net::SocketAddr;

use super::{Client, ClientCore, RequestError, Ticket};
use crate::codec::Codec;
use crate::transport::{Connect, Wait};

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

impl<'a, N: Connect, C: Codec> Discovery<'a, N, C> {
    pub(super) fn new(client: &'a mut Client<N, C>, ticket: Ticket) -> Self {
        Self { client, ticket }
    }

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
        let Client { core, driver, .. } = &mut *self.client;
        let has_response = |core: &ClientCore<C>| core.has_response(ticket);
        if !has_response(core) {
            driver.drive(core, Wait::Forever, has_response);
        }
        core.poll_response(ticket)
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
