//! 小Zurich on a UDP socket:
//!
//! ```text
//! cargo run --example server
//! ```
//!
//! Standard output is the transcript of the original program, standard error is everything else.

#[path = "support/program.rs"]
mod program;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lexopt::prelude::*;
use program::{DEFAULT, Failure, chain, command, complain, reachable, resolve, say};
use rejoinder::{
    Context, Ctime, Escaped, Handler, RateLimit, Reply, ReplyError, Robot, ServerBuilder, zurich,
};
#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::{SIGINT, SIGTERM};

const HELP: &str = "\
小Zurich, the robot that turns a question into a compliment, on UDP.

Usage: server [ADDRESS] [--limit ANSWERS] [--quiet]

Arguments:
  ADDRESS    where to listen: HOST:PORT, or only one of them.
             Port 0 is any free port, 0.0.0.0 all of IPv4, [::] all of IPv6 and IPv4.
             Default: 127.0.0.1:8888

Options:
  -l, --limit ANSWERS    how many answers per second, and KiB, any one network gets (an IPv4 /24,
                         an IPv6 /56), or `off`. Default: off on a loopback address, otherwise 100,
                         because the sender of a datagram is easily forged
  -q, --quiet            no transcript on standard output
  -h, --help             this text

Ctrl-C ends it. SIGUSR1 makes it print its counters.
";

fn main() -> ExitCode {
    program::end(run())
}

fn run() -> Result<ExitCode, Failure> {
    let mut address = None;
    let mut quiet = false;
    let mut limit = None;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(program::help(HELP)),
            Short('q') | Long("quiet") => quiet = true,
            Short('l') | Long("limit") => limit = Some(args.value()?.parse_with(answers)?),
            Value(value) if address.is_none() => address = Some(value.string()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    let address = address.unwrap_or_else(|| DEFAULT.to_string());

    // First of all, so that no signal finds the program half started.
    let asked_to_end = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&asked_to_end))?;
    }
    let asked_for_stats = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    signal_hook::flag::register(SIGUSR1, Arc::clone(&asked_for_stats))?;

    let addresses = resolve(&address)?;
    let is_local = addresses.iter().all(|address| address.ip().is_loopback());
    let limit = limit.unwrap_or(if is_local { None } else { Some(DEFAULT_LIMIT) });
    let server = ServerBuilder::new(Ctime::local())
        .gate(limit.map(rate_limit).transpose()?)
        .bind(&addresses[..])
        .map_err(|error| Failure::RunTime(why_not_bound(&address, &error)))?;
    let listening = server.local_addr()?;
    let handle = server.handle();

    say(format_args!("listening on {listening} (end with Ctrl-C)"));
    let client = command("client", "--server ", reachable(listening));
    say(format_args!("start the client with: {client}"));
    if let Some(answers) = limit {
        say(format_args!(
            "answering any one network at most {answers} times a second (change it with --limit)"
        ));
    } else if !is_local {
        say("answering without a limit: whoever forges a sender can use this against others");
    }
    let robot = Transcribed::new(zurich(), !quiet);
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more only if the program is ending.
        let _ = done.send(server.serve(robot));
    });

    let result = loop {
        match ended.recv_timeout(SIGNAL_CHECK) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Timeout) if !asked_to_end.load(Ordering::Relaxed) => {
                if asked_for_stats.swap(false, Ordering::Relaxed) {
                    say(handle.stats());
                }
            }
            Err(_) => {
                handle.stop();
                // A standard output that nobody reads can hold the server up.
                break ended
                    .recv_timeout(GRACE)
                    .unwrap_or_else(|_| Ok(handle.stats()));
            }
        }
    };
    say(result.map_err(|error| Failure::RunTime(chain(&error)))?);
    Ok(ExitCode::SUCCESS)
}

/// A robot that prints what the original prints.
struct Transcribed {
    robot: Robot,
    transcript: Mutex<Option<io::Stdout>>,
}

impl Transcribed {
    fn new(robot: Robot, wanted: bool) -> Self {
        let transcribed = Self {
            robot,
            transcript: Mutex::new(wanted.then(io::stdout)),
        };
        transcribed.print(WAITING);
        transcribed
    }

    /// Nothing that happens to the transcript keeps an answer from leaving.
    fn print(&self, lines: &str) {
        let mut transcript = self
            .transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(stdout) = &mut *transcript
            && let Err(error) = stdout.write_all(lines.as_bytes())
        {
            *transcript = None;
            complain(format!(
                "the transcript ends here, the server does not: {error}"
            ));
        }
    }
}

impl Handler<Ctime> for Transcribed {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Ctime>,
    ) -> Result<(), ReplyError> {
        let mut answer = self.robot.answer(request);
        match reply.send(&answer) {
            Err(ReplyError::TooLong(_)) => {
                answer = self.robot.fallback();
                reply.send(&answer)?;
            }
            result => result?,
        }
        self.print(&format!(
            "{}\n【服务器端】回复: {}\n{WAITING}",
            Escaped(&answer.before_substitution().to_string()),
            Escaped(&answer.to_string()),
        ));
        Ok(())
    }
}

/// What `--limit` takes: a number, or `off`.
fn answers(text: &str) -> Result<Option<u32>, &'static str> {
    match text.parse() {
        Ok(answers) if answers > 0 => Ok(Some(answers)),
        Err(_) if text == "off" => Ok(None),
        _ => Err("not a number of answers per second, 1 or more, and not `off`"),
    }
}

fn rate_limit(answers: u32) -> Result<RateLimit, Failure> {
    RateLimit::builder()
        .answers_per_second(answers)
        .bytes_per_second(u64::from(answers) * 1_024)
        .build()
        .map_err(|error| Failure::Usage(format!("bad limit: {error}")))
}

fn why_not_bound(address: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "the port is taken; end that program or choose another port (0: any free one)"
        }
        ErrorKind::PermissionDenied => "that port is not for everyone; choose one above 1023",
        ErrorKind::AddrNotAvailable => "this machine has no such address; try 127.0.0.1 or 0.0.0.0",
        _ => return format!("cannot listen on {address}: {}", chain(error)),
    };
    format!("cannot listen on {address}: {advice}")
}

/// The default of the crate's own rate limit.
const DEFAULT_LIMIT: u32 = 100;
const WAITING: &str = "waiting for message...\n";
/// How often the program looks whether a signal came.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// How long the server may take to answer what it has received, once it was asked to end.
const GRACE: Duration = Duration::from_millis(700);
