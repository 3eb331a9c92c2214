use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use tokio::time::Instant;

use super::driver::{Turn, Work};
use crate::aio::config::{AioConfig, WhenFull};
use crate::aio::handler::AsyncHandler;
use crate::aio::wakes::{SlotWaker, Wakes};
use crate::codec::Codec;
use crate::drop_reason::DropReason;
use crate::gate::Gate;
use crate::handler::IntoReply;
use crate::panics::{drop_quietly, quietly};
use crate::sans_io::{Deferred, ServerCore};
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox};

/// The futures of a worker's handlers: each in a slot that is used again.
///
/// A slot keeps its place in memory, its waker and the buffer of its request, so a request costs no
/// allocation once as many slots are there as are needed at a time.
///
/// `start` makes the future of a handler out of a [`Job`]: it is [`run`], whose future has no name. The
/// future holds the job, and the slot does: so whatever becomes of the future, the slot has the token
/// and the buffer.
pub(super) struct Slots<C, H, F, S> {
    env: Arc<Env<C, H>>,
    start: S,
    all: Vec<Slot<C, H, F>>,
    free: Vec<u32>,
    /// The requests in flight in the order of their deadlines, which is that of their arrival.
    by_age: Ends,
    wakes: Arc<Wakes>,
    /// The task whose waker is registered.
    task: Option<Waker>,
    /// Slots that were woken and are to be polled, the next one last.
    woken: Vec<u32>,
    /// Whether the next turn begins with what was received.
    received_first: bool,
    /// The newest request in flight of each peer, if their order matters.
    newest: Option<HashMap<SocketAddr, u32>>,
    config: AioConfig,
}

struct Slot<C, H, F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
    job: Arc<Job<C, H>>,
    request: Option<Request>,
}

/// A request in flight.
struct Request {
    deadline: Option<Instant>,
    older: Option<u32>,
    newer: Option<u32>,
    /// The next request of the same peer, if their order matters.
    next_of_peer: Option<u32>,
    /// Whether one of the same peer is to finish first, whatever wakes the slot.
    is_waiting_for_turn: bool,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    oldest: Option<u32>,
    newest: Option<u32>,
}

/// What the futures of a worker's handlers have in common.
pub(super) struct Env<C, H> {
    pub(super) codec: C,
    pub(super) handler: H,
}

/// What a handler works on.
pub(super) struct Job<C, H> {
    env: Arc<Env<C, H>>,
    bytes: Vec<u8>,
    deferred: Option<Deferred>,
}

/// Runs a handler on a request that its future holds. `None` if the request does not decode, which it did
/// before.
pub(super) async fn run<C: Codec, H: AsyncHandler<C>>(job: Arc<Job<C, H>>) -> Option<H::Reply> {
    let context = job.deferred.as_ref()?.context();
    let request = job.env.codec.decode_request(&job.bytes).ok()?;
    Some(job.env.handler.handle(request, context).await)
}

impl<C, H, F, S> Slots<C, H, F, S> {
    pub(super) fn new(env: Env<C, H>, start: S, config: AioConfig) -> Self {
        let ordered = config.ordered_per_peer;
        Self {
            env: Arc::new(env),
            start,
            all: Vec::new(),
            free: Vec::new(),
            by_age: Ends::default(),
            wakes: Arc::new(Wakes::new(config.max_in_flight)),
            task: None,
            woken: Vec::new(),
            received_first: false,
            newest: ordered.then(|| HashMap::with_capacity(config.max_in_flight)),
            config,
        }
    }

