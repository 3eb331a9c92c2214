//! What DTLS costs a server: CPU time for each answer, and for each handshake.
//!
//! ```text
//! cargo bench --manifest-path crates/dtls/Cargo.toml --bench answer
//! ```
//!
//! Everything is in memory and on one thread, so nothing but the server's own work is measured: for an answer
//! the engine takes a record, the core answers, and the engine protects the response. The clock is the CPU time
//! of the thread.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rejoinder::codec::Raw;
use rejoinder::codec::Tagged;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::Node;
use rejoinder::transport::{Connect, Inbox, Meta, Outbox, SendReport};
use rejoinder::{Timestamp, Transport, Wait};
use rejoinder_dtls::{
    Authorities, CertifiedKey, ClientConfig, Dtls, DtlsBuilder, DtlsClient, DtlsNode, Engine,
};
use rustix::time::{ClockId, clock_gettime};

/// Answers with what it was asked.
fn core() -> Core {
    ServerCore::new(Tagged(Raw), |bytes| Some(bytes.to_vec()))
}

type Core = ServerCore<Tagged<Raw>, fn(&[u8]) -> Option<Vec<u8>>>;

fn main() -> io::Result<()> {
    // `cargo test` only wants to see it work.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let (records, handshakes) = if is_measured {
        (200_000, 500)
    } else {
        (100, 2)
    };
    let out = &mut io::stdout();
    writeln!(out, "{:<46} {:>10}", "server's CPU time", "µs each")?;
    for bytes in [25, 1_000] {
        let plain = plain(records, bytes);
        report(out, &format!("answer of {bytes} bytes, plain"), plain)?;
        for kind in Kind::ALL {
            let (time, _) = run(kind, 1, records, bytes);
            report(
                out,
                &format!("answer of {bytes} bytes, {}", kind.name()),
                time,
            )?;
        }
    }
    for kind in Kind::ALL {
        let (_, time) = run(kind, handshakes, 0, 0);
        report(out, &format!("handshake, {}", kind.name()), time)?;
    }
    Ok(())
}

fn shake_hands(pipe: &Pipe, kind: Kind) -> DtlsClient<Pipe> {
    let connector = kind.config().connector(pipe.clone(), &Tagged(Raw));
    let connector = connector.expect("the settings are in range");
    let mut client = connector.connect(server_addr()).expect("it opens nothing");
    let mut inbox = Inbox::new(64, 65_507);
    send(&mut client, b"?12345678first", 1);
    while client
        .recv(&mut inbox, Wait::No)
        .expect("the handshake goes well")
        == 0
    {}
    client
}

fn report(out: &mut impl Write, what: &str, time: Duration) -> io::Result<()> {
    writeln!(out, "{what:<46} {:>10.2}", time.as_secs_f64() * 1e6)
}

#[derive(Clone, Copy)]
enum Kind {
    Psk,
    Certificate,
    Mutual,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Psk, Self::Certificate, Self::Mutual];

    fn name(self) -> &'static str {
        match self {
            Self::Psk => "PSK, AES-128-CCM-8",
            Self::Certificate => "certificate, AES-256-GCM",
            Self::Mutual => "mutual certificates, AES-256-GCM",
        }
    }

    fn engine(self) -> Engine {
        let builder: DtlsBuilder<()> = Dtls::builder().gate(());
        let builder = match self {
            Self::Psk => builder.psk(|_: &[u8]| Some(vec![7; 16])),
            Self::Certificate => builder.certificate(own("server")),
            Self::Mutual => builder
                .certificate(own("server"))
                .client_authorities(authorities()),
        };
        builder.engine().expect("the settings are in range")
    }

    fn config(self) -> ClientConfig {
        let trusting = || ClientConfig::certificates(authorities(), "server.example");
        match self {
            Self::Psk => ClientConfig::psk("client", [7; 16]),
            Self::Certificate => trusting().expect("it is a name"),
            Self::Mutual => trusting().expect("it is a name").certificate(own("client")),
        }
    }
}

fn own(name: &str) -> CertifiedKey {
    let file = |end| {
        let path = format!(
            "{}/tests/certificates/{name}.{end}",
            env!("CARGO_MANIFEST_DIR")
        );
        std::fs::read(path).expect("the tests have it")
    };
    CertifiedKey::from_pem(&file("pem"), &file("key")).expect("the tests have it")
}

