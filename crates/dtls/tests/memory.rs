//! What an association takes, whatever its peer sends: the figures in the documentation.
//!
//! It is a program of its own since it replaces the allocator, by `allocation-counter`'s, which counts for
//! each thread on its own.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use allocation_counter::measure;
use rejoinder::codec::{Tagged, Text};
use rejoinder::transport::{Connect, Datagram, Egress, Inbox, Meta, Outbox, SendReport};
use rejoinder::{Timestamp, Transport, Wait};
use rejoinder_dtls::{
    Authorities, CertifiedKey, ClientConfig, Connector, Dtls, DtlsBuilder, Engine,
};

const KEY: [u8; 16] = *b"0123456789abcdef";
const ASSOCIATIONS: u32 = 64;
const KIB: i64 = 1_024;

fn now() -> Timestamp {
    // A moment at which the certificates of the tests are valid: 2040.
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(2_208_988_800);
    Timestamp::new(Duration::from_secs(1_000), wall)
}

fn server_addr() -> SocketAddr {
    "10.0.0.1:5684".parse().unwrap()
}

fn peer(number: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a01_0000 + number), 7_000).into()
}

/// A wire on which nothing moves by itself.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
}

impl Connect for Wire {
    type Transport = Self;

    fn connect(&self, _: SocketAddr) -> std::io::Result<Self> {
        Ok(self.clone())
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        bytes.fill(7);
        Ok(())
    }

    fn wait_any(&self, _: &[&Self], _: Wait, _: &mut Vec<usize>) -> std::io::Result<()> {
        Ok(())
    }
}

