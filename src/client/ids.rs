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
