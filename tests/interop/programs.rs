//! The two programs, as a user meets them: started as processes.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use rejoinder::Codec;
use rejoinder::codec::Ctime;
use rejoinder_test_support::process::{Ended, PATIENCE, Program, example, start_server};

#[test]
fn both_print_the_whole_transcript() {
    let (server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
        server.stderr,
        format!(
            "\
listening on {address} (end with Ctrl-C)
start the client with: cargo run --example client -- --server {address}
received 4: replied 4, silent 0, dropped 0, pending 0; responses sent 4, failed 0; receive errors 0
"
        )
    );
}

#[test]
fn a_quiet_server_answers_without_a_transcript() {
    for flag in ["--quiet", "-q"] {
        let (server, address) = start_server("127.0.0.1:0", example("server").arg(flag));
        assert_eq!(ask(address, &["你好吗？"]).code(), Some(0));
        server.signal("TERM");
        let server = server.finish();
        assert_eq!((server.code(), server.stdout.as_str()), (Some(0), ""));
    }
}

#[test]
fn signals_end_the_server_with_totals_that_add_up() {
    for signal in ["INT", "TERM"] {
        let (server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
fn a_closed_transcript_costs_no_answer() {
    let (mut server, stdout) = Program::start_unread(example("server").arg("127.0.0.1:0"), b"");
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
    let (mut server, stdout) = Program::start_unread(example("server").arg("127.0.0.1:0"), b"");
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
    let (server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
        let (mut server, _) = start_server(address, &mut example("server"));
        let command =
            server.wait_for_stderr("start the client with: cargo run --example client -- ");
        let client = example("client");
        let client = Program::start(
            Command::new("sh")
                .args(["-c", &format!("\"$0\" {command} 你好吗？")])
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
    let (_server, address) = start_server("0.0.0.0:0", &mut example("server"));
    assert_eq!(ask(address, &["hi"]).code(), Some(0));
}

#[test]
fn the_client_asks_at_every_address_of_a_name() {
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
    let server = format!("localhost:{}", address.port());
    let client = run(example("client").args(["--server", &server, "hi"]));
    assert_eq!(client.code(), Some(0), "{}", client.stderr);
}

#[test]
fn piped_lines_are_asked_without_a_prompt_and_empty_ones_are_skipped() {
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
        "error: the message is not UTF-8: incomplete utf-8 byte sequence from index 3\n\
         error: the request is too long: 65508 bytes do not fit into a datagram of at most 65507\n"
    );
}

#[test]
fn the_longest_message_is_answered() {
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
    let client = pipe(address, "x".repeat(65_507).as_bytes());
    assert_eq!(texts(&client.stdout), [FALLBACK], "{}", client.stderr);
}

#[test]
fn options_end_at_two_dashes() {
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
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
    let client = run(example("client").args(["--timeout", &timeout, "--server", &server, "hi"]));
    assert_eq!((client.code(), client.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        client.stderr,
        format!(
            "error: no service is listening at {address}; \
             start the server with: cargo run --example server -- {address}\n"
        )
    );
}

#[test]
fn a_silent_server_is_waited_for_no_longer_than_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = silent.local_addr().unwrap().to_string();
    let client = run(example("client").args(["-s", &server, "-t", "0.05", "one", "two"]));
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
    let (_server, address) = start_server("127.0.0.1:0", &mut example("server"));
    let server = address.to_string();
    let (client, stdout) = Program::start_unread(
        example("client").args(["--server", &server]),
        &b"hi\n".repeat(10_000),
    );
    drop(stdout);
    let client = client.finish();
    assert_eq!((client.code(), client.stderr.as_str()), (Some(0), ""));
}

#[test]
fn help_goes_to_standard_output() {
    for name in ["server", "client"] {
        for flag in ["--help", "-h"] {
            let ended = run(example(name).arg(flag));
            assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
            assert!(ended.stdout.contains(&format!("Usage: {name} [")));
        }
    }
}

#[test]
fn a_wrong_call_is_told_in_one_line() {
    let wrong: &[(&str, &[&str], &str)] = &[
        ("server", &["--loud"], "invalid option '--loud'"),
        (
            "server",
            &["--quiet=yes"],
            "unexpected argument for option '--quiet'",
        ),
        (
            "server",
            &["127.0.0.1:0", "more"],
            "unexpected argument \"more\"",
        ),
        (
            "server",
            &["127.0.0.1:99999"],
            "bad address `127.0.0.1:99999`",
        ),
        ("server", &["99999"], "bad address `99999`"),
        ("server", &[""], "bad address ``: no host"),
        ("server", &[":0"], "bad address `:0`: no host"),
        (
            "client",
            &["--server", ":1", "hi"],
            "bad address `:1`: no host",
        ),
        (
            "server",
            &["line\nbreak:port"],
            r"bad address `line\nbreak:port`",
        ),
        ("client", &["--loud"], "invalid option '--loud'"),
        (
            "client",
            &["--server"],
            "missing argument for option '--server'",
        ),
        (
            "client",
            &["--server", "localhost:http", "hi"],
            "bad address `localhost:http`",
        ),
        (
            "client",
            &["--server", "127.0.0.1:0", "hi"],
            "no server has port 0",
        ),
        (
            "client",
            &["--timeout", "soon", "hi"],
            "--timeout `soon`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "0", "hi"],
            "--timeout `0`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "-1", "hi"],
            "--timeout `-1`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "nan", "hi"],
            "--timeout `nan`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "inf", "hi"],
            "--timeout `inf`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "1e-10", "hi"],
            "--timeout `1e-10`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "86401", "hi"],
            "--timeout `86401`: not a number of seconds",
        ),
        (
            "client",
            &["--timeout", "1e300", "hi"],
            "--timeout `1e300`: not a number of seconds",
        ),
    ];
    for &(name, args, problem) in wrong {
        let ended = run(example(name).args(args));
        assert_eq!(ended.code(), Some(2), "{name} {args:?}");
        assert_one_line(&ended, problem);
        assert!(ended.stderr.ends_with("; see --help\n"), "{}", ended.stderr);
    }
}

/// Runs the client with messages as arguments.
fn ask(server: SocketAddr, messages: &[&str]) -> Ended {
    run(example("client")
        .args(["--server", &server.to_string()])
        .args(messages))
}

/// Runs the client with messages on its standard input.
fn pipe(server: SocketAddr, input: &[u8]) -> Ended {
    let mut client = example("client");
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
