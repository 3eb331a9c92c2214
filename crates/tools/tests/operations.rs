//! The server as its operator meets it: new rules, live rates, workers, a service manager.
//!
//! Tests that need programs of systemd are ignored unless asked for:
//! `cargo test -p rejoinder-tools --test operations -- --ignored`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process as this_process};

use allocation_counter::measure;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::Ctime;
use rejoinder::gate::RateLimit;
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, Meta, Outbox};
use rejoinder::{Codec, DropReason, Server, Stats, Timestamp};
use rejoinder_test_support::process::{Ended, PATIENCE, Program, python, start_server, words};
use rejoinder_tools::serve::rates::{Rates, line};
use rejoinder_tools::serve::transcript::Transcribed;

/// The program with one of its commands.
fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rejoinder-{}-{number}", this_process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks once, and returns the text of the answer.
fn ask(server: SocketAddr, text: &str) -> String {
    let any = if server.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(text.as_bytes(), server).unwrap();
    let mut buffer = [0; 2_000];
    let len = socket.recv(&mut buffer).unwrap();
    let frame = Ctime::local().decode_response(&buffer[..len]).unwrap();
    frame.text.to_owned()
}

fn says(answer: &str) -> String {
    format!("[[rule]]\npattern = 'x'\nanswer = '{answer}'\n")
}

fn run(command: &mut Command) -> Ended {
    Program::start(command).finish()
}

fn one_line(ended: &Ended, code: i32, problem: &str) {
    assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let line = ended.stderr.strip_suffix('\n').unwrap();
    assert!(
        line.starts_with("error: ") && !line.contains('\n'),
        "{line}"
    );
    assert!(line.contains(problem), "{problem} in {line}");
}

// ---- rules ----

#[test]
fn a_hangup_brings_new_rules_and_bad_ones_change_nothing() {
    let scratch = Scratch::new();
    let rules = scratch.file("rules.toml", says("one"));
    let (mut server, address) =
        start_server("127.0.0.1:0", tool("serve").args(["-q", "--rules", &rules]));
    server.wait_for_stderr(&format!("answering by {rules}"));
    assert_eq!(ask(address, "x"), "one");

    // Until the signal comes, the file may be anything.
    scratch.file("rules.toml", says("two"));
    assert_eq!(ask(address, "x"), "one");
    server.signal("HUP");
    until(|| ask(address, "x") == "two");

    let cases: [(&[u8], &str); 4] = [
        (
            "# 好\n[[rule]]\npattern = 'a'\nanswer = '好{1}'\n".as_bytes(),
            "line 4, column 12: rule 1: bad template 1",
        ),
        (b"fallback = \n", "line 1, column 12: "),
        (
            b"fallback = '\xe5\xa5\xbd'\n# \xe5\xa5\xbd\xff",
            "line 2, column 4: not UTF-8",
        ),
        (
            b" \n",
            "line 1, column 1: there is no rule: it needs at least one `[[rule]]`",
        ),
    ];
    for (content, problem) in cases {
        scratch.file("rules.toml", content);
        server.signal("HUP");
        server.wait_for_stderr(&format!("error: {rules}: {problem}"));
        assert_eq!(ask(address, "x"), "two");
    }
    fs::remove_file(&rules).unwrap();
    server.signal("HUP");
    server.wait_for_stderr(&format!("error: {rules}: No such file"));
    assert_eq!(ask(address, "x"), "two");

    scratch.file("rules.toml", says("three"));
    server.signal("HUP");
    until(|| ask(address, "x") == "three");
    server.signal("TERM");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    let kept = ended.stderr.matches("answering by the rules of before\n");
    assert_eq!(kept.count(), 5, "{}", ended.stderr);
}

fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        thread::yield_now();
    }
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_place() {
    let scratch = Scratch::new();
    for (content, place) in [
        (&b"\xff"[..], "line 1, column 1"),
        (
            &b"# \xe5\xa5\xbd\r\n# \xe5\xa5\xbd\xe5\xa5"[..],
            "line 2, column 4",
        ),
        (&b"\xef\xbb\xbf#\xff"[..], "line 1, column 2"),
    ] {
        let rules = scratch.file("rules.toml", content);
        let ended = run(tool("serve").args(["127.0.0.1:0", "--rules", &rules]));
        one_line(&ended, 1, &format!("{rules}: {place}: not UTF-8"));
    }
}

