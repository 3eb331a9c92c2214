//! A client's engine: one association with one server, which begins when there is something to send.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rejoinder::Timestamp;
use rejoinder::transport::{Datagram, Egress, Outbox, Outgoing};

use crate::association::{Association, Credentials, Emitted, Input, Policy, Progress};
use crate::clock::Clock;
use crate::driver::{Driver, Machine};
use crate::engine::{Delivered, SendError};
use crate::failure::Failure;
use crate::record::Record;
use crate::settings::{Configs, SCRATCH_BYTES, Settings};

/// What all sessions of a client have in common.
pub(crate) struct Client {
    pub(crate) configs: Configs,
    pub(crate) credentials: Credentials,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
}

/// One association with one server.
pub(crate) struct Session {
    client: Arc<Client>,
    peer: SocketAddr,
    seed: Option<u64>,
    state: State,
    /// What is to be sent once the handshake is over.
    waiting: VecDeque<Vec<u8>>,
    /// What the driver has not been given yet.
    error: Option<io::Error>,
    scratch: Vec<u8>,
}

enum State {
    /// The next payload begins a handshake.
    Idle,
    Handshake(Box<Association>),
    Open(Box<Association>),
    /// A handshake failed, and the next one begins later.
    Refused {
        until: Duration,
        text: String,
    },
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is in the outbox.
    Queued,
    /// It waits for the handshake.
    Kept,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>, peer: SocketAddr, seed: Option<u64>) -> Self {
        Self {
            client,
            peer,
            seed,
            state: State::Idle,
            waiting: VecDeque::new(),
            error: None,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Sends a payload, or keeps it until the handshake is over.
    pub(crate) fn send(
        &mut self,
        now: Timestamp,
        datagram: &Outgoing<'_>,
        outbox: &mut Outbox,
    ) -> io::Result<Sent> {
        let (peer, payload) = (datagram.peer, datagram.bytes);
        if peer != self.peer {
            return Err(SendError::NoAssociation(peer).into());
        }
        let (bytes, max_bytes) = (payload.len(), self.client.settings.max_payload_bytes);
        if bytes > max_bytes {
            return Err(SendError::TooLong { bytes, max_bytes }.into());
        }
        if let State::Refused { until, text } = &self.state {
            if now.monotonic < *until {
                return Err(refused(text));
            }
            self.state = State::Idle;
        }
        if let State::Open(_) = self.state {
            let progress = self.step(now, Input::Payload(payload), outbox, &mut |_| {});
            return match progress.failure {
                Some(failure) => Err(refused(&failure.text)),
                None => Ok(Sent::Queued),
            };
        }
        // A request that is sent again in the meantime is sent once.
        if !self.waiting.iter().any(|waiting| waiting == payload) {
            if self.waiting.len() == MAX_WAITING {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.waiting.push_back(payload.to_vec());
        }
        if matches!(self.state, State::Idle) {
            let client = &self.client;
            let config = client.configs.get(self.seed);
            // The next handshake of this session is another one.
            self.seed = self.seed.map(|seed| seed.wrapping_add(1));
            let clock = Clock::new(now.monotonic);
            let association = Association::client(&config, &client.credentials, clock);
            self.state = State::Handshake(Box::new(association));
            self.step(now, Input::Time, outbox, &mut |_| {});
        }
        Ok(Sent::Kept)
    }

    /// Closes the association, if there is one.
    pub(crate) fn close(&mut self, now: Timestamp, outbox: &mut Outbox) {
        if matches!(self.state, State::Open(_)) {
            self.step(now, Input::Close, outbox, &mut |_| {});
        }
        self.state = State::Idle;
    }

    pub(crate) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    fn step(
        &mut self,
        now: Timestamp,
        input: Input<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> Progress {
        let (State::Handshake(association) | State::Open(association)) = &mut self.state else {
            return Progress::default();
        };
        let peer = self.peer;
        // A client's transport has one way to its server.
        let egress = Egress::default();
        let mut emit = |emitted: Emitted<'_>| match emitted {
            // Without room it is lost, as on any network.
            Emitted::Packet(packet) => drop(outbox.push(peer, egress, packet)),
            Emitted::Payload(payload, _) => deliver(payload),
        };
        let (client, scratch) = (&self.client, &mut self.scratch);
        let progress = association.step(now, &client.policy, input, scratch, &mut emit);
        if let Some(failure) = &progress.failure {
            self.fail(now, failure);
        } else if progress.closed {
            self.state = State::Idle;
            let text = "the server has closed the association";
            self.error = Some(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        } else if progress.connected {
            self.open(now, outbox);
        }
        progress
    }

    /// Sends what has waited for the handshake.
    fn open(&mut self, now: Timestamp, outbox: &mut Outbox) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        if let State::Handshake(association) = state {
            self.state = State::Open(association);
        }
        for payload in std::mem::take(&mut self.waiting) {
            let progress = self.step(now, Input::Payload(&payload), outbox, &mut |_| {});
            if progress.failure.is_some() {
                return;
            }
        }
    }

    fn fail(&mut self, now: Timestamp, failure: &Failure) {
        self.waiting.clear();
        self.error = Some(refused(&failure.text));
        self.state = State::Refused {
            until: now.monotonic.saturating_add(PAUSE),
            text: failure.text.clone(),
        };
    }
}

impl Driver<Session> {
    /// Queues a payload, protected, or keeps it until the handshake is over.
    pub(crate) fn protect(&mut self, now: Timestamp, datagram: &Outgoing<'_>) -> io::Result<Sent> {
        self.machine.send(now, datagram, &mut self.replies)
    }
}

impl Machine for Session {
    /// All that has waited for a handshake leaves in one step, for which the outbox must be empty.
    const BATCHES: bool = false;

    fn outbox(&self) -> Outbox {
        self.client.settings.outbox(OUTBOX_DATAGRAMS)
    }

    fn receive(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) {
        let meta = datagram.meta;
        let is_record = !meta.truncated && Record::parse(datagram.bytes).is_some();
        if meta.peer != self.peer || !is_record {
            return;
        }
        let input = Input::Datagram(datagram.bytes);
        self.step(now, input, outbox, &mut |bytes| {
            deliver(Delivered {
                bytes,
                meta,
                identity: None,
            });
        });
    }

    fn next_timer(&self) -> Option<Duration> {
        match &self.state {
            State::Handshake(association) => Some(association.due()),
            // What an open association wants can wait for the next datagram.
            State::Open(_) | State::Idle | State::Refused { .. } => None,
        }
    }

    fn on_timer(&mut self, now: Timestamp, outbox: &mut Outbox) {
        if self.next_timer().is_some_and(|due| due <= now.monotonic) {
            self.step(now, Input::Time, outbox, &mut |_| {});
        }
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }
}

fn refused(text: &str) -> io::Error {
    let text = format!("no association with the server: {text}");
    io::Error::new(io::ErrorKind::HostUnreachable, text)
}

/// So many requests wait for a handshake; further ones are sent again by their client.
const MAX_WAITING: usize = 1_024;
/// Room for a handshake's flights and for what has waited.
const OUTBOX_DATAGRAMS: usize = MAX_WAITING + 64;
/// After a failed handshake. A server that has refused once is not asked for each request.
const PAUSE: Duration = Duration::from_secs(1);
