//! The course of a batch, for handlers that answer at once.

use std::time::Duration;

use super::ServerCore;
use crate::codec::Codec;
use crate::gate::Gate;
use crate::handler::{Handler, MAX_RESPONSES};
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox};

impl<C: Codec, H, G: Gate> ServerCore<C, H, G> {
    /// Takes datagrams out of the inbox and queues the responses, until the inbox is empty or the
    /// outbox has no room for the responses to one more request. `now` is when the inbox was received.
    ///
    /// # Panics
    ///
    /// If the outbox has no room even when empty: it must hold at least [`MAX_RESPONSES`] datagrams.
    ///
    /// ```
    /// use rejoinder::Timestamp;
    /// use rejoinder::codec::Text;
    /// use rejoinder::handler::MAX_RESPONSES;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    ///
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
    /// // Room for the responses to one request at a time.
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(MAX_RESPONSES, 512));
    /// for word in [b"one", b"two"] {
    ///     inbox.push(word, Meta::new("192.0.2.1:7777".parse()?));
    /// }
    /// let mut responses = Vec::new();
    /// while !inbox.is_empty() {
    ///     core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    ///     responses.extend(outbox.iter().map(|one| one.bytes.to_vec())); // send them
    ///     outbox.clear();
    /// }
    /// assert_eq!(responses, [b"ONE", b"TWO"]);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn handle(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox)
    where
        H: Handler<C>,
    {
        self.handle_with_clock(now, || now, inbox, outbox);
    }

    /// [`handle`](Self::handle) with a clock, which shows how long requests and responses wait for the
    /// handler. It also returns after 10 ms if there are responses, so that they leave although the
    /// handler is slow.
    ///
    /// Clock readings are spaced geometrically: after the first request, then after twice as many
    /// (eight times as many while far from the 10 ms), and at least after every 64th. A batch of one
    /// never reads the clock. After 10 ms without a response the clock is read after each request. If
    /// a [`max_age`](crate::ServerBuilder::max_age) is set, it is read before each request.
    ///
    /// # Panics
    ///
    /// As [`handle`](Self::handle).
    ///
    /// ```
    /// use rejoinder::Timestamp;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use std::cell::Cell;
    /// use std::time::{Duration, SystemTime};
    ///
    /// // Each reading of the clock is 10 ms after the one before.
    /// let elapsed = Cell::new(Duration::ZERO);
    /// let clock = || {
    ///     elapsed.set(elapsed.get() + Duration::from_millis(10));
    ///     Timestamp::new(elapsed.get(), SystemTime::UNIX_EPOCH)
    /// };
    /// let mut core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// for word in [b"one", b"two"] {
    ///     inbox.push(word, Meta::new("192.0.2.1:7777".parse()?));
    /// }
    /// core.handle_with_clock(clock(), clock, &mut inbox, &mut outbox);
    /// // The first response does not wait for the second request.
    /// assert_eq!((outbox.len(), inbox.len()), (1, 1));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn handle_with_clock(
        &mut self,
        received: Timestamp,
        clock: impl Fn() -> Timestamp,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) where
        H: Handler<C>,
    {
        assert!(
            !outbox.is_empty() || outbox.has_room_for(MAX_RESPONSES),
            "outbox too small: it needs room for the {MAX_RESPONSES} responses to one request, has it for {}",
            outbox.max_datagrams()
        );
        self.begin_batch(outbox);
        self.latest = received;
        // If the previous call returned early to flush responses, the 10 ms for the remaining
        // datagrams start at the clock reading that made it return.
        let mut begun = received.monotonic.max(self.last_read);
        let mut at = received.monotonic;
        let mut handled = 0;
        let mut next_read = usize::from(self.max_age.is_none());
        while outbox.has_room_for(MAX_RESPONSES) && !inbox.is_empty() {
            if handled == next_read {
                at = clock().monotonic;
                self.last_read = at;
                if handled == 0 {
                    begun = at;
                }
                let elapsed = at.saturating_sub(begun);
                if elapsed >= FLUSH_AFTER && !outbox.is_empty() {
                    break;
                }
                next_read += match self.max_age {
                    // At the pace so far, half of the time will be over then.
                    None if elapsed < FLUSH_AFTER / 16 => (7 * handled).clamp(1, MAX_UNTIMED),
                    None if elapsed < FLUSH_AFTER => handled.clamp(1, MAX_UNTIMED),
                    _ => 1,
                };
            }
            handled += 1;
            // What is returned stays where it is: it is large, and each move copies it.
            let popped = inbox.pop();
            let datagram = popped.as_ref().expect("the inbox is not empty");
            let is_stale = self.is_stale(received, at, &datagram.meta);
            let fate = self.answer(received, datagram, is_stale, outbox);
            self.stats.count(fate);
        }
        self.pending = inbox.len();
    }

    /// Prepares an outbox for the first responses of a batch.
    #[inline]
    pub(super) fn begin_batch(&self, outbox: &mut Outbox) {
        if outbox.is_empty() {
            outbox.set_unordered(self.unordered);
        }
    }
}

/// How long the first responses of a batch may wait for the others, where there is a clock.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// The most requests between two readings of the clock.
const MAX_UNTIMED: usize = 64;
