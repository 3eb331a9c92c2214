use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::stats::{DropReason, Fate, Stats};
use crate::clock::Now;
use crate::codec::Codec;
use crate::handler::{Context, Handler, MAX_REPLIES, Reply};
use crate::transport::{Datagram, Inbox, Node, Outbox, Sent};

/// The server without its surroundings: no socket, no clock, no thread, only a function from
/// datagrams to datagrams.
///
/// [`Server`](crate::Server) drives one over a transport; a [`SimNet`](crate::SimNet) hosts one in
/// memory; a test, or a driver of your own, calls it directly:
///
/// ```
/// use rejoinder::{Inbox, Meta, Now, Outbox, ServerCore, Text};
///
/// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// inbox.push(b"quiet", Meta::new("192.0.2.1:7".parse()?));
/// core.handle(Now::system(), &mut inbox, &mut outbox);
/// assert_eq!(outbox.iter().next().map(|reply| reply.bytes), Some(&b"QUIET"[..]));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct ServerCore<C, H> {
    codec: C,
    handler: Arc<H>,
    stats: Stats,
}

impl<C: Codec, H: Handler<C>> ServerCore<C, H> {
    /// A core that has seen nothing yet.
    pub fn new(codec: C, handler: H) -> Self {
        Self::shared(codec, Arc::new(handler))
    }

    /// A core that shares its handler with others.
    pub fn shared(codec: C, handler: Arc<H>) -> Self {
        Self {
            codec,
            handler,
            stats: Stats::default(),
        }
    }

    /// Takes datagrams out of the inbox and queues the replies, until the inbox is empty or the
    /// outbox has no room for the replies to one more. `now` is when the inbox was received.
    ///
    /// # Panics
    ///
    /// If the outbox has no room even when empty: it must hold at least [`MAX_REPLIES`] datagrams.
    pub fn handle(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        assert!(
            !outbox.is_empty() || outbox.has_room_for(MAX_REPLIES),
            "an outbox holds the replies to one request"
        );
        while outbox.has_room_for(MAX_REPLIES)
            && let Some(datagram) = inbox.pop()
        {
            let fate = self.answer(now, datagram, outbox);
            self.stats.count(fate);
        }
    }

    /// The whole life of a datagram.
    fn answer(&self, now: Now, datagram: Datagram<'_>, outbox: &mut Outbox) -> Fate {
        let Datagram { bytes, meta } = datagram;
        if meta.truncated {
            return Fate::Dropped(DropReason::Truncated);
        }
        if self.codec.is_response(bytes) {
            return Fate::Dropped(DropReason::Response);
        }
        let Ok(request) = self.codec.decode_request(bytes) else {
            return Fate::Dropped(DropReason::Malformed);
        };

        let queued = outbox.len();
        let context = Context::new(&meta, now);
        // What a panic could leave half done is the handler's own state, which is its own affair,
        // and the outbox, which is set back.
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut reply = Reply::new(&self.codec, bytes, context, outbox);
            self.handler.handle(request, &context, &mut reply)
        }));
        match result {
            Ok(Ok(())) if outbox.len() > queued => Fate::Replied,
            Ok(Ok(())) => Fate::Silent,
            Ok(Err(_)) => {
                outbox.truncate(queued);
                Fate::Dropped(DropReason::ReplyFailed)
            }
            Err(_) => {
                outbox.truncate(queued);
                Fate::Dropped(DropReason::HandlerPanicked)
            }
        }
    }
}

impl<C, H> ServerCore<C, H> {
    /// Counts what became of the outbox.
    pub fn sent(&mut self, sent: &Sent) {
        self.stats.replies_sent += sent.datagrams as u64;
        self.stats.replies_failed += sent.failed as u64;
    }

    /// Counts an attempt to receive that failed.
    pub fn receive_failed(&mut self) {
        self.stats.receive_errors += 1;
    }

    /// The counters. Nothing is pending here: what was not popped was not seen.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

impl<C: Codec, H: Handler<C>> Node for ServerCore<C, H> {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.handle(now, inbox, outbox);
    }

    fn sent(&mut self, sent: &Sent) {
        self.sent(sent);
    }
}

impl<C, H> fmt::Debug for ServerCore<C, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCore")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
