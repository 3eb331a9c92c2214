//! No caller of a client is forgotten, in any order of what threads do: checked by `shuttle`, as the slots
//! of a server are.
//!
//! ```text
//! RUSTFLAGS='--cfg shuttle' cargo test --features tokio --lib --target-dir target/shuttle model::
//! ```

use std::future::poll_fn;
use std::task::{Poll, Waker};

use shuttle::{check_random, future, thread};

use super::super::sync::{Arc, Mutex, lock};
use super::waiters::{Queue, Waiters};

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
