//! The input of an engine and of clients alone, without a network between them.

mod client;
mod edit;
mod renewal;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::transport::{Datagram, Meta, Outbox};
use rejoinder::{Identity, Timestamp, Transport, Wait};
use rejoinder_dtls::{Dtls, DtlsStats, Engine};

use self::client::Client;
use self::edit::{cookie_of, cookie_of_hello, edit, is_message, with_cookie};
use super::pipe::start;
use super::{Input, client_addr, key};

/// An engine with an established association, a half-open one, and none, and the three clients of them. They are fed
/// with datagrams one by one: bytes of the input, and real flights and records, changed in places. Nothing is
/// delivered that was not sent, or twice; what is not authentic ends no association; only the holder of the key
/// establishes one; no address gets more than came from it before it is verified; counters and tables keep within
/// their bounds.
pub fn dtls_input(data: &[u8]) {
    let stage = STAGE.take().unwrap_or_else(|| Box::leak(Stage::new()));
    let mut input = Input(data);
    for _ in 0..MAX_STEPS {
        if input.0.is_empty() {
            break;
        }
        stage.step(&mut input);
    }
    stage.end();
    STAGE.set(Some(stage));
}

// It is leaked: clients that close when the thread ends find none of its random numbers.
thread_local! {
    static STAGE: Cell<Option<&'static mut Stage>> = const { Cell::new(None) };
}

/// What runs share. A run replaces what it has used up.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Stage {
    engine: Engine,
    now: Timestamp,
    outbox: Outbox,
    received: u64,
    runs: u64,
    /// The first run that may close the association.
    next_close: u64,
    /// By [`OPEN`], [`HALF`] and [`FRESH`].
    clients: [Client; 3],
    materials: [Vec<u8>; MATERIALS],
    /// Steps of handshakes since they were renewed.
    steps: usize,
    /// Whether the client of the half-open association has sent its last flight.
    has_finished: bool,
    /// Whether a handshake has ended in this run.
    is_used_up: bool,
    /// Whether former runs have used up handshakes. They are renewed when one needs them.
    is_worn: bool,
    /// Whether one end has closed the association that is open.
    has_closed: bool,
    /// Associations that the test or its clients have closed.
    closed: u64,
    /// How many payloads there were: each has a number.
    numbered: u64,
    /// What clients have sent, and what of it has not arrived.
    requests: Vec<(SocketAddr, Vec<u8>)>,
    /// What the engine has sent to the client with the association, and what of it has not arrived.
    responses: Vec<Vec<u8>>,
    /// Payloads of the records among the materials that have not arrived.
    requests_at_hand: [Vec<u8>; 2],
    responses_at_hand: [Vec<u8>; 2],
    /// Addresses of this run.
    accounts: Vec<Account>,
    /// Addresses that have shown a cookie since the handshakes were renewed, and those of associations.
    verified: Vec<SocketAddr>,
    /// The last cookies, and where they went.
    cookies: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// What went from an address to the engine, and back.
struct Account {
    addr: SocketAddr,
    received_bytes: usize,
    sent_bytes: usize,
}

