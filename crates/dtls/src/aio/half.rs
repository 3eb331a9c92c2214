//! What an async transport of either role does, and the timer that it needs.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rejoinder::aio::AsyncTransport;
use rejoinder::transport::Inbox;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::driver::{Driver, Machine};

/// What both roles do alike.
pub(super) trait Half {
    type Inner: AsyncTransport;
    type Machine: Machine;

    fn parts(&mut self) -> (&mut Self::Inner, &mut Driver<Self::Machine>, &mut Alarm);

    /// Sends what the machine has queued, if it may be sent now.
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Works through what was received, as far as the inbox and the replies have room.
    fn deliver(&mut self, inbox: &mut Inbox) -> usize {
        let (inner, driver, _) = self.parts();
        let now = inner.now();
        let mut delivered = 0;
        while driver.has_room() && driver.step(now, inbox, &mut delivered) {}
        delivered
    }

    fn try_receive(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        let cx = &mut Context::from_waker(Waker::noop());
        if self.poll_queued(cx).is_pending() {
            return Ok(0);
        }
        let mut delivered = self.deliver(inbox);
        let mut received = Ok(0);
        let (inner, driver, _) = self.parts();
        if delivered == 0 && driver.raw.is_empty() {
            received = inner.try_recv(&mut driver.raw);
            delivered = self.deliver(inbox);
        }
        let _ = self.poll_queued(cx);
        received.map(|_| delivered)
    }

    /// Waits for the transport inside, or for the machine's timer.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (inner, driver, alarm) = self.parts();
        if let Poll::Ready(received) = inner.poll_recv(cx, &mut driver.raw) {
            return Poll::Ready(received.map(drop));
        }
        let timer = driver.machine.next_timer();
        let now = inner.now().monotonic;
        if alarm.is_over(cx, now, timer) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// One timer, which is set again only when it has to fire earlier.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Alarm {
    /// Whether the timer of a clock that reads `now` is over, or the alarm went off, perhaps too early.
    /// If not, the task is woken then.
    pub(super) fn is_over(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        timer: Option<Duration>,
    ) -> bool {
        let Some(timer) = timer else {
            return false;
        };
        let at = Instant::now() + timer.saturating_sub(now);
        if self.at.is_none_or(|set| at < set) {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(at),
                None => self.sleep = Some(Box::pin(sleep_until(at))),
            }
            self.at = Some(at);
        }
        let sleep = self.sleep.as_mut().expect("it was set above");
        // What else the task does may use up its budget, and must not stop the clock.
        let is_over = pin!(coop::unconstrained(sleep)).poll(cx).is_ready();
        if is_over {
            self.at = None;
        }
        is_over
    }
}
