use std::io;
use std::net::SocketAddr;

use super::clock::Storm;
use super::{SimNet, lock};
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox, SendReport, Transport, Wait};

/// An endpoint of a [`SimNet`]. Dropping it frees its address.
///
/// ```
/// use rejoinder::sim::SimNet;
/// use rejoinder::transport::Inbox;
/// use rejoinder::{Transport, Wait};
///
/// let net = SimNet::new();
/// let mut endpoint = net.bind("10.0.0.1:0".parse()?)?;
/// assert_eq!(endpoint.local_addr()?, "10.0.0.1:49152".parse()?);
/// // Nobody sends anything, so there is nothing to wait for.
/// let error = endpoint
///     .recv(&mut Inbox::new(1, 512), Wait::Forever)
///     .unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::Deadlock);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SimTransport {
    pub(super) net: SimNet,
    pub(super) addr: SocketAddr,
}

impl Transport for SimTransport {
    /// Waiting [for ever](Wait::Forever) while nothing is in flight would never end: it is an
    /// error of the kind [`Deadlock`](io::ErrorKind::Deadlock).
    ///
    /// # Panics
    ///
    /// As [`SimNet::advance`] does.
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let end = lock(&self.net.state).end_of(wait);
        let mut received = 0;
        let mut storm = Storm::default();
        loop {
            let mut state = lock(&self.net.state);
            received += state.receive(self.addr, inbox, received > 0)?;
            // What arrives at the same moment still belongs to the batch.
            let end = if received > 0 { state.elapsed } else { end };
            drop(state);
            if received > 0 && !inbox.has_space() {
                return Ok(received);
            }
            if !self.net.step(end) {
                if received == 0 {
                    self.net.wait_in_vain(wait, end)?;
                }
                return Ok(received);
            }
            storm.watch(&self.net);
        }
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        lock(&self.net.state).send(self.addr, outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        let mut state = lock(&self.net.state);
        state.endpoints.remove(&self.addr);
        #[cfg(feature = "tokio")]
        state.close_task(self.addr);
        state
            .ports
            .entry(self.addr.ip())
            .or_default()
            .give_back(self.addr.port());
    }
}
