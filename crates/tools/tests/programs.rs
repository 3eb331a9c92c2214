//! The two programs, as a user meets them: started as processes.
#![cfg(unix)]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use rejoinder::Codec;
use rejoinder::codec::Ctime;
#[cfg(target_os = "linux")]
use rejoinder_test_support::process::python;
use rejoinder_test_support::process::{Ended, PATIENCE, Program, start_server, words};

/// The program with one of its commands.
fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

#[test]
fn both_print_the_whole_transcript() {
    let (server, address) = start_server("127.0.0.1:0", tool("serve").env("TZ", "UTC"));
    let client = ask(
        address,
        &[
            "你好吗？",
            "你觉得我是最帅最帅的吗？",
            "你自己把自己丑哭了吗？",
            "我是谁",
        ],
    );
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""));
    assert_eq!(
        texts(&client.stdout),
        [
            "【机器人】小Zurich 好!",
            "【机器人】小Zurich 觉得自己是最帅最帅的!",
            "【机器人】小Zurich 自己把自己丑哭了!",
            FALLBACK,
        ]
    );

    server.signal("INT");
    let server = server.finish();
    assert_eq!(
        server.stdout,
        "\
waiting for message...
【机器人】小Zurich 好!
【服务器端】回复: 【机器人】小Zurich 好!
waiting for message...
【机器人】小Zurich 觉得我是最帅最帅的!
【服务器端】回复: 【机器人】小Zurich 觉得自己是最帅最帅的!
waiting for message...
【机器人】小Zurich 自己把自己丑哭了!
【服务器端】回复: 【机器人】小Zurich 自己把自己丑哭了!
waiting for message...
啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~
【服务器端】回复: 啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~
waiting for message...
"
    );
    assert_eq!(
        without_the_buffer(&server.stderr),
        format!(
            "\
listening on {address} (end with Ctrl-C)
start the client with: rejoinder ask --server {address}
the time in responses is UTC+00:00
received 4: replied 4, silent 0, dropped 0, pending 0; responses sent 4, failed 0; receive errors 0
"
        )
    );
}

#[test]
fn a_quiet_server_answers_without_a_transcript() {
    for flag in ["--quiet", "-q"] {
        let (server, address) = start_server("127.0.0.1:0", tool("serve").arg(flag));
        assert_eq!(ask(address, &["你好吗？"]).code(), Some(0));
        server.signal("TERM");
        let server = server.finish();
        assert_eq!((server.code(), server.stdout.as_str()), (Some(0), ""));
    }
}

