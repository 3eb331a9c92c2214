//! A server in a process of its own, under attack.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::bot::zurich;
use rejoinder::codec::Ctime;
use rejoinder::gate::{Gate, RateLimit};
use rejoinder::testing::{Faults, FaultyTransport};
use rejoinder::transport::Outbox;
use rejoinder::udp::UdpOptions;
use rejoinder::{Server, Stats, Transport};

use crate::settings::Setting;

type Counters = BTreeMap<String, u64>;

/// The process serves, and prints its counters when it reads a line.
pub fn process() {
    let Ok(options) = env::var(OPTIONS) else {
        return;
    };
    let options: HashMap<_, _> = options
        .split(';')
        .filter_map(|option| option.split_once('='))
        .collect();
    let bind = options.get("bind").unwrap_or(&"127.0.0.1:0");
    let mut udp = UdpOptions::new();
    if options.contains_key("portable") {
        udp = udp.portable();
    }
    let limit = options.get("answers").map(|answers| {
        let limit = RateLimit::builder().responses_per_second(answers.parse().unwrap());
        limit.build().unwrap()
    });
    let mut builder = Server::builder(Ctime::local()).gate(limit);
    if let Some(workers) = options.get("workers") {
        builder = builder.workers(workers.parse().unwrap());
    }
    if let Some(millis) = options.get("max_age") {
        builder = builder.max_age(Duration::from_millis(millis.parse().unwrap()));
    }
    let faults = Faults::new();
    if options.contains_key("faults") {
        let transport = FaultyTransport::new(udp.bind(bind).unwrap(), &faults);
        serve(builder.with_transport(transport).unwrap(), &faults);
    } else if let Some(peer) = options.get("poke") {
        let mut transport = udp.bind(bind).unwrap();
        poke(&mut transport, peer);
        serve(builder.with_transport(transport).unwrap(), &faults);
    } else {
        serve(builder.udp_options(udp).bind(bind).unwrap(), &faults);
    }
}

/// Serves, and does what the lines of the standard input say.
fn serve<T, G>(server: Server<T, Ctime, G>, faults: &Faults)
where
    T: Transport + Send + 'static,
    G: Gate + Send + 'static,
{
    say(&server.local_addr().unwrap().to_string());
    let handle = server.handle();
    let server = thread::spawn(move || server.serve(zurich()));
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let error = |code: &str| io::Error::from_raw_os_error(code.parse().unwrap());
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["receive", times, code] => faults.on_receive(times.parse().unwrap(), &error(code)),
            ["send", times, code] => faults.on_send(times.parse().unwrap(), &error(code)),
            ["stats"] => {}
            _ => break,
        }
        say(&told(&handle.stats()));
    }
    handle.shutdown();
    say(&told(&server.join().unwrap().unwrap()));
}

/// Asks a question from the server's own socket.
fn poke(transport: &mut impl Transport, peer: &str) {
    let (peer, local) = match peer {
        // From one of its addresses to another.
        "itself" => {
            let port = transport.local_addr().unwrap().port();
            let peer = SocketAddr::from(([127, 0, 0, 3], port));
            (peer, Some([127, 0, 0, 2].into()))
        }
        peer => (peer.parse().unwrap(), None),
    };
    let mut outbox = Outbox::new(1, 1);
    outbox.push(peer, local, b"?").unwrap();
    assert_eq!(transport.send(&outbox).sent, 1);
}

fn told(stats: &Stats) -> String {
    assert!(stats.is_conserved(), "{stats}");
    let counters = stats
        .counters()
        .map(|(name, value)| format!("{name}={value}"));
    counters.collect::<Vec<_>>().join(" ")
}

/// The test runner writes to the same place.
fn say(text: &str) {
    let mut out = io::stdout();
    writeln!(out, "\n{MARK}{text}").unwrap();
    out.flush().unwrap();
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug)]
pub enum Failing {
    /// Receiving.
    Receive,
    /// Sending.
    Send,
}

/// The process, seen from outside. It is killed when this is dropped.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    addr: SocketAddr,
    interruptions: bool,
    descriptors: usize,
    memory: u64,
    workers: u64,
}