impl Stage {
    fn new() -> Box<Self> {
        let engine = Dtls::builder()
            .gate(())
            .psk(|identity: &[u8]| {
                let is_known = matches!(identity, b"0" | b"1" | b"2");
                is_known.then(|| key(identity[0]))
            })
            .max_handshakes(MAX_HANDSHAKES)
            .max_associations(MAX_ASSOCIATIONS)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .idle_timeout(Duration::from_secs(86_400))
            .engine()
            .expect("the settings are in range");
        let mut stage = Box::new(Self {
            outbox: engine.outbox(),
            engine,
            now: begin(),
            received: 0,
            runs: 0,
            next_close: 0,
            clients: [Client::new(0), Client::new(1), Client::new(2)],
            materials: [const { Vec::new() }; MATERIALS],
            steps: 0,
            has_finished: false,
            is_used_up: true,
            is_worn: true,
            has_closed: true,
            closed: 0,
            numbered: 0,
            requests: Vec::new(),
            responses: Vec::new(),
            requests_at_hand: [const { Vec::new() }; 2],
            responses_at_hand: [const { Vec::new() }; 2],
            accounts: Vec::new(),
            verified: vec![client_addr(0)],
            cookies: VecDeque::new(),
        });
        stage.materials[ALERT] = [&RECORD[..], &[0, 2, 2, 40]].concat();
        stage.materials[CLOSE] = [&RECORD[..], &[0, 2, 1, 0]].concat();
        stage.renew();
        stage.renew_handshakes();
        stage.next_close = 0;
        stage
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let action = input.byte();
        let (target, changes, kind) = (action % 8, (action >> 3) % 4, action >> 5);
        if kind == 7 {
            return self.act(input);
        }
        let mut bytes = self.piece(input);
        if kind == 6 {
            bytes.extend(self.piece(input));
        }
        for _ in 0..changes {
            edit(&mut bytes, input);
        }
        match target {
            0..=4 => {
                let from = match target {
                    4 => input.addr(),
                    _ => client_addr(target),
                };
                if target > 0 {
                    self.renew_handshakes();
                }
                self.arrive(from, &bytes, kind == 5);
            }
            _ => self.deliver(usize::from(target - 5), &bytes),
        }
    }

    /// A real datagram, or bytes of the input.
    fn piece(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let at = usize::from(input.byte()) % (MATERIALS + 4);
        if at < OPEN_HELLO {
            self.renew_handshakes();
        }
        if at == HALF_LAST {
            self.finish_flight();
        }
        match self.materials.get(at) {
            Some(material) => material.clone(),
            None => input.bytes().to_vec(),
        }
    }