impl Transport for Wire {
    fn recv(&mut self, inbox: &mut Inbox, _: Wait) -> std::io::Result<usize> {
        let arrived = std::mem::take(&mut self.0.lock().unwrap().to_client);
        for bytes in &arrived {
            inbox.push(bytes, Meta::new(server_addr()));
        }
        Ok(arrived.len())
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let sent = outbox.iter().map(|one| one.bytes.to_vec());
        self.0.lock().unwrap().to_server.extend(sent);
        SendReport::accepted(outbox.len())
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(peer(0))
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

type Peer = <Connector<Wire> as Connect>::Transport;

/// The server, and what it keeps, by the count of the allocator.
struct Measured {
    engine: Engine,
    outbox: Outbox,
    bytes: i64,
}

impl Measured {
    fn new(builder: DtlsBuilder<()>) -> Self {
        let engine = builder.max_associations(1_000).engine().unwrap();
        Self {
            outbox: engine.outbox(),
            engine,
            bytes: 0,
        }
    }

    fn receive(&mut self, from: SocketAddr, bytes: &[u8], wire: &Wire) -> usize {
        let (mut payloads, mut replies) = (0, Vec::new());
        let (engine, outbox) = (&mut self.engine, &mut self.outbox);
        let counted = measure(|| {
            let datagram = Datagram::new(bytes, Meta::new(from));
            engine.receive(now(), &datagram, outbox, &mut |_| payloads += 1);
        });
        self.bytes += counted.bytes_current;
        replies.extend(self.outbox.iter().map(|one| one.bytes.to_vec()));
        self.outbox.clear();
        wire.0.lock().unwrap().to_client.extend(replies);
        payloads
    }

    fn respond(&mut self, to: SocketAddr, len: usize) {
        let (engine, outbox) = (&mut self.engine, &mut self.outbox);
        let payload = vec![b'x'; len];
        let counted = measure(|| {
            engine
                .send(now(), to, Egress::default(), &payload, outbox)
                .unwrap();
        });
        self.bytes += counted.bytes_current;
        self.outbox.clear();
    }

    /// Moves datagrams until none is left, and returns how many payloads came.
    fn exchange(&mut self, from: SocketAddr, client: &mut Peer, wire: &Wire) -> usize {
        let mut payloads = 0;
        loop {
            let sent = std::mem::take(&mut wire.0.lock().unwrap().to_server);
            if sent.is_empty() {
                return payloads;
            }
            for bytes in sent {
                payloads += self.receive(from, &bytes, wire);
            }
            client.recv(&mut Inbox::new(8, 20_000), Wait::No).unwrap();
        }
    }

    /// Bytes for each association.
    fn each(&self) -> i64 {
        self.bytes / i64::from(ASSOCIATIONS)
    }
}

fn send(client: &mut Peer, len: usize) {
    let mut outbox = Outbox::new(1, 20_000);
    outbox.push(server_addr(), None, &vec![b'x'; len]).unwrap();
    assert_eq!(client.send(&outbox).sent, 1);
}

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn with_keys() -> DtlsBuilder<()> {
    Dtls::builder().psk(|_: &[u8]| Some(KEY.to_vec())).gate(())
}

/// Certificates on both sides.
fn with_certificates() -> (DtlsBuilder<()>, ClientConfig) {
    let own = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        CertifiedKey::from_pem(&certificate, &key).unwrap()
    };
    let authorities = Authorities::from_pem(&file("ca.pem")).unwrap();
    let builder = Dtls::builder()
        .certificate(own("server"))
        .client_authorities(authorities.clone())
        .gate(());
    let config = ClientConfig::certificates(authorities, "server.example").unwrap();
    (builder, config.certificate(own("client")))
}

/// What associations take after their handshake, after a short exchange, and after everything that makes
/// them grow.
fn grow(builder: DtlsBuilder<()>, config: &ClientConfig, response: usize) -> [i64; 3] {
    let mut server = Measured::new(builder);
    let mut clients = Vec::new();
    for number in 0..ASSOCIATIONS {
        let wire = Wire::default();
        let connector = config.clone().connector(wire.clone(), &Tagged(Text));
        let mut client = connector.unwrap().connect(server_addr()).unwrap();
        send(&mut client, 16);
        assert_eq!(server.exchange(peer(number), &mut client, &wire), 1);
        clients.push((peer(number), client, wire));
    }
    assert_eq!(server.engine.stats().associations, ASSOCIATIONS.into());
    let idle = server.each();
    for (from, client, wire) in &mut clients {
        for _ in 0..10 {
            send(client, 100);
            assert_eq!(server.exchange(*from, client, wire), 1);
            server.respond(*from, 100);
        }
    }
    let short = server.each();
    for (from, client, wire) in &mut clients {
        // Growing by steps, so that buffers have twice the room that they need.
        for len in (1_000..=4_096).step_by(172) {
            send(client, len);
            assert_eq!(server.exchange(*from, client, wire), 1, "{len}");
            server.respond(*from, len.min(response));
        }
        // Several records in one datagram, of all lengths.
        let mut coalesced = Vec::new();
        for len in [4_096, 3_000, 4_096, 2_500, 4_096, 4_000, 3_999, 4_096] {
            send(client, len);
            coalesced.extend(wire.0.lock().unwrap().to_server.pop().unwrap());
        }
        assert_eq!(server.receive(*from, &coalesced, wire), 8);
        server.respond(*from, response);
        // From elsewhere: forged records of the greatest length, in the clear and not, and too long ones.
        for (content_type, epoch) in [(23, 1), (22, 0), (22, 1), (20, 0), (21, 0), (21, 1)] {
            for len in [2_048, 4_096, 4_120, 4_121, 16_000] {
                let mut forged = vec![content_type, 0xfe, 0xfd, 0, epoch, 0, 0, 9, 9, 9, 9];
                forged.extend(u16::try_from(len).unwrap().to_be_bytes());
                forged.resize(13 + len, 0xa5);
                assert_eq!(server.receive(*from, &forged, wire), 0);
                let three = forged.repeat(3);
                assert_eq!(server.receive(*from, &three, wire), 0);
            }
        }
    }
    let stats = server.engine.stats();
    assert!(stats.conserves(), "{stats:?}");
    assert_eq!(stats.associations, ASSOCIATIONS.into(), "{stats:?}");
    let grown = server.each();
    println!("idle {idle}, after short exchanges {short}, grown {grown}");
    [idle, short, grown]
}

/// Has a peer begin a handshake, and fill it.
fn begin(
    server: &mut Measured,
    number: u32,
    config: &ClientConfig,
    (pieces, piece_bytes): (u16, u16),
) {
    let wire = Wire::default();
    let connector = config.clone().connector(wire.clone(), &Tagged(Text));
    let mut client = connector.unwrap().connect(server_addr()).unwrap();
    send(&mut client, 16);
    for _ in 0..2 {
        let hello = wire.0.lock().unwrap().to_server.remove(0);
        assert_eq!(server.receive(peer(number), &hello, &wire), 0);
        let mut request = std::mem::take(&mut wire.0.lock().unwrap().to_client);
        // The server's flight never arrives.
        request.retain(|one| one.len() == 60);
        wire.0.lock().unwrap().to_client = request;
        client.recv(&mut Inbox::new(8, 20_000), Wait::No).unwrap();
    }
    // Pieces of a message of the future, as many and as long as they may be: the next one would be the end.
    for piece in 0..pieces {
        let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 9, 9, 9];
        datagram.extend((12 + piece_bytes).to_be_bytes());
        datagram.extend([11, 0, 0x20, 0, 0, 9, 0]);
        datagram.extend((piece * 300).to_be_bytes());
        datagram.push(0);
        datagram.extend(piece_bytes.to_be_bytes());
        datagram.resize(datagram.len() + usize::from(piece_bytes), 7);
        assert_eq!(server.receive(peer(number), &datagram, &wire), 0);
    }
    // What was sent to it is not the server's.
    wire.0.lock().unwrap().to_client.clear();
}

#[test]
fn a_handshake_takes_what_the_documentation_says() {
    let (certificates, trusting) = with_certificates();
    for (builder, config, pieces, most) in [
        (
            with_keys(),
            ClientConfig::psk("lamp-7", KEY),
            (5, 780),
            40 * KIB,
        ),
        (certificates, trusting, (15, 1_600), 128 * KIB),
    ] {
        let mut server = Measured::new(builder);
        for number in 0..ASSOCIATIONS {
            begin(&mut server, number, &config, pieces);
        }
        let stats = server.engine.stats();
        assert_eq!(stats.half_open, ASSOCIATIONS.into(), "{stats:?}");
        println!("half-open: {}", server.each());
        assert!(server.each() <= most);
    }
}

#[test]
fn an_association_with_a_key_takes_what_the_documentation_says() {
    let config = ClientConfig::psk("lamp-7", KEY);
    let [idle, short, grown] = grow(with_keys(), &config, 1_000);
    assert!(idle <= 8 * KIB && short <= 8 * KIB && grown <= 16 * KIB);
}

#[test]
fn an_association_with_certificates_takes_what_the_documentation_says() {
    let (builder, config) = with_certificates();
    let [idle, short, grown] = grow(builder, &config, 4_096);
    assert!(idle <= 14 * KIB && short <= 14 * KIB && grown <= 22 * KIB);
}
