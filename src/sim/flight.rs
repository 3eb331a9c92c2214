use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

use super::trace::{PacketFate, TraceEvent};
use crate::transport::{Delivery, Meta};

/// A copy of a datagram on its way.
pub(super) struct Flight {
    pub(super) due: Duration,
    /// Which copy of all, so that what is due at the same time arrives in the order of sending.
    pub(super) copy: u64,
    pub(super) number: u64,
    pub(super) sent: Duration,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
    /// Whether it was sent to a group.
    pub(super) delivery: Delivery,
    pub(super) corrupted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Datagram,
    PortUnreachable,
}

impl Flight {
    pub(super) fn meta(&self) -> Meta {
        let mut meta = Meta::new(self.from).sent_to(self.to.ip());
        meta.local_port = self.to.port();
        meta.delivery = self.delivery;
        meta
    }

    pub(super) fn event(&self, ended: Duration, fate: PacketFate) -> TraceEvent {
        TraceEvent {
            number: self.number,
            sent: self.sent,
            ended,
            from: self.from,
            to: self.to,
            bytes: self.bytes.len(),
            fate,
        }
    }

    /// Its fate, once it is there.
    pub(super) fn delivered(&self) -> PacketFate {
        if self.corrupted {
            PacketFate::DeliveredCorrupted
        } else {
            PacketFate::Delivered
        }
    }

    fn key(&self) -> (Duration, u64) {
        (self.due, self.copy)
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Changes one bit: `which` is in 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a datagram has fewer bits than an f64 counts exactly"
)]
pub(super) fn flip_bit(bytes: &mut [u8], which: f64) {
    let bit = ((bytes.len() * 8) as f64 * which) as usize;
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}
