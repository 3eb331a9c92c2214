//! Requests to a group: any number of responses, each from another peer.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use super::{ClientCore, RequestError, State, Ticket};
use crate::codec::{Codec, ResponseKind};
use crate::timestamp::Timestamp;

impl<C: Codec> ClientCore<C> {
    /// Submits a request to a group, which takes responses for as long as `time` says. Otherwise like
    /// [`submit`](Self::submit). [`Client::discover`](crate::Client::discover) documents what counts as a
    /// response, and has an example.
    ///
    /// The responses are given out by [`poll_response`](Self::poll_response), and never by
    /// [`poll_result`](Self::poll_result). The request takes up its slot of the window, also when its
    /// time is over, until it is [cancelled](Self::cancel).
    ///
    /// # Errors
    ///
    /// As those of [`submit`](Self::submit).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
    /// use rejoinder::{Client, Timestamp};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// let mut core = Client::builder(Text).core("239.1.2.3:9999".parse()?)?;
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
    ///
    /// let time = Duration::from_secs(2);
    /// let ticket = core.discover(at(0), "who is there?", time, &mut || Ok(0))?;
    /// let socket = core.poll_send(at(0), &mut outbox).expect("it is due at once");
    /// core.on_sent(at(0), &SendReport::accepted(1));
    ///
    /// let member = "192.0.2.1:9999".parse()?;
    /// inbox.push(b"one", Meta::new(member));
    /// core.on_receive(at(1), socket, &mut inbox);
    /// assert!(core.has_response(ticket));
    /// let (peer, response) = core.poll_response(ticket).expect("one came");
    /// assert_eq!((peer, response?), (member, "one"));
    /// assert!(!core.has_response(ticket));
    ///
    /// outbox.clear();
    /// core.poll_send(at(2), &mut outbox); // the time is over
    /// assert!(core.has_response(ticket) && core.poll_response(ticket).is_none());
    /// core.cancel(at(2), ticket);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discover(
        &mut self,
        now: Timestamp,
        request: C::Request<'_>,
        time: Duration,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<Ticket, RequestError> {
        self.begin(now.monotonic, request, Some(time), random)
    }

    /// Gives out a response to a request to a group, with the peer that sent it, in the order in which
    /// they came. `None` says that there is none now, or, once [`has_response`](Self::has_response) is
    /// true, that there will be none.
    ///
    /// An error is [`RequestError::Refused`] of one peer; or, as the last one and with the group's
    /// address, why the request could not be sent.
    pub fn poll_response(
        &mut self,
        ticket: Ticket,
    ) -> Option<(SocketAddr, Result<C::Response<'_>, RequestError>)> {
        let index = ticket.slot();
        let slot = self.slots.get_mut(index)?;
        if slot.ticket != ticket {
            return None;
        }
        let Some((peer, response)) = slot.responders.as_mut()?.pop() else {
            if !self.ended.contains(index) {
                return None;
            }
            return match mem::replace(&mut slot.state, State::Answered) {
                // So each of them ends.
                State::Failed(RequestError::TimedOut { .. } | RequestError::Malformed { .. }) => {
                    None
                }
                State::Failed(error) => Some((slot.peer, Err(error))),
                _ => None,
            };
        };
        slot.response = response;
        let is_refusal =
            self.codec.response_kind(&slot.request, &slot.response) == ResponseKind::Refused;
        let after = slot.after;
        let response = self.codec.decode_response(&slot.response).map_err(|error| {
            let source = error.into();
            if is_refusal {
                RequestError::Refused { peer, source }
            } else {
                // It was decoded when it came: a codec may be of two minds.
                RequestError::Malformed {
                    peer,
                    after,
                    source,
                }
            }
        });
        Some((peer, response))
    }

    /// Whether [`poll_response`](Self::poll_response) has something to give out, or never will again:
    /// the request's time is over, or it was cancelled.
    pub fn has_response(&self, ticket: Ticket) -> bool {
        let index = ticket.slot();
        let slot = self.slots.get(index).filter(|slot| slot.ticket == ticket);
        slot.and_then(|slot| slot.responders.as_ref())
            .is_none_or(|responders| !responders.is_empty() || self.ended.contains(index))
    }
}
