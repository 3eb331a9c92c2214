//! The client on a terminal, and what it prints for people and for scripts.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ffi::OsStr;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use regex::Regex;
use rejoinder_test_support::process::{Ended, PATIENCE, Program, python, start_server, words};
use serde_json::{Value, json};

/// The program with one of its commands.
fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

#[test]
fn chinese_is_edited_across_the_ends_of_rows() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    // With an odd number of columns, the last one of a full row stays empty.
    for columns in [17, 20, 21, 33, 40, 80, 90, 200] {
        let line = [
            "你觉得我是最帅最帅的而且真的真的非常聪明吗？",
            &BACKSPACE.repeat(14),
            "漂亮的吗？",
            // Back to the start, and over two rows.
            HOME,
            DELETE,
            "他",
            &RIGHT.repeat(7),
            BACKSPACE,
            "好",
            HOME,
            DELETE,
            "你",
            ENTER,
        ];
        let ended = type_in(address, columns, &[&line.concat(), END_OF_INPUT]);
        assert_eq!(ended.code, Some(0), "{columns}: {ended:?}");
        let lines = [
            "【客户端】输入：你觉得我是最帅好漂亮的吗？",
            "【机器人】小Zurich 觉得自己是最帅好漂亮的!",
            PROMPT,
        ];
        let rows: Vec<_> = lines.iter().flat_map(|line| rows(line, columns)).collect();
        assert_eq!(ended.screen, rows, "{columns}");
    }
}

#[test]
fn what_joins_into_one_character_is_deleted_as_one() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    for joined in ["e\u{301}", "👩‍💻", "👍🏿", "🇨🇭", "❤️", "한"] {
        let line = format!("你{joined}好{LEFT}{BACKSPACE}{END}吗？{ENTER}");
        let ended = type_in(address, 40, &[&line, END_OF_INPUT]);
        assert_eq!(
            ended.screen,
            [
                "【客户端】输入：你好吗？",
                "【机器人】小Zurich 好!",
                "【客户端】输入："
            ],
            "{joined}"
        );
    }
}

#[test]
fn earlier_lines_come_back() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let up = format!("{UP}{UP}{ENTER}");
    let changed = format!("{UP}{UP}{DOWN}{HOME}{DELETE}他{ENTER}");
    let ended = type_in(
        address,
        60,
        &["你好吗？\r", "你在吗？\r", &up, &changed, ENTER],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let asked: Vec<_> = ended
        .screen
        .iter()
        .filter_map(|row| row.strip_prefix(PROMPT))
        .collect();
    assert_eq!(asked, ["你好吗？", "你在吗？", "你好吗？", "他好吗？", ""]);
    assert_eq!(ended.screen[5], "【机器人】小Zurich 好!");
}

#[test]
fn an_empty_line_and_the_end_of_input_end_the_client() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    for end in [ENTER, "\n", END_OF_INPUT] {
        let ended = type_in(address, 60, &["你好吗？\r", end]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.screen.len(), 3, "{ended:?}");
    }
    // In a line, the same key deletes.
    let line = format!("我你好吗？{HOME}{END_OF_INPUT}{ENTER}");
    let ended = type_in(address, 60, &[&line, END_OF_INPUT]);
    assert_eq!(ended.screen[1], "【机器人】小Zurich 好!");
}

#[test]
fn signals_end_the_client_as_they_end_others() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let ctrl_c = format!("half a line{HOME}\u{3}");
    for (end, code) in [
        (ctrl_c.as_str(), 130),
        ("SIGINT", 130),
        ("SIGTERM", 143),
        ("SIGHUP", 129),
    ] {
        // That the terminal is as it was, `terminal.py` sees to.
        let mut command = terminal("60x24", DRAWN);
        command.args(["你好吗？\r", end]);
        let ended = on_terminal(command, address, 60);
        assert_eq!(ended.code, Some(code), "{end:?}: {ended:?}");
        assert_eq!(ended.stderr, "");
        let (on, off) = (READY, "\u{1b}[?2004l");
        assert_eq!(
            ended.output.matches(on).count(),
            ended.output.matches(off).count()
        );
        assert!(ended.output.ends_with('\n'), "{end:?}: {ended:?}");
    }
}

#[test]
fn pasted_lines_are_one_message_and_not_sent_before_enter() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let paste = "\u{1b}[200~你好\r\n\r\n我在吗？\r\u{1b}[201~";
    let ended = type_in(address, 60, &[&format!("{paste}{INTERRUPT}")]);
    assert_eq!(ended.code, Some(130));
    assert_eq!(ended.screen, ["【客户端】输入：你好", "", "我在吗？"]);

    let ended = type_in(address, 60, &[&format!("{paste}{ENTER}"), END_OF_INPUT]);
    assert_eq!(ended.code, Some(0));
    assert!(
        ended
            .screen
            .iter()
            .any(|row| row == r"【机器人】小Zurich 好\n\n自己在!"),
        "{ended:?}"
    );
}

