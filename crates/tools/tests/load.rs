//! The load tool, as a user meets it: started as a process, against the real server and against
//! others that are worse.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs, process as this};

use rejoinder_test_support::process::{Ended, PATIENCE, Program, python, start_server, words};

/// The program with one of its commands.
fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

#[test]
fn every_request_to_a_good_server_is_answered() {
    let (server, address) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    let run = json(&load(address, &[LIGHT, &["--duration", "200ms", "--json"]]));
    assert!(run.sent > 0);
    assert_eq!((run.answered, run.wrong, run.lost), (run.sent, 0, 0));
    assert_eq!(run.ignored, 0);

    server.signal("INT");
    let stderr = server.finish().stderr;
    // One more to begin with.
    let all = run.sent + 1;
    let totals = format!("received {all}: replied {all}, silent 0, ");
    assert!(stderr.contains(&totals), "{run:?} {stderr}");
}

#[test]
fn requests_are_answered_wrong_or_lost_as_the_server_treats_them() {
    let bad = Impostor::start(|number, request| match number {
        // The reference.
        0 => vec![hello(request)],
        _ if number % 5 == 0 => vec![],
        _ if number % 7 == 0 => vec![frame(&format!("hello, {request}?"))],
        _ if number % 11 == 0 => vec![format!("hello, {request}!").into_bytes()],
        _ => vec![hello(request)],
    });
    let ended = load(
        bad.address,
        &[
            &[
                "--duration",
                "300ms",
                "--warmup",
                "0",
                "--timeout",
                "1600ms",
            ],
            &["--peers", "2", "--in-flight", "20", "--json"],
        ],
    );
    let run = json(&ended);
    let requests = bad.requests().len() as u64;
    // None was sent again.
    assert_eq!(run.sent, requests - 1);
    assert_eq!(run.answered + run.wrong + run.lost, run.sent, "{run:?}");
    let dropped = (1..requests).filter(|number| number % 5 == 0).count() as u64;
    let spoilt = (1..requests)
        .filter(|number| number % 5 != 0 && (number % 7 == 0 || number % 11 == 0))
        .count() as u64;
    // An answer that is slow, on a machine that is, is lost too.
    assert!(run.lost >= dropped && dropped > 0, "{dropped} {run:?}");
    assert!((1..=spoilt).contains(&run.wrong), "{spoilt} {run:?}");
    assert!(run.answered > 0, "{run:?}");

    assert_eq!(ended.code(), Some(1));
    let complaint = format!(
        "{} of {} answers were wrong",
        run.wrong,
        run.sent - run.lost
    );
    assert!(ended.stderr.contains(&complaint), "{}", ended.stderr);
}

