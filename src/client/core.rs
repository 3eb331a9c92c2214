mod addresses;
mod discovery;
mod events;
mod exchange;
mod receive;
mod results;
mod routes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::mem;
use std::time::Duration;

pub use self::results::RawResponse;
use super::ids::Ids;
use super::peers::Peers;
use super::queue::SlotQueue;
use super::rtt::RttEstimator;
use super::slot::{Slot, State};
use super::sockets::{SocketEvent, SocketId, Sockets};
use super::timers::Timers;
use super::{ClientStats, Options, RequestError, Retry, Ticket};
use crate::backoff::ReceiveBackoff;
use crate::codec::{Codec, Correlation, TooLong, Writer};
use crate::timestamp::Timestamp;
use crate::transport::{MAX_DATAGRAM_BYTES, Outbox};

/// The client without sockets, clock or RNG: all that is decided about any number of exchanges with
/// one server, each of them one request on its way to one result.
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
/// 5. [`poll_result`](Self::poll_result) until it returns `None`, or [`take_result`](Self::take_result).
///
/// Where the codec [correlates](Codec::correlation) by socket, the core has a fresh socket for each
/// request. Otherwise requests share one until its ids are used up. A request to a group,
/// [`discover`](Self::discover), always has a socket of its own.
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
/// assert_eq!((answered, result?.decode()?), (ticket, "answer"));
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
/// assert_eq!(core.stats().in_flight, 1);
/// core.cancel(at(300), ticket);
/// assert_eq!((core.stats().in_flight, core.stats().ignored), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Memory: for each slot ever used, of at most the [window](crate::ClientBuilder::window), a few
/// hundred bytes and the longest request and response that it held; 65,507 bytes; at most 65,536 ids;
/// and 100 bytes for each socket in use, cooling down, or not yet asked for by `poll_socket`.
pub struct ClientCore<C> {
    codec: C,
    peers: Peers,
    options: Options,
    ids: Ids,
    sockets: Sockets,
    /// The socket of new requests, where they share one.
    shared: Option<SocketId>,
    /// When it was last replaced because nothing was answered, and how often since a response came.
    renewed: Option<Duration>,
    renewals: u32,
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
    /// Requests to groups whose time is over.
    ended: SlotQueue,
    /// The socket and the slots of the outbox that was filled last, until its report.
    sending: Option<SocketId>,
    outgoing: Vec<usize>,
    submitted: u64,
    ignored: u64,
    backoff: ReceiveBackoff,
    /// How often in a row sending failed for want of buffers.
    congestion: u32,
    rtt: RttEstimator,
    /// Where requests are encoded.
    space: Box<[u8]>,
}

impl<C: Codec> ClientCore<C> {
    /// The options were [checked](Options::check).
    pub(super) fn new(codec: C, peers: Peers, options: Options) -> Self {
        let bits = match codec.correlation() {
            Correlation::Socket => None,
            Correlation::Id { bits } => Some(bits),
        };
        Self {
            codec,
            peers,
            options,
            ids: Ids::new(bits),
            sockets: Sockets::new(options.cooldown, options.max_cooling_sockets),
            shared: None,
            renewed: None,
            renewals: 0,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            timers: Timers::new(),
            parked: SlotQueue::default(),
            retransmissions: 0,
            done: SlotQueue::default(),
            lent: None,
            ended: SlotQueue::default(),
            sending: None,
            outgoing: Vec::new(),
            submitted: 0,
            ignored: 0,
            backoff: ReceiveBackoff::new(),
            congestion: 0,
            rtt: RttEstimator::default(),
            space: vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice(),
        }
    }

