//! The input of an engine and of clients alone, without a network between them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rejoinder::codec::{Raw, Tagged};
use rejoinder::transport::{Connect, Datagram, Egress, Inbox, Meta, Outbox};
use rejoinder::{Timestamp, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, Dtls, DtlsClient, Engine};

use super::pipe::{Pipe, Queues, server_addr, start};
use super::{Input, changed, client_addr, key};

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
struct Stage {
    engine: Engine,
    now: Timestamp,
    outbox: Outbox,
    received: u64,
    runs: u64,
    /// By [`OPEN`], [`HALF`] and [`FRESH`].
    clients: [Client; 3],
    materials: [Vec<u8>; MATERIALS],
    /// Whether the handshakes of the engine are no longer those that a run begins with.
    has_stepped: bool,
    /// Whether a former run has left handshakes that are no longer those. They are renewed when they are needed.
    is_used: bool,
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
}

/// What went from an address to the engine, and back.
struct Account {
    addr: SocketAddr,
    received_bytes: usize,
    sent_bytes: usize,
    is_verified: bool,
}

struct Client {
    connector: Connector<Pipe>,
    pipe: Pipe,
    transport: Option<DtlsClient<Pipe>>,
    inbox: Inbox,
    /// Whether it is no longer in the state that a run begins with.
    has_stepped: bool,
}