    fn take_free(&mut self) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            return Some(index as usize);
        }
        let index = self.all.len();
        if index == self.config.max_in_flight {
            return None;
        }
        let wakes = Arc::clone(&self.wakes);
        self.all.push(Slot {
            future: Box::pin(None),
            waker: Waker::from(Arc::new(SlotWaker { wakes, slot: index })),
            job: Arc::new(Job::new(&self.env)),
            request: None,
        });
        Some(index)
    }

    /// The job of a slot without a future.
    fn job(&mut self, index: usize) -> &mut Job<C, H> {
        let job = &mut self.all[index].job;
        // A future that panicked while it was dropped has kept it.
        if Arc::strong_count(job) > 1 {
            *job = Arc::new(Job::new(&self.env));
        }
        Arc::get_mut(job).expect("nothing else holds it")
    }

    /// Puts a request at the end of those in flight.
    fn begin(&mut self, index: usize, deadline: Option<Instant>) {
        let name = name(index);
        let older = self.by_age.newest.replace(name);
        match older {
            Some(older) => self.request(older).newer = Some(name),
            None => self.by_age.oldest = Some(name),
        }
        self.all[index].request = Some(Request {
            deadline,
            older,
            newer: None,
            next_of_peer: None,
            is_waiting_for_turn: false,
        });
    }

    /// Takes a request off those in flight. Its slot, which has no future, is free.
    fn finish(&mut self, index: usize) -> Option<Deferred> {
        let slot = &mut self.all[index];
        let request = slot.request.take().expect("the request is in flight");
        match request.older {
            Some(older) => self.request(older).newer = request.newer,
            None => self.by_age.oldest = request.newer,
        }
        match request.newer {
            Some(newer) => self.request(newer).older = request.older,
            None => self.by_age.newest = request.older,
        }
        self.free.push(name(index));
        if let Some(newest) = &mut self.newest
            && let Some(deferred) = &self.all[index].job.deferred
        {
            match request.next_of_peer {
                Some(next) => {
                    self.woken.push(next);
                    self.request(next).is_waiting_for_turn = false;
                }
                None => {
                    newest.remove(&deferred.context().peer);
                }
            }
        }
        self.job(index).deferred.take()
    }

    fn oldest_deadline(&self) -> Option<Instant> {
        let oldest = self.by_age.oldest? as usize;
        self.all[oldest].request.as_ref()?.deadline
    }

    fn request(&mut self, slot: u32) -> &mut Request {
        let request = self.all[slot as usize].request.as_mut();
        request.expect("linked requests are in flight")
    }

    /// Empties a slot before its handler has finished.
    fn abort(&mut self, index: usize) -> Option<Deferred> {
        let slot = &mut self.all[index];
        quietly(|| slot.future.set(None));
        self.finish(index)
    }
}

impl<C, H, F, S> Slots<C, H, F, S>
where
    C: Codec,
    H: AsyncHandler<C>,
    F: Future<Output = Option<H::Reply>>,
    S: Fn(Arc<Job<C, H>>) -> F,
{
    /// Drops the request of a slot.
    fn drop_request<G: Gate>(
        &mut self,
        index: usize,
        core: &mut ServerCore<C, (), G>,
        now: Timestamp,
        reason: DropReason,
    ) {
        if let Some(deferred) = self.abort(index) {
            core.drop_deferred(now, deferred, reason);
        }
    }

    /// Polls the handler of a slot, and begins with it if it has not.
    fn poll<G: Gate>(
        &mut self,
        index: usize,
        core: &mut ServerCore<C, (), G>,
        now: Timestamp,
        outbox: &mut Outbox,
    ) -> Poll<()> {
        let slot = &mut self.all[index];
        if slot
            .request
            .as_ref()
            .is_none_or(|request| request.is_waiting_for_turn)
        {
            // A late wake-up, of a request that is over, or one before its turn.
            return Poll::Ready(());
        }
        let mut cx = task::Context::from_waker(&slot.waker);
        let polled = panic::catch_unwind(AssertUnwindSafe(|| {
            if slot.future.is_none() {
                slot.future.set(Some((self.start)(Arc::clone(&slot.job))));
            }
            let future = slot.future.as_mut().as_pin_mut();
            future.expect("it was set above").poll(&mut cx)
        }));
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(answer)) => {
                quietly(|| slot.future.set(None));
                let deferred = self.finish(index);
                let bytes = &self.all[index].job.bytes;
                match (deferred, answer) {
                    (Some(deferred), Some(answer)) => {
                        core.answer_deferred(now, deferred, bytes, outbox, |reply| {
                            answer.reply(reply)
                        });
                    }
                    (Some(deferred), None) => {
                        core.drop_deferred(now, deferred, DropReason::Malformed);
                    }
                    (None, _) => {}
                }
            }
            Err(payload) => {
                drop_quietly(payload);
                self.drop_request(index, core, now, DropReason::HandlerPanicked);
            }
        }
        Poll::Ready(())
    }

    /// Polls what was woken.
    fn poll_woken<G: Gate>(&mut self, core: &mut ServerCore<C, (), G>, turn: &mut Turn<'_, '_>) {
        if self
            .task
            .as_ref()
            .is_none_or(|task| !task.will_wake(turn.cx.waker()))
        {
            self.wakes.register(turn.cx.waker());
            self.task = Some(turn.cx.waker().clone());
        }
        if self.woken.is_empty() {
            self.wakes.drain(&mut self.woken);
            self.woken.reverse();
        }
        if self.woken.is_empty() {
            return;
        }
        turn.read_clock();
        while !self.woken.is_empty() && turn.goes_on() {
            let Some(index) = self.woken.pop() else { break };
            let _ = self.poll(index as usize, core, turn.now, turn.outbox);
        }
    }

    /// Takes requests out of the inbox, as long as there are slots for them.
    fn begin_received<G: Gate>(
        &mut self,
        core: &mut ServerCore<C, (), G>,
        turn: &mut Turn<'_, '_>,
    ) {
        while !turn.inbox.is_empty() {
            if !turn.goes_on() {
                turn.has_more = true;
                return;
            }
            let Some(index) = self.take_free() else {
                if self.config.when_full == WhenFull::Wait {
                    return;
                }
                let mut unused = Vec::new();
                if let Some(deferred) = core.defer_next(
                    turn.received,
                    turn.now,
                    turn.inbox,
                    turn.outbox,
                    &mut unused,
                ) {
                    core.drop_deferred(turn.now, deferred, DropReason::Overloaded);
                }
                continue;
            };
            let (received, now) = (turn.received, turn.now);
            let job = self.job(index);
            if job.bytes.capacity() > KEPT_BYTES {
                job.bytes = Vec::new();
            }
            job.deferred = core.defer_next(received, now, turn.inbox, turn.outbox, &mut job.bytes);
            let Some(deferred) = &job.deferred else {
                self.free.push(name(index));
                // The outbox may be full of rejections.
                turn.has_more |= !turn.inbox.is_empty();
                return;
            };
            let peer = deferred.context().peer;
            // It may have waited for a slot.
            let waited = turn.now.monotonic.saturating_sub(received.monotonic);
            let left = self.config.handler_timeout.saturating_sub(waited);
            if left.is_zero() {
                self.free.push(name(index));
                if let Some(deferred) = self.job(index).deferred.take() {
                    core.drop_deferred(turn.now, deferred, DropReason::HandlerTimedOut);
                }
                continue;
            }
            let deadline = turn.instant().checked_add(left);
            self.begin(index, deadline);
            if let Some(newest) = &mut self.newest
                && let Some(before) = newest.insert(peer, name(index))
            {
                self.request(before).next_of_peer = Some(name(index));
                self.request(name(index)).is_waiting_for_turn = true;
                continue;
            }
            let _ = self.poll(index, core, turn.now, turn.outbox);
        }
    }
}

