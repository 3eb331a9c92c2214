mod events;

use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use super::cause::{copy, is_refusal};
use super::ids::Ids;
use super::queue::SlotQueue;
use super::slot::{Route, Slot, State};
use super::sockets::{SocketEvent, SocketId, Sockets};
use super::timers::Timers;
use super::{ClientStats, Options, RequestError, Ticket};
use crate::backoff::ReceiveBackoff;
use crate::codec::{Codec, Correlation, TooLong, Writer};
use crate::timestamp::Timestamp;
use crate::transport::{MAX_DATAGRAM_BYTES, Outbox, canonical};

/// The client without sockets, clock or RNG: all that is decided about any number of exchanges with
/// one peer, each of them one request on its way to one result.
///
/// [`Client`](crate::Client) drives one over a [transport](crate::Transport), with the methods below
/// and no others. A driver of your own repeats this loop:
///
/// 1. [`submit`](Self::submit) requests, whenever there are any.
/// 2. [`poll_socket`](Self::poll_socket) until it returns `None`, and close the sockets it names.
/// 3. [`poll_send`](Self::poll_send) until it returns `None`. Each call fills an outbox and names the
///    socket to send it from; open that one if it is new. Report what came of it with
///    [`on_sent`](Self::on_sent) or [`on_connect_error`](Self::on_connect_error).
/// 4. Receive until [`next_timer`](Self::next_timer), and pass on what came with
///    [`on_receive`](Self::on_receive) or [`on_receive_error`](Self::on_receive_error).
/// 5. [`poll_result`](Self::poll_result) until it returns `None`.
///
/// Where the codec [correlates](Codec::correlation) by socket, the core has a fresh socket for each
/// request. Otherwise requests share one until its ids are used up.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::SocketEvent;
/// use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
/// use rejoinder::{Client, RequestError, Timestamp};
/// use std::io::ErrorKind;
/// use std::time::{Duration, SystemTime};
///
/// let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
/// let server = "192.0.2.1:7".parse()?;
/// let mut core = Client::builder(Text).core(server)?;
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
/// // What the transports of a real driver would have reported:
/// let sent = SendReport::accepted(1);
/// let closed = ErrorKind::ConnectionRefused.into();
///
/// // A zero as a random number is good enough for an example alone.
/// let ticket = core.submit(at(0), "question", &mut || Ok(0))?;
/// let socket = core.poll_send(at(0), &mut outbox).expect("it is due at once");
/// assert!(outbox.iter().all(|datagram| datagram.peer == server));
/// core.on_sent(at(0), &sent);
/// outbox.clear();
///
/// // Nothing came for a second, so it is sent again, and then answered.
/// assert_eq!(core.next_timer(), Some(Duration::from_secs(1)));
/// assert_eq!(core.poll_send(at(1), &mut outbox), Some(socket));
/// core.on_sent(at(1), &sent);
/// outbox.clear();
/// inbox.push(b"answer", Meta::new(server));
/// core.on_receive(at(2), socket, &mut inbox);
/// let (answered, result) = core.poll_result().expect("it is answered");
/// assert_eq!((answered, result?), (ticket, "answer"));
///
/// // A response to the second send may still come, so the socket stays open for a while.
/// assert_eq!(core.poll_socket(at(2)), Some(SocketEvent::Idle(socket)));
/// assert_eq!(core.poll_socket(at(2)), None);
/// assert_eq!(core.poll_socket(at(300)), Some(SocketEvent::Close(socket)));
///
/// // One that no socket can be opened for, and one that is given up.
/// let ticket = core.submit(at(300), "another", &mut || Ok(0))?;
/// let socket = core.poll_send(at(300), &mut outbox).expect("it is due at once");
/// core.on_connect_error(at(300), socket, &ErrorKind::PermissionDenied.into());
/// assert!(core.has_result(ticket));
/// let result = core.take_result(ticket).expect("it has one");
/// assert!(matches!(result, Err(RequestError::Connect { .. })));
/// outbox.clear();
///
/// let ticket = core.submit(at(300), "a third", &mut || Ok(0))?;
/// let socket = core.poll_send(at(300), &mut outbox).expect("it is due at once");
/// let pause = core.on_receive_error(at(300), socket, &closed);
/// assert!(pause.is_zero()); // anybody can cause this error
/// assert_eq!(core.in_flight(), 1);
/// core.cancel(at(300), ticket);
/// assert_eq!((core.in_flight(), core.stats().ignored), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Memory: for each slot ever used, of at most the [window](crate::ClientBuilder::window), a few
/// hundred bytes and the longest request and response that it held; 65,507 bytes; at most 65,536 ids;
/// and 100 bytes for each socket in use, cooling down, or not yet asked for by `poll_socket`.
pub struct ClientCore<C> {
    codec: C,
    peer: SocketAddr,
    options: Options,
    ids: Ids,
    sockets: Sockets,
    /// The socket of new requests, where they share one.
    shared: Option<SocketId>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    in_flight: usize,
    /// When something is to be done about each slot in flight.
    timers: Timers,
    /// Slots whose retransmission waits for a place, in order.
    parked: SlotQueue,
    /// How many places for retransmissions are taken.
    retransmissions: usize,
    /// Slots with a result, in the order in which they got it.
    done: SlotQueue,
    /// The slot whose result was given out last: what it holds may still be borrowed.
    lent: Option<usize>,
    /// The socket and the slots of the outbox that was filled last, until its report.
    sending: Option<SocketId>,
    outgoing: Vec<usize>,
    submitted: u64,
    ignored: u64,
    backoff: ReceiveBackoff,
    /// Where requests are encoded.
    space: Box<[u8]>,
}

