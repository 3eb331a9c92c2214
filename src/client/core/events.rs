//! What a driver reports to the core of a client.

use std::io;
use std::time::Duration;

use super::super::cause::{copy, is_exhaustion, is_unreachable};
use super::super::sockets::SocketId;
use super::{ClientCore, RequestError, State};
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, ErrorClass, Inbox, SendReport, same_peer};

impl<C: Codec> ClientCore<C> {
    /// Takes the report on the outbox that [`poll_send`](Self::poll_send) filled last.
    ///
    /// A request that the OS refused to send is sent again when its next send is due. It fails with
    /// [`RequestError::NotSent`] at its deadline if all sends were refused. Errors of the kind
    /// [`NotConnected`](io::ErrorKind::NotConnected) fail all requests on the socket.
    pub fn on_sent(&mut self, now: Timestamp, report: &SendReport) {
        let (Some(socket), Some(error)) = (self.sending.take(), &report.last_error) else {
            return;
        };
        if is_unreachable(error) {
            self.unreachable(now, socket, error);
        } else if ErrorClass::classify(error) == ErrorClass::Gone {
            self.gone(now, socket, error);
        } else {
            for &index in &self.outgoing {
                let slot = &mut self.slots[index];
                if report.sent == 0 {
                    slot.refuse(copy(error));
                } else {
                    // Which it was shows when each is sent again, in a batch of its own.
                    slot.doubtful += 1;
                }
            }
        }
    }

    /// Takes the error of opening the socket that [`poll_send`](Self::poll_send) named last.
    ///
    /// Where closing another socket may help, because descriptors or ports are exhausted, and one
    /// cools down that only a duplicate can come to, that one is [to be closed](Self::poll_socket),
    /// and the requests are due again. Otherwise they fail with [`RequestError::Connect`].
    pub fn on_connect_error(&mut self, now: Timestamp, socket: SocketId, error: &io::Error) {
        let now = now.monotonic;
        if self.sending.take() == Some(socket) && is_exhaustion(error) && self.sockets.evict() {
            for at in 0..self.outgoing.len() {
                let index = self.outgoing[at];
                self.free_retransmission(index);
                self.slots[index].undo_send();
                self.timers.set(index, now);
            }
            return;
        }
        self.lose(now, socket);
        let peer = self.peer;
        self.for_those_on(socket, |core, index| {
            let source = copy(error);
            // Nothing has left from it.
            for route in &mut core.slots[index].routes {
                route.sends = 0;
            }
            let error = RequestError::Connect { peer, source };
            core.finish(index, State::Failed(error), None, now);
        });
    }

    /// Takes all datagrams that came on a socket. Those that are the response to nothing in flight
    /// change nothing, but are [counted](super::ClientStats::ignored).
    ///
    /// A request that has no result yet accepts its response also after its deadline, because the
    /// datagram may have been queued in time while the driver was busy; except where the
    /// [transport knows](crate::transport::Meta::waited) that it was not.
    pub fn on_receive(&mut self, now: Timestamp, socket: SocketId, inbox: &mut Inbox) {
        if !inbox.is_empty() {
            self.backoff.reset();
        }
        while let Some(datagram) = inbox.pop() {
            if !self.accept(now.monotonic, socket, datagram) {
                self.ignored += 1;
            }
        }
    }

    fn accept(&mut self, now: Duration, socket: SocketId, datagram: Datagram<'_>) -> bool {
        let Datagram { bytes, meta, .. } = datagram;
        if meta.truncated || !same_peer(self.peer, meta.peer) {
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
        let slot = &mut self.slots[index];
        if let Err(error) = self.codec.decode_response(bytes) {
            slot.malformed = Some(error.into());
            return false;
        }
        let arrived = now.saturating_sub(meta.waited);
        // A driver that comes late cannot know when a datagram arrived, unless the transport does.
        let is_late = arrived == slot.deadline || arrived > slot.deadline && !meta.waited.is_zero();
        if is_late || !self.codec.response_matches(&slot.request, bytes) {
            return false;
        }
        slot.response.clear();
        slot.response.extend_from_slice(bytes);
        self.finish(index, State::Answered, Some(socket), now);
        true
    }

    /// Takes an error of receiving on a socket, and returns how long to pause before that is tried
    /// again: see [`ReceiveBackoff`](crate::sans_io::ReceiveBackoff). The pause is best cut short at
    /// [`next_timer`](Self::next_timer).
    ///
    /// An error that says the peer cannot be reached can be caused by a forged packet. So unless the
    /// options [want it otherwise](crate::ClientBuilder::fail_when_unreachable), it only decides
    /// what the requests' errors will be at their deadlines. One of the kind
    /// [`NotConnected`](io::ErrorKind::NotConnected) says that the socket is gone: all requests on
    /// it fail at once.
    pub fn on_receive_error(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        error: &io::Error,
    ) -> Duration {
        let class = ErrorClass::classify_receive(error);
        if class == ErrorClass::Gone {
            self.gone(now, socket, error);
            return Duration::ZERO;
        }
        if is_unreachable(error) {
            self.unreachable(now, socket, error);
        }
        self.backoff.pause_after(class)
    }

    fn unreachable(&mut self, now: Timestamp, socket: SocketId, error: &io::Error) {
        self.sockets
            .note_unreachable(socket, self.submitted, copy(error));
        if self.options.fail_when_unreachable {
            self.for_those_on(socket, |core, index| core.fail(index, now.monotonic));
        }
    }

    fn gone(&mut self, now: Timestamp, socket: SocketId, error: &io::Error) {
        self.lose(now.monotonic, socket);
        self.for_those_on(socket, |core, index| {
            let error = RequestError::Transport(copy(error));
            core.finish(index, State::Failed(error), None, now.monotonic);
        });
    }

    /// Has no request use a socket any more, because there is no transport behind it.
    fn lose(&mut self, now: Duration, socket: SocketId) {
        self.sockets.lose(now, socket);
        if self.shared == Some(socket) {
            self.shared = None;
        }
    }

    fn for_those_on(&mut self, socket: SocketId, mut act: impl FnMut(&mut Self, usize)) {
        for index in 0..self.slots.len() {
            if self.sockets.requests(socket) == 0 {
                return;
            }
            let slot = &self.slots[index];
            if slot.is_in_flight() && slot.socket() == socket {
                act(self, index);
            }
        }
    }
}