#[test]
fn what_would_act_on_the_terminal_is_neither_shown_nor_sent() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let pasted = "\u{1b}[200~你\u{7}\u{e}\u{9b}\u{202e}\u{7f}好\t吗？\u{1b}[201~";
    let typed = "\u{16}\u{7}";
    let line = format!("{pasted}{typed}{ENTER}");
    let ended = type_in(address, 60, &[&line, END_OF_INPUT]);
    assert_eq!(ended.screen[1], r"【机器人】小Zurich 好\t!");
    for harmful in ['\u{7}', '\u{e}', '\u{9b}', '\u{202e}', '\u{7f}'] {
        assert!(!ended.output.contains(harmful), "{harmful:?}: {ended:?}");
    }
}

#[test]
fn what_is_typed_before_the_prompt_is_not_lost() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let ended = type_in(address, 60, &["你好吗？\r你在吗？\r\r"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let answers: Vec<_> = ended
        .screen
        .iter()
        .filter(|row| row.starts_with("【机"))
        .collect();
    assert_eq!(
        answers,
        ["【机器人】小Zurich 好!", "【机器人】小Zurich 在!"]
    );
}

#[test]
fn a_terminal_that_is_not_utf_8_is_told_of_and_not_ended() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let gbk = OsStr::from_bytes(b"\xc4\xe3");
    let mut command = terminal("60x24", READY);
    command.arg(gbk).args(["你好吗？\r", ENTER]);
    let ended = on_terminal(command, address, 60);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .screen
            .iter()
            .any(|row| row.contains("does not send UTF-8")),
        "{ended:?}"
    );
    assert!(
        ended
            .screen
            .iter()
            .any(|row| row == "【机器人】小Zurich 好!"),
        "{ended:?}"
    );
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_a_plain_prompt() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    for name in ["dumb", ""] {
        for end in ["\n", END_OF_INPUT] {
            let mut command = terminal("60x24", PROMPT);
            command.args(["你好吗？\n", "我\n", end]).env("TERM", name);
            let ended = on_terminal(command, address, 60);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(
                ended
                    .output
                    .trim_end_matches('\n')
                    .replace("^D\u{8}\u{8}", ""),
                format!(
                    "{PROMPT}你好吗？\n【机器人】小Zurich 好!\n{PROMPT}我\n{FALLBACK}\n{PROMPT}"
                )
            );
        }
    }
}

#[test]
fn answers_are_told_with_as_much_as_is_asked_for() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let frame = r"\[b'... ... [ \d]\d \d\d:\d\d:\d\d \d{4}'\]";
    let text = "【机器人】小Zurich 好!";
    let time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d \([+-]0:00:0\d\)";
    for (options, pattern) in [
        ("", format!("{frame}{text}")),
        ("--text", text.to_owned()),
        ("--time", format!("{time}  {text}")),
        ("--time --text", format!("{time}  {text}")),
        ("--rtt", format!(r"\d+\.\d{{3}} ms  {frame}{text}")),
        ("--rtt --text", format!(r"\d+\.\d{{3}} ms  {text}")),
        (
            "--text --rtt --time",
            format!(r"{time}  \d+\.\d{{3}} ms  {text}"),
        ),
    ] {
        let options: Vec<_> = options.split_whitespace().collect();
        let ended = ask(address, &options, &["你好吗？"]);
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        let line = Regex::new(&format!("^{pattern}\n$")).unwrap();
        assert!(
            line.is_match(&ended.stdout),
            "{options:?}: {}",
            ended.stdout
        );
    }
}

#[test]
fn a_time_is_told_with_how_far_it_is_ahead() {
    // The moment of the original's first frame, if it was one in Greenwich.
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_562_519_878);
    for (zone, hours) in [("UTC", 0), ("CST-8", 8)] {
        let address = answer_once(|socket| (socket, FRAME.into()));
        let before = moment.elapsed().unwrap().as_secs();
        let object = ask_for_json(tool("ask").env("TZ", zone), address, &["好"]);
        let after = moment.elapsed().unwrap().as_secs();
        assert_eq!(object["time"], "2019-07-07T17:17:58");
        let behind = -object["clock_ahead_s"].as_i64().unwrap() - hours * 3_600;
        assert!(
            (before..=after).contains(&behind.unsigned_abs()),
            "{zone}: {behind}, {before}"
        );
    }
    let address = answer_once(|socket| (socket, FRAME.into()));
    let ended = ask(address, &["--time"], &["好"]);
    let line = Regex::new(r"^2019-07-07T17:17:58 \(-\d{5,}:\d\d:\d\d\)  好\n$").unwrap();
    assert!(line.is_match(&ended.stdout), "{}", ended.stdout);
}