impl<C: Codec> ClientCore<C> {
    /// The options were [checked](Options::check).
    pub(super) fn new(codec: C, peer: SocketAddr, options: Options) -> Self {
        let bits = match codec.correlation() {
            Correlation::Socket => None,
            Correlation::Id { bits } => Some(bits),
        };
        Self {
            codec,
            peer: canonical(peer),
            options,
            ids: Ids::new(bits),
            sockets: Sockets::new(options.cooldown, options.max_cooling_sockets),
            shared: None,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            timers: Timers::new(),
            parked: SlotQueue::default(),
            retransmissions: 0,
            done: SlotQueue::default(),
            lent: None,
            sending: None,
            outgoing: Vec::new(),
            submitted: 0,
            ignored: 0,
            backoff: ReceiveBackoff::new(),
            space: vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice(),
        }
    }

    /// Encodes a request and puts it among those to be sent. Its deadline counts from `now`.
    ///
    /// `random` returns numbers that nobody can predict, for the id and the jitter.
    ///
    /// # Errors
    ///
    /// - [`RequestError::WindowFull`]: no slot is free, or so many sockets cool down to which a
    ///   response may be on its way that none can be opened.
    /// - [`RequestError::Encode`], [`RequestError::TooLong`]: the codec's error, or a request longer
    ///   than a datagram.
    /// - [`RequestError::Entropy`]: the error of `random`.
    pub fn submit(
        &mut self,
        now: Timestamp,
        request: C::Request<'_>,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<Ticket, RequestError> {
        self.free_lent();
        let now = now.monotonic;
        if self.room() == 0 {
            return Err(self.window_full(self.sockets.cooling()));
        }
        let shared = if self.ids.exist() {
            Some(self.draw_id(now, random)?)
        } else {
            self.check_socket_limit(now)?;
            None
        };
        let first_timeout = self
            .options
            .retry
            .first_timeout(random().map_err(RequestError::Entropy)?);
        let id = shared.map_or(0, |(_, id)| id);
        let mut out = Writer::new(&mut self.space);
        self.codec
            .encode_request(id, request, &mut out)
            .map_err(|error| RequestError::Encode(error.into()))?;
        let len = out.finish()?;

        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            self.slots.len() - 1
        });
        let ticket = Ticket::new(self.submitted, index);
        self.submitted += 1;
        let slot = &mut self.slots[index];
        slot.request.clear();
        slot.request.extend_from_slice(&self.space[..len]);
        *slot = Slot {
            ticket,
            state: State::InFlight,
            request: mem::take(&mut slot.request),
            response: mem::take(&mut slot.response),
            routes: mem::take(&mut slot.routes),
            id,
            started: now,
            deadline: now.saturating_add(self.options.timeout),
            first_timeout,
            ignored: self.ignored,
            ..Slot::new()
        };
        let socket = match shared {
            Some((socket, _)) => socket,
            None => self.open_for_one(),
        };
        self.add_route(index, socket);
        self.in_flight += 1;
        self.timers.set(index, now);
        Ok(ticket)
    }

    /// Fills an empty outbox with what is due, names the socket to send it from, and expects to be
    /// told what came of it: by [`on_sent`](Self::on_sent), or by
    /// [`on_connect_error`](Self::on_connect_error) if there is no such socket yet and it cannot be
    /// opened. `None` if nothing is due. Requests past their deadline get their results meanwhile.
    ///
    /// A driver that did something else while [`next_timer`](Self::next_timer) passed first receives
    /// what is queued on its sockets, without waiting. Otherwise a request may fail whose response
    /// came in time.
    ///
    /// # Errors
    ///
    /// A request that is longer than a datagram of the outbox fails with
    /// [`RequestError::TooLong`].
    pub fn poll_send(&mut self, now: Timestamp, outbox: &mut Outbox) -> Option<SocketId> {
        let now = now.monotonic;
        self.outgoing.clear();
        self.sending = None;
        while outbox.has_room_for(1)
            && let Some(index) = self.next_due(now)
        {
            let slot = &self.slots[index];
            let (socket, len) = (slot.socket(), slot.request.len());
            if len > outbox.max_datagram_bytes() {
                let limit = outbox.max_datagram_bytes();
                let error = RequestError::TooLong(TooLong { bytes: len, limit });
                self.finish(index, State::Failed(error), None, now);
                continue;
            }
            // Which datagrams of a batch the OS refused is not known; so one that it may have
            // refused is sent in a batch of its own.
            let is_doubtful = slot.doubtful > 0;
            if self
                .sending
                .is_some_and(|sending| sending != socket || is_doubtful)
            {
                break;
            }
            let pushed = outbox.push(self.peer, None, &slot.request);
            pushed.expect("the outbox has room");
            self.count_send(index, now);
            self.outgoing.push(index);
            self.sending = Some(socket);
            if is_doubtful {
                break;
            }
        }
        if let Some(socket) = self.sending {
            self.sockets.name(socket);
        }
        self.sending
    }

    /// Returns what is to be done with a socket: to wait for nothing more on it, or to close it.
    /// `None` if nothing is, at this time.
    ///
    /// To be called before [`poll_send`](Self::poll_send), so that what is closed makes room for
    /// what is opened, and now and then by a client without requests: a cooldown sets no
    /// [timer](Self::next_timer).
    pub fn poll_socket(&mut self, now: Timestamp) -> Option<SocketEvent> {
        self.sockets.poll(now.monotonic)
    }

    /// Until when there is nothing to do but to receive, on the monotonic clock. `None` if nothing
    /// is in flight.
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| due)
    }

    /// Gives out the next result, in the order in which they came about.
    pub fn poll_result(&mut self) -> Option<(Ticket, Result<C::Response<'_>, RequestError>)> {
        let ticket = self.slots[self.done.front()?].ticket;
        Some((ticket, self.take_result(ticket)?))
    }

    /// Gives out the result of one request. `None` if it has none yet, or it was given out.
    pub fn take_result(&mut self, ticket: Ticket) -> Option<Result<C::Response<'_>, RequestError>> {
        if !self.has_result(ticket) {
            return None;
        }
        self.free_lent();
        let index = ticket.slot();
        self.done.remove(index);
        self.lent = Some(index);
        let slot = &mut self.slots[index];
        if let State::Failed(error) = mem::replace(&mut slot.state, State::Answered) {
            return Some(Err(error));
        }
        // It was decoded when it came, to see whether it can be; but a value that borrows from the
        // slot cannot be kept beside it. A codec may be of two minds.
        let response = self.codec.decode_response(&slot.response);
        Some(response.map_err(|error| RequestError::Malformed {
            peer: self.peer,
            after: slot.after,
            source: error.into(),
        }))
    }

    /// Whether [`take_result`](Self::take_result) would give out the result of this request.
    pub fn has_result(&self, ticket: Ticket) -> bool {
        self.done.contains(ticket.slot()) && self.slots[ticket.slot()].ticket == ticket
    }

    /// Forgets a request: nothing is sent for it any more, and it gets no result. Its socket cools
    /// down as after any other end. Returns `false` if its result was given out already.
    pub fn cancel(&mut self, now: Timestamp, ticket: Ticket) -> bool {
        let index = ticket.slot();
        let slot = self.slots.get(index);
        let is_known = slot.is_some_and(|slot| slot.ticket == ticket && !slot.is_free());
        if !is_known || self.lent == Some(index) {
            return false;
        }
        if self.slots[index].is_in_flight() {
            self.finish(index, State::Free, None, now.monotonic);
        }
        self.done.remove(index);
        self.slots[index].state = State::Free;
        self.free.push(index);
        true
    }

    /// How many requests have no result yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What the client has in hand, and how many datagrams it ignored.
    pub fn stats(&self) -> ClientStats {
        ClientStats {
            in_flight: self.in_flight,
            uncollected: self.done.len(),
            room: self.room(),
            ignored: self.ignored,
            sockets: self.sockets.in_use(),
            cooling_sockets: self.sockets.cooling(),
        }
    }
}

