use std::sync::{Arc, Mutex};

use super::lock;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Inbox, Outbox, SendReport};

/// Something that lives on the network without a thread of its own: it acts when datagrams arrive.
///
/// [`ServerCore`](crate::sans_io::ServerCore) is one. So is an `Arc<Mutex<_>>` of one, for a test that looks
/// at its counters later, and so is a closure that takes a [`Timestamp`], a [`Datagram`] and an
/// [`Outbox`] for what it sends.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::{Node, SimNet};
/// use rejoinder::transport::{Inbox, Outbox, SendReport};
/// use rejoinder::{Client, Timestamp};
/// use std::mem;
///
/// /// Keeps each datagram, and answers with the one before.
/// #[derive(Default)]
/// struct Mailbox {
///     kept: Vec<u8>,
///     answers: usize,
/// }
///
/// impl Node for Mailbox {
///     fn receive(&mut self, _: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
///         while let Some(datagram) = inbox.pop() {
///             let before = mem::replace(&mut self.kept, datagram.bytes.to_vec());
///             // If the outbox is full, there is no answer, as on any network.
///             let _ = outbox.push(datagram.meta.peer, None, &before);
///         }
///     }
///     fn on_sent(&mut self, sent: &SendReport) {
///         self.answers += sent.sent;
///     }
/// }
///
/// let net = SimNet::new();
/// let mailbox = "10.0.0.1:7".parse()?;
/// net.host(mailbox, Mailbox::default())?;
/// let mut client = Client::new(net, Text, mailbox);
/// assert_eq!(client.request("for you")?, "");
/// assert_eq!(client.request("and?")?, "for you");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Node {
    /// Takes what is in the inbox, and queues what it answers.
    ///
    /// It is called again with the same inbox for as long as anything is left in it, so a node may
    /// stop when the outbox is full, but not for ever.
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox);

    /// Learns what became of the outbox.
    fn on_sent(&mut self, sent: &SendReport) {
        let _ = sent;
    }
}

impl<N: Node> Node for Arc<Mutex<N>> {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        lock(self).receive(now, inbox, outbox);
    }

    fn on_sent(&mut self, sent: &SendReport) {
        lock(self).on_sent(sent);
    }
}

impl<F: FnMut(Timestamp, Datagram<'_>, &mut Outbox)> Node for F {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
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
