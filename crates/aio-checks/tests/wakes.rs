//! No wake-up is lost, in any order of what threads do: checked by `shuttle`, which runs the files of
//! the library with its own locks and atomics in many random orders, and prints the one that fails.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

/// What the files of the library find in place of the standard library's.
mod sync {
    #[allow(unused_imports, reason = "each file uses some")]
    pub(crate) use std::sync::Arc;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) fn model(test: impl Fn() + Send + Sync + 'static) {
        shuttle::check_random(test, 1);
    }
}
#[path = "../../../src/aio/client/waiters.rs"]
#[allow(dead_code, reason = "the client uses all of it")]
mod waiters;
#[path = "../../../src/aio/wakes.rs"]
mod wakes;

use std::future::poll_fn;
use std::task::{Poll, Waker};

use shuttle::{check_random, future, thread};

use self::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use self::waiters::{Queue, Waiters};
use self::wakes::{SlotWaker, Wakes};

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
                        let waker = Waker::from(Arc::new(SlotWaker { wakes, slot }));
                        for _ in 0..2 {
                            done[which].fetch_add(1, Ordering::SeqCst);
                            waker.wake_by_ref();
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
            threads.into_iter().for_each(|one| one.join().unwrap());
        },
        5_000,
    );
}

/// What a client's lock holds, without the network.
struct State {
    waiters: Waiters<u32>,
    queue: Queue,
    room: usize,
    /// The places of requests in flight.
    in_flight: Vec<usize>,
    driver: Option<Waker>,
}

impl State {
    fn wake_queue(&self) {
        if self.room > 0 {
            self.queue.wake_next();
        }
    }
}

/// Callers on several threads, a window of one, a driver that answers, and a caller that gives up: all
/// others get their answers.
#[test]
fn every_caller_is_served_although_one_gives_up() {
    check_random(
        || {
            let state = Arc::new(Mutex::new(State {
                waiters: Waiters::new(),
                queue: Queue::default(),
                room: 1,
                in_flight: Vec::new(),
                driver: None,
            }));
            let callers: Vec<_> = (0..3)
                .map(|caller| {
                    let state = Arc::clone(&state);
                    thread::spawn(move || future::block_on(ask(&state, caller == 1)))
                })
                .collect();
            let driver = Arc::clone(&state);
            let driver = thread::spawn(move || {
                let mut answered = 0;
                future::block_on(poll_fn(|cx| {
                    let mut state = lock(&driver);
                    state.driver = Some(cx.waker().clone());
                    while let Some(place) = state.in_flight.pop() {
                        answered += 1;
                        state.room += 1;
                        if let Some(waker) = state.waiters.finish(place, 7) {
                            waker.wake();
                        }
                        state.wake_queue();
                    }
                    if answered == 2 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }));
            });
            let answers = callers.into_iter().map(|one| one.join().unwrap());
            assert_eq!(answers.flatten().collect::<Vec<_>>(), [7, 7]);
            driver.join().unwrap();
        },
        5_000,
    );
}

/// One that gives up leaves as soon as it has its number in the queue, or the room.
async fn ask(state: &Mutex<State>, gives_up: bool) -> Option<u32> {
    let mut number = None;
    let mut polls = 0;
    let entered = poll_fn(|cx| {
        let mut state = lock(state);
        polls += 1;
        if gives_up && polls > 1 {
            return Poll::Ready(None);
        }
        if !gives_up && state.room > 0 && state.queue.is_next(number) {
            if let Some(number) = number.take() {
                state.queue.leave(number);
            }
            state.room -= 1;
            let place = state.waiters.enter();
            state.in_flight.push(place);
            if let Some(driver) = &state.driver {
                driver.wake_by_ref();
            }
            state.wake_queue();
            return Poll::Ready(Some(place));
        }
        number = Some(state.queue.wait(number, cx.waker()));
        if gives_up {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    let Some(place) = entered.await else {
        // What dropping the future of a request does.
        let mut state = lock(state);
        if let Some(number) = number.take() {
            state.queue.leave(number);
        }
        state.wake_queue();
        return None;
    };
    Some(poll_fn(|cx| lock(state).waiters.poll(place, cx.waker())).await)
}
