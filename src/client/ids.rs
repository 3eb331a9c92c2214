use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;

use super::sockets::SocketId;

/// Which request a response belongs to: by its socket and its id.
///
/// Ids are drawn at random. No id is used twice on one socket, so a response that comes late, or
/// twice, matches no later request. A socket whose ids run out is to be replaced by another.
#[derive(Debug)]
pub(super) struct Ids {
    /// How many bits an id has; 0 if the protocol has none.
    bits: u32,
    /// The slot of each request in flight.
    waiting: HashMap<(SocketId, u64), usize, BuildHasherDefault<IdHasher>>,
    /// The ids that were used on the socket of new requests. Wide ids are not remembered.
    used: HashSet<u64, BuildHasherDefault<IdHasher>>,
}

impl Ids {
    /// Ids of 1 to 64 bits, or none.
    pub(super) fn new(bits: Option<u32>) -> Self {
        Self {
            bits: bits.unwrap_or(0),
            waiting: HashMap::default(),
            used: HashSet::default(),
        }
    }

    /// Whether the protocol has ids, so that requests can share a socket.
    pub(super) fn exist(&self) -> bool {
        self.bits > 0
    }

    /// Draws an unpredictable id (RFC 5452 §4.3, §9) that no pending response to `socket` can
    /// carry. `None` if its ids have run out.
    pub(super) fn draw(
        &self,
        socket: SocketId,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> io::Result<Option<u64>> {
        if self.used.len() >= self.max_used() {
            return Ok(None);
        }
        let mask = self.mask();
        for _ in 0..DRAWS {
            let id = random()? & mask;
            if !self.is_used(socket, id) {
                return Ok(Some(id));
            }
        }
        // Few are left of a few, or the numbers are not as random as they should be.
        let start = random()?;
        Ok((0..=mask.min(SCANNED_IDS))
            .map(|step| start.wrapping_add(step) & mask)
            .find(|&id| !self.is_used(socket, id)))
    }

    /// Draws an id for a socket on which there is no other. 0 if the protocol has none.
    pub(super) fn draw_any(&self, random: &mut dyn FnMut() -> io::Result<u64>) -> io::Result<u64> {
        if self.exist() {
            Ok(random()? & self.mask())
        } else {
            Ok(0)
        }
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// Forgets what was used: new requests use a fresh socket.
    pub(super) fn renew(&mut self) {
        self.used.clear();
    }

    /// Has responses on `socket` with this id belong to the request in `slot`.
    pub(super) fn assign(&mut self, socket: SocketId, id: u64, slot: usize) {
        self.waiting.insert((socket, id), slot);
    }

    /// Remembers an id that is used on the socket of new requests.
    pub(super) fn note_use(&mut self, id: u64) {
        if self.bits < WIDE_ID_BITS {
            self.used.insert(id);
        }
    }

    pub(super) fn release(&mut self, socket: SocketId, id: u64) {
        self.waiting.remove(&(socket, id));
    }

    pub(super) fn slot_of(&self, socket: SocketId, id: u64) -> Option<usize> {
        self.waiting.get(&(socket, id)).copied()
    }

    /// Whether an id cannot be used on the socket of new requests.
    pub(super) fn is_used(&self, socket: SocketId, id: u64) -> bool {
        self.used.contains(&id) || self.waiting.contains_key(&(socket, id))
    }

    /// How many ids are used on one socket. An eighth remains: the last ones would take many draws,
    /// and could be guessed.
    fn max_used(&self) -> usize {
        match self.bits {
            0..16 => {
                let ids = 1 << self.bits;
                ids - ids / 8
            }
            16 => MAX_USED - MAX_USED / 8,
            17..WIDE_ID_BITS => MAX_USED,
            _ => usize::MAX,
        }
    }
}

/// Ids are random and our own choice, so a multiplication spreads them well enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The low bits choose the place, and a product has its entropy in the high ones.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio (Knuth, The Art of Computer Programming 3, §6.4).
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Ids with as many bits or more are not remembered: at a million requests a second, the chance that
/// a random one repeats one of the last 202 seconds is under one in a million.
const WIDE_ID_BITS: u32 = 48;
/// The most ids that are remembered.
const MAX_USED: usize = 65_536;
/// How often a random id is tried before the free ones are looked for in order.
const DRAWS: usize = 64;
/// Among more ids than that, one of them is free, since fewer are remembered.
const SCANNED_IDS: u64 = 65_536;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{Hash, Hasher};

    use super::{IdHasher, Ids, WIDE_ID_BITS};
    use crate::client::sockets::Sockets;
    use crate::sans_io::SocketId;

    /// Names of sockets, from 0.
    fn sockets(count: usize) -> Vec<SocketId> {
        let mut sockets = Sockets::new(std::time::Duration::ZERO, 1);
        let peer = ([192, 0, 2, 1], 7).into();
        (0..count)
            .map(|_| sockets.open(std::time::Duration::ZERO, peer))
            .collect()
    }

    #[test]
    fn every_usable_id_is_found_however_poor_the_random_numbers_are() {
        let socket = sockets(1)[0];
        for number in [0, 0b101, u64::MAX] {
            let mut ids = Ids::new(Some(3));
            let mut drawn = BTreeSet::new();
            // Seven eighths of eight.
            for _ in 0..7 {
                let id = ids.draw(socket, &mut || Ok(number)).ok().flatten();
                let id = id.expect("there are unused ones");
                assert!(id < 8, "{id} has 3 bits");
                assert!(drawn.insert(id), "{id} is used");
                ids.note_use(id);
            }
            let id = ids.draw(socket, &mut || Ok(number));
            assert_eq!(id.ok(), Some(None));
        }
    }

    #[test]
    fn only_ids_that_could_come_again_are_remembered() {
        let socket = sockets(1)[0];
        for (bits, is_remembered) in [(WIDE_ID_BITS - 1, true), (WIDE_ID_BITS, false)] {
            let mut ids = Ids::new(Some(bits));
            ids.note_use(7);
            assert_eq!(ids.is_used(socket, 7), is_remembered, "{bits}");
        }
    }

    /// A table of requests in flight takes the low bits of the hash for the place. With 1,024 places, as
    /// many keys take 647 of them on average if they are spread at random.
    #[test]
    fn requests_are_spread_over_the_table_by_their_sockets_and_by_their_ids() {
        let sockets = sockets(1_024);
        let spread = |keys: Vec<(SocketId, u64)>| {
            let place = |key: (SocketId, u64)| {
                let mut hasher = IdHasher::default();
                key.hash(&mut hasher);
                hasher.finish() & 1_023
            };
            let places: BTreeSet<_> = keys.into_iter().map(place).collect();
            assert!(places.len() > 550, "{}", places.len());
        };
        // A protocol without ids.
        spread(sockets.iter().map(|&socket| (socket, 0)).collect());
        // Ids on one socket that differ in their lower, and in their upper bits only.
        for socket in [sockets[0], sockets[7]] {
            spread((0..1_024).map(|id| (socket, id)).collect());
            spread((0..1_024).map(|id| (socket, id << 32)).collect());
        }
    }
}
