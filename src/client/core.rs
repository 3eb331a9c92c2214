use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use super::RequestError;
use crate::clock::Now;
use crate::codec::Codec;
use crate::transport::{Datagram, canonical};

/// One request on its way to one answer, without its surroundings: no socket, no clock.
///
/// [`Client`](crate::Client) drives one over a transport; a test, or a driver of your own, calls
/// it directly: [`next`](Self::next) says what to do, [`accepts`](Self::accepts) is asked of every
/// datagram that arrives meanwhile.
///
/// ```
/// use rejoinder::{Exchange, Now, Step};
/// use std::time::{Duration, SystemTime};
///
/// let at = |seconds| Now::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
/// let mut exchange = Exchange::new("192.0.2.1:7".parse()?, Duration::from_secs(5), at(0));
/// assert!(matches!(exchange.next(at(0)), Step::Send));
/// assert!(matches!(exchange.next(at(2)), Step::Wait(time) if time == Duration::from_secs(3)));
/// assert!(matches!(exchange.next(at(5)), Step::Fail(_)));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Exchange {
    peer: SocketAddr,
    started: Duration,
    deadline: Duration,
    sends: u32,
    ignored: u64,
    unreachable: bool,
    malformed: Option<Box<dyn Error + Send + Sync>>,
}

/// What an [`Exchange`] wants done next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// Send the request, then ask again.
    Send,
    /// Wait for a datagram, at most so long, then ask again.
    Wait(Duration),
    /// Give up.
    Fail(RequestError),
}

impl Exchange {
    /// An exchange with `peer` that begins now and ends `timeout` later at the latest.
    pub fn new(peer: SocketAddr, timeout: Duration, now: Now) -> Self {
        Self {
            peer: canonical(peer),
            started: now.monotonic,
            deadline: now.monotonic.saturating_add(timeout),
            sends: 0,
            ignored: 0,
            unreachable: false,
            malformed: None,
        }
    }

    /// What to do at this moment.
    pub fn next(&mut self, now: Now) -> Step {
        let left = self.deadline.saturating_sub(now.monotonic);
        if left.is_zero() {
            return Step::Fail(self.failure(now));
        }
        if self.sends == 0 {
            self.sends = 1;
            return Step::Send;
        }
        Step::Wait(left)
    }

    /// Whether a datagram is the answer to `request`, the encoded datagram. One that is not
    /// changes nothing but the error in the end.
    pub fn accepts<C: Codec>(&mut self, codec: &C, request: &[u8], datagram: Datagram<'_>) -> bool {
        let Datagram { bytes, meta } = datagram;
        if !meta.truncated && same_peer(self.peer, meta.peer) {
            match codec.decode_response(bytes) {
                Ok(_) if codec.answers(request, bytes) => return true,
                Ok(_) => {}
                Err(error) => self.malformed = Some(error.into()),
            }
        }
        self.ignored += 1;
        false
    }

    /// Notes that the system says the peer cannot be reached. Anybody can forge the message that
    /// makes it say so, so this only decides what the error will be.
    pub fn unreachable(&mut self) {
        self.unreachable = true;
    }

    /// Why there is no answer, as far as it is known now.
    pub fn failure(&mut self, now: Now) -> RequestError {
        let peer = self.peer;
        let after = now.monotonic.saturating_sub(self.started);
        if let Some(source) = self.malformed.take() {
            return RequestError::Malformed {
                peer,
                after,
                source,
            };
        }
        if self.unreachable {
            return RequestError::NobodyListening { peer };
        }
        RequestError::TimedOut {
            peer,
            after,
            sends: self.sends,
            ignored: self.ignored,
        }
    }
}

/// Whether a datagram from `actual` comes from the peer that was asked. The flow label says
/// nothing, and a scope matters only if one was asked for.
fn same_peer(asked: SocketAddr, actual: SocketAddr) -> bool {
    match (asked, actual) {
        (SocketAddr::V6(asked), SocketAddr::V6(actual)) => {
            asked.ip() == actual.ip()
                && asked.port() == actual.port()
                && [0, actual.scope_id()].contains(&asked.scope_id())
        }
        _ => asked == actual,
    }
}
