//! A transport that fails on demand.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rejoinder::transport::{Inbox, Outbox, SendReport};
use rejoinder::{Timestamp, Transport, Wait};

/// Wraps a transport, and fails where a test wants it to.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
}

/// The faults that are to come.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    receive: Queue,
    send: Queue,
}

/// Errors that can be copied: the code of the system, or the kind.
type Queue = Arc<Mutex<VecDeque<Fault>>>;

#[derive(Clone, Copy, Debug)]
struct Fault {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl Faults {
    /// The next attempts to receive fail.
    pub fn on_receive(&self, times: usize, error: &io::Error) {
        add(&self.receive, times, error);
    }

    /// The next datagrams fail to leave.
    pub fn on_send(&self, times: usize, error: &io::Error) {
        add(&self.send, times, error);
    }
}

impl<T> Faulty<T> {
    /// A transport without faults yet, and the handle that adds some.
    pub fn new(inner: T) -> (Self, Faults) {
        let faults = Faults::default();
        let transport = Self {
            inner,
            faults: faults.clone(),
        };
        (transport, faults)
    }
}

impl<T: Transport> Transport for Faulty<T> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        match next(&self.faults.receive) {
            Some(error) => Err(error),
            None => self.inner.recv(inbox, wait),
        }
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut sent = SendReport::default();
        for datagram in outbox.iter() {
            if let Some(error) = next(&self.faults.send) {
                sent.record_failure(error);
                continue;
            }
            let mut one = Outbox::new(1, datagram.bytes.len());
            one.push(datagram.peer, datagram.egress, datagram.bytes)
                .unwrap();
            sent.sent += self.inner.send(&one).sent;
        }
        sent
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

fn add(queue: &Queue, times: usize, error: &io::Error) {
    let fault = Fault {
        code: error.raw_os_error(),
        kind: error.kind(),
    };
    queue
        .lock()
        .unwrap()
        .extend(std::iter::repeat_n(fault, times));
}

fn next(queue: &Queue) -> Option<io::Error> {
    let fault = queue.lock().unwrap().pop_front()?;
    Some(match fault.code {
        Some(code) => io::Error::from_raw_os_error(code),
        None => fault.kind.into(),
    })
}
