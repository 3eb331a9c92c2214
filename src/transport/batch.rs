//! Batches: many datagrams in one preallocated arena.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The most bytes that one UDP datagram carries over IPv4: 65,535 less an IPv4 header of 20 bytes
/// and a UDP header of 8 (RFC 791 §3.1, RFC 768). The default limit in both directions.
///
/// ```
/// use rejoinder::{Inbox, MAX_DATAGRAM_BYTES};
///
/// // Whatever a peer can send over IPv4 arrives whole.
/// let inbox = Inbox::new(8, MAX_DATAGRAM_BYTES);
/// assert_eq!(inbox.max_datagram_bytes(), 65_507);
/// ```
pub const MAX_DATAGRAM_BYTES: usize = 65_507;
/// The most that fits into a datagram of UDP over IPv6: 65,535 bytes less the header of UDP.
pub(crate) const MAX_V6_DATAGRAM_BYTES: usize = 65_527;

/// Where a received datagram came from and went to.
///
/// ```
/// use rejoinder::Meta;
///
/// let meta = Meta::new("192.0.2.1:7777".parse()?).to("198.51.100.1".parse()?);
/// assert_eq!(meta.peer.port(), 7777);
/// assert_eq!(meta.local, Some("198.51.100.1".parse()?));
/// assert!(!meta.truncated && meta.waited.is_zero());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meta {
    /// Who sent it, or at least whom the datagram names as its sender: UDP proves nothing.
    pub peer: SocketAddr,
    /// The address that it was sent to, if the system tells. The answer leaves from there.
    pub local: Option<IpAddr>,
    /// Whether it was longer than the inbox's limit, so that only a part of it is here.
    pub truncated: bool,
    /// How long it had waited in the system's queue when it was received, if the system tells;
    /// otherwise zero.
    pub waited: Duration,
}

impl Meta {
    /// A whole datagram from `peer`, sent to an address that is not known.
    pub const fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            local: None,
            truncated: false,
            waited: Duration::ZERO,
        }
    }

    /// The same, sent to `local`.
    #[must_use]
    pub const fn to(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }
}

/// One received datagram.
///
/// ```
/// use rejoinder::{Inbox, Meta};
///
/// let mut inbox = Inbox::new(1, 4);
/// inbox.push(b"too long", Meta::new("192.0.2.1:7777".parse()?));
/// let datagram = inbox.pop().expect("it was pushed");
/// assert!(datagram.meta.truncated); // so what is in `bytes` is no message
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The payload; a part of it if [`Meta::truncated`] is set.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub meta: Meta,
}

/// A batch of received datagrams: a queue over an arena that is allocated once.
///
/// A transport fills it, either datagram by datagram with [`push`](Self::push), or in place: the
/// system writes into the buffers of [`spare`](Self::spare), and [`fill`](Self::fill) or
/// [`fill_segments`](Self::fill_segments) says what they now hold. A core empties it with
/// [`pop`](Self::pop).
///
/// Memory: `buffers` × 65,536 bytes of address space (more if `max_datagram_bytes` is), and about
/// 100 bytes of bookkeeping for each buffer. It never grows, and pages that no datagram ever
/// reached are not backed by memory on most systems.
///
/// ```
/// use rejoinder::{Inbox, Meta};
///
/// let mut inbox = Inbox::new(2, 512);
/// let meta = Meta::new("192.0.2.1:7777".parse()?);
/// inbox.push(b"one", meta);
/// inbox.push(b"two", meta);
/// assert_eq!((inbox.len(), inbox.max_datagram_bytes()), (2, 512));
/// assert!(!inbox.has_space());
///
/// while let Some(datagram) = inbox.pop() {
///     assert_eq!(datagram.bytes.len(), 3);
/// }
/// assert!(inbox.is_empty() && inbox.has_space());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Inbox {
    arena: Box<[u8]>,
    buffer_bytes: usize,
    max_datagram_bytes: usize,
    used_buffers: usize,
    runs: Vec<Run>,
    /// Index of the first run that was not popped to its end.
    first: usize,
    /// How many datagrams wait.
    waiting: usize,
}

/// Datagrams that lie in one buffer, one after the other: all of the same length but the last,
/// which may be shorter. A single datagram is a run of one.
#[derive(Clone, Copy)]
struct Run {
    /// What was not popped yet.
    start: usize,
    end: usize,
    segment_bytes: usize,
    meta: Meta,
}