#[test]
fn a_hangup_does_not_wait_for_what_is_no_file() {
    let scratch = Scratch::new();
    let rules = scratch.file("rules.toml", says("one"));
    let (mut server, address) =
        start_server("127.0.0.1:0", tool("serve").args(["-q", "--rules", &rules]));
    fs::remove_file(&rules).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&rules)
            .status()
            .unwrap()
            .success()
    );
    server.signal("HUP");
    server.wait_for_stderr(&format!("error: {rules}: it is no regular file"));
    assert_eq!(ask(address, "x"), "one");
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_server_does_not_begin_with_rules_without_end() {
    let scratch = Scratch::new();
    let large = scratch.file("rules.toml", "#".repeat((16 << 20) + 1));
    for (rules, problem) in [
        (large.as_str(), "it has more than 16777216 bytes"),
        ("/dev/zero", "it is no regular file"),
    ] {
        let ended = run(tool("serve").args(["127.0.0.1:0", "--rules", rules]));
        one_line(&ended, 1, &format!("{rules}: {problem}"));
    }
}

#[test]
fn a_server_does_not_begin_with_rules_that_it_cannot_use() {
    let scratch = Scratch::new();
    let rules = scratch.file("a\u{1b}[J\n.toml", "[[rule]]\npattern = '('\nanswer = ''\n");
    let ended = run(tool("serve").args(["127.0.0.1:0", "--rules", &rules]));
    // Neither the name of the file nor what is in it acts on a terminal.
    one_line(
        &ended,
        1,
        r"/a\u{1b}[J\n.toml: line 2, column 12: rule 1: bad pattern",
    );
    let ended = run(tool("serve").args(["127.0.0.1:0", "--rules", "/nowhere/rules.toml"]));
    one_line(&ended, 1, "/nowhere/rules.toml: No such file");
}

#[test]
fn the_rules_that_ship_can_be_used_and_have_a_transcript() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/zurich.toml");
    let (server, address) = start_server("127.0.0.1:0", tool("serve").args(["-r", rules]));
    let answer = ask(address, "你觉得我是最帅最帅的吗？");
    assert_eq!(answer, "【机器人】小Zurich 觉得自己是最帅最帅的!");
    server.signal("INT");
    assert_eq!(
        server.finish().stdout,
        "\
waiting for message...
【机器人】小Zurich 觉得我是最帅最帅的!
【服务器端】回复: 【机器人】小Zurich 觉得自己是最帅最帅的!
waiting for message...
"
    );
}

