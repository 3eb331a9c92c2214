//! 小Zurich on a UDP socket:
//!
//! ```text
//! cargo run --example server
//! ```
//!
//! Standard output is the transcript of the original program, standard error is everything else.

#[path = "server/manager.rs"]
mod manager;
#[path = "support/program.rs"]
mod program;
#[path = "server/rates.rs"]
pub(crate) mod rates;
#[path = "server/rules.rs"]
mod rules;
#[path = "server/sockets.rs"]
mod sockets;
#[path = "server/transcript.rs"]
pub(crate) mod transcript;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use program::{Failure, chain, command, complain, reachable, say, value};
use rates::Rates;
use rejoinder::Server;
use rejoinder::bot::zurich;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::gate::RateLimit;
use rules::RulesFile;
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::consts::{SIGINT, SIGTERM};
use sockets::{Listening, Sockets};
use transcript::Transcribed;

const HELP: &str = "\
小Zurich, the robot that turns a question into a compliment, on UDP.

Usage: server [ADDRESS] [--workers N] [--rules FILE] [--limit ANSWERS]
              [--stats SECONDS] [--quiet]

Arguments:
  ADDRESS    where to listen: HOST:PORT, or only one of them.
             Port 0 is any free port, 0.0.0.0 all of IPv4, [::] all of IPv6 and IPv4.
             Default: 127.0.0.1:8888, or the sockets that a service manager has opened
             (a .socket unit of systemd, or systemd-socket-activate --datagram)

Options:
  -w, --workers N        how many threads answer, each on a socket of its own; more than one
                         needs Linux. Default: 1, or one for each socket that was opened already
  -r, --rules FILE       a robot of other rules, from a file of TOML; SIGHUP has it read again
  -l, --limit ANSWERS    how many answers per second, and KiB, any one network gets (an IPv4 /24,
                         an IPv6 /56), or `off`. Default: off on a loopback address, otherwise 100,
                         because the sender of a datagram is easily forged
  -s, --stats SECONDS    every so often, one line of rates on standard error; 0.1 to 86400
  -q, --quiet            no transcript on standard output
  -h, --help             this text

Ctrl-C ends it. SIGUSR1 makes it print its counters.
";

fn main() -> ExitCode {
    program::end(run())
}

fn run() -> Result<ExitCode, Failure> {
    let Some(options) = Options::parse()? else {
        return Ok(program::help(HELP));
    };
    // First of all, so that no signal finds the program half started.
    let signals = Signals::register()?;

    let rules = options.rules.map(RulesFile::new);
    let robot = match &rules {
        Some(rules) => rules.load().map_err(Failure::RunTime)?,
        None => zurich(),
    };
    let sockets = Sockets::find(options.address, options.workers)?;
    let is_local = sockets.are_local()?;
    let limit = match options.limit {
        Limit::Answers(answers) => Some(answers),
        Limit::ForOthers if !is_local => Some(DEFAULT_LIMIT),
        Limit::ForOthers | Limit::Off => None,
    };
    let builder = Server::builder(Ctime::local()).gate(limit.map(rate_limit).transpose()?);
    let Listening { server, addresses } = sockets.serve(builder)?;
    let handle = server.handle();

    let status = listening_line(&addresses, options.workers.unwrap_or(1));
    say(format_args!("{status} (end with Ctrl-C)"));
    let client = command("client", "--server ", reachable(addresses[0]));
    say(format_args!("start the client with: {client}"));
    if let Some(rules) = &rules {
        say(Escaped(&format!("answering by {rules}")));
        rules.warn_of(&robot);
    }
    if let Some(answers) = limit {
        say(format_args!(
            "giving any one network {answers} answers, and {answers} KiB, a second at most (change it \
             with --limit)"
        ));
    } else if !is_local {
        say("answering without a limit: whoever forges a sender can use this against others");
    }
    manager::ready(&status);

    let robot = Transcribed::new(robot, !options.quiet);
    let serving = robot.clone();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more only if the program is ending.
        let _ = done.send(server.serve(serving));
    });

    let mut rates = options.stats.map(|every| Rates::new(every, Instant::now()));
    let result = loop {
        let wait = rates.as_ref().map(|rates| rates.wait(Instant::now()));
        match ended.recv_timeout(SIGNAL_CHECK.min(wait.unwrap_or(SIGNAL_CHECK))) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Timeout) if !signals.end() => {
                if signals.asked_for_stats() {
                    say(handle.stats());
                }
                if let Some(rates) = &mut rates
                    && let Some(line) = rates.tell(Instant::now(), || handle.stats())
                {
                    say(line);
                }
                if signals.asked_to_reload() {
                    manager::reloading();
                    manager::ready(&reload(rules.as_ref(), &robot));
                }
            }
            Err(_) => {
                manager::stopping();
                handle.shutdown();
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

/// What the program was asked to do.
#[derive(Default)]
struct Options {
    address: Option<String>,
    workers: Option<usize>,
    rules: Option<OsString>,
    limit: Limit,
    stats: Option<Duration>,
    quiet: bool,
}

/// How many answers a second any one network gets.
#[derive(Default)]
enum Limit {
    /// The default number, if others than this machine can ask.
    #[default]
    ForOthers,
    Answers(u32),
    Off,
}

impl Options {
    /// `None` if it was only asked for help.
    fn parse() -> Result<Option<Self>, Failure> {
        let mut options = Self::default();
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(None),
                Short('q') | Long("quiet") => options.quiet = true,
                Short('w') | Long("workers") => {
                    options.workers = Some(value("--workers", &mut args, workers)?);
                }
                Short('r') | Long("rules") => options.rules = Some(args.value()?),
                Short('l') | Long("limit") => {
                    options.limit = value("--limit", &mut args, limit)?;
                }
                Short('s') | Long("stats") => {
                    options.stats = Some(value("--stats", &mut args, interval)?);
                }
                Value(value) if options.address.is_none() => {
                    options.address = Some(value.string()?);
                }
                _ => return Err(arg.unexpected().into()),
            }
        }
        Ok(Some(options))
    }
}

