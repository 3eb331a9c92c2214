use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::transport::{is_group, same_peer};

/// Names one socket of a [`ClientCore`](crate::sans_io::ClientCore).
///
/// The core names sockets, and its driver opens a transport for each: see
/// [`poll_send`](crate::sans_io::ClientCore::poll_send). A name is used for another socket only after
/// the core has asked for this one to be [closed](SocketEvent::Close).
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::Outbox;
/// use rejoinder::{Client, Timestamp};
/// use std::time::{Duration, SystemTime};
///
/// let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
/// let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?)?;
/// core.submit(now, "one", &mut || Ok(0))?;
/// core.submit(now, "two", &mut || Ok(0))?;
/// let mut outbox = Outbox::new(1, 512);
/// // Text has no ids, so each request has a socket of its own.
/// for index in [0, 1] {
///     let socket = core.poll_send(now, &mut outbox).expect("two are due");
///     assert_eq!(socket.index(), index);
///     outbox.clear();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(u32);

impl SocketId {
    /// The number of the socket. Numbers are small, so that they fit as indices into a table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a [`ClientCore`](crate::sans_io::ClientCore) wants done with a socket:
/// [`poll_socket`](crate::sans_io::ClientCore::poll_socket) returns it.
///
/// ```
/// use rejoinder::sans_io::SocketEvent;
///
/// fn apply(event: SocketEvent) {
///     match event {
///         SocketEvent::Idle(_) => { /* stop waiting for datagrams, and keep the transport */ }
///         SocketEvent::Close(_) => { /* drop the transport */ }
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketEvent {
    /// No request waits for a response on this socket any more, and none will. It stays open for its
    /// [cooldown](crate::ClientBuilder::cooldown), so that the OS gives its port to no other. There
    /// is no need to receive on it: what comes is only counted as ignored.
    Idle(SocketId),
    /// The socket is to be closed. The core may use its name for another from now on.
    Close(SocketId),
}

/// The sockets of a client, as far as they can be known without any: which requests use them, and how
/// long their ports are to be kept.
#[derive(Debug)]
pub(super) struct Sockets {
    table: Vec<Socket>,
    free: Vec<SocketId>,
    /// Sockets that cool down, each with the time of its end; the earliest first. A response may
    /// still be on its way to these,
    late: VecDeque<(Duration, SocketId)>,
    /// and only a duplicate to these, which are therefore evicted first.
    answered: VecDeque<(Duration, SocketId)>,
    events: VecDeque<SocketEvent>,
    in_use: usize,
    cooldown: Duration,
    max_cooling: usize,
}

#[derive(Debug, Default)]
struct Socket {
    state: State,
    backing: Backing,
    peer: Option<SocketAddr>,
    /// How many requests in flight have been sent from it, or are to be.
    requests: usize,
    opened: Duration,
    /// Whether a datagram left from it.
    was_used: bool,
    /// When the latest response came, and how many sends since then went unanswered in their time.
    heard: Option<Duration>,
    silent: u32,
    /// Whether a response may come after its requests have their results.
    may_be_answered_late: bool,
    /// The latest error of a kind that says the peer cannot be reached, and the number of requests
    /// that had been submitted by then.
    unreachable: Option<(u64, io::Error)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The name is that of no socket.
    #[default]
    Free,
    Open,
    /// No further request is to use it.
    Retired,
    /// Neither is a request that used it before: the OS does not send from it any more.
    Broken,
}

/// What is behind the name of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Backing {
    /// The driver does not know it yet.
    #[default]
    None,
    Transport,
    Gone,
}

impl Sockets {
    pub(super) fn new(cooldown: Duration, max_cooling: usize) -> Self {
        Self {
            table: Vec::new(),
            free: Vec::new(),
            late: VecDeque::new(),
            answered: VecDeque::new(),
            events: VecDeque::new(),
            in_use: 0,
            cooldown,
            max_cooling,
        }
    }

    /// How many are in use by requests, or may be used by the next.
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    pub(super) fn cooling(&self) -> usize {
        self.late.len() + self.answered.len()
    }

    /// Whether another may be opened; if not, how many have to cool down first.
    pub(super) fn check_limit(&mut self, now: Duration) -> Result<(), usize> {
        self.expire(now);
        if self.has_room() || self.evict_late(now) {
            Ok(())
        } else {
            Err(self.late.len())
        }
    }

