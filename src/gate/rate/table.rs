use std::iter;
use std::sync::{Mutex, PoisonError};

use siphasher::sip::SipHasher13;

use crate::keyed_hash;

/// What each prefix or identity owes, in a table of a fixed size. They are named by their hashes.
pub(super) struct Table {
    hasher: SipHasher13,
    parts: Box<[Mutex<Box<[Set]>>]>,
    sets_per_part: usize,
}

impl Table {
    pub(super) fn new(prefixes: usize, key: Option<[u8; 16]>) -> Self {
        let sets = prefixes.div_ceil(WAYS).next_power_of_two();
        let parts = sets.min(MAX_PARTS);
        let sets_per_part = sets / parts;
        let part = || Mutex::new(vec![Set::default(); sets_per_part].into_boxed_slice());
        Self {
            hasher: key.map_or_else(keyed_hash::random, |key| SipHasher13::new_with_key(&key)),
            parts: iter::repeat_with(part).take(parts).collect(),
            sets_per_part,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.parts.len() * self.sets_per_part * size_of::<Set>()
    }

    /// When it owes nothing any more, in nanoseconds of the monotonic clock.
    pub(super) fn free_at(&self, hash: u64) -> u64 {
        self.with_set(hash, |set| set.free_at(hash))
    }

    pub(super) fn charge(&self, hash: u64, now: u64, cost: u64) {
        self.with_set(hash, |set| set.charge(hash, now, cost));
    }

    pub(super) fn hash(&self, subject: &[u8]) -> u64 {
        // Zero marks an unused place.
        self.hasher.hash(subject).max(1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    fn with_set<R>(&self, hash: u64, f: impl FnOnce(&mut Set) -> R) -> R {
        // Both numbers are powers of two.
        let part = hash as usize & (self.parts.len() - 1);
        let set = (hash >> 32) as usize & (self.sets_per_part - 1);
        let mut part = self.parts[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        f(&mut part[set])
    }
}

/// The places that one hash can have: a cache line.
///
/// What a prefix owes is kept as one moment, the one at which it will owe nothing any more (the
/// "theoretical arrival time" of the generic cell rate algorithm, ITU-T I.371). There is nothing to
/// refill, and an entry whose moment has passed is as good as none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u64,
    /// In nanoseconds of the monotonic clock.
    free_at: u64,
}

impl Set {
    fn free_at(&self, hash: u64) -> u64 {
        let entry = self.0.iter().find(|entry| entry.hash == hash);
        entry.map_or(0, |entry| entry.free_at)
    }

    fn charge(&mut self, hash: u64, now: u64, cost: u64) {
        let known = self.0.iter().position(|entry| entry.hash == hash);
        let at = known.unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|&at| self.0[at].free_at);
            let least = least.expect("a set has places");
            self.0[least] = Entry { hash, free_at: 0 };
            least
        });
        let entry = &mut self.0[at];
        entry.free_at = entry.free_at.max(now).saturating_add(cost);
    }
}

/// Places for each hash.
const WAYS: usize = 4;
/// Parts of the table that are locked separately. A power of two.
const MAX_PARTS: usize = 64;