#[test]
fn signals_end_the_server_with_totals_that_add_up() {
    for signal in ["INT", "TERM"] {
        let (server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagrams: [&[u8]; 5] = [
            "你好吗？".as_bytes(),
            b"",
            b"\xff",
            "[b'Sun Jul  7 17:17:58 2019']好".as_bytes(),
            b"hi",
        ];
        for datagram in datagrams {
            socket.send_to(datagram, address).unwrap();
        }
        // What has arrived is answered, whenever the signal comes.
        server.signal(signal);
        let server = server.finish();
        assert_eq!(server.code(), Some(0), "{signal}");
        assert_eq!(
            server.stderr.lines().last().unwrap(),
            "received 5: replied 2, silent 0, dropped 3 (response 1, malformed 2), pending 0; \
             responses sent 2, failed 0; receive errors 0",
            "{signal}"
        );
    }
}

#[test]
fn a_signal_makes_the_server_print_its_counters_and_go_on() {
    let (mut server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    for asked in 1..=2 {
        assert_eq!(ask(address, &["你好吗？"]).code(), Some(0));
        server.signal("USR1");
        server.wait_for_stderr(&format!("received {asked}: replied {asked}, "));
    }
}

#[test]
fn a_server_that_others_can_reach_limits_its_answers() {
    const ON: &str = "giving each network prefix ";
    let said = |address: &str, options: &[&str]| {
        let (mut server, _) = start_server(address, tool("serve").args(options));
        server.signal("INT");
        server.wait_for_stderr("received 0: ");
        server.finish().stderr
    };
    assert!(said("0.0.0.0:0", &[]).contains(&format!("{ON}100 answers, and 100 KiB, a second")));
    assert!(
        said("0.0.0.0:0", &["--limit", "7"])
            .contains(&format!("{ON}7 answers, and 7 KiB, a second"))
    );
    let off = said("0.0.0.0:0", &["--limit", "off"]);
    assert!(off.contains("no rate limit: an attacker") && !off.contains(ON));
    let local = said("127.0.0.1:0", &[]);
    assert!(!local.contains("no rate limit") && !local.contains(ON));

    // And it is the limit that drops: of requests that come at once, about one in a hundred passes.
    let (server, address) = start_server("127.0.0.1:0", tool("serve").args(["--limit", "1"]));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        socket.send_to("你好吗？".as_bytes(), address).unwrap();
    }
    server.signal("INT");
    let stderr = server.finish().stderr;
    let totals = stderr.lines().last().unwrap();
    let dropped = totals
        .split_once("(rate limited ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(dropped, _)| dropped.parse::<u32>().ok());
    assert!(totals.starts_with("received 100: replied "), "{totals}");
    assert!(dropped.is_some_and(|dropped| dropped > 50), "{totals}");
}

#[test]
fn a_closed_transcript_costs_no_answer() {
    let (mut server, stdout) = Program::start_unread(tool("serve").arg("127.0.0.1:0"), b"");
    let address = server.listening();
    drop(stdout);
    for _ in 0..3 {
        let client = ask(address, &["你好吗？"]);
        assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""));
    }
    server.signal("TERM");
    let server = server.finish();
    assert_eq!(server.code(), Some(0));
    let complaints = server.stderr.matches("cannot write the transcript").count();
    assert_eq!(complaints, 1, "{}", server.stderr);
    assert!(
        server.stderr.contains("received 3: replied 3,"),
        "{}",
        server.stderr
    );
}

#[test]
fn a_transcript_that_nobody_reads_does_not_keep_the_server_from_ending() {
    let (mut server, stdout) = Program::start_unread(tool("serve").arg("127.0.0.1:0"), b"");
    let address = server.listening();
    // More than a pipe holds.
    let request = format!("你{}吗？", "x".repeat(60_000));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        socket.send_to(request.as_bytes(), address).unwrap();
    }
    server.signal("TERM");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(
        ended
            .stderr
            .lines()
            .last()
            .unwrap()
            .starts_with("received ")
    );
    drop(stdout);
}

