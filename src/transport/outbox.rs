use std::fmt;
use std::net::SocketAddr;

use super::datagram::{Egress, Outgoing};
use crate::codec::{TooLong, Writer};

/// A batch of datagrams to be sent, next to each other in an arena that is allocated once.
///
/// Memory: [`ARENA_DATAGRAMS`](Self::ARENA_DATAGRAMS) × `max_datagram_bytes` bytes, or up to 1,500
/// bytes for each of `datagrams` if that is more; and about 80 bytes of bookkeeping for each of
/// `datagrams`. It never grows.
///
/// ```
/// use rejoinder::transport::Outbox;
///
/// let mut outbox = Outbox::new(32, 512);
/// let peer = "192.0.2.1:7777".parse()?;
/// outbox.push(peer, None, b"one")?;
/// outbox.push(peer, None, b"two")?;
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
    unordered: bool,
}

/// A datagram in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) egress: Egress,
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
        assert!(
            datagrams > 0,
            "outbox of 0 datagrams: it needs room for at least 1"
        );
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
            unordered: false,
        }
    }

    /// Whether the datagrams to one peer may leave in any order, until the outbox is
    /// [cleared](Self::clear). A transport can then make fewer segmented sends of them.
    ///
    /// [`ServerCore`](crate::sans_io::ServerCore) sets it where responses carry
    /// [ids](crate::Correlation::Id), unless one request of the batch has several responses.
    ///
    /// ```
    /// use rejoinder::transport::Outbox;
    ///
    /// let mut outbox = Outbox::new(1, 512);
    /// outbox.set_unordered(true);
    /// assert!(outbox.is_unordered());
    /// outbox.clear();
    /// assert!(!outbox.is_unordered());
    /// ```
    #[inline]
    pub fn set_unordered(&mut self, unordered: bool) {
        self.unordered = unordered;
    }

    /// Whether the datagrams to one peer may leave in any order. The default is no.
    #[inline]
    pub fn is_unordered(&self) -> bool {
        self.unordered
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

    /// Queues a datagram for `peer`. `local` is the address that it leaves from; with `None` the OS
    /// chooses.
    ///
    /// Nothing is queued if it fails.
    ///
    /// ```
    /// use rejoinder::transport::{Outbox, PushError};
    ///
    /// let mut outbox = Outbox::new(1, 512);
    /// let peer = "192.0.2.1:7777".parse()?;
    /// assert!(matches!(outbox.push(peer, None, &[0; 513]), Err(PushError::TooLong(_))));
    /// assert_eq!(outbox.push(peer, None, b"hello"), Ok(()));
    /// assert_eq!(outbox.push(peer, None, b"again"), Err(PushError::Full));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    pub fn push(
        &mut self,
        peer: SocketAddr,
        egress: impl Into<Egress>,
        bytes: &[u8],
    ) -> Result<(), PushError> {
        self.push_with(peer, egress, |space| {
            let mut out = Writer::new(space);
            out.put(bytes);
            out.finish()
        })
    }

    /// Queues a datagram that `write` writes in place. `write` is given the space of the longest
    /// datagram and returns how many bytes of it to send, as [`Writer::finish`] does.
    ///
    /// Nothing is queued if it fails. The space still holds the bytes of earlier datagrams: a length
    /// beyond what was written would send those.
    ///
    /// # Panics
    ///
    /// If `write` returns more bytes than the space has.
    ///
    /// ```
    /// use rejoinder::Writer;
    /// use rejoinder::transport::Outbox;
    /// use std::fmt::Write;
    ///
    /// let mut outbox = Outbox::new(1, 512);
    /// outbox.push_with("192.0.2.1:7777".parse()?, None, |space| {
    ///     let mut out = Writer::new(space);
    ///     let _ = write!(out, "{} is a number", 7); // what is too much, `finish` reports
    ///     out.finish()
    /// })?;
    /// assert_eq!(outbox.iter().next().map(|one| one.bytes), Some(&b"7 is a number"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn push_with(
        &mut self,
        peer: SocketAddr,
        egress: impl Into<Egress>,
        write: impl FnOnce(&mut [u8]) -> Result<usize, TooLong>,
    ) -> Result<(), PushError> {
        self.try_push_with(peer, egress, |space| Ok(write(space)?))
    }

    /// [`push_with`](Self::push_with) for a `write` with errors of its own.
    #[inline]
    pub(crate) fn try_push_with<E: From<PushError>>(
        &mut self,
        peer: SocketAddr,
        egress: impl Into<Egress>,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if !self.has_room_for(1) {
            return Err(PushError::Full.into());
        }
        let start = self.used;
        let space = &mut self.arena[start..start + self.max_datagram_bytes];
        let len = write(space)?;
        assert!(
            len <= self.max_datagram_bytes,
            "`write` returned {len} bytes, but the space has {}",
            self.max_datagram_bytes
        );
        self.used += len;
        self.datagrams.push(Queued {
            start,
            len,
            peer,
            egress: egress.into(),
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
        self.unordered = false;
    }

    /// How many bytes the datagrams from index `first` on have together.
    #[inline]
    pub(crate) fn bytes_from(&self, first: usize) -> usize {
        self.datagrams
            .get(first)
            .map_or(0, |first| self.used - first.start)
    }

    /// How many datagrams can be queued at most.
    pub(crate) fn max_datagrams(&self) -> usize {
        self.max_datagrams
    }

    /// Where everything lies.
    #[cfg(all(feature = "udp", target_os = "linux"))]
    pub(crate) fn parts(&self) -> (&[u8], &[Queued]) {
        (&self.arena, &self.datagrams)
    }

    /// The queued datagrams in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Outgoing<'_>> {
        self.datagrams.iter().map(|queued| Outgoing {
            bytes: &self.arena[queued.start..queued.start + queued.len],
            peer: queued.peer,
            egress: queued.egress,
        })
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Why a datagram was not queued.
///
/// ```
/// use rejoinder::transport::{Outbox, PushError};
///
/// let mut outbox = Outbox::new(1, 512);
/// let peer = "192.0.2.1:7777".parse()?;
/// let error = outbox.push(peer, None, &[0; 513]).unwrap_err();
/// assert_eq!(error.to_string(), "513 bytes do not fit into a datagram of at most 512");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The outbox has no room for another datagram of the greatest length.
    #[error("the outbox is full: clear it, or make it larger")]
    Full,
    /// The datagram is longer than the outbox's limit.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// What an Ethernet frame carries.
const USUAL_DATAGRAM_BYTES: usize = 1_500;

#[cfg(test)]
mod tests {
    use super::Outbox;

    #[test]
    fn no_number_of_datagrams_is_too_large_to_ask_room_for() {
        let mut outbox = Outbox::new(4, 16);
        let pushed = outbox.push(([192, 0, 2, 1], 7).into(), None, b"1");
        assert_eq!(pushed, Ok(()));
        assert!(outbox.has_room_for(3) && !outbox.has_room_for(4));
        assert!(!outbox.has_room_for(usize::MAX));
    }
}
