use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use super::ids::{Ids, NoId};
use super::timers::Timers;
use super::{Options, RequestError};
use crate::codec::{Codec, Correlation, Writer};
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, MAX_DATAGRAM_BYTES, Outgoing, canonical, same_peer};

/// The client without its surroundings: no socket, no clock, no dice. It holds any number of
/// exchanges with one peer, each one request on its way to one result.
///
/// [`Client`](crate::Client) drives one over a transport; a test, or a driver of your own, calls it
/// directly, in this order:
///
/// 1. [`submit`](Self::submit) takes a request into a free slot.
/// 2. [`next_send`](Self::next_send) says what to send now, until it says nothing more.
/// 3. [`next_timer`](Self::next_timer) says until when to wait for datagrams, and
///    [`receive`](Self::receive) is told each that comes. Then again from 2.
/// 4. [`take`](Self::take) gives out the results.
///
/// Where the codec [correlates](Codec::correlation) by socket, every exchange needs a fresh socket,
/// which is its slot's until it has a result; otherwise all have one together.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::{Datagram, Meta};
/// use rejoinder::{Client, Timestamp};
/// use std::time::{Duration, SystemTime};
///
/// let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
/// let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
/// core.submit(at(0), "question", &mut || Ok(0))?;
/// let (slot, datagram) = core.next_send(at(0)).expect("it is sent at once");
/// assert_eq!(datagram.bytes, b"question");
/// assert!(core.next_send(at(0)).is_none());
/// assert_eq!(core.next_timer(), Some(Duration::from_secs(1)));
///
/// let answer = Datagram {
///     bytes: b"answer",
///     meta: Meta::new(core.peer()),
/// };
/// core.receive(at(1), slot, answer);
/// let (_ticket, result) = core.take().expect("it is answered");
/// assert_eq!(result?, "answer");
/// assert_eq!(core.in_flight(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Memory: for each slot ever used, of at most the [window](crate::ClientBuilder::window), a few
/// hundred bytes and the longest request and answer that it held; 65,507 bytes; and at most 65,536
/// ids that rest.
pub struct ClientCore<C> {
    codec: C,
    peer: SocketAddr,
    options: Options,
    /// If the protocol has them.
    ids: Option<Ids>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    in_flight: usize,
    /// When something is to be done about each slot in flight.
    timers: Timers,
    /// Slots whose retransmission waits for a place, in order.
    parked: VecDeque<usize>,
    /// How many places for retransmissions are taken.
    retransmissions: usize,
    /// Slots with a result, in the order in which they got it.
    done: VecDeque<usize>,
    /// The slot whose result was given out last: what it holds may still be borrowed.
    taken: Option<usize>,
    tickets: u64,
    ignored: u64,
    /// Where requests are encoded.
    space: Box<[u8]>,
}

/// Names one request of a client, from its submission to its result.
///
/// Tickets are ordered as the requests were submitted.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Client;
///
/// let mut client = Client::new(SimNet::new(), Text, "10.0.0.1:9999".parse()?);
/// let (first, second) = (client.submit("one")?, client.submit("two")?);
/// assert!(first < second);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    number: u64,
    slot: usize,
}

impl Ticket {
    /// For drivers: the slot in which the request is until it has a result.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let ticket = core.submit(at(0), "question", &mut || Ok(0))?;
    /// assert!(core.is_in_flight(ticket.slot()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot(self) -> usize {
        self.slot
    }
}

struct Slot {
    ticket: Ticket,
    state: State,
    /// The request's and the answer's datagram. The buffers are used again.
    request: Vec<u8>,
    answer: Vec<u8>,
    id: u64,
    started: Duration,
    deadline: Duration,
    /// The time from the latest send to the next.
    timeout: Duration,
    sends: u32,
    /// How many of them the system refused.
    refusals: u32,
    /// How many more it may have refused: it did so to some of a batch.
    doubtful: u32,
    refusal: Option<io::Error>,
    /// Whether it has a place for a retransmission, or waits for one.
    retransmitting: bool,
    parked: bool,
    /// The core's count of ignored datagrams when it began.
    ignored: u64,
    unreachable: Option<io::Error>,
    malformed: Option<Box<dyn Error + Send + Sync>>,
}

#[derive(Debug)]
enum State {
    Free,
    InFlight,
    Answered,
    Failed(RequestError),
}

