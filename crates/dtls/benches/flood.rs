//! What peers with an association notice while strangers send 100,000 hellos, each from another address.
//!
//! ```text
//! cargo bench --manifest-path crates/dtls/Cargo.toml --bench flood
//! ```
//!
//! All of it is on loopback, whose addresses are 16 million. A server, which sends back what it receives; eight
//! peers, one exchange at a time; and a thread that sends hellos, each from a socket of its own address. Time is
//! wall-clock time, so it depends on what else the machine does.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::codec::{Raw, Tagged};
use rejoinder::gate::Gate;
use rejoinder::transport::{Connect, Inbox, Outbox};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{Client, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, Dtls, DtlsBuilder, DtlsDrop, DtlsStats};

fn main() -> io::Result<()> {
    // `cargo test` only wants to see it work.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let hellos = if is_measured { 100_000 } else { 500 };
    let out = &mut io::stdout();
    writeln!(
        out,
        "{:<42} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "exchanges of established peers", "number", "p50 µs", "p99 µs", "most µs", "RSS KiB"
    )?;
    let open = || Dtls::builder().gate(());
    run(
        out,
        "every hello answered, 20,000/s",
        open(),
        hellos,
        Some(20_000),
    )?;
    run(out, "every hello answered, unpaced", open(), hellos, None)?;
    run(
        out,
        "default gate, 20,000/s",
        Dtls::builder(),
        hellos,
        Some(20_000),
    )
}

fn run<G: Gate + Send + 'static>(
    out: &mut impl Write,
    what: &str,
    builder: DtlsBuilder<G>,
    hellos: u32,
    per_second: Option<u32>,
) -> io::Result<()> {
    let builder = builder.psk(|_: &[u8]| Some(KEY.to_vec()));
    let udp = UdpTransport::bind("127.0.0.1:0")?;
    let server = builder.wrap(udp).map_err(io::Error::other)?;
    let addr = server.local_addr()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let server = {
        let is_over = Arc::clone(&is_over);
        thread::spawn(move || echo(server, &is_over))
    };
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        peers.push(peer(addr)?);
    }
    let hello = hello()?;
    let hello_bytes = hello.len() as u64;
    // What is allocated once is allocated now.
    flood(addr, &hello, 0..hellos / 100, None)?;
    // In memory already, so that it does not look as if the server grew.
    let mut times = vec![Duration::MAX; 1 << 19];
    exchanges(&mut peers, &mut times, |asked| asked == hellos / 20);
    let before = resident_kib()?;
    report(out, &format!("{what}: before"), &times, before)?;

    let begun = Instant::now();
    let flooding = thread::spawn(move || flood(addr, &hello, hellos / 100..hellos, per_second));
    exchanges(&mut peers, &mut times, |_| flooding.is_finished());
    flooding.join().expect("it does not panic")?;
    let took = begun.elapsed();
    let after = resident_kib()?;
    report(out, &format!("{what}: meanwhile"), &times, after)?;

    is_over.store(true, Ordering::Relaxed);
    let stats = server.join().expect("it does not panic");
    writeln!(
        out,
        "    {hellos} hellos in {took:.1?}: {} answered, {} dropped by the gate, {} handshakes",
        stats.hello_bytes / hello_bytes,
        stats.dropped(DtlsDrop::Gate),
        stats.begun,
    )?;
    assert!(stats.conserves(), "{stats:?}");
    // No hello of the flood began a handshake. A peer whose request or response was lost
    // may shake hands again, from another port.
    assert!((PEERS..4 * PEERS).contains(&usize::try_from(stats.begun).unwrap_or(usize::MAX)));
    assert!(stats.verify_request_bytes <= stats.hello_bytes);
    assert!(
        after <= before + MOST_GROWTH_KIB,
        "{before} KiB, then {after} KiB"
    );
    Ok(())
}

