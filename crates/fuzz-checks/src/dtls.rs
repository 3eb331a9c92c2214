mod input;
mod pipe;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use rejoinder::codec::{Raw, Tagged};
use rejoinder::transport::{Connect, Datagram, Egress, Inbox, Meta, Outbox};
use rejoinder::{Timestamp, Transport, Wait};
use rejoinder_dtls::{
    Authorities, CertifiedKey, ClientConfig, Connector, Dtls, DtlsBuilder, DtlsClient, Engine,
};

pub use self::input::dtls_input;
use self::pipe::{Pipe, Queues, server_addr, start};
use super::{Input, changed};

/// A DTLS server and three clients, one of which has no right key. Their datagrams are delivered, lost, changed,
/// joined, repeated and sent from other addresses, any bytes come between them, and time passes. No
/// address gets more than came from it before it is verified, no plaintext is on the wire, nothing is delivered that was not
/// sent, or twice, and the engine's counters conserve.
pub fn dtls(data: &[u8]) {
    let mut input = Input(data);
    // Certificates take ten times as long.
    let (kind, stage) = match input.byte() {
        0xf0.. => (Kind::Certificates, &CERTIFICATES_STAGE),
        _ => (Kind::Keys, &KEYS_STAGE),
    };
    let mut world = World::new(stage.take().unwrap_or_else(|| Stage::new(kind)));
    while !input.0.is_empty() {
        world.act(&mut input);
        world.check();
    }
    stage.set(Some(world.end()));
}

thread_local! {
    static KEYS_STAGE: Cell<Option<Stage>> = const { Cell::new(None) };
    static CERTIFICATES_STAGE: Cell<Option<Stage>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
enum Kind {
    Keys,
    Certificates,
}

impl Kind {
    fn engine(self) -> Engine {
        let builder: DtlsBuilder<()> = Dtls::builder().gate(());
        let builder = match self {
            Self::Keys => builder.psk(|identity: &[u8]| {
                let is_known = matches!(identity, b"0" | b"1" | b"2");
                is_known.then(|| key(identity[0]))
            }),
            Self::Certificates => builder
                .certificate(CERTIFICATES.server.clone())
                .client_authorities(CERTIFICATES.authorities.clone()),
        };
        let engine = builder
            .max_handshakes(MAX_HANDSHAKES)
            .max_associations(MAX_ASSOCIATIONS)
            .idle_timeout(Duration::from_secs(60))
            .engine();
        engine.expect("the settings are in range")
    }

    fn config(self, number: u8) -> ClientConfig {
        let is_stranger = number == STRANGER;
        match self {
            Self::Keys => {
                let secret = key(b'0' + number + u8::from(is_stranger));
                ClientConfig::psk([b'0' + number], secret)
            }
            Self::Certificates => {
                let own = if is_stranger {
                    &CERTIFICATES.stranger
                } else {
                    &CERTIFICATES.client
                };
                ClientConfig::certificates(CERTIFICATES.authorities.clone(), "server.example")
                    .expect("it is a name")
                    .certificate(own.clone())
            }
        }
    }
}

fn key(number: u8) -> Vec<u8> {
    vec![number; 16]
}

/// Those of the tests of the DTLS package.
struct Certificates {
    authorities: Authorities,
    server: CertifiedKey,
    client: CertifiedKey,
    stranger: CertifiedKey,
}

static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    macro_rules! file {
        ($name:literal) => {
            include_bytes!(concat!("../../dtls/tests/certificates/", $name))
        };
    }
    let own = |certificate: &[u8], key: &[u8]| {
        CertifiedKey::from_pem(certificate, key).expect("it is one")
    };
    Certificates {
        authorities: Authorities::from_pem(file!("ca.pem")).expect("it is one"),
        server: own(file!("server.pem"), file!("server.key")),
        client: own(file!("client.pem"), file!("client.key")),
        stranger: own(file!("stranger.pem"), file!("stranger.key")),
    }
});

/// What a run leaves as it was. The implementation tries its cryptography out for each set of settings, which takes
/// longer than a run.
struct Stage {
    engine: Engine,
    connectors: [(Connector<Pipe>, Pipe); CLIENTS],
    now: Rc<Cell<Timestamp>>,
    outbox: Outbox,
    received: u64,
}