/// What signals have asked for.
struct Signals {
    end: Arc<AtomicBool>,
    stats: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    /// Whether the program began on a terminal.
    on_terminal: bool,
}

impl Signals {
    fn register() -> io::Result<Self> {
        let signals = Self {
            end: Arc::default(),
            stats: Arc::default(),
            reload: Arc::default(),
            on_terminal: is_on_terminal(),
        };
        let all = [
            (SIGINT, &signals.end),
            (SIGTERM, &signals.end),
            #[cfg(unix)]
            (SIGUSR1, &signals.stats),
            #[cfg(unix)]
            (SIGHUP, &signals.reload),
        ];
        for (signal, flag) in all {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        Ok(signals)
    }

    /// Whether the program is to end. A hangup asks for it too, if the terminal that the program
    /// began on is gone.
    fn end(&self) -> bool {
        let hung_up = self.reload.load(Ordering::Relaxed) && self.on_terminal && !is_on_terminal();
        hung_up || self.end.load(Ordering::Relaxed)
    }

    fn asked_for_stats(&self) -> bool {
        self.stats.swap(false, Ordering::Relaxed)
    }

    fn asked_to_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}

fn is_on_terminal() -> bool {
    io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// Reads the rules again, and says what became of it. Rules that cannot be used change nothing.
fn reload(rules: Option<&RulesFile>, robot: &Transcribed) -> String {
    let Some(rules) = rules else {
        let status = "nothing to read again: started without --rules";
        say(status);
        return status.to_owned();
    };
    match rules.load() {
        Ok(new) => {
            rules.warn_of(&new);
            robot.swap(new);
            let status = format!("answering by {rules}");
            say(Escaped(&status));
            status
        }
        Err(problem) => {
            complain(&problem);
            say("answering by the rules of before");
            format!("answering by the rules of before: {problem}")
        }
    }
}

fn listening_line(addresses: &[SocketAddr], workers: usize) -> String {
    let shown: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    let with = match workers {
        workers if workers > 1 && addresses.len() == 1 => format!(" with {workers} workers"),
        _ => String::new(),
    };
    format!("listening on {}{with}", shown.join(" and "))
}

fn workers(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|workers| (1..=MAX_WORKERS).contains(workers))
        .ok_or_else(|| format!("not a number from 1 to {MAX_WORKERS}"))
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(time))
        .ok_or("not a number of seconds from 0.1 to 86400")
}

fn limit(text: &str) -> Result<Limit, &'static str> {
    match text.parse() {
        Ok(answers) if answers > 0 => Ok(Limit::Answers(answers)),
        Err(_) if text == "off" => Ok(Limit::Off),
        _ => Err("neither a number of answers per second, 1 to 4294967295, nor `off`"),
    }
}

fn rate_limit(answers: u32) -> Result<RateLimit, Failure> {
    RateLimit::builder()
        .answers_per_second(answers)
        .bytes_per_second(u64::from(answers) * 1_024)
        .build()
        .map_err(|error| Failure::Usage(format!("bad limit: {error}")))
}

/// The default of the crate's own rate limit.
const DEFAULT_LIMIT: u32 = 100;
/// Far more than there are processors. Each takes some megabytes.
const MAX_WORKERS: usize = 1_024;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);
/// How often the program looks whether a signal came.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// How long the server may take to answer what it has received, once it was asked to end.
const GRACE: Duration = Duration::from_millis(700);
