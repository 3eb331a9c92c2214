//! What [`Dedup`](super::Dedup) remembers of requests and their answers.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::codec::Codec;
use crate::handler::{Reply, ReplyError};
use crate::identity::Identity;

/// What two copies of one request have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Exchange<K> {
    /// The peer, and the address that was asked. `None` if the bytes are those of one request of the
    /// identity, wherever they come from.
    pub(super) addresses: Option<(SocketAddr, Option<IpAddr>)>,
    pub(super) identity: Option<Identity>,
    pub(super) id: Option<u64>,
    /// A hash of the bytes that all transmissions of the request have in common, and of a peer without an
    /// identity the association.
    pub(super) bytes: u64,
    pub(super) key: K,
}

/// A ring of slots, and an index into it.
pub(super) struct Memory<K> {
    pub(super) capacity: usize,
    pub(super) max_response_bytes: usize,
    slots: Vec<Slot<K>>,
    /// The slot that is taken next, once there are as many as there may be.
    oldest: usize,
    by_exchange: HashMap<Exchange<K>, usize>,
    /// Requests that a handler is at work on: at most one for each blocking worker, and
    /// [`max_in_flight`](crate::ServerBuilder::max_in_flight) for each async one.
    begun: HashSet<Exchange<K>>,
}

struct Slot<K> {
    exchange: Exchange<K>,
    received: Duration,
    /// The answers one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What a request is.
pub(super) enum Begin<K: Eq + Hash> {
    First(Begun<K>),
    AtWork,
    Answered(Exchange<K>),
}

impl<K> Memory<K> {
    pub(super) fn new() -> Self {
        Self {
            capacity: 4096,
            max_response_bytes: 1152,
            slots: Vec::new(),
            oldest: 0,
            by_exchange: HashMap::new(),
            begun: HashSet::new(),
        }
    }
}

impl<K: Eq + Hash + Clone> Memory<K> {
    /// Whether a request is one to be handled, a copy of one that is being handled, or of one that was.
    pub(super) fn begin(
        memory: &Arc<Mutex<Self>>,
        exchange: Exchange<K>,
        now: Duration,
        lifetime: Duration,
        is_silent: fn(&K) -> bool,
    ) -> Begin<K> {
        let mut locked = lock(memory);
        if let Some(slot) = locked.recall(&exchange)
            && now.saturating_sub(slot.received) < lifetime
        {
            return Begin::Answered(exchange);
        }
        if !locked.begun.insert(exchange.clone()) {
            return Begin::AtWork;
        }
        drop(locked);
        Begin::First(Begun {
            memory: Arc::clone(memory),
            is_kept: !is_silent(&exchange.key),
            exchange,
            now,
        })
    }

    /// Sends the answer to a request again.
    pub(super) fn replay<C: Codec>(
        &self,
        exchange: &Exchange<K>,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        // It may have been forgotten meanwhile.
        let Some(slot) = self.recall(exchange) else {
            return Ok(());
        };
        slot.answers()
            .try_for_each(|answer| reply.send_encoded(answer))
    }

    fn recall(&self, exchange: &Exchange<K>) -> Option<&Slot<K>> {
        Some(&self.slots[*self.by_exchange.get(exchange)?])
    }

    fn remember<'a>(
        &mut self,
        exchange: &Exchange<K>,
        received: Duration,
        answers: impl Iterator<Item = &'a [u8]>,
    ) {
        if self.capacity == 0 {
            return;
        }
        let index = if self.slots.len() < self.capacity {
            self.slots.push(Slot {
                exchange: exchange.clone(),
                received,
                bytes: Vec::new(),
                ends: Vec::new(),
            });
            self.slots.len() - 1
        } else {
            let index = self.oldest;
            self.oldest = (index + 1) % self.capacity;
            let slot = &mut self.slots[index];
            // The same exchange may have come back after its lifetime, and have a newer slot.
            if self.by_exchange.get(&slot.exchange) == Some(&index) {
                self.by_exchange.remove(&slot.exchange);
            }
            slot.exchange = exchange.clone();
            slot.received = received;
            slot.bytes.clear();
            slot.ends.clear();
            index
        };
        self.by_exchange.insert(exchange.clone(), index);

        let slot = &mut self.slots[index];
        for answer in answers {
            if slot.bytes.len() + answer.len() > self.max_response_bytes {
                slot.bytes.clear();
                slot.ends.clear();
                break;
            }
            // Never more than `max_response_bytes`.
            slot.bytes.reserve_exact(answer.len());
            slot.bytes.extend_from_slice(answer);
            slot.ends.push(slot.bytes.len());
        }
    }
}

impl<K> Slot<K> {
    fn answers(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.bytes[start..end])
    }
}

/// A request at work. Dropping it, when the handler panics or is given up, leaves nothing of it.
pub(super) struct Begun<K: Eq + Hash> {
    memory: Arc<Mutex<Memory<K>>>,
    exchange: Exchange<K>,
    is_kept: bool,
    /// When it was received.
    now: Duration,
}

impl<K: Eq + Hash + Clone> Begun<K> {
    pub(super) fn remember<'a>(self, answers: impl Iterator<Item = &'a [u8]>) {
        let kept = if self.is_kept { usize::MAX } else { 0 };
        lock(&self.memory).remember(&self.exchange, self.now, answers.take(kept));
    }
}

impl<K: Eq + Hash> Drop for Begun<K> {
    fn drop(&mut self) {
        lock(&self.memory).begun.remove(&self.exchange);
    }
}

pub(super) fn lock<K>(memory: &Mutex<Memory<K>>) -> MutexGuard<'_, Memory<K>> {
    // Only `K`'s own code can panic while it is held, and then at worst an answer is lost.
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Exchange, Slot};

    /// What a full memory of the default size takes for each request, without the answers.
    fn bytes_each<K>() -> usize {
        // A hash table has a power of two of places, and a byte more for each. It doubles once more where
        // removed entries fill it, and from then on cleans up in place.
        let index = 4 * (size_of::<(Exchange<K>, usize)>() + 1);
        // A vector with one `usize` in it has room for four.
        size_of::<Slot<K>>() + index + 4 * size_of::<usize>()
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn memory_is_what_the_documentation_says() {
        assert!((580..=620).contains(&bytes_each::<u32>()));
        assert_eq!(bytes_each::<[u64; 9]>() - bytes_each::<u64>(), 5 * 64);
    }
}
