//! What a datagram does to the request that it belongs to.

use std::time::Duration;

use super::super::parts::Assembly;
use super::super::sockets::SocketId;
use super::{ClientCore, RequestError, State};
use crate::codec::{Codec, ResponseKind};
use crate::transport::Datagram;

impl<C: Codec> ClientCore<C> {
    /// Takes a datagram. Returns whether it was of use to a request.
    pub(super) fn accept(
        &mut self,
        now: Duration,
        socket: SocketId,
        datagram: Datagram<'_>,
    ) -> bool {
        let Datagram { bytes, meta, .. } = datagram;
        if meta.truncated {
            return false;
        }
        let id = if self.ids.exist() {
            self.codec.response_id(bytes)
        } else {
            Some(0)
        };
        let Some(index) = id.and_then(|id| self.ids.slot_of(socket, id)) else {
            return false;
        };
        if !self.slots[index].is_discovery() && !self.sockets.is_of(socket, meta.peer) {
            return false;
        }
        let slot = &mut self.slots[index];
        if !self.codec.is_authentic_response(&slot.request, bytes) {
            return false;
        }
        let arrived = now.saturating_sub(meta.waited);
        // A driver that comes late cannot know when a datagram arrived, unless the transport does.
        let is_late = arrived == slot.deadline || arrived > slot.deadline && !meta.waited.is_zero();
        let kind = self.codec.response_kind(&slot.request, bytes);
        if kind == ResponseKind::Whole
            && let Err(error) = self.codec.decode_response(bytes)
        {
            slot.malformed = Some(error.into());
            return false;
        }
        if is_late || !self.codec.response_matches(&slot.request, bytes) {
            return false;
        }
        if let Some(responders) = &mut slot.responders {
            let is_result = matches!(kind, ResponseKind::Whole | ResponseKind::Refused);
            return is_result && responders.add(meta.peer, bytes);
        }
        match kind {
            ResponseKind::Acknowledged => self.acknowledge(now, index, socket),
            ResponseKind::Refused => {
                slot.responder = meta.peer;
                self.refuse(now, index, socket, bytes);
            }
            ResponseKind::Part {
                index: part,
                total,
                payload,
            } => {
                let is_of_use = self.assemble(now, index, socket, (part, total), payload);
                if !self.slots[index].is_in_flight() {
                    self.slots[index].responder = meta.peer;
                }
                return is_of_use;
            }
            ResponseKind::Whole => {
                slot.responder = meta.peer;
                slot.response.clear();
                slot.response.extend_from_slice(bytes);
                self.measure(index, socket, arrived);
                self.note_response(now, socket);
                self.finish(index, State::Answered, Some(socket), now);
            }
        }
        if !matches!(kind, ResponseKind::Whole) {
            self.note_response(now, socket);
        }
        true
    }

    /// The peer has the request, so it is not sent again.
    fn acknowledge(&mut self, now: Duration, index: usize, socket: SocketId) {
        self.measure(index, socket, now);
        self.slots[index].is_acknowledged = true;
        self.parked.remove(index);
        self.free_retransmission(index);
        self.timers.set(index, self.slots[index].deadline);
    }

    fn refuse(&mut self, now: Duration, index: usize, socket: SocketId, bytes: &[u8]) {
        let slot = &mut self.slots[index];
        let result = if let Err(error) = self.codec.decode_response(bytes) {
            State::Failed(RequestError::Refused {
                peer: slot.responder,
                source: error.into(),
            })
        } else {
            // What the codec makes a value of is a response after all.
            slot.response.clear();
            slot.response.extend_from_slice(bytes);
            State::Answered
        };
        self.finish(index, result, Some(socket), now);
    }

    fn assemble(
        &mut self,
        now: Duration,
        index: usize,
        socket: SocketId,
        (part, total): (u32, u32),
        payload: &[u8],
    ) -> bool {
        let slot = &mut self.slots[index];
        let part = (part as usize, total as usize);
        let limits = (
            self.options.max_response_parts,
            self.options.max_response_bytes,
        );
        match slot.parts.add(&mut slot.response, part, payload, limits) {
            Assembly::Useless => return false,
            Assembly::TooLarge => {
                let error = ResponseTooLarge {
                    parts: part.1,
                    bytes: slot.response.len().saturating_add(payload.len()),
                    max_parts: limits.0,
                    max_bytes: limits.1,
                };
                slot.malformed = Some(error.into());
                return false;
            }
            Assembly::Incomplete => {
                // The rest is on its way.
                self.parked.remove(index);
                self.free_retransmission(index);
                let slot = &self.slots[index];
                let next = now.saturating_add(slot.timeout()).min(slot.deadline);
                self.timers.set(index, next);
            }
            Assembly::Complete => {
                if let Err(error) = self.codec.decode_response(&slot.response) {
                    slot.malformed = Some(error.into());
                    slot.parts.clear();
                    return false;
                }
                self.finish(index, State::Answered, Some(socket), now);
            }
        }
        self.note_response(now, socket);
        true
    }

    /// Learns from a response how long one takes.
    fn measure(&mut self, index: usize, socket: SocketId, arrived: Duration) {
        let slot = &self.slots[index];
        let time = arrived.saturating_sub(slot.sent);
        if slot.is_acknowledged {
            // It says how long the peer worked on it.
        } else if slot.sends > 1 && !slot.was_sent_once_from(socket) {
            self.rtt.retransmitted(time, slot.first_timeout);
        } else if time <= slot.timeout() {
            // Otherwise the driver came late.
            self.rtt.sample(time);
        }
    }
}

/// A response of several datagrams that is larger than a client takes.
#[derive(Debug, thiserror::Error)]
#[error(
    "a response of {parts} datagrams and at least {bytes} bytes is larger than the limit of {max_parts} \
     datagrams and {max_bytes} bytes: raise `max_response`"
)]
struct ResponseTooLarge {
    parts: usize,
    bytes: usize,
    max_parts: usize,
    max_bytes: usize,
}
