//! Which slots were woken: a bit for each, and one waker of the task for all.

#[cfg(all(test, shuttle))]
mod model;

use std::mem;
use std::task::{Wake, Waker};

use super::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// Collects the wake-ups of a worker's slots.
///
/// Waking sets bits and wakes the worker's task once, until the worker [drains](Self::drain) it. It
/// takes no lock but for that one time, and allocates nothing.
pub(super) struct Wakes {
    /// A bit for each slot.
    slots: Box<[AtomicU64]>,
    /// A bit for each word of `slots` that may have bits.
    words: Box<[AtomicU64]>,
    /// Whether the task was woken since the latest drain.
    is_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wakes {
    pub(super) fn new(slots: usize) -> Self {
        let words = slots.div_ceil(64);
        let zeros = |len: usize| (0..len).map(|_| AtomicU64::new(0)).collect();
        Self {
            slots: zeros(words),
            words: zeros(words.div_ceil(64)),
            is_woken: AtomicBool::new(false),
            task: Mutex::new(None),
        }
    }

    /// Registers how to wake the worker. It drains after that.
    pub(super) fn register(&self, task: &Waker) {
        *lock(&self.task) = Some(task.clone());
    }

    pub(super) fn wake(&self, slot: usize) {
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        // Where other bits are set already, their waker sets that of the word.
        if self.slots[word].fetch_or(bit, Ordering::AcqRel) == 0 {
            self.words[word / 64].fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let task = lock(&self.task).clone();
            if let Some(task) = task {
                task.wake();
            }
        }
    }

    /// Appends the slots that were woken since the latest call.
    pub(super) fn drain(&self, woken: &mut Vec<u32>) {
        // First, so that whatever wakes from now on wakes the task again.
        if !self.is_woken.swap(false, Ordering::AcqRel) {
            return;
        }
        for (index, words) in self.words.iter().enumerate() {
            for word in Bits(words.swap(0, Ordering::AcqRel)) {
                let word = 64 * index + word;
                let bits = Bits(self.slots[word].swap(0, Ordering::AcqRel));
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "there are 2^20 slots at most"
                )]
                woken.extend(bits.map(|bit| (64 * word + bit) as u32));
            }
        }
    }
}

/// The waker of one slot.
pub(super) struct SlotWaker {
    pub(super) wakes: Arc<Wakes>,
    pub(super) slot: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wakes.wake(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.wake(self.slot);
    }
}

/// The places of the bits that are set.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let rest = self.0 & self.0.wrapping_sub(1);
        let first = mem::replace(&mut self.0, rest);
        (first != 0).then(|| first.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::sync::model;
    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_slot_is_found_once_and_the_task_is_woken_once() {
        model(find_every_slot);
    }

    fn find_every_slot() {
        let wakes = Wakes::new(10_000);
        let count = Arc::new(Count::default());
        wakes.register(&Waker::from(Arc::clone(&count)));
        let mut woken = Vec::new();
        for round in 1..=2 {
            let all = [0, 1, 63, 64, 4_095, 4_096, 9_999];
            for slot in all.into_iter().chain(all) {
                wakes.wake(slot);
            }
            assert_eq!(count.0.load(Ordering::Relaxed), round);
            woken.clear();
            wakes.drain(&mut woken);
            assert_eq!(
                woken.as_slice(),
                all.map(|slot| u32::try_from(slot).expect("few"))
            );
            wakes.drain(&mut woken);
            assert_eq!(woken.len(), all.len());
        }
    }
}
