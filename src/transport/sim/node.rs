use std::sync::{Arc, Mutex};

use super::lock;
use crate::clock::Now;
use crate::transport::{Datagram, Inbox, Outbox, Sent};

/// Something that lives on the network without a thread of its own: it acts when datagrams arrive.
///
/// [`ServerCore`](crate::ServerCore) is one. So is an `Arc<Mutex<_>>` of one, for a test that looks
/// at its counters later, and so is a closure that takes a [`Now`], a [`Datagram`] and an
/// [`Outbox`] for what it sends.
pub trait Node {
    /// Takes what is in the inbox, and queues what it answers.
    ///
    /// It is called again with the same inbox for as long as anything is left in it, so a node may
    /// stop when the outbox is full, but not for ever.
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox);

    /// Learns what became of the outbox.
    fn sent(&mut self, sent: &Sent) {
        let _ = sent;
    }
}

impl<N: Node> Node for Arc<Mutex<N>> {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        lock(self).receive(now, inbox, outbox);
    }

    fn sent(&mut self, sent: &Sent) {
        lock(self).sent(sent);
    }
}

impl<F: FnMut(Now, Datagram<'_>, &mut Outbox)> Node for F {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        if let Some(datagram) = inbox.pop() {
            self(now, datagram, outbox);
        }
    }
}

/// A node and its batches.
pub(super) struct Host {
    pub(super) node: Box<dyn Node + Send>,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
}
