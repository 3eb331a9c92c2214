use std::time::Duration;

/// At most one timer for each slot: a binary heap that knows where everybody is, so
/// that a timer can be moved, and nothing stale is ever in it.
#[derive(Debug)]
pub(super) struct Timers {
    /// The earliest first; each is due no earlier than its parent, at half its index.
    heap: Vec<(Duration, usize)>,
    /// Where each slot is in the heap.
    position: Vec<Option<usize>>,
}

impl Timers {
    pub(super) fn new() -> Self {
        Self {
            heap: Vec::new(),
            position: Vec::new(),
        }
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<(Duration, usize)> {
        self.heap.first().copied()
    }

    /// Sets a slot's timer, whether it has one or not.
    pub(super) fn set(&mut self, slot: usize, due: Duration) {
        if slot >= self.position.len() {
            self.position.resize(slot + 1, None);
        }
        let index = self.position[slot].unwrap_or(self.heap.len());
        if index == self.heap.len() {
            self.heap.push((due, slot));
            self.position[slot] = Some(index);
        }
        self.heap[index].0 = due;
        self.settle(index);
    }

    pub(super) fn remove(&mut self, slot: usize) {
        if let Some(index) = self.position.get_mut(slot).and_then(Option::take) {
            self.heap.swap_remove(index);
            if let Some(&(_, moved)) = self.heap.get(index) {
                self.position[moved] = Some(index);
                self.settle(index);
            }
        }
    }

    /// Moves one up or down to where it belongs.
    fn settle(&mut self, mut index: usize) {
        while index > 0 && self.heap[index] < self.heap[(index - 1) / 2] {
            index = self.swap(index, (index - 1) / 2);
        }
        loop {
            let smallest = [2 * index + 1, 2 * index + 2]
                .into_iter()
                .filter(|&child| child < self.heap.len())
                .min_by_key(|&child| self.heap[child]);
            match smallest {
                Some(child) if self.heap[child] < self.heap[index] => {
                    index = self.swap(index, child);
                }
                _ => break,
            }
        }
    }

    fn swap(&mut self, one: usize, other: usize) -> usize {
        self.heap.swap(one, other);
        for index in [one, other] {
            self.position[self.heap[index].1] = Some(index);
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Timers;

    proptest! {
        #[test]
        fn the_first_is_the_first_of_a_sorted_list(
            changes in prop::collection::vec((0..16_usize, prop::option::of(0..100_u64)), 0..200),
        ) {
            let mut timers = Timers::new();
            let mut model = BTreeMap::new();
            for (slot, due) in changes {
                if let Some(due) = due.map(Duration::from_secs) {
                    timers.set(slot, due);
                    model.insert(slot, due);
                } else {
                    timers.remove(slot);
                    model.remove(&slot);
                }
                let first = model.iter().map(|(&slot, &due)| (due, slot)).min();
                prop_assert_eq!(timers.first(), first);
            }
        }
    }
}