impl Victim {
    /// Starts one, with options of the form that the process reads.
    pub fn start(options: &[(&str, &str)]) -> Self {
        let workers = options.iter().find(|option| option.0 == "workers");
        let workers = workers.map_or(1, |option| option.1.parse().unwrap());
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "hostile::victim_process",
                "--ignored",
                "--nocapture",
            ])
            .env(OPTIONS, options.join(";"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut victim = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            interruptions: false,
            descriptors: 0,
            memory: 0,
            workers,
            child,
        };
        victim.addr = victim.hear().parse().unwrap();
        PROCESSES
            .lock()
            .unwrap()
            .insert(victim.addr, victim.child.id());
        // Warm: every thread runs, and every buffer that a single datagram touches is there.
        victim.stats();
        victim.descriptors = victim.count_descriptors();
        victim.memory = victim.resident_bytes();
        victim
    }

    /// One that is opened in a certain way.
    pub fn start_in(setting: Setting) -> Self {
        let workers = setting.workers.to_string();
        let mut options = vec![("bind", setting.addr()), ("workers", &workers)];
        if setting.portable {
            options.push(("portable", "yes"));
        }
        Self::start(&options)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Signals may end a wait of the server early, and that is counted.
    pub fn expect_interruptions(&mut self) {
        self.interruptions = true;
    }

    /// Its counters.
    pub fn stats(&mut self) -> Counters {
        self.tell("stats")
    }

    /// The next attempts to receive fail, or to send, with an error of the system. It must have been
    /// started with `faults`.
    pub fn fail(&mut self, what: Failing, times: u64, code: i32) {
        let what = match what {
            Failing::Receive => "receive",
            Failing::Send => "send",
        };
        self.tell(&format!("{what} {times} {code}"));
    }

    fn tell(&mut self, order: &str) -> Counters {
        writeln!(self.stdin, "{order}").unwrap();
        parse(&self.hear())
    }

    /// Attacks, and looks whether the counters moved as expected and nothing else did. `expected`
    /// holds the fates of the datagrams: what was received and sent follows from them.
    pub fn attack(
        &mut self,
        what: &str,
        expected: &[(&str, u64)],
        attack: impl FnOnce(SocketAddr),
    ) {
        let mut moved = Vec::new();
        for &(fate, datagrams) in expected {
            moved.extend([(fate, datagrams), ("received", datagrams)]);
            if fate == "replied" {
                moved.push(("responses_sent", datagrams));
            }
        }
        self.attack_and_count(what, &moved, |victim| attack(victim.reachable()));
    }

    /// The same, with all counters that move.
    pub fn attack_and_count(
        &mut self,
        what: &str,
        moved: &[(&str, u64)],
        attack: impl FnOnce(&mut Self),
    ) {
        let mut wanted = self.stats();
        for &(counter, by) in moved {
            *wanted.get_mut(counter).unwrap() += by;
        }
        attack(self);
        self.reach(&wanted, what);
        self.expect_recovery();
    }

    /// Looks whether the counters become exactly these, all others being zero.
    pub fn settle(&mut self, expected: &[(&str, u64)]) {
        let mut wanted = self.stats();
        for value in wanted.values_mut() {
            *value = 0;
        }
        for &(counter, value) in expected {
            *wanted.get_mut(counter).unwrap() = value;
        }
        self.reach(&wanted, "");
    }

    /// Waits for the counters to be as wanted.
    fn reach(&mut self, wanted: &Counters, what: &str) {
        let mut wanted = wanted.clone();
        let interruptions = self.interruptions;
        let mut stats = self.wait_for(|stats| {
            let mut counters = stats.iter().zip(wanted.values());
            counters.all(|((name, value), wanted)| value >= wanted || name == "pending")
                && stats["pending"] == 0
        });
        if interruptions {
            for counters in [&mut stats, &mut wanted] {
                counters.remove("receive_errors_interrupted");
            }
        }
        assert_eq!(stats, wanted, "{what}");
    }

    /// Waits until the counters fulfil a condition.
    pub fn wait_for(&mut self, condition: impl Fn(&Counters) -> bool) -> Counters {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "the counters stay at {stats:?}");
            thread::yield_now();
        }
    }

    /// Looks whether it is the same process, answers the next request, and has no more descriptors
    /// and no more memory than in the beginning.
    pub fn expect_recovery(&mut self) {
        let socket = asker(self.reachable());
        let deadline = Instant::now() + PATIENCE;
        let received = self.stats()["received"];
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut reply = [0; 1_024];
        loop {
            // A flood may have left no room for this one.
            socket.send("你好吗？".as_bytes()).unwrap();
            match socket.recv(&mut reply) {
                Ok(_) => break,
                Err(error) => assert!(Instant::now() < deadline, "no answer: {error}"),
            }
        }
        // The counters follow the reply.
        self.wait_for(|stats| stats["received"] > received);
        assert!(self.child.try_wait().unwrap().is_none(), "it is alive");
        assert_eq!(self.count_descriptors(), self.descriptors);
        let grown = self.resident_bytes().saturating_sub(self.memory);
        assert!(
            grown <= self.workers * BATCHES_BYTES + slack_bytes(),
            "{grown} bytes more than before"
        );
    }

    /// Asks from one address, one question after another; returns how many were answered.
    pub fn flood_from(&mut self, from: &str, requests: u64) -> u64 {
        let before = self.stats();
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect(self.reachable()).unwrap();
        for sent in 1..=requests {
            socket.send(b"?").unwrap();
            self.wait_for(|stats| stats["received"] - before["received"] == sent);
        }
        self.stats()["replied"] - before["replied"]
    }

    /// Ends it, and returns its last counters, which add up.
    pub fn end(&mut self) -> Counters {
        self.stdin.write_all(b"end\n").unwrap();
        let stats = parse(&self.hear());
        assert!(self.child.wait().unwrap().success());
        let fates = stats.iter().filter(|(name, _)| {
            name.starts_with("dropped_")
                || ["replied", "silent", "pending"].contains(&name.as_str())
        });
        assert_eq!(
            fates.map(|(_, value)| value).sum::<u64>(),
            stats["received"]
        );
        assert_eq!(stats["pending"], 0);
        stats
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = self.stdout.read_line(&mut line).unwrap();
            assert!(bytes > 0, "the server's process ended");
            if let Some(text) = line.strip_prefix(MARK) {
                return text.trim_end().to_owned();
            }
        }
    }

    /// Where it can be asked on this machine.
    fn reachable(&self) -> SocketAddr {
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip([127, 0, 0, 1].into());
        }
        addr
    }

    fn count_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1_024
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that talks to one address only.
pub fn asker(to: SocketAddr) -> UdpSocket {
    let from = SocketAddr::new(to.ip(), 0);
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next datagram.
pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// Signals the process that serves at an address. Without unsafe code, only a program can. After a
/// signal to stop, it has stopped when this returns.
pub fn signal(server: SocketAddr, signal: &str) {
    let process = PROCESSES.lock().unwrap()[&server];
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(process.to_string())
        .status();
    assert!(status.unwrap().success());
    if signal == "STOP" {
        let deadline = Instant::now() + PATIENCE;
        while !has_stopped(process) {
            assert!(Instant::now() < deadline, "it goes on");
            thread::yield_now();
        }
    }
}

/// Whether all threads of a process have: the first thread to handle the signal stops the others.
fn has_stopped(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.into_iter().all(|thread| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        // After its name, which stands in parentheses and may be anything.
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    })
}

fn parse(counters: &str) -> Counters {
    counters
        .split(' ')
        .map(|counter| {
            let (name, value) = counter.split_once('=').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Which process serves at which address.
static PROCESSES: LazyLock<Mutex<HashMap<SocketAddr, u32>>> = LazyLock::new(Mutex::default);
const OPTIONS: &str = "REJOINDER_VICTIM";
const MARK: &str = "@victim ";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The inbox and the outbox of a server with its default limits: pages that are touched when
/// datagrams are long or many.
const BATCHES_BYTES: u64 = 128 * 65_536 + 32 * 65_508;

/// What allocators and stacks may take. A sanitizer keeps books of its own: where one is, set
/// `REJOINDER_TESTS_SANITIZED`.
fn slack_bytes() -> u64 {
    match env::var_os("REJOINDER_TESTS_SANITIZED") {
        None => 2 << 20,
        Some(_) => 64 << 20,
    }
}