fn authorities() -> Authorities {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/ca.pem");
    Authorities::from_pem_file(path).expect("the tests have it")
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no thread has used less than nothing")
}

/// What a core alone needs.
fn plain(requests: u32, bytes: usize) -> Duration {
    let mut node = core();
    let (mut inbox, mut outbox) = (Inbox::new(1, 65_507), Outbox::new(64, 2_048));
    let request = request(bytes);
    let begun = cpu_time();
    for _ in 0..requests {
        inbox.push(&request, Meta::new(client_addr()));
        node.receive(Timestamp::system(), &mut inbox, &mut outbox);
        outbox.clear();
    }
    cpu_time().saturating_sub(begun) / requests
}

fn request(bytes: usize) -> Vec<u8> {
    [b"?12345678".to_vec(), vec![b'x'; bytes]].concat()
}

/// The times of an answer and of a handshake.
fn run(kind: Kind, handshakes: u32, records: u32, bytes: usize) -> (Duration, Duration) {
    let server = Server::new(DtlsNode::new(kind.engine(), core()));
    let pipe = Pipe(Rc::new(RefCell::new(server)));
    let mut last = None;
    for _ in 0..handshakes {
        let client = shake_hands(&pipe, kind);
        // Its own port next time.
        pipe.0.borrow_mut().clients += 1;
        last = Some(client);
    }
    let handshake = pipe.0.borrow().time / handshakes;
    if records == 0 {
        return (Duration::ZERO, handshake);
    }
    let mut client = last.expect("there was a handshake");
    pipe.0.borrow_mut().clients -= 1;
    pipe.0.borrow_mut().time = Duration::ZERO;
    let request = request(bytes);
    for _ in 0..records / BATCH {
        send(&mut client, &request, BATCH);
    }
    let records = records / BATCH * BATCH;
    let server = pipe.0.borrow();
    let answered = server.node.stats().sent;
    assert_eq!(answered, u64::from(records) + 1);
    (server.time / records, handshake)
}

fn send(client: &mut impl Transport, bytes: &[u8], times: u32) {
    let mut outbox = Outbox::new(64, 2_048);
    for _ in 0..times {
        outbox.push(server_addr(), None, bytes).expect("it fits");
    }
    client.send(&outbox);
}

/// Records between two readings of the clock.
const BATCH: u32 = 32;

fn server_addr() -> SocketAddr {
    ([192, 0, 2, 1], 5_684).into()
}

fn client_addr() -> SocketAddr {
    ([192, 0, 2, 2], 7_000).into()
}

/// A server, and how much of the CPU it has used.
struct Server {
    node: DtlsNode<Core>,
    inbox: Inbox,
    outbox: Outbox,
    time: Duration,
    clients: u16,
    replies: Vec<Vec<u8>>,
}

impl Server {
    fn new(node: DtlsNode<Core>) -> Self {
        let outbox = node.engine().outbox();
        Self {
            node,
            inbox: Inbox::new(1, 65_507),
            outbox,
            time: Duration::ZERO,
            clients: 0,
            replies: Vec::new(),
        }
    }

    fn receive(&mut self, datagrams: &Outbox) {
        let mut meta = Meta::new(client_addr());
        meta.peer.set_port(7_000 + self.clients);
        let begun = cpu_time();
        for datagram in datagrams.iter() {
            self.inbox.push(datagram.bytes, meta);
            self.node
                .receive(Timestamp::system(), &mut self.inbox, &mut self.outbox);
        }
        self.time += cpu_time().saturating_sub(begun);
        // The answers of a measurement are not read.
        for one in self.outbox.iter().take(64 - self.replies.len().min(64)) {
            self.replies.push(one.bytes.to_vec());
        }
        self.outbox.clear();
    }
}

/// Where a client's datagrams go.
#[derive(Clone)]
struct Pipe(Rc<RefCell<Server>>);

impl Connect for Pipe {
    type Transport = Self;

    fn connect(&self, _: SocketAddr) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl Transport for Pipe {
    fn recv(&mut self, inbox: &mut Inbox, _: Wait) -> io::Result<usize> {
        let mut received = 0;
        for bytes in self.0.borrow_mut().replies.drain(..) {
            inbox.push(&bytes, Meta::new(server_addr()));
            received += 1;
        }
        Ok(received)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.0.borrow_mut().receive(outbox);
        SendReport::accepted(outbox.len())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(client_addr())
    }
}