impl Stage {
    fn new(kind: Kind) -> Self {
        let now = Rc::new(Cell::new(Timestamp::new(
            Duration::from_secs(1_000),
            start(),
        )));
        let connector = |number: u8| {
            let pipe = Pipe {
                now: Rc::clone(&now),
                addr: client_addr(number),
                queues: Rc::default(),
            };
            let connector = kind.config(number).connector(pipe.clone(), &Tagged(Raw));
            (connector.expect("the settings are in range"), pipe)
        };
        Self {
            engine: kind.engine(),
            connectors: [connector(0), connector(1), connector(2)],
            outbox: Outbox::new(2 * Engine::<()>::MAX_REPLIES, 2_048),
            now,
            received: 0,
        }
    }
}

struct World {
    stage: Stage,
    clients: [Client; CLIENTS],
    /// Of the last datagrams, in both directions.
    wire: VecDeque<Vec<u8>>,
    /// Which cookies were sent where.
    cookies: Vec<(SocketAddr, Vec<u8>)>,
    /// Which addresses have returned one.
    verified: BTreeSet<SocketAddr>,
    /// What clients have sent, and what of it has arrived.
    asked: BTreeSet<Vec<u8>>,
    arrived: BTreeSet<Vec<u8>>,
    answered: BTreeSet<Vec<u8>>,
}

struct Client {
    addr: SocketAddr,
    /// Opened when it is used: it has large buffers.
    transport: Option<DtlsClient<Pipe>>,
    queues: Rc<RefCell<Queues>>,
    outbound: VecDeque<Vec<u8>>,
    inbound: VecDeque<Vec<u8>>,
    inbox: Inbox,
}

