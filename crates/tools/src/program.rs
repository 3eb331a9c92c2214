//! What all the programs share: how they end, and what they print where.

pub mod address;
pub(crate) mod http;
pub mod input;
pub(crate) mod lookup;
pub(crate) mod manager;
pub mod output;
pub(crate) mod signals;
pub(crate) mod sockets;
pub(crate) mod stream;
pub(crate) mod zone;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rejoinder::escape::Escaped;

use self::output::{Output, Stream};
pub(crate) use self::stream::{print, write_all};

/// Why a program ends before its work is done.
#[derive(Debug)]
pub enum Failure {
    /// It was called wrongly: exit code 2.
    Usage(String),
    /// It was called well, and could not do it: exit code 1.
    RunTime(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::RunTime(chain(&error))
    }
}

impl From<rejoinder::ConfigError> for Failure {
    fn from(error: rejoinder::ConfigError) -> Self {
        Self::RunTime(chain(&error))
    }
}

impl From<Box<dyn Error>> for Failure {
    fn from(error: Box<dyn Error>) -> Self {
        Self::RunTime(chain(&*error))
    }
}

/// Ends a program: at most one line about why, and what is still queued.
pub fn end(result: Result<ExitCode, Failure>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(Failure::Usage(problem)) => {
            complain(format!("{problem}; see --help"));
            ExitCode::from(2)
        }
        Err(Failure::RunTime(problem)) => {
            complain(problem);
            ExitCode::FAILURE
        }
    };
    if let Some(status) = STATUS.get() {
        status.drain(GRACE);
    }
    code
}

/// Prints a text to standard output, as `--help` does.
pub(crate) fn show(text: &str) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                complain(error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Reports what went wrong, in one line whatever the text.
pub(crate) fn complain(problem: impl Display) {
    let problem = problem.to_string();
    if IS_JSON.load(Ordering::Relaxed) {
        tracing::error!(target: TARGET, "{}", Escaped(&problem));
    } else {
        write(format!("error: {}\n", Escaped(&problem)));
    }
}

/// Reports something that is not as it should be, and ends nothing. It is one line whatever the text.
pub fn warn(problem: impl Display) {
    let problem = problem.to_string();
    if IS_JSON.load(Ordering::Relaxed) {
        tracing::warn!(target: TARGET, "{}", Escaped(&problem));
    } else {
        write(format!("warning: {}\n", Escaped(&problem)));
    }
}

/// Writes a line to standard error.
pub(crate) fn say(line: impl Display) {
    if IS_QUIET.load(Ordering::Relaxed) {
        return;
    }
    if IS_JSON.load(Ordering::Relaxed) {
        tracing::info!(target: TARGET, "{line}");
    } else {
        write(format!("{line}\n"));
    }
}

fn write(line: String) {
    match STATUS.get() {
        Some(status) => status.write(line),
        // Before a service has started, and in programs that are none.
        None => drop(write_all(io::stderr(), line.as_bytes())),
    }
}

/// From now on no thread waits for standard error: its lines go through a queue.
pub(crate) fn queue_status() -> Result<Output, Failure> {
    let output = Output::start(Stream::Stderr, |_| {})
        .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))?;
    Ok(STATUS.get_or_init(|| output).clone())
}

/// Whether [`say`] is to say anything.
pub(crate) fn status_is_wanted(yes: bool) {
    IS_QUIET.store(!yes, Ordering::Relaxed);
}

/// From now on [`say`], [`warn`] and [`complain`] are events of `tracing`, whose subscriber prints JSON.
pub(crate) fn status_is_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Fails if so much memory is not to be had at all. Where it runs out later, the program is aborted with a
/// line of the runtime's: this is for what the arguments ask for.
pub(crate) fn has_memory(bytes: usize, what: impl Display) -> Result<(), Failure> {
    let mut space = Vec::<u8>::new();
    space.try_reserve_exact(bytes).map_err(|_| {
        Failure::RunTime(format!(
            "no memory for {what}: some {} MiB are needed",
            bytes >> 20
        ))
    })
}

/// What the batches of a client take, and its stack.
pub(crate) const CLIENT_BYTES: usize = 8 << 20;

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

static STATUS: OnceLock<Output> = OnceLock::new();
static IS_JSON: AtomicBool = AtomicBool::new(false);
static IS_QUIET: AtomicBool = AtomicBool::new(false);
/// Of the events that are the program's own.
const TARGET: &str = "rejoinder::program";
/// How long a program waits for what it has queued, when it ends.
pub(crate) const GRACE: Duration = Duration::from_millis(700);
