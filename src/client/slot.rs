use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::RequestError;
use super::parts::Parts;
use super::responders::Responders;
use super::sockets::SocketId;
use super::ticket::Ticket;

/// One request on its way to one result. Slots are used again, with their buffers.
pub(super) struct Slot {
    pub(super) ticket: Ticket,
    pub(super) state: State,
    /// The request's and the response's datagram.
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    /// The datagrams of a response that has several.
    pub(super) parts: Parts,
    /// Who responded, if it asks a group.
    pub(super) responders: Option<Box<Responders>>,
    pub(super) id: u64,
    /// The sockets from which it was sent and on which it can be answered; the last is the one from
    /// which it is sent next.
    pub(super) routes: Vec<Route>,
    /// The address that it was sent to last.
    pub(super) peer: SocketAddr,
    /// The address that the response came from.
    pub(super) responder: SocketAddr,
    /// How often it moved to another address because one refused it.
    pub(super) moves: usize,
    pub(super) started: Duration,
    pub(super) deadline: Duration,
    /// How long it took to get its result.
    pub(super) after: Duration,
    /// The time from the first send to the second.
    pub(super) first_timeout: Duration,
    pub(super) sends: u32,
    /// When it was sent last.
    pub(super) sent: Duration,
    /// The number of the latest send that is known not to have been answered in its time.
    pub(super) silent: u32,
    /// Whether the peer said that it has the request.
    pub(super) is_acknowledged: bool,
    /// Whether the next send repeats one that failed by an error which may have been another's.
    pub(super) is_repeated: bool,
    /// How many of the sends the OS refused.
    pub(super) refusals: u32,
    /// How many more it may have refused: it did so to some of a batch.
    pub(super) doubtful: u32,
    pub(super) refusal: Option<io::Error>,
    /// Whether it takes up a place for a retransmission.
    pub(super) retransmitting: bool,
    /// The core's count of ignored datagrams when it began.
    pub(super) ignored: u64,
    pub(super) malformed: Option<Box<dyn Error + Send + Sync>>,
}

#[derive(Debug)]
pub(super) enum State {
    Free,
    InFlight,
    Answered,
    Failed(RequestError),
}

/// A socket that a request uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) socket: SocketId,
    /// How often the request left from it, as far as is known.
    pub(super) sends: u32,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            ticket: Ticket::new(0, 0),
            state: State::Free,
            request: Vec::new(),
            response: Vec::new(),
            parts: Parts::default(),
            responders: None,
            id: 0,
            routes: Vec::new(),
            peer: UNSPECIFIED,
            responder: UNSPECIFIED,
            moves: 0,
            started: Duration::ZERO,
            deadline: Duration::ZERO,
            after: Duration::ZERO,
            first_timeout: Duration::ZERO,
            sends: 0,
            sent: Duration::ZERO,
            silent: 0,
            is_acknowledged: false,
            is_repeated: false,
            refusals: 0,
            doubtful: 0,
            refusal: None,
            retransmitting: false,
            ignored: 0,
            malformed: None,
        }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight)
    }

    /// Whether it takes a response from each member of a group.
    pub(super) fn is_discovery(&self) -> bool {
        self.responders.is_some()
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// The socket from which it is sent next.
    pub(super) fn socket(&self) -> SocketId {
        let route = self.routes.last();
        route.expect("a request in flight has a route").socket
    }

    /// The time from the latest send to the next: each is twice the one before.
    pub(super) fn timeout(&self) -> Duration {
        let doublings = self.sends.saturating_sub(1);
        self.first_timeout
            .saturating_mul(2_u32.saturating_pow(doublings))
    }

    /// Whether every send was refused, or may have been.
    pub(super) fn was_never_sent(&self) -> bool {
        self.refusals + self.doubtful == self.sends
    }

    /// Whether the latest send is the only one from this socket, so that a response on it is to that one.
    pub(super) fn was_sent_once_from(&self, socket: SocketId) -> bool {
        let last = self.routes.last();
        last.is_some_and(|route| route.socket == socket && route.sends == 1)
    }

    /// Takes back the latest send, which did not take place.
    pub(super) fn undo_send(&mut self) {
        self.sends -= 1;
        if let Some(route) = self.routes.last_mut() {
            route.sends = route.sends.saturating_sub(1);
        }
    }

    /// Notes that the OS refused the latest send.
    pub(super) fn refuse(&mut self, error: io::Error) {
        self.refusals += 1;
        self.refusal = Some(error);
        if let Some(route) = self.routes.last_mut() {
            route.sends = route.sends.saturating_sub(1);
        }
    }
}

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
