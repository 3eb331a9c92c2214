//! Tasks that wait for a network which follows tokio's clock.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Storm;
use super::endpoint::SimTransport;
use super::state::State;
use super::{SimNet, lock};
use crate::transport::{Inbox, Outbox, SendReport};

/// What a network knows about tasks.
#[derive(Default)]
pub(super) struct Tasks {
    /// A moment by tokio's clock, and what the time in the network was then.
    began: Option<(Instant, Duration)>,
    /// Who waits, in the order of addresses: they are woken in the same order in every run.
    waiting: BTreeMap<SocketAddr, Waker>,
}

impl SimNet {
    /// Lets time pass to what it is by tokio's clock: whatever is due arrives.
    pub(crate) fn catch_up(&self) {
        let end = {
            let mut state = lock(&self.state);
            let (instant, elapsed) = state.began();
            elapsed.saturating_add(Instant::now().saturating_duration_since(instant))
        };
        let mut storm = Storm::default();
        let mut any = false;
        while self.step(end) {
            storm.watch(self);
            any = true;
        }
        let mut state = lock(&self.state);
        state.pass_until(end);
        if any {
            // Something arrived for some of them, or a node has answered, so that something else is due
            // next.
            state.wake_all();
        }
    }
}

impl SimTransport {
    pub(crate) fn net(&self) -> &SimNet {
        &self.net
    }

    /// Receives what has arrived, as tokio's clock has it.
    pub(crate) fn receive_arrived(&self, inbox: &mut Inbox) -> std::io::Result<usize> {
        self.net.catch_up();
        lock(&self.net.state).receive(self.addr, inbox, false)
    }

    /// Has a task woken by an arrival at this endpoint, or when it has to look again for another reason.
    /// Returns when something arrives next, wherever that is: the task catches up then.
    pub(crate) fn wait(&self, task: &Waker) -> Option<Instant> {
        let mut state = lock(&self.net.state);
        state.tasks.waiting.insert(self.addr, task.clone());
        let (instant, elapsed) = state.began();
        let Reverse(next) = state.in_flight.peek()?;
        instant.checked_add(next.due.saturating_sub(elapsed))
    }

    pub(crate) fn launch(&self, outbox: &Outbox) -> SendReport {
        self.net.catch_up();
        let mut state = lock(&self.net.state);
        let due = |state: &State| state.in_flight.peek().map(|Reverse(next)| next.due);
        let before = due(&state);
        let report = state.send(self.addr, outbox);
        // Those who wait have their timers set to what was due next.
        if before.is_none_or(|before| due(&state).is_some_and(|due| due < before)) {
            state.wake_all();
        }
        report
    }
}

impl State {
    fn began(&mut self) -> (Instant, Duration) {
        *self
            .tasks
            .began
            .get_or_insert_with(|| (Instant::now(), self.elapsed))
    }

    /// Those who wait look again when the next datagram is due.
    pub(super) fn wake_all(&mut self) {
        for task in std::mem::take(&mut self.tasks.waiting).into_values() {
            task.wake();
        }
    }

    /// Forgets an endpoint that is closed, whose timer the others may have counted on.
    pub(super) fn close_task(&mut self, addr: SocketAddr) {
        if self.tasks.waiting.remove(&addr).is_some() {
            self.wake_all();
        }
    }
}
