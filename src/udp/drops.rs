//! How many datagrams the kernel has dropped on a socket (`SO_RXQ_OVFL`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The kernel's counter of 32 bits, which wraps, made one of 64.
///
/// Where several transports have the same socket, the kernel reports every drop to each. They share
/// what was seen, so that each drop is counted by one of them.
#[derive(Debug, Default)]
pub(super) struct DropCounter {
    latest: u32,
    total: u64,
    shared: Option<Arc<AtomicU32>>,
}

impl DropCounter {
    /// The counter of a socket that other transports of this process may have too. The cookie names
    /// the socket among all of the machine (`SO_COOKIE`).
    pub(super) fn shared(cookie: u64) -> Self {
        static SEEN: Mutex<Option<HashMap<u64, Weak<AtomicU32>>>> = Mutex::new(None);
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.get_or_insert_default();
        seen.retain(|_, counter| counter.strong_count() > 0);
        let known = seen.get(&cookie).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            let shared = Arc::default();
            seen.insert(cookie, Arc::downgrade(&shared));
            shared
        });
        Self {
            latest: 0,
            total: 0,
            shared: Some(shared),
        }
    }

    #[inline]
    pub(super) fn seen(&mut self, count: u32) {
        if count == self.latest {
            return;
        }
        match &self.shared {
            None => self.total += u64::from(count.wrapping_sub(self.latest)),
            Some(shared) => self.total += newly_seen(shared, count),
        }
        self.latest = count;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// How many drops are new to all transports with the socket. One that reads late sees fewer than
/// another has seen.
fn newly_seen(shared: &AtomicU32, count: u32) -> u64 {
    let ahead = |seen: u32| {
        let ahead = count.wrapping_sub(seen);
        (ahead != 0 && ahead <= u32::MAX / 2).then_some(ahead)
    };
    let update = |seen| ahead(seen).map(|_| count);
    match shared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
        Ok(seen) => u64::from(count.wrapping_sub(seen)),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::DropCounter;

    #[test]
    fn a_counter_of_drops_survives_its_wrapping() {
        let mut drops = DropCounter::default();
        for count in [5, u32::MAX, 3] {
            drops.seen(count);
        }
        assert_eq!(drops.total(), (1 << 32) + 3);
    }

    #[test]
    fn transports_with_one_socket_count_each_drop_once() {
        let [mut one, mut two, mut other] = [1, 1, 2].map(DropCounter::shared);
        one.seen(5);
        two.seen(5);
        two.seen(9);
        // It received its datagram earlier, and reads later.
        one.seen(7);
        one.seen(9);
        other.seen(3);
        assert_eq!((one.total(), two.total(), other.total()), (5, 4, 3));
        // The kernel's counter wraps.
        one.seen(u32::MAX / 2);
        two.seen(u32::MAX - 9);
        one.seen(1);
        two.seen(1);
        assert_eq!(one.total() + two.total(), (1 << 32) + 1);
        // Another socket may have the name of one that is gone, no matter how it was left.
        drop((one, two));
        let mut next = DropCounter::shared(1);
        next.seen(4);
        assert_eq!(next.total(), 4);
    }
}
