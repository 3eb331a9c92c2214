//! A server's engine that clients talk to directly, from addresses of their choice.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rejoinder::codec::{Tagged, Text};
use rejoinder::transport::{Connect, Datagram, Egress, Inbox, Meta, Outbox, SendReport};
use rejoinder::{Client, Timestamp, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, DtlsStats, Engine, SendError};

use crate::support::server_addr;

/// An engine with an echo behind it, and a clock.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) payloads: Vec<(SocketAddr, Vec<u8>)>,
    /// The payloads' metadata.
    pub(crate) metas: Vec<Meta>,
    outbox: Outbox,
}

impl Server {
    pub(crate) fn start(engine: Engine) -> Shared {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let outbox = engine.outbox();
        Shared(Arc::new(Mutex::new(Self {
            engine,
            now: Timestamp::new(Duration::from_secs(1_000), wall),
            payloads: Vec::new(),
            metas: Vec::new(),
            outbox,
        })))
    }

    /// Takes a datagram, and returns what is sent back.
    pub(crate) fn receive(&mut self, peer: SocketAddr, bytes: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        let datagram = Datagram::new(bytes, Meta::new(peer));
        let mut arrived = Vec::new();
        let mut deliver = |payload: rejoinder_dtls::Delivered<'_>| {
            arrived.push((payload.bytes.to_vec(), payload.meta));
        };
        self.engine
            .receive(self.now, &datagram, &mut self.outbox, &mut deliver);
        for (payload, meta) in arrived {
            let mut response = payload.clone();
            if let [mark @ b'?', ..] = response.as_mut_slice() {
                *mark = b'!';
            }
            let sent = self
                .engine
                .send(self.now, peer, meta.egress(), &response, &mut self.outbox);
            sent.unwrap();
            self.payloads.push((peer, payload));
            self.metas.push(meta);
        }
        self.drain()
    }

    /// Sends a payload, and returns what leaves.
    pub(crate) fn send(
        &mut self,
        peer: SocketAddr,
        egress: Egress,
        payload: &[u8],
    ) -> Result<Vec<(SocketAddr, Vec<u8>)>, SendError> {
        self.engine
            .send(self.now, peer, egress, payload, &mut self.outbox)?;
        Ok(self.drain())
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        self.now = Timestamp::new(self.now.monotonic + time, self.now.wall + time);
        self.engine.on_timer(self.now, &mut self.outbox);
        self.drain()
    }

    fn drain(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let all = self.outbox.iter();
        let all = all.map(|one| (one.peer, one.bytes.to_vec())).collect();
        self.outbox.clear();
        all
    }
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Server>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> DtlsStats {
        let stats = self.lock().engine.stats().clone();
        assert!(stats.conserves(), "{stats:?}");
        stats
    }

    /// A client at an address, and the pipe through which its datagrams go.
    pub(crate) fn client(&self, addr: &str, config: ClientConfig) -> (PipeClient, Pipe) {
        let pipe = Pipe {
            server: self.clone(),
            addr: addr.parse().unwrap(),
            state: Arc::new(Mutex::new(State {
                entropy: self.lock().engine.stats().received,
                ..State::default()
            })),
        };
        let connector = config.connector(pipe.clone(), &Tagged(Text)).unwrap();
        let client = Client::new(connector, Tagged(Text), server_addr());
        (client, pipe)
    }
}

pub(crate) type PipeClient = Client<Connector<Pipe>, Tagged<Text>>;

#[derive(Clone)]
pub(crate) struct Pipe {
    server: Shared,
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    queue: VecDeque<Vec<u8>>,
    /// What the client has sent, whether or not it arrived.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Nothing arrives at the server any more.
    pub(crate) is_cut: bool,
    entropy: u64,
}

impl Pipe {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Connect for Pipe {
    type Transport = Self;

    fn connect(&self, _: SocketAddr) -> io::Result<Self> {
        Ok(self.clone())
    }

    fn now(&self) -> Timestamp {
        self.server.lock().now
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        for byte in bytes {
            state.entropy = state.entropy.wrapping_mul(6_364_136_223_846_793_005);
            state.entropy += u64::from(self.addr.port()) + 1;
            *byte = (state.entropy >> 56) as u8;
        }
        Ok(())
    }

    fn wait_any(&self, all: &[&Self], wait: Wait, ready: &mut Vec<usize>) -> io::Result<()> {
        if self.state().queue.is_empty() {
            let time = wait.timeout().unwrap_or(Duration::from_secs(1));
            self.server.lock().advance(time);
        } else {
            ready.extend(0..all.len());
        }
        Ok(())
    }
}

impl Transport for Pipe {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let next = self.state().queue.pop_front();
        if let Some(bytes) = next {
            inbox.push(&bytes, Meta::new(server_addr()));
            return Ok(1);
        }
        let time = wait.timeout().unwrap_or(Duration::from_secs(1));
        self.server.lock().advance(time);
        Ok(0)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        for datagram in outbox.iter() {
            self.state().sent.push(datagram.bytes.to_vec());
            if self.state().is_cut {
                continue;
            }
            let replies = self.server.lock().receive(self.addr, datagram.bytes);
            let mine = replies.into_iter().filter(|(peer, _)| *peer == self.addr);
            self.state().queue.extend(mine.map(|(_, bytes)| bytes));
        }
        SendReport::accepted(outbox.len())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn now(&self) -> Timestamp {
        self.server.lock().now
    }
}
