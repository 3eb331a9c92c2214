//! What the transports of both roles have in common, blocking and async.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use rejoinder::transport::{Datagram, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::{Identity, Timestamp, Transport, Wait};

use crate::engine::Delivered;
use crate::settings::MAX_REPLIES;

/// What makes payloads of datagrams: a server's engine, or a client's session.
pub(crate) trait Machine {
    /// Whether the replies to several datagrams leave together. If not, they leave after each.
    const BATCHES: bool;

    /// An outbox that is large enough for what it sends.
    fn outbox(&self) -> Outbox;
    /// Takes a datagram, queues what it is answered with, and delivers what was in it.
    fn receive(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    );
    /// When [`on_timer`](Self::on_timer) is to be called, at the latest.
    fn next_timer(&self) -> Option<Duration>;
    fn on_timer(&mut self, now: Timestamp, outbox: &mut Outbox);
    /// What went wrong since the last call.
    fn take_error(&mut self) -> Option<io::Error> {
        None
    }
}

/// A machine and its batches.
pub(crate) struct Driver<M> {
    pub(crate) machine: M,
    /// What came from the transport inside.
    pub(crate) raw: Inbox,
    /// What the machine sends of its own accord.
    pub(crate) replies: Outbox,
    /// Payloads for which the inbox had no space: those of one datagram at most.
    waiting: VecDeque<(Vec<u8>, Meta, Option<Identity>)>,
}

impl<M: Machine> Driver<M> {
    /// A driver that receives so many datagrams at once.
    pub(crate) fn new(machine: M, buffers: usize) -> Self {
        Self {
            raw: Inbox::new(buffers, MAX_DATAGRAM_BYTES),
            replies: machine.outbox(),
            waiting: VecDeque::new(),
            machine,
        }
    }

    /// Whether there are payloads or datagrams that were received already.
    pub(crate) fn has_received(&self) -> bool {
        !self.raw.is_empty() || !self.waiting.is_empty()
    }

    /// Whether the replies have room for those of one more step.
    pub(crate) fn has_room(&self) -> bool {
        self.replies.has_room_for(MAX_REPLIES)
    }

    /// Takes one payload or one datagram. Returns whether there was any, and space for it.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        inbox: &mut Inbox,
        delivered: &mut usize,
    ) -> bool {
        if !inbox.has_space() {
            return false;
        }
        if let Some((bytes, meta, identity)) = self.waiting.pop_front() {
            push(inbox, &bytes, meta, identity.as_ref());
            *delivered += 1;
            return true;
        }
        let Some(datagram) = self.raw.pop() else {
            return false;
        };
        let waiting = &mut self.waiting;
        let mut deliver = |payload: Delivered<'_>| {
            if inbox.has_space() {
                push(inbox, payload.bytes, payload.meta, payload.identity);
                *delivered += 1;
            } else {
                let identity = payload.identity.cloned();
                waiting.push_back((payload.bytes.to_vec(), payload.meta, identity));
            }
        };
        self.machine
            .receive(now, &datagram, &mut self.replies, &mut deliver);
        true
    }

    /// Sends what the machine has queued. What is lost is repeated, as on any network.
    pub(crate) fn flush(&mut self, inner: &mut impl Transport) {
        if !self.replies.is_empty() {
            let _ = inner.send(&self.replies);
            self.replies.clear();
        }
    }

    /// Works through what was received, as far as the inbox has space.
    fn deliver(&mut self, inner: &mut impl Transport, inbox: &mut Inbox) -> usize {
        let now = inner.now();
        let mut delivered = 0;
        while self.step(now, inbox, &mut delivered) {
            if !M::BATCHES || !self.has_room() {
                self.flush(inner);
            }
        }
        self.flush(inner);
        delivered
    }

    /// Receives payloads from a transport inside: see [`Transport::recv`].
    pub(crate) fn recv(
        &mut self,
        inner: &mut impl Transport,
        inbox: &mut Inbox,
        wait: Wait,
    ) -> io::Result<usize> {
        let end = wait.deadline(inner.now().monotonic);
        let delivered = self.deliver(inner, inbox);
        if delivered > 0 {
            return Ok(delivered);
        }
        loop {
            let now = inner.now();
            self.machine.on_timer(now, &mut self.replies);
            self.flush(inner);
            if let Some(error) = self.machine.take_error() {
                return Err(error);
            }
            let timer = self.machine.next_timer();
            let received = inner.recv(&mut self.raw, shorter(wait, now.monotonic, end, timer));
            // An error says nothing about the datagrams that came before it.
            let delivered = self.deliver(inner, inbox);
            let is_over = matches!(wait, Wait::No) || inner.now().monotonic >= end;
            match received {
                Err(error) => return Err(error),
                Ok(_) if delivered > 0 => return Ok(delivered),
                Ok(_) => {}
            }
            if let Some(error) = self.machine.take_error() {
                return Err(error);
            }
            if is_over {
                return Ok(0);
            }
        }
    }
}

/// Puts a payload into an inbox, with the name of its sender.
pub(crate) fn push(inbox: &mut Inbox, bytes: &[u8], meta: Meta, identity: Option<&Identity>) {
    match identity {
        Some(identity) => inbox.push_identified(bytes, meta, identity),
        None => inbox.push(bytes, meta),
    }
}

/// A wait that ends with another, or at a timer if that is earlier.
pub(crate) fn shorter(wait: Wait, now: Duration, end: Duration, timer: Option<Duration>) -> Wait {
    let end = timer.map_or(end, |timer| timer.min(end));
    if end == Duration::MAX {
        return Wait::Forever;
    }
    let left = end.saturating_sub(now);
    match wait {
        Wait::No => Wait::No,
        _ if left.is_zero() => Wait::No,
        Wait::Spin(_) => Wait::Spin(left),
        _ => Wait::For(left),
    }
}

/// What a transport answers as the one inside it, of the type `T`, does.
macro_rules! as_inner {
    () => {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.inner.local_addr()
        }

        fn is_local_ip(addr: SocketAddr) -> bool {
            T::is_local_ip(addr)
        }

        fn kernel_drops(&self) -> u64 {
            self.inner.kernel_drops()
        }

        fn now(&self) -> Timestamp {
            self.inner.now()
        }
    };
}
pub(crate) use as_inner;
