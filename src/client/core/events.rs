//! What a driver reports to the core of a client.

use std::io;
use std::time::Duration;

use super::super::cause::{copy, is_exhaustion, is_of_socket, is_unreachable};
use super::super::sockets::SocketId;
use super::{ClientCore, RequestError, State};
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{ErrorClass, Inbox, SendReport};

impl<C: Codec> ClientCore<C> {
    /// Takes the report on the outbox that [`poll_send`](Self::poll_send) filled last.
    ///
    /// - An error of the class [`ErrorClass::Peer`] may be about an earlier datagram: the OS reports it
    ///   at the next call, which then sends nothing. So what it concerns is due again at once, and only
    ///   an error of the second attempt counts.
    /// - An error of the class [`ErrorClass::Resources`] will pass: what it concerns is due again after
    ///   a pause of 1 to 64 ms.
    /// - An error that says the socket is useless (ENETUNREACH, EADDRNOTAVAIL, EINVAL, EPERM) has its
    ///   requests be due again at once, from another socket, if anything ever left from this one.
    /// - The kind [`NotConnected`](io::ErrorKind::NotConnected) fails all requests on the socket.
    ///
    /// A request that was refused otherwise is sent again when its next send is due. It fails with
    /// [`RequestError::NotSent`] at its deadline if all sends were refused.
    pub fn on_sent(&mut self, now: Timestamp, report: &SendReport) {
        let Some(socket) = self.sending.take() else {
            return;
        };
        if report.sent > 0 {
            self.sockets.note_use(socket);
        }
        let Some(error) = &report.last_error else {
            self.congestion = 0;
            for &index in &self.outgoing {
                self.slots[index].is_repeated = false;
            }
            return;
        };
        let time = now.monotonic;
        let all = report.sent == 0;
        let failed = report.failed.clamp(1, self.outgoing.len().max(1));
        match ErrorClass::classify(error) {
            ErrorClass::Gone => self.gone(now, socket, error),
            ErrorClass::Peer if self.repeat(time, all, failed, error) => {}
            ErrorClass::Resources => {
                let pause = MIN_PAUSE * (1 << self.congestion.min(MAX_DOUBLINGS));
                self.congestion = self.congestion.saturating_add(1);
                // Buffers run full, so it is the last that were not sent.
                let first = self.outgoing.len().saturating_sub(failed);
                for at in first..self.outgoing.len() {
                    let index = self.outgoing[at];
                    self.slots[index].refusal = Some(copy(error));
                    self.undo_send(index, time.saturating_add(pause));
                }
            }
            _ if all && is_of_socket(error) => {
                // One that is broken is sent from only if there can be no other.
                let is_worth_another =
                    self.sockets.was_used(socket) && !self.sockets.is_broken(socket);
                self.break_off(time, socket);
                if is_worth_another {
                    for at in 0..self.outgoing.len() {
                        self.undo_send(self.outgoing[at], time);
                    }
                } else {
                    self.refused(now, socket, all, error);
                }
            }
            _ => self.refused(now, socket, all, error),
        }
    }

    /// Has what an error of sending concerns be sent once more, at once, unless it was already.
    /// Returns whether that is all there is to do.
    fn repeat(&mut self, now: Duration, all: bool, failed: usize, error: &io::Error) -> bool {
        // One that is too long fails again and again, and may stand anywhere in a batch. The report
        // on another datagram is made by the first call.
        if !all && !is_unreachable(error) {
            return false;
        }
        let is_repeated = |&index: &usize| self.slots[index].is_repeated;
        if self.outgoing[..failed].iter().any(is_repeated) {
            return false;
        }
        for at in 0..failed {
            let index = self.outgoing[at];
            self.undo_send(index, now);
            self.slots[index].is_repeated = true;
        }
        true
    }

    fn refused(&mut self, now: Timestamp, socket: SocketId, all: bool, error: &io::Error) {
        if is_unreachable(error) {
            self.unreachable(now, socket, error);
        }
        for &index in &self.outgoing {
            let slot = &mut self.slots[index];
            slot.is_repeated = false;
            if is_unreachable(error) {
                // It is noted with the socket.
            } else if all {
                slot.refuse(copy(error));
            } else {
                // Which it was shows when each is sent again, in a batch of its own.
                slot.doubtful += 1;
            }
        }
    }

    /// Takes back a send that did not take place, and has the request be due again.
    fn undo_send(&mut self, index: usize, due: Duration) {
        self.free_retransmission(index);
        let slot = &mut self.slots[index];
        slot.undo_send();
        self.timers.set(index, due.min(slot.deadline));
    }

    fn break_off(&mut self, now: Duration, socket: SocketId) {
        self.sockets.break_off(now, socket);
        if self.shared == Some(socket) {
            self.shared = None;
        }
    }

