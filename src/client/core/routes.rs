//! From which socket a request is sent.

use std::io;
use std::time::Duration;

use super::super::slot::Route;
use super::super::sockets::SocketId;
use super::addresses::share;
use super::{ClientCore, RequestError};
use crate::codec::Codec;
use crate::transport::LocalPort;

impl<C: Codec> ClientCore<C> {
    /// A socket that requests share, and an id for another request on it.
    pub(super) fn draw_id(
        &mut self,
        now: Duration,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<(SocketId, u64), RequestError> {
        if let Some(socket) = self.shared
            && self.options.local_port != LocalPort::Kept
            && self.sockets.has_room()
        {
            let age = now.saturating_sub(self.sockets.opened(socket));
            if self.sockets.silent_sends(socket) >= SILENT_SENDS && self.may_renew(now) {
                self.renew(now, socket);
            } else if age >= MAX_AGE {
                self.retire_shared(now);
            }
        }
        loop {
            let socket = if let Some(socket) = self.shared {
                socket
            } else {
                self.check_socket_limit(now)?;
                self.open_shared(now)
            };
            let id = self.ids.draw(socket, random);
            if let Some(id) = id.map_err(RequestError::Entropy)? {
                return Ok((socket, id));
            }
            self.retire_shared(now);
        }
    }

    /// Has later requests share another socket.
    pub(super) fn retire_shared(&mut self, now: Duration) {
        if let Some(socket) = self.shared.take() {
            self.sockets.retire(now, socket);
        }
    }

    /// Whether requests in general share a socket.
    pub(super) fn shares_sockets(&self) -> bool {
        let is_shared = matches!(
            self.options.local_port,
            LocalPort::Kept | LocalPort::Renewed
        );
        self.ids.exist() && is_shared
    }

    pub(super) fn check_socket_limit(&mut self, now: Duration) -> Result<(), RequestError> {
        let limit = self.sockets.check_limit(now);
        limit.map_err(|cooling| self.window_full(cooling))
    }

    fn open_shared(&mut self, now: Duration) -> SocketId {
        let socket = self.sockets.open(now, self.peers.preferred());
        self.ids.renew();
        self.shared = Some(socket);
        socket
    }

    /// Opens a socket for one request.
    pub(super) fn open_for_one(&mut self, now: Duration, index: usize) {
        let socket = self.sockets.open(now, self.peers.preferred());
        self.add_route(index, socket);
        self.sockets.retire(now, socket);
    }

    /// Has a request be sent from a socket from now on, and answered on it too.
    pub(super) fn add_route(&mut self, index: usize, socket: SocketId) {
        let slot = &mut self.slots[index];
        slot.routes.push(Route { socket, sends: 0 });
        slot.peer = self.sockets.peer(socket);
        self.sockets.attach(socket);
        self.ids.assign(socket, slot.id, index);
        if self.shared == Some(socket) {
            self.ids.note_use(slot.id);
        }
    }

    /// Takes back the route that was added last: nothing was sent over it.
    pub(super) fn remove_last_route(&mut self, now: Duration, index: usize) {
        let slot = &mut self.slots[index];
        if let Some(Route { socket, .. }) = slot.routes.pop() {
            self.ids.release(socket, slot.id);
            self.sockets.detach(now, socket, false, false);
            slot.peer = self.sockets.peer(slot.socket());
        }
    }

    /// Has a request that is due be sent from another socket, if its own is of no use any more. The
    /// response may still come on the old one.
    pub(super) fn reroute(&mut self, now: Duration, index: usize) {
        let slot = &self.slots[index];
        let (from, id) = (slot.socket(), slot.id);
        if slot.routes.len() >= MAX_ROUTES || !self.needs_another_socket(now, index) {
            return;
        }
        if slot.is_discovery() {
            if self.sockets.is_broken(from) && self.sockets.check_limit(now).is_ok() {
                self.open_for_one(now, index);
            }
            return;
        }
        if !self.shares_sockets() {
            if slot.sends > 0 {
                self.peers.give_up(slot.peer);
            }
            if self.sockets.check_limit(now).is_ok() {
                self.open_for_one(now, index);
            }
            return;
        }
        if let Some(shared) = self.shared
            && shared == from
        {
            if self.sockets.check_limit(now).is_err() {
                return;
            }
            self.renew(now, shared);
        }
        let socket = match self.shared {
            Some(socket) => socket,
            None if self.sockets.check_limit(now).is_ok() => self.open_shared(now),
            None => return,
        };
        // An id that was drawn for one socket may be in use on another.
        if !self.ids.is_used(socket, id) {
            self.add_route(index, socket);
        }
    }

    fn needs_another_socket(&self, now: Duration, index: usize) -> bool {
        let slot = &self.slots[index];
        let from = slot.socket();
        if self.sockets.is_broken(from) || self.sockets.peer(from) != self.peers.preferred() {
            return true;
        }
        if slot.sends == 0 {
            return false;
        }
        let untried = self.untried(slot);
        match self.options.local_port {
            LocalPort::PerSend => return true,
            // Another address may be better.
            _ if !self.shares_sockets() => return self.peers.count() > 1,
            // The server knows the port once it has responded.
            LocalPort::Kept if untried == 0 || self.sockets.was_answered(from) => return false,
            _ => {}
        }
        // What the network did with a request says little about a socket on which others are
        // answered; and one that is silent because the server is would be replaced in vain.
        let silent = self.sockets.silent_sends(from);
        let next = now.saturating_add(slot.timeout().saturating_mul(2));
        let is_last = slot.sends + 1 >= self.options.retry.max_sends || next >= slot.deadline;
        // Another send to this address would be at the expense of one that was not tried yet.
        let is_short = untried > 0
            && (share(now, slot, untried) < slot.timeout()
                || slot.sends + untried >= self.options.retry.max_sends);
        let is_silent = silent >= SILENT_SENDS || silent > 0 && (is_last || is_short);
        is_silent && (self.shared != Some(from) || untried > 0 || self.may_renew(now))
    }

    /// Has the next request use another socket than this one, which is silent.
    fn renew(&mut self, now: Duration, socket: SocketId) {
        self.retire_shared(now);
        self.renewals = self.renewals.saturating_add(1);
        self.renewed = Some(now);
        self.peers.give_up(self.sockets.peer(socket));
    }

    /// Whether it is time to try another socket although the last one did not help, either.
    fn may_renew(&self, now: Duration) -> bool {
        self.renewed.is_none_or(|renewed| {
            let pause = RENEWAL_PAUSE.saturating_mul(1 << self.renewals.min(MAX_DOUBLINGS));
            now.saturating_sub(renewed) >= pause
        })
    }

    /// Notes that a send was not answered in time.
    pub(super) fn note_silence(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.silent < slot.sends {
            slot.silent = slot.sends;
            self.sockets.note_silence(slot.socket(), slot.sent);
        }
    }

    /// Notes that a response came on a socket.
    pub(super) fn note_response(&mut self, now: Duration, socket: SocketId) {
        self.sockets.note_response(socket, now);
        self.renewals = 0;
    }
}

/// The number of sends in a row without a response after which a socket is suspect. An address or a
/// port may have changed on the path, at a NAT for example, without notice.
const SILENT_SENDS: u32 = 2;
/// The pause before another socket is tried for that reason. It doubles while nothing is answered, so
/// that a server that is down does not use up the ports.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 5;
/// How long requests share a socket, even if its ids last: a port that is never changed makes forging
/// easy (RFC 5452 §9).
const MAX_AGE: Duration = Duration::from_secs(300);
/// From how many sockets one request is sent at most.
pub(super) const MAX_ROUTES: usize = 8;