#[test]
fn text_from_the_network_cannot_act_on_a_terminal() {
    let (server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let client = ask(address, &["你\u{1b}[J\n我\u{202e}\u{9b}吗？"]);
    assert_eq!(
        texts(&client.stdout),
        [r"【机器人】小Zurich \u{1b}[J\n自己\u{202e}\u{9b}!"]
    );
    server.signal("TERM");
    assert_eq!(
        server.finish().stdout,
        "\
waiting for message...
【机器人】小Zurich \\u{1b}[J\\n我\\u{202e}\\u{9b}!
【服务器端】回复: 【机器人】小Zurich \\u{1b}[J\\n自己\\u{202e}\\u{9b}!
waiting for message...
"
    );
}

#[test]
fn the_client_command_that_the_server_shows_works() {
    for address in [
        "127.0.0.1:0",
        "0.0.0.0:0",
        "[::1]:0",
        "[::]:0",
        "[::ffff:127.0.0.1]:0",
        "0",
        "localhost:0",
    ] {
        let (mut server, _) = start_server(address, &mut tool("serve"));
        let command = server.wait_for_stderr("start the client with: rejoinder ask ");
        let client = tool("ask");
        let client = Program::start(
            Command::new("sh")
                .args(["-c", &format!("\"$0\" ask {command} 你好吗？")])
                .arg(client.get_program()),
        );
        let client = client.finish();
        assert_eq!(
            client.code(),
            Some(0),
            "{address}: {command}: {}",
            client.stderr
        );
        assert_eq!(
            texts(&client.stdout),
            ["【机器人】小Zurich 好!"],
            "{address}"
        );
    }
}

#[test]
fn the_client_asks_a_server_that_listens_everywhere_at_the_address_it_was_started_with() {
    let (_server, address) = start_server("0.0.0.0:0", &mut tool("serve"));
    assert_eq!(ask(address, &["hi"]).code(), Some(0));
}

#[test]
fn the_client_asks_at_every_address_of_a_name() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let server = format!("localhost:{}", address.port());
    let client = run(tool("ask").args(["--server", &server, "hi"]));
    assert_eq!(client.code(), Some(0), "{}", client.stderr);
}

#[test]
fn piped_lines_are_asked_without_a_prompt_and_empty_ones_are_skipped() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    for (input, answers) in [
        ("\u{feff}你好吗？\r\n\r\nhi\r\n", 2),
        ("你好吗？\n\nhi\n", 2),
        ("你好吗？\nno newline at the end", 2),
        ("\n", 0),
        ("", 0),
    ] {
        let client = pipe(address, input.as_bytes());
        assert_eq!(
            (client.code(), client.stderr.as_str()),
            (Some(0), ""),
            "{input:?}"
        );
        let expected = ["【机器人】小Zurich 好!", FALLBACK];
        assert_eq!(texts(&client.stdout), expected[..answers], "{input:?}");
    }
}

#[test]
fn a_message_that_cannot_be_asked_is_named_and_the_rest_is_asked() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let client = ask(
        address,
        &["", "你好吗？", "[b'Sun Jul  7 17:17:58 2019']好", "hi"],
    );
    assert_eq!(client.code(), Some(1));
    assert_eq!(texts(&client.stdout), ["【机器人】小Zurich 好!", FALLBACK]);
    assert_eq!(
        client.stderr,
        "error: the request could not be encoded: the request is empty: it needs at least 1 byte\n\
         error: the request could not be encoded: the request begins like a response, so a server would drop it\n"
    );

    let mut input = b"caf\xe9\n".to_vec();
    input.extend("x".repeat(65_508).bytes());
    input.extend("\n你好吗？\n".bytes());
    let client = pipe(address, &input);
    assert_eq!(client.code(), Some(1));
    assert_eq!(texts(&client.stdout), ["【机器人】小Zurich 好!"]);
    assert_eq!(
        client.stderr,
        "error: the message is no text: line 1, column 4: not UTF-8\n\
         error: the request is too long: 65508 bytes do not fit into a datagram of at most 65507\n"
    );
}

#[test]
fn the_longest_message_is_answered() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let client = pipe(address, "x".repeat(65_507).as_bytes());
    assert_eq!(texts(&client.stdout), [FALLBACK], "{}", client.stderr);
}

#[test]
fn options_end_at_two_dashes() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let client = ask(address, &["hi", "--", "--help", "-x"]);
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""));
    assert_eq!(texts(&client.stdout), [FALLBACK; 3]);
}

#[test]
fn nobody_listening_is_told_at_once_with_what_to_do() {
    let address = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // The timeout is longer than a test waits.
    let timeout = (PATIENCE * 10).as_secs().to_string();
    let server = address.to_string();
    let client = run(tool("ask").args(["--timeout", &timeout, "--server", &server, "hi"]));
    assert_eq!((client.code(), client.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        client.stderr,
        format!(
            "error: no service is listening at {address}; \
             start the server with: rejoinder serve {address}\n"
        )
    );
}

#[test]
fn a_silent_server_is_waited_for_no_longer_than_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    let client = run(tool("ask").args(["-s", &server, "-t", "0.05", "one", "two"]));
    assert_eq!((client.code(), client.stdout.as_str()), (Some(1), ""));
    let complaints: Vec<_> = client.stderr.lines().collect();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    for complaint in complaints {
        assert!(complaint.starts_with(&format!("error: no answer from {server} after ")));
    }
    // Both were asked, the second on a socket of its own.
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    let (len, first) = silent.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"one");
    let mut second = (len, first);
    while &buffer[..second.0] == b"one" {
        second = silent.recv_from(&mut buffer).unwrap();
    }
    assert_eq!(&buffer[..second.0], b"two");
    assert_ne!(first, second.1);
}

