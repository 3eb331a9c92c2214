use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Instant;

use super::worker::Place;
use crate::aio::alarm::Alarm;
use crate::aio::transport::AsyncTransport;
use crate::codec::Codec;
use crate::gate::Gate;
use crate::handler::MAX_RESPONSES;
use crate::sans_io::{ReceiveBackoff, ServerCore};
use crate::server::{
    BATCH, MAX_DRAIN_FAILURES, MAX_DRAINED, MAX_RESPONSES_PER_BATCH, Stats, WorkerConfig,
};
use crate::timestamp::Timestamp;
use crate::transport::{ErrorClass, Inbox, Outbox, SendReport};

/// One worker at work: a transport, its core, the batches between them and the handlers in flight.
///
/// Dropping it settles what is in flight, so that every datagram stays accounted for.
pub(super) struct Driver<T, C, H, G, W>
where
    T: AsyncTransport,
    C: Codec,
    G: Gate,
    W: Work<C, H, G>,
{
    transport: T,
    core: ServerCore<C, H, G>,
    work: W,
    inbox: Inbox,
    /// When the datagrams of the inbox were received.
    received: Timestamp,
    /// Whether the inbox has only what was just received, so that the time of that is still the time.
    is_fresh: bool,
    outbox: Outbox,
    /// What became of the outbox so far, while it is being sent.
    sending: Option<SendReport>,
    backoff: ReceiveBackoff,
    /// There is nothing to receive until then, after an error.
    paused_until: Option<Instant>,
    alarm: Alarm,
    grace: Duration,
    shutdown: Option<Shutdown>,
    /// The task that a shutdown wakes.
    task: Option<Waker>,
    place: Place,
}

/// How a worker ended.
pub(super) struct Ended {
    pub(super) stats: Stats,
    /// The transport's error, if the worker was not shut down.
    pub(super) gone: Option<io::Error>,
}

/// What becomes of the requests in an inbox.
pub(super) trait Work<C, H, G> {
    /// Does what can be done now. The outbox is empty.
    fn run(&mut self, core: &mut ServerCore<C, H, G>, turn: &mut Turn<'_, '_>);

    /// When a request in flight is to be dropped.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Drops the requests in flight whose time is over.
    fn expire(&mut self, _: &mut ServerCore<C, H, G>, _: Timestamp, _: Instant) {}

    /// Whether there is any use in receiving.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether no request is in flight.
    fn is_idle(&self) -> bool {
        true
    }

    /// Drops the requests in flight and those in the inbox. Returns whether some are left there, because
    /// the outbox is full of rejections.
    fn cancel(
        &mut self,
        _: &mut ServerCore<C, H, G>,
        _: Timestamp,
        _: &mut Inbox,
        _: &mut Outbox,
    ) -> bool {
        false
    }
}

/// One turn of the work.
pub(super) struct Turn<'a, 'cx> {
    pub(super) cx: &'a mut Context<'cx>,
    pub(super) clock: &'a dyn Fn() -> Timestamp,
    /// When the inbox was received.
    pub(super) received: Timestamp,
    /// The latest reading of the clock.
    pub(super) now: Timestamp,
    pub(super) inbox: &'a mut Inbox,
    pub(super) outbox: &'a mut Outbox,
    /// Whether the turn ends with work left.
    pub(super) has_more: bool,
    done: usize,
    begun: Option<Duration>,
    instant: Option<Instant>,
}

impl Turn<'_, '_> {
    /// Whether there is time and room for one more request.
    pub(super) fn goes_on(&mut self) -> bool {
        if self.done == REQUESTS_PER_TURN
            || !self.outbox.has_room_for(MAX_RESPONSES)
            || !coop::has_budget_remaining()
        {
            return false;
        }
        // Responses do not wait for slow neighbours. A batch of one never reads the clock.
        if self.done.is_power_of_two()
            || self.done > 0 && self.done.is_multiple_of(UNTIMED_REQUESTS)
        {
            self.now = (self.clock)();
            let begun = *self.begun.get_or_insert(self.now.monotonic);
            if self.now.monotonic.saturating_sub(begun) >= FLUSH_AFTER {
                return false;
            }
        }
        self.done += 1;
        true
    }

    /// Reads the clock, for requests that were received in an earlier turn.
    pub(super) fn read_clock(&mut self) {
        self.now = (self.clock)();
        self.begun = Some(self.now.monotonic);
    }

