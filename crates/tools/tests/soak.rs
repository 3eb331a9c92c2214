//! `rejoinder serve` for minutes: 10,000 rules that are replaced again and again, both families, garbage.
//!
//! ```text
//! REJOINDER_SOAK_SECONDS=480 cargo test --release -p rejoinder-tools --test soak -- --ignored --nocapture
//! ```
//!
//! Without a number it takes ten seconds. Every request must have the answer of a rule set that was in use while
//! it was under way, none may be lost, and the counters at the end must be those of what was sent.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, process as this_process, thread};

use rejoinder::Codec;
use rejoinder::codec::Ctime;
use rejoinder_test_support::process::{PATIENCE, Program};

const RULES: u64 = 10_000;
const DEFAULT_SECONDS: u64 = 10;

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Generations of rules: which the server has said that it uses, and which it may use by now.
#[derive(Default)]
struct Generations {
    confirmed: AtomicU64,
    written: AtomicU64,
}

/// A generator of numbers that are random enough, and the same in each run.
struct Numbers(u64);

impl Numbers {
    /// A number below `end`, by splitmix64.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

fn rules(generation: u64) -> String {
    let mut text = format!("fallback = 'none of generation {generation}'\n");
    for rule in 0..RULES {
        // One in a hundred needs the slow way to match.
        let pattern = match rule % 100 {
            7 => format!("question {rule:05}(?: please)?\\b.*"),
            _ => format!("question {rule:05}"),
        };
        write!(
            text,
            "[[rule]]\npattern = '{pattern}'\nanswer = 'answer {rule} of generation {generation}'\n"
        )
        .unwrap();
    }
    text
}

fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

/// Asks, and returns the text of the answer.
fn ask(socket: &UdpSocket, question: &str) -> String {
    socket.send(question.as_bytes()).unwrap();
    let mut buffer = [0; 2_000];
    let len = socket.recv(&mut buffer).expect("no request is lost");
    let frame = Ctime::local().decode_response(&buffer[..len]).unwrap();
    frame.text.to_owned()
}

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket
}

/// Asks until it is over, and returns how often. One question at a time, so no buffer overflows.
fn honest(server: SocketAddr, seed: u64, generations: &Generations, over: &AtomicBool) -> u64 {
    let socket = client(server);
    let mut numbers = Numbers(seed);
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        // A few have no rule.
        let rule = numbers.below(RULES + RULES / 100);
        let oldest = generations.confirmed.load(Ordering::SeqCst);
        let answer = ask(&socket, &format!("question {rule:05}"));
        let newest = generations.written.load(Ordering::SeqCst);
        let (what, generation) = answer.rsplit_once(" of generation ").unwrap();
        let expected = match rule {
            rule if rule < RULES => format!("answer {rule}"),
            _ => "none".to_owned(),
        };
        assert_eq!(what, expected, "question {rule}");
        let generation: u64 = generation.parse().unwrap();
        assert!(
            (oldest..=newest).contains(&generation),
            "generation {generation}, not {oldest} to {newest}"
        );
        asked += 1;
    }
    asked
}

/// Sends what is no request until it is over, and a question now and then, to let the server keep up. Returns
/// how many datagrams were no text, how many were responses, and how many were questions.
fn garbage(server: SocketAddr, over: &AtomicBool) -> [u64; 3] {
    let socket = client(server);
    let mut numbers = Numbers(99);
    let mut sent = [0; 3];
    let mut frame = b"[b'Sun Jul  7 17:17:58 2019']question 1".to_vec();
    while !over.load(Ordering::Relaxed) {
        for _ in 0..numbers.below(32) {
            if numbers.below(4) == 0 {
                frame.truncate(29);
                frame.extend(numbers.below(u64::MAX).to_le_bytes());
                socket.send(&frame).unwrap();
                sent[1] += 1;
            } else {
                let len = usize::try_from(numbers.below(1_400)).unwrap();
                let mut bytes: Vec<u8> = (0..len)
                    .map(|_| numbers.below(256).to_le_bytes()[0])
                    .collect();
                // No text has this byte.
                bytes.push(0xff);
                socket.send(&bytes).unwrap();
                sent[0] += 1;
            }
        }
        ask(&socket, "question 00001");
        sent[2] += 1;
    }
    sent
}