    /// Encodes a request and puts it among those to be sent. Its deadline counts from `now`.
    ///
    /// `random` returns unpredictable numbers, for the id and the jitter.
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
        self.begin(now.monotonic, request, None, random)
    }

    /// Fills an empty outbox with the requests that are due on one socket, and returns that socket,
    /// or `None` if nothing is due. Report the outcome with [`on_sent`](Self::on_sent). If the
    /// socket is new and cannot be opened, report [`on_connect_error`](Self::on_connect_error).
    /// Requests past their deadline get their results meanwhile.
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
        let time = now;
        let now = now.monotonic;
        self.outgoing.clear();
        self.sending = None;
        while outbox.has_room_for(1)
            && let Some(index) = self.next_due(now)
        {
            self.reroute(now, index);
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
            let peer = self.sockets.peer(socket);
            let request = &mut self.slots[index].request;
            self.codec.stamp_request(time, request);
            let pushed = outbox.push(peer, None, request);
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
    /// Call it before [`poll_send`](Self::poll_send), so that closed sockets make room for new
    /// ones. A client without requests calls it occasionally, because a cooldown sets no
    /// [timer](Self::next_timer).
    pub fn poll_socket(&mut self, now: Timestamp) -> Option<SocketEvent> {
        self.sockets.poll(now.monotonic)
    }

    /// Until when there is nothing to do but to receive, on the monotonic clock. `None` if nothing
    /// is in flight.
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| due)
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
        // There is no result to be given out.
        self.done.remove(index);
        self.ended.remove(index);
        self.slots[index].responders = None;
        self.slots[index].state = State::Free;
        self.free.push(index);
        true
    }

    /// What the client has in hand: requests, results, sockets; and how many datagrams it ignored.
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

impl<C: Codec> ClientCore<C> {
    /// Has a request be sent: to a group, if it is given the time in which the members may respond.
    fn begin(
        &mut self,
        now: Duration,
        request: C::Request<'_>,
        discovery: Option<Duration>,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<Ticket, RequestError> {
        self.free_lent();
        if self.room() == 0 {
            return Err(self.window_full(self.sockets.cooling()));
        }
        // A socket for a group is not connected, so no other request uses it.
        let shared = if self.shares_sockets() && discovery.is_none() {
            Some(self.draw_id(now, random)?)
        } else {
            self.check_socket_limit(now)?;
            None
        };
        // A socket of its own has no other ids.
        let id = match shared {
            Some((_, id)) => id,
            None => self.ids.draw_any(random).map_err(RequestError::Entropy)?,
        };
        let random = random().map_err(RequestError::Entropy)?;
        let first_timeout = match discovery {
            // A round trip to another peer says nothing about the members' time to respond.
            Some(_) => self.options.retry.initial,
            None => self.first_timeout(),
        };
        let first_timeout = Retry::jittered(first_timeout, random);
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
        slot.parts.clear();
        slot.request.clear();
        slot.request.extend_from_slice(&self.space[..len]);
        *slot = Slot {
            ticket,
            state: State::InFlight,
            request: mem::take(&mut slot.request),
            response: mem::take(&mut slot.response),
            routes: mem::take(&mut slot.routes),
            parts: mem::take(&mut slot.parts),
            responders: discovery.map(|_| Box::new(self.options.responders())),
            id,
            started: now,
            deadline: now.saturating_add(discovery.unwrap_or(self.options.timeout)),
            first_timeout,
            ignored: self.ignored,
            ..Slot::new()
        };
        match shared {
            Some((socket, _)) => self.add_route(index, socket),
            None => self.open_for_one(now, index),
        }
        self.in_flight += 1;
        self.timers.set(index, now);
        Ok(ticket)
    }

    fn room(&self) -> usize {
        self.options.window - self.in_flight - self.done.len() - self.ended.len()
    }

    fn window_full(&self, cooling: usize) -> RequestError {
        RequestError::WindowFull {
            in_flight: self.in_flight,
            uncollected: self.done.len(),
            cooling,
        }
    }

    /// How long another request waits before it is sent again, but for the jitter.
    fn first_timeout(&self) -> Duration {
        let retry = self.options.retry;
        if retry.adaptive {
            self.rtt.timeout(retry.initial)
        } else {
            retry.initial
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
            .field("peer", &self.peers.preferred())
            .field("in_flight", &self.in_flight)
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}
