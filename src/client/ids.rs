use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::time::Duration;

/// The ids of a client's requests: drawn at random, in use until there is a result, and then at rest
/// for a while.
pub(super) struct Ids {
    bits: u32,
    quarantine: Duration,
    /// Which slot waits for which id.
    waiting: HashMap<u64, usize, BuildHasherDefault<IdHasher>>,
    /// Ids that may not be used yet, the oldest first, with the time until when.
    resting: VecDeque<(Duration, u64)>,
    /// The same, to look them up.
    at_rest: HashSet<u64, BuildHasherDefault<IdHasher>>,
}

/// Why there is no id for another request.
pub(super) enum NoId {
    /// There is nothing to draw one from.
    Entropy(io::Error),
    /// So many rest that none can be had.
    Resting(usize),
}

impl Ids {
    /// # Panics
    ///
    /// If `bits` is not in 1 to 64.
    pub(super) fn new(bits: u32, quarantine: Duration) -> Self {
        assert!((1..=64).contains(&bits), "an id has 1 to 64 bits");
        Self {
            bits,
            quarantine,
            waiting: HashMap::default(),
            resting: VecDeque::new(),
            at_rest: HashSet::default(),
        }
    }

    /// An id that nobody can predict and that no answer on its way can have (RFC 5452 §4.3, §9).
    pub(super) fn fresh(
        &mut self,
        now: Duration,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<u64, NoId> {
        while let Some(&(until, id)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            self.at_rest.remove(&id);
        }
        if self.resting.len() + self.waiting.len() >= MAX_RESTING {
            return Err(NoId::Resting(self.resting.len()));
        }
        let mask = u64::MAX >> (64 - self.bits);
        let mut id = 0;
        for _ in 0..DRAWS {
            id = random().map_err(NoId::Entropy)? & mask;
            if !self.is_used(id) {
                return Ok(id);
            }
        }
        // Nearly all are used, so there are few.
        let ids = mask.min(SCANNED_IDS);
        (0..=ids)
            .map(|step| id.wrapping_add(step) & mask)
            .find(|&id| !self.is_used(id))
            .ok_or(NoId::Resting(self.resting.len()))
    }

    /// Has an answer with a fresh id belong to the request in `slot`.
    pub(super) fn take(&mut self, id: u64, slot: usize) {
        self.waiting.insert(id, slot);
    }

    pub(super) fn slot_of(&self, id: u64) -> Option<usize> {
        self.waiting.get(&id).copied()
    }

    /// Lays the id of a request with a result to rest.
    pub(super) fn give_back(&mut self, id: u64, now: Duration) {
        self.waiting.remove(&id);
        if self.bits < WIDE_ID_BITS {
            self.resting
                .push_back((now.saturating_add(self.quarantine), id));
            self.at_rest.insert(id);
        }
    }

    /// How many rest, as was seen when one was last drawn.
    pub(super) fn resting(&self) -> usize {
        self.resting.len()
    }

    fn is_used(&self, id: u64) -> bool {
        self.waiting.contains_key(&id) || self.at_rest.contains(&id)
    }
}

/// Ids are random and our own choice, so they are their own hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // Narrow ids have no high bits, which hash tables look at.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Ids with as many bits or more need no rest: at a million requests a second, the chance that a
/// random one repeats one of the last 202 seconds is under one in a million.
const WIDE_ID_BITS: u32 = 48;
/// Those in use among them.
const MAX_RESTING: usize = 65_536;
/// How often a random id is tried before the free ones are looked for in order.
const DRAWS: usize = 64;
const SCANNED_IDS: u64 = 65_535;
