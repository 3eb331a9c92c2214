//! How many datagrams the kernel has dropped on a socket (`SO_RXQ_OVFL`).

/// The kernel's counter of 32 bits, which wraps, made one of 64.
#[derive(Debug, Default)]
pub(super) struct DropCounter {
    latest: u32,
    total: u64,
}

impl DropCounter {
    #[inline]
    pub(super) fn seen(&mut self, count: u32) {
        self.total += u64::from(count.wrapping_sub(self.latest));
        self.latest = count;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
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
}
