//! The course of a request: when it is sent, and how it ends.

use std::mem;
use std::time::Duration;

use super::super::cause::{copy, is_refusal};
use super::super::slot::{Route, State};
use super::super::sockets::SocketId;
use super::{ClientCore, RequestError};
use crate::codec::Codec;

impl<C: Codec> ClientCore<C> {
    /// The slot of a request that is to be sent now. It remains due until that is
    /// [counted](Self::count_send).
    pub(super) fn next_due(&mut self, now: Duration) -> Option<usize> {
        let retry = self.options.retry;
        loop {
            if self.retransmissions < retry.max_in_flight
                && let Some(index) = self.parked.front()
            {
                if now < self.slots[index].deadline {
                    return Some(index);
                }
                self.fail(index, now);
                continue;
            }
            let (due, index) = self.timers.first()?;
            if due > now {
                return None;
            }
            let slot = &self.slots[index];
            if now >= slot.deadline {
                self.fail(index, now);
                continue;
            }
            if slot.sends == 0 {
                return Some(index);
            }
            let may_be_sent = slot.sends < retry.max_sends && !slot.is_acknowledged;
            let deadline = slot.deadline;
            self.note_silence(index);
            self.timers.set(index, deadline);
            // The latest retransmission counts as lost.
            self.free_retransmission(index);
            if may_be_sent && !self.parked.contains(index) {
                self.parked.push_back(index);
            }
        }
    }

    pub(super) fn count_send(&mut self, index: usize, now: Duration) {
        self.parked.remove(index);
        let slot = &mut self.slots[index];
        slot.sends += 1;
        slot.sent = now;
        if let Some(route) = slot.routes.last_mut() {
            route.sends += 1;
        }
        if slot.sends > 1 {
            slot.retransmitting = true;
            self.retransmissions += 1;
        }
        self.timers.set(index, self.next_send(now, index));
    }

    pub(super) fn free_retransmission(&mut self, index: usize) {
        if mem::take(&mut self.slots[index].retransmitting) {
            self.retransmissions -= 1;
        }
    }

    /// Ends a request at its deadline, or because the peer cannot be reached.
    pub(super) fn fail(&mut self, index: usize, now: Duration) {
        if now >= self.slots[index].deadline {
            self.note_silence(index);
            self.leave_silent_peer(now, index);
        }
        let error = self.failure(index, now);
        self.finish(index, State::Failed(error), None, now);
    }

    fn failure(&mut self, index: usize, now: Duration) -> RequestError {
        let slot = &mut self.slots[index];
        let peer = slot.peer;
        let after = now.saturating_sub(slot.started);
        if let Some(source) = slot.malformed.take() {
            return RequestError::Malformed {
                peer,
                after,
                source,
            };
        }
        if let Some((received, total)) = slot.parts.progress() {
            return RequestError::Incomplete {
                peer,
                after,
                received,
                total,
                missing: slot.parts.missing(),
            };
        }
        let request = slot.ticket.number();
        let mut routes = slot.routes.iter().rev();
        // Which may be about another address than the one that was asked last.
        let unreachable = routes.find_map(|route| {
            let error = self.sockets.unreachable_since(route.socket, request)?;
            Some((self.sockets.peer(route.socket), error))
        });
        match unreachable {
            Some((peer, error)) if is_refusal(error) => RequestError::NobodyListening { peer },
            Some((peer, error)) => RequestError::Unreachable {
                peer,
                source: copy(error),
            },
            None => match slot.refusal.take() {
                Some(source) if slot.was_never_sent() => RequestError::NotSent {
                    peer,
                    after,
                    source,
                },
                _ => RequestError::TimedOut {
                    peer,
                    after,
                    sends: slot.sends,
                    ignored: self.ignored - slot.ignored,
                },
            },
        }
    }

    /// Ends a request that is in flight. `answered_on` is the socket on which its response came.
    pub(super) fn finish(
        &mut self,
        index: usize,
        result: State,
        answered_on: Option<SocketId>,
        now: Duration,
    ) {
        self.free_retransmission(index);
        self.timers.remove(index);
        self.parked.remove(index);
        self.in_flight -= 1;
        let slot = &mut self.slots[index];
        slot.after = now.saturating_sub(slot.started);
        slot.state = result;
        // Of a closed port, the only copy was refused, and it answered the only one.
        let is_settled = matches!(
            slot.state,
            State::Failed(RequestError::NobodyListening { .. })
        );
        let routes = mem::take(&mut slot.routes);
        for &Route { socket, sends } in &routes {
            let answers = u32::from(is_settled || answered_on == Some(socket));
            self.ids.release(socket, slot.id);
            self.sockets.detach(now, socket, sends > 0, sends > answers);
            if !self.ids.exist() {
                self.sockets.retire(now, socket);
            }
        }
        slot.routes = routes;
        slot.routes.clear();
        if slot.is_discovery() {
            self.ended.push_back(index);
        } else {
            self.done.push_back(index);
        }
    }
}
