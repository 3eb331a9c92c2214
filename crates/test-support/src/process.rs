//! Programs as child processes: found, started, watched, and never left behind.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, iter, mem};

/// Long enough for the slowest machine. Nothing waits so long unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program of an example, as `cargo test` has built it before any test runs.
///
/// `cargo test --test NAME` does not build the examples of its package; a program that is missing, or older than
/// its sources, is an error.
pub fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile
        .join("examples")
        .join(format!("{name}{}", env::consts::EXE_SUFFIX));
    let built = modified(&program).unwrap_or_else(|| {
        panic!(
            "{} is missing: run `cargo build --workspace --examples` first",
            program.display()
        )
    });
    // `program: source source …`, as make reads it.
    let sources = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let stale = sources
        .split_whitespace()
        .skip(1)
        .find(|source| modified(Path::new(source)).is_some_and(|changed| changed > built));
    if let Some(source) = stale {
        panic!(
            "{} is older than {source}: run `cargo build --workspace --examples` first",
            program.display()
        );
    }
    Command::new(program)
}

/// The words of a command line, to be the end of another one.
pub fn words(command: &Command) -> impl Iterator<Item = &OsStr> {
    iter::once(command.get_program()).chain(command.get_args())
}

/// Starts the server on a free port of an address, `127.0.0.1:0` for example; also where it
/// listens.
pub fn start_server(address: &str, command: &mut Command) -> (Program, SocketAddr) {
    let mut server = Program::start(command.arg(address));
    let listening = server.listening();
    (server, listening)
}

/// Python 3 with a script of this package.
pub fn python(script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(script);
    let mut command = Command::new("python3");
    command.arg(path);
    command
}

/// A running child process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: Option<Captured>,
    stderr: Captured,
}

/// What a program that ended leaves.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Ended {
    /// `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Program {
    /// Starts a program with empty input, and collects what it writes.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, b"")
    }

    /// Starts a program with an input.
    pub fn start_with_input(command: &mut Command, input: &[u8]) -> Self {
        let (mut program, stdout) = Self::start_unread(command, input);
        program.stdout = Some(Captured::new(stdout));
        program
    }

    /// Starts a program whose standard output is left to the caller, to read, not to read or to
    /// close.
    pub fn start_unread(command: &mut Command, input: &[u8]) -> (Self, ChildStdout) {
        let (mut program, stdout) = Self::spawn(command, Stdio::piped());
        let mut stdin = program.child.stdin.take().unwrap();
        let input = input.to_owned();
        // It is no error if the program does not read it to the end.
        thread::spawn(move || stdin.write_all(&input));
        (program, stdout)
    }

    /// Starts a program whose standard input is a file or a socket, and collects what it writes.
    pub fn start_on(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let (mut program, stdout) = Self::spawn(command, stdin.into());
        program.stdout = Some(Captured::new(stdout));
        program
    }

    fn spawn(command: &mut Command, stdin: Stdio) -> (Self, ChildStdout) {
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            let name = command.get_program().display();
            panic!("{name} cannot be started, and this test needs it: {error}")
        });
        let stdout = child.stdout.take().unwrap();
        let program = Self {
            stdout: None,
            stderr: Captured::new(child.stderr.take().unwrap()),
            child,
        };
        (program, stdout)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What follows `prefix` on the first line of standard error that begins with it.
    pub fn wait_for_stderr(&mut self, prefix: &str) -> String {
        self.wait_for_stderr_again(prefix, 1)
    }

    /// What follows `prefix` on the line that is the `nth` to begin with it, from 1.
    pub fn wait_for_stderr_again(&mut self, prefix: &str, nth: usize) -> String {
        let started = Instant::now();
        loop {
            // Asked first, so that what it wrote last is seen.
            let is_over = self.stderr.is_over();
            let stderr = self.stderr.so_far();
            let complete = stderr.rfind('\n').map_or("", |end| &stderr[..end]);
            let mut rests = complete
                .lines()
                .filter_map(|line| line.strip_prefix(prefix));
            if let Some(rest) = rests.nth(nth - 1) {
                return rest.to_owned();
            }
            assert!(
                !is_over && started.elapsed() < PATIENCE,
                "waiting for `{prefix}`: {:?}, {stderr}",
                self.child.try_wait()
            );
            thread::sleep(POLL);
        }
    }

    /// Where a server says that it listens.
    pub fn listening(&mut self) -> SocketAddr {
        let line = self.wait_for_stderr("listening on ");
        line.split(' ').next().unwrap().parse().unwrap()
    }

    /// Sends a signal: `INT`, `TERM`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until it ends by itself.
    pub fn wait_until_ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "still running: {}",
                self.stderr.so_far()
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until it ends by itself, and returns what it left.
    pub fn finish(mut self) -> Ended {
        let status = self.wait_until_ended();
        Ended {
            status,
            stdout: self.stdout.take().map(Captured::all).unwrap_or_default(),
            stderr: mem::take(&mut self.stderr).all(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is just as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream that a thread of its own reads to its end, so that no writer blocks.
#[derive(Debug, Default)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn new(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                shared.lock().unwrap().extend_from_slice(&chunk[..read]);
            }
        });
        Self {
            bytes,
            reader: Some(reader),
        }
    }

    /// Whether nothing more will come.
    fn is_over(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn all(self) -> String {
        if let Some(reader) = self.reader {
            reader.join().unwrap();
        }
        let bytes = mem::take(&mut *self.bytes.lock().unwrap());
        String::from_utf8(bytes).expect("the programs write UTF-8")
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

const POLL: Duration = Duration::from_millis(5);
