use std::io;
use std::net::{IpAddr, SocketAddr};

use super::clock::Storm;
use super::{SimNet, SimTransport, lock};
use crate::timestamp::Timestamp;
use crate::transport::{Connect, Wait, canonical};

impl Connect for SimNet {
    type Transport = SimTransport;

    /// Opens an endpoint on a free port of [the machine](SimNet::from_host) that this handle stands for.
    /// Datagrams from others than the peer are delivered to it too, so that clients are seen to
    /// check.
    fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
        let peer = canonical(peer);
        let home = self.home.unwrap_or(match peer {
            SocketAddr::V4(_) => IpAddr::from([10, 255, 255, 254]),
            SocketAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xfffe]),
        });
        self.open(SocketAddr::new(home, 0), Some(peer))
    }

    fn now(&self) -> Timestamp {
        self.now()
    }

    /// Bytes that follow from the seed.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        for part in bytes.chunks_mut(8) {
            let word = state.entropy.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        Ok(())
    }

    fn wait_any(
        &self,
        transports: &[&SimTransport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let end = lock(&self.state).end_of(wait);
        let mut storm = Storm::default();
        loop {
            let state = lock(&self.state);
            let arrived = state.arrived;
            ready.extend(
                (0..transports.len()).filter(|&index| state.is_ready(transports[index].addr)),
            );
            drop(state);
            if !ready.is_empty() {
                return Ok(());
            }
            // What arrives at one moment is found together.
            let mut end_of_moment = end;
            while self.step(end_of_moment) {
                storm.watch(self);
                let state = lock(&self.state);
                if state.arrived != arrived {
                    end_of_moment = state.elapsed;
                }
            }
            if lock(&self.state).arrived == arrived {
                return self.wait_in_vain(wait, end);
            }
        }
    }
}
