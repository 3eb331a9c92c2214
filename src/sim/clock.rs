//! Virtual time, which passes from one arrival to the next.

use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};

use super::state::Endpoint;
use super::{SimNet, lock};
use crate::timestamp::Timestamp;
use crate::transport::Wait;

impl SimNet {
    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        lock(&self.state).now()
    }

    /// Lets time pass: whatever is due meanwhile arrives.
    ///
    /// # Panics
    ///
    /// If 250,000 datagrams arrive at one moment, because nodes answer each other without end
    /// and without latency.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.advance(Duration::from_secs(86_400)); // takes no time
    /// assert_eq!(net.now().monotonic, Duration::from_secs(86_400));
    /// ```
    pub fn advance(&self, time: Duration) {
        let end = lock(&self.state).elapsed.saturating_add(time);
        let mut storm = Storm::default();
        while self.step(end) {
            storm.watch(self);
        }
        lock(&self.state).pass_until(end);
    }

    /// Sets the wall clock, forwards or back, as an administrator or NTP does. It goes on from
    /// there; the monotonic clock does not notice.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let net = SimNet::new();
    /// net.set_wall_clock(SystemTime::UNIX_EPOCH);
    /// net.advance(Duration::from_secs(1));
    /// assert_eq!(
    ///     net.now().wall,
    ///     SystemTime::UNIX_EPOCH + Duration::from_secs(1)
    /// );
    /// ```
    pub fn set_wall_clock(&self, wall: SystemTime) {
        let mut state = lock(&self.state);
        state.wall = wall;
        state.wall_set = state.elapsed;
    }

    /// Lets the next datagram arrive, if it does so by `end`. Returns whether one did.
    pub(super) fn step(&self, end: Duration) -> bool {
        let mut state = lock(&self.state);
        if state
            .in_flight
            .peek()
            .is_none_or(|Reverse(next)| next.due > end)
        {
            return false;
        }
        let Some(Reverse(flight)) = state.in_flight.pop() else {
            return false;
        };
        state.pass_until(flight.due);
        let now = state.now();
        let Some((mut host, flight)) = state.arrive(flight) else {
            return true;
        };
        // The node may use the network itself.
        drop(state);
        host.inbox.push(&flight.bytes, flight.meta());
        while !host.inbox.is_empty() {
            host.node.receive(now, &mut host.inbox, &mut host.outbox);
            let sent = lock(&self.state).send(flight.to, &host.outbox);
            host.node.on_sent(&sent);
            host.outbox.clear();
        }
        let mut state = lock(&self.state);
        state.recycle(flight.bytes);
        state
            .endpoints
            .insert(flight.to, Endpoint::Host(Some(host)));
        true
    }

    /// Ends a wait in which nothing came.
    pub(super) fn wait_in_vain(&self, wait: Wait, end: Duration) -> io::Result<()> {
        match wait {
            Wait::Forever => Err(io::Error::new(
                ErrorKind::Deadlock,
                "nothing is in flight, so this wait would never end",
            )),
            Wait::No | Wait::For(_) | Wait::Spin(_) => {
                lock(&self.state).pass_until(end);
                Ok(())
            }
        }
    }
}

/// Watches for nodes that answer each other without end, at one moment of time.
#[derive(Default)]
pub(super) struct Storm {
    moment: Duration,
    steps: u32,
}

impl Storm {
    pub(super) fn watch(&mut self, net: &SimNet) {
        let elapsed = lock(&net.state).elapsed;
        if elapsed != self.moment {
            self.moment = elapsed;
            self.steps = 0;
        }
        self.steps += 1;
        assert!(
            self.steps < STORM_DATAGRAMS,
            "250,000 datagrams arrived at one moment: do nodes answer each other without end?"
        );
    }
}

/// How many datagrams may arrive at one moment during one wait.
const STORM_DATAGRAMS: u32 = 250_000;
