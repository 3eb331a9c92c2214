use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Which client each flow of a proxy belongs to: a table of fixed size, the oldest flow out first.
#[derive(Clone)]
pub(super) struct Flows {
    /// How long a flow is remembered after its latest datagram.
    lifetime: Duration,
    capacity: usize,
    /// In the order in which they came, as a ring.
    ring: Vec<Flow>,
    oldest: usize,
    by_source: HashMap<SocketAddr, usize>,
}

/// An address of a proxy, and by which [association](crate::transport::Meta::association) it sends, or 0.
pub(super) type Source = (SocketAddr, u32);

#[derive(Clone, Copy)]
pub(super) struct Flow {
    source: SocketAddr,
    /// By which association the header came: another one from the same address is another proxy.
    association: u32,
    /// `None` for the proxy's own.
    pub(super) client: Option<SocketAddr>,
    seen: Duration,
}

impl Flows {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        Self {
            lifetime,
            capacity,
            ring: Vec::with_capacity(capacity),
            oldest: 0,
            // Twice what it ever holds: so it clears the traces of removed keys in place, and never
            // grows.
            by_source: HashMap::with_capacity(2 * capacity),
        }
    }

    /// Notes a flow's client, which replaces the one before.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        (source, association): Source,
        client: Option<SocketAddr>,
    ) {
        let flow = Flow {
            source,
            association,
            client,
            seen: now,
        };
        if let Some(&at) = self.by_source.get(&source) {
            self.ring[at] = flow;
            return;
        }
        let at = if self.ring.len() < self.capacity {
            self.ring.push(flow);
            self.ring.len() - 1
        } else {
            let at = self.oldest;
            self.oldest = (at + 1) % self.capacity;
            self.by_source.remove(&self.ring[at].source);
            self.ring[at] = flow;
            at
        };
        self.by_source.insert(source, at);
    }

    /// Whether a flow is remembered and belongs to a client. It does not count as a use of the flow.
    pub(super) fn has_client(&self, now: Duration, (source, association): Source) -> bool {
        self.by_source.get(&source).is_some_and(|&at| {
            let flow = &self.ring[at];
            flow.client.is_some()
                && flow.association == association
                && now.saturating_sub(flow.seen) <= self.lifetime
        })
    }

    /// A flow that is remembered.
    pub(super) fn find(&mut self, now: Duration, (source, association): Source) -> Option<Flow> {
        let flow = &mut self.ring[*self.by_source.get(&source)?];
        let is_over = now.saturating_sub(flow.seen) > self.lifetime;
        if is_over || flow.association != association {
            return None;
        }
        flow.seen = now;
        Some(*flow)
    }
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows")
            .field("len", &self.by_source.len())
            .field("capacity", &self.capacity)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(
    clippy::option_option,
    reason = "a flow may be unknown, or have no client"
)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::Flows;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn client(flows: &mut Flows, now: Duration, source: SocketAddr) -> Option<Option<SocketAddr>> {
        flows.find(now, (source, 0)).map(|flow| flow.client)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_flow_is_remembered_while_it_is_used_and_the_oldest_goes_first() {
        let mut flows = Flows::new(2, 10 * SECOND);
        flows.begin(Duration::ZERO, (addr(1), 0), Some(addr(101)));
        flows.begin(Duration::ZERO, (addr(2), 0), None);
        assert_eq!(
            client(&mut flows, 9 * SECOND, addr(1)),
            Some(Some(addr(101)))
        );
        assert_eq!(
            client(&mut flows, 19 * SECOND, addr(1)),
            Some(Some(addr(101)))
        );
        assert_eq!(
            client(&mut flows, 11 * SECOND, addr(2)),
            None,
            "its time is over"
        );
        assert_eq!(client(&mut flows, SECOND, addr(2)), Some(None));

        flows.begin(20 * SECOND, (addr(3), 0), Some(addr(103)));
        assert_eq!(
            client(&mut flows, 20 * SECOND, addr(1)),
            None,
            "its place is taken"
        );
        // A header for a flow that is known replaces its client and takes no place.
        flows.begin(20 * SECOND, (addr(3), 0), Some(addr(104)));
        assert_eq!(
            client(&mut flows, 20 * SECOND, addr(3)),
            Some(Some(addr(104)))
        );
        assert_eq!(client(&mut flows, SECOND, addr(2)), Some(None));
    }

    #[test]
    fn another_association_of_the_same_address_does_not_inherit_the_client() {
        let mut flows = Flows::new(2, 10 * SECOND);
        flows.begin(Duration::ZERO, (addr(1), 5), Some(addr(101)));
        assert!(flows.find(SECOND, (addr(1), 5)).is_some());
        assert!(flows.find(SECOND, (addr(1), 6)).is_none());
        flows.begin(2 * SECOND, (addr(1), 6), Some(addr(102)));
        let client = |flow: super::Flow| flow.client;
        assert_eq!(
            flows.find(2 * SECOND, (addr(1), 6)).map(client),
            Some(Some(addr(102)))
        );
        assert!(flows.find(2 * SECOND, (addr(1), 5)).is_none());
    }

    #[test]
    fn the_table_never_grows() {
        let mut flows = Flows::new(64, SECOND);
        let room = (flows.ring.capacity(), flows.by_source.capacity());
        for port in 1..10_000 {
            flows.begin(Duration::ZERO, (addr(port), 0), Some(addr(port)));
            assert!(flows.by_source.len() <= 64);
            // What a map says of its room shrinks while places of removed entries are not free yet.
            assert_eq!(flows.ring.capacity(), room.0);
            assert!(flows.by_source.capacity() <= room.1);
        }
    }
}