impl Client {
    fn new(at: u8) -> Self {
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
            has_stepped: false,
        }
    }

    fn open(&mut self) {
        // What the former one sends when it closes is not used.
        self.transport = None;
        self.pipe.queues.take();
        let transport = self.connector.connect(server_addr());
        self.transport = Some(transport.expect("it opens nothing"));
        self.has_stepped = false;
    }

    /// Ends with an alert, so that the next payload begins a handshake.
    fn give_up(&mut self, alert: &[u8]) {
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
    fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut outbox = Outbox::new(1, 256);
        outbox
            .push(server_addr(), None, payload)
            .expect("it has room for one");
        let transport = self.transport.as_mut().expect("it is open");
        assert_eq!(transport.send(&outbox).sent, 1);
        self.sent()
    }

    /// What has left since the last call.
    fn sent(&self) -> Vec<u8> {
        self.pipe.queues.take().sent.concat()
    }
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
            clients: [Client::new(0), Client::new(1), Client::new(2)],
            materials: [const { Vec::new() }; MATERIALS],
            has_stepped: true,
            is_used: true,
            has_closed: true,
            closed: 0,
            numbered: 0,
            requests: Vec::new(),
            responses: Vec::new(),
            requests_at_hand: [const { Vec::new() }; 2],
            responses_at_hand: [const { Vec::new() }; 2],
            accounts: Vec::new(),
        });
        for client in &mut stage.clients {
            client.has_stepped = true;
        }
        stage.materials[ALERT] = [&RECORD[..], &[0, 2, 2, 40]].concat();
        stage.materials[CLOSE] = [&RECORD[..], &[0, 2, 1, 0]].concat();
        stage.renew();
        stage.renew_handshakes();
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
            0xa5 => {
                self.has_closed = true;
                self.clients[OPEN].transport = None;
                self.materials[LATEST] = self.clients[OPEN].sent();
            }
            0x5a => {
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
        self.has_stepped = true;
        self.now = later(self.now, span);
        self.engine.on_timer(self.now, &mut self.outbox);
        let next = self.engine.next_timer();
        assert!(
            next.is_none_or(|next| next > self.now.monotonic),
            "{next:?}"
        );
        for datagram in self.outbox.iter() {
            let is_verified = datagram.peer == client_addr(1)
                || self
                    .accounts
                    .iter()
                    .any(|one| one.addr == datagram.peer && one.is_verified);
            assert!(is_verified, "{} is not verified", datagram.peer);
        }
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
                let named = delivered.identity.map(|one| one.as_bytes());
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
        self.has_stepped |= has_begun
            || after.established > before.established
            || (from == client_addr(1) && after.handshake > before.handshake);
        let may_establish = from == client_addr(1) || (is_known && self.has_closed);
        assert!(
            may_establish || after.established == before.established,
            "{from} has no key"
        );
        if after.closed > before.closed {
            assert!(self.has_closed && is_known, "{from} closed nothing");
        }
        self.charge(from, bytes.len(), has_begun);
        if self.outbox.is_empty() {
            return;
        }
        let reply = self.queued();
        if complies && is_message(&reply, 3) {
            let second = with_cookie(bytes, &reply);
            self.arrive(from, &second, false);
        }
        self.materials[LATEST] = reply;
    }

    /// Counts what went from an address and back to it.
    fn charge(&mut self, from: SocketAddr, received_bytes: usize, has_begun: bool) {
        assert!(self.outbox.len() <= Engine::<()>::MAX_REPLIES);
        let known = self.accounts.iter().position(|one| one.addr == from);
        let known = known.unwrap_or_else(|| {
            self.accounts.push(Account {
                addr: from,
                received_bytes: 0,
                sent_bytes: 0,
                is_verified: from == client_addr(0) || from == client_addr(1),
            });
            self.accounts.len() - 1
        });
        let account = &mut self.accounts[known];
        account.is_verified |= has_begun;
        account.received_bytes += received_bytes;
        for datagram in self.outbox.iter() {
            assert_eq!(datagram.peer, from);
            account.sent_bytes += datagram.bytes.len();
        }
        assert!(
            account.is_verified || account.sent_bytes <= account.received_bytes,
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
        self.clients[at].has_stepped |= at != OPEN;
        self.poll(at);
    }

    fn poll(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(transport) = &mut client.transport else {
            return;
        };
        if let Err(error) = transport.recv(&mut client.inbox, Wait::No) {
            assert!(self.has_closed || at != OPEN, "{error}");
            client.has_stepped |= at != OPEN;
        }
        while let Some(payload) = client.inbox.pop() {
            let sent = self.responses.iter().position(|one| one == payload.bytes);
            let sent = sent.unwrap_or_else(|| panic!("not sent: {:?}", payload.bytes));
            assert_eq!(at, OPEN);
            self.responses.swap_remove(sent);
        }
        let reply = client.sent();
        if !reply.is_empty() {
            client.has_stepped |= at != OPEN;
            assert!(reply.len() <= MAX_FLIGHT_BYTES, "{}", reply.len());
            self.materials[LATEST] = reply;
        }
    }

    /// Has the client of the half-open association answer the engine's flight. Most runs do without that.
    fn finish_flight(&mut self) {
        if self.clients[HALF].has_stepped {
            return;
        }
        let latest = std::mem::take(&mut self.materials[LATEST]);
        for (material, reply) in [(HALF_VERIFY, HALF_HELLO), (HALF_FLIGHT, HALF_LAST)] {
            let client = &mut self.clients[HALF];
            client.has_stepped = true;
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

    /// Checks what a run cannot check each time, and leaves the next one what it begins with.
    fn end(&mut self) {
        if self.runs.is_multiple_of(EXCHANGE_EVERY) && !self.has_closed {
            self.exchange();
        }
        if self.runs.is_multiple_of(HANDSHAKE_EVERY) {
            self.note_use();
            self.renew_handshakes();
            self.shake_hands();
        }
        self.renew();
        self.materials[LATEST].clear();
        self.runs += 1;
    }

    /// The open association serves.
    fn exchange(&mut self) {
        let (request, bytes) = self.request(OPEN);
        self.arrive(client_addr(0), &bytes, false);
        assert!(!self.requests.contains(&(client_addr(0), request)));
        let (response, bytes) = self.response();
        self.deliver(OPEN, &bytes);
        assert!(!self.responses.contains(&response));
        // What is at hand would be too old some time.
        for at in 0..2 {
            let record = self.materials[REQUEST + at].clone();
            self.arrive(client_addr(0), &record, false);
            let record = self.materials[RESPONSE + at].clone();
            self.deliver(OPEN, &record);
        }
        self.requests.retain(|(from, _)| *from != client_addr(0));
        self.responses.clear();
    }

    /// The half-open association becomes one.
    fn shake_hands(&mut self) {
        let established = self.engine.stats().established;
        self.finish_flight();
        let last = self.materials[HALF_LAST].clone();
        self.arrive(client_addr(1), &last, false);
        assert_eq!(self.engine.stats().established, established + 1);
        let finished = std::mem::take(&mut self.materials[LATEST]);
        self.deliver(HALF, &finished);
        // What has waited for the handshake.
        let request = std::mem::take(&mut self.materials[LATEST]);
        let waiting = self.requests.len();
        self.arrive(client_addr(1), &request, false);
        assert!(self.requests.len() < waiting);
    }

    /// A payload of a client, and what leaves with it.
    fn request(&mut self, at: usize) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        let addr = self.clients[at].pipe.addr;
        self.requests.push((addr, payload.clone()));
        let sent = self.clients[at].send(&payload);
        (payload, sent)
    }

    /// A payload for the client with the association, and the record that it leaves in.
    fn response(&mut self) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        self.responses.push(payload.clone());
        self.engine
            .send(
                self.now,
                client_addr(0),
                Egress::default(),
                &payload,
                &mut self.outbox,
            )
            .expect("there is an association");
        (payload, self.queued())
    }

    fn payload(&mut self) -> Vec<u8> {
        self.numbered += 1;
        self.numbered.to_be_bytes().to_vec()
    }

    /// Brings everything into the state that a run begins with.
    fn renew(&mut self) {
        if self.has_closed {
            self.renew_association();
        }
        self.renew_records();
        self.note_use();
        self.accounts.clear();
    }

    fn note_use(&mut self) {
        self.is_used |= self.has_stepped || self.clients.iter().any(|one| one.has_stepped);
    }

    /// The handshakes that a run begins with, in the place of those that a former one has left.
    fn renew_handshakes(&mut self) {
        if !std::mem::take(&mut self.is_used) {
            return;
        }
        for at in [HALF, FRESH] {
            if self.clients[at].has_stepped {
                self.has_stepped = true;
                let hello = self.restart(at);
                self.clients[at].has_stepped = false;
                self.materials[if at == HALF { HALF_FIRST } else { FRESH_FIRST }] = hello;
            }
        }
        if self.has_stepped {
            self.renew_handshake();
        }
    }

    /// Has a client begin again, and returns its hello. A new transport takes long, for its buffers.
    fn restart(&mut self, at: usize) -> Vec<u8> {
        let addr = self.clients[at].pipe.addr;
        self.clients[at].give_up(&self.materials[ALERT]);
        if self.engine.close(self.now, addr, &mut self.outbox) {
            self.closed += 1;
            let notice = self.queued();
            self.clients[at].give_up(&notice);
        }
        let (_, mut hello) = self.request(at);
        // A client that was closed in a handshake keeps what waits for the next one.
        let waiting = self.requests.iter().filter(|(from, _)| *from == addr);
        if !is_message(&hello, 1) || waiting.count() > MAX_WAITING {
            self.clients[at].open();
            self.requests.retain(|(from, _)| *from != addr);
            (_, hello) = self.request(at);
        }
        assert!(is_message(&hello, 1), "{hello:?}");
        hello
    }

    /// A new association in the place of the one that was closed.
    fn renew_association(&mut self) {
        let addr = client_addr(0);
        // A handshake in its place would go on.
        self.forget_handshakes();
        self.responses.clear();
        let mut outgoing = self.restart(OPEN);
        for material in [OPEN_HELLO, OPEN_LAST] {
            self.arrive(addr, &outgoing, false);
            let reply = std::mem::take(&mut self.materials[LATEST]);
            self.deliver(OPEN, &reply);
            outgoing = std::mem::take(&mut self.materials[LATEST]);
            self.materials[material].clone_from(&outgoing);
        }
        self.arrive(addr, &outgoing, false);
        let finished = std::mem::take(&mut self.materials[LATEST]);
        self.deliver(OPEN, &finished);
        self.materials[OPEN_FINISHED] = finished;
        let request = std::mem::take(&mut self.materials[LATEST]);
        let waiting = self.requests.len();
        self.arrive(addr, &request, false);
        assert!(self.requests.len() < waiting);
        self.requests.retain(|(from, _)| *from != addr);
        self.has_closed = false;
        self.closed = self.engine.stats().closed;
        self.check();
    }

    /// Records in the place of those that have arrived.
    fn renew_records(&mut self) {
        for at in 0..2 {
            let addr = client_addr(0);
            let is_same = |(from, payload): &(SocketAddr, Vec<u8>)| {
                *from == addr && *payload == self.requests_at_hand[at]
            };
            if !self.requests.iter().any(is_same) {
                let (payload, record) = self.request(OPEN);
                self.requests_at_hand[at] = payload;
                self.materials[OLD_REQUEST] =
                    std::mem::replace(&mut self.materials[REQUEST + at], record);
            }
            if !self.responses.contains(&self.responses_at_hand[at]) {
                let (payload, record) = self.response();
                self.responses_at_hand[at] = payload;
                self.materials[OLD_RESPONSE] =
                    std::mem::replace(&mut self.materials[RESPONSE + at], record);
            }
        }
    }

    /// The half-open association, and hellos with a cookie.
    fn renew_handshake(&mut self) {
        self.forget_handshakes();
        let addr = client_addr(1);
        if self.engine.close(self.now, addr, &mut self.outbox) {
            self.closed += 1;
            self.outbox.clear();
        }
        for (at, [first, verify, hello]) in [
            (HALF, [HALF_FIRST, HALF_VERIFY, HALF_HELLO]),
            (FRESH, [FRESH_FIRST, FRESH_VERIFY, FRESH_HELLO]),
        ] {
            let first = self.materials[first].clone();
            let addr = self.clients[at].pipe.addr;
            self.arrive(addr, &first, false);
            let request = std::mem::take(&mut self.materials[LATEST]);
            self.materials[hello] = with_cookie(&first, &request);
            self.materials[verify] = request;
        }
        let hello = self.materials[HALF_HELLO].clone();
        self.arrive(addr, &hello, false);
        self.materials[HALF_FLIGHT] = std::mem::take(&mut self.materials[LATEST]);
        assert_eq!(self.engine.stats().half_open, 1);
        self.has_stepped = false;
    }

    fn forget_handshakes(&mut self) {
        self.now = later(self.now, HANDSHAKE_TIMEOUT);
        self.engine.on_timer(self.now, &mut self.outbox);
        self.outbox.clear();
        assert_eq!(self.engine.stats().half_open, 0);
        self.has_stepped = true;
    }
}

