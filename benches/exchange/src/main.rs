//! Exchanges over UDP on one machine, side by side: rejoinder's server, what people would use
//! instead, and the bare system calls as the floor.
//!
//! ```text
//! cargo run --release --manifest-path benches/exchange/Cargo.toml -- [options]
//!
//! cargo run --release --manifest-path benches/exchange/Cargo.toml -- sleep-beside
//!
//!   --rounds N      rounds, every load on every server in each (9)
//!   --millis N      how long each measurement takes (150)
//!   --loads A,B     only loads whose names contain one of these
//!   --skip A,B      not these parts: cpu, throughput, latency, waiting, clients
//!   --json FILE     all samples, one JSON object per line
//!   --svg FILE      a plot of the CPU times
//! ```
//!
//! What is measured:
//!
//! - **CPU**: the server's processor time per answer (`/proc/<pid>/schedstat`), with the client on
//!   the same core and both in the `SCHED_BATCH` class, so that a whole window of requests is queued
//!   before the server runs. It is the steadiest of the three, and does not depend on how fast the
//!   client is.
//! - **Throughput**: answers per second with the client on another core, which always has one half
//!   of its window with the server. If the client is the slower of the two, it is the client's. A
//!   server with two workers has both cores, one of them shared with the client.
//! - **Latency**: the median time of an exchange with one request in flight, the client on another
//!   core; once with a client that sleeps, once with one that polls.
//!
//! - **Waiting**: the server's processor time per answer where every handler waits 5 ms: a task for
//!   each datagram, and the slots of the async server.
//! - **Clients**: the client's processor time per answer with 256 requests in flight, blocking and
//!   async, from the same server.
//!
//! All servers run at the same time, those that are not asked asleep (a polling one is only started
//! for its turn). Every answer is checked; a wrong or missing one ends the program with an error.

mod loads;
mod peers;
mod report;
mod sys;
mod waiting;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use self::loads::{Asker, Load, Lone, Result};
use self::peers::Peer;
use self::report::{Report, Sample};

/// Client and servers of the CPU measurements; the clients of the others.
const CORE: usize = 0;
const OTHER_CORE: usize = 1;
const THROUGHPUT_PEERS: [Peer; 9] = [
    Peer::Std,
    Peer::Framed,
    Peer::Bare,
    Peer::Ours,
    Peer::OursBehind,
    Peer::OursPortable,
    Peer::OursWorkers,
    Peer::AioSync,
    Peer::AioAsync,
];

struct Options {
    rounds: usize,
    time: Duration,
    loads: Vec<String>,
    skip: Vec<String>,
    json: Option<String>,
    svg: Option<String>,
}

