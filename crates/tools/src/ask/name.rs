//! The name of a server: when it is resolved again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::program::lookup::{Lookup, Resolve};

/// The server's name, whose addresses may change.
pub(super) struct Name {
    resolve: Resolve,
    /// One that has no result yet, and when it began: no other is started meanwhile.
    lookup: Option<(Instant, Lookup)>,
    /// When it was resolved, unless a request was answered since then.
    pub(super) resolved: Option<Instant>,
    /// Whether the last request failed.
    pub(super) is_doubtful: bool,
}

impl Name {
    /// A name that was resolved just now.
    pub(super) fn new(resolve: Resolve) -> Self {
        Self {
            resolve,
            lookup: None,
            resolved: Some(Instant::now()),
            is_doubtful: false,
        }
    }

    /// When it may be resolved again.
    pub(super) fn earliest(&self, timeout: Duration) -> Option<Instant> {
        Some(self.resolved? + pause(timeout))
    }

    /// When it is to be resolved again for a request that begins now, unless that is answered before.
    pub(super) fn due(&self, begun: Instant, timeout: Duration) -> Instant {
        let due = if self.is_doubtful {
            begun
        } else {
            begun + pause(timeout)
        };
        self.earliest(timeout).map_or(due, |at| at.max(due))
    }

    /// The addresses, if the resolver finds them in this time, and when it was asked.
    pub(super) fn find(&mut self, time: Duration) -> Option<(Instant, Vec<SocketAddr>)> {
        let now = Instant::now();
        let (asked, lookup) = match self.lookup.take() {
            Some(pending) => pending,
            None => match Lookup::start(&self.resolve) {
                Ok(lookup) => (now, lookup),
                // Without a thread, the addresses stay as they are.
                Err(_) => return Some((now, Vec::new())),
            },
        };
        let Some(found) = lookup.wait(time) else {
            self.lookup = Some((asked, lookup));
            return None;
        };
        self.resolved = Some(asked);
        // A name that cannot be resolved any more says nothing about the addresses it had.
        Some((asked, found.unwrap_or_default()))
    }
}

/// How long after a request or a lookup the next lookup comes.
fn pause(timeout: Duration) -> Duration {
    RESOLVE_AFTER.min(timeout / 2)
}

/// A request without a response for so long has the server's name be resolved again; or half of its time, if
/// that is less. While nothing is answered, there are no more lookups than that.
pub(super) const RESOLVE_AFTER: Duration = Duration::from_secs(1);