impl Inbox {
    /// An inbox of `buffers` buffers, for datagrams of at most `max_datagram_bytes` bytes.
    ///
    /// # Panics
    ///
    /// If `buffers` is 0, or so much memory cannot be addressed.
    pub fn new(buffers: usize, max_datagram_bytes: usize) -> Self {
        assert!(buffers > 0, "an inbox needs a buffer");
        // The byte beyond the limit is what shows that a datagram passes it.
        let buffer_bytes = MIN_BUFFER_BYTES.max(max_datagram_bytes.saturating_add(1));
        Self {
            // What passes the end of the numbers passes that of the memory, which panics.
            arena: vec![0; buffers.saturating_mul(buffer_bytes)].into_boxed_slice(),
            buffer_bytes,
            max_datagram_bytes,
            used_buffers: 0,
            runs: Vec::with_capacity(buffers),
            first: 0,
            waiting: 0,
        }
    }

    /// The longest datagram that is delivered whole.
    pub fn max_datagram_bytes(&self) -> usize {
        self.max_datagram_bytes
    }

    /// How many datagrams wait to be popped.
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether no datagram waits to be popped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Takes the next datagram.
    #[inline]
    pub fn pop(&mut self) -> Option<Datagram<'_>> {
        let run = self.runs.get_mut(self.first)?;
        let start = run.start;
        let end = run.end.min(start + run.segment_bytes);
        let meta = Meta {
            truncated: run.meta.truncated || end - start > self.max_datagram_bytes,
            ..run.meta
        };
        run.start = end;
        if end == run.end {
            self.first += 1;
        }
        self.waiting -= 1;
        Some(Datagram {
            bytes: &self.arena[start..end],
            meta,
        })
    }

    /// For transports: whether a buffer is unused. An inbox that was emptied has them all.
    pub fn has_space(&mut self) -> bool {
        self.spare().next().is_some()
    }

    /// For transports: the unused buffers, each at least one byte longer than the longest datagram,
    /// and at least 65,536 bytes, which is room for whatever the system puts together.
    pub fn spare(&mut self) -> impl Iterator<Item = &mut [u8]> {
        if self.is_empty() {
            self.runs.clear();
            self.first = 0;
            self.used_buffers = 0;
        }
        self.arena
            .chunks_exact_mut(self.buffer_bytes)
            .skip(self.used_buffers)
    }

    /// For transports: says that the first [spare](Self::spare) buffer now holds a datagram of
    /// `len` bytes. One longer than the limit is marked as truncated.
    ///
    /// # Panics
    ///
    /// If no buffer is spare, or `len` passes the buffer.
    ///
    /// ```
    /// use rejoinder::{Inbox, Meta};
    /// use std::net::UdpSocket;
    ///
    /// let (one, other) = (
    ///     UdpSocket::bind("127.0.0.1:0")?,
    ///     UdpSocket::bind("127.0.0.1:0")?,
    /// );
    /// one.send_to(b"hello", other.local_addr()?)?;
    ///
    /// let mut inbox = Inbox::new(8, 512);
    /// let buffer = inbox
    ///     .spare()
    ///     .next()
    ///     .expect("an empty inbox has spare buffers");
    /// let (len, peer) = other.recv_from(buffer)?;
    /// inbox.fill(len, Meta::new(peer));
    /// assert_eq!(
    ///     inbox.pop().map(|datagram| datagram.bytes),
    ///     Some(&b"hello"[..])
    /// );
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn fill(&mut self, len: usize, meta: Meta) {
        self.fill_segments(len, len.max(1), meta);
    }

    /// For transports: says that the first [spare](Self::spare) buffer now holds `len` bytes of
    /// datagrams from one peer, one after the other, each of `segment_bytes` bytes but the last,
    /// which may be shorter. That is how a system delivers what it received as one (generic receive
    /// offload). Each one longer than the limit is marked as truncated. No bytes are one empty
    /// datagram.
    ///
    /// # Panics
    ///
    /// If no buffer is spare, `len` passes the buffer, or `segment_bytes` is 0.
    ///
    /// ```
    /// use rejoinder::{Inbox, Meta};
    ///
    /// let mut inbox = Inbox::new(8, 512);
    /// let buffer = inbox
    ///     .spare()
    ///     .next()
    ///     .expect("an empty inbox has spare buffers");
    /// buffer[..10].copy_from_slice(b"one-two-3.");
    /// inbox.fill_segments(10, 4, Meta::new("192.0.2.1:7777".parse()?));
    /// assert_eq!(inbox.len(), 3);
    /// for bytes in [&b"one-"[..], b"two-", b"3."] {
    ///     assert_eq!(inbox.pop().map(|datagram| datagram.bytes), Some(bytes));
    /// }
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    pub fn fill_segments(&mut self, len: usize, segment_bytes: usize, meta: Meta) {
        let start = self.used_buffers * self.buffer_bytes;
        assert!(len <= self.buffer_bytes, "no more bytes than a buffer has");
        assert!(start < self.arena.len(), "a buffer is spare");
        assert!(segment_bytes > 0, "a segment has bytes");
        self.used_buffers += 1;
        self.waiting += len.div_ceil(segment_bytes).max(1);
        self.runs.push(Run {
            start,
            end: start + len,
            segment_bytes,
            meta,
        });
    }

    /// For transports: copies a datagram in, as much of it as the limit allows.
    ///
    /// # Panics
    ///
    /// If no buffer is [spare](Self::spare).
    pub fn push(&mut self, bytes: &[u8], meta: Meta) {
        let len = bytes.len().min(self.max_datagram_bytes + 1);
        let buffer = self.spare().next().expect("a buffer is spare");
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.fill(len, meta);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("len", &self.len())
            .field("max_datagram_bytes", &self.max_datagram_bytes)
            .finish_non_exhaustive()
    }
}

