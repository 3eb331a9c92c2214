use std::fmt;

use super::datagram::{Datagram, Meta};
use crate::identity::Identity;

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
/// use rejoinder::transport::{Inbox, Meta};
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
    /// The identities of runs that have one, with the index of the run, in order. Empty unless the
    /// transport authenticates its peers.
    identities: Vec<(usize, Identity)>,
    /// How many of them belong to runs before the first.
    passed_identities: usize,
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
        assert!(buffers > 0, "inbox of 0 buffers: it needs at least 1");
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
            identities: Vec::new(),
            passed_identities: 0,
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
        let first = self.first;
        let run = self.runs.get_mut(first)?;
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
        let datagram = Datagram::new(&self.arena[start..end], meta);
        Some(if self.identities.is_empty() {
            datagram
        } else {
            datagram.identified(identity_of(
                first,
                &self.identities,
                &mut self.passed_identities,
            ))
        })
    }

    /// For transports: whether a buffer is unused. An inbox that was emptied has them all.
    pub fn has_space(&mut self) -> bool {
        self.spare().next().is_some()
    }

    /// For transports: the unused buffers, each at least one byte longer than the longest datagram,
    /// and at least 65,536 bytes, which is room for everything that GRO can merge.
    pub fn spare(&mut self) -> impl Iterator<Item = &mut [u8]> {
        if self.is_empty() {
            self.runs.clear();
            self.first = 0;
            self.used_buffers = 0;
            self.identities.clear();
            self.passed_identities = 0;
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
    /// use rejoinder::transport::{Inbox, Meta};
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
    /// use rejoinder::transport::{Inbox, Meta};
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
        let buffer_bytes = self.buffer_bytes;
        assert!(
            len <= buffer_bytes,
            "{len} bytes do not fit into a buffer of {buffer_bytes}"
        );
        assert!(
            start < self.arena.len(),
            "inbox full: it has no spare buffer"
        );
        assert!(segment_bytes > 0, "segment_bytes is 0, must be at least 1");
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
        let buffer = self.spare().next().expect("the inbox has a spare buffer");
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.fill(len, meta);
    }

    /// For transports that authenticate their peers: says whose the datagrams are that the buffer
    /// filled last holds. The inbox keeps a clone until it is emptied and filled again. A second call for
    /// the same buffer replaces the identity. Without a call, a datagram has none.
    ///
    /// # Panics
    ///
    /// If no buffer was filled since the inbox was emptied.
    ///
    /// ```
    /// use rejoinder::Identity;
    /// use rejoinder::transport::{Inbox, Meta};
    ///
    /// let sensor = Identity::from("sensor 7");
    /// let mut inbox = Inbox::new(8, 512);
    /// let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// inbox.push(b"from a stranger", meta);
    /// inbox.push(b"from the sensor", meta);
    /// inbox.identify(&sensor);
    /// assert_eq!(inbox.pop().map(|datagram| datagram.identity), Some(None));
    /// assert_eq!(inbox.pop().map(|datagram| datagram.identity), Some(Some(&sensor)));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn identify(&mut self, identity: &Identity) {
        let last = self.runs.len().checked_sub(1);
        let last = last.expect("a buffer was filled before its datagrams are identified");
        match self.identities.last_mut() {
            Some((run, known)) if *run == last => *known = identity.clone(),
            _ => {
                if self.identities.is_empty() {
                    // As many as there are buffers, so that later batches allocate nothing.
                    self.identities.reserve(self.runs.capacity());
                }
                self.identities.push((last, identity.clone()));
            }
        }
    }

    /// For transports that authenticate their peers: [`push`](Self::push) and
    /// [`identify`](Self::identify).
    ///
    /// # Panics
    ///
    /// If no buffer is [spare](Self::spare).
    ///
    /// ```
    /// use rejoinder::Identity;
    /// use rejoinder::transport::{Inbox, Meta};
    ///
    /// let sensor = Identity::from("sensor 7");
    /// let mut inbox = Inbox::new(8, 512);
    /// inbox.push_identified(b"21 C", Meta::new("192.0.2.1:7777".parse()?), &sensor);
    /// let datagram = inbox.pop().expect("it was pushed");
    /// assert_eq!((datagram.bytes, datagram.identity), (&b"21 C"[..], Some(&sensor)));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn push_identified(&mut self, bytes: &[u8], meta: Meta, identity: &Identity) {
        self.push(bytes, meta);
        self.identify(identity);
    }
}

/// The identity of a run. Runs are asked about in order, and each once or more.
fn identity_of<'a>(
    run: usize,
    identities: &'a [(usize, Identity)],
    passed: &mut usize,
) -> Option<&'a Identity> {
    let (of, identity) = loop {
        let (of, identity) = identities.get(*passed)?;
        if *of >= run {
            break (*of, identity);
        }
        *passed += 1;
    };
    (of == run).then_some(identity)
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("len", &self.len())
            .field("max_datagram_bytes", &self.max_datagram_bytes)
            .finish_non_exhaustive()
    }
}

/// An IP packet has at most 65,535 bytes, so this holds everything that GRO can merge.
const MIN_BUFFER_BYTES: usize = 65_536;
