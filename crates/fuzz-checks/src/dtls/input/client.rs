//! A client of the engine, whose datagrams go nowhere by themselves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rejoinder::codec::{Raw, Tagged};
use rejoinder::transport::{Connect, Inbox, Outbox};
use rejoinder::{Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, DtlsClient};

use super::{begin, later};
use crate::dtls::pipe::{Pipe, Queues, server_addr};
use crate::dtls::{client_addr, key};

pub(super) struct Client {
    pub(super) connector: Connector<Pipe>,
    pub(super) pipe: Pipe,
    pub(super) transport: Option<DtlsClient<Pipe>>,
    pub(super) inbox: Inbox,
    /// Steps of its handshake since it began.
    pub(super) steps: usize,
    pub(super) is_used_up: bool,
}

impl Client {
    pub(super) fn new(at: u8) -> Self {
        let pipe = Pipe {
            now: Rc::new(Cell::new(begin())),
            addr: client_addr(at),
            queues: Rc::new(RefCell::new(Queues::default())),
        };
        let identity = [b'0' + at];
        let connector = ClientConfig::psk(identity, key(identity[0]))
            .connector(pipe.clone(), &Tagged(Raw))
            .expect("the settings are in range");
        Self {
            connector,
            pipe,
            transport: None,
            inbox: Inbox::new(8, 2_048),
            steps: 0,
            is_used_up: true,
        }
    }

    pub(super) fn open(&mut self) {
        // What the former one sends when it closes is not used.
        self.transport = None;
        self.pipe.queues.take();
        let transport = self.connector.connect(server_addr());
        self.transport = Some(transport.expect("it opens nothing"));
    }

    /// Ends with an alert, so that the next payload begins a handshake.
    pub(super) fn give_up(&mut self, alert: &[u8]) {
        let Some(transport) = &mut self.transport else {
            return self.open();
        };
        let queues = &self.pipe.queues;
        queues.borrow_mut().arrived.push_back(alert.to_vec());
        let _ = transport.recv(&mut self.inbox, Wait::No);
        let pause = Duration::from_secs(2);
        self.pipe.now.set(later(self.pipe.now.get(), pause));
        queues.take();
    }

    /// Sends a payload, and returns what leaves.
    pub(super) fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut outbox = Outbox::new(1, 256);
        outbox
            .push(server_addr(), None, payload)
            .expect("it has room for one");
        let transport = self.transport.as_mut().expect("it is open");
        assert_eq!(transport.send(&outbox).sent, 1);
        self.sent()
    }

    /// What has left since the last call.
    pub(super) fn sent(&self) -> Vec<u8> {
        self.pipe.queues.take().sent.concat()
    }
}
