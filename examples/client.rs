//! Asks 小Zurich, or any server of the ctime protocol:
//!
//! ```text
//! cargo run --example client
//! cargo run --example client -- 你好吗？ 你觉得我是最帅最帅的吗？
//! ```

#[path = "support/program.rs"]
mod program;

use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::str;
use std::time::Duration;

use lexopt::prelude::*;
use program::{DEFAULT, Failure, chain, command, complain, reachable, resolve};
use rejoinder::{Client, ClientBuilder, Ctime, Escaped, RequestError, UdpOptions};

const HELP: &str = "\
Sends each MESSAGE to a server of the ctime protocol and prints the response.

Usage: client [--server ADDRESS] [--timeout SECONDS] [--] [MESSAGE]...

Without a MESSAGE, every line of standard input is one, up to an empty line or the end.

Arguments:
  MESSAGE    what to say; after --, it may begin with a dash

Options:
  -s, --server ADDRESS     whom to ask: HOST:PORT, or only one of them.
                           Default: 127.0.0.1:8888
  -t, --timeout SECONDS    how long to wait for each response, more than 0, at most 86400.
                           Default: 5
  -h, --help               this text

The exit code is 0 if every message was answered, 1 if one was not, 2 for bad arguments.
";

fn main() -> ExitCode {
    program::end(run())
}

fn run() -> Result<ExitCode, Failure> {
    let mut server = DEFAULT.to_string();
    let mut timeout = Duration::from_secs(5);
    let mut messages = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(program::help(HELP)),
            Short('s') | Long("server") => server = args.value()?.string()?,
            Short('t') | Long("timeout") => timeout = args.value()?.parse_with(seconds)?,
            Value(message) => messages.push(message),
            _ => return Err(arg.unexpected().into()),
        }
    }

    let peers = resolve(&server)?;
    if peers.iter().any(|peer| peer.port() == 0) {
        return Err(Failure::Usage(format!(
            "nobody can be asked at port 0, as in `{server}`"
        )));
    }
    let clients = peers.into_iter().map(|peer| {
        ClientBuilder::new(Ctime::local())
            .timeout(timeout)
            .fail_when_unreachable(true)
            .udp(reachable(peer))
    });
    let mut session = Session {
        clients: clients.collect::<Result<_, _>>()?,
        unanswered: false,
    };
    let result = if messages.is_empty() {
        session.converse()
    } else {
        session.ask_all(&messages)
    };
    match result {
        // Whoever read the answers has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(ExitCode::from(u8::from(session.unanswered)))
}

struct Session {
    /// One for each address of the server's name: `localhost` is often both `::1` and `127.0.0.1`,
    /// and a server may listen at one of them only.
    clients: Vec<Client<UdpOptions, Ctime>>,
    unanswered: bool,
}

impl Session {
    fn ask_all(&mut self, messages: &[OsString]) -> io::Result<()> {
        messages
            .iter()
            .try_for_each(|message| self.ask(message.as_encoded_bytes()))
    }

    /// Asks line by line.
    fn converse(&mut self) -> io::Result<()> {
        let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut line = Vec::new();
        loop {
            if prompts {
                write!(io::stdout(), "【客户端】输入：")?;
                io::stdout().flush()?;
            }
            line.clear();
            let read = io::stdin().lock().read_until(b'\n', &mut line);
            let read =
                read.map_err(|error| io::Error::other(format!("standard input: {error}")))?;
            if read == 0 && prompts {
                // The cursor still stands behind the prompt.
                writeln!(io::stdout())?;
            }
            let message = line.strip_suffix(b"\n").unwrap_or(&line);
            let message = message.strip_suffix(b"\r").unwrap_or(message);
            if message.is_empty() {
                return Ok(());
            }
            self.ask(message)?;
        }
    }

    /// Prints the answer, or why there is none.
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        match self.answer(message) {
            Ok(frame) => writeln!(io::stdout(), "{}", Escaped(&frame)),
            Err(problem) => {
                self.unanswered = true;
                complain(problem);
                Ok(())
            }
        }
    }

    fn answer(&mut self, message: &[u8]) -> Result<String, String> {
        let message = str::from_utf8(message)
            .map_err(|error| format!("the message is not UTF-8: {error}"))?;
        let mut others = self.clients.len();
        loop {
            others -= 1;
            let answer = self.clients[0].request(message);
            match answer.map(|frame| frame.to_string()) {
                Ok(frame) => return Ok(frame),
                Err(
                    RequestError::NobodyListening { .. }
                    | RequestError::Unreachable { .. }
                    | RequestError::Connect { .. },
                ) if others > 0 => {
                    self.clients.rotate_left(1);
                }
                Err(error @ RequestError::NobodyListening { peer }) => {
                    let server = command("server", "", peer);
                    return Err(format!("{error}; start the server with: {server}"));
                }
                Err(error) => return Err(chain(&error)),
            }
        }
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| (Duration::from_nanos(1)..=Duration::from_secs(86_400)).contains(timeout))
        .ok_or("not a number of seconds above 0 and up to 86400")
}