/// Sockets and ids.
impl<C: Codec> ClientCore<C> {
    /// A socket that requests share, and an id for another request on it.
    fn draw_id(
        &mut self,
        now: Duration,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<(SocketId, u64), RequestError> {
        loop {
            let socket = match self.shared {
                Some(socket) => socket,
                None => self.open_shared(now)?,
            };
            let id = self.ids.draw(socket, random);
            if let Some(id) = id.map_err(RequestError::Entropy)? {
                return Ok((socket, id));
            }
            self.sockets.retire(now, socket);
            self.shared = None;
        }
    }

    fn open_shared(&mut self, now: Duration) -> Result<SocketId, RequestError> {
        self.check_socket_limit(now)?;
        let socket = self.sockets.open();
        self.ids.renew();
        self.shared = Some(socket);
        Ok(socket)
    }

    fn check_socket_limit(&mut self, now: Duration) -> Result<(), RequestError> {
        let limit = self.sockets.check_limit(now);
        limit.map_err(|cooling| self.window_full(cooling))
    }

    /// A socket for one request.
    fn open_for_one(&mut self) -> SocketId {
        self.sockets.open()
    }

    /// Has a request be sent from a socket, and answered on it.
    fn add_route(&mut self, index: usize, socket: SocketId) {
        let slot = &mut self.slots[index];
        slot.routes.push(Route { socket, sends: 0 });
        self.sockets.attach(socket);
        self.ids.assign(socket, slot.id, index);
    }

    fn room(&self) -> usize {
        self.options.window - self.in_flight - self.done.len()
    }

    fn window_full(&self, cooling: usize) -> RequestError {
        RequestError::WindowFull {
            in_flight: self.in_flight,
            uncollected: self.done.len(),
            cooling,
        }
    }
}

/// Time.
impl<C: Codec> ClientCore<C> {
    /// The slot of a request that is to be sent now. It remains due until that is
    /// [counted](Self::count_send).
    fn next_due(&mut self, now: Duration) -> Option<usize> {
        let retry = self.options.retry;
        loop {
            if self.retransmissions < retry.max_in_flight
                && let Some(index) = self.parked.front()
            {
                if now < self.slots[index].deadline {
                    return Some(index);
                }
                self.fail(index, now);
                continue;
            }
            let (due, index) = self.timers.first()?;
            if due > now {
                return None;
            }
            let slot = &self.slots[index];
            if now >= slot.deadline {
                self.fail(index, now);
                continue;
            }
            if slot.sends == 0 {
                return Some(index);
            }
            let may_be_sent = slot.sends < retry.max_sends;
            self.timers.set(index, slot.deadline);
            // The latest retransmission counts as lost.
            self.free_retransmission(index);
            if may_be_sent && !self.parked.contains(index) {
                self.parked.push_back(index);
            }
        }
    }