impl World {
    fn new(stage: Stage) -> Self {
        let client = |(_, pipe): &(_, Pipe)| Client {
            addr: pipe.addr,
            queues: Rc::clone(&pipe.queues),
            transport: None,
            outbound: VecDeque::new(),
            inbound: VecDeque::new(),
            inbox: Inbox::new(4, 2_048),
        };
        Self {
            clients: stage.connectors.each_ref().map(client),
            stage,
            wire: VecDeque::new(),
            cookies: Vec::new(),
            verified: BTreeSet::new(),
            asked: BTreeSet::new(),
            arrived: BTreeSet::new(),
            answered: BTreeSet::new(),
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let action = input.byte();
        let at = usize::from(action >> 4) % CLIENTS;
        let client = &mut self.clients[at];
        let addr = client.addr;
        match action % 16 {
            0 | 1 => self.ask(at),
            2 => self.settle(),
            3 => {
                if let Some(bytes) = client.outbound.pop_front() {
                    self.arrive(addr, &bytes);
                }
            }
            4 => {
                if let Some(bytes) = client.inbound.pop_front() {
                    self.deliver(at, &bytes);
                }
            }
            5 => drop(client.outbound.pop_front()),
            6 => drop(client.inbound.pop_front()),
            7 => {
                if let Some(bytes) = client.outbound.pop_front() {
                    self.arrive(addr, &changed(&bytes, input));
                }
            }
            8 => {
                if let Some(bytes) = client.inbound.pop_front() {
                    self.deliver(at, &changed(&bytes, input));
                }
            }
            // A copy, changed perhaps, and from another address perhaps.
            9 => {
                if let Some(bytes) = self.old(input) {
                    let from = address(input);
                    self.arrive(from, &changed(&bytes, input));
                }
            }
            10 => {
                if let Some(bytes) = self.old(input) {
                    self.deliver(at, &changed(&bytes, input));
                }
            }
            11 => {
                let from = address(input);
                self.arrive(from, input.bytes());
            }
            12 => self.deliver(at, input.bytes()),
            13 => self.wait(u64::from(input.byte()) << (input.byte() % 12)),
            14 => {
                let stage = &mut self.stage;
                let now = stage.now.get();
                stage.engine.close(now, addr, &mut stage.outbox);
                self.collect(None);
            }
            _ => {
                let queue = match input.byte() % 2 {
                    0 => &mut client.outbound,
                    _ => &mut client.inbound,
                };
                if let (Some(mut first), Some(second)) = (queue.pop_front(), queue.pop_front()) {
                    first.extend(second);
                    queue.push_front(first);
                }
            }
        }
    }

    fn old(&self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let index = usize::from(input.byte()).checked_rem(self.wire.len())?;
        Some(self.wire[index].clone())
    }

    /// A client asks something new.
    fn ask(&mut self, at: usize) {
        let text = format!("?{:08}{PLAIN} of {at}", self.asked.len()).into_bytes();
        let mut outbox = Outbox::new(1, 256);
        outbox.push(server_addr(), None, &text).expect("it fits");
        self.asked.insert(text);
        let (connector, _) = &self.stage.connectors[at];
        let open = || connector.connect(server_addr()).expect("it opens nothing");
        let transport = self.clients[at].transport.get_or_insert_with(open);
        transport.send(&outbox);
        self.collect_client(at);
    }

    /// Delivers what there is, until nothing more comes.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            for at in 0..CLIENTS {
                let addr = self.clients[at].addr;
                while let Some(bytes) = self.clients[at].outbound.pop_front() {
                    self.arrive(addr, &bytes);
                }
                while let Some(bytes) = self.clients[at].inbound.pop_front() {
                    self.deliver(at, &bytes);
                }
            }
            if self.clients.iter().all(|one| one.outbound.is_empty()) {
                return;
            }
        }
        panic!("the two ends do not stop sending");
    }

    /// A datagram arrives at the server.
    fn arrive(&mut self, from: SocketAddr, bytes: &[u8]) {
        let now = self.stage.now.get();
        let begun = self.stage.engine.stats().begun;
        let datagram = Datagram::new(bytes, Meta::new(from));
        let mut payloads = Vec::new();
        self.stage
            .engine
            .receive(now, &datagram, &mut self.stage.outbox, &mut |delivered| {
                assert!(delivered.identity.is_some());
                payloads.push(delivered.bytes.to_vec());
            });
        self.stage.received += 1;
        if self.stage.engine.stats().begun > begun {
            let is_one = |cookie: &[u8]| bytes.windows(cookie.len()).any(|part| part == cookie);
            let mut own = self.cookies.iter().filter(|(addr, _)| *addr == from);
            assert!(own.any(|(_, cookie)| is_one(cookie)), "no cookie of {from}");
            self.verified.insert(from);
        }
        for payload in payloads {
            let stranger = format!("{PLAIN} of {STRANGER}");
            assert!(self.asked.contains(&payload), "{payload:?} was never sent");
            assert!(!payload.ends_with(stranger.as_bytes()));
            let mut response = payload.to_ascii_uppercase();
            response[0] = b'!';
            assert!(self.arrived.insert(payload), "delivered twice");
            let egress = Egress::default();
            // It fails if the association was closed in the same datagram.
            let _ = self
                .stage
                .engine
                .send(now, from, egress, &response, &mut self.stage.outbox);
        }
        self.collect(Some((from, bytes.len())));
    }

    /// Takes what the server sends, in response to a datagram of that address and length.
    fn collect(&mut self, cause: Option<(SocketAddr, usize)>) {
        let mut sent_bytes = 0;
        for datagram in self.stage.outbox.iter() {
            let (peer, bytes) = (datagram.peer, datagram.bytes);
            check_plaintext(bytes);
            sent_bytes += bytes.len();
            assert!(cause.is_none_or(|(from, _)| peer == from));
            if let (Some((_, received_bytes)), false) = (cause, self.verified.contains(&peer)) {
                assert!(sent_bytes <= received_bytes, "{peer} is not verified");
                // A handshake record with a HelloVerifyRequest: the cookie is at its end.
                assert_eq!((bytes[0], bytes[13]), (22, 3));
                let cookie = bytes[bytes.len() - 32..].to_vec();
                self.cookies.push((peer, cookie));
            } else {
                assert!(self.verified.contains(&peer), "{peer} is not verified");
                // A hello without a cookie is answered the same way later.
                if bytes.len() > 13 + 32 && (bytes[0], bytes[13]) == (22, 3) {
                    let cookie = bytes[bytes.len() - 32..].to_vec();
                    self.cookies.push((peer, cookie));
                }
            }
            remember(&mut self.wire, bytes);
            let client = self.clients.iter_mut().find(|one| one.addr == peer);
            if let Some(client) = client
                && client.inbound.len() < MAX_QUEUED
            {
                client.inbound.push_back(bytes.to_vec());
            }
        }
        self.stage.outbox.clear();
    }

    /// A datagram arrives at a client.
    fn deliver(&mut self, at: usize, bytes: &[u8]) {
        let client = &mut self.clients[at];
        // A client that has sent nothing has no socket.
        if client.transport.is_some() {
            client.queues.borrow_mut().arrived.push_back(bytes.to_vec());
            self.poll(at);
        }
    }

    fn poll(&mut self, at: usize) {
        let client = &mut self.clients[at];
        // An error is that of a handshake or an association.
        if let Some(transport) = &mut client.transport {
            let _ = transport.recv(&mut client.inbox, Wait::No);
        }
        while let Some(payload) = client.inbox.pop() {
            let mut request = payload.bytes.to_ascii_lowercase();
            request[0] = b'?';
            assert!(self.arrived.contains(&request));
            assert!(request.ends_with(format!(" of {at}").as_bytes()));
            assert!(self.answered.insert(request), "delivered twice");
        }
        self.collect_client(at);
    }

    fn collect_client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        for bytes in client.queues.borrow_mut().sent.drain(..) {
            check_plaintext(&bytes);
            remember(&mut self.wire, &bytes);
            if client.outbound.len() < MAX_QUEUED {
                client.outbound.push_back(bytes);
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        let (now, span) = (self.stage.now.get(), Duration::from_millis(millis));
        self.stage
            .now
            .set(Timestamp::new(now.monotonic + span, now.wall + span));
        let now = self.stage.now.get();
        self.stage.engine.on_timer(now, &mut self.stage.outbox);
        let next = self.stage.engine.next_timer();
        assert!(next.is_none_or(|next| next > now.monotonic), "{next:?}");
        self.collect(None);
        for at in 0..CLIENTS {
            self.poll(at);
        }
    }

    fn check(&self) {
        let stats = self.stage.engine.stats();
        assert!(stats.conserves(), "{stats:?}");
        assert_eq!(stats.received, self.stage.received);
        assert!(stats.half_open <= MAX_HANDSHAKES as u64);
        assert!(stats.associations <= MAX_ASSOCIATIONS as u64);
    }

    /// Closes and forgets everything.
    fn end(mut self) -> Stage {
        let stage = &mut self.stage;
        let is_left = stage.engine.close_all(stage.now.get(), &mut stage.outbox);
        assert!(!is_left);
        self.collect(None);
        assert_eq!(self.stage.engine.stats().associations, 0);
        self.wait(3_600_000);
        assert_eq!(self.stage.engine.stats().half_open, 0);
        self.check();
        // Clients close what they have.
        drop(self.clients);
        for (_, pipe) in &self.stage.connectors {
            *pipe.queues.borrow_mut() = Queues::default();
        }
        let later = self.stage.now.get().monotonic;
        self.stage.now.set(Timestamp::new(later, start()));
        self.stage
    }
}

fn remember(wire: &mut VecDeque<Vec<u8>>, bytes: &[u8]) {
    if wire.len() == MAX_QUEUED {
        wire.pop_front();
    }
    wire.push_back(bytes.to_vec());
}

fn check_plaintext(bytes: &[u8]) {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let is_plain = has(PLAIN.as_bytes()) || has(PLAIN.to_ascii_uppercase().as_bytes());
    assert!(!is_plain, "plaintext on the wire: {bytes:?}");
}

/// Mostly that of a client.
fn address(input: &mut Input<'_>) -> SocketAddr {
    match input.byte() {
        byte @ 0..0xc0 => client_addr(byte % 3),
        _ => input.addr(),
    }
}

fn client_addr(number: u8) -> SocketAddr {
    ([192, 0, 2, 2 + number], 7_000).into()
}

const CLIENTS: usize = 3;
/// The client whose key is not the server's.
const STRANGER: u8 = 2;
const PLAIN: &str = "plaintext of an application";
/// Fewer than there are addresses.
const MAX_HANDSHAKES: usize = 2;
const MAX_ASSOCIATIONS: usize = 2;
/// Datagrams on the way.
const MAX_QUEUED: usize = 16;
/// A handshake takes four.
const MAX_ROUNDS: usize = 16;