#[test]
fn the_round_trip_includes_what_was_sent_again() {
    let address = answer_once(move |socket| {
        let mut buffer = [0; 64];
        let (len, _) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], "好".as_bytes());
        (socket, FRAME.to_owned())
    });
    let object = ask_for_json(&mut tool("ask"), address, &["好"]);
    // `Retry`: it is sent again after that at the earliest.
    let first_timeout = Duration::from_secs(1).as_micros();
    let round_trip = object["round_trip_us"].as_u64().unwrap();
    assert!(u128::from(round_trip) >= first_timeout, "{object}");
}

#[test]
fn json_has_a_line_for_each_message() {
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("serve"));
    let too_long = "x".repeat(65_508);
    let input = [
        "你好吗？",
        "[b'Sun Jul  7 17:17:58 2019']好",
        &too_long,
        "\"\\我",
    ]
    .join("\n");
    let input = [input.as_bytes(), b"\n\ncaf\xe9\n"].concat();
    let mut command = tool("ask");
    command.args(["--json", "--server", &address.to_string()]);
    let ended = Program::start_with_input(&mut command, &input).finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(1), ""));
    let lines = objects(&ended.stdout);
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (&line["message"], &line["text"], &line["error"]["kind"]))
        .map(|(message, text, kind)| {
            [message, text, kind].map(|value| value.as_str().unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            ["你好吗？", "【机器人】小Zurich 好!", "-"],
            [
                "[b'Sun Jul  7 17:17:58 2019']好",
                "-",
                "message_not_allowed"
            ],
            [&too_long, "-", "message_too_long"],
            ["\"\\我", FALLBACK, "-"],
            ["caf\u{fffd}", "-", "message_not_utf8"],
        ]
    );
    for line in &lines {
        let mut members: Vec<_> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        members.sort_unstable();
        if line["error"].is_null() {
            let all = [
                "clock_ahead_s",
                "message",
                "round_trip_us",
                "server",
                "text",
                "time",
            ];
            assert_eq!(members, all);
            assert!(line["round_trip_us"].is_u64() && line["clock_ahead_s"].is_i64());
        } else {
            assert_eq!(members, ["error", "message", "server"]);
            assert!(line["error"]["message"].is_string());
        }
        assert_eq!(line["server"], address.to_string());
    }
}

#[test]
fn json_is_right_for_any_text_and_harmless_on_a_terminal() {
    let hostile: String = ('\u{1}'..='\u{ff}')
        .chain("\u{61c}\u{200f}\u{2028}\u{202e}\u{2069}\u{feff}👩‍💻".chars())
        .collect();
    let frame = format!("[b'Sun Jul  7 17:17:58 2019']{hostile}");
    let address = answer_once(|socket| (socket, frame));
    let ended = ask(address, &["--json"], &[&hostile]);
    assert_eq!(ended.stdout.lines().count(), 1);
    assert_eq!(
        rejoinder::escape::Escaped(&ended.stdout).to_string(),
        ended.stdout.replace('\n', "\\n")
    );
    let lines = objects(&ended.stdout);
    assert_eq!(
        (&lines[0]["message"], &lines[0]["text"]),
        (&json!(hostile), &json!(hostile))
    );
}

#[test]
fn json_tells_errors_by_kind() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    // A connected socket receives from one peer only, and keeps the port from others.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    closed.connect(silent_at).unwrap();
    let closed_at = closed.local_addr().unwrap();
    let malformed_at = answer_once(|socket| (socket, "no frame".into()));
    for (server, kind, text) in [
        (silent_at, "timed_out", "no answer from "),
        (closed_at, "nobody_listening", "no service is listening at "),
        (malformed_at, "malformed_answer", "no answer from "),
    ] {
        let ended = ask(server, &["--json", "--timeout", "0.2"], &["hi"]);
        assert_eq!(
            (ended.code(), ended.stderr.as_str()),
            (Some(1), ""),
            "{kind}"
        );
        let [line] = &objects(&ended.stdout)[..] else {
            panic!("{}", ended.stdout);
        };
        assert_eq!(
            (&line["message"], &line["server"]),
            (&json!("hi"), &json!(server.to_string()))
        );
        assert_eq!(line["error"]["kind"], kind);
        assert!(
            line["error"]["message"].as_str().unwrap().starts_with(text),
            "{line}"
        );
    }

    // Nothing is asked at all. RFC 6761 §6.4: a reserved name.
    let nobody = ["--json", "--server", "nobody.invalid", "hi"];
    let ended = run(tool("ask").args(nobody));
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(1), ""));
    let lines = objects(&ended.stdout);
    assert_eq!(
        (lines.len(), &lines[0]["error"]["kind"]),
        (1, &json!("no_address"))
    );
    assert_eq!(lines[0].as_object().unwrap().len(), 1);
    // A wrong call is the script's own fault, and is reported as usual.
    let ended = run(tool("ask").args(["--json", "--timeout", "soon"]));
    assert_eq!((ended.code(), ended.stdout.as_str()), (Some(2), ""));
}

