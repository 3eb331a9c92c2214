//! A flood from many networks at once, an honest client in between, and what a rate limit changes.
//!
//! ```text
//! rejoinder flood
//! ```
//!
//! Linux only: there every address of 127.0.0.0/8 is this machine, so that each can be a source.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::stream::Out;
use crate::program::{Failure, chain};
use rejoinder::bot::zurich;
use rejoinder::codec::Ctime;
use rejoinder::gate::RateLimit;
use rejoinder::{Server, Stats};

/// The flood comes from so many networks of 256 addresses, and from so many addresses of each.
const NETWORKS: u8 = 100;
const SOURCES: u8 = 10;
const TIME: Duration = Duration::from_secs(5);
/// How long the honest client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long it waits before the next question: it stays within what the limit allows to one network.
const PAUSE: Duration = Duration::from_millis(12);

/// Show what a flood does to a server, with and without a rate limit
///
/// 1,000 addresses of this machine send as fast as they can, and an honest client asks in between. It
/// takes 15 seconds, and Linux.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> Result<ExitCode, Failure> {
    for (limited, flooded) in [(false, false), (false, true), (true, true)] {
        let server = Server::builder(Ctime::local())
            .gate(limited.then(RateLimit::default))
            .bind("127.0.0.1:0")?;
        let addr = server.local_addr()?;
        let handle = server.handle();
        let server = thread::Builder::new().spawn(move || server.serve(zurich()))?;

        let stop = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        let honest = thread::scope(|scope| {
            let flood = if flooded {
                Some(thread::Builder::new().spawn_scoped(scope, || flood(addr, &stop, &sent))?)
            } else {
                None
            };
            let honest = ask(addr);
            stop.store(true, Ordering::Relaxed);
            if let Some(flood) = flood {
                flood.join().expect("it does not panic")?;
            }
            honest
        })?;
        handle.shutdown();
        let stats = server.join().expect("no panic ends a server");
        let stats = stats.map_err(|error| Failure::RunTime(chain(&error)))?;
        match report([limited, flooded], &honest, sent.into_inner(), &stats) {
            // The reader closed the pipe: that is no error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            result => result?,
        }
    }
    Ok(ExitCode::SUCCESS)
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

struct Honest {
    /// How long each answer took; `None` if none came.
    delays: Vec<Option<Duration>>,
    /// The memory of the program after a second, and in the end, in KiB.
    memory: [Option<u64>; 2],
}

/// Asks one question after the other, each from another port.
fn ask(to: SocketAddr) -> io::Result<Honest> {
    let begun = Instant::now();
    let mut delays = Vec::new();
    let mut warm = None;
    while begun.elapsed() < TIME {
        let socket = UdpSocket::bind("127.200.0.1:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let asked = Instant::now();
        socket.send("你好吗？".as_bytes())?;
        let answered = socket.recv(&mut [0; 256]).is_ok();
        // The system may end the wait a little later than it was asked to.
        let delay = Some(asked.elapsed()).filter(|&delay| answered && delay <= PATIENCE);
        delays.push(delay);
        if warm.is_none() && begun.elapsed() >= Duration::from_secs(1) {
            warm = resident();
        }
        thread::sleep(PAUSE);
    }
    Ok(Honest {
        delays,
        memory: [warm, resident()],
    })
}

/// How much memory this program has, in KiB.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn report(
    [limited, flooded]: [bool; 2],
    honest: &Honest,
    flood: u64,
    stats: &Stats,
) -> io::Result<()> {
    let mut out = Out;
    let mut delays: Vec<_> = honest.delays.iter().flatten().collect();
    delays.sort();
    let at = |percent: usize| match delays.get(delays.len() * percent / 100) {
        Some(delay) => format!("{:.3} ms", delay.as_secs_f64() * 1e3),
        None => "-".to_owned(),
    };
    let on = |on| if on { "on" } else { "off" };
    writeln!(out, "limit {}, flood {}", on(limited), on(flooded))?;
    writeln!(
        out,
        "  honest client: {} of {} answered within {PATIENCE:?}; delay of those: p50 {}, p99 {}",
        delays.len(),
        honest.delays.len(),
        at(50),
        at(99)
    )?;
    writeln!(out, "  flood: {flood} sent in {TIME:?}")?;
    writeln!(out, "  server: {stats}")?;
    if let [Some(warm), Some(end)] = honest.memory {
        writeln!(
            out,
            "  memory: {warm} KiB after a second, {end} KiB in the end"
        )?;
    }
    writeln!(out)
}
