/// A queue of slots that also gives up one from its middle in constant time: a doubly linked list
/// over the slots' numbers. A slot is in it at most once.
#[derive(Debug, Default)]
pub(super) struct SlotQueue {
    /// By slot: its neighbours, if it is queued.
    links: Vec<Option<Link>>,
    ends: Option<(usize, usize)>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: Option<usize>,
    next: Option<usize>,
}

impl SlotQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<usize> {
        self.ends.map(|(front, _)| front)
    }

    pub(super) fn contains(&self, slot: usize) -> bool {
        self.links.get(slot).is_some_and(Option::is_some)
    }

    /// Appends a slot that is not queued yet.
    pub(super) fn push_back(&mut self, slot: usize) {
        debug_assert!(!self.contains(slot), "slot {slot} is queued already");
        if slot >= self.links.len() {
            self.links.resize(slot + 1, None);
        }
        let previous = self.ends.map(|(_, back)| back);
        self.links[slot] = Some(Link {
            previous,
            next: None,
        });
        if let Some(link) = previous.and_then(|previous| self.links[previous].as_mut()) {
            link.next = Some(slot);
        }
        let front = self.ends.map_or(slot, |(front, _)| front);
        self.ends = Some((front, slot));
        self.len += 1;
    }

    /// Removes a slot, wherever it stands. Returns whether it was queued.
    pub(super) fn remove(&mut self, slot: usize) -> bool {
        let Some(link) = self.links.get_mut(slot).and_then(Option::take) else {
            return false;
        };
        if let Some(previous) = link.previous.and_then(|slot| self.links[slot].as_mut()) {
            previous.next = link.next;
        }
        if let Some(next) = link.next.and_then(|slot| self.links[slot].as_mut()) {
            next.previous = link.previous;
        }
        self.ends = self.ends.and_then(|(front, back)| {
            let front = if front == slot { link.next? } else { front };
            let back = if back == slot { link.previous? } else { back };
            Some((front, back))
        });
        self.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SlotQueue;

    proptest! {
        #[test]
        fn it_is_a_list_without_repetitions(
            changes in prop::collection::vec((0..8_usize, any::<bool>()), 0..200),
        ) {
            let mut queue = SlotQueue::default();
            let mut model = Vec::new();
            for (slot, add) in changes {
                let queued = model.contains(&slot);
                prop_assert_eq!(queue.contains(slot), queued);
                if add && !queued {
                    queue.push_back(slot);
                    model.push(slot);
                } else if !add {
                    prop_assert_eq!(queue.remove(slot), queued);
                    model.retain(|&other| other != slot);
                }
                prop_assert_eq!(queue.front(), model.first().copied());
                prop_assert_eq!(queue.len(), model.len());
            }
            // In order, to the last.
            for slot in model {
                prop_assert_eq!(queue.front(), Some(slot));
                prop_assert!(queue.remove(slot));
            }
            prop_assert_eq!(queue.front(), None);
        }
    }
}