/// What a program on a terminal left.
#[derive(Debug)]
struct Shown {
    code: Option<i32>,
    /// All that was sent to the terminal, with line ends as they are in files.
    output: String,
    /// The rows on the screen at the end, down to the last that is not empty.
    screen: Vec<String>,
    stderr: String,
}

/// Types each input when the editor is ready for it.
fn type_in(server: SocketAddr, columns: u16, inputs: &[&str]) -> Shown {
    let mut command = terminal(&format!("{columns}x24"), READY);
    command.args(inputs);
    on_terminal(command, server, columns)
}

fn terminal(size: &str, ready: &str) -> Command {
    let mut command = python("terminal.py");
    command
        .args([size, ready])
        .env("TERM", "xterm")
        .env_remove("TERM_PROGRAM");
    command
}

fn on_terminal(mut command: Command, server: SocketAddr, columns: u16) -> Shown {
    let client = tool("ask");
    command
        .arg("--")
        .args(words(&client))
        .args(["--text", "--server", &server.to_string()]);
    let ended = run(&mut command);
    let mut terminal = vt100::Parser::new(ROWS, columns.try_into().unwrap(), 0);
    terminal.process(ended.stdout.as_bytes());
    let mut screen: Vec<_> = terminal.screen().rows(0, columns).collect();
    screen.truncate(
        screen
            .iter()
            .rposition(|row| !row.is_empty())
            .map_or(0, |last| last + 1),
    );
    Shown {
        code: ended.code(),
        output: ended.stdout.replace("\r\n", "\n"),
        screen,
        stderr: ended.stderr,
    }
}

/// How a line of Chinese and ASCII fills a terminal: no character lies in two rows.
fn rows(line: &str, columns: u16) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut used = 0;
    for c in line.chars() {
        let width = if c.is_ascii() { 1 } else { 2 };
        if used + width > columns {
            rows.push(String::new());
            used = 0;
        }
        rows.last_mut().unwrap().push(c);
        used += width;
    }
    rows
}

fn run(command: &mut Command) -> Ended {
    Program::start(command).finish()
}

fn ask(server: SocketAddr, options: &[&str], messages: &[&str]) -> Ended {
    let server = server.to_string();
    let mut command = tool("ask");
    run(command
        .args(options)
        .args(["--server", &server, "--"])
        .args(messages))
}

fn ask_for_json(command: &mut Command, server: SocketAddr, messages: &[&str]) -> Value {
    let server = server.to_string();
    let ended = run(command
        .args(["--json", "--timeout", "60", "--server", &server, "--"])
        .args(messages));
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    objects(&ended.stdout).pop().unwrap()
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A server that answers one request, with what `make` says.
fn answer_once(make: impl FnOnce(UdpSocket) -> (UdpSocket, String) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let (_, peer) = socket.recv_from(&mut [0; 2_048]).unwrap();
        let (socket, answer) = make(socket);
        socket.send_to(answer.as_bytes(), peer).unwrap();
    });
    address
}

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
const PROMPT: &str = "【客户端】输入：";
const FRAME: &str = "[b'Sun Jul  7 17:17:58 2019']好";
const FALLBACK: &str = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~";
/// The editor turns bracketed paste on once for each line, after it has set the terminal up.
const READY: &str = "\u{1b}[?2004h";
/// It ends each drawing of the whole line with this. What is typed at its end is not drawn so.
const DRAWN: &str = "\u{1b}[?2026l";
const ENTER: &str = "\r";
const BACKSPACE: &str = "\u{7f}";
const DELETE: &str = "\u{1b}[3~";
const HOME: &str = "\u{1b}[H";
const END: &str = "\u{1b}[F";
const UP: &str = "\u{1b}[A";
const DOWN: &str = "\u{1b}[B";
const RIGHT: &str = "\u{1b}[C";
const LEFT: &str = "\u{1b}[D";
const END_OF_INPUT: &str = "\u{4}";
const INTERRUPT: &str = "\u{3}";