    /// Takes the error of opening the socket that [`poll_send`](Self::poll_send) named last. The id
    /// of a socket that is closed changes nothing.
    ///
    /// If descriptors or ports are exhausted, closing another socket may help. The core then asks
    /// the driver [to close](Self::poll_socket) a cooling socket to which only a duplicate can
    /// come, and the requests are due again. If there is none, but another socket is in use, and the
    /// server has one address, the requests wait: one of them is due again whenever a request ends,
    /// and 64 ms after the latest error. At their deadline they fail with [`RequestError::NotSent`].
    ///
    /// Otherwise requests move to the next [address](crate::ClientBuilder::other_peers). After the last
    /// one they fail with [`RequestError::Connect`]; except those that were sent from another socket
    /// before, which wait on.
    pub fn on_connect_error(&mut self, now: Timestamp, socket: SocketId, error: &io::Error) {
        let now = now.monotonic;
        let Some(peer) = self.sockets.open_peer(socket) else {
            return;
        };
        let is_asked_for = self.sending.take() == Some(socket);
        if is_asked_for && is_exhaustion(error) && self.sockets.evict(now) {
            for at in 0..self.outgoing.len() {
                self.undo_send(self.outgoing[at], now);
            }
            return;
        }
        if is_asked_for && is_exhaustion(error) && self.wait_for_a_socket(now, socket, error) {
            return;
        }
        let peers = self.peers.count();
        self.lose(now, socket);
        self.peers.give_up(peer);
        self.for_those_on(socket, |core, index| {
            let slot = &mut core.slots[index];
            // Nothing has left from it.
            if let Some(route) = slot.routes.last_mut() {
                route.sends = 0;
            }
            let sockets = &core.sockets;
            let mut routes = slot.routes.iter();
            if routes.any(|route| sockets.has_transport(route.socket)) {
                slot.refusals += 1;
                slot.refusal = Some(copy(error));
                core.remove_last_route(now, index);
            } else if slot.moves + 1 < peers {
                slot.moves += 1;
                // One that was not in the outbox is due as it was.
                if slot.sends > 0 {
                    core.undo_send(index, now);
                }
            } else {
                let source = copy(error);
                let error = RequestError::Connect { peer, source };
                core.finish(index, State::Failed(error), None, now);
            }
        });
    }

    /// Has the requests that a socket could not be opened for wait until another socket is closed.
    /// Returns `false` if none is in use, if one of the requests was sent from another before, or if
    /// another address of the server may be better.
    fn wait_for_a_socket(&mut self, now: Duration, socket: SocketId, error: &io::Error) -> bool {
        let has_another = |&index: &usize| self.slots[index].routes.len() > 1;
        if self.peers.count() > 1
            || self.outgoing.iter().any(has_another)
            || !self.sockets.is_another_in_use(socket)
        {
            return false;
        }
        for at in 0..self.outgoing.len() {
            let index = self.outgoing[at];
            self.slots[index].refusal = Some(copy(error));
            self.undo_send(index, Duration::MAX);
            self.unopened.push_back(index);
        }
        self.delay_first_unopened(now);
        true
    }

    /// Has one of the requests that wait for a socket try again, because another's may be closed now.
    pub(super) fn wake_unopened(&mut self, now: Duration) {
        if let Some(index) = self.unopened.front() {
            self.unopened.remove(index);
            self.timers.set(index, now);
            self.delay_first_unopened(now);
        }
    }

    /// Has one of the requests that wait for a socket try again after a pause: other parts of the process
    /// may have closed some. Only one request tries, because an attempt that fails costs the OS a search of
    /// all ports.
    pub(super) fn delay_first_unopened(&mut self, now: Duration) {
        if let Some(index) = self.unopened.front() {
            let due = now.saturating_add(SOCKET_PAUSE);
            self.timers.set(index, due.min(self.slots[index].deadline));
        }
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
        let (time, peers) = (now.monotonic, self.peers.count());
        if peers > 1 {
            self.leave_peer(time, socket);
        }
        let fails = self.options.fail_when_unreachable;
        self.for_those_on(socket, |core, index| {
            let slot = &mut core.slots[index];
            if slot.is_discovery() {
                // It is about one member of the group.
            } else if slot.moves + 1 < peers {
                // One that did not leave from here yet will leave for another address anyway.
                if slot.routes.last().is_some_and(|route| route.sends > 0) {
                    slot.moves += 1;
                    core.undo_send(index, time);
                }
            } else if fails {
                core.fail(index, time);
            }
        });
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

/// The first and the longest pause for want of buffers.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_DOUBLINGS: u32 = 6;
/// How long after an attempt to open a socket another is made although none of the client's was closed.
const SOCKET_PAUSE: Duration = Duration::from_millis(64);
