//! What `rejoinder serve` has for production: metrics, watched rules, limits, logs, and output that
//! blocks no thread.
//!
//! A test that needs an outside program is ignored unless asked for:
//! `cargo test -p rejoinder-tools --test serve -- --ignored`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use std::{env, process as this_process, thread};

use rejoinder_test_support::process::{PATIENCE, Program, python, start_server, words};

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
        let path = env::temp_dir().join(format!("rejoinder-serve-{}-{number}", this_process::id()));
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

fn rules(answer: &str) -> String {
    format!("[[rule]]\npattern = 'x'\nanswer = '{answer}'\n")
}

/// Asks once; the answer without the header, if one comes.
fn ask(server: SocketAddr, text: &str) -> Option<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(text.as_bytes(), server).unwrap();
    let mut buffer = [0; 2_000];
    let len = socket.recv(&mut buffer).ok()?;
    let response = String::from_utf8(buffer[..len].to_vec()).unwrap();
    response.split_once("']").map(|(_, text)| text.to_owned())
}

fn until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        thread::yield_now();
    }
}

// ---- metrics ----

fn get(addr: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// A server with metrics, and the address of these.
fn measured(args: &[&str]) -> (Program, SocketAddr, String) {
    let mut command = tool("serve");
    command.args(["-q", "--metrics", "127.0.0.1:0"]).args(args);
    let (mut server, address) = start_server("127.0.0.1:0", &mut command);
    let url = server.wait_for_stderr("metrics at http://");
    let metrics = url.strip_suffix("/metrics").unwrap().to_owned();
    (server, address, metrics)
}

fn scraped(metrics: &str) -> BTreeMap<String, f64> {
    let response = get(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{head}"
    );
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn metrics_are_those_of_the_server() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one"));
    let (server, address, metrics) = measured(&["--rules", &file]);
    ask(address, "x").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"\xff", address).unwrap();
    let value = |name: &str| scraped(&metrics)[&format!("rejoinder_{name}")];
    until(|| value("datagrams_received_total") > 1.5);
    let same = |name, expected: f64| assert!((value(name) - expected).abs() < 0.5, "{name}");
    same("datagrams_replied_total", 1.0);
    same("datagrams_dropped_total{reason=\"malformed\"}", 1.0);
    same("datagrams_dropped_total{reason=\"rate_limited\"}", 0.0);
    same("responses_failed_total", 0.0);
    same("kernel_drops_total", 0.0);
    same("rules", 1.0);
    assert!(value("rules_loaded_timestamp_seconds") > 1.7e9);
    same(
        concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        1.0,
    );

    server.signal("HUP");
    until(|| value("rules_reloads_total{result=\"used\"}") > 0.5);
    scratch.file("rules.toml", "[[rule]]\n");
    server.signal("HUP");
    until(|| value("rules_reloads_total{result=\"refused\"}") > 0.5);
}

#[test]
fn other_requests_have_answers_of_their_own_and_none_stops_the_next() {
    let (_server, address, metrics) = measured(&[]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "200 OK"),
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /metrics?x=1 HTTP/1.1\n\n", "200 OK"),
        ("GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("GET http://x/metrics HTTP/1.1\r\n\r\n", "200 OK"),
        ("\u{1}\r\n\r\n", "400 Bad Request"),
    ] {
        let response = get(&metrics, request);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request}: {response}"
        );
        assert_eq!(
            request.starts_with("HEAD"),
            response.ends_with("\r\n\r\n"),
            "{response}"
        );
    }
    // One that connects and says nothing, and one that never ends.
    let silent = TcpStream::connect(&metrics).unwrap();
    let mut endless = TcpStream::connect(&metrics).unwrap();
    let _ = endless.write_all("x".repeat(20_000).as_bytes());
    ask(address, "x").unwrap();
    // A worker publishes its counters after a batch of responses has left.
    until(|| scraped(&metrics)["rejoinder_datagrams_received_total"] > 0.5);
    drop(silent);
}

