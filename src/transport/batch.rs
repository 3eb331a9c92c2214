//! Batches: many datagrams in one preallocated arena.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The most bytes that one UDP datagram carries over IPv4: 65,535 less an IPv4 header of 20 bytes
/// and a UDP header of 8 (RFC 791 §3.1, RFC 768). The default limit in both directions.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Where a received datagram came from and went to.
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
/// system writes into the buffers of [`spare`](Self::spare), and [`fill`](Self::fill) says what
/// they now hold. A core empties it with [`pop`](Self::pop).
///
/// Memory: `buffers` × (`max_datagram_bytes` + 1) bytes, and about 64 bytes of bookkeeping for each
/// datagram that the buffers can hold. It never grows.
pub struct Inbox {
    arena: Box<[u8]>,
    max_datagram_bytes: usize,
    used_buffers: usize,
    datagrams: Vec<Received>,
    /// Index of the first datagram that was not popped.
    first: usize,
}

#[derive(Clone, Copy)]
struct Received {
    start: usize,
    len: usize,
    meta: Meta,
}

impl Inbox {
    /// An inbox of `buffers` buffers, for datagrams of at most `max_datagram_bytes` bytes.
    ///
    /// # Panics
    ///
    /// If `buffers` is 0.
    pub fn new(buffers: usize, max_datagram_bytes: usize) -> Self {
        assert!(buffers > 0, "an inbox needs a buffer");
        Self {
            // The byte beyond the limit is what shows that a datagram passes it.
            arena: vec![0; buffers * (max_datagram_bytes + 1)].into_boxed_slice(),
            max_datagram_bytes,
            used_buffers: 0,
            datagrams: Vec::with_capacity(buffers),
            first: 0,
        }
    }

    /// The longest datagram that is delivered whole.
    pub fn max_datagram_bytes(&self) -> usize {
        self.max_datagram_bytes
    }

    /// How many datagrams wait to be popped.
    pub fn len(&self) -> usize {
        self.datagrams.len() - self.first
    }

    /// Whether no datagram waits to be popped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next datagram.
    #[inline]
    pub fn pop(&mut self) -> Option<Datagram<'_>> {
        let received = self.datagrams.get(self.first)?;
        self.first += 1;
        Some(Datagram {
            bytes: &self.arena[received.start..received.start + received.len],
            meta: received.meta,
        })
    }

    /// For transports: whether a buffer is unused. An inbox that was emptied has them all.
    pub fn has_space(&mut self) -> bool {
        self.spare().next().is_some()
    }

    /// For transports: the unused buffers, each one byte longer than the longest datagram.
    pub fn spare(&mut self) -> impl Iterator<Item = &mut [u8]> {
        if self.is_empty() {
            self.datagrams.clear();
            self.first = 0;
            self.used_buffers = 0;
        }
        let buffer_bytes = self.max_datagram_bytes + 1;
        self.arena
            .chunks_exact_mut(buffer_bytes)
            .skip(self.used_buffers)
    }

    /// For transports: says that the first [spare](Self::spare) buffer now holds a datagram of
    /// `len` bytes. One longer than the limit is marked as truncated.
    ///
    /// # Panics
    ///
    /// If no buffer is spare, or `len` passes the buffer.
    pub fn fill(&mut self, len: usize, mut meta: Meta) {
        let buffer_bytes = self.max_datagram_bytes + 1;
        let start = self.used_buffers * buffer_bytes;
        assert!(len <= buffer_bytes, "no more bytes than a buffer has");
        assert!(start < self.arena.len(), "a buffer is spare");
        meta.truncated |= len > self.max_datagram_bytes;
        self.used_buffers += 1;
        self.datagrams.push(Received { start, len, meta });
    }

    /// For transports: copies a datagram in, as much of it as the limit allows.
    ///
    /// # Panics
    ///
    /// If no buffer is [spare](Self::spare).
    pub fn push(&mut self, bytes: &[u8], meta: Meta) {
        let buffer = self.spare().next().expect("a buffer is spare");
        let len = bytes.len().min(buffer.len());
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
/// Memory: [`ARENA_DATAGRAMS`](Self::ARENA_DATAGRAMS) × `max_datagram_bytes` bytes, and about 80
/// bytes of bookkeeping for each of `datagrams`. It never grows.
pub struct Outbox {
    arena: Box<[u8]>,
    used: usize,
    max_datagram_bytes: usize,
    datagrams: Vec<Queued>,
    max_datagrams: usize,
}

#[derive(Clone, Copy)]
struct Queued {
    start: usize,
    len: usize,
    peer: SocketAddr,
    local: Option<IpAddr>,
}

impl Outbox {
    /// How many datagrams of the greatest length fit into the arena.
    pub const ARENA_DATAGRAMS: usize = 32;

    /// An outbox for at most `datagrams` datagrams of at most `max_datagram_bytes` bytes each.
    ///
    /// # Panics
    ///
    /// If `datagrams` is 0.
    pub fn new(datagrams: usize, max_datagram_bytes: usize) -> Self {
        assert!(datagrams > 0, "an outbox holds at least one datagram");
        Self {
            arena: vec![0; Self::ARENA_DATAGRAMS * max_datagram_bytes].into_boxed_slice(),
            used: 0,
            max_datagram_bytes,
            datagrams: Vec::with_capacity(datagrams),
            max_datagrams: datagrams,
        }
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

    /// The bytes of all payloads that are queued.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.used
    }

    /// Whether `datagrams` more, of whatever length, are sure to fit.
    #[inline]
    pub fn has_room_for(&self, datagrams: usize) -> bool {
        self.datagrams.len() + datagrams <= self.max_datagrams
            && self.used + datagrams * self.max_datagram_bytes <= self.arena.len()
    }

    /// Queues a datagram that `write` writes in place: it gets the space of the longest datagram
    /// and returns how many bytes of it to send. Nothing is queued if it fails.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct OutboxFull;