/// Whether bytes begin with a handshake message of a type: 1 is a `ClientHello`, 3 a `HelloVerifyRequest`.
fn is_message(bytes: &[u8], message_type: u8) -> bool {
    (bytes.first(), bytes.get(13)) == (Some(&22), Some(&message_type))
}

/// The second hello to a first, with the cookie of the request that answers it.
fn with_cookie(first: &[u8], request: &[u8]) -> Vec<u8> {
    let cookie = &request[request.len() - 32..];
    // Behind the headers of record and message, version and random: the session's id, then a cookie.
    let at = HEADERS_BYTES + 34;
    let at = at + 1 + usize::from(first[at]);
    let end = HEADERS_BYTES - 12 + usize::from(u16::from_be_bytes([first[11], first[12]]));
    let mut second = first[..at].to_vec();
    second.push(32);
    second.extend_from_slice(cookie);
    second.extend_from_slice(&first[at + 1 + usize::from(first[at])..end]);
    // The number of the record, and of the message.
    second[10] = second[10].wrapping_add(1);
    second[17..19].copy_from_slice(&[0, 1]);
    set_lengths(&mut second);
    second
}

/// A change, and lengths that fit again if the input wants it.
fn edit(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let kind = input.byte();
    match kind % 16 {
        // A record's type, epoch, number: all of them are in the clear.
        0 => set(bytes, 0, 20 + input.byte() % 4),
        1 => set(bytes, 4, input.byte() % 3),
        2 => set(bytes, 10, input.byte()),
        // A message's type and number.
        3 => set(bytes, 13, input.byte() % 24),
        4 => set(bytes, 18, input.byte() % 8),
        5 => bytes.extend_from_within(..),
        6 => bytes.resize(bytes.len() + 16 * usize::from(input.byte()), 0),
        7 => drop(bytes.drain(..usize::from(input.byte()).min(bytes.len()))),
        _ if bytes.is_empty() => bytes.extend(input.bytes()),
        _ => *bytes = changed(bytes, input),
    }
    if kind >= 0x80 {
        fit(bytes);
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// Makes the last record, and the message that it begins with, as long as there are bytes.
fn fit(mut bytes: &mut [u8]) {
    while let Some(&[high, low]) = bytes.get(11..13) {
        let end = 13 + usize::from(u16::from_be_bytes([high, low]));
        if bytes.len() < end + 13 {
            return set_lengths(bytes);
        }
        bytes = &mut bytes[end..];
    }
}

/// Makes a record, and the message in it if it is in the clear, as long as there are bytes.
fn set_lengths(record: &mut [u8]) {
    let len = u16::try_from(record.len() - 13).unwrap_or(u16::MAX);
    record[11..13].copy_from_slice(&len.to_be_bytes());
    if record[0] == 22 && record[4] == 0 && len >= 12 {
        let len = u32::from(len - 12).to_be_bytes();
        record[14..17].copy_from_slice(&len[1..]);
        record[22..25].copy_from_slice(&len[1..]);
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
/// Of a record and of a message.
const HEADERS_BYTES: usize = 13 + 12;

const MAX_STEPS: usize = 6;
/// What a client sends in answer to a datagram: a flight has up to 250.
const MAX_FLIGHT_BYTES: usize = 1_024;
/// Payloads of one client that have not arrived.
const MAX_WAITING: usize = 64;
const MAX_HANDSHAKES: usize = 4;
const MAX_ASSOCIATIONS: usize = 3;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);
const EXCHANGE_EVERY: u64 = 256;
const HANDSHAKE_EVERY: u64 = 1_024;
