//! Who asks: peers that keep their sockets, or requests that each have one of their own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rejoinder::sans_io::{ClientCore, RawResponse, SocketId};
use rejoinder::transport::{Connect, Inbox, MAX_DATAGRAM_BYTES, Outbox, SendReport};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{Client, ConfigError, RequestError, Retry, Timestamp, Transport, Wait};

use crate::load::numbers::{Numbered, Numbers};

/// What is to be remembered of a request until it has its result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// When it should have left.
    pub(crate) due: Duration,
    /// Which of the messages it is.
    pub(crate) message: usize,
    /// Whether its result counts.
    pub(crate) counts: bool,
}

/// The result of a request, and when it came.
pub(crate) struct Outcome<'a> {
    pub(crate) asked: Asked,
    pub(crate) at: Duration,
    pub(crate) answer: Result<&'a [u8], RequestError>,
}

/// Keeps requests in flight.
pub(crate) trait Asker {
    /// Whether there is a place for another request.
    fn has_place(&self) -> bool;

    /// How many requests have no result yet.
    fn in_flight(&self) -> usize;

    /// How many datagrams came that answered nothing.
    fn ignored(&self) -> u64;

    /// Puts a request among those that the next [`exchange`](Self::exchange) sends. `false` says
    /// that there is no place for it yet.
    fn ask(&mut self, now: Timestamp, message: &str, asked: Asked) -> Result<bool, RequestError>;