impl<C: Codec> ClientCore<C> {
    /// # Panics
    ///
    /// If the codec's ids do not have 1 to 64 bits.
    pub(super) fn new(codec: C, peer: SocketAddr, options: Options) -> Self {
        let ids = match codec.correlation() {
            Correlation::Socket => None,
            Correlation::Id { bits } => Some(Ids::new(bits, options.quarantine)),
        };
        Self {
            codec,
            peer: canonical(peer),
            options,
            ids,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            timers: Timers::new(),
            parked: VecDeque::new(),
            retransmissions: 0,
            done: VecDeque::new(),
            taken: None,
            tickets: 0,
            ignored: 0,
            space: vec![0; MAX_DATAGRAM_BYTES].into_boxed_slice(),
        }
    }

    /// Encodes a request and puts it among those to be sent. Its deadline counts from now.
    ///
    /// `random` gives numbers that nobody can predict, for the id and the jitter. Fails if it does,
    /// if the codec cannot encode the request, if that is too long, and if the
    /// [window is full](RequestError::WindowFull).
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let mut random = || Ok(4); // good enough for a test alone
    /// let ticket = core.submit(at(0), "question", &mut random)?;
    /// assert!(!core.has_result_of(ticket));
    /// assert_eq!(core.in_flight(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(
        &mut self,
        now: Timestamp,
        request: C::Request<'_>,
        random: &mut dyn FnMut() -> io::Result<u64>,
    ) -> Result<Ticket, RequestError> {
        self.free_taken();
        if !self.has_room() {
            return Err(self.window_full(self.ids.as_ref().map_or(0, Ids::resting)));
        }
        let now = now.monotonic;
        let id = match &mut self.ids {
            None => 0,
            Some(ids) => ids.fresh(now, random).map_err(|error| match error {
                NoId::Entropy(source) => RequestError::Entropy(source),
                NoId::Resting(resting) => self.window_full(resting),
            })?,
        };
        let timeout = self
            .options
            .retry
            .first_timeout(random().map_err(RequestError::Entropy)?);
        let mut out = Writer::new(&mut self.space);
        self.codec
            .encode_request(id, request, &mut out)
            .map_err(|error| RequestError::Encode(error.into()))?;
        let len = out.finish()?;

        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            self.slots.len() - 1
        });
        let ticket = Ticket {
            number: self.tickets,
            slot: index,
        };
        self.tickets += 1;
        let slot = &mut self.slots[index];
        slot.request.clear();
        slot.request.extend_from_slice(&self.space[..len]);
        *slot = Slot {
            ticket,
            state: State::InFlight,
            request: mem::take(&mut slot.request),
            answer: mem::take(&mut slot.answer),
            id,
            started: now,
            deadline: now.saturating_add(self.options.timeout),
            timeout,
            ignored: self.ignored,
            ..Slot::new()
        };
        self.in_flight += 1;
        self.timers.set(index, now);
        if let Some(ids) = &mut self.ids {
            ids.take(id, index);
        }
        Ok(ticket)
    }

    /// The next datagram to be sent now, and its slot. What has passed its deadline gets its
    /// result meanwhile.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// core.submit(at(0), "question", &mut || Ok(0))?;
    /// assert!(core.next_send(at(0)).is_some());
    /// assert!(core.next_send(at(0)).is_none());
    /// // Nothing came for a second, so it is sent again.
    /// assert!(core.next_send(at(1)).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_send(&mut self, now: Timestamp) -> Option<(usize, Outgoing<'_>)> {
        let index = self.next_due(now.monotonic)?;
        Some((index, self.request(index)?))
    }

    /// The request that is in flight in this slot.
    pub(super) fn request(&self, slot: usize) -> Option<Outgoing<'_>> {
        self.is_in_flight(slot).then(|| Outgoing {
            bytes: &self.slots[slot].request,
            peer: self.peer,
            local: None,
        })
    }

    /// The slot of the request that is to be sent now.
    pub(super) fn next_due(&mut self, now: Duration) -> Option<usize> {
        let retry = self.options.retry;
        loop {
            if self.retransmissions < retry.max_in_flight
                && let Some(index) = self.parked.pop_front()
            {
                self.slots[index].parked = false;
                if now < self.slots[index].deadline {
                    self.count_send(index, now);
                    return Some(index);
                }
                self.fail(index, now);
                continue;
            }
            let (due, index) = self.timers.first()?;
            if due > now {
                return None;
            }
            if now >= self.slots[index].deadline {
                self.fail(index, now);
                continue;
            }
            // The latest retransmission counts as lost.
            self.give_place_back(index);
            let slot = &mut self.slots[index];
            if slot.sends == 0 {
                self.count_send(index, now);
                return Some(index);
            }
            self.timers.set(index, slot.deadline);
            if slot.sends < retry.max_sends {
                slot.parked = true;
                self.parked.push_back(index);
            }
        }
    }

    fn count_send(&mut self, index: usize, now: Duration) {
        let slot = &mut self.slots[index];
        slot.sends += 1;
        if slot.sends > 1 {
            slot.timeout = slot.timeout.saturating_mul(2);
            slot.retransmitting = true;
            self.retransmissions += 1;
        }
        let next = now.saturating_add(slot.timeout).min(slot.deadline);
        self.timers.set(index, next);
    }

    /// Until when there is nothing to do but to receive, on the monotonic clock. `None` if nothing
    /// is in flight.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// assert_eq!(core.next_timer(), None);
    /// core.submit(at(7), "question", &mut || Ok(0))?;
    /// assert_eq!(core.next_timer(), Some(Duration::from_secs(7))); // to be sent at once
    ///     
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| due)
    }

    /// Takes a datagram that came, on the socket of `slot` if each has its own. One that is the
    /// answer to nothing in flight changes nothing, but is counted.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// core.next_send(at(0));
    /// let stranger = Meta::new("192.0.2.99:7".parse()?);
    /// core.receive(
    ///     at(1),
    ///     slot,
    ///     Datagram {
    ///         bytes: b"believe me",
    ///         meta: stranger,
    ///     },
    /// );
    /// assert!(!core.has_result());
    /// assert_eq!(core.ignored(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive(&mut self, now: Timestamp, slot: usize, datagram: Datagram<'_>) {
        let Datagram { bytes, meta } = datagram;
        let now = now.monotonic;
        if !meta.truncated
            && same_peer(self.peer, meta.peer)
            && let Some(index) = self.asked_for(slot, bytes)
        {
            let slot = &mut self.slots[index];
            match self.codec.decode_response(bytes) {
                Ok(_) => {
                    if now < slot.deadline && self.codec.response_matches(&slot.request, bytes) {
                        slot.answer.clear();
                        slot.answer.extend_from_slice(bytes);
                        self.finish(index, State::Answered, now);
                        return;
                    }
                }
                Err(error) => slot.malformed = Some(error.into()),
            }
        }
        self.ignored += 1;
    }

    /// The slot whose answer this could be.
    fn asked_for(&self, slot: usize, bytes: &[u8]) -> Option<usize> {
        let index = match &self.ids {
            None => slot,
            Some(ids) => ids.slot_of(self.codec.response_id(bytes)?)?,
        };
        self.is_in_flight(index).then_some(index)
    }

    /// Notes that the system says the peer cannot be reached, on the socket of `slot` if each has
    /// its own. Anybody can forge the message that makes it say so; so unless the options want it
    /// otherwise this only decides what the error will be.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// core.next_send(at(0));
    /// core.unreachable(at(1), slot, &std::io::ErrorKind::ConnectionRefused.into());
    /// assert!(core.is_in_flight(slot)); // until its deadline
    /// while core.next_send(at(5)).is_some() {}
    /// let (_, result) = core.take().expect("5 seconds are the default");
    /// assert!(matches!(result, Err(RequestError::NobodyListening { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unreachable(&mut self, now: Timestamp, slot: usize, error: &io::Error) {
        self.for_those_on(slot, |core, index| {
            core.slots[index].unreachable = Some(copy(error));
            if core.options.fail_when_unreachable {
                core.fail(index, now.monotonic);
            }
        });
    }

    /// Notes that the system refused to send a datagram that [`next_send`](Self::next_send) gave
    /// out for `slot`.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// core.next_send(at(0));
    /// core.refused(slot, std::io::ErrorKind::PermissionDenied.into());
    /// assert!(!core.was_sent(slot));
    /// while core.next_send(at(5)).is_some() {}
    /// let (_, result) = core.take().expect("it is past its deadline");
    /// assert!(matches!(result, Err(RequestError::NotSent { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refused(&mut self, slot: usize, error: io::Error) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.refusals += 1;
            slot.refusal = Some(error);
        }
    }

    /// Notes that the system refused some datagrams of a batch, and that the one that
    /// [`next_send`](Self::next_send) gave out for `slot` may be among them. It is best
    /// [sent alone](Self::is_in_doubt) from now on.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// core.next_send(at(0));
    /// core.refused_perhaps(slot);
    /// assert!(core.is_in_doubt(slot));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refused_perhaps(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.doubtful += 1;
        }
    }

    /// Whether it is unknown if the system [refused](Self::refused_perhaps) the request in this
    /// slot.
    pub fn is_in_doubt(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.doubtful > 0)
    }

    /// Fails what is in flight because there is no socket any more, on the socket of `slot` if
    /// each has its own.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// core.transport_gone(at(0), slot, &std::io::ErrorKind::NotConnected.into());
    /// let (_, result) = core.take().expect("it failed at once");
    /// assert!(matches!(result, Err(RequestError::Transport(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transport_gone(&mut self, now: Timestamp, slot: usize, error: &io::Error) {
        self.for_those_on(slot, |core, index| {
            let error = RequestError::Transport(copy(error));
            core.finish(index, State::Failed(error), now.monotonic);
        });
    }

    fn for_those_on(&mut self, slot: usize, mut act: impl FnMut(&mut Self, usize)) {
        let slots = match &self.ids {
            None => slot..slot + 1,
            Some(_) => 0..self.slots.len(),
        };
        for index in slots {
            if self.is_in_flight(index) {
                act(self, index);
            }
        }
    }

    /// The next result, in the order in which they came about.
    pub fn take(&mut self) -> Option<(Ticket, Result<C::Response<'_>, RequestError>)> {
        self.free_taken();
        let index = self.done.pop_front()?;
        Some((self.slots[index].ticket, self.give_out(index)))
    }

    /// The result of one request, if it has one that was not taken.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let one = core.submit(at(0), "one", &mut || Ok(0))?;
    /// let two = core.submit(at(0), "two", &mut || Ok(0))?;
    /// let meta = Meta::new(core.peer());
    /// for ticket in [one, two] {
    ///     core.next_send(at(0));
    ///     core.receive(
    ///         at(1),
    ///         ticket.slot(),
    ///         Datagram {
    ///             bytes: b"answer",
    ///             meta,
    ///         },
    ///     );
    /// }
    /// assert_eq!(core.take_result_of(two).transpose()?, Some("answer"));
    /// assert!(!core.has_result_of(two) && core.has_result_of(one));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_result_of(
        &mut self,
        ticket: Ticket,
    ) -> Option<Result<C::Response<'_>, RequestError>> {
        self.free_taken();
        let at = self.position_of(ticket)?;
        let index = self.done.remove(at)?;
        Some(self.give_out(index))
    }

    fn give_out(&mut self, index: usize) -> Result<C::Response<'_>, RequestError> {
        self.taken = Some(index);
        let slot = &mut self.slots[index];
        if let State::Failed(error) = mem::replace(&mut slot.state, State::Answered) {
            return Err(error);
        }
        self.codec
            .decode_response(&slot.answer)
            .map_err(|error| RequestError::Malformed {
                peer: self.peer,
                // Only a codec that changes its mind comes here.
                after: self.options.timeout,
                source: error.into(),
            })
    }

    fn position_of(&self, ticket: Ticket) -> Option<usize> {
        self.done
            .iter()
            .position(|&index| self.slots[index].ticket == ticket)
    }

    /// Whether a result waits to be taken.
    pub fn has_result(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether the result of this request waits to be taken.
    pub fn has_result_of(&self, ticket: Ticket) -> bool {
        self.position_of(ticket).is_some()
    }

    /// How many requests have no result yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the request in this slot has no result yet.
    pub fn is_in_flight(&self, slot: usize) -> bool {
        self.slots
            .get(slot)
            .is_some_and(|slot| matches!(slot.state, State::InFlight))
    }

    /// Whether a server that does as it should may still answer the latest request in this slot,
    /// although that has its result: it was sent twice, or in vain.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// let slot = core.submit(at(0), "question", &mut || Ok(0))?.slot();
    /// let meta = Meta::new(core.peer());
    /// assert!(core.next_send(at(0)).is_some() && core.next_send(at(1)).is_some());
    /// core.receive(
    ///     at(2),
    ///     slot,
    ///     Datagram {
    ///         bytes: b"answer",
    ///         meta,
    ///     },
    /// );
    /// // The server got two questions, and gave one answer so far.
    /// assert!(core.may_be_answered_late(slot));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn may_be_answered_late(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| match &slot.state {
            // The port was closed when the only one came there.
            State::Failed(RequestError::NobodyListening { .. }) => slot.sends > 1,
            State::Failed(_) => slot.sends > slot.refusals,
            _ => slot.sends > 1,
        })
    }

    /// Whether the latest request in this slot was sent at all. If so, the network may deliver yet
    /// another copy of it or of its answer, although neither was sent twice.
    pub fn was_sent(&self, slot: usize) -> bool {
        self.slots
            .get(slot)
            .is_some_and(|slot| slot.sends > slot.refusals)
    }

    /// The address that is asked.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How many datagrams came that answered nothing.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Whether there is a slot for another request.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::transport::{Datagram, Meta};
    /// # use rejoinder::{Client, RequestError, Timestamp};
    /// # use std::time::{Duration, SystemTime};
    /// # let at = |seconds| Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH);
    /// # let mut core = Client::builder(Text).core("192.0.2.1:7".parse()?);
    /// # let peer = core.peer();
    /// let mut core = Client::builder(Text).window(1).core(peer);
    /// assert!(core.has_room());
    /// core.submit(at(0), "question", &mut || Ok(0))?;
    /// assert!(!core.has_room());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.taken.is_some() || self.slots.len() < self.options.window
    }

    pub(super) fn window_full(&self, resting: usize) -> RequestError {
        RequestError::WindowFull {
            in_flight: self.in_flight,
            uncollected: self.done.len(),
            resting,
        }
    }

    fn fail(&mut self, index: usize, now: Duration) {
        let peer = self.peer;
        let slot = &mut self.slots[index];
        let after = now.saturating_sub(slot.started);
        let error = if let Some(source) = slot.malformed.take() {
            RequestError::Malformed {
                peer,
                after,
                source,
            }
        } else if let Some(source) = slot.unreachable.take() {
            if is_refusal(&source) {
                RequestError::NobodyListening { peer }
            } else {
                RequestError::Unreachable { peer, source }
            }
        } else if slot.refusals + slot.doubtful == slot.sends
            && let Some(source) = slot.refusal.take()
        {
            RequestError::NotSent {
                peer,
                after,
                source,
            }
        } else {
            RequestError::TimedOut {
                peer,
                after,
                sends: slot.sends,
                ignored: self.ignored - slot.ignored,
            }
        };
        self.finish(index, State::Failed(error), now);
    }

    fn finish(&mut self, index: usize, result: State, now: Duration) {
        self.give_place_back(index);
        self.timers.remove(index);
        let slot = &mut self.slots[index];
        slot.state = result;
        if mem::take(&mut slot.parked) {
            self.parked.retain(|&parked| parked != index);
        }
        if let Some(ids) = &mut self.ids {
            ids.give_back(slot.id, now);
        }
        self.in_flight -= 1;
        self.done.push_back(index);
    }

    fn give_place_back(&mut self, index: usize) {
        if mem::take(&mut self.slots[index].retransmitting) {
            self.retransmissions -= 1;
        }
    }

    fn free_taken(&mut self) {
        if let Some(index) = self.taken.take() {
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

impl Slot {
    fn new() -> Self {
        Self {
            ticket: Ticket { number: 0, slot: 0 },
            state: State::Free,
            request: Vec::new(),
            answer: Vec::new(),
            id: 0,
            started: Duration::ZERO,
            deadline: Duration::ZERO,
            timeout: Duration::ZERO,
            sends: 0,
            refusals: 0,
            doubtful: 0,
            refusal: None,
            retransmitting: false,
            parked: false,
            ignored: 0,
            unreachable: None,
            malformed: None,
        }
    }
}

/// The same error once more, for one more request.
pub(super) fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether an error says that nobody has the port, rather than that there is no way there. Windows
/// says it by a reset.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}
