use std::time::Duration;

use super::ServerCore;
use super::pipeline::Origin;
use crate::codec::Codec;
use crate::drop_reason::DropReason;
use crate::gate::Gate;
use crate::handler::{Context, Reply, ReplyError, RequestHash};
use crate::server::stats::Fate;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Inbox, Meta, Outbox};

/// A request that waits for its answer outside of the core: one that counts as
/// [`deferred`](crate::Stats::deferred).
///
/// [`ServerCore::defer_next`] returns it, and [`ServerCore::answer_deferred`] or
/// [`ServerCore::drop_deferred`] of the same core ends it. A token that is dropped instead leaves its
/// request counted as deferred for good.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::{DropReason, Server, Timestamp};
///
/// let mut core = Server::builder(Text).core(());
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// inbox.push(b"hello?", Meta::new("192.0.2.1:7777".parse()?));
/// let (now, mut keep) = (Timestamp::system(), Vec::new());
/// let deferred = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep).expect("a request");
/// assert_eq!(deferred.context().peer.port(), 7777);
/// core.drop_deferred(now, deferred, DropReason::Overloaded);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
#[must_use = "a deferred request is to be answered or dropped by its core"]
pub struct Deferred {
    context: Context,
    /// What the datagram's [`Meta`] has and the context has not.
    waited: Duration,
}

impl Deferred {
    fn meta(&self) -> Meta {
        Meta {
            waited: self.waited,
            ..self.context.meta()
        }
    }

    /// What the handler is to know of the request. Its time is when the request was received.
    pub fn context(&self) -> &Context {
        &self.context
    }
}

impl<C: Codec, H, G: Gate> ServerCore<C, H, G> {
    /// Takes datagrams out of the inbox until one is a request that passes the checks and gates,
    /// and defers it. Its bytes replace the contents of `keep`. It counts as
    /// [`deferred`](crate::Stats::deferred) until its token is passed to
    /// [`answer_deferred`](Self::answer_deferred) or [`drop_deferred`](Self::drop_deferred).
    ///
    /// Where the protocol [demands a response](Codec::encode_rejection) to a malformed datagram, it goes
    /// into the outbox. `None` means that the inbox is empty, or that the outbox has no room for such a
    /// response: send it, clear it, and call again.
    ///
    /// `received` is when the inbox was received, and `now` is the time for
    /// [`max_age`](crate::ServerBuilder::max_age).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Server, Timestamp};
    ///
    /// let mut core = Server::builder(Text).core(());
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// for word in [b"one", b"two"] {
    ///     inbox.push(word, Meta::new("192.0.2.1:7777".parse()?));
    /// }
    /// let now = Timestamp::system();
    /// let (mut first, mut second) = (Vec::new(), Vec::new());
    /// let one = core.defer_next(now, now, &mut inbox, &mut outbox, &mut first).expect("a request");
    /// let two = core.defer_next(now, now, &mut inbox, &mut outbox, &mut second).expect("a request");
    /// assert_eq!(core.stats().deferred, 2);
    ///
    /// // The second is answered first, and the first never.
    /// core.answer_deferred(now, two, &second, &mut outbox, |reply| reply.send(&"TWO"));
    /// assert_eq!(outbox.iter().next().map(|one| one.bytes), Some(&b"TWO"[..]));
    /// core.drop_deferred(now, one, DropReason::HandlerTimedOut);
    /// assert!(core.stats().is_conserved());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn defer_next(
        &mut self,
        received: Timestamp,
        now: Timestamp,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        keep: &mut Vec<u8>,
    ) -> Option<Deferred> {
        self.begin_batch(outbox);
        self.latest = received;
        let mut deferred = None;
        while deferred.is_none() && outbox.has_room_for(1) {
            // What is returned stays where it is: it is large, and each move copies it.
            let popped = inbox.pop();
            let Some(datagram) = &popped else { break };
            let is_stale = self.is_stale(received, now.monotonic, &datagram.meta);
            let fate = self.admit(
                received,
                datagram,
                is_stale,
                outbox,
                |core, datagram, outbox| {
                    if let Err(error) = core.codec.decode_request(datagram.bytes) {
                        return core.reject(received, datagram, error, outbox);
                    }
                    let hash = RequestHash::of(&core.codec, datagram.bytes);
                    keep.clear();
                    keep.extend_from_slice(datagram.bytes);
                    deferred = Some(Deferred {
                        context: core.context(received, datagram, hash),
                        waited: datagram.meta.waited,
                    });
                    Ok(Fate::Deferred)
                },
            );
            self.stats.count(fate);
        }
        self.pending = inbox.len();
        deferred
    }

    /// Ends a deferred request with what `write` sends, which may be nothing. `request` are the bytes
    /// that [`defer_next`](Self::defer_next) kept.
    ///
    /// The responses are encoded and pass the gates, as for a handler that answers at once. If
    /// `write` fails or panics, or a gate forbids the responses, none of them stays in the outbox,
    /// and the request counts as dropped. If the outbox has no room, it is dropped as
    /// [`ReplyFailed`](DropReason::ReplyFailed): check
    /// [`has_room_for`](Outbox::has_room_for)`(`[`MAX_RESPONSES`](crate::handler::MAX_RESPONSES)`)`
    /// first.
    pub fn answer_deferred(
        &mut self,
        now: Timestamp,
        mut deferred: Deferred,
        request: &[u8],
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Reply<'_, C>) -> Result<(), ReplyError>,
    ) {
        let meta = deferred.meta();
        let context = &mut deferred.context;
        // The response carries the time at which it is encoded.
        context.now = now;
        self.begin_batch(outbox);
        let mut datagram = Datagram::new(request, meta).identified(context.identity());
        datagram.proxied = context.proxied;
        let fate = self.answer_late(&datagram, context, outbox, write);
        self.stats.settle(fate);
    }

    /// Ends a deferred request without a response.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Inbox, Meta, Outbox};
    /// # use rejoinder::{DropReason, Server, Timestamp};
    /// let mut core = Server::builder(Text).core(());
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(b"hello?", Meta::new("192.0.2.1:7777".parse()?));
    /// let (now, mut keep) = (Timestamp::system(), Vec::new());
    /// let deferred = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep).expect("a request");
    /// core.drop_deferred(now, deferred, DropReason::Cancelled);
    /// assert_eq!(core.stats().dropped(DropReason::Cancelled), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "the token is spent")]
    pub fn drop_deferred(&mut self, now: Timestamp, deferred: Deferred, reason: DropReason) {
        let meta = deferred.meta();
        let from = Origin::new(&meta, deferred.context.identity());
        let fate = self.fenced(now, from, |_, _| Err(reason.into()));
        self.stats.settle(fate);
    }
}