#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_to_complain_about() {
    let (_server, address, metrics) = measured(&[]);
    ask(address, "x").unwrap();
    let response = get(&metrics, "GET /metrics HTTP/1.1\r\n\r\n");
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let ended = Program::start_with_input(&mut promtool, body.as_bytes()).finish();
    assert_eq!(
        (ended.code(), ended.stdout.as_str(), ended.stderr.as_str()),
        (Some(0), "", "")
    );
}

// ---- rules ----

#[test]
fn watched_rules_are_read_however_their_file_changes() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one"));
    let (_server, address) = start_server(
        "127.0.0.1:0",
        tool("serve").args(["-q", "--watch", "--rules", &file]),
    );
    let is = |answer: &str| until(|| ask(address, "x").as_deref() == Some(answer));
    is("one");
    // Written in place, replaced by another file, and reached through links that change.
    scratch.file("rules.toml", rules("two"));
    is("two");
    fs::rename(scratch.file("next", rules("three")), &file).unwrap();
    is("three");
    let real = scratch.file("four", rules("four"));
    fs::remove_file(&file).unwrap();
    symlink(real, &file).unwrap();
    is("four");
    let link = scratch.0.join("link");
    symlink(scratch.file("five", rules("five")), &link).unwrap();
    fs::rename(link, &file).unwrap();
    is("five");
}

#[test]
fn a_reload_tells_how_many_rules_there_were() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one"));
    let (mut server, _) = start_server("127.0.0.1:0", tool("serve").args(["-q", "--rules", &file]));
    server.wait_for_stderr("1 rule");
    scratch.file(
        "rules.toml",
        format!("\u{feff}{}{}", rules("one"), rules("two")).replace('\n', "\r\n"),
    );
    server.signal("HUP");
    server.wait_for_stderr("2 rules, 1 before");
}

/// A file that is being written: whatever is there for a while, the old rules answer.
#[test]
fn a_torn_file_changes_nothing_until_it_is_whole() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one"));
    let (mut server, address) = start_server(
        "127.0.0.1:0",
        tool("serve").args(["-q", "--watch", "--rules", &file]),
    );
    let two = format!("# longer than it was\n{}", rules("two"));
    for (number, (torn, problem)) in (1..).zip([
        (&two[..two.len() / 2], "missing field `pattern`"),
        ("", "there is no rule"),
        (&two[..two.len() - 2], "invalid literal string"),
    ]) {
        scratch.file("rules.toml", torn);
        server.wait_for_stderr_again("answering by the rules of before", number);
        let line = server.wait_for_stderr_again(&format!("error: {file}: line "), number);
        assert!(line.contains(problem), "{line}");
        assert_eq!(ask(address, "x").as_deref(), Some("one"));
    }
    // Gone for a while, as with an editor that writes a new one.
    fs::remove_file(&file).unwrap();
    server.wait_for_stderr(&format!("error: {file}: No such file"));
    assert_eq!(ask(address, "x").as_deref(), Some("one"));
    // Half of another file in its place, which is then written to the end.
    let (half, rest) = two.split_at(two.len() / 2);
    fs::rename(scratch.file("next", half), &file).unwrap();
    server.wait_for_stderr_again("answering by the rules of before", 5);
    let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
    open.write_all(rest.as_bytes()).unwrap();
    until(|| ask(address, "x").as_deref() == Some("two"));
}

#[test]
fn rules_that_never_answer_are_named_up_to_a_number() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one").repeat(100));
    let mut server = Program::start(tool("serve").args(["127.0.0.1:0", "-q", "--rules", &file]));
    server.wait_for_stderr("100 rules");
    server.signal("INT");
    let stderr = server.finish().stderr;
    assert_eq!(stderr.matches(": rule ").count(), 10, "{stderr}");
    assert!(
        stderr.contains(&format!("warning: {file}: and 89 more such rules\n")),
        "{stderr}"
    );
}