/// Kilobytes of memory that a process uses.
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[test]
#[ignore = "takes as long as REJOINDER_SOAK_SECONDS says"]
fn rules_are_replaced_for_minutes_and_no_answer_is_wrong_or_lost() {
    let seconds = env::var("REJOINDER_SOAK_SECONDS").map_or(DEFAULT_SECONDS, |text| {
        text.parse().expect("REJOINDER_SOAK_SECONDS is a number")
    });
    let scratch = Scratch(env::temp_dir().join(format!("rejoinder-soak-{}", this_process::id())));
    fs::create_dir(&scratch.0).unwrap();
    let file = scratch.0.join("rules.toml");
    replace(&file, &rules(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    command.args(["serve", "[::]:0", "--quiet", "--limit", "off", "--rules"]);
    let mut server = Program::start(command.arg(&file));
    let port = server.listening().port();
    let addresses = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));

    let generations = Generations::default();
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let time = Duration::from_secs(seconds);
    let (mut reloads, mut refused, mut warm) = (0, 0, 0);
    let (asked, garbage) = thread::scope(|scope| {
        // Also when something panics below, or the other threads would never end.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = Over(&over);
        let honest: Vec<_> = (1..)
            .zip(addresses.iter().cycle().take(4))
            .map(|(seed, addr)| {
                let (generations, over) = (&generations, &over);
                scope.spawn(move || honest(*addr, seed, generations, over))
            })
            .collect();
        let garbage = addresses.map(|addr| {
            let over = &over;
            scope.spawn(move || garbage(addr, over))
        });
        while begun.elapsed() < time || reloads < 3 || refused < 1 {
            if reloads % 4 == 3 && refused <= reloads / 4 {
                // A file that is half written.
                let text = rules(u64::MAX);
                replace(&file, &text[..text.len() / 2]);
                server.signal("HUP");
                refused += 1;
                server.wait_for_stderr_again("answering by the rules of before", refused);
                continue;
            }
            let next = generations.written.load(Ordering::SeqCst) + 1;
            let text = rules(next);
            generations.written.store(next, Ordering::SeqCst);
            replace(&file, &text);
            server.signal("HUP");
            reloads += 1;
            // The first line is that of the start.
            server.wait_for_stderr_again(&format!("answering by {}", file.display()), reloads + 1);
            generations.confirmed.store(next, Ordering::SeqCst);
            if reloads == 3 {
                warm = memory(server.id());
            }
        }
        drop(end);
        let asked: u64 = honest.into_iter().map(|one| one.join().unwrap()).sum();
        let garbage = garbage.map(|one| one.join().unwrap());
        (asked, garbage)
    });
    let cold = memory(server.id());
    let [malformed, responses, questions] =
        [0, 1, 2].map(|kind| garbage.iter().map(|sent| sent[kind]).sum::<u64>());
    let requests = asked + questions;
    let dropped = malformed + responses;
    println!(
        "{seconds} s: {requests} requests, 0 wrong, 0 lost; {malformed} malformed, {responses} responses; \
         {reloads} reloads, {refused} refused; {warm} kB after three reloads, {cold} kB at the end"
    );

    server.signal("INT");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    let counters = ended.stderr.lines().last().unwrap();
    let received = requests + dropped;
    let start = format!("received {received}: replied {requests}, silent 0, dropped {dropped} (");
    let end = format!("), pending 0; responses sent {requests}, failed 0; receive errors 0");
    assert!(
        counters.starts_with(&start) && counters.ends_with(&end),
        "{counters}"
    );
    for (reason, count) in [("malformed", malformed), ("response", responses)] {
        assert!(
            counters.contains(&format!("{reason} {count}")),
            "{counters}"
        );
    }
    // Two rule sets at a time are in memory, and what the allocator keeps.
    assert!(cold < 2 * warm + 32_768, "{warm} kB became {cold} kB");
}