    /// Sends what is due, waits until something has arrived, and reports the results.
    fn exchange(&mut self, wait: Duration, tell: &mut impl FnMut(Outcome<'_>));
}

/// Peers with a socket each, for answers with ids.
///
/// It drives a [`ClientCore`] for each of them, as `Client` does for one, so that all can be waited
/// for together and one batch serves all of them in turn.
pub(crate) struct Peers {
    cores: Vec<ClientCore<Numbered>>,
    /// Each with the name that its core has for it, once that has sent.
    sockets: Vec<(Option<SocketId>, UdpTransport)>,
    connector: UdpConnector,
    target: SocketAddr,
    /// By peer and slot.
    asked: Vec<Vec<Asked>>,
    /// Whose turn it is: each peer as often as it may ask.
    places: VecDeque<usize>,
    in_flight: usize,
    numbers: Numbers,
    ready: Vec<usize>,
    inbox: Inbox,
    outbox: Outbox,
}

impl Peers {
    /// So many peers, each with at most `in_flight` requests at a time.
    pub(crate) fn new(
        target: SocketAddr,
        peers: usize,
        in_flight: usize,
        timeout: Duration,
        numbers: &Numbers,
    ) -> Result<Self, ConfigError> {
        let connector = UdpConnector::default();
        let core = |_| {
            Client::builder(Numbered::new(true, numbers.fork()))
                .timeout(timeout)
                .retry(Retry::never())
                .window(in_flight)
                .core(target)
        };
        let cores: Result<_, ConfigError> = (0..peers).map(core).collect();
        let socket = |_| Ok((None, connector.connect(target)?));
        let sockets: io::Result<_> = (0..peers).map(socket).collect();
        Ok(Self {
            cores: cores?,
            sockets: sockets?,
            connector,
            target,
            asked: vec![Vec::new(); peers],
            places: (0..in_flight).flat_map(|_| 0..peers).collect(),
            in_flight: 0,
            numbers: numbers.fork(),
            ready: Vec::with_capacity(peers),
            inbox: Inbox::new(INBOX, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(OUTBOX, MAX_DATAGRAM_BYTES),
        })
    }

    fn send_due(&mut self, now: Timestamp, peer: usize) {
        let (core, (name, socket)) = (&mut self.cores[peer], &mut self.sockets[peer]);
        while let Some(id) = core.poll_send(now, &mut self.outbox) {
            if name.is_some_and(|before| before != id) {
                match self.connector.connect(self.target) {
                    Ok(another) => *socket = another,
                    Err(error) => {
                        core.on_connect_error(now, id, &error);
                        self.outbox.clear();
                        continue;
                    }
                }
            }
            *name = Some(id);
            core.on_sent(now, &socket.send(&self.outbox));
            self.outbox.clear();
        }
        // One socket for each core: an old one is dropped when it is replaced.
        while core.poll_socket(now).is_some() {}
    }

    /// Takes what has arrived for a peer, and reports its results.
    fn receive(&mut self, peer: usize, wait: Wait, tell: &mut impl FnMut(Outcome<'_>)) {
        let (core, (name, socket)) = (&mut self.cores[peer], &mut self.sockets[peer]);
        let received = socket.recv(&mut self.inbox, wait);
        let now = socket.now();
        if let Some(id) = *name {
            if let Err(error) = received {
                thread::sleep(core.on_receive_error(now, id, &error));
            }
            core.on_receive(now, id, &mut self.inbox);
        }
        self.tell_results(peer, now.monotonic, tell);
    }

    fn tell_results(&mut self, peer: usize, at: Duration, tell: &mut impl FnMut(Outcome<'_>)) {
        while let Some((ticket, result)) = self.cores[peer].poll_result() {
            self.places.push_back(peer);
            self.in_flight -= 1;
            tell(Outcome {
                asked: self.asked[peer][ticket.slot()],
                at,
                answer: result.and_then(RawResponse::decode),
            });
        }
    }
}

impl Asker for Peers {
    fn has_place(&self) -> bool {
        !self.places.is_empty()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn ignored(&self) -> u64 {
        self.cores.iter().map(|core| core.stats().ignored).sum()
    }

    fn ask(&mut self, now: Timestamp, message: &str, asked: Asked) -> Result<bool, RequestError> {
        let Some(peer) = self.places.pop_front() else {
            return Ok(false);
        };
        let numbers = &self.numbers;
        let ticket = self.cores[peer].submit(now, message, &mut || Ok(numbers.next()))?;
        remember(&mut self.asked[peer], ticket.slot(), asked);
        self.in_flight += 1;
        Ok(true)
    }

    fn exchange(&mut self, wait: Duration, tell: &mut impl FnMut(Outcome<'_>)) {
        let now = Timestamp::system();
        let mut until = now.monotonic.saturating_add(wait);
        for peer in 0..self.cores.len() {
            let due = self.cores[peer].next_timer();
            if due.is_some_and(|due| due <= now.monotonic) {
                self.send_due(now, peer);
                // Those that have waited in vain.
                self.tell_results(peer, now.monotonic, tell);
            }
            if let Some(due) = self.cores[peer].next_timer() {
                until = until.min(due);
            }
        }
        let wait = until.saturating_sub(now.monotonic);
        if self.sockets.len() == 1 && wait >= LONG {
            // To wait on one socket takes one system call less, but not to the microsecond.
            self.receive(0, Wait::For(LONG), tell);
            return;
        }
        let sockets: Vec<_> = self.sockets.iter().map(|(_, socket)| socket).collect();
        self.ready.clear();
        let waited = self
            .connector
            .wait_any(&sockets, waiting(wait), &mut self.ready);
        if waited.is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            thread::sleep(PAUSE);
        }
        for at in 0..self.ready.len() {
            let peer = self.ready[at];
            self.receive(peer, Wait::No, tell);
        }
    }
}

/// A [`Client`] that opens a socket for each request, for answers without ids.
pub(crate) struct Sockets {
    client: Client<Punctual, Numbered>,
    asked: Vec<Asked>,
    most: usize,
}

impl Sockets {
    /// At most `in_flight` requests at a time.
    pub(crate) fn new(
        target: SocketAddr,
        in_flight: usize,
        timeout: Duration,
        numbers: &Numbers,
    ) -> io::Result<Self> {
        let client = Client::builder(Numbered::new(false, numbers.fork()))
            .timeout(timeout)
            .retry(Retry::never())
            .window(in_flight)
            .cooldown(timeout.saturating_mul(2))
            .with_connector(Punctual, target)?;
        Ok(Self {
            client,
            asked: Vec::new(),
            most: in_flight,
        })
    }
}

impl Asker for Sockets {
    fn has_place(&self) -> bool {
        self.client.in_flight() < self.most
    }

    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    fn ignored(&self) -> u64 {
        self.client.ignored()
    }

    fn ask(&mut self, _: Timestamp, message: &str, asked: Asked) -> Result<bool, RequestError> {
        match self.client.submit(message) {
            Ok(ticket) => {
                remember(&mut self.asked, ticket.slot(), asked);
                Ok(true)
            }
            // So many sockets wait for late answers that time must pass first.
            Err(RequestError::WindowFull { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn exchange(&mut self, wait: Duration, tell: &mut impl FnMut(Outcome<'_>)) {
        if self.client.in_flight() == 0 {
            thread::sleep(wait.min(PAUSE));
            return;
        }
        let mut wait = waiting(wait);
        while let Some((ticket, answer)) = self.client.collect(wait) {
            tell(Outcome {
                asked: self.asked[ticket.slot()],
                at: Timestamp::system().monotonic,
                answer,
            });
            wait = Wait::No;
        }
    }
}

/// Opens sockets that wake up on time: the system's own timeouts of a socket are those of its clock
/// tick, up to ten milliseconds too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Punctual;

#[derive(Debug)]
pub(crate) struct PunctualSocket(UdpTransport);

impl Connect for Punctual {
    type Transport = PunctualSocket;

    fn connect(&self, peer: SocketAddr) -> io::Result<PunctualSocket> {
        UdpConnector::default().connect(peer).map(PunctualSocket)
    }

    fn wait_any(
        &self,
        transports: &[&PunctualSocket],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let sockets: Vec<_> = transports.iter().map(|transport| &transport.0).collect();
        UdpConnector::default().wait_any(&sockets, wait, ready)
    }
}

impl Transport for PunctualSocket {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        UdpConnector::default().wait_any(&[&self.0], wait, &mut Vec::with_capacity(1))?;
        self.0.recv(inbox, Wait::No)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.0.send(outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn remember(all: &mut Vec<Asked>, slot: usize, asked: Asked) {
    if slot >= all.len() {
        all.resize(slot + 1, Asked::default());
    }
    all[slot] = asked;
}

fn waiting(wait: Duration) -> Wait {
    if wait.is_zero() {
        Wait::No
    } else {
        Wait::For(wait)
    }
}

/// Buffers to receive into: the system merges what comes together, so each can hold many datagrams.
const INBOX: usize = 16;
/// How many datagrams leave at once at most.
const OUTBOX: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);
/// The longest wait in one piece.
pub(crate) const LONG: Duration = Duration::from_millis(100);