/// One datagram to be sent.
///
/// ```
/// use rejoinder::{Outbox, OutboxFull};
///
/// let mut outbox = Outbox::new(1, 512);
/// outbox.push_with("192.0.2.1:7777".parse()?, None, |space| {
///     space[0] = b'!';
///     Ok::<_, OutboxFull>(1)
/// })?;
/// // What a transport does with an outbox:
/// for datagram in outbox.iter() {
///     assert_eq!((datagram.bytes, datagram.peer.port()), (&b"!"[..], 7777));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Whom it goes to.
    pub peer: SocketAddr,
    /// The address that it leaves from; with `None` the system chooses.
    pub local: Option<IpAddr>,
}

/// A batch of datagrams to be sent, next to each other in an arena that is allocated once.
///
/// Memory: [`ARENA_DATAGRAMS`](Self::ARENA_DATAGRAMS) × `max_datagram_bytes` bytes, or up to 1,500
/// bytes for each of `datagrams` if that is more; and about 80 bytes of bookkeeping for each of
/// `datagrams`. It never grows.
///
/// ```
/// use rejoinder::{Outbox, OutboxFull};
///
/// let mut outbox = Outbox::new(32, 512);
/// let peer = "192.0.2.1:7777".parse()?;
/// for word in ["one", "two"] {
///     outbox.push_with(peer, None, |space| {
///         space[..word.len()].copy_from_slice(word.as_bytes());
///         Ok::<_, OutboxFull>(word.len())
///     })?;
/// }
/// assert_eq!(outbox.len(), 2);
/// assert!(outbox.has_room_for(30) && !outbox.has_room_for(31));
///
/// outbox.truncate(1);
/// let left: Vec<_> = outbox.iter().map(|datagram| datagram.bytes).collect();
/// assert_eq!(left, [b"one"]);
/// outbox.clear();
/// assert!(outbox.is_empty());
/// assert_eq!(outbox.max_datagram_bytes(), 512);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Outbox {
    arena: Box<[u8]>,
    used: usize,
    max_datagram_bytes: usize,
    datagrams: Vec<Queued>,
    max_datagrams: usize,
    any_order: bool,
    /// Whether this batch has datagrams whose order tells something.
    keeps_order: bool,
}

/// A datagram in the arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

impl Outbox {
    /// How many datagrams of the greatest length fit into the arena at least.
    pub const ARENA_DATAGRAMS: usize = 32;

    /// An outbox for at most `datagrams` datagrams of at most `max_datagram_bytes` bytes each.
    ///
    /// # Panics
    ///
    /// If `datagrams` is 0, or so much memory cannot be addressed.
    pub fn new(datagrams: usize, max_datagram_bytes: usize) -> Self {
        assert!(datagrams > 0, "an outbox holds at least one datagram");
        // A limit of a few hundred bytes must not make small batches.
        let bytes = Self::ARENA_DATAGRAMS
            .saturating_mul(max_datagram_bytes)
            .max(datagrams.saturating_mul(max_datagram_bytes.min(USUAL_DATAGRAM_BYTES)));
        Self {
            arena: vec![0; bytes].into_boxed_slice(),
            used: 0,
            max_datagram_bytes,
            datagrams: Vec::with_capacity(datagrams),
            max_datagrams: datagrams,
            any_order: false,
            keeps_order: false,
        }
    }

    /// The same, for datagrams that carry ids: those to one peer may leave in any order, if fewer
    /// messages can be made of them then.
    #[must_use]
    pub(crate) fn in_any_order(mut self) -> Self {
        self.any_order = true;
        self
    }

