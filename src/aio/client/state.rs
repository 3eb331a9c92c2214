mod receive;

use std::io;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::discovery::Asking;
use super::waiters::{Queue, Waiters};
use crate::aio::alarm::Alarm;
use crate::aio::connect::AsyncConnect;
use crate::aio::transport::AsyncTransport;
use crate::aio::wakes::{SlotWaker, Wakes};
use crate::client::{ClientCore, Entropy, RequestError, SocketEvent, SocketId, Ticket};
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES, Outbox, SendReport};

/// Everything of a client, behind one lock: the core, its sockets, and who waits.
///
/// The driver's task receives, and is woken by sockets, by its timer, and by callers that have put
/// something in. A caller sends by itself when nothing is in flight: then there is nothing to send with
/// it, and the response comes the sooner.
pub(super) struct State<N: AsyncConnect, C> {
    pub(super) core: ClientCore<C>,
    pub(super) connector: N,
    entropy: Entropy,
    /// By the sockets' numbers.
    sockets: Vec<Option<Socket<N::Transport>>>,
    /// Sockets that may have something to receive. Several share a bit where there are many.
    wakes: Arc<Wakes>,
    /// Groups that are to be looked at again, each once.
    ready: Vec<u32>,
    /// Whether a group stands in the list that is being worked off.
    is_listed: Vec<bool>,
    /// Whether there is a socket that the driver does not listen to yet.
    has_new_socket: bool,
    inbox: Inbox,
    outbox: Outbox,
    /// The socket whose send buffer was full, and what became of the outbox so far.
    sending: Option<(SocketId, SendReport)>,
    waiters: Waiters<Outcome>,
    /// Who waits for the result in each of the core's slots.
    waiter_of: Vec<usize>,
    /// The requests to groups: as many as the window has room for at most.
    pub(super) asking: Vec<Asking>,
    queue: Queue,
    driver: Option<Waker>,
    driver_is_woken: bool,
    alarm: Alarm,
    /// When the alarm wakes the driver at the latest, by the connector's clock.
    alarm_at: Option<Duration>,
    /// There is no driver any more, or no client.
    pub(super) is_closed: bool,
}

/// Where the core takes random numbers from.
pub(super) type Random<'a> = &'a mut dyn FnMut() -> io::Result<u64>;

pub(super) type Outcome = Result<Bytes, RequestError>;

struct Socket<T> {
    transport: T,
    id: SocketId,
    waker: Waker,
    is_listening: bool,
    /// Errors make it pause until then.
    paused_until: Option<Duration>,
}

impl<N: AsyncConnect, C: Codec> State<N, C> {
    pub(super) fn new(core: ClientCore<C>, connector: N) -> Self {
        Self {
            core,
            connector,
            entropy: Entropy::new(),
            sockets: Vec::new(),
            wakes: Arc::new(Wakes::new(SOCKET_GROUPS)),
            ready: Vec::new(),
            is_listed: vec![false; SOCKET_GROUPS],
            has_new_socket: false,
            inbox: Inbox::new(BATCH, MAX_V6_DATAGRAM_BYTES),
            outbox: Outbox::new(BATCH, MAX_DATAGRAM_BYTES),
            sending: None,
            waiters: Waiters::new(),
            waiter_of: Vec::new(),
            asking: Vec::new(),
            queue: Queue::default(),
            driver: None,
            driver_is_woken: false,
            alarm: Alarm::new(),
            alarm_at: None,
            is_closed: false,
        }
    }

    pub(super) fn stats(&self) -> crate::client::ClientStats {
        self.core.stats()
    }

    /// Whether a request with this number in the queue, or none, can be submitted now.
    pub(super) fn poll_room(&mut self, number: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        let has_room = self.is_closed || self.core.stats().room > 0;
        if has_room && self.queue.is_next(*number) {
            self.leave_queue(number);
            return Poll::Ready(());
        }
        *number = Some(self.queue.wait(*number, cx.waker()));
        Poll::Pending
    }