    /// Time passes; or seldom, one end closes the open association.
    fn act(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0xa5 if self.runs >= self.next_close => {
                self.has_closed = true;
                self.clients[OPEN].transport = None;
                self.materials[LATEST] = self.clients[OPEN].sent();
            }
            0x5a if self.runs >= self.next_close => {
                let addr = client_addr(0);
                if self.engine.close(self.now, addr, &mut self.outbox) {
                    self.closed += 1;
                    self.has_closed = true;
                    self.materials[LATEST] = self.queued();
                }
            }
            byte => self.wait(Duration::from_millis(u64::from(byte) << (byte % 5))),
        }
    }

    fn wait(&mut self, span: Duration) {
        self.renew_handshakes();
        self.steps += 1;
        let before = self.engine.stats().expired;
        self.now = later(self.now, span);
        self.engine.on_timer(self.now, &mut self.outbox);
        let next = self.engine.next_timer();
        assert!(
            next.is_none_or(|next| next > self.now.monotonic),
            "{next:?}"
        );
        for datagram in self.outbox.iter() {
            let addr = datagram.peer;
            assert!(self.verified.contains(&addr), "{addr} is not verified");
        }
        self.is_used_up |= self.engine.stats().expired > before;
        self.outbox.clear();
        for at in 0..self.clients.len() {
            let clock = &self.clients[at].pipe.now;
            clock.set(later(clock.get(), span));
            self.poll(at);
        }
        self.check();
    }

    /// A datagram arrives at the engine. A request for a cookie is complied with.
    fn arrive(&mut self, from: SocketAddr, bytes: &[u8], complies: bool) {
        let before = self.engine.stats().clone();
        let datagram = Datagram::new(bytes, Meta::new(from));
        let (requests, is_known) = (&mut self.requests, from == client_addr(0));
        self.engine
            .receive(self.now, &datagram, &mut self.outbox, &mut |delivered| {
                let identity: &[u8] = if is_known { b"0" } else { b"1" };
                let named = delivered.identity.map(Identity::as_bytes);
                assert_eq!(named, Some(identity), "{from}");
                let sent = requests
                    .iter()
                    .position(|(addr, payload)| *addr == from && payload == delivered.bytes);
                let sent = sent.unwrap_or_else(|| panic!("not sent: {:?}", delivered.bytes));
                requests.swap_remove(sent);
            });
        self.received += 1;
        self.check();
        let after = self.engine.stats();
        let has_begun = after.begun > before.begun;
        self.steps += usize::from(after.handshake > before.handshake);
        let ended = |stats: &DtlsStats| {
            stats.established + stats.failed_handshakes() + stats.displaced_handshakes
        };
        self.is_used_up |= ended(after) > ended(&before);
        let may_establish = from == client_addr(1) || (is_known && self.has_closed);
        assert!(
            may_establish || after.established == before.established,
            "{from} has no key"
        );
        if after.closed > before.closed {
            assert!(self.has_closed && is_known, "{from} closed nothing");
        }
        if has_begun {
            let (_, shown) = cookie_of_hello(bytes);
            let mut cookies = self.cookies.iter().rev();
            let is_own = cookies.any(|(addr, cookie)| *addr == from && cookie == shown);
            assert!(is_own, "no cookie of {from}");
            self.verified.push(from);
        }
        self.charge(from, bytes.len());
        if self.outbox.is_empty() {
            return;
        }
        let reply = self.queued();
        if is_message(&reply, 3) {
            if self.cookies.len() == MAX_COOKIES {
                self.cookies.pop_front();
            }
            self.cookies.push_back((from, cookie_of(&reply).to_vec()));
            if complies {
                let second = with_cookie(bytes, &reply);
                self.arrive(from, &second, false);
            }
        }
        self.materials[LATEST] = reply;
    }

    /// Counts what went from an address and back to it.
    fn charge(&mut self, from: SocketAddr, received_bytes: usize) {
        assert!(self.outbox.len() <= Engine::<()>::MAX_REPLIES);
        let known = self.accounts.iter().position(|one| one.addr == from);
        let known = known.unwrap_or_else(|| {
            self.accounts.push(Account {
                addr: from,
                received_bytes: 0,
                sent_bytes: 0,
            });
            self.accounts.len() - 1
        });
        let account = &mut self.accounts[known];
        account.received_bytes += received_bytes;
        for datagram in self.outbox.iter() {
            assert_eq!(datagram.peer, from);
            account.sent_bytes += datagram.bytes.len();
        }
        assert!(
            self.verified.contains(&from) || account.sent_bytes <= account.received_bytes,
            "{from} is not verified"
        );
    }

    /// Takes what the engine has queued.
    fn queued(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for datagram in self.outbox.iter() {
            bytes.extend_from_slice(datagram.bytes);
        }
        self.outbox.clear();
        bytes
    }

    fn check(&self) {
        let stats = self.engine.stats();
        assert!(stats.conserves(), "{stats:?}");
        assert_eq!(stats.received, self.received);
        assert!(stats.half_open <= MAX_HANDSHAKES as u64, "{stats:?}");
        assert!(stats.associations <= MAX_ASSOCIATIONS as u64, "{stats:?}");
        assert_eq!(stats.lost_replies, 0, "the outbox has room for all");
        let ended = stats.broken + stats.idle + stats.displaced + stats.replaced;
        assert_eq!(ended, 0, "{stats:?}");
        assert!(self.has_closed || stats.closed == self.closed, "{stats:?}");
        let identity = |at| self.engine.identity(client_addr(at));
        assert!(self.has_closed || identity(0).is_some_and(|one| one.as_bytes() == b"0"));
        assert!(identity(2).is_none() && identity(3).is_none());
    }

    /// A datagram arrives at a client.
    fn deliver(&mut self, at: usize, bytes: &[u8]) {
        if at != OPEN {
            self.renew_handshakes();
        }
        if at == HALF {
            self.finish_flight();
        }
        let queues = &self.clients[at].pipe.queues;
        queues.borrow_mut().arrived.push_back(bytes.to_vec());
        self.clients[at].steps += 1;
        self.poll(at);
    }

    fn poll(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(transport) = &mut client.transport else {
            return;
        };
        if let Err(error) = transport.recv(&mut client.inbox, Wait::No) {
            assert!(self.has_closed || at != OPEN, "{error}");
            client.is_used_up = true;
        }
        while let Some(payload) = client.inbox.pop() {
            let sent = self.responses.iter().position(|one| one == payload.bytes);
            let sent = sent.unwrap_or_else(|| panic!("not sent: {:?}", payload.bytes));
            assert_eq!(at, OPEN);
            self.responses.swap_remove(sent);
        }
        let reply = client.sent();
        if !reply.is_empty() {
            client.steps += 1;
            // An association, which began with that.
            client.is_used_up |= reply[0] == 23;
            assert!(reply.len() <= MAX_FLIGHT_BYTES, "{}", reply.len());
            self.materials[LATEST] = reply;
        }
    }

    /// Has the client of the half-open association answer the engine's flight. Most runs do without that.
    fn finish_flight(&mut self) {
        if self.has_finished || self.clients[HALF].steps > 0 {
            return;
        }
        self.has_finished = true;
        let latest = std::mem::take(&mut self.materials[LATEST]);
        for (material, reply) in [(HALF_VERIFY, HALF_HELLO), (HALF_FLIGHT, HALF_LAST)] {
            let client = &mut self.clients[HALF];
            let bytes = self.materials[material].clone();
            client.pipe.queues.borrow_mut().arrived.push_back(bytes);
            self.poll(HALF);
            let sent = std::mem::take(&mut self.materials[LATEST]);
            if reply == HALF_HELLO {
                assert_eq!(sent, self.materials[HALF_HELLO]);
            }
            self.materials[reply] = sent;
        }
        self.materials[LATEST] = latest;
    }
}

