//! A handler that is replaced while it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rejoinder::codec::Raw;
use rejoinder::handler::Swap;
use rejoinder::transport::{Meta, Outbox};
use rejoinder::{Codec, Context, Handler, Reply, ReplyError, Timestamp};

/// Answers with its number, twice, and counts how many of its kind there are.
struct Numbered {
    number: u64,
    alive: Arc<AtomicU64>,
}

impl Numbered {
    fn new(number: u64, alive: &Arc<AtomicU64>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        let alive = Arc::clone(alive);
        Self { number, alive }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<C: for<'a> Codec<Answer<'a> = &'a [u8]>> Handler<C> for Numbered {
    fn handle(
        &self,
        _: C::Request<'_>,
        _: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        reply.send(&self.number.to_be_bytes())?;
        reply.send(&self.number.to_be_bytes())
    }
}

fn ask(handler: &impl Handler<Raw>, outbox: &mut Outbox) -> u64 {
    let context = Context::new(
        &Meta::new("192.0.2.1:7".parse().unwrap()),
        Timestamp::system(),
    );
    outbox.clear();
    let mut reply = Reply::new(&Raw, b"?", &context, outbox);
    handler.handle(b"?", &context, &mut reply).unwrap();
    let numbers: Vec<u64> = outbox
        .iter()
        .map(|reply| u64::from_be_bytes(reply.bytes.try_into().unwrap()))
        .collect();
    assert_eq!(numbers[0], numbers[1], "one handler for a request");
    numbers[0]
}

#[test]
fn workers_see_each_handler_in_turn_while_another_thread_replaces_them() {
    const REPLACED: u64 = if cfg!(miri) { 20 } else { 20_000 };
    let alive = Arc::default();
    let swap = Swap::new(Numbered::new(0, &alive));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let swap = swap.clone();
                let mut outbox = Outbox::new(16, 8);
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let number = ask(&swap, &mut outbox);
                    assert!(number >= last, "{number} after {last}");
                    last = number;
                }
                assert_eq!(ask(&swap, &mut outbox), REPLACED);
            });
        }
        for number in 1..=REPLACED {
            let old = swap.replace(Numbered::new(number, &alive));
            assert_eq!(old.number, number - 1);
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(alive.load(Ordering::SeqCst), 1, "the old ones are freed");
    drop(swap);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn what_is_in_use_stays_until_it_is_let_go_of() {
    let alive = Arc::default();
    let swap = Swap::new(Numbered::new(1, &alive));
    let current = swap.current();
    drop(swap.replace(Numbered::new(2, &alive)));
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    assert_eq!(current.number, 1);
    assert_eq!(swap.current().number, 2);
    drop(current);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
}

#[test]
fn the_thread_that_replaces_can_be_the_one_that_frees() {
    let alive = Arc::default();
    let swap = Swap::new(Numbered::new(1, &alive));
    let current = swap.current();
    let old = swap.replace(Numbered::new(2, &alive));
    assert_eq!(Arc::strong_count(&old), 2);
    drop(current);
    assert_eq!(Arc::strong_count(&old), 1);
    assert_eq!(alive.load(Ordering::SeqCst), 2);
}