    /// Has this batch leave in order nevertheless.
    #[inline]
    pub(crate) fn keep_order(&mut self) {
        self.keeps_order = true;
    }

    /// The longest datagram that can be queued.
    pub fn max_datagram_bytes(&self) -> usize {
        self.max_datagram_bytes
    }

    /// How many datagrams are queued.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Whether `datagrams` more, of whatever length, are sure to fit.
    #[inline]
    pub fn has_room_for(&self, datagrams: usize) -> bool {
        datagrams <= self.max_datagrams - self.datagrams.len()
            && datagrams.saturating_mul(self.max_datagram_bytes) <= self.arena.len() - self.used
    }

    /// Queues a datagram that `write` writes in place: it gets the space of the longest datagram
    /// and returns how many bytes of it to send. Nothing is queued if it fails. The space still has
    /// what was in it before, so it is no good to return more bytes than were written.
    ///
    /// # Panics
    ///
    /// If `write` returns more than it was given.
    #[inline]
    pub fn push_with<E>(
        &mut self,
        peer: SocketAddr,
        local: Option<IpAddr>,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E>
    where
        E: From<OutboxFull>,
    {
        if !self.has_room_for(1) {
            return Err(OutboxFull.into());
        }
        let start = self.used;
        let space = &mut self.arena[start..start + self.max_datagram_bytes];
        let len = write(space)?;
        assert!(
            len <= self.max_datagram_bytes,
            "no more bytes than there is space"
        );
        self.used += len;
        self.datagrams.push(Queued {
            start,
            len,
            peer,
            local,
        });
        Ok(())
    }

    /// Takes back all datagrams but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if let Some(first) = self.datagrams.get(len) {
            self.used = first.start;
            self.datagrams.truncate(len);
        }
    }

    /// Takes back all datagrams.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.keeps_order = false;
    }

    /// Whether the datagrams to one peer may leave in any order.
    #[cfg(target_os = "linux")]
    pub(super) fn is_in_any_order(&self) -> bool {
        self.any_order && !self.keeps_order
    }

    /// How many bytes the datagrams from index `first` on have together.
    #[inline]
    pub(crate) fn bytes_from(&self, first: usize) -> usize {
        self.datagrams
            .get(first)
            .map_or(0, |first| self.used - first.start)
    }

    /// How many datagrams can be queued at most.
    #[cfg(target_os = "linux")]
    pub(super) fn max_datagrams(&self) -> usize {
        self.max_datagrams
    }

    /// Where everything lies.
    #[cfg(target_os = "linux")]
    pub(super) fn parts(&self) -> (&[u8], &[Queued]) {
        (&self.arena, &self.datagrams)
    }

    /// The queued datagrams in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Outgoing<'_>> {
        self.datagrams.iter().map(|queued| Outgoing {
            bytes: &self.arena[queued.start..queued.start + queued.len],
            peer: queued.peer,
            local: queued.local,
        })
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// An outbox has no room for another datagram.
///
/// ```
/// use rejoinder::{Outbox, OutboxFull};
///
/// let mut outbox = Outbox::new(1, 512);
/// let peer = "192.0.2.1:7777".parse()?;
/// let mut push = || outbox.push_with(peer, None, |_| Ok::<_, OutboxFull>(0));
/// assert_eq!(push(), Ok(()));
/// assert_eq!(push(), Err(OutboxFull));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct OutboxFull;

/// An IP packet has at most 65,535 bytes, so this holds whatever the system merges into one.
const MIN_BUFFER_BYTES: usize = 65_536;
/// What an Ethernet frame carries.
const USUAL_DATAGRAM_BYTES: usize = 1_500;

#[cfg(test)]
mod tests {
    use super::{Outbox, OutboxFull};

    #[test]
    fn no_number_of_datagrams_is_too_large_to_ask_room_for() {
        let mut outbox = Outbox::new(4, 16);
        let pushed = outbox.push_with(([192, 0, 2, 1], 7).into(), None, |_| Ok(1));
        assert_eq!(pushed, Ok::<(), OutboxFull>(()));
        assert!(outbox.has_room_for(3) && !outbox.has_room_for(4));
        assert!(!outbox.has_room_for(usize::MAX));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_must_leave_in_order_is_asked_for_anew_in_each_batch() {
        let mut outbox = Outbox::new(1, 512).in_any_order();
        assert!(outbox.is_in_any_order());
        outbox.keep_order();
        assert!(!outbox.is_in_any_order());
        outbox.clear();
        assert!(outbox.is_in_any_order());
    }
}
