//! State per peer, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rejoinder::Timestamp;

/// A session for each of the peers that were heard of lately.
///
/// There are at most `capacity`, so forged sources can fill the table but not the memory. A new
/// peer evicts the one that was idle for longest. A session that was not used for its lifetime is
/// gone. No thread tidies up: those that are over are found when the next one is used.
///
/// A peer is an address, and an address is not a proof. An attacker who forges it can send into the
/// session (though the answers go to its owner). The next owner of the address, by a NAT or a DHCP
/// server, finds the session open until its lifetime is over. What matters needs a secret in the
/// request.
#[derive(Debug)]
pub struct Sessions<S> {
    capacity: usize,
    lifetime: Duration,
    table: Mutex<Table<S>>,
}

#[derive(Debug)]
struct Table<S> {
    by_peer: HashMap<SocketAddr, Entry<S>>,
    /// The peers in the order in which they were last heard of; the key is `Entry::turn`.
    by_turn: BTreeMap<u64, SocketAddr>,
    turns: u64,
}

#[derive(Debug)]
struct Entry<S> {
    session: S,
    turn: u64,
    used: Duration,
}

impl<S: Default> Sessions<S> {
    /// An empty table for at least one peer.
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        Self {
            capacity: capacity.max(1),
            lifetime,
            table: Mutex::new(Table {
                by_peer: HashMap::new(),
                by_turn: BTreeMap::new(),
                turns: 0,
            }),
        }
    }

    /// Lends the session of a peer, which is a new one if there is none yet or it is over.
    ///
    /// The table is locked meanwhile: for work that takes its time, copy what it needs.
    pub fn with<R>(&self, peer: SocketAddr, now: Timestamp, work: impl FnOnce(&mut S) -> R) -> R {
        let mut table = self.lock();
        table.end_those_silent_since(now.monotonic, self.lifetime);
        if !table.by_peer.contains_key(&peer) && table.by_peer.len() == self.capacity {
            table.end_oldest();
        }
        work(table.touch(peer, now.monotonic))
    }

    /// How many sessions there are, those that are over and not found yet included.
    pub fn count(&self) -> usize {
        self.lock().by_peer.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table<S>> {
        // Only `work` can panic while it is held, and the table is in order before it begins.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Default> Table<S> {
    fn end_those_silent_since(&mut self, now: Duration, lifetime: Duration) {
        while let Some(oldest) = self.by_turn.first_entry() {
            // Two workers may have read the clock in another order than they came here.
            let silent_for = now.saturating_sub(self.by_peer[oldest.get()].used);
            if silent_for < lifetime {
                break;
            }
            self.by_peer.remove(&oldest.remove());
        }
    }

    fn end_oldest(&mut self) {
        if let Some((_, peer)) = self.by_turn.pop_first() {
            self.by_peer.remove(&peer);
        }
    }

    fn touch(&mut self, peer: SocketAddr, now: Duration) -> &mut S {
        self.turns += 1;
        let turn = self.turns;
        let entry = self.by_peer.entry(peer).or_insert_with(|| Entry {
            session: S::default(),
            turn,
            used: now,
        });
        self.by_turn.remove(&entry.turn);
        self.by_turn.insert(turn, peer);
        entry.turn = turn;
        entry.used = entry.used.max(now);
        &mut entry.session
    }
}
