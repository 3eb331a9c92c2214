//! Which requests of a key were accepted.

use std::iter;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What sets a request apart from all others that are signed with the same key.
pub(super) type Nonce = [u8; 16];

/// Remembers accepted requests in a table of a fixed size, so that none is accepted twice.
///
/// A table that is full forgets the oldest request, by the time in it. From then on it refuses what is as
/// old, since that may be the one that was forgotten. So a replay is refused whatever the load is, and what a load
/// beyond the table's size shortens is how old a request may be.
///
/// Each set of places is on its own in this, which makes all of it a search among eight places.
pub(super) struct ReplayTable {
    /// Allocated for the first request. The keys of a client have none.
    parts: OnceLock<Box<[Part]>>,
    part_count: usize,
    sets_per_part: usize,
    /// The first floor of all sets.
    floor: u64,
}

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was accepted before, or a later transmission of it was.
    Replayed,
    /// It is as old as one that was forgotten.
    Forgotten,
}

/// What one lock guards.
type Part = Mutex<Box<[Set]>>;

#[derive(Clone)]
struct Set {
    /// Requests of this time, and older ones, were forgotten.
    floor: u64,
    entries: [Entry; WAYS],
}

#[derive(Clone, Copy, Default)]
struct Entry {
    nonce: Nonce,
    /// The time of the latest transmission that was accepted. Zero marks an unused place.
    time: u64,
}

impl ReplayTable {
    /// A table of at least `requests` places that takes what was signed after `floor`.
    pub(super) fn new(requests: usize, floor: u64) -> Self {
        let sets = requests.div_ceil(WAYS).next_power_of_two();
        let part_count = sets.min(MAX_PARTS);
        Self {
            parts: OnceLock::new(),
            part_count,
            sets_per_part: sets / part_count,
            floor,
        }
    }

    /// How much it takes once it is used.
    pub(super) fn memory_bytes(&self) -> usize {
        self.part_count * self.sets_per_part * size_of::<Set>()
    }

    fn parts(&self) -> &[Part] {
        self.parts.get_or_init(|| {
            let set = Set {
                floor: self.floor,
                entries: [Entry::default(); WAYS],
            };
            let part = || Mutex::new(vec![set.clone(); self.sets_per_part].into_boxed_slice());
            iter::repeat_with(part).take(self.part_count).collect()
        })
    }

    /// Accepts one transmission of a request, of a time in microseconds since 1970.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    pub(super) fn accept(&self, nonce: &Nonce, time: u64) -> Result<(), Refused> {
        let hash = hash(nonce);
        // Both numbers are powers of two.
        let part = hash as usize & (self.part_count - 1);
        let set = (hash >> 32) as usize & (self.sets_per_part - 1);
        let mut part = self.parts()[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        part[set].accept(nonce, time)
    }
}

impl Set {
    fn accept(&mut self, nonce: &Nonce, time: u64) -> Result<(), Refused> {
        let known = |entry: &&mut Entry| entry.time > 0 && entry.nonce == *nonce;
        if let Some(entry) = self.entries.iter_mut().find(known) {
            if time <= entry.time {
                return Err(Refused::Replayed);
            }
            entry.time = time;
            return Ok(());
        }
        if time <= self.floor {
            return Err(Refused::Forgotten);
        }
        let oldest = self.entries.iter_mut().min_by_key(|entry| entry.time);
        let oldest = oldest.expect("a set has places");
        self.floor = self.floor.max(oldest.time);
        *oldest = Entry {
            nonce: *nonce,
            time,
        };
        Ok(())
    }
}

/// Spreads nonces, which are random as a rule. A peer that chooses them otherwise has the key, and the table
/// is of that key alone.
fn hash(nonce: &Nonce) -> u64 {
    let [high, low] = [0, 8].map(|at| {
        let half: [u8; 8] = nonce[at..at + 8].try_into().expect("half of 16 bytes");
        u64::from_be_bytes(half)
    });
    let product = (high.rotate_left(29) ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// Places for each hash.
const WAYS: usize = 8;
/// Parts of the table that are locked separately. A power of two.
const MAX_PARTS: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{Refused, ReplayTable, Set, WAYS};

    /// More than the tables of these tests hold; under Miri, which is slow, some more.
    const MANY: u64 = if cfg!(miri) { 50 } else { 1_000 };

    fn nonce(number: u64) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn a_request_is_accepted_once_and_a_later_transmission_once_more() {
        let table = ReplayTable::new(64, 0);
        assert_eq!(table.accept(&nonce(1), 10), Ok(()));
        assert_eq!(table.accept(&nonce(1), 10), Err(Refused::Replayed));
        assert_eq!(table.accept(&nonce(1), 12), Ok(()));
        for time in [9, 10, 11, 12] {
            assert_eq!(table.accept(&nonce(1), time), Err(Refused::Replayed));
        }
        assert_eq!(table.accept(&nonce(2), 10), Ok(()));
    }

    #[test]
    fn what_is_as_old_as_the_floor_is_refused() {
        let table = ReplayTable::new(64, 100);
        for time in [0, 1, 100] {
            assert_eq!(table.accept(&nonce(1), time), Err(Refused::Forgotten));
        }
        assert_eq!(table.accept(&nonce(1), 101), Ok(()));
        // Time zero marks an unused place, and no floor lets it through.
        let table = ReplayTable::new(64, 0);
        assert_eq!(table.accept(&nonce(0), 0), Err(Refused::Forgotten));
    }

    #[test]
    fn its_size_is_fixed_and_at_least_what_was_asked_for() {
        for (requests, sets) in [(1, 1), (8, 1), (9, 2), (100, 16), (16_384, 2_048)] {
            let table = ReplayTable::new(requests, 0);
            assert_eq!(table.memory_bytes(), sets * size_of::<Set>(), "{requests}");
            for number in 0..MANY {
                let _ = table.accept(&nonce(number), 1 + number);
            }
            let parts = table.parts().iter();
            let allocated: usize = parts.map(|part| part.lock().unwrap().len()).sum();
            assert_eq!(allocated, sets, "{requests}");
        }
        assert_eq!(size_of::<Set>(), 8 + WAYS * 24);
    }

    #[test]
    fn a_full_table_accepts_what_is_new() {
        let table = ReplayTable::new(8, 0);
        for number in 1..MANY {
            assert_eq!(table.accept(&nonce(number), number), Ok(()));
        }
        let last = MANY - 1;
        assert_eq!(table.accept(&nonce(last), last), Err(Refused::Replayed));
        assert_eq!(table.accept(&nonce(1), 1), Err(Refused::Forgotten));
    }

    proptest! {
        /// Whatever comes, in whatever order: no transmission is accepted twice, nor one that is older than
        /// an accepted one of the same request.
        #[test]
        fn nothing_is_accepted_twice(
            requests in 1_usize..40,
            floor in 0_u64..20,
            sent in prop::collection::vec((0_u64..30, 0_u64..40), 0..300),
        ) {
            let table = ReplayTable::new(requests, floor);
            let mut latest = HashMap::new();
            for (number, time) in sent {
                if table.accept(&nonce(number), time).is_ok() {
                    prop_assert!(time > floor);
                    let before = latest.insert(number, time);
                    prop_assert!(before.is_none_or(|before| before < time));
                }
            }
        }
    }
}
