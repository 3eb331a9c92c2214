use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use crate::transport::canonical;

/// Who responded to a request to a group, and the responses that were not collected yet. Both are bounded.
#[derive(Debug)]
pub(super) struct Responders {
    /// Those whose response was accepted.
    seen: HashSet<SocketAddr>,
    max_peers: usize,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    /// How many bytes the queue holds.
    bytes: usize,
    max_bytes: usize,
}

impl Responders {
    pub(super) fn new(max_peers: usize, max_bytes: usize) -> Self {
        Self {
            seen: HashSet::new(),
            max_peers,
            queue: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Queues a response. Returns `false` if the peer has responded before, or there is no room for it.
    pub(super) fn add(&mut self, peer: SocketAddr, response: &[u8]) -> bool {
        let has_room = self.seen.len() < self.max_peers
            && response.len() <= self.max_bytes.saturating_sub(self.bytes);
        if !has_room || !self.seen.insert(canonical(peer)) {
            return false;
        }
        self.bytes += response.len();
        self.queue.push_back((canonical(peer), response.to_vec()));
        true
    }

    /// Gives out the oldest response.
    pub(super) fn pop(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let (peer, response) = self.queue.pop_front()?;
        self.bytes -= response.len();
        Some((peer, response))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::Responders;

    fn peer(number: u8) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, number), 7).into()
    }

    #[test]
    fn each_peer_counts_once_however_its_address_is_written() {
        let mut responders = Responders::new(8, 100);
        assert!(responders.add(peer(1), b"one"));
        assert!(!responders.add(peer(1), b"another"));
        let mapped = "[::ffff:192.0.2.1]:7".parse();
        assert!(!responders.add(mapped.unwrap_or(peer(1)), b"a third"));
        assert!(responders.add(peer(2), b"two"));
        assert_eq!(responders.pop(), Some((peer(1), b"one".to_vec())));
        // Also after its response was collected.
        assert!(!responders.add(peer(1), b"a fourth"));
        assert_eq!(responders.pop(), Some((peer(2), b"two".to_vec())));
        assert!(responders.is_empty());
    }

    #[test]
    fn peers_and_bytes_have_bounds() {
        let mut responders = Responders::new(3, 10);
        assert!(responders.add(peer(1), &[0; 6]));
        assert!(!responders.add(peer(2), &[0; 5]));
        assert!(responders.add(peer(2), &[0; 4]));
        // Room for bytes comes with collecting; a peer that was refused for want of it can try again.
        responders.pop();
        assert!(!responders.add(peer(3), &[0; 7]));
        assert!(responders.add(peer(3), &[0; 6]));
        responders.pop();
        assert!(!responders.add(peer(4), &[]));
    }
}
