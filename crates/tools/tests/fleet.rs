//! `rejoinder serve` as one node of several: behind proxies, in service and out of it, and replaced.
//!
//! Tests that need an outside program are ignored unless asked for:
//! `cargo test -p rejoinder-tools --test fleet -- --ignored`.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rejoinder::Codec;
use rejoinder::codec::Ctime;
use rejoinder::proxy::Header;
use rejoinder_test_support::fleet::{Clients, Tally};
use rejoinder_test_support::process::{PATIENCE, Program, python, start_server, words};
use rejoinder_test_support::scratch::Scratch;

fn serve(args: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.args(["serve", "-q"]).args(args);
    program
}

/// A server on a free port, and where its health is shown.
fn healthy(args: &[&str]) -> (Program, SocketAddr, String) {
    let mut command = serve(&["--health", "127.0.0.1:0"]);
    let (mut server, addr) = start_server("127.0.0.1:0", command.args(args));
    let health = server.wait_for_stderr("health on ");
    (server, addr, health)
}

/// The response to a request over TCP.
fn http(addr: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The status of a page.
fn status(addr: &str, path: &str) -> String {
    let response = http(addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let line = response.lines().next().unwrap();
    line.strip_prefix("HTTP/1.1 ").unwrap().to_owned()
}

fn text_of(response: &[u8]) -> String {
    let codec = Ctime::local();
    codec.decode_response(response).unwrap().text.to_owned()
}

/// Sends a datagram; the response, if one comes in time.
fn ask_in(server: SocketAddr, datagram: &[u8], time: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(time)).unwrap();
    socket.send_to(datagram, server).unwrap();
    let mut buffer = [0; 2_000];
    let len = socket.recv(&mut buffer).ok()?;
    Some(buffer[..len].to_vec())
}

fn ask(server: SocketAddr, text: &str) -> String {
    text_of(&ask_in(server, text.as_bytes(), PATIENCE).unwrap())
}

// ---- health and lame ducks ----

const OUT: &str = "503 Service Unavailable";

#[test]
fn health_shows_whether_the_server_is_in_service() {
    let (mut server, addr, health) = healthy(&["--lame-duck", "600", "--metrics", "127.0.0.1:0"]);
    let url = server.wait_for_stderr("metrics at http://");
    let metrics = url.strip_suffix("/metrics").unwrap().to_owned();
    let ready = || {
        let page = http(&metrics, "GET /metrics HTTP/1.1\r\n\r\n");
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("rejoinder_ready "));
        line.unwrap().to_owned()
    };
    for path in [
        "/",
        "/healthz",
        "/ready?verbose",
        "http://10.0.0.1/x",
        "/live",
    ] {
        assert_eq!(status(&health, path), "200 OK", "{path}");
    }
    let head = http(&health, "HEAD / HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
    assert_eq!(ready(), "1");

    server.signal("TERM");
    server.wait_for_stderr("out of service; answering on for 600 s");
    assert_eq!(status(&health, "/"), OUT);
    assert_eq!(status(&health, "/ready"), OUT);
    assert_eq!(status(&health, "/live"), "200 OK");
    assert_eq!(ready(), "0");
    assert_eq!(ask(addr, "你好吗？"), "【机器人】小Zurich 好!");
    // Other signals do what they did.
    server.signal("USR1");
    server.wait_for_stderr("received 1: replied 1,");

    server.signal("TERM");
    let ended = server.finish();
    assert_eq!(ended.code(), None, "ended by the signal: {}", ended.stderr);
}

#[test]
fn a_lame_duck_answers_on_and_ends_by_itself() {
    let (mut server, addr, health) = healthy(&["--lame-duck", "0.5"]);
    server.signal("TERM");
    server.wait_for_stderr("out of service; answering on for 0.5 s");
    let mut answered = 0;
    // The connection fails once the program has ended.
    while let Ok(mut stream) = TcpStream::connect(&health) {
        if ask_in(addr, "你好吗？".as_bytes(), Duration::from_millis(100)).is_some() {
            answered += 1;
        }
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        assert!(response.is_empty() || response.contains(OUT), "{response}");
    }
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(answered > 0);
    let received = format!("received {answered}: replied {answered}, ");
    assert!(ended.stderr.contains(&received), "{}", ended.stderr);
}

#[test]
fn without_a_lame_duck_a_signal_is_the_end() {
    let (server, _, health) = healthy(&[]);
    server.signal("TERM");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(!ended.stderr.contains("out of service"));
    assert!(TcpStream::connect(health).is_err());
}

#[test]
fn clients_that_hang_keep_no_health_check_out() {
    let (mut server, _, health) = healthy(&["--metrics", "127.0.0.1:0"]);
    let url = server.wait_for_stderr("metrics at http://");
    let metrics = url.strip_suffix("/metrics").unwrap();
    for addr in [health.as_str(), metrics] {
        let hanging: Vec<_> = (0..300)
            .map(|index| {
                let mut stream = TcpStream::connect(addr).unwrap();
                // Nothing, half a request, a request whose answer is not read, and what never ends.
                let what = match index % 4 {
                    0 => String::new(),
                    1 => "GET / HTTP/1.1\r\nHost: ".to_owned(),
                    2 => "GET /metrics HTTP/1.1\r\n\r\n".to_owned(),
                    _ => "x".repeat(20_000),
                };
                // It may be closed already.
                let _ = stream.write_all(what.as_bytes());
                stream
            })
            .collect();
        for _ in 0..3 {
            assert_eq!(status(addr, "/"), "200 OK");
        }
        drop(hanging);
    }
}

/// Fewer than the connections that an endpoint may have.
#[test]
fn clients_that_hang_keep_no_health_check_out_where_descriptors_are_few() {
    let program = env!("CARGO_BIN_EXE_rejoinder");
    let line = format!("ulimit -n 20; exec {program} serve -q --health 127.0.0.1:0 127.0.0.1:0");
    let mut server = Program::start(Command::new("/bin/sh").args(["-c", &line]));
    let health = server.wait_for_stderr("health on ");
    let hanging: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(&health).unwrap())
        .collect();
    for _ in 0..3 {
        assert_eq!(status(&health, "/"), "200 OK");
    }
    drop(hanging);
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn a_request_in_pieces_is_answered() {
    let (_server, _, health) = healthy(&[]);
    let mut stream = TcpStream::connect(&health).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["GE", "T / HT", "TP/1.1\r\nHost", ": x\r\n\r", "\n"] {
        // Other requests come between.
        assert_eq!(status(&health, "/"), "200 OK");
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nin service\n"), "{response}");
}

#[test]
fn a_service_manager_that_does_not_read_keeps_nothing_from_going_on() {
    let scratch = Scratch::new();
    let path = format!("{}/notify", scratch.path());
    let manager = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let sent = (0..).take_while(|_| other.send_to(b"X=1", &path).is_ok());
    let sent = sent.count();

    let mut command = serve(&[]);
    let (server, addr) = start_server("127.0.0.1:0", command.env("NOTIFY_SOCKET", &path));
    assert!(!ask(addr, "hello").is_empty());
    // Once it reads again, it gets what it has missed.
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 2_000];
    for _ in 0..sent {
        manager.recv(&mut buffer).unwrap();
    }
    let len = manager.recv(&mut buffer).unwrap();
    assert!(buffer[..len].starts_with(b"READY=1\nSTATUS=listening on "));
    // And it does not keep the program from its end.
    while other.send_to(b"X=1", &path).is_ok() {}
    server.signal("TERM");
    assert_eq!(server.finish().code(), Some(0));
}

#[test]
fn the_service_manager_is_asked_for_the_time_of_a_lame_duck() {
    let scratch = Scratch::new();
    let path = format!("{}/notify", scratch.path());
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let received = || {
        let mut buffer = [0; 2_000];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let mut command = serve(&["--lame-duck", "2.5"]);
    let (server, _) = start_server("127.0.0.1:0", command.env("NOTIFY_SOCKET", &path));
    assert!(received().starts_with("READY=1\n"));
    server.signal("TERM");
    let stopping = received();
    let time = stopping
        .strip_prefix("STOPPING=1\nEXTEND_TIMEOUT_USEC=")
        .unwrap();
    assert!(time.trim_end().parse::<u32>().unwrap() > 2_500_000);
}

// ---- proxies ----

#[test]
fn clients_are_those_of_the_header() {
    for (mode, header) in [
        ("v2", v2("192.0.2.1:7777")),
        ("v1", V1.to_vec()),
        ("first-of-flow", V1.to_vec()),
        ("first-of-flow", v2("[2001:db8::1]:7777")),
    ] {
        let args = [
            "--proxied",
            mode,
            "--proxies",
            "10.0.0.0/8,127.0.0.1",
            "--proxies",
            "::1",
        ];
        let (mut server, addr) = start_server("127.0.0.1:0", &mut serve(&args));
        server.wait_for_stderr("behind the proxies 10.0.0.0/8, 127.0.0.1, ::1: ");
        // Others can ask, although it listens on the loopback only.
        server.wait_for_stderr("giving each network prefix 100 answers");
        let request = [&header[..], "你好吗？".as_bytes()].concat();
        let answer = ask_in(addr, &request, PATIENCE).unwrap();
        assert_eq!(text_of(&answer), "【机器人】小Zurich 好!");
        // Not from a proxy; from one without a header; and in the name of an address that no client has.
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        stranger.send_to(&request, addr).unwrap();
        let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
        proxy.send_to("你好吗？".as_bytes(), addr).unwrap();
        let forged = UdpSocket::bind("127.0.0.1:0").unwrap();
        let forged_header = if mode == "v1" {
            b"PROXY TCP4 192.0.2.1 198.51.100.1 0 8888\r\n".to_vec()
        } else {
            v2("192.0.2.1:0")
        };
        forged
            .send_to(&[&forged_header[..], b"hi"].concat(), addr)
            .unwrap();
        server.signal("TERM");
        let stderr = server.finish().stderr;
        assert!(
            stderr.contains("dropped 3 (not proxied 1, proxy header 1, invalid source 1)"),
            "{mode}: {stderr}"
        );
    }
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 7777 8888\r\n";

fn v2(client: &str) -> Vec<u8> {
    let server = "198.51.100.1:8888".parse().unwrap();
    Header::encode_v2(client.parse().unwrap(), server)
}

#[test]
fn four_hundred_clients_of_one_proxy_have_limits_of_their_own() {
    let args = ["--proxied", "v2", "--proxies", "127.0.0.1", "--limit", "2"];
    let (server, addr) = start_server("127.0.0.1:0", &mut serve(&args));
    let proxy = UdpSocket::bind("127.0.0.1:0").unwrap();
    proxy.set_read_timeout(Some(PATIENCE)).unwrap();
    for client in 0..400 {
        let header = v2(&format!("100.{}.{}.1:7777", client / 200, client % 200));
        proxy
            .send_to(&[&header, "你好吗？".as_bytes()].concat(), addr)
            .unwrap();
        proxy.recv(&mut [0; 200]).unwrap();
    }
    // One of them asks for more than it may.
    for _ in 0..400 {
        let header = v2("100.0.0.1:7777");
        proxy
            .send_to(&[&header, "你好吗？".as_bytes()].concat(), addr)
            .unwrap();
    }
    server.signal("TERM");
    let stderr = server.finish().stderr;
    assert!(stderr.contains("received 800: replied 4"), "{stderr}");
    assert!(stderr.contains("(rate limited "), "{stderr}");
}

#[test]
fn proxies_and_their_mode_need_each_other() {
    for (args, problem) in [
        (
            &["--proxied", "v2"][..],
            "the following required arguments were not provided: --proxies <NET>",
        ),
        (
            &["--proxies", "::1"],
            "the following required arguments were not provided: --proxied <MODE>",
        ),
        (
            &["--proxied", "v3", "--proxies", "::1"],
            "invalid value 'v3' for '--proxied <MODE>' [possible values: v2, v1, first-of-flow]",
        ),
        (
            &["--proxied", "v2", "--proxies", "10.0.0.1,10/8"],
            "--proxies `10/8`: not a network",
        ),
        (
            &["--proxied", "v2", "--proxies", "10.0.0.1,"],
            "--proxies ``: not a network",
        ),
        (
            &["--lame-duck", "0"],
            "--lame-duck `0`: not a number of seconds from 0.1 to 3600",
        ),
        (&["--lame-duck", "3601"], "--lame-duck `3601`: "),
        (&["--lame-duck", "-1"], "--lame-duck `-1`: "),
        (&["--health", ":1"], "--health: bad address `:1`: no host"),
        (&["--metrics", ":1"], "--metrics: bad address `:1`: no host"),
    ] {
        let ended = Program::start(serve(args).arg("127.0.0.1:0")).finish();
        assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
        let line = ended.stderr.strip_prefix("error: ").unwrap();
        assert!(line.starts_with(problem), "{line}");
        assert!(line.ends_with("; see --help\n") && line.lines().count() == 1);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let ended = Program::start(serve(&["--health", &taken]).arg("127.0.0.1:0")).finish();
    assert_eq!(ended.code(), Some(1));
}

#[test]
fn malformed_requests_are_answered_where_that_was_asked_for() {
    for (args, answers) in [(&[][..], false), (&["--answer-malformed"], true)] {
        let (server, addr) = start_server("127.0.0.1:0", &mut serve(args));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Too short for an answer; long enough; a response, which is never answered; and a request.
        let response = [b"[b'Sun Jul  7 17:17:58 2019']".as_slice(), &[0xff; 40]].concat();
        for datagram in [
            &[0xff; 28][..],
            &[0xff; 60],
            &response,
            "你好吗？".as_bytes(),
        ] {
            socket.send_to(datagram, addr).unwrap();
        }
        let mut buffer = [0; 200];
        if answers {
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"[b'Thu Jan  1 00:00:00 1970']");
        }
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(text_of(&buffer[..len]), "【机器人】小Zurich 好!");
        server.signal("TERM");
        let stderr = server.finish().stderr;
        assert!(
            stderr.contains("received 4: replied 1, silent 0, dropped 3 (response 1, malformed 2)"),
            "{stderr}"
        );
    }
}

// ---- one process after the other ----

/// The server, on a socket that this process has and keeps, as a service manager does.
fn on_kept_socket(socket: &UdpSocket) -> Program {
    let mut command = python("activate.py");
    command.args(["stdin:", "--"]).args(words(&serve(&[])));
    Program::start_on(&mut command, OwnedFd::from(socket.try_clone().unwrap()))
}

#[test]
fn a_restart_on_a_kept_socket_loses_nothing() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let mut first = on_kept_socket(&socket);
    first.wait_for_stderr("listening on ");
    let mut clients = loopback_clients(addr, 4, 8_000);
    // Nothing is sent again: what is lost stays lost.
    (clients.timeout, clients.attempts) = (PATIENCE, 1);
    let mut third = None;
    let tally = clients.ask(question, right, |progress| {
        progress.wait_for(2_000);
        first.signal("TERM");
        let ended = first.finish();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        // There is no server now, and requests come.
        let waiting = UdpSocket::bind("127.0.0.1:0").unwrap();
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..100 {
            waiting.send_to("你好吗？".as_bytes(), addr).unwrap();
        }
        let mut second = on_kept_socket(&socket);
        second.wait_for_stderr("listening on ");
        for _ in 0..100 {
            waiting.recv(&mut [0; 200]).unwrap();
        }
        progress.wait_for(2_000);
        second.signal("TERM");
        // The last clients are still asking.
        second.finish();
        third = Some(on_kept_socket(&socket));
        progress.wait_for(2_000);
    });
    assert_eq!(
        (tally.wrong, tally.lost, tally.sent_again),
        (0, 0, 0),
        "{tally:?}"
    );
}

fn loopback_clients(server: SocketAddr, clients: u8, requests: u64) -> Clients {
    Clients {
        server,
        from: (0..clients)
            .map(|last| [127, 0, 2, last + 1].into())
            .collect(),
        requests,
        per_socket: 100,
        timeout: Duration::from_secs(2),
        attempts: 10,
    }
}

fn question(number: u64) -> Vec<u8> {
    format!("你{}吗？", letters(number)).into_bytes()
}

fn right(number: u64, _: SocketAddr, answer: &[u8]) -> bool {
    let frame = Ctime::local().decode_response(answer);
    let expected = format!("【机器人】小Zurich {}!", letters(number));
    frame.is_ok_and(|frame| frame.text == expected)
}

/// The robot's pattern takes no digits.
fn letters(number: u64) -> String {
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(digit - b'0' + b'a'))
        .collect()
}

// ---- what contrib has ----

/// The metrics that a server exports: their names, each with the names of its labels.
fn exported() -> BTreeSet<(String, Vec<String>)> {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/zurich.toml");
    let mut command = serve(&["--metrics", "127.0.0.1:0", "--rules", rules]);
    let (mut server, _) = start_server("127.0.0.1:0", &mut command);
    let url = server.wait_for_stderr("metrics at http://");
    let page = http(
        url.strip_suffix("/metrics").unwrap(),
        "GET /metrics HTTP/1.1\r\n\r\n",
    );
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            (
                name.to_owned(),
                labels.map(|(label, _)| label.to_owned()).collect(),
            )
        })
        .collect()
}