    /// The time by tokio's clock, read once in a turn.
    pub(super) fn instant(&mut self) -> Instant {
        *self.instant.get_or_insert_with(Instant::now)
    }
}

struct Shutdown {
    /// When the requests in flight are dropped.
    grace_until: Option<Instant>,
    /// How many datagrams arrived before and were received since.
    received: usize,
    is_drained: bool,
}

impl<T, C, H, G, W> Driver<T, C, H, G, W>
where
    T: AsyncTransport,
    C: Codec,
    G: Gate,
    W: Work<C, H, G>,
{
    pub(super) fn new(
        transport: T,
        core: ServerCore<C, H, G>,
        work: W,
        config: WorkerConfig,
        place: Place,
    ) -> Self {
        Self {
            inbox: Inbox::new(BATCH, config.max_received_bytes()),
            received: transport.now(),
            is_fresh: true,
            outbox: Outbox::new(MAX_RESPONSES_PER_BATCH, config.max_response_bytes),
            sending: None,
            backoff: ReceiveBackoff::new(),
            paused_until: None,
            alarm: Alarm::new(),
            grace: config.aio.grace,
            shutdown: None,
            task: None,
            transport,
            core,
            work,
            place,
        }
    }

    /// Serves until there is nothing to do, and has registered what there may be to do next.
    ///
    /// After some hundred requests it lets other tasks have a turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.watch_shutdown(cx.waker());
        let mut left = REQUESTS_PER_POLL;
        loop {
            match self.step(cx, &mut left) {
                Step::Busy if left > 0 => continue,
                Step::Busy => cx.waker().wake_by_ref(),
                Step::Idle => {}
                Step::End(gone) => return Poll::Ready(self.end(gone)),
            }
            if !self.poll_deadlines(cx) {
                return Poll::Pending;
            }
            if self.is_grace_over() {
                return Poll::Ready(self.end(None));
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Step {
        if self.poll_flush(cx).is_pending() {
            return Step::Idle;
        }
        let waiting = self.inbox.len();
        let has_more = self.run(cx);
        if !self.outbox.is_empty() {
            self.sending = Some(SendReport::default());
        }
        let flushed = self.poll_flush(cx);
        self.place.shared.publish(self.place.index, &self.core);
        if flushed.is_pending() {
            return Step::Idle;
        }
        *left = if has_more {
            0
        } else {
            left.saturating_sub(1 + waiting - self.inbox.len())
        };
        if *left == 0 {
            return Step::Busy;
        }
        match self.poll_recv(cx) {
            Poll::Ready(Ok(())) => Step::Busy,
            Poll::Ready(Err(gone)) => Step::End(Some(gone)),
            Poll::Pending => {
                let is_drained = self.shutdown.as_ref().is_some_and(|one| one.is_drained);
                if is_drained && self.inbox.is_empty() && self.work.is_idle() {
                    Step::End(None)
                } else {
                    Step::Idle
                }
            }
        }
    }

    /// Runs the handlers. Returns whether there is work left.
    fn run(&mut self, cx: &mut Context<'_>) -> bool {
        let transport = &self.transport;
        let mut turn = Turn {
            cx,
            clock: &|| transport.now(),
            received: self.received,
            now: if self.is_fresh {
                self.received
            } else {
                transport.now()
            },
            inbox: &mut self.inbox,
            outbox: &mut self.outbox,
            has_more: false,
            done: 0,
            begun: None,
            instant: None,
        };
        self.work.run(&mut self.core, &mut turn);
        let has_more = turn.has_more;
        self.is_fresh = self.inbox.is_empty();
        has_more
    }

    /// Receives, if there is any use in it: `Pending` also means that there is none. An error is that
    /// of a transport that is gone.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.inbox.is_empty() || !self.work.has_room() || self.paused_until.is_some() {
            return Poll::Pending;
        }
        let received = match &mut self.shutdown {
            None => ready!(self.transport.poll_recv(cx, &mut self.inbox)),
            Some(shutdown) if shutdown.is_drained => return Poll::Pending,
            Some(shutdown) => {
                let received = self.transport.try_recv(&mut self.inbox);
                shutdown.received += *received.as_ref().unwrap_or(&0);
                shutdown.is_drained = matches!(received, Ok(0)) || shutdown.received >= MAX_DRAINED;
                received
            }
        };
        self.received = self.transport.now();
        self.is_fresh = true;
        self.core.set_kernel_drops(self.transport.kernel_drops());
        match received {
            Ok(_) => self.backoff.reset(),
            Err(error) => {
                self.core.on_receive_error(self.received, &error);
                let class = ErrorClass::classify_receive(&error);
                if class == ErrorClass::Gone {
                    return Poll::Ready(Err(error));
                }
                let pause = self.backoff.pause_after(class);
                match &mut self.shutdown {
                    Some(shutdown) => {
                        shutdown.is_drained |= self.backoff.errors() >= MAX_DRAIN_FAILURES;
                    }
                    None if pause.is_zero() => {}
                    None => self.paused_until = Some(Instant::now() + pause),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is left of the outbox.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(report) = &mut self.sending {
            ready!(self.transport.poll_send(cx, &self.outbox, report));
            self.core.on_sent(report);
            self.outbox.clear();
            self.sending = None;
        }
        Poll::Ready(())
    }

    /// Does what is due, if anything is. Otherwise the task will be woken when something is.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> bool {
        let grace = self.shutdown.as_ref().and_then(|one| one.grace_until);
        let all = [self.work.deadline(), self.paused_until, grace];
        let Some(next) = all.into_iter().flatten().min() else {
            return false;
        };
        if !self.alarm.poll(cx, next) {
            return false;
        }
        let instant = Instant::now();
        self.work
            .expire(&mut self.core, self.transport.now(), instant);
        self.paused_until = self.paused_until.filter(|&until| until > instant);
        true
    }

    /// Notes a shutdown, and has it wake this task.
    fn watch_shutdown(&mut self, task: &Waker) {
        let shared = &self.place.shared;
        if !self
            .task
            .as_ref()
            .is_some_and(|known| known.will_wake(task))
        {
            shared.wake_on_shutdown(self.place.index, task);
            self.task = Some(task.clone());
        }
        if self.shutdown.is_none() && shared.is_shutdown() {
            self.shutdown = Some(Shutdown {
                grace_until: Instant::now().checked_add(self.grace),
                received: 0,
                is_drained: false,
            });
            self.paused_until = None;
        }
    }

    /// Whether the requests in flight have to be given up. What has arrived is answered first, as far
    /// as there are slots.
    fn is_grace_over(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| {
            let is_over = shutdown
                .grace_until
                .is_some_and(|until| until <= Instant::now());
            let is_answered = shutdown.is_drained && self.inbox.is_empty();
            is_over && (is_answered || !self.work.has_room() || self.sending.is_some())
        })
    }

    fn end(&mut self, gone: Option<io::Error>) -> Ended {
        self.settle();
        if gone.is_some() {
            self.place.shared.shut_down();
        }
        Ended {
            stats: self.core.stats(),
            gone,
        }
    }

    /// Accounts for everything that is in flight.
    fn settle(&mut self) {
        let now = self.transport.now();
        let mut has_more = true;
        while has_more {
            has_more = self
                .work
                .cancel(&mut self.core, now, &mut self.inbox, &mut self.outbox);
            // What has not left is lost.
            let mut report = self.sending.take().unwrap_or_default();
            for _ in report.sent + report.failed..self.outbox.len() {
                report.record_failure(io::ErrorKind::WouldBlock.into());
            }
            self.core.on_sent(&report);
            self.outbox.clear();
        }
        self.place.shared.publish(self.place.index, &self.core);
    }
}

impl<T, C, H, G, W> Drop for Driver<T, C, H, G, W>
where
    T: AsyncTransport,
    C: Codec,
    G: Gate,
    W: Work<C, H, G>,
{
    fn drop(&mut self) {
        self.settle();
    }
}

/// What one step came to.
enum Step {
    /// There may be more to do at once.
    Busy,
    /// What there may be to do next wakes the task.
    Idle,
    End(Option<io::Error>),
}

/// How many requests are handled before other tasks have a turn. On a runtime of one thread, tokio looks
/// at timers and sockets after every 61st task only, so this many times 61 requests can be between.
const REQUESTS_PER_POLL: usize = 256;
/// How many handlers are polled between two sends.
const REQUESTS_PER_TURN: usize = 256;
/// How long the first responses of a turn may wait for the others.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// The most handlers that are polled between two readings of the clock.
const UNTIMED_REQUESTS: usize = 64;
