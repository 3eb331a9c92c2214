use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::datagram::Outgoing;

/// A batch of datagrams to be sent, next to each other in an arena that is allocated once.
///
/// Memory: [`ARENA_DATAGRAMS`](Self::ARENA_DATAGRAMS) × `max_datagram_bytes` bytes, or up to 1,500
/// bytes for each of `datagrams` if that is more; and about 80 bytes of bookkeeping for each of
/// `datagrams`. It never grows.
///
/// ```
/// use rejoinder::transport::{Outbox, OutboxFull};
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
pub(crate) struct Queued {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) local: Option<IpAddr>,
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
    #[cfg(all(feature = "udp", target_os = "linux"))]
    pub(crate) fn is_in_any_order(&self) -> bool {
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
    #[cfg(all(feature = "udp", target_os = "linux"))]
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
/// use rejoinder::transport::{Outbox, OutboxFull};
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

    #[cfg(all(feature = "udp", target_os = "linux"))]
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