    /// Takes a caller out of the queue, and lets the next one look.
    pub(super) fn leave_queue(&mut self, number: &mut Option<u64>) {
        if let Some(number) = number.take() {
            self.queue.leave(number);
        }
        self.wake_queue();
    }

    pub(super) fn wake_queue(&self) {
        if self.core.stats().room > 0 {
            self.queue.wake_next();
        }
    }

    /// Puts a request in, and sees to it that it is sent.
    pub(super) fn submit(
        &mut self,
        request: C::Request<'_>,
    ) -> Result<(Ticket, usize), RequestError> {
        let ticket = self.put_in(|core, now, random| core.submit(now, request, random))?;
        let place = self.waiters.enter();
        if ticket.slot() >= self.waiter_of.len() {
            self.waiter_of.resize(ticket.slot() + 1, usize::MAX);
        }
        self.waiter_of[ticket.slot()] = place;
        self.send_soon();
        Ok((ticket, place))
    }

    /// Puts something into the core, with the time and random numbers.
    pub(super) fn put_in(
        &mut self,
        put: impl FnOnce(&mut ClientCore<C>, Timestamp, Random<'_>) -> Result<Ticket, RequestError>,
    ) -> Result<Ticket, RequestError> {
        if self.is_closed {
            return Err(closed());
        }
        let now = self.connector.now();
        let Self {
            core,
            connector,
            entropy,
            ..
        } = self;
        put(core, now, &mut || {
            entropy.next_from(|bytes| connector.entropy(bytes))
        })
    }

    /// Sends what was put in, or has the driver do it.
    pub(super) fn send_soon(&mut self) {
        if self.core.stats().in_flight == 1 && self.sending.is_none() {
            self.send(&mut Context::from_waker(Waker::noop()));
            self.collect();
            // Unless the alarm comes soon enough, the driver has to set it.
            let timer = self.core.next_timer();
            if timer.is_none_or(|timer| self.alarm_at.is_some_and(|at| at <= timer))
                && self.sending.is_none()
                && !self.has_new_socket
            {
                return;
            }
        }
        self.wake_driver();
    }

    pub(super) fn poll_result(&mut self, place: usize, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.waiters.poll(place, cx.waker())
    }

    /// Forgets a request whose caller is gone.
    pub(super) fn cancel(&mut self, ticket: Ticket, place: usize) {
        if self.waiters.leave(place) {
            self.core.cancel(self.connector.now(), ticket);
        }
        self.wake_queue();
    }

    pub(super) fn wake_driver(&mut self) {
        if !mem::replace(&mut self.driver_is_woken, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Ends the client: every caller has a result now.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiters.finish_all(|| Err(closed()));
        self.wake_asking();
        self.queue.wake_all();
        self.wake_driver();
    }

    /// What the driver does whenever it is woken. Ready when the client is closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_closed {
            return Poll::Ready(());
        }
        if !self
            .driver
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            self.wakes.register(cx.waker());
            self.driver = Some(cx.waker().clone());
        }
        self.driver_is_woken = false;
        let mut left = BATCHES_PER_POLL;
        loop {
            // First what came: a response in time is not to be lost to a deadline.
            let received = self.receive(&mut left);
            self.send(cx);
            self.collect();
            if left == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            if !received && !self.has_new_socket && !self.poll_alarm(cx) {
                break;
            }
        }
        Poll::Pending
    }

    /// Sends what is due, as far as the sockets take it.
    fn send(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = self.connector.now();
            if let Some((id, report)) = &mut self.sending {
                let Some(Some(socket)) = self.sockets.get_mut(id.index()) else {
                    self.sending = None;
                    self.outbox.clear();
                    continue;
                };
                if socket
                    .transport
                    .poll_send(cx, &self.outbox, report)
                    .is_pending()
                {
                    return;
                }
                self.core.on_sent(now, report);
                self.sending = None;
                self.outbox.clear();
            }
            self.apply_events();
            let Some(id) = self.core.poll_send(now, &mut self.outbox) else {
                return;
            };
            match self.open(id) {
                Ok(()) => self.sending = Some((id, SendReport::default())),
                Err(error) => {
                    self.core.on_connect_error(now, id, &error);
                    self.outbox.clear();
                }
            }
        }
    }

    fn open(&mut self, id: SocketId) -> io::Result<()> {
        let index = id.index();
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        if self.sockets[index].is_none() {
            let peer = self
                .outbox
                .iter()
                .next()
                .expect("the core put something in")
                .peer;
            let waker = SlotWaker {
                wakes: Arc::clone(&self.wakes),
                slot: index % SOCKET_GROUPS,
            };
            self.sockets[index] = Some(Socket {
                transport: self.connector.connect(peer)?,
                id,
                waker: Waker::from(Arc::new(waker)),
                is_listening: true,
                paused_until: None,
            });
            // Polled once, its waker is registered.
            self.ready.push(group_of(index));
            self.has_new_socket = true;
        }
        Ok(())
    }

    fn apply_events(&mut self) {
        let now = self.connector.now();
        while let Some(event) = self.core.poll_socket(now) {
            let (SocketEvent::Idle(id) | SocketEvent::Close(id)) = event;
            let Some(place) = self.sockets.get_mut(id.index()) else {
                continue;
            };
            match (event, place.as_mut()) {
                (SocketEvent::Idle(_), Some(socket)) => socket.is_listening = false,
                _ => *place = None,
            }
        }
    }

    /// Gives results to those who wait for them.
    fn collect(&mut self) {
        let mut any = false;
        while let Some((ticket, result)) = self.core.poll_result() {
            let outcome = result.map(|response| Bytes::copy_from_slice(response.bytes()));
            any = true;
            if let Some(waker) = self.waiters.finish(self.waiter_of[ticket.slot()], outcome) {
                waker.wake();
            }
        }
        if any {
            self.wake_queue();
        }
        self.wake_asking();
    }

    /// Has the driver woken in time. Returns whether that time has come already.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.connector.now().monotonic;
        let paused = self
            .sockets
            .iter()
            .flatten()
            .filter_map(|one| one.paused_until);
        let paused = if self.ready.is_empty() {
            None
        } else {
            paused.min()
        };
        let stats = self.core.stats();
        let cooling = (stats.cooling_sockets > 0).then(|| now.saturating_add(LOOK_AT_COOLING));
        let Some(next) = [self.core.next_timer(), paused, cooling]
            .into_iter()
            .flatten()
            .min()
        else {
            return false;
        };
        self.alarm_at = Some(self.alarm_at.map_or(next, |at| at.min(next)));
        let Some(instant) = Instant::now().checked_add(next.saturating_sub(now)) else {
            return false;
        };
        let is_over = self.alarm.poll(cx, instant);
        if is_over {
            self.alarm_at = None;
        }
        is_over
    }
}

fn group_of(index: usize) -> u32 {
    u32::try_from(index % SOCKET_GROUPS).expect("there are fewer groups")
}

pub(super) fn closed() -> RequestError {
    RequestError::Transport(io::Error::new(
        io::ErrorKind::NotConnected,
        "the client's driver has ended: its runtime was shut down, or the codec panicked",
    ))
}

/// Sockets whose numbers differ by a multiple of it are woken together.
const SOCKET_GROUPS: usize = 4_096;
/// Buffers for receiving, and datagrams for sending.
const BATCH: usize = 64;
/// How many batches are received before other tasks have a turn.
const BATCHES_PER_POLL: usize = 16;
/// How often a client looks for sockets whose cooldown is over.
const LOOK_AT_COOLING: Duration = Duration::from_secs(10);