#[test]
fn rules_that_need_more_memory_are_refused_with_the_option() {
    let scratch = Scratch::new();
    let rule = "[[rule]]\npattern = 'a{400}(b|c){500}$'\nanswer = 'x'\n";
    let file = scratch.file("rules.toml", rule.repeat(2_000));
    let mut server = tool("serve");
    server.args(["127.0.0.1:0", "--rules", &file, "--rules-memory", "1"]);
    let ended = Program::start(&mut server).finish();
    assert_eq!(ended.code(), Some(1));
    let stderr = ended.stderr;
    assert!(
        stderr.contains("more than the limit of 1048576: raise it with --rules-memory MIB, or"),
        "{stderr}"
    );
    assert!(!stderr.contains("memory_limit"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

// ---- limits ----

#[test]
fn an_exempt_network_has_no_limit() {
    let answered = |args: &[&str]| {
        let (server, address) = start_server(
            "127.0.0.1:0",
            tool("serve").args(["-q", "-l", "1"]).args(args),
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            socket.send_to(b"x", address).unwrap();
        }
        server.signal("INT");
        let stderr = server.finish().stderr;
        let line = stderr.lines().last().unwrap().to_owned();
        let (_, replied) = line.split_once("replied ").unwrap();
        replied.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    assert!(answered(&[]) < 10);
    assert!(answered(&["--exempt", "10.0.0.0/8"]) < 10);
    assert_eq!(
        answered(&["--exempt", "10.0.0.0/8", "--exempt", "127.0.0.0/24"]),
        50
    );
}

#[test]
fn a_request_over_the_limit_is_dropped_and_counted() {
    let (server, address) = start_server(
        "127.0.0.1:0",
        tool("serve").args(["-q", "--max-request", "10"]),
    );
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"12345678901", address).unwrap();
    assert!(ask(address, "1234567890").is_some());
    server.signal("INT");
    let stderr = server.finish().stderr;
    assert!(
        stderr.contains("received 2: replied 1, silent 0, dropped 1 (truncated 1)"),
        "{stderr}"
    );
}

#[test]
fn values_that_will_not_do_are_told_with_the_option() {
    for (args, problem) in [
        (
            &["--max-request", "0"][..],
            "--max-request `0`: not a number from 1 to 65507",
        ),
        (&["--max-request", "65508"], "--max-request `65508`: "),
        (&["--exempt", "10/8"], "--exempt `10/8`: not a network"),
        (
            &["--log", "xml"],
            "invalid value 'xml' for '--log <FORMAT>' [possible values: text, json]",
        ),
        (
            &["--watch"],
            "the following required arguments were not provided: --rules <FILE>",
        ),
        (&["--metrics", ":1"], "--metrics: bad address `:1`: no host"),
    ] {
        let ended = Program::start(tool("serve").arg("127.0.0.1:0").args(args)).finish();
        assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
        let stderr = ended.stderr.strip_prefix("error: ").unwrap();
        assert!(stderr.starts_with(problem), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
}

// ---- logs ----

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let scratch = Scratch::new();
    let file = scratch.file("rules.toml", rules("one"));
    let mut command = tool("serve");
    command.args(["-q", "--log", "json", "--rules", &file, "127.0.0.1:0"]);
    let mut server = Program::start(&mut command);
    server.wait_for_stderr("{");
    fs::remove_file(&file).unwrap();
    server.signal("HUP");
    let read = |nth| server.wait_for_stderr_again("{", nth);
    assert!(
        (1..1_000)
            .map(read)
            .any(|line| line.contains("answering by the rules of before"))
    );
    server.signal("INT");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    let mut messages = Vec::new();
    for line in ended.stderr.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let level = event["level"].as_str().unwrap();
        messages.push(format!("{level} {}", event["message"].as_str().unwrap()));
    }
    for expected in [
        "INFO listening on 127.0.0.1:",
        "ERROR ",
        "INFO received 0: replied 0",
    ] {
        let found = messages.iter().any(|message| message.starts_with(expected));
        assert!(found, "{expected}: {messages:?}");
    }
}

#[test]
fn a_text_log_stands_beside_the_lines_of_the_program() {
    let mut command = tool("serve");
    let (server, _) = start_server("127.0.0.1:0", command.args(["-q", "--log", "text"]));
    server.signal("INT");
    let stderr = server.finish().stderr;
    assert!(
        stderr.lines().any(|line| line.contains(" INFO rejoinder")),
        "{stderr}"
    );
    assert!(stderr.ends_with("receive errors 0\n"), "{stderr}");
}

// ---- output ----

#[test]
fn a_transcript_that_nobody_reads_costs_lines_and_no_answer() {
    let (mut server, stdout) = Program::start_unread(tool("serve").arg("127.0.0.1:0"), b"");
    let address = server.listening();
    // The pipe and the queue hold some 1.1 MB together.
    let request = format!("你{}吗？", "x".repeat(1_000));
    for _ in 0..1_000 {
        assert!(ask(address, &request).is_some());
    }
    server.signal("USR1");
    server.wait_for_stderr("received 1000: replied 1000,");
    server.signal("INT");
    let stderr = server.finish().stderr;
    assert!(
        stderr.contains(" lines of the transcript were left out\n"),
        "{stderr}"
    );
    drop(stdout);
}

#[test]
#[cfg(target_os = "linux")]
fn a_transcript_goes_on_after_an_error_that_passes() {
    let mut command = tool("serve");
    command.arg("127.0.0.1:0").stdin(Stdio::null());
    command
        .stdout(File::create("/dev/full").unwrap())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut seen = Vec::new();
    until(|| {
        let mut byte = [0; 256];
        let read = stderr.read(&mut byte).unwrap();
        seen.extend_from_slice(&byte[..read]);
        String::from_utf8_lossy(&seen).contains("No space left on device")
    });
    let seen = String::from_utf8(seen).unwrap();
    let line = seen
        .lines()
        .find_map(|line| line.strip_prefix("listening on "))
        .unwrap();
    let address = line.split(' ').next().unwrap().parse().unwrap();
    assert!(ask(address, "x").is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for (first, second) in [("INT", "INT"), ("TERM", "INT"), ("INT", "TERM")] {
        let is_ended_by_it = || {
            let (mut server, _) = start_server("127.0.0.1:0", &mut tool("serve"));
            // Stopped, it cannot heed the first one before the second one is there.
            server.signal("STOP");
            server.signal(first);
            if first == second {
                // Two of one kind would be one: it must have arrived before the next.
                server.signal("CONT");
                server.signal(second);
            } else {
                server.signal(second);
                server.signal("CONT");
            }
            let status = server.wait_until_ended();
            // Or by the first one, if that was faster, or two threads took one each at the same moment.
            assert!(status.code().is_none() || status.success(), "{status:?}");
            status.code().is_none()
        };
        let mut tries = 0..20;
        assert!(
            first == second || tries.any(|_| is_ended_by_it()),
            "{first} {second}"
        );
        if first == second {
            is_ended_by_it();
        }
    }
}

#[test]
fn standard_streams_may_be_non_blocking() {
    // A socket pair stands for a terminal that another process has made non-blocking.
    let script = "import os,subprocess,sys\n\
        r,w=os.pipe()\n\
        i,o=os.pipe()\n\
        os.set_blocking(r,False); os.set_blocking(o,False)\n\
        p=subprocess.Popen(sys.argv[1:],stdin=r,stdout=o)\n\
        os.close(o)\n\
        import threading,time\n\
        def feed():\n\
        \x20for _ in range(3000):\n\
        \x20 os.write(w,'你好吗？\\n'.encode())\n\
        \x20os.close(w)\n\
        threading.Thread(target=feed).start()\n\
        out=b''\n\
        while chunk:=os.read(i,65536): out+=chunk\n\
        sys.exit(p.wait() or out.count(b'\\n')!=3000)";
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("-q"));
    let mut client = tool("ask");
    client.args(["--text", "--server", &address.to_string()]);
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(words(&client));
    let ended = Program::start(&mut python).finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
}

// ---- a machine that lacks something ----

/// Runs a command for which system calls fail. `None` where the kernel has no filters.
#[cfg(target_os = "linux")]
fn denied(rules: &[&str], command: &Command) -> Option<rejoinder_test_support::process::Ended> {
    let mut deny = python("deny.py");
    deny.args(rules).arg("--").args(words(command));
    let ended = Program::start(&mut deny).finish();
    (ended.code() != Some(99)).then_some(ended)
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_scarce_is_told_in_one_line() {
    let mut flood = tool("flood");
    let mut server = tool("serve");
    server.arg("127.0.0.1:0");
    flood.env("RUST_BACKTRACE", "0");
    let no_threads = &["clone=EAGAIN", "clone3=EAGAIN"][..];
    let mut many = Command::new("/bin/sh");
    let limited = format!(
        "ulimit -v 200000; exec {} serve --workers 500",
        env!("CARGO_BIN_EXE_rejoinder")
    );
    many.args(["-c", &limited]);
    let mut v6 = tool("serve");
    v6.arg("[::]:0");
    let little = |command: &str| {
        let mut shell = Command::new("/bin/sh");
        let program = env!("CARGO_BIN_EXE_rejoinder");
        shell.args(["-c", &format!("ulimit -v 20000; exec {program} {command}")]);
        shell
    };
    for (rules, command, problem) in [
        (
            no_threads,
            &server,
            "cannot start a thread: Resource temporarily unavailable",
        ),
        (no_threads, &flood, "Resource temporarily unavailable"),
        (
            &[],
            &many,
            "no memory for 500 workers: some 8000 MiB are needed",
        ),
        (
            &[],
            &little("ask hi"),
            "no memory for a client: some 8 MiB are needed",
        ),
        (
            &[],
            &little("load"),
            "no memory for a client: some 8 MiB are needed",
        ),
        (
            &["socket=EMFILE"],
            &server,
            "cannot listen on 127.0.0.1:0: Too many open files",
        ),
        (
            &["socket=EAFNOSUPPORT,0=10"],
            &v6,
            "this machine has no IPv6; try 0.0.0.0:0",
        ),
    ] {
        let Some(ended) = denied(rules, command) else {
            return;
        };
        assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(problem),
            "{problem}: {}",
            ended.stderr
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_receive_buffer_that_is_not_granted_is_told_once() {
    // SO_RCVBUF of SOL_SOCKET.
    let mut deny = python("deny.py");
    let mut server = tool("serve");
    server.args(["-q", "127.0.0.1:0"]);
    deny.args(["setsockopt=EPERM,1=1,2=8", "--"])
        .args(words(&server));
    let mut server = Program::start(&mut deny);
    server.listening();
    server.signal("INT");
    let stderr = server.finish().stderr;
    let warnings = stderr.matches("of receive buffer, not 4096 KiB").count();
    assert_eq!(warnings, 1, "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_name_is_asked_at_its_other_address_where_there_is_no_ipv6() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("-q"));
    let mut client = tool("ask");
    client.args([
        "-t",
        "5",
        "-s",
        &format!("localhost:{}", address.port()),
        "x",
    ]);
    if let Some(ended) = denied(&["socket=EAFNOSUPPORT,0=10"], &client) {
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    }
}

/// A name has two addresses, and the first does not answer: the second is asked before the deadline.
#[test]
fn all_addresses_of_a_name_are_asked_within_the_deadline() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("-q"));
    // Without IPv6 there is one address only, which answers.
    let _silent = UdpSocket::bind(("::1", address.port()));
    let mut client = tool("ask");
    client.args([
        "-t",
        "1",
        "-s",
        &format!("localhost:{}", address.port()),
        "x",
        "y",
    ]);
    let ended = Program::start(&mut client).finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.lines().count(), 2);
}

#[test]
fn a_time_zone_that_is_none_is_told() {
    let (server, _) = start_server(
        "127.0.0.1:0",
        tool("serve").arg("-q").env("TZ", "Mars/Olympus"),
    );
    server.signal("INT");
    let stderr = server.finish().stderr;
    let expected =
        "warning: TZ `Mars/Olympus` is neither a time zone of this machine nor a rule of POSIX";
    assert!(stderr.contains(expected), "{stderr}");
    let scratch = Scratch::new();
    let no_zone = scratch.file("localtime", "no zone at all");
    let (server, _) = start_server("127.0.0.1:0", tool("serve").arg("-q").env("TZ", &no_zone));
    server.signal("INT");
    let stderr = server.finish().stderr;
    let expected = format!("warning: TZ `{no_zone}` is neither");
    assert!(stderr.contains(&expected), "{stderr}");
    let (server, _) = start_server("127.0.0.1:0", tool("serve").arg("-q").env("TZ", "CST-8"));
    server.signal("INT");
    let stderr = server.finish().stderr;
    assert!(
        stderr.contains("the time in responses is UTC+08:00"),
        "{stderr}"
    );
}

// ---- the command line ----

#[test]
fn a_message_that_looks_like_an_address_gets_a_hint() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("-q"));
    let mut client = tool("ask");
    client.args(["-t", "0.1", "127.0.0.1:8899", "x"]);
    let stderr = Program::start(&mut client).finish().stderr;
    assert!(
        stderr.starts_with(
            "warning: `127.0.0.1:8899` is sent as a message to 127.0.0.1:8888; --server 127.0.0.1:8899 asks"
        ),
        "{stderr}"
    );
    let mut client = tool("ask");
    client.args(["--server", &address.to_string(), "127.0.0.1:8899"]);
    assert_eq!(Program::start(&mut client).finish().stderr, "");
    for address in ["10.0.0.5", "localhost", "::1"] {
        let mut client = tool("ask");
        client.args(["-t", "0.1", address, "x"]);
        let stderr = Program::start(&mut client).finish().stderr;
        let hint =
            format!("`{address}` is sent as a message to 127.0.0.1:8888; --server {address} asks");
        assert!(stderr.contains(&hint), "{stderr}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_option() {
    let scratch = Scratch::new();
    let completions = Program::start(tool("completions").arg("bash")).finish();
    let manual = Program::start(tool("man").arg(&scratch.0)).finish();
    assert_eq!((completions.code(), manual.code()), (Some(0), Some(0)));
    for command in ["serve", "ask", "load", "flood", "sessions"] {
        let page = fs::read_to_string(scratch.0.join(format!("rejoinder-{command}.1"))).unwrap();
        let help = Program::start(tool(command).arg("--help")).finish().stdout;
        let options = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"));
        let options: Vec<_> = options
            .map(|word| word.trim_end_matches([',', '.']))
            .filter(|word| {
                word.len() > 2
                    && word[2..]
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c == '-')
            })
            .collect();
        assert!(options.contains(&"--help"));
        for option in options {
            let in_page = page.contains(&option.replace('-', "\\-"));
            // Options of other programs stand in texts.
            assert!(
                in_page || page.contains(option),
                "{command}: {option} is not in its page"
            );
            let is_known = completions.stdout.contains(option);
            assert!(
                is_known || option == "--datagram",
                "{command}: {option} is not completed"
            );
        }
    }
    assert!(scratch.0.join("rejoinder.1").exists());
}

#[test]
fn help_fits_any_terminal() {
    for columns in [20, 80, 200] {
        for command in ["serve", "ask", "load"] {
            let mut terminal = python("terminal.py");
            terminal.args([&format!("{columns}x50"), "no such text", "--"]);
            terminal.args(words(tool(command).arg("--help")));
            let ended = Program::start(&mut terminal).finish();
            assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
            if columns >= 80 {
                let widest = ended
                    .stdout
                    .lines()
                    .map(|line| line.trim_end().chars().count())
                    .max();
                assert!(
                    widest.unwrap() <= columns,
                    "{command} at {columns}: {widest:?}"
                );
            }
        }
    }
}
