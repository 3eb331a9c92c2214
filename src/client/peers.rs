use std::net::SocketAddr;

use crate::transport::canonical;

/// The addresses of a server, and which of them is asked. There is at least one.
#[derive(Debug)]
pub(super) struct Peers {
    addrs: Vec<SocketAddr>,
    preferred: usize,
}

impl Peers {
    /// Each address counts once.
    pub(super) fn new(first: SocketAddr, others: &[SocketAddr]) -> Self {
        let mut addrs = vec![canonical(first)];
        for &other in others {
            if !addrs.contains(&canonical(other)) {
                addrs.push(canonical(other));
            }
        }
        Self {
            addrs,
            preferred: 0,
        }
    }

    /// Takes other addresses, and prefers the same as before if it is among them.
    pub(super) fn replace(&mut self, first: SocketAddr, others: &[SocketAddr]) {
        let preferred = self.preferred();
        *self = Self::new(first, others);
        let place = self.addrs.iter().position(|&addr| addr == preferred);
        self.preferred = place.unwrap_or(0);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.addrs.iter().copied()
    }

    pub(super) fn contains(&self, peer: SocketAddr) -> bool {
        self.addrs.contains(&peer)
    }

    pub(super) fn count(&self) -> usize {
        self.addrs.len()
    }

    /// The one that is asked next.
    pub(super) fn preferred(&self) -> SocketAddr {
        self.addrs[self.preferred]
    }

    /// Prefers the next one, unless this one is not preferred any more.
    pub(super) fn give_up(&mut self, peer: SocketAddr) {
        if peer == self.preferred() {
            self.preferred = (self.preferred + 1) % self.addrs.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::Peers;

    #[test]
    fn each_address_has_its_turn() {
        let [one, other, mapped]: [SocketAddr; 3] =
            ["192.0.2.1:7", "[2001:db8::1]:7", "[::ffff:192.0.2.1]:7"]
                .map(|addr| addr.parse().unwrap_or_else(|_| unreachable!()));
        let mut peers = Peers::new(one, &[mapped, other, other]);
        assert_eq!((peers.count(), peers.preferred()), (2, one));
        peers.give_up(other);
        assert_eq!(peers.preferred(), one);
        peers.give_up(one);
        assert_eq!(peers.preferred(), other);
        peers.give_up(one);
        assert_eq!(peers.preferred(), other);
        peers.give_up(other);
        assert_eq!(peers.preferred(), one);
    }

    #[test]
    fn the_preferred_address_stays_so_among_others() {
        let [one, two, three]: [SocketAddr; 3] = ["192.0.2.1:7", "192.0.2.2:7", "192.0.2.3:7"]
            .map(|addr| addr.parse().unwrap_or_else(|_| unreachable!()));
        let mut peers = Peers::new(one, &[]);
        peers.replace(two, &[three, one]);
        assert_eq!((peers.count(), peers.preferred()), (3, one));
        peers.replace(two, &[three]);
        assert_eq!((peers.count(), peers.preferred()), (2, two));
        assert!(peers.contains(three) && !peers.contains(one));
    }
}