    fn count_send(&mut self, index: usize, now: Duration) {
        self.parked.remove(index);
        let slot = &mut self.slots[index];
        slot.sends += 1;
        if let Some(route) = slot.routes.last_mut() {
            route.sends += 1;
        }
        if slot.sends > 1 {
            slot.retransmitting = true;
            self.retransmissions += 1;
        }
        let next = now.saturating_add(slot.timeout()).min(slot.deadline);
        self.timers.set(index, next);
    }

    fn free_retransmission(&mut self, index: usize) {
        if mem::take(&mut self.slots[index].retransmitting) {
            self.retransmissions -= 1;
        }
    }
}

/// Results.
impl<C: Codec> ClientCore<C> {
    /// Ends a request at its deadline, or because the peer cannot be reached.
    fn fail(&mut self, index: usize, now: Duration) {
        let error = self.failure(index, now);
        self.finish(index, State::Failed(error), None, now);
    }

    fn failure(&mut self, index: usize, now: Duration) -> RequestError {
        let peer = self.peer;
        let slot = &mut self.slots[index];
        let after = now.saturating_sub(slot.started);
        if let Some(source) = slot.malformed.take() {
            return RequestError::Malformed {
                peer,
                after,
                source,
            };
        }
        let request = slot.ticket.number();
        let mut routes = slot.routes.iter().rev();
        let unreachable =
            routes.find_map(|route| self.sockets.unreachable_since(route.socket, request));
        match unreachable {
            Some(error) if is_refusal(error) => RequestError::NobodyListening { peer },
            Some(error) => RequestError::Unreachable {
                peer,
                source: copy(error),
            },
            None => match slot.refusal.take() {
                Some(source) if slot.was_never_sent() => RequestError::NotSent {
                    peer,
                    after,
                    source,
                },
                _ => RequestError::TimedOut {
                    peer,
                    after,
                    sends: slot.sends,
                    ignored: self.ignored - slot.ignored,
                },
            },
        }
    }

