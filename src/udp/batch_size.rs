//! How many messages one receiving call asks for.

use super::syscall::MAX_MESSAGES;

/// The adaptive size of the next batch.
///
/// Looking for a second datagram costs a single request a little, and not looking costs a lot under
/// load. After a few single datagrams, only every eighth call looks for a second one. After a
/// batch, the next may be twice as large.
#[derive(Debug)]
pub(super) struct BatchSize {
    next: usize,
    at_least: usize,
    /// How many datagrams came alone in a row.
    single: usize,
}

impl BatchSize {
    pub(super) fn new() -> Self {
        Self {
            next: MIN_BATCH,
            at_least: 1,
            single: 0,
        }
    }

    pub(super) fn next(&self) -> usize {
        self.next.max(self.at_least)
    }

    /// Looks for a second datagram every time from now on.
    #[cfg(feature = "tokio")]
    pub(super) fn look_around(&mut self) {
        self.at_least = 2;
    }

    pub(super) fn received(&mut self, asked: usize, received: usize) {
        if received == 0 {
            return;
        }
        if received > 1 {
            self.single = 0;
            self.next = (2 * received).clamp(MIN_BATCH, MAX_MESSAGES);
            return;
        }
        self.single += 1;
        self.next = match asked {
            _ if self.single < SINGLE => MIN_BATCH,
            1 if self.single.is_multiple_of(LOOK_AROUND) => 2,
            _ => 1,
        };
    }
}

const MIN_BATCH: usize = 4;
/// After so many single datagrams, the next is expected to be single.
const SINGLE: usize = 4;
const LOOK_AROUND: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_datagrams_are_received_singly_but_a_queue_is_noticed() {
        let mut batch = BatchSize::new();
        for _ in 0..SINGLE {
            assert_eq!(batch.next(), MIN_BATCH);
            batch.received(MIN_BATCH, 1);
        }
        let mut waiting = 300;
        let mut calls = 0;
        while waiting > 0 {
            let received = batch.next().min(waiting);
            batch.received(batch.next(), received);
            waiting -= received;
            calls += 1;
        }
        assert!(calls < 20, "{calls} calls");
    }
}