#[test]
fn what_was_wrong_first_is_shown_and_cannot_act_on_a_terminal() {
    let bad = Impostor::start(|number, request| match number {
        0 => vec![hello(request)],
        _ => vec![frame(&format!("\u{1b}[2J{request}"))],
    });
    let ended = load(bad.address, &[LIGHT, &["--duration", "50ms"]]);
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.contains(r"was `\u{1b}[2J你"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("and not `hello, 你{n}吗？!`"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("error: no right answer came"),
        "{}",
        ended.stderr
    );
}

#[test]
fn answers_that_come_twice_count_once() {
    let twice = Impostor::start(|_, request| vec![hello(request), hello(request)]);
    let run = json(&load(
        twice.address,
        &[LIGHT, &["--duration", "100ms", "--json"]],
    ));
    assert_eq!(run.sent, twice.requests().len() as u64 - 1);
    assert_eq!(
        (run.answered, run.wrong, run.lost),
        (run.sent, 0, 0),
        "{run:?}"
    );
    assert!(run.ignored > 0, "{run:?}");
}

#[test]
fn an_answer_with_the_number_of_another_request_is_no_answer() {
    let mut previous = String::new();
    let confused = Impostor::start(move |number, request| {
        let answer = if number == 0 { request } else { &previous };
        let answers = vec![hello(answer)];
        previous = request.to_owned();
        answers
    });
    // One at a time, so that every one is late.
    let ended = load(
        confused.address,
        &[
            &["--duration", "100ms", "--warmup", "0", "--timeout", "100ms"],
            &["--peers", "1", "--in-flight", "1", "--json"],
        ],
    );
    let run = json(&ended);
    assert_eq!(
        (run.answered, run.wrong, run.lost),
        (0, 0, run.sent),
        "{run:?}"
    );
    assert_eq!(ended.code(), Some(1));
}

#[test]
fn answers_without_a_number_need_a_socket_for_each_request() {
    let terse = Impostor::start(|_, _| vec![frame("yes")]);
    for message in ["{n}?", "question"] {
        let before = terse.requests().len();
        let run = json(&load(
            terse.address,
            &[
                &["--message", message, "--rate", "300", "--duration", "300ms"],
                &["--warmup", "0", "--timeout", "60s", "--json"],
            ],
        ));
        assert_eq!((run.answered, run.wrong, run.lost), (run.sent, 0, 0));
        // Without the one before all, whose socket is gone.
        let requests = terse.requests().split_off(before + 1);
        let ports: HashSet<_> = requests.iter().map(|(peer, _)| peer.port()).collect();
        assert_eq!(ports.len() as u64, run.sent, "{message}");
        // The number makes them different all the same.
        let texts: HashSet<_> = requests.iter().map(|(_, text)| text).collect();
        let different = if message == "question" { 1 } else { run.sent };
        assert_eq!(texts.len() as u64, different, "{message}");
    }
}

#[test]
fn peers_keep_their_sockets_where_the_answers_have_the_number() {
    let good = Impostor::start(|_, request| vec![hello(request)]);
    let args: &[&str] = &["--peers", "3", "--in-flight", "2", "--timeout", "60s"];
    let ended = load(
        good.address,
        &[args, &["--warmup", "0", "--duration", "100ms"]],
    );
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let requests = good.requests();
    let ports: HashSet<_> = requests.iter().map(|(peer, _)| peer.port()).collect();
    assert_eq!(ports.len(), 3 + 1);
    assert!(
        ended.stdout.contains("3 peers, 2 requests in flight each"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_right_answer_can_be_told() {
    let good = Impostor::start(|_, request| vec![hello(request)]);
    let file = Scratch::new("messages");
    let with = |options: &[&str], lines: &str| {
        fs::write(&file.0, lines).unwrap();
        let from = ["--messages", file.0.to_str().unwrap()];
        let from: &[&str] = if lines.is_empty() { &[] } else { &from };
        load(
            good.address,
            &[LIGHT, &["--duration", "50ms"], options, from],
        )
        .code()
    };
    assert_eq!(
        with(&["--message", "a {n}", "--expect", "hello, a {n}!"], ""),
        Some(0)
    );
    assert_eq!(
        with(&["--message", "a {n}", "--expect", "hello, b {n}!"], ""),
        Some(1)
    );
    // Not a part of it.
    assert_eq!(
        with(&["--message", "a {n}", "--expect", "hello, a {n}"], ""),
        Some(1)
    );
    assert_eq!(
        with(&["--message", "b", "--expect", "hello, b"], ""),
        Some(1)
    );
    assert_eq!(with(&[], "a {n}\thello, a {n}!\n\nb {n}\r\n"), Some(0));
    assert_eq!(with(&[], "a {n}\nb {n}\thello, a {n}!\n"), Some(1));
    // Answers with and without a number.
    assert_eq!(with(&[], "a {n}\tnothing\nb\thello, b!\n"), Some(1));
    assert_eq!(with(&[], "a {n}\nb\thello, b!\n"), Some(0));
}

#[test]
fn answers_that_change_are_right_only_if_every_one_is() {
    let fickle = Impostor::start(|number, request| vec![frame(&format!("{request} {number}"))]);
    let with = |options: &[&str]| load(fickle.address, &[LIGHT, &["--duration", "50ms"], options]);
    assert_eq!(with(&[]).code(), Some(1));
    assert_eq!(with(&["--any-answer"]).code(), Some(0));
}

#[test]
fn thresholds_decide_the_exit_code() {
    let (_server, good) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    let lossy = Impostor::start(|number, request| match number % 4 {
        1 => vec![],
        _ => vec![hello(request)],
    });
    let with = |address, option: &str, value: &str, timeout| {
        load(
            address,
            &[
                &["--duration", "100ms", "--warmup", "0", "--timeout", timeout],
                &["--peers", "1", "--in-flight", "8", option, value],
            ],
        )
    };
    for (address, option, value, timeout, missed) in [
        (good, "--max-p99", "60m", "60s", None),
        (
            good,
            "--max-p99",
            "1us",
            "60s",
            Some("more than --max-p99 1.00 µs"),
        ),
        (good, "--max-loss", "0", "60s", None),
        (lossy.address, "--max-loss", "100", "200ms", None),
        (
            lossy.address,
            "--max-loss",
            "0.5%",
            "200ms",
            Some("more than --max-loss 0.5 %"),
        ),
    ] {
        let ended = with(address, option, value, timeout);
        let code = Some(i32::from(missed.is_some()));
        assert_eq!(ended.code(), code, "{option} {value}: {ended:?}");
        match missed {
            Some(line) => assert!(ended.stderr.contains(line), "{}", ended.stderr),
            None => assert_eq!(ended.stderr, ""),
        }
    }
}

#[test]
fn a_limit_of_the_server_shows_as_loss() {
    let (_server, address) = start_server(
        "127.0.0.1:0",
        tool("serve").args(["--quiet", "--limit", "1"]),
    );
    let run = json(&load(
        address,
        &[
            &["--rate", "200", "--duration", "500ms", "--warmup", "0"],
            &["--timeout", "200ms", "--json"],
        ],
    ));
    assert!(run.lost > run.sent / 2, "{run:?}");
}

#[test]
fn a_rate_is_a_schedule() {
    let good = Impostor::start(|_, request| vec![hello(request)]);
    let run = json(&load(
        good.address,
        &[
            &["--rate", "500", "--duration", "400ms", "--warmup", "100ms"],
            &["--timeout", "60s", "--json"],
        ],
    ));
    assert_eq!(run.sent + run.unsent, 200, "{run:?}");
    assert_eq!((run.answered, run.wrong, run.lost), (run.sent, 0, 0));
    // And 50 that did not count, and one before all that.
    assert_eq!(good.requests().len() as u64, run.sent + 50 + 1);
}

#[test]
fn a_rate_that_is_not_reached_is_told() {
    let silent = Impostor::start(|number, request| match number {
        0 => vec![hello(request)],
        _ => vec![],
    });
    let ended = load(
        silent.address,
        &[
            &["--rate", "100", "--duration", "300ms", "--warmup", "0"],
            &[
                "--peers",
                "1",
                "--in-flight",
                "1",
                "--timeout",
                "1s",
                "--json",
            ],
        ],
    );
    let run = json(&ended);
    assert_eq!((run.sent, run.unsent, run.lost), (1, 29, 1));
    assert_eq!(ended.code(), Some(1));
    let line = "the rate of 100 a second was not reached: 29 of 30 requests never left";
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
}

#[test]
fn the_same_seed_asks_the_same() {
    let asked = |seed: &str| {
        let good = Impostor::start(|_, request| vec![hello(request)]);
        let args: &[&str] = &["--duration", "100ms", "--warmup", "0", "--timeout", "60s"];
        let one: &[&str] = &["--peers", "1", "--in-flight", "1", "--seed", seed];
        assert_eq!(load(good.address, &[args, one]).code(), Some(0));
        let texts = good.requests().into_iter().map(|(_, text)| text);
        texts.take(3).collect::<Vec<_>>()
    };
    let first = asked("7");
    assert_eq!(first.len(), 3);
    assert_eq!(first, asked("7"));
    assert_ne!(first, asked("8"));
}

#[test]
fn a_signal_ends_a_run_early_with_the_numbers_so_far() {
    let good = Impostor::start(|_, request| vec![hello(request)]);
    let mut command = tool("load");
    command.arg(good.address.to_string()).args(LIGHT);
    let run = Program::start(command.args(["--duration", "60m", "--json"]));
    let started = Instant::now();
    while good.requests().len() < 20 {
        assert!(started.elapsed() < PATIENCE, "it asks");
        thread::yield_now();
    }
    run.signal("INT");
    let ended = run.finish();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let run = json(&ended);
    assert!(run.sent > 0 && run.answered == run.sent, "{run:?}");
}

#[test]
fn nothing_but_lines_goes_into_a_pipe() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    let ended = load(address, &[LIGHT, &["--duration", "600ms"]]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let is_plain = |c: char| c == '\n' || !c.is_control();
    assert!(ended.stdout.chars().all(is_plain), "{}", ended.stdout);
    for line in ["sent ", "answered ", "wrong ", "lost ", "latency  50 % "] {
        let found = ended.stdout.lines().any(|found| found.starts_with(line));
        assert!(found, "{line}: {}", ended.stdout);
    }
    assert!(ended.stdout.lines().all(|line| line.chars().count() <= 80));
    // A plot: Braille, with time and percentile.
    assert!(ended.stdout.contains('⣿') && ended.stdout.contains("90 %"));
}

#[test]
fn the_plot_is_well_formed() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    let file = Scratch::new("plot.svg");
    let options = ["--duration", "100ms", "--svg", file.0.to_str().unwrap()];
    assert_eq!(load(address, &[LIGHT, &options]).code(), Some(0));
    let svg = fs::read_to_string(&file.0).unwrap();
    assert!(
        svg.contains("90 %") && svg.contains(&address.to_string()),
        "{svg}"
    );
    let parse = "import sys, xml.dom.minidom as dom; dom.parse(sys.argv[1])";
    let status = Command::new("python3")
        .args(["-c", parse])
        .arg(&file.0)
        .status();
    assert!(status.unwrap().success(), "{svg}");
}

#[test]
fn bad_arguments_are_told_by_name() {
    for (arguments, named) in [
        (&["--duration", "soon"][..], "--duration `soon`"),
        (&["--duration", "0"], "--duration `0`"),
        (&["--warmup", "-1"], "--warmup `-1`"),
        (&["--peers", "0"], "--peers `0`"),
        (&["--in-flight", "many"], "--in-flight `many`"),
        (
            &["--peers", "1000", "--in-flight", "1000"],
            "--peers 1000 times --in-flight 1000",
        ),
        (&["--rate", "1.5"], "--rate `1.5`"),
        (&["--timeout", "2m"], "--timeout `2m`"),
        (&["--message", ""], "--message ``"),
        (&["--message", "bad{n}"], "--message `bad{n}`"),
        (&["--messages", "/nowhere"], "--messages /nowhere"),
        (&["--max-p99", "1 parsec"], "--max-p99 `1 parsec`"),
        (&["--max-loss", "101"], "--max-loss `101`"),
        (&["--max-loss", "NaN"], "--max-loss `NaN`"),
        (&["--svg", "/nowhere/plot.svg"], "--svg /nowhere/plot.svg"),
        (
            &["--expect", "a", "--any-answer"],
            "--expect and --any-answer",
        ),
        (&["--seed"], "--seed"),
        (&["--faster"], "--faster"),
        (&["192.0.2.1:8888"], "--allow-remote"),
        (&["127.0.0.1:0"], "127.0.0.1:0"),
        (&["8888", "9999"], "9999"),
    ] {
        let ended = Program::start(tool("load").args(arguments)).finish();
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(named),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn nobody_who_answers_is_told_before_anything_is_loaded() {
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ended = load(closed, &[]);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(
        ended.stderr,
        format!(
            "error: no service is listening at {closed}; \
             start the server with: rejoinder serve {closed}\n"
        )
    );

    let other = Impostor::start(|_, _| vec![b"220 ready".to_vec()]);
    let ended = load(other.address, &[]);
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.contains("does not speak the ctime protocol"),
        "{}",
        ended.stderr
    );
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn help_names_every_option() {
    let ended = Program::start(tool("load").arg("--help")).finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("--max-p99 <TIME>") && ended.stdout.contains("--allow-remote"));
}

/// A few requests at a time, none of which is ever given up, on the slowest machine.
const LIGHT: &[&str] = &[
    "--warmup",
    "0",
    "--timeout",
    "60s",
    "--peers",
    "2",
    "--in-flight",
    "4",
];

fn load(target: SocketAddr, options: &[&[&str]]) -> Ended {
    let mut command = tool("load");
    command.arg(target.to_string()).args(options.concat());
    Program::start(&mut command).finish()
}

/// What `--json` says.
#[derive(Debug)]
struct Run {
    sent: u64,
    answered: u64,
    wrong: u64,
    lost: u64,
    unsent: u64,
    ignored: u64,
}

fn json(ended: &Ended) -> Run {
    let number = |key: &str| {
        let (_, rest) = ended
            .stdout
            .split_once(&format!("\"{key}\":"))
            .unwrap_or_else(|| {
                panic!("{key} in {ended:?}");
            });
        let digits = rest.split_once([',', '}']).unwrap().0;
        digits.parse().unwrap()
    };
    Run {
        sent: number("sent"),
        answered: number("answered"),
        wrong: number("wrong"),
        lost: number("lost"),
        unsent: number("unsent"),
        ignored: number("ignored"),
    }
}

/// A frame of the ctime protocol.
fn frame(text: &str) -> Vec<u8> {
    format!("[b'Sun Jul  7 17:17:58 2019']{text}").into_bytes()
}

fn hello(request: &str) -> Vec<u8> {
    frame(&format!("hello, {request}!"))
}

/// A peer that answers as a test wants it, until this is dropped.
struct Impostor {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<(SocketAddr, String)>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    /// `answers` gets the number of the request, from 0, and its text.
    fn start(mut answers: impl FnMut(usize, &str) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (heard, ends) = (Arc::clone(&requests), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ends.load(Ordering::Relaxed) {
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let text = str::from_utf8(&buffer[..len]).unwrap();
                let number = {
                    let mut heard = heard.lock().unwrap();
                    heard.push((peer, text.to_owned()));
                    heard.len() - 1
                };
                for answer in answers(number, text) {
                    // The client may be gone.
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self {
            address,
            requests,
            over,
            thread: Some(thread),
        }
    }

    fn requests(&self) -> Vec<(SocketAddr, String)> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || thread::panicking(), "the impostor failed");
    }
}

/// A file that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("rejoinder-load-{}-{name}", this::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn progress_fits_the_terminal_and_is_gone_afterwards() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    for columns in [20, 80, 200] {
        let mut terminal = python("terminal.py");
        terminal.args([&format!("{columns}x50"), "no such text", "--"]);
        let mut load = tool("load");
        load.arg(address.to_string()).args([
            "--duration",
            "600ms",
            "--warmup",
            "0",
            "--peers",
            "1",
        ]);
        let ended = Program::start(terminal.args(words(&load))).finish();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        // Each state of the line begins in the first column and erases what was behind it.
        let states: Vec<_> = ended
            .stdout
            .split('\r')
            .filter_map(|state| state.strip_suffix("\u{1b}[K"))
            .collect();
        let drawn = states.iter().filter(|state| state.starts_with('['));
        assert!(drawn.clone().count() >= 1, "{columns}: {:?}", ended.stdout);
        for state in drawn {
            assert!(state.chars().count() < columns, "{columns}: {state}");
        }
        let (_, after) = ended.stdout.rsplit_once("\u{1b}[K").unwrap();
        assert!(after.contains("answered"), "{after}");
    }
}

#[test]
fn a_report_is_one_page_with_nothing_outside_it() {
    let (_server, address) = start_server("127.0.0.1:0", tool("serve").arg("--quiet"));
    let path = env::temp_dir().join(format!("rejoinder-load-{}.html", this::id()));
    let ended = load(
        address,
        &[
            LIGHT,
            &["--duration", "200ms", "--html", path.to_str().unwrap()],
        ],
    );
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let page = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(page.starts_with("<!doctype html>\n") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), 2);
    for tag in [
        "html", "head", "body", "svg", "pre", "h1", "h2", "style", "title",
    ] {
        let (open, close) = (
            page.matches(&format!("<{tag}")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        let headers = if tag == "head" {
            page.matches("<header").count()
        } else {
            0
        };
        assert_eq!(open - headers, close, "{tag}");
    }
    // The only address in it is the name of SVG's elements.
    let links = page.matches("http").count();
    assert_eq!(
        links,
        page.matches("xmlns='http://www.w3.org/2000/svg'").count()
    );
    for outside in ["<script", "<link", "<img", "src=", "href=", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let ended = load(address, &[&["--html", "/nowhere/report.html"]]);
    assert_eq!(ended.code(), Some(2));
    assert!(
        ended
            .stderr
            .starts_with("error: --html /nowhere/report.html: "),
        "{}",
        ended.stderr
    );
}