fn begin() -> Timestamp {
    Timestamp::new(Duration::from_secs(1_000), start())
}

fn later(now: Timestamp, span: Duration) -> Timestamp {
    Timestamp::new(now.monotonic + span, now.wall + span)
}

/// The client with an association, the one with a half-open one, and the one with none.
const OPEN: usize = 0;
const HALF: usize = 1;
const FRESH: usize = 2;

/// Datagrams of each kind, as they are now.
const MATERIALS: usize = 20;
const FRESH_FIRST: usize = 0;
const FRESH_VERIFY: usize = 1;
const FRESH_HELLO: usize = 2;
const HALF_FIRST: usize = 3;
const HALF_VERIFY: usize = 4;
const HALF_HELLO: usize = 5;
/// Of the engine.
const HALF_FLIGHT: usize = 6;
/// The client's last one, which the engine has not seen.
const HALF_LAST: usize = 7;
const OPEN_HELLO: usize = 8;
const OPEN_LAST: usize = 9;
const OPEN_FINISHED: usize = 10;
/// Two that have not arrived.
const REQUEST: usize = 11;
const RESPONSE: usize = 13;
/// That have.
const OLD_REQUEST: usize = 15;
const OLD_RESPONSE: usize = 16;
/// In the clear.
const ALERT: usize = 17;
const CLOSE: usize = 18;
/// What engine or client sent last.
const LATEST: usize = 19;

/// An alert in the clear, up to its length.
const RECORD: [u8; 11] = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9];

const MAX_STEPS: usize = 6;
/// Steps after which a handshake that goes on is renewed all the same.
const MAX_WEAR: usize = 24;
/// More than the engine makes while one is valid: time passes with each renewal.
const MAX_COOKIES: usize = 4_096;
/// What a client sends in answer to a datagram: a flight has up to 250.
const MAX_FLIGHT_BYTES: usize = 1_024;
/// Payloads of one client that have not arrived.
const MAX_WAITING: usize = 64;
const MAX_HANDSHAKES: usize = 4;
const MAX_ASSOCIATIONS: usize = 3;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);
const EXCHANGE_EVERY: u64 = 256;
const HANDSHAKE_EVERY: u64 = 1_024;
