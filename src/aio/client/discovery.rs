use std::fmt;
use std::future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::state::{State, closed};
use super::{Client, Handle, Response, Turn};
use crate::aio::connect::AsyncConnect;
use crate::client::{RequestError, Ticket};
use crate::codec::Codec;

impl<N: AsyncConnect, C: Codec> Client<N, C> {
    /// Asks a multicast or broadcast address, and takes the responses of all peers that respond within
    /// `time`. The blocking [`Client::discover`](crate::Client::discover) documents what counts as a
    /// response, how the request is sent again, and what a broadcast address needs.
    ///
    /// If the [window](crate::ClientBuilder::window) is full, it first waits for room. The time begins after
    /// that. Other requests go on meanwhile.
    ///
    /// # Errors
    ///
    /// As those of [`request`](Self::request) before anything is sent.
    ///
    /// ```
    /// use rejoinder::aio::Client;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let net = SimNet::new();
    /// let group = "239.1.2.3".parse()?;
    /// for (member, name) in [("10.0.0.1".parse()?, "lamp"), ("10.0.0.2".parse()?, "door")] {
    ///     net.host((member, 9999).into(), ServerCore::new(Text, move |_: &str| Some(name.to_owned())))?;
    ///     net.join_group(group, member);
    /// }
    ///
    /// let client = Client::builder(Text).with_connector(net, (group, 9999).into())?;
    /// let mut names = Vec::new();
    /// let mut discovery = client.discover("who is there?", Duration::from_secs(2)).await?;
    /// while let Some((peer, response)) = discovery.next_response().await {
    ///     names.push(format!("{}: {}", peer.ip(), response?.get()));
    /// }
    /// assert_eq!(names, ["10.0.0.1: lamp", "10.0.0.2: door"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn discover(
        &self,
        request: C::Request<'_>,
        time: Duration,
    ) -> Result<Discovery<N, C>, RequestError> {
        let mut turn = Turn {
            shared: &self.handle.shared,
            number: None,
        };
        let mut request = Some(request);
        let submitted = future::poll_fn(|cx| {
            let mut state = turn.shared.lock();
            state.poll_room(&mut turn.number, cx).map(|()| {
                let request = request.take().expect("it is ready once");
                state.discover(request, time)
            })
        });
        Ok(Discovery {
            ticket: submitted.await?,
            handle: Arc::clone(&self.handle),
        })
    }
}

/// The responses of the members of a group, as they come: [`Client::discover`] returns it.
///
/// Dropping it ends the discovery. It keeps the client, so it goes on when the [`Client`] is dropped.
///
/// ```
/// use rejoinder::aio::Client;
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use std::time::Duration;
/// use tokio::time::Instant;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder(Text).with_connector(SimNet::new(), "239.1.2.3:9999".parse()?)?;
/// let begun = Instant::now();
/// let mut discovery = client.discover("who is there?", Duration::from_secs(2)).await?;
/// assert!(discovery.next_response().await.is_none()); // the group has no members
/// assert_eq!(begun.elapsed(), Duration::from_secs(2));
/// # Ok(())
/// # }
/// ```
#[must_use = "its responses are given out by `next_response`"]
pub struct Discovery<N: AsyncConnect, C: Codec> {
    handle: Arc<Handle<N, C>>,
    ticket: Ticket,
}

impl<N: AsyncConnect, C: Codec> Discovery<N, C> {
    /// Waits for a response of a peer that has not responded yet. `None` when the time of the discovery is
    /// over. Dropping its future loses no response.
    ///
    /// An error is [`RequestError::Refused`], from a peer that will not respond; others may. Or, as the last
    /// item and with the group's address, it is the reason why the request could not be sent.
    pub async fn next_response(
        &mut self,
    ) -> Option<(SocketAddr, Result<Response<C>, RequestError>)> {
        let Handle { shared, codec } = &*self.handle;
        let next = future::poll_fn(|cx| shared.lock().poll_response(self.ticket, cx));
        Some(match next.await? {
            Ok((peer, datagram)) => (peer, Ok(Response::new(datagram, Arc::clone(codec)))),
            Err(error) => (
                error.peer().unwrap_or_else(|| shared.lock().core.peer()),
                Err(error),
            ),
        })
    }
}

impl<N: AsyncConnect, C: Codec> Drop for Discovery<N, C> {
    fn drop(&mut self) {
        self.handle.shared.lock().end_discovery(self.ticket);
    }
}

impl<N: AsyncConnect, C: Codec> fmt::Debug for Discovery<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// A request to a group, until it is dropped.
pub(super) struct Asking {
    ticket: Ticket,
    /// Who waits for the next response.
    waker: Option<Waker>,
    /// Whether the end of the client was reported.
    is_closed: bool,
}

impl<N: AsyncConnect, C: Codec> State<N, C> {
    fn discover(
        &mut self,
        request: C::Request<'_>,
        time: Duration,
    ) -> Result<Ticket, RequestError> {
        let ticket = self.put_in(|core, now, random| core.discover(now, request, time, random))?;
        self.asking.push(Asking {
            ticket,
            waker: None,
            is_closed: false,
        });
        self.send_soon();
        Ok(ticket)
    }

    fn poll_response(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(SocketAddr, Bytes), RequestError>>> {
        let is_closed = self.is_closed;
        let all = &mut self.asking;
        let Some(asking) = all.iter_mut().find(|asking| asking.ticket == ticket) else {
            return Poll::Ready(None);
        };
        // What came before the end of the client is not lost.
        if self.core.has_result(ticket) {
            let next = self.core.take_result(ticket);
            return Poll::Ready(next.map(|result| {
                let response = result?;
                Ok((response.peer(), Bytes::copy_from_slice(response.bytes())))
            }));
        }
        if is_closed {
            let was_closed = std::mem::replace(&mut asking.is_closed, true);
            return Poll::Ready((!was_closed).then(|| Err(closed())));
        }
        asking.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end_discovery(&mut self, ticket: Ticket) {
        self.asking.retain(|asking| asking.ticket != ticket);
        self.core.cancel(self.connector.now(), ticket);
        self.wake_queue();
        // Its socket is to be closed.
        self.wake_driver();
    }

    /// Wakes those who wait for responses that have come.
    pub(super) fn wake_asking(&mut self) {
        for asking in &mut self.asking {
            if (self.is_closed || self.core.has_result(asking.ticket))
                && let Some(waker) = asking.waker.take()
            {
                waker.wake();
            }
        }
    }
}
