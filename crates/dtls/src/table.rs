//! A table of a fixed capacity that forgets what was used least recently.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Values by address, in the order of their last use.
pub(crate) struct Table<V> {
    places: HashMap<SocketAddr, usize>,
    slots: Vec<Slot<V>>,
    free: Vec<usize>,
    /// The slot used least recently, and the one used most recently.
    oldest: usize,
    newest: usize,
    capacity: usize,
}

struct Slot<V> {
    /// `None` while the slot is free.
    entry: Option<(SocketAddr, V)>,
    older: usize,
    newer: usize,
}

impl<V> Table<V> {
    /// An empty table for at most `capacity` values. It allocates as it fills.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The value of an address, which does not count as a use.
    pub(crate) fn peek(&self, addr: SocketAddr) -> Option<&V> {
        let &at = self.places.get(&addr)?;
        self.slots[at].entry.as_ref().map(|(_, value)| value)
    }

    /// The value of an address, which does not count as a use.
    pub(crate) fn peek_mut(&mut self, addr: SocketAddr) -> Option<&mut V> {
        let &at = self.places.get(&addr)?;
        self.slots[at].entry.as_mut().map(|(_, value)| value)
    }

    /// Makes an address the one that was used most recently.
    pub(crate) fn touch(&mut self, addr: SocketAddr) {
        if let Some(&at) = self.places.get(&addr)
            && at != self.newest
        {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// Adds a value, or replaces the one of the same address. Returns what had to go: the value of that
    /// address, or in a full table the one used least recently.
    pub(crate) fn insert(&mut self, addr: SocketAddr, value: V) -> Option<(SocketAddr, V)> {
        let mut gone = self.remove(addr).map(|value| (addr, value));
        if gone.is_none() && self.len() >= self.capacity {
            gone = self.pop_oldest();
        }
        let slot = Slot {
            entry: Some((addr, value)),
            older: NONE,
            newer: NONE,
        };
        let at = if let Some(at) = self.free.pop() {
            self.slots[at] = slot;
            at
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        self.places.insert(addr, at);
        self.link_newest(at);
        gone
    }

    pub(crate) fn remove(&mut self, addr: SocketAddr) -> Option<V> {
        let at = self.places.remove(&addr)?;
        self.unlink(at);
        self.free.push(at);
        self.slots[at].entry.take().map(|(_, value)| value)
    }

    /// What was used least recently.
    pub(crate) fn oldest(&self) -> Option<(SocketAddr, &V)> {
        let slot = self.slots.get(self.oldest)?;
        slot.entry.as_ref().map(|(addr, value)| (*addr, value))
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<(SocketAddr, V)> {
        let (addr, _) = self.oldest()?;
        self.remove(addr).map(|value| (addr, value))
    }

    /// All values, in no order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut V)> {
        let entries = self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut());
        entries.map(|(addr, value)| (*addr, value))
    }

    fn unlink(&mut self, at: usize) {
        let (older, newer) = (self.slots[at].older, self.slots[at].newer);
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, at: usize) {
        let before = self.newest;
        self.slots[at].older = before;
        self.slots[at].newer = NONE;
        match self.slots.get_mut(before) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

/// No slot: a table has fewer.
const NONE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::Table;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u16, u32),
        Touch(u16),
        Remove(u16),
        PopOldest,
    }

    fn act() -> impl Strategy<Value = Act> {
        use proptest::prop_oneof;
        prop_oneof![
            4 => (0..12_u16, any::<u32>()).prop_map(|(port, value)| Act::Insert(port, value)),
            4 => (0..12_u16).prop_map(Act::Touch),
            2 => (0..12_u16).prop_map(Act::Remove),
            1 => proptest::strategy::Just(Act::PopOldest),
        ]
    }

    proptest! {
        #[test]
        fn a_table_does_what_a_list_in_order_of_use_would(acts in vec(act(), 0..200)) {
            const CAPACITY: usize = 5;
            let mut table = Table::new(CAPACITY);
            // The least recently used first.
            let mut list: Vec<(SocketAddr, u32)> = Vec::new();
            for act in acts {
                match act {
                    Act::Insert(port, value) => {
                        let known = list.iter().position(|(one, _)| *one == addr(port));
                        let gone = match known {
                            Some(at) => Some(list.remove(at)),
                            None if list.len() == CAPACITY => Some(list.remove(0)),
                            None => None,
                        };
                        list.push((addr(port), value));
                        prop_assert_eq!(table.insert(addr(port), value), gone);
                    }
                    Act::Touch(port) => {
                        table.touch(addr(port));
                        if let Some(at) = list.iter().position(|(one, _)| *one == addr(port)) {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    Act::Remove(port) => {
                        let at = list.iter().position(|(one, _)| *one == addr(port));
                        let gone = at.map(|at| list.remove(at).1);
                        prop_assert_eq!(table.remove(addr(port)), gone);
                    }
                    Act::PopOldest => {
                        let gone = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(table.pop_oldest(), gone);
                    }
                }
                prop_assert_eq!(table.len(), list.len());
                let oldest = list.first().copied();
                prop_assert_eq!(table.oldest().map(|(one, value)| (one, *value)), oldest);
                for port in 0..12 {
                    let kept = list.iter().find(|(one, _)| *one == addr(port));
                    prop_assert_eq!(table.peek(addr(port)).copied(), kept.map(|(_, value)| *value));
                }
                let mut values: Vec<_> = table.iter_mut().map(|(one, value)| (one, *value)).collect();
                values.sort_unstable();
                let mut expected = list.clone();
                expected.sort_unstable();
                prop_assert_eq!(values, expected);
            }
        }
    }
}
