//! The network between an engine and its clients.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rejoinder::transport::{Connect, Inbox, Meta, Outbox, SendReport};
use rejoinder::{Timestamp, Transport, Wait};

/// Where the datagrams of a client go, and come from.
#[derive(Clone)]
pub(super) struct Pipe {
    pub(super) now: Rc<Cell<Timestamp>>,
    pub(super) addr: SocketAddr,
    pub(super) queues: Rc<RefCell<Queues>>,
}

#[derive(Default)]
pub(super) struct Queues {
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) arrived: VecDeque<Vec<u8>>,
}

impl Connect for Pipe {
    type Transport = Self;

    fn connect(&self, _: SocketAddr) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn now(&self) -> Timestamp {
        self.now.get()
    }
}

impl Transport for Pipe {
    fn recv(&mut self, inbox: &mut Inbox, _: Wait) -> io::Result<usize> {
        let mut received = 0;
        let arrived = &mut self.queues.borrow_mut().arrived;
        while inbox.has_space()
            && let Some(bytes) = arrived.pop_front()
        {
            inbox.push(&bytes, Meta::new(server_addr()));
            received += 1;
        }
        Ok(received)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut queues = self.queues.borrow_mut();
        let sent = outbox.iter().map(|datagram| datagram.bytes.to_vec());
        queues.sent.extend(sent);
        SendReport::accepted(outbox.len())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn now(&self) -> Timestamp {
        self.now.get()
    }
}

/// A moment at which the certificates are valid: 2040.
pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_208_988_800)
}

pub(super) fn server_addr() -> SocketAddr {
    ([192, 0, 2, 1], 5_684).into()
}
