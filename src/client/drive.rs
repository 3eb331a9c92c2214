use std::fmt;
use std::thread;
use std::time::Duration;

use super::entropy::Entropy;
use super::{ClientCore, RequestError, SocketEvent, SocketId, Ticket};
use crate::backoff::ReceiveBackoff;
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{
    Connect, ErrorClass, Inbox, MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES, Outbox, Transport, Wait,
};

/// What a client has beside its core: transports, buffers, randomness. It blocks.
pub(super) struct Driver<N: Connect> {
    connector: N,
    sockets: SocketMap<N::Transport>,
    inbox: Inbox,
    outbox: Outbox,
    ready: Vec<usize>,
    entropy: Entropy,
    backoff: ReceiveBackoff,
    /// The core's timer when it was last served, and when nothing was left to be received.
    timer: Option<Duration>,
    drained: Duration,
}

impl<N: Connect> Driver<N> {
    pub(super) fn new(connector: N) -> Self {
        Self {
            connector,
            sockets: SocketMap::new(),
            inbox: Inbox::new(BATCH, MAX_V6_DATAGRAM_BYTES),
            outbox: Outbox::new(BATCH, MAX_DATAGRAM_BYTES),
            ready: Vec::new(),
            entropy: Entropy::new(),
            backoff: ReceiveBackoff::new(),
            timer: None,
            drained: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.connector.now()
    }

    pub(super) fn submit<C: Codec>(
        &mut self,
        core: &mut ClientCore<C>,
        request: C::Request<'_>,
    ) -> Result<Ticket, RequestError> {
        let Self {
            connector, entropy, ..
        } = self;
        core.submit(connector.now(), request, &mut || entropy.next(connector))
    }

    pub(super) fn discover<C: Codec>(
        &mut self,
        core: &mut ClientCore<C>,
        request: C::Request<'_>,
        time: Duration,
    ) -> Result<Ticket, RequestError> {
        let Self {
            connector, entropy, ..
        } = self;
        core.discover(connector.now(), request, time, &mut || {
            entropy.next(connector)
        })
    }

    /// Sends what is due and receives what comes, until `done` or the wait is over or nothing is in
    /// flight any more.
    pub(super) fn drive<C: Codec>(
        &mut self,
        core: &mut ClientCore<C>,
        wait: Wait,
        done: impl Fn(&ClientCore<C>) -> bool,
    ) {
        let begun = self.now().monotonic;
        let end = match wait {
            Wait::No => begun,
            Wait::For(time) | Wait::Spin(time) => begun.saturating_add(time),
            Wait::Forever => Duration::MAX,
        };
        loop {
            let now = self.now();
            let is_overdue = |timer| timer <= now.monotonic && timer > self.drained;
            if self.timer.is_some_and(is_overdue) {
                // The caller was busy, or the process stopped. What came in time is not to be lost.
                self.drain(core);
            }
            self.send(core, now);
            self.timer = core.next_timer();
            let Some(timer) = self.timer else {
                break;
            };
            if done(core) {
                break;
            }
            let left = end.min(timer).saturating_sub(now.monotonic);
            let wait = match wait {
                _ if left.is_zero() => Wait::No,
                Wait::Spin(_) => Wait::Spin(left),
                _ => Wait::For(left),
            };
            self.receive(core, wait);
            let is_over = now.monotonic >= end;
            if is_over || done(core) {
                break;
            }
        }
        self.timer = core.next_timer();
        let now = self.now();
        self.sockets.apply_events(core, now);
    }

    fn send<C: Codec>(&mut self, core: &mut ClientCore<C>, now: Timestamp) {
        loop {
            self.sockets.apply_events(core, now);
            let Some(id) = core.poll_send(now, &mut self.outbox) else {
                break;
            };
            let connect = || {
                let first = self.outbox.iter().next();
                let peer = first.expect("the core put something in").peer;
                self.connector.connect(peer)
            };
            match self.sockets.get_or_open(id, connect) {
                Ok(socket) => core.on_sent(now, &socket.send(&self.outbox)),
                Err(error) => core.on_connect_error(now, id, &error),
            }
            self.outbox.clear();
        }
    }

    /// Receives what is queued.
    fn drain<C: Codec>(&mut self, core: &mut ClientCore<C>) {
        for _ in 0..MAX_DRAINS {
            if !self.receive(core, Wait::No) {
                break;
            }
        }
        self.drained = self.now().monotonic;
    }

    /// Waits until something comes, and receives it. Returns whether there was anything.
    fn receive<C: Codec>(&mut self, core: &mut ClientCore<C>, wait: Wait) -> bool {
        let now = self.now();
        self.sockets.apply_events(core, now);
        self.ready.clear();
        let mut wait = wait;
        let end = match wait {
            Wait::For(time) | Wait::Spin(time) => now.monotonic.saturating_add(time),
            Wait::No | Wait::Forever => now.monotonic,
        };
        let mut pause = Duration::ZERO;
        match self.sockets.listening() {
            [id] => self.ready.push(id.index()),
            // Of none if the OS refused to open any.
            ids => {
                let sockets: Vec<_> = ids.iter().filter_map(|&id| self.sockets.get(id)).collect();
                if let Err(error) = self.connector.wait_any(&sockets, wait, &mut self.ready) {
                    pause = self.backoff.pause_after(ErrorClass::classify(&error));
                } else {
                    self.backoff.reset();
                }
                for ready in &mut self.ready {
                    *ready = ids[*ready].index();
                }
                wait = Wait::No;
            }
        }
        let mut came = false;
        for at in 0..self.ready.len() {
            let Some((id, socket)) = self.sockets.at(self.ready[at]) else {
                continue;
            };
            let received = socket.recv(&mut self.inbox, wait);
            let now = socket.now();
            if let Err(error) = received {
                pause = pause.max(core.on_receive_error(now, id, &error));
            }
            came |= !self.inbox.is_empty();
            core.on_receive(now, id, &mut self.inbox);
        }
        let now = self.now().monotonic;
        if !came {
            self.drained = now;
        }
        // An error must not make a deadline later.
        thread::sleep(pause.min(end.saturating_sub(now)));
        came
    }
}

impl<N: Connect + fmt::Debug> fmt::Debug for Driver<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("connector", &self.connector)
            .field("sockets", &self.sockets.listening())
            .finish_non_exhaustive()
    }
}