/// Sends back what it receives, until it is over.
fn echo<G: Gate>(mut server: Dtls<UdpTransport, G>, is_over: &AtomicBool) -> DtlsStats {
    let mut inbox = Inbox::new(64, 2_048);
    let mut outbox = Outbox::new(64, 2_048);
    while !is_over.load(Ordering::Relaxed) {
        // An error is that of a peer: a port that is closed again.
        let _ = server.recv(&mut inbox, Wait::For(Duration::from_millis(50)));
        while let Some(datagram) = inbox.pop() {
            let response = [b"!", &datagram.bytes[1..]].concat();
            let (to, egress) = (datagram.meta.peer, datagram.meta.egress());
            outbox.push(to, egress, &response).expect("it has room");
            if !outbox.has_room_for(1) {
                server.send(&outbox);
                outbox.clear();
            }
        }
        server.send(&outbox);
        outbox.clear();
    }
    server.stats().clone()
}

type Peer = Client<Connector<UdpConnector>, Tagged<Raw>>;

fn peer(addr: SocketAddr) -> io::Result<Peer> {
    let config = ClientConfig::psk("peer", KEY);
    let connector = config.connector(UdpConnector::default(), &Tagged(Raw));
    let connector = connector.map_err(io::Error::other)?;
    let mut client = Client::new(connector, Tagged(Raw), addr);
    client
        .request(b"are you there?")
        .map_err(io::Error::other)?;
    Ok(client)
}

/// Notes the times that exchanges take, in order of length. Each has to succeed.
fn exchanges(peers: &mut [Peer], times: &mut Vec<Duration>, mut is_over: impl FnMut(u32) -> bool) {
    times.clear();
    for asked in 0.. {
        let client = &mut peers[asked as usize % PEERS];
        let begun = Instant::now();
        client
            .request(b"what is the time?")
            .expect("an honest peer is served");
        times.push(begun.elapsed());
        if is_over(asked + 1) {
            break;
        }
    }
    times.sort_unstable();
}

/// Sends hellos, each with another random, and from another address.
fn flood(
    server: SocketAddr,
    hello: &[u8],
    numbers: std::ops::Range<u32>,
    per_second: Option<u32>,
) -> io::Result<()> {
    let mut hello = hello.to_vec();
    let (begun, first) = (Instant::now(), numbers.start);
    for number in numbers {
        // Behind the headers of record and message, and the version.
        hello[13 + 12 + 2..][..4].copy_from_slice(&number.to_be_bytes());
        let addr = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
        let socket = UdpSocket::bind((addr, 0))?;
        // A full buffer loses it, as a full line does.
        let _ = socket.send_to(&hello, server);
        let Some(per_second) = per_second else {
            continue;
        };
        let due = Duration::from_secs(1) * (number - first) / per_second;
        if let Some(early) = due.checked_sub(begun.elapsed())
            && early > Duration::from_millis(1)
        {
            thread::sleep(early);
        }
    }
    Ok(())
}

/// What a client sends first.
fn hello() -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let addr = socket.local_addr()?;
    let config = ClientConfig::psk("stranger", KEY);
    let connector = config.connector(UdpConnector::default(), &Tagged(Raw));
    let mut client = connector.map_err(io::Error::other)?.connect(addr)?;
    let mut outbox = Outbox::new(1, 64);
    outbox
        .push(addr, None, b"?12345678")
        .map_err(io::Error::other)?;
    client.send(&outbox);
    let mut hello = vec![0; 2_048];
    let (len, _) = socket.recv_from(&mut hello)?;
    hello.truncate(len);
    Ok(hello)
}

fn report(out: &mut impl Write, what: &str, times: &[Duration], rss: u64) -> io::Result<()> {
    let at = |part: usize| times[(times.len() - 1) * part / 1_000].as_micros();
    let (number, median, slow, most) = (times.len(), at(500), at(990), at(1_000));
    writeln!(
        out,
        "{what:<42} {number:>9} {median:>9} {slow:>9} {most:>9} {rss:>9}"
    )
}

/// The memory of this process: all parts are in it.
fn resident_kib() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))
}

const KEY: [u8; 16] = [7; 16];
const PEERS: usize = 8;
/// The table of the gate has 1 MiB, which the OS provides as it is used. 100,000 entries of 20 bytes would be more.
const MOST_GROWTH_KIB: u64 = 1_536;