#[test]
fn a_hangup_without_rules_changes_nothing() {
    let (mut server, address) = start_server("127.0.0.1:0", tool("serve").arg("-q"));
    server.signal("HUP");
    server.wait_for_stderr("nothing to read again");
    assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    server.signal("INT");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_hangup_ends_a_server_whose_terminal_is_gone() {
    let server = tool("serve");
    let mut hangup = python("hangup.py");
    let ended = run(hangup.args(words(&server)).args(["-q", "127.0.0.1:0"]));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with("receive errors 0\n"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_transcript_that_nobody_reads_does_not_keep_new_rules_out() {
    let scratch = Scratch::new();
    let rules = scratch.file("rules.toml", says(&"x".repeat(50_000)));
    let (mut server, mut stdout) =
        Program::start_unread(tool("serve").args(["127.0.0.1:0", "--rules", &rules]), b"");
    let address = server.listening();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // The transcript of it is more than a pipe holds, so it is never written to its end.
    socket.send_to(b"x", address).unwrap();
    let mut begun = [0; 100];
    stdout.read_exact(&mut begun).unwrap();
    assert!(begun.ends_with(b"xxx"));
    scratch.file("rules.toml", says("two"));
    server.signal("HUP");
    server.wait_for_stderr_again("answering by ", 2);
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_request_is_answered_by_one_robot_whenever_they_change() {
    let robot = |letter: char| {
        let template = format!("{letter}{{1}}{letter}{{1}}{letter}{{1}}{letter}");
        Robot::builder().rule("(.)", template).build().unwrap()
    };
    let robots = Transcribed::new(robot('A'), None);
    let mut core = ServerCore::new(Ctime::utc(), robots.clone());
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                robots.swap(robot('B'));
                robots.swap(robot('A'));
            }
        });
        let mut seen = [0; 2];
        // Both, many times, however the threads are scheduled.
        while seen.iter().any(|&times| times < 100) {
            let answer = answer_of(&mut core, "x");
            match answer.as_str() {
                "AxAxAxA" => seen[0] += 1,
                "BxBxBxB" => seen[1] += 1,
                mixed => panic!("{mixed}"),
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

fn answer_of(core: &mut ServerCore<Ctime, Transcribed>, text: &str) -> String {
    let (mut inbox, mut outbox) = (Inbox::new(1, 1_000), Outbox::new(16, 1_000));
    inbox.push(
        text.as_bytes(),
        Meta::new("192.0.2.1:50000".parse().unwrap()),
    );
    core.handle(at(0), &mut inbox, &mut outbox);
    let answer = outbox.iter().next().unwrap().bytes;
    Ctime::utc()
        .decode_response(answer)
        .unwrap()
        .text
        .to_owned()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH)
}

#[test]
fn a_quiet_server_allocates_nothing_for_a_request_whatever_rules_it_has() {
    let robots = Transcribed::new(zurich(), None);
    let mut core = ServerCore::new(Ctime::utc(), robots.clone());
    let (mut inbox, mut outbox) = (Inbox::new(4, 1_000), Outbox::new(32, 1_000));
    let mut round = || {
        for text in ["你觉得我是最帅最帅的吗？", "hello"] {
            inbox.push(
                text.as_bytes(),
                Meta::new("192.0.2.1:50000".parse().unwrap()),
            );
        }
        core.handle(at(0), &mut inbox, &mut outbox);
        assert_eq!(outbox.len(), 2);
        outbox.clear();
    };
    round();
    assert_eq!(measure(&mut round).count_total, 0);
    robots.swap(zurich());
    round();
    assert_eq!(measure(&mut round).count_total, 0);
}

// ---- rates ----

/// The counters of a server that was asked these, so often each.
fn counted(requests: &[(u64, &[u8], &str)]) -> Stats {
    let limit = RateLimit::builder()
        .responses_per_second(1_000)
        .bytes_per_second(1 << 30)
        .build()
        .unwrap();
    let mut core = Server::builder(Ctime::utc())
        .gate(limit)
        .core(Transcribed::new(zurich(), None));
    let (mut inbox, mut outbox) = (Inbox::new(1, 1_000), Outbox::new(16, 1_000));
    for &(times, bytes, peer) in requests {
        for _ in 0..times {
            inbox.push(bytes, Meta::new(peer.parse().unwrap()));
            core.handle(at(1), &mut inbox, &mut outbox);
            outbox.clear();
        }
    }
    core.stats()
}

const PEER: &str = "192.0.2.1:50000";

#[test]
fn rates_are_those_of_the_time_that_has_passed() {
    let before = counted(&[(500, b"hi", PEER), (10, b"", PEER)]);
    let after = counted(&[
        (500, b"hi", PEER),
        (10, b"", PEER),
        (700, b"hi", PEER),
        (30, b"\xff", "198.51.100.1:50000"),
        (15, b"hi", "198.51.100.1:53"),
    ]);
    assert_eq!(after.dropped(DropReason::RateLimited), 200);
    let seconds = Duration::from_secs_f64;
    for (elapsed, expected) in [
        (
            1.0,
            "received 745, replied 500; dropped: reflector port 15, rate limited 200, malformed 30",
        ),
        (
            2.0,
            "received 372, replied 250; dropped: reflector port 7.5, rate limited 100, malformed 15",
        ),
        (
            0.01,
            "received 74.5k, replied 50k; dropped: reflector port 1500, rate limited 20k, malformed 3000",
        ),
        (
            3600.0,
            "received 0.2, replied 0.1; dropped: reflector port 0.004, rate limited 0.056, malformed 0.008",
        ),
    ] {
        let line = line(&before, &after, seconds(elapsed));
        assert_eq!(line, format!("per s: {expected}"));
    }
    assert_eq!(
        line(&Stats::default(), &after, seconds(0.000_1)),
        "per s: received 12.6M, replied 10M; dropped: reflector port 150k, rate limited 2M, malformed 400k"
    );
    assert_eq!(
        line(&after, &after, seconds(1.0)),
        "per s: received 0, replied 0"
    );
}

#[test]
fn rates_fit_a_narrow_terminal_in_normal_times_and_in_a_flood() {
    let normal = counted(&[(900, b"hi", PEER), (2, b"\xff", PEER)]);
    let flood = counted(&[(900_000, b"hi", PEER), (51, b"\xff", "198.51.100.1:50000")]);
    for stats in [normal, flood] {
        let line = line(&Stats::default(), &stats, Duration::from_secs_f64(1.001));
        assert!(line.len() <= 79, "{line}");
    }
}

#[test]
fn counters_beside_the_requests_are_told_when_they_move() {
    let before = Stats::default();
    let mut after = before.clone();
    after.kernel_drops = 3;
    after.responses_failed = 20;
    after.receive_errors = 1;
    after.silent = 2;
    after.pending = 64;
    assert_eq!(
        line(&before, &after, Duration::from_secs(1)),
        "per s: received 0, replied 0, silent 2; lost by the system 3; not sent 20; \
         receive errors 1; pending 64"
    );
}

#[test]
fn rates_come_at_a_steady_pace_and_those_missed_are_not_made_up_for() {
    let begin = Instant::now();
    let after = |millis| begin + Duration::from_millis(millis);
    let mut rates = Rates::new(Duration::from_secs(1), begin);
    let times = [1, 9, 12, 21, 31, 37, 38].map(|tenths| {
        let told = rates.tell(after(tenths * 100), Stats::default);
        (told.is_some(), rates.wait(after(tenths * 100)).as_millis())
    });
    let expected = [
        (false, 900),
        (false, 100),
        (true, 800),
        (true, 900),
        (true, 900),
        (false, 300),
        (false, 200),
    ];
    assert_eq!(times, expected);
    assert!(rates.tell(after(9_500), Stats::default).is_some());
    assert_eq!(rates.wait(after(9_500)), Duration::from_secs(1));
}

#[test]
fn the_program_tells_its_rates_every_so_often() {
    let (mut server, address) =
        start_server("127.0.0.1:0", tool("serve").args(["-q", "--stats", "0.1"]));
    server.wait_for_stderr("per s: received 0, replied 0");
    for _ in 0..3 {
        ask(address, "hi");
    }
    let told = |nth| server.wait_for_stderr_again("per s: received ", nth);
    assert!((1..1_000).map(told).any(|rates| !rates.starts_with("0, ")));
    server.signal("INT");
    let ended = server.finish();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(0), ""));
}

// ---- workers ----

#[test]
#[cfg(target_os = "linux")]
fn workers_share_the_address_and_the_counters() {
    let mut command = tool("serve");
    let (mut server, address) = start_server("127.0.0.1:0", command.args(["-q", "--workers", "3"]));
    server.wait_for_stderr(&format!(
        "listening on {address} with 3 workers (end with Ctrl-C)"
    ));
    for _ in 0..20 {
        assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    }
    server.signal("INT");
    let ended = server.finish();
    assert!(
        ended.stderr.contains("received 20: replied 20, "),
        "{}",
        ended.stderr
    );
}

// ---- a service manager ----

/// The server, started with sockets that were opened for it.
fn activated(sockets: &[&str], args: &[&str]) -> Command {
    let mut command = python("activate.py");
    command.args(sockets).arg("--");
    command.args(words(&tool("serve"))).args(args);
    command
}

#[test]
fn a_server_answers_on_a_socket_that_was_opened_for_it() {
    let mut server = Program::start(&mut activated(&["udp:127.0.0.1"], &["-q"]));
    let address = server.listening();
    assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    server.signal("TERM");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(
        ended.stderr.contains("received 1: replied 1, "),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("at most"), "{}", ended.stderr);
}

#[test]
fn sockets_that_were_opened_have_a_worker_each() {
    let sockets = ["udp:127.0.0.1", "udp:127.0.0.2", "udp:::1"];
    let mut server = Program::start(&mut activated(&sockets, &["-q", "--workers", "3"]));
    let line = server.wait_for_stderr("listening on ");
    let addresses = line.strip_suffix(" (end with Ctrl-C)").unwrap();
    let addresses: Vec<SocketAddr> = addresses
        .split(" and ")
        .map(|address| address.parse().unwrap())
        .collect();
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    }
    server.signal("TERM");
    let ended = server.finish();
    assert!(
        ended.stderr.contains("received 3: replied 3, "),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_socket_that_others_can_reach_is_limited_whoever_opened_it() {
    let mut server = Program::start(&mut activated(&["udp:0.0.0.0"], &["-q"]));
    server.wait_for_stderr("giving each network prefix 100 answers, and 100 KiB, a second at most");
    let sockets = ["udp:127.0.0.1", "udp:0.0.0.0"];
    let mut server = Program::start(&mut activated(&sockets, &["-q", "--limit", "off"]));
    server.wait_for_stderr("no rate limit: an attacker");
}

#[test]
fn what_cannot_be_served_of_a_service_manager_is_told_in_one_line() {
    let no_udp = "is no UDP socket: a socket unit needs ListenDatagram=";
    for (sockets, args, code, problem) in [
        (
            &["tcp:127.0.0.1"][..],
            &[][..],
            1,
            &format!("socket 1 of 1 that the service manager passed {no_udp}")[..],
        ),
        (&["udp:127.0.0.1", "tcp:::1"], &[], 1, "socket 2 of 2"),
        (&["unix:"], &[], 1, no_udp),
        (&["unbound:"], &[], 1, "passed is not bound: bind it before"),
        (
            &["udp:127.0.0.1", "connected:127.0.0.1"],
            &[],
            1,
            "socket 2 of 2 that the service manager passed is connected to 127.0.0.1:9 and receives from",
        ),
        (
            &["udp:127.0.0.1"],
            &["127.0.0.1:8888"],
            2,
            "cannot listen on 127.0.0.1:8888: the service manager has opened 1 socket for",
        ),
        (
            &["udp:127.0.0.1"],
            &["--workers", "2"],
            2,
            "--workers `2`: the service manager has opened 1 socket, and",
        ),
        (
            &["udp:127.0.0.1", "udp:127.0.0.1"],
            &["--workers", "1"],
            2,
            "--workers `1`: the service manager has opened 2 sockets, and",
        ),
    ] {
        one_line(&run(&mut activated(sockets, args)), code, problem);
    }
    // Sockets of another process are not ours.
    let mut other = tool("serve");
    let other = other
        .args(["-q", "127.0.0.1:0"])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1");
    let mut server = Program::start(other);
    server.listening();
}

#[test]
fn the_service_manager_is_told_what_happens() {
    let scratch = Scratch::new();
    let rules = scratch.file("rules.toml", says("one"));
    let path = scratch.0.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 2_000];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let mut command = tool("serve");
    let command = command
        .env("NOTIFY_SOCKET", &path)
        .args(["-q", "-r", &rules]);
    let (server, address) = start_server("127.0.0.1:0", command);
    assert_eq!(told(), format!("READY=1\nSTATUS=listening on {address}\n"));
    assert_eq!(ask(address, "x"), "one");

    for (content, status) in [
        (says("two"), format!("answering by {rules}\n")),
        (
            "fallback =".to_owned(),
            format!("answering by the rules of before: {rules}: line 1, "),
        ),
    ] {
        scratch.file("rules.toml", content);
        server.signal("HUP");
        let reloading = told();
        let since = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(since.trim_end().parse::<u64>().unwrap() > 0);
        let ready = told();
        assert!(
            ready.starts_with(&format!("READY=1\nSTATUS={status}")),
            "{ready}"
        );
        assert_eq!(ready.lines().count(), 2);
        // When it says so, it is so.
        assert_eq!(ask(address, "x"), "two");
    }
    server.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_service_manager_that_is_gone_does_not_end_the_server() {
    let mut command = tool("serve");
    let command = command.env("NOTIFY_SOCKET", "/nowhere/notify").arg("-q");
    let (mut server, address) = start_server("127.0.0.1:0", command);
    server.wait_for_stderr("error: cannot notify the service manager: ");
    assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

// ---- systemd's own programs ----

/// A port that was free a moment ago.
fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[test]
#[ignore = "needs systemd-socket-activate"]
fn systemd_activates_the_server_with_the_first_datagram() {
    let server = tool("serve");
    let (one, other) = (free_port(), free_port());
    let [first, second] = [one, other].map(|address| address.to_string());
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--datagram", "-l", &first, "-l", &second]);
    let mut systemd = Program::start(command.args(words(&server)).arg("-q"));
    systemd.wait_for_stderr(&format!("Listening on {second} as 4."));
    // The server is started by this, and answers it.
    assert_eq!(ask(other, "你好吗？"), "【机器人】小Zurich 好!");
    assert_eq!(ask(one, "你好吗？"), "【机器人】小Zurich 好!");
    systemd.wait_for_stderr(&format!("listening on {one} and {other} (end with Ctrl-C)"));
    systemd.signal("INT");
    let ended = systemd.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(ended.stderr.ends_with(
        "received 2: replied 2, silent 0, dropped 0, pending 0; responses sent 2, failed 0; receive errors 0\n"
    ), "{}", ended.stderr);
}

#[test]
#[ignore = "needs systemd-socket-activate"]
fn a_stream_socket_of_systemd_is_told_with_what_to_do() {
    let server = tool("serve");
    let address = free_port();
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(["-l", &address.to_string()])
        .args(words(&server));
    let mut systemd = Program::start(&mut command);
    systemd.wait_for_stderr("Listening on ");
    let _connected = std::net::TcpStream::connect(address).unwrap();
    let ended = systemd.finish();
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended
            .stderr
            .contains("systemd-socket-activate needs --datagram"),
        "{}",
        ended.stderr
    );
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_units_have_no_mistakes_that_systemd_finds_and_little_to_attack() {
    let scratch = Scratch::new();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/systemd");
    let server = tool("serve");
    let program = format!("{} serve", server.get_program().display());
    let paths = ["rejoinder.service", "rejoinder.socket"].map(|name| {
        let unit = fs::read_to_string(units.join(name)).unwrap();
        // It would complain that it is not installed.
        scratch.file(
            name,
            unit.replace("/usr/local/bin/rejoinder serve", &program),
        )
    });
    let ended = run(Command::new("systemd-analyze").arg("verify").args(&paths));
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let mut security = Command::new("systemd-analyze");
    // In tenths.
    let security = security.args(["security", "--offline=true", "--threshold=10", "--no-pager"]);
    let ended = run(security.arg(&paths[0]));
    assert_eq!(ended.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// What the unit starts is a call that the program understands.
#[test]
fn the_unit_calls_the_server_as_it_can_be_called() {
    let unit = include_str!("../../../contrib/systemd/rejoinder.service");
    let call = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let mut words = call.unwrap().split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/rejoinder"));
    assert_eq!(words.next(), Some("serve"));
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/zurich.toml");
    let args: Vec<_> = words
        .map(|word| {
            if word == "/etc/rejoinder/rules.toml" {
                rules
            } else {
                word
            }
        })
        .collect();
    assert!(args.contains(&rules));
    let mut server = Program::start(&mut activated(&["udp:127.0.0.1"], &args));
    let address = server.listening();
    assert_eq!(ask(address, "你好吗？"), "【机器人】小Zurich 好!");
    server.signal("TERM");
    let ended = server.finish();
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(0), ""));
}

/// What the container starts, and what asks whether it is well, are calls that the program understands.
#[test]
fn the_container_calls_the_program_as_it_can_be_called() {
    let file = include_str!("../../../contrib/container/Containerfile");
    let lists: Vec<Vec<String>> = file
        .lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches("ENTRYPOINT ")
                .strip_prefix("CMD ")
                .or(line.strip_prefix("ENTRYPOINT "))
        })
        .map(|list| serde_json::from_str(list).unwrap())
        .collect();
    let [health, entry, arguments] = lists.try_into().unwrap();
    assert_eq!(entry, ["/rejoinder", "serve"]);
    let free = |text: &String| match text.as_str() {
        "0.0.0.0:8888" | "0.0.0.0:9888" => "127.0.0.1:0".to_owned(),
        text => text.to_owned(),
    };
    let mut server = tool("serve");
    let mut server = Program::start(server.args(arguments.iter().map(free)));
    let address = server.listening();
    assert_eq!(health[..2], ["/rejoinder", "ask"]);
    let here = |text: &String| text.replace("127.0.0.1:8888", &address.to_string());
    let mut client = tool("ask");
    let ended = run(client.args(health[2..].iter().map(here)));
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_value_that_will_not_do_is_told_with_the_option() {
    for (args, problem) in [
        (
            &["--limit", "abc"][..],
            "--limit `abc`: neither a number of answers per second",
        ),
        (
            &["-l0"],
            "--limit `0`: neither a number of answers per second",
        ),
        (&["-w", "0"], "--workers `0`: not a number from 1 to 1024"),
        (
            &["--workers=1025"],
            "--workers `1025`: not a number from 1 to 1024",
        ),
        (&["--workers", "two"], "--workers `two`: "),
        (
            &["--stats", "now"],
            "--stats `now`: not a number of seconds from 0.1 to 86400",
        ),
        (&["-s", "0.09"], "--stats `0.09`: "),
        (&["-s", "86401"], "--stats `86401`: "),
        (&["-s", "nan"], "--stats `nan`: "),
        (&["-s", "\u{1b}[J"], r"--stats `\u{1b}[J`: "),
        (
            &["--rules"],
            "a value is required for '--rules <FILE>' but none was supplied",
        ),
    ] {
        let ended = run(tool("serve").args(args));
        one_line(&ended, 2, problem);
        assert!(ended.stderr.ends_with("; see --help\n"), "{}", ended.stderr);
    }
}