#[test]
fn the_client_ends_quietly_when_nobody_reads_its_answers() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let server = address.to_string();
    let (client, stdout) = Program::start_unread(
        tool("ask").args(["--server", &server]),
        &b"hi\n".repeat(10_000),
    );
    drop(stdout);
    let client = client.finish();
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""));
}

#[test]
fn help_goes_to_standard_output() {
    for name in ["serve", "ask"] {
        for flag in ["--help", "-h"] {
            let ended = run(tool(name).arg(flag));
            assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
            assert!(ended.stdout.contains(&format!("Usage: rejoinder {name} [")));
        }
    }
}

#[test]
fn a_wrong_call_is_told_in_one_line() {
    let wrong: &[(&str, &[&str], &str)] = &[
        ("serve", &["--loud"], "unexpected argument '--loud' found"),
        (
            "serve",
            &["--quiet=yes"],
            "unexpected value 'yes' for '--quiet' found",
        ),
        (
            "serve",
            &["127.0.0.1:0", "more"],
            "unexpected argument 'more' found",
        ),
        (
            "serve",
            &["127.0.0.1:99999"],
            "bad address `127.0.0.1:99999`",
        ),
        ("serve", &["99999"], "bad address `99999`"),
        ("serve", &[""], "bad address ``: no host"),
        ("serve", &[":0"], "bad address `:0`: no host"),
        (
            "ask",
            &["--server", ":1", "hi"],
            "bad address `:1`: no host",
        ),
        (
            "serve",
            &["line\nbreak:port"],
            r"bad address `line\nbreak:port`",
        ),
        ("serve", &["--limit", "0"], "neither a number of answers"),
        ("serve", &["--limit", "-1"], "neither a number of answers"),
        (
            "serve",
            &["--limit"],
            "a value is required for '--limit <ANSWERS>'",
        ),
        ("ask", &["--loud"], "unexpected argument '--loud' found"),
        (
            "ask",
            &["--server"],
            "a value is required for '--server <ADDRESS>'",
        ),
        (
            "ask",
            &["--server", "localhost:http", "hi"],
            "bad address `localhost:http`",
        ),
        (
            "ask",
            &["--server", "127.0.0.1:0", "hi"],
            "no server has port 0",
        ),
        (
            "ask",
            &["--timeout", "soon", "hi"],
            "--timeout `soon`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "0", "hi"],
            "--timeout `0`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "-1", "hi"],
            "--timeout `-1`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "nan", "hi"],
            "--timeout `nan`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "inf", "hi"],
            "--timeout `inf`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "1e-10", "hi"],
            "--timeout `1e-10`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "86401", "hi"],
            "--timeout `86401`: not a number of seconds",
        ),
        (
            "ask",
            &["--timeout", "1e300", "hi"],
            "--timeout `1e300`: not a number of seconds",
        ),
    ];
    for &(name, args, problem) in wrong {
        let ended = run(tool(name).args(args));
        assert_eq!(ended.code(), Some(2), "{name} {args:?}");
        assert_one_line(&ended, problem);
        assert!(ended.stderr.ends_with("; see --help\n"), "{}", ended.stderr);
    }
}