fn main() -> Result<()> {
    let mut options = Options {
        rounds: 9,
        time: Duration::from_millis(150),
        loads: Vec::new(),
        skip: Vec::new(),
        json: None,
        svg: None,
    };
    let list = |text: String| text.split(',').map(str::to_owned).collect();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        use lexopt::prelude::*;
        match argument {
            Value(word) if word == "serve" => {
                let name = arguments.value()?.string()?;
                let cores = arguments.values()?.map(|core| core.parse());
                let cores: Vec<usize> = cores.collect::<std::result::Result<_, _>>()?;
                return Peer::named(&name).ok_or("no such server")?.serve(&cores);
            }
            Value(word) if word == "ask" => {
                let addr = arguments.value()?.parse()?;
                let is_async = arguments.value()? == "async";
                let time = Duration::from_millis(arguments.value()?.parse()?);
                return waiting::ask(addr, is_async, time);
            }
            Value(word) if word == "sleep-beside" => return waiting::sleep_beside(),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            Long("rounds") => options.rounds = arguments.value()?.parse()?,
            Long("millis") => options.time = Duration::from_millis(arguments.value()?.parse()?),
            Long("loads") => options.loads = list(arguments.value()?.string()?),
            Long("skip") => options.skip = list(arguments.value()?.string()?),
            Long("json") => options.json = Some(arguments.value()?.string()?),
            Long("svg") => options.svg = Some(arguments.value()?.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if options.rounds == 0 {
        return Err("--rounds: at least 1".into());
    }
    for part in &options.skip {
        if !["cpu", "throughput", "latency", "waiting", "clients"].contains(&part.as_str()) {
            return Err(format!(
                "--skip `{part}`: not cpu, throughput, latency, waiting or clients"
            )
            .into());
        }
    }
    for part in &options.loads {
        if !Load::ALL.iter().any(|load| load.name().contains(part)) {
            return Err(format!("--loads `{part}`: no load is called so").into());
        }
    }
    let skips = |part: &str| options.skip.iter().any(|skip| skip == part);
    let mut report = Report::default();
    sys::pin(&[CORE])?;
    if !skips("throughput") {
        measure_throughput(&options, &mut report)?;
    }
    if !skips("latency") {
        measure_latency(&options, &mut report)?;
    }
    if !skips("waiting") {
        waiting::measure_servers(&options, &mut report)?;
    }
    if !skips("clients") {
        waiting::measure_clients(&options, &mut report)?;
    }
    if !skips("cpu") {
        // The servers inherit it.
        sys::work_in_batches()?;
        measure_cpu(&options, &mut report)?;
    }
    print!("{report}");
    if let Some(file) = &options.json {
        fs::write(file, report.json())?;
    }
    if let Some(file) = &options.svg {
        fs::write(file, report.svg())?;
    }
    Ok(())
}

const HELP: &str = "\
Exchanges over UDP on one machine, side by side; a minute and a half with the defaults.

  --rounds N      rounds, every load on every server in each (9)
  --millis N      how long each measurement takes (150)
  --loads A,B     only loads whose names contain one of these (latency has none of them)
  --skip A,B      not these parts: cpu, throughput, latency, waiting, clients
  --json FILE     all samples, one JSON object per line
  --svg FILE      a plot of the CPU times
";

fn loads(options: &Options) -> impl Iterator<Item = Load> {
    Load::ALL.into_iter().filter(|load| {
        let named = |part: &String| load.name().contains(part.as_str());
        options.loads.is_empty() || options.loads.iter().any(named)
    })
}

fn measure_cpu(options: &Options, report: &mut Report) -> Result<()> {
    let servers: Vec<_> = THROUGHPUT_PEERS
        .iter()
        .map(|&peer| Server::start(peer, &[CORE]))
        .collect::<Result<_>>()?;
    for load in loads(options) {
        let mut askers: Vec<_> = servers
            .iter()
            .map(|server| Asker::new(load, server.addr, server.peer.header()))
            .collect::<Result<_>>()?;
        for asker in &mut askers {
            for _ in 0..20 {
                asker.window()?;
            }
        }
        for round in 0..options.rounds {
            for (server, asker) in servers.iter().zip(&mut askers) {
                let (begun, cpu) = (Instant::now(), server.cpu()?);
                let mut answers = 0;
                while begun.elapsed() < options.time {
                    answers += asker.window()?;
                }
                let value = (server.cpu()? - cpu).as_nanos() as f64 / answers as f64;
                report.add(Sample {
                    table: "cpu",
                    load: load.name(),
                    peer: server.peer,
                    round,
                    value,
                });
            }
        }
    }
    Ok(())
}

fn measure_throughput(options: &Options, report: &mut Report) -> Result<()> {
    let servers: Vec<_> = THROUGHPUT_PEERS
        .iter()
        .map(|&peer| match peer {
            Peer::OursWorkers => Server::start(peer, &[CORE, OTHER_CORE]),
            _ => Server::start(peer, &[OTHER_CORE]),
        })
        .collect::<Result<_>>()?;
    for load in loads(options) {
        let mut askers: Vec<_> = servers
            .iter()
            .map(|server| Asker::new(load, server.addr, server.peer.header()))
            .collect::<Result<_>>()?;
        for asker in &mut askers {
            asker.window()?;
        }
        for round in 0..options.rounds {
            for (server, asker) in servers.iter().zip(&mut askers) {
                let begun = Instant::now();
                let answers = asker.stream(|| begun.elapsed() >= options.time)?;
                let value = answers as f64 / begun.elapsed().as_secs_f64();
                report.add(Sample {
                    table: "throughput",
                    load: load.name(),
                    peer: server.peer,
                    round,
                    value,
                });
            }
        }
    }
    Ok(())
}

fn measure_latency(options: &Options, report: &mut Report) -> Result<()> {
    for (load, polls) in [("the client sleeps", false), ("the client polls", true)] {
        for round in 0..options.rounds {
            for peer in Peer::ALL {
                // One that polls must not run while others are measured.
                let server = Server::start(peer, &[OTHER_CORE])?;
                let mut lone = Lone::new(server.addr, peer.header(), polls)?;
                for _ in 0..100 {
                    lone.exchange()?;
                }
                let mut times = Vec::new();
                let first = Instant::now();
                while first.elapsed() < options.time {
                    let begun = Instant::now();
                    lone.exchange()?;
                    times.push(begun.elapsed());
                }
                times.sort_unstable();
                let value = times[times.len() / 2].as_nanos() as f64;
                report.add(Sample {
                    table: "latency",
                    load,
                    peer,
                    round,
                    value,
                });
            }
        }
    }
    Ok(())
}

/// A server in a process of its own, which ends with this value.
struct Server {
    peer: Peer,
    process: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(peer: Peer, cores: &[usize]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", peer.name()])
            .args(cores.iter().map(usize::to_string))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let port: u16 = line.trim().parse()?;
        Ok(Self {
            peer,
            process,
            addr: ([127, 0, 0, 1], port).into(),
        })
    }

    /// The time that its threads have spent on a processor.
    fn cpu(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos = text.split(' ').next().ok_or("an empty schedstat")?;
            total += Duration::from_nanos(nanos.parse()?);
        }
        Ok(total)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
