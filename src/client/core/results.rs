//! Results, on their way from the core to whatever asked.

use std::fmt;
use std::mem;
use std::net::SocketAddr;

use super::super::slot::Slot;
use super::{ClientCore, RequestError, State, Ticket};
use crate::codec::{Codec, ResponseKind};

/// A response that a core gives out: the bytes that came, which decode, and their peer.
///
/// ```
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
/// use rejoinder::{Client, Timestamp};
///
/// let server = "192.0.2.1:7".parse()?;
/// let mut core = Client::builder(Tagged(Text)).core(server)?;
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
/// let now = Timestamp::system();
/// let ticket = core.submit(now, "question", &mut || Ok(0x3030_3030_3030_3030))?;
/// let socket = core.poll_send(now, &mut outbox).expect("it is due at once");
/// core.on_sent(now, &SendReport::accepted(1));
/// inbox.push(b"!00000000answer", Meta::new(server));
/// core.on_receive(now, socket, &mut inbox);
///
/// let response = core.take_result(ticket).expect("it is answered")?;
/// assert_eq!(response.peer(), server);
/// assert_eq!(response.bytes(), b"!00000000answer");
/// assert_eq!(response.decode()?, "answer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawResponse<'a, C> {
    codec: &'a C,
    slot: &'a Slot,
}

impl<'a, C: Codec> RawResponse<'a, C> {
    /// The peer that sent it.
    #[expect(
        clippy::misnamed_getters,
        reason = "the slot's `peer` is the one that was asked last"
    )]
    pub fn peer(&self) -> SocketAddr {
        self.slot.responder
    }

    /// The whole datagram; of a response of [several](ResponseKind::Part), their payloads.
    pub fn bytes(&self) -> &'a [u8] {
        &self.slot.response
    }

    /// What it means.
    ///
    /// # Errors
    ///
    /// [`RequestError::Malformed`]: the codec decoded it when it came, and does not now.
    #[inline]
    pub fn decode(self) -> Result<C::Response<'a>, RequestError> {
        let response = self.codec.decode_response(&self.slot.response);
        response.map_err(|error| RequestError::Malformed {
            peer: self.slot.responder,
            after: self.slot.after,
            source: error.into(),
        })
    }
}

impl<C: Codec> ClientCore<C> {
    /// Gives out the next result, in the order in which they came about. Those of requests to
    /// [groups](Self::discover) are not among them.
    pub fn poll_result(&mut self) -> Option<(Ticket, Result<RawResponse<'_, C>, RequestError>)> {
        let index = self.done.front()?;
        let ticket = self.slots[index].ticket;
        Some((ticket, self.take_done(index)))
    }

    /// Gives out the result of one request. `None` if it has none yet, or it was given out.
    ///
    /// For a request to a [group](Self::discover) it is the next response, in the order in which they
    /// came. `None` means that there is none now, or, while [`has_result`](Self::has_result) is true,
    /// that there will be none. An error is [`RequestError::Refused`] of one peer; or, as the last
    /// result, why the request could not be sent.
    pub fn take_result(
        &mut self,
        ticket: Ticket,
    ) -> Option<Result<RawResponse<'_, C>, RequestError>> {
        if !self.has_result(ticket) {
            return None;
        }
        let index = ticket.slot();
        if self.slots[index].is_discovery() {
            self.take_one_of_group(index)
        } else {
            Some(self.take_done(index))
        }
    }

    /// Whether [`take_result`](Self::take_result) has something to give out for this request, or, of
    /// one to a [group](Self::discover), never will again because its time is over.
    #[inline]
    pub fn has_result(&self, ticket: Ticket) -> bool {
        let index = ticket.slot();
        let Some(slot) = self.slots.get(index).filter(|slot| slot.ticket == ticket) else {
            return false;
        };
        match &slot.responders {
            None => self.done.contains(index),
            Some(responders) => !responders.is_empty() || self.ended.contains(index),
        }
    }

    fn take_done(&mut self, index: usize) -> Result<RawResponse<'_, C>, RequestError> {
        self.free_lent();
        self.done.remove(index);
        self.lent = Some(index);
        match mem::replace(&mut self.slots[index].state, State::Answered) {
            State::Failed(error) => Err(error),
            _ => Ok(self.response(index)),
        }
    }

    fn take_one_of_group(
        &mut self,
        index: usize,
    ) -> Option<Result<RawResponse<'_, C>, RequestError>> {
        let slot = &mut self.slots[index];
        let Some((peer, response)) = slot.responders.as_mut()?.pop() else {
            return match mem::replace(&mut slot.state, State::Answered) {
                // So each of them ends.
                State::Failed(RequestError::TimedOut { .. } | RequestError::Malformed { .. }) => {
                    None
                }
                State::Failed(error) => Some(Err(error)),
                _ => None,
            };
        };
        slot.responder = peer;
        slot.response = response;
        if self.codec.response_kind(&slot.request, &slot.response) == ResponseKind::Refused
            && let Err(error) = self.codec.decode_response(&slot.response)
        {
            let source = error.into();
            return Some(Err(RequestError::Refused { peer, source }));
        }
        Some(Ok(self.response(index)))
    }

    /// The response that a slot holds. It was decoded when it came, to see whether it can be; but a
    /// value that borrows from the slot cannot be kept beside it.
    fn response(&self, index: usize) -> RawResponse<'_, C> {
        RawResponse {
            codec: &self.codec,
            slot: &self.slots[index],
        }
    }
}

impl<C> fmt::Debug for RawResponse<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawResponse")
            .field("peer", &self.slot.responder)
            .field("bytes", &self.slot.response)
            .finish_non_exhaustive()
    }
}