/// Every text under a key, anywhere in a document.
fn texts<'a>(value: &'a serde_json::Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::Object(object) => {
            found.extend(object.get(key).and_then(serde_json::Value::as_str));
            for value in object.values() {
                texts(value, key, found);
            }
        }
        serde_json::Value::Array(array) => {
            for value in array {
                texts(value, key, found);
            }
        }
        _ => {}
    }
}

/// The words of an expression.
fn identifiers(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression
        .split(move |c| !is_part(c))
        .filter(|word| !word.is_empty())
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard = include_str!("../../../contrib/grafana/rejoinder.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut expressions = Vec::new();
    texts(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 10, "{expressions:?}");
    texts(&dashboard, "definition", &mut expressions);
    let exported = exported();
    for expression in expressions {
        let metric = identifiers(expression).find(|word| word.starts_with("rejoinder_"));
        let metric = metric.unwrap_or_else(|| panic!("no metric in {expression}"));
        let labels = exported.iter().find(|(name, _)| name == metric);
        let (_, labels) = labels.unwrap_or_else(|| panic!("{metric} does not exist"));
        for label in ["reason", "class", "result", "stream", "version"] {
            let is_used = identifiers(expression).any(|word| word == label);
            assert!(
                !is_used || labels.iter().any(|one| one == label),
                "{expression}"
            );
        }
    }
    // And by reasons that exist.
    let reasons: Vec<_> = rejoinder::Stats::default()
        .counters()
        .filter_map(|(name, _)| name.strip_prefix("dropped_"))
        .collect();
    for reason in ["not_proxied", "proxy_header"] {
        assert!(dashboard.to_string().contains(reason) && reasons.contains(&reason));
    }
}

#[test]
fn the_pods_call_the_server_as_it_can_be_called_and_give_it_the_time_that_it_needs() {
    let manifest = include_str!("../../../contrib/kubernetes/rejoinder.yaml");
    let value = |key: &str| {
        let mut lines = manifest.lines().map(str::trim);
        lines
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim()
    };
    let (_, list) = manifest.split_once("          args:\n").unwrap();
    let lines = list.lines().map(str::trim);
    let args: Vec<&str> = lines
        .take_while(|line| line.starts_with(['-', '#']))
        .filter_map(|line| line.strip_prefix("- \"")?.strip_suffix('"'))
        .collect();
    assert_eq!(args.len(), 5);
    let lame_duck = args.iter().find_map(|arg| arg.strip_prefix("--lame-duck="));
    let lame_duck: u64 = lame_duck.unwrap().parse().unwrap();
    let grace: u64 = value("terminationGracePeriodSeconds:").parse().unwrap();
    assert!(grace >= lame_duck + 5);
    for (name, protocol) in [("robot", "UDP"), ("metrics", "TCP"), ("health", "TCP")] {
        let port = format!("- {{name: {name}, containerPort: ");
        let (port, rest) = value(&port).split_once(", ").unwrap();
        assert_eq!(rest, format!("protocol: {protocol}}}"));
        assert!(
            args.iter()
                .any(|arg| arg.ends_with(&format!("0.0.0.0:{port}"))),
            "{port}"
        );
    }
    // Free ports instead of those.
    let free = |arg: &str| match arg.split_once("0.0.0.0:") {
        Some((option, _)) => format!("{option}127.0.0.1:0"),
        None => arg.to_owned(),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    command.arg("serve").args(args.iter().map(|arg| free(arg)));
    let mut server = Program::start(&mut command);
    let health = server.wait_for_stderr("health on ");
    for path in ["/ready", "/live"] {
        assert!(manifest.contains(&format!("httpGet: {{path: {path}, port: health}}")));
        assert_eq!(status(&health, path), "200 OK");
    }
}

// ---- nginx ----

/// A port that was free a moment ago, on one of the loopback addresses.
fn free(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// nginx with the configuration of `contrib`, between clients and two nodes.
struct Nginx {
    scratch: Scratch,
    config: String,
    program: Option<Program>,
    addr: SocketAddr,
    nodes: [SocketAddr; 2],
}

impl Nginx {
    fn start(change: impl FnOnce(String) -> String) -> Self {
        let (addr, nodes) = (free("127.0.0.1"), [free("127.0.0.11"), free("127.0.0.12")]);
        let config = include_str!("../../../contrib/nginx/nginx.conf");
        let mut config = change(config.replace("listen 8888 udp", &format!("listen {addr} udp")));
        for (node, written) in nodes.iter().zip(["10.0.0.11:8888", "10.0.0.12:8888"]) {
            assert!(config.contains(written));
            config = config.replace(written, &node.to_string());
        }
        let mut nginx = Self {
            scratch: Scratch::new(),
            config,
            program: None,
            addr,
            nodes,
        };
        nginx.write(None);
        let (path, prefix) = (nginx.path(), nginx.scratch.path().to_owned());
        let globals = format!("daemon off; pid {prefix}/pid; error_log stderr notice;");
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-c", &path, "-g", &globals]);
        nginx.program = Some(Program::start(&mut command));
        nginx
    }

    fn path(&self) -> String {
        format!("{}/nginx.conf", self.scratch.path())
    }

    /// Writes the configuration, with one node out of service.
    fn write(&self, down: Option<usize>) {
        let mut config = self.config.clone();
        if let Some(node) = down {
            let line = format!("server {};", self.nodes[node]);
            assert!(config.contains(&line));
            config = config.replace(&line, &format!("server {} down;", self.nodes[node]));
        }
        self.scratch.file("nginx.conf", config);
    }

    /// Takes a node out of service, or all back in.
    fn reload(&self, down: Option<usize>) {
        self.write(down);
        self.program.as_ref().unwrap().signal("HUP");
    }

    fn node(&self, index: usize, args: &[&str]) -> Program {
        let mut command = serve(&[]);
        let mut node = Program::start(command.args(args).arg(self.nodes[index].to_string()));
        node.wait_for_stderr("listening on ");
        node
    }

    /// Waits until a request comes through.
    fn wait(&self) {
        let started = Instant::now();
        while ask_in(self.addr, b"?", Duration::from_millis(100)).is_none() {
            assert!(started.elapsed() < PATIENCE, "nginx does not answer");
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        if let Some(mut program) = self.program.take() {
            program.signal("TERM");
            program.wait_until_ended();
        }
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_in_front_of_two_nodes_one_of_which_is_replaced() {
    for mode in ["v1", "first-of-flow"] {
        let nginx = Nginx::start(|config| {
            if mode == "v1" {
                return config;
            }
            let changed = config.replace("proxy_requests 1;", "");
            assert_ne!(changed, config);
            changed
        });
        let args = [
            "--proxied",
            mode,
            "--proxies",
            "127.0.0.1",
            "--limit",
            "off",
            "--lame-duck",
            "2",
        ];
        let [first, second] = [0, 1].map(|index| nginx.node(index, &args));
        nginx.wait();
        let mut clients = loopback_clients(nginx.addr, 8, REQUESTS);
        clients.timeout = Duration::from_secs(1);
        let mut now = None;
        let drained = clients.ask(question, right, |progress| {
            progress.wait_for(REQUESTS / 8);
            nginx.reload(Some(0));
            first.signal("TERM");
            let ended = first.finish();
            assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
            let again = nginx.node(0, &args);
            nginx.reload(None);
            progress.wait_for(REQUESTS / 8);
            now = Some(again);
        });
        report(
            &format!("nginx, {mode}, a node is drained and replaced"),
            &drained,
        );
        assert_eq!((drained.wrong, drained.lost), (0, 0));
        let killed = clients.ask(question, right, |progress| {
            progress.wait_for(REQUESTS / 8);
            second.signal("KILL");
            progress.wait_for(REQUESTS / 8);
            let again = nginx.node(1, &args);
            progress.wait_for(REQUESTS / 8);
            drop(again);
        });
        report(
            &format!("nginx, {mode}, a node is killed and comes back"),
            &killed,
        );
        assert_eq!((killed.wrong, killed.lost), (0, 0));
    }
}

/// Of each load.
const REQUESTS: u64 = 100_000;

#[expect(clippy::print_stderr, reason = "figures, for those who ask for them")]
fn report(what: &str, tally: &Tally) {
    eprintln!("{what}: {tally:?}");
}

#[test]
#[ignore = "needs nginx"]
fn four_hundred_clients_behind_nginx_are_all_answered_at_once() {
    // Without headers, all of them are one client: nginx.
    for (proxied, answered) in [(true, 400..=400), (false, 1..=8)] {
        let nginx = Nginx::start(|config| {
            if proxied {
                config
            } else {
                config.replace("proxy_protocol on;", "")
            }
        });
        let behind = ["--proxied", "v1", "--proxies", "127.0.0.1"];
        let limit = ["--limit", "2"];
        let args = if proxied {
            [&behind[..], &limit].concat()
        } else {
            limit.to_vec()
        };
        let nodes = [0, 1].map(|index| nginx.node(index, &args));
        nginx.wait();
        let clients: Vec<_> = (0..400_u16)
            .map(|client| {
                let [high, low] = (256 + client).to_be_bytes();
                let socket = UdpSocket::bind((IpAddr::from([127, high, low, 1]), 0)).unwrap();
                socket.connect(nginx.addr).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                socket.send("你好吗？".as_bytes()).unwrap();
                socket
            })
            .collect();
        let mut silent = false;
        let heard = clients.iter().filter(|client| {
            // The first unanswered wait is the wait of all.
            if silent {
                client.set_nonblocking(true).unwrap();
            }
            match client.recv(&mut [0; 200]) {
                Ok(_) => true,
                Err(error) => {
                    assert!([ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()));
                    silent = !proxied;
                    false
                }
            }
        });
        let heard = heard.count();
        assert!(answered.contains(&heard), "{proxied}: {heard}");
        drop(nodes);
    }
}

#[test]
#[ignore = "needs nginx"]
fn malformed_datagrams_do_not_make_nginx_take_the_nodes_for_dead() {
    // Each worker counts on its own which nodes failed: with two, one may never see a malformed datagram.
    let ours = |config: String| config.replace("worker_processes auto;", "worker_processes 1;");
    // As it is usually written: then a datagram without an answer takes a node out for ten seconds.
    let usual = |config: String| {
        ours(config).replace("proxy_requests 1;", "proxy_requests 1; proxy_responses 1;")
    };
    for (change, args, survives) in [
        (&ours as &dyn Fn(String) -> String, &[][..], true),
        (&usual, &[], false),
        (&usual, &["--answer-malformed"], true),
    ] {
        let nginx = Nginx::start(change);
        let behind = [
            "--proxied",
            "v1",
            "--proxies",
            "127.0.0.1",
            "--limit",
            "off",
        ];
        let args = [&behind[..], args].concat();
        let nodes = [0, 1].map(|index| nginx.node(index, &args));
        nginx.wait();
        let malformed = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..4 {
            malformed.send_to(&[0xff; 64], nginx.addr).unwrap();
        }
        // Until nginx has given them up (`proxy_timeout`), or has an answer.
        malformed
            .set_read_timeout(Some(Duration::from_millis(1_500)))
            .unwrap();
        for _ in 0..4 {
            let _ = malformed.recv(&mut [0; 200]);
        }
        let answer = ask_in(nginx.addr, "你好吗？".as_bytes(), Duration::from_secs(1));
        assert_eq!(answer.is_some(), survives, "{args:?}");
        drop(nodes);
    }
}