    /// Whether another can be opened, and cool down in its time, without any being evicted to which a
    /// response may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.late.len() < self.max_cooling
    }

    /// Finds a name for another socket.
    pub(super) fn open(&mut self, now: Duration, peer: SocketAddr) -> SocketId {
        let id = self.free.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.table.len());
            self.table.push(Socket::default());
            SocketId(number.expect("fewer than 2^32 sockets are open"))
        });
        self.table[id.index()] = Socket {
            state: State::Open,
            peer: Some(peer),
            opened: now,
            ..Socket::default()
        };
        self.in_use += 1;
        id
    }

    /// Records that the driver knows a socket.
    pub(super) fn name(&mut self, id: SocketId) {
        let backing = &mut self.table[id.index()].backing;
        if *backing == Backing::None {
            *backing = Backing::Transport;
        }
    }

    /// Notes that one more request uses a socket.
    pub(super) fn attach(&mut self, id: SocketId) {
        self.table[id.index()].requests += 1;
    }

    /// Notes that a request which used a socket has its result. Starts the cooldown of a retired
    /// socket that no other request uses.
    pub(super) fn detach(&mut self, now: Duration, id: SocketId, was_used: bool, late: bool) {
        let socket = &mut self.table[id.index()];
        socket.requests -= 1;
        socket.was_used |= was_used;
        socket.may_be_answered_late |= late;
        if socket.state != State::Open && socket.requests == 0 {
            self.cool_down(now, id);
        }
    }

    /// Has no further request use a socket.
    pub(super) fn retire(&mut self, now: Duration, id: SocketId) {
        if let Some(socket) = self.table.get_mut(id.index())
            && socket.state == State::Open
        {
            socket.state = State::Retired;
            if socket.requests == 0 {
                self.cool_down(now, id);
            }
        }
    }

    /// Has no further request use a socket, because there is no transport behind it.
    pub(super) fn lose(&mut self, now: Duration, id: SocketId) {
        if let Some(socket) = self.table.get_mut(id.index()) {
            socket.backing = Backing::Gone;
            self.retire(now, id);
        }
    }

    /// Has no request be sent from a socket any more, not even one that was before.
    pub(super) fn break_off(&mut self, now: Duration, id: SocketId) {
        self.retire(now, id);
        if let Some(socket) = self.table.get_mut(id.index())
            && socket.state == State::Retired
        {
            socket.state = State::Broken;
        }
    }

    pub(super) fn is_broken(&self, id: SocketId) -> bool {
        let socket = &self.table[id.index()];
        socket.state == State::Broken || socket.backing == Backing::Gone
    }

    /// Whether the driver has a transport for a socket, as far as is known.
    pub(super) fn has_transport(&self, id: SocketId) -> bool {
        self.table[id.index()].backing == Backing::Transport
    }

    /// Notes that a datagram left from a socket.
    pub(super) fn note_use(&mut self, id: SocketId) {
        self.table[id.index()].was_used = true;
    }

    /// Whether a datagram left from a socket: then it was good for something once.
    pub(super) fn was_used(&self, id: SocketId) -> bool {
        self.table[id.index()].was_used
    }

    /// The address that is asked from a socket.
    pub(super) fn peer(&self, id: SocketId) -> SocketAddr {
        let peer = self.open_peer(id);
        peer.expect("a socket that a request uses is open")
    }

    /// The address that is asked from a socket, unless the socket is closed or of another core.
    pub(super) fn open_peer(&self, id: SocketId) -> Option<SocketAddr> {
        self.table.get(id.index())?.peer
    }

    /// Whether a datagram that came on a socket is from the peer that is asked from it. A group is
    /// answered by its members, which have addresses of their own.
    pub(super) fn is_of(&self, id: SocketId, peer: SocketAddr) -> bool {
        self.open_peer(id)
            .is_some_and(|asked| is_group(asked.ip()) || same_peer(asked, peer))
    }

    pub(super) fn opened(&self, id: SocketId) -> Duration {
        self.table[id.index()].opened
    }

    /// Notes that a response came on a socket.
    pub(super) fn note_response(&mut self, id: SocketId, now: Duration) {
        let socket = &mut self.table[id.index()];
        socket.heard = Some(now);
        socket.silent = 0;
    }

    /// Notes that what was sent from a socket at this time was not answered in its time.
    pub(super) fn note_silence(&mut self, id: SocketId, sent: Duration) {
        let socket = &mut self.table[id.index()];
        if socket.heard.is_none_or(|heard| sent > heard) {
            socket.silent = socket.silent.saturating_add(1);
        }
    }

    /// Whether a response came on a socket.
    pub(super) fn was_answered(&self, id: SocketId) -> bool {
        self.table[id.index()].heard.is_some()
    }

    /// How many sends in a row were not answered in their time.
    pub(super) fn silent_sends(&self, id: SocketId) -> u32 {
        self.table[id.index()].silent
    }

    /// How many requests use a socket.
    pub(super) fn requests(&self, id: SocketId) -> usize {
        self.table
            .get(id.index())
            .map_or(0, |socket| socket.requests)
    }

    /// Notes that the peer cannot be reached from a socket, when so many requests were submitted.
    pub(super) fn note_unreachable(&mut self, id: SocketId, submitted: u64, error: io::Error) {
        if let Some(socket) = self.table.get_mut(id.index()) {
            socket.unreachable = Some((submitted, error));
        }
    }

    /// The latest error of this kind since the request with this number was submitted.
    pub(super) fn unreachable_since(&self, id: SocketId, request: u64) -> Option<&io::Error> {
        let (submitted, error) = self.table[id.index()].unreachable.as_ref()?;
        (*submitted > request).then_some(error)
    }

    fn cool_down(&mut self, now: Duration, id: SocketId) {
        self.in_use -= 1;
        let socket = &self.table[id.index()];
        if socket.backing == Backing::None {
            self.forget(id);
        } else if socket.backing == Backing::Gone || !socket.was_used {
            self.events.push_back(SocketEvent::Close(id));
        } else {
            self.events.push_back(SocketEvent::Idle(id));
            let until = now.saturating_add(self.cooldown);
            if socket.may_be_answered_late {
                self.late.push_back((until, id));
            } else {
                self.answered.push_back((until, id));
            }
            while self.cooling() > self.max_cooling && self.evict_answered() {}
        }
    }

    /// Ends the cooldown of the socket for which that is the least risk, so that another can be opened.
    /// Returns whether there was one.
    pub(super) fn evict(&mut self, now: Duration) -> bool {
        self.evict_answered() || self.evict_late(now)
    }

    /// Ends the cooldown of the oldest socket that only a duplicate can come to.
    fn evict_answered(&mut self) -> bool {
        let evicted = self.answered.pop_front();
        self.events
            .extend(evicted.map(|(_, id)| SocketEvent::Close(id)));
        evicted.is_some()
    }

    /// Ends the cooldown of the oldest socket to which a response may be on its way, if that has been
    /// so for long enough to make it improbable.
    fn evict_late(&mut self, now: Duration) -> bool {
        let Some(&(until, id)) = self.late.front() else {
            return false;
        };
        let began = until.saturating_sub(self.cooldown);
        let is_old = now.saturating_sub(began) >= self.cooldown / MIN_COOLDOWN_PART;
        if is_old {
            self.late.pop_front();
            self.events.push_back(SocketEvent::Close(id));
        }
        is_old
    }

    /// Ends the cooldowns that are over.
    fn expire(&mut self, now: Duration) {
        for cooling in [&mut self.late, &mut self.answered] {
            while let Some(&(until, id)) = cooling.front()
                && until <= now
            {
                cooling.pop_front();
                self.events.push_back(SocketEvent::Close(id));
            }
        }
    }

    pub(super) fn poll(&mut self, now: Duration) -> Option<SocketEvent> {
        self.expire(now);
        let event = self.events.pop_front()?;
        if let SocketEvent::Close(id) = event {
            self.forget(id);
        }
        Some(event)
    }

    fn forget(&mut self, id: SocketId) {
        self.table[id.index()] = Socket::default();
        self.free.push(id);
    }
}

/// A socket that is needed for another request cools down for at least a tenth of the time: 20 s of the
/// default. Few networks hold a datagram for longer; and with the default limit a client sends 25
/// requests a second to a server that does not respond.
const MIN_COOLDOWN_PART: u32 = 10;