impl<C, H, G, F, S> Work<C, (), G> for Slots<C, H, F, S>
where
    C: Codec,
    H: AsyncHandler<C>,
    G: Gate,
    F: Future<Output = Option<H::Reply>>,
    S: Fn(Arc<Job<C, H>>) -> F,
{
    fn run(&mut self, core: &mut ServerCore<C, (), G>, turn: &mut Turn<'_, '_>) {
        // Neither half starves the other where there is more to do than a turn takes.
        if self.received_first {
            self.begin_received(core, turn);
            self.poll_woken(core, turn);
        } else {
            self.poll_woken(core, turn);
            self.begin_received(core, turn);
        }
        // A request may have been the one that another one of its peer waited for.
        turn.has_more |= !self.woken.is_empty();
        self.received_first = turn.has_more && !self.received_first;
    }

    fn deadline(&self) -> Option<Instant> {
        self.oldest_deadline()
    }

    fn expire(&mut self, core: &mut ServerCore<C, (), G>, now: Timestamp, instant: Instant) {
        while self
            .oldest_deadline()
            .is_some_and(|deadline| deadline <= instant)
            && let Some(oldest) = self.by_age.oldest
        {
            self.drop_request(oldest as usize, core, now, DropReason::HandlerTimedOut);
        }
    }

    fn has_room(&self) -> bool {
        self.config.when_full == WhenFull::Drop
            || !self.free.is_empty()
            || self.all.len() < self.config.max_in_flight
    }

    fn is_idle(&self) -> bool {
        self.by_age.oldest.is_none()
    }

    fn cancel(
        &mut self,
        core: &mut ServerCore<C, (), G>,
        now: Timestamp,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
    ) -> bool {
        while let Some(oldest) = self.by_age.oldest {
            self.drop_request(oldest as usize, core, now, DropReason::Cancelled);
        }
        let mut unused = Vec::new();
        while let Some(deferred) = core.defer_next(now, now, inbox, outbox, &mut unused) {
            core.drop_deferred(now, deferred, DropReason::Cancelled);
        }
        !inbox.is_empty()
    }
}

impl<C, H> Job<C, H> {
    fn new(env: &Arc<Env<C, H>>) -> Self {
        Self {
            env: Arc::clone(env),
            bytes: Vec::new(),
            deferred: None,
        }
    }
}

/// A slot's number as it is kept in lists.
#[expect(
    clippy::cast_possible_truncation,
    reason = "there are 2^20 slots at most"
)]
fn name(index: usize) -> u32 {
    index as u32
}

/// How large a request's buffer is kept, in bytes: few requests are larger, and a peer that sends
/// some must not make every slot keep 64 KiB.
const KEPT_BYTES: usize = 2_048;
