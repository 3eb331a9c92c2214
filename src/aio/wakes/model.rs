//! No wake-up of a slot is lost, in any order of what threads do: checked by `shuttle`, which runs the test
//! in thousands of random orders, and prints the one that fails.
//!
//! ```text
//! RUSTFLAGS='--cfg shuttle' cargo test --features tokio --lib --target-dir target/shuttle model::
//! ```

use std::future::poll_fn;
use std::task::{Poll, Waker};

use shuttle::{check_random, future, thread};

use super::super::sync::{Arc, AtomicU64, Ordering};
use super::{SlotWaker, Wakes};

/// A worker that drains until every slot was woken as often as its waker was called, while threads wake
/// slots that share a word, and ones that do not.
#[test]
fn every_slot_that_is_woken_is_found() {
    check_random(
        || {
            let wakes = Arc::new(Wakes::new(130));
            // What a handler's future would be woken for.
            let done = Arc::new([const { AtomicU64::new(0) }; 3].map(|_| AtomicU64::new(0)));
            let threads: Vec<_> = [0_usize, 1, 129]
                .into_iter()
                .enumerate()
                .map(|(which, slot)| {
                    let (wakes, done) = (Arc::clone(&wakes), Arc::clone(&done));
                    thread::spawn(move || {
                        let slot_waker = Waker::from(Arc::new(SlotWaker { wakes, slot }));
                        for _ in 0..2 {
                            done[which].fetch_add(1, Ordering::SeqCst);
                            slot_waker.wake_by_ref();
                        }
                    })
                })
                .collect();
            let mut seen = [0; 3];
            future::block_on(poll_fn(|cx| {
                wakes.register(cx.waker());
                let mut woken = Vec::new();
                wakes.drain(&mut woken);
                for slot in woken {
                    let which = [0, 1, 129].iter().position(|&one| one == slot).unwrap();
                    seen[which] = done[which].load(Ordering::SeqCst);
                }
                // If a wake-up were lost, this would wait for ever, which shuttle reports.
                if seen == [2; 3] {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }));
            for thread in threads {
                thread.join().unwrap();
            }
        },
        5_000,
    );
}