/// The transports of the core's sockets.
struct SocketMap<T> {
    /// By the sockets' numbers.
    sockets: Vec<Option<Socket<T>>>,
    /// Those on which something may come.
    listening: Vec<SocketId>,
}

struct Socket<T> {
    transport: T,
    id: SocketId,
    /// Where it stands among the listening.
    place: Option<usize>,
}

impl<T> SocketMap<T> {
    fn new() -> Self {
        Self {
            sockets: Vec::new(),
            listening: Vec::new(),
        }
    }

    fn listening(&self) -> &[SocketId] {
        &self.listening
    }

    fn get(&self, id: SocketId) -> Option<&T> {
        let socket = self.sockets.get(id.index())?.as_ref()?;
        Some(&socket.transport)
    }

    fn at(&mut self, index: usize) -> Option<(SocketId, &mut T)> {
        let socket = self.sockets.get_mut(index)?.as_mut()?;
        Some((socket.id, &mut socket.transport))
    }

    fn get_or_open<E>(
        &mut self,
        id: SocketId,
        open: impl FnOnce() -> Result<T, E>,
    ) -> Result<&mut T, E> {
        if id.index() >= self.sockets.len() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        let place = &mut self.sockets[id.index()];
        if place.is_none() {
            *place = Some(Socket {
                transport: open()?,
                id,
                place: Some(self.listening.len()),
            });
            self.listening.push(id);
        }
        let socket = place.as_mut().expect("the transport was inserted above");
        Ok(&mut socket.transport)
    }

    fn apply_events<C: Codec>(&mut self, core: &mut ClientCore<C>, now: Timestamp) {
        while let Some(event) = core.poll_socket(now) {
            let (SocketEvent::Idle(id) | SocketEvent::Close(id)) = event;
            self.stop_listening(id);
            if let SocketEvent::Close(id) = event
                && let Some(socket) = self.sockets.get_mut(id.index())
            {
                *socket = None;
            }
        }
    }

    fn stop_listening(&mut self, id: SocketId) {
        let socket = self.sockets.get_mut(id.index()).and_then(Option::as_mut);
        let Some(place) = socket.and_then(|socket| socket.place.take()) else {
            return;
        };
        self.listening.swap_remove(place);
        if let Some(moved) = self.listening.get(place)
            && let Some(socket) = &mut self.sockets[moved.index()]
        {
            socket.place = Some(place);
        }
    }
}

/// Buffers for receiving, and datagrams for sending.
const BATCH: usize = 64;
/// So many batches of what is queued are received before requests fail at their deadlines: what a socket
/// with the usual buffer of 8 MiB can hold. What comes faster than it is received must not hold them up.
const MAX_DRAINS: usize = 256;