    /// Ends a request that is in flight. `answered_on` is the socket on which its response came.
    fn finish(
        &mut self,
        index: usize,
        result: State,
        answered_on: Option<SocketId>,
        now: Duration,
    ) {
        self.free_retransmission(index);
        self.timers.remove(index);
        self.parked.remove(index);
        self.in_flight -= 1;
        let slot = &mut self.slots[index];
        slot.after = now.saturating_sub(slot.started);
        slot.state = result;
        // Of a closed port, the only copy was refused, and it answered the only one.
        let is_settled = matches!(
            slot.state,
            State::Failed(RequestError::NobodyListening { .. })
        );
        let routes = mem::take(&mut slot.routes);
        for &Route { socket, sends } in &routes {
            let answers = u32::from(is_settled || answered_on == Some(socket));
            self.ids.release(socket, slot.id);
            self.sockets.detach(now, socket, sends > 0, sends > answers);
            if !self.ids.exist() {
                self.sockets.retire(now, socket);
            }
        }
        slot.routes = routes;
        slot.routes.clear();
        if slot.has_result() {
            self.done.push_back(index);
        }
    }

    fn free_lent(&mut self) {
        if let Some(index) = self.lent.take() {
            self.slots[index].state = State::Free;
            self.free.push(index);
        }
    }
}

impl<C> fmt::Debug for ClientCore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCore")
            .field("peer", &self.peer)
            .field("in_flight", &self.in_flight)
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}