#[test]
fn an_address_that_cannot_be_had_is_told_in_one_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, problem) in [
        (taken.as_str(), "the port is taken"),
        // RFC 5737 and RFC 6761: a reserved address, a reserved name.
        ("192.0.2.1:0", "this machine has no such address"),
        ("nobody.invalid:0", "no address for `nobody.invalid:0`"),
    ] {
        let ended = run(tool("serve").arg(address));
        assert_eq!(ended.code(), Some(1), "{address}");
        assert_one_line(&ended, problem);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_privileged_port_is_told_in_one_line() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let Some(port) = first.trim().parse::<u16>().unwrap().checked_sub(1) else {
        // As in many containers, every port is unprivileged, so nothing is refused.
        return;
    };
    let server = tool("serve");
    let ended = run(python("unprivileged.py")
        .args(words(&server))
        .arg(format!("127.0.0.1:{port}")));
    assert_eq!(ended.code(), Some(1));
    assert_one_line(&ended, "that port is not for everyone");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_as_one() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let address = address.to_string();
    let asking = ["--server", &address, "你好吗？"];
    for (name, arguments) in [
        ("ask", &asking[..]),
        ("ask", &["--json", "--server", &address, "你好吗？"]),
        ("ask", &["--help"]),
        ("serve", &["--help"]),
        ("sessions", &["--help"]),
    ] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let ended = tool(name).args(arguments).stdout(full).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{name} {arguments:?}");
        assert_eq!(
            String::from_utf8_lossy(&ended.stderr),
            "error: standard output: No space left on device (os error 28)\n",
            "{name} {arguments:?}"
        );
    }
}

/// The standard library would write to `/dev/null` in its place.
#[test]
#[cfg(unix)]
fn an_output_that_is_closed_is_an_error() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let address = address.to_string();
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command, env!("CARGO_BIN_EXE_rejoinder"), &address]);
        let ended = Program::start(&mut shell).finish();
        (ended.code(), ended.stderr)
    };
    let closed = "error: standard output: Bad file descriptor (os error 9)\n".to_owned();
    assert_eq!(
        run(r#""$0" ask --server "$1" hi >&-"#),
        (Some(1), closed.clone())
    );
    assert_eq!(run(r#""$0" ask --help >&-"#), (Some(1), closed));
    // What is not wanted is not closed.
    assert_eq!(
        run(r#""$0" ask --server "$1" hi >/dev/null"#),
        (Some(0), String::new())
    );
    assert_eq!(
        run(r#""$0" ask --server "$1" hi <>/dev/null >&0"#),
        (Some(0), String::new())
    );
}

/// What the server prints everywhere, and not only where its receive buffer is small.
fn without_the_buffer(stderr: &str) -> String {
    let lines = stderr.split_inclusive('\n');
    lines
        .filter(|line| !line.starts_with("warning: the kernel grants "))
        .collect()
}

/// Runs the client with messages as arguments.
fn ask(server: SocketAddr, messages: &[&str]) -> Ended {
    run(tool("ask")
        .args(["--server", &server.to_string()])
        .args(messages))
}

/// Runs the client with messages on its standard input.
fn pipe(server: SocketAddr, input: &[u8]) -> Ended {
    let mut client = tool("ask");
    Program::start_with_input(client.args(["--server", &server.to_string()]), input).finish()
}

fn run(command: &mut Command) -> Ended {
    Program::start(command).finish()
}

/// The texts of the frames that a client printed, line by line. Each must be a whole frame.
fn texts(stdout: &str) -> Vec<&str> {
    let texts = stdout.lines().map(|line| {
        let frame = Ctime::local().decode_response(line.as_bytes());
        frame.unwrap_or_else(|error| panic!("{line}: {error}")).text
    });
    texts.collect()
}

fn assert_one_line(ended: &Ended, problem: &str) {
    let Ended { stdout, stderr, .. } = ended;
    assert_eq!(stdout, "");
    assert!(
        stderr.starts_with("error: ") && stderr.ends_with('\n'),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(problem), "{problem} in {stderr}");
}

const FALLBACK: &str = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~";
