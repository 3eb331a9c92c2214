//! Which of the server's addresses a request is sent to, and how much of its time each has.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::slot::Slot;
use super::super::sockets::SocketId;
use super::ClientCore;
use super::routes::MAX_ROUTES;
use crate::codec::Codec;
use crate::timestamp::Timestamp;

impl<C: Codec> ClientCore<C> {
    /// The address that the next request is sent to first.
    ///
    /// ```
    /// use rejoinder::Client;
    /// use rejoinder::codec::Text;
    ///
    /// let server = "192.0.2.1:9999".parse()?;
    /// assert_eq!(Client::builder(Text).core(server)?.peer(), server);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peer(&self) -> SocketAddr {
        self.peers.preferred()
    }

    /// Replaces the server's addresses. [`Client::set_peers`](crate::Client::set_peers) documents what
    /// becomes of requests. Those that move are due at once.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Client, Timestamp};
    ///
    /// let [old, new] = ["192.0.2.1:9999".parse()?, "192.0.2.2:9999".parse()?];
    /// let mut core = Client::builder(Text).core(old)?;
    /// core.set_peers(Timestamp::system(), new, &[]);
    /// assert_eq!(core.peer(), new);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_peers(&mut self, now: Timestamp, peer: SocketAddr, others: &[SocketAddr]) {
        let now = now.monotonic;
        self.peers.replace(peer, others);
        if let Some(shared) = self.shared
            && self.sockets.peer(shared) != self.peers.preferred()
        {
            self.retire_shared(now);
        }
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if !slot.is_in_flight() || slot.is_discovery() {
                continue;
            }
            // Each of the new addresses may refuse it.
            slot.moves = 0;
            if !slot.is_acknowledged && !self.peers.contains(slot.peer) {
                self.timers.set(index, now.min(slot.deadline));
            }
        }
    }

    /// When a request that was just sent is due again: after its timeout, or earlier if the addresses
    /// that it was not sent to yet would not have their share of the time.
    pub(super) fn next_send(&self, now: Duration, index: usize) -> Duration {
        let slot = &self.slots[index];
        let next = now.saturating_add(slot.timeout()).min(slot.deadline);
        match self.untried(slot) {
            0 => next,
            untried => next.min(now.saturating_add(share(now, slot, untried))),
        }
    }

    /// How many addresses a request was not sent to yet, as far as it may be sent to them at all.
    pub(super) fn untried(&self, slot: &Slot) -> u32 {
        if self.peers.count() < 2 || slot.is_discovery() {
            return 0;
        }
        let is_tried = |peer| {
            let mut routes = slot.routes.iter();
            routes.any(|route| self.sockets.open_peer(route.socket) == Some(peer))
        };
        let untried = self.peers.iter().filter(|&peer| !is_tried(peer)).count();
        let routes = MAX_ROUTES.saturating_sub(slot.routes.len());
        let untried = u32::try_from(untried.min(routes)).unwrap_or(u32::MAX);
        untried.min(self.options.retry.max_sends.saturating_sub(slot.sends))
    }

    /// Has the next request be sent to another address, because this one did not respond to one in all
    /// of its time.
    pub(super) fn leave_silent_peer(&mut self, now: Duration, index: usize) {
        let slot = &self.slots[index];
        if self.peers.count() < 2 || slot.is_discovery() || slot.is_acknowledged {
            return;
        }
        let socket = slot.socket();
        let has_room = self.shared != Some(socket) || self.sockets.has_room();
        if self.sockets.silent_sends(socket) > 0 && has_room {
            self.leave_peer(now, socket);
        }
    }

    /// Has the next request be sent to another address, because this one refuses it or is silent. A socket that
    /// is closed changes nothing.
    pub(super) fn leave_peer(&mut self, now: Duration, socket: SocketId) {
        let Some(peer) = self.sockets.open_peer(socket) else {
            return;
        };
        self.peers.give_up(peer);
        if self.shared == Some(socket) {
            self.retire_shared(now);
        }
    }
}

/// The time of each address, if the one that a request is sent to now and the untried ones have as much.
pub(super) fn share(now: Duration, slot: &Slot, untried: u32) -> Duration {
    slot.deadline.saturating_sub(now) / untried.saturating_add(1)
}
