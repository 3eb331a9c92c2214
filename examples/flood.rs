//! A flood from many networks at once, an honest client in between, and what a rate limit changes.
//!
//!     cargo run --release --example flood
//!
//! Linux only: there every address of 127.0.0.0/8 is this machine, so that each can be a source.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::{Ctime, RateLimit, ServerBuilder, Stats, zurich};

/// The flood comes from so many networks of 256 addresses, and from so many addresses of each.
const NETWORKS: u8 = 100;
const SOURCES: u8 = 10;
const TIME: Duration = Duration::from_secs(5);
/// How long the honest client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long it waits before the next question: it stays within what the limit allows to one network.
const PAUSE: Duration = Duration::from_millis(12);

fn main() -> Result<(), Box<dyn Error>> {
    for (limited, flooded) in [(false, false), (false, true), (true, true)] {
        let limit = RateLimit::default();
        let memory = limit.memory_bytes();
        let server = ServerBuilder::new(Ctime::local())
            .gate(limited.then(|| limit.clone()))
            .bind("127.0.0.1:0")?;
        let addr = server.local_addr()?;
        let handle = server.handle();
        let server = thread::spawn(move || server.serve(zurich()));

        let stop = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let honest = thread::scope(|scope| {
            let flood = flooded.then(|| scope.spawn(|| flood(addr, &stop, &sent)));
            let honest = ask(addr);
            stop.store(true, Ordering::Relaxed);
            if let Some(flood) = flood {
                flood.join().expect("it does not panic")?;
            }
            honest
        })?;
        handle.stop();
        let stats = server.join().map_err(|_| "the server panicked")??;
        println!("limit {limited}, flood {flooded}");
        report(&honest, sent.into_inner(), &stats);
        assert_eq!(limit.memory_bytes(), memory, "the table does not grow");
        println!("  table: {memory} bytes, before and after\n");
    }
    Ok(())
}

/// Sends as fast as it can, from one source after the other.
fn flood(to: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
    let networks =
        (1..=NETWORKS).flat_map(|net| (1..=SOURCES).map(move |host| [127, 1, net, host]));
    let sockets = networks.map(|ip| {
        let socket = UdpSocket::bind(SocketAddr::from((ip, 0)))?;
        // What comes back is left in the socket's queue, where it is dropped once that is full.
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    for socket in sockets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if socket.send_to("你好吗？".as_bytes(), to).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Asks one question after the other, and notes how long each answer took; `None` if none came.
fn ask(to: SocketAddr) -> io::Result<Vec<Option<Duration>>> {
    let begun = Instant::now();
    let mut delays = Vec::new();
    while begun.elapsed() < TIME {
        // A fresh socket, so that no late answer is taken for this one's.
        let socket = UdpSocket::bind("127.200.0.1:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let asked = Instant::now();
        socket.send("你好吗？".as_bytes())?;
        let answered = socket.recv(&mut [0; 256]).is_ok();
        delays.push(answered.then(|| asked.elapsed()));

        thread::sleep(PAUSE);
    }
    Ok(delays)
}

fn report(honest: &[Option<Duration>], flood: u64, stats: &Stats) {
    let mut delays: Vec<_> = honest.iter().flatten().collect();
    delays.sort();
    let at = |percent: usize| match delays.get(delays.len() * percent / 100) {
        Some(delay) => format!("{:.3} ms", delay.as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    println!(
        "  honest client: {} of {} answered within {PATIENCE:?}; delay of those: p50 {}, p99 {}",
        delays.len(),
        honest.len(),
        at(50),
        at(99)
    );
    println!("  flood: {flood} sent in {TIME:?}");
    println!("  server: {stats}");
}
