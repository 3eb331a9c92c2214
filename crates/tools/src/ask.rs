//! Asks 小Zurich, or any server of the ctime protocol:
//!
//! ```text
//! rejoinder ask
//! rejoinder ask 你好吗？ 你觉得我是最帅最帅的吗？
//! rejoinder ask --json 你好吗？
//! ```

mod editor;
mod input;
mod output;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::{self, ExitCode};
use std::str;
use std::time::{Duration, Instant};

use crate::program::{DEFAULT, Failure, chain, command, reachable, resolve, value};
use input::{Input, Next};
use lexopt::prelude::*;
use output::{Answer, Output, Problem, Shape};
use rejoinder::codec::Ctime;
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, RequestError};

const HELP: &str = "\
Sends each MESSAGE to a server of the ctime protocol and prints the response.

Usage: rejoinder ask [OPTION]... [--] [MESSAGE]...

Without a MESSAGE, every line of standard input is one, up to an empty line or the end. On a
terminal, lines can be edited, the arrow keys bring earlier ones back, what is pasted at once is
one message, and Ctrl-C ends.

Arguments:
  MESSAGE    what to say; after --, it may begin with a dash

Options:
  -s, --server ADDRESS     whom to ask: HOST:PORT, or only one of them.
                           Default: 127.0.0.1:8888
  -t, --timeout SECONDS    how long to wait for each response, more than 0, at most 86400.
                           Default: 5
      --text               print the text alone, without the frame's header
      --time               print the server's time in ISO 8601, by how much it is ahead of the
                           time here (zones included), and the text
      --rtt                print the round-trip time first; it includes what was sent again
      --json               print an object for each message, with all of that, on a line
  -h, --help               this text

With --json, an object has `message`, `server`, and either `text`, `time`, `clock_ahead_s` and
`round_trip_us`, or `error` with `kind` (a word that stays the same) and `message`.

The exit code is 0 if every message was answered, 1 if one was not, 2 for bad arguments.
";

pub(crate) fn run(mut args: lexopt::Parser) -> Result<ExitCode, Failure> {
    let mut server = DEFAULT.to_string();
    let mut timeout = Duration::from_secs(5);
    let mut output = Output::default();
    let mut messages = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(crate::program::help(HELP)),
            Short('s') | Long("server") => server = args.value()?.string()?,
            Short('t') | Long("timeout") => timeout = value("--timeout", &mut args, seconds)?,
            // The text is in both.
            Long("text") if output.shape == Shape::TimeAndText => {}
            Long("text") => output.shape = Shape::Text,
            Long("time") => output.shape = Shape::TimeAndText,
            Long("rtt") => output.round_trip = true,
            Long("json") => output.json = true,
            Value(message) => messages.push(message),
            _ => return Err(arg.unexpected().into()),
        }
    }

    // A script reads one kind of line only.
    let told = |kind, failure| match failure {
        Failure::RunTime(message) if output.json => {
            output.problem(None, None, &Problem { kind, message })?;
            Ok(ExitCode::FAILURE)
        }
        failure => Err(failure),
    };
    match resolve(&server) {
        Ok(peers) if peers.iter().any(|peer| peer.port() == 0) => Err(Failure::Usage(format!(
            "nobody can be asked at port 0, as in `{server}`"
        ))),
        Ok(peers) => {
            talk(&peers, timeout, output, &messages).or_else(|failure| told("io", failure))
        }
        Err(failure) => told("no_address", failure),
    }
}

fn talk(
    peers: &[SocketAddr],
    timeout: Duration,
    output: Output,
    messages: &[OsString],
) -> Result<ExitCode, Failure> {
    let clients = peers.iter().map(|&peer| {
        Client::builder(Ctime::local())
            .timeout(timeout)
            .fail_when_unreachable(true)
            .connect(reachable(peer))
    });
    let mut session = Session {
        clients: clients.collect::<Result<_, _>>()?,
        output,
        unanswered: false,
    };
    let result = if messages.is_empty() {
        session.converse()
    } else {
        session.ask_all(messages)
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
    clients: Vec<Client<UdpConnector, Ctime>>,
    output: Output,
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
        let mut input = Input::new()?;
        loop {
            match input.next()? {
                Next::Message(message) => self.ask(&message)?,
                Next::End => return Ok(()),
                Next::Interrupted => die_of_interrupt(),
            }
        }
    }

    /// Prints the answer, or why there is none.
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        match self.answer(message) {
            Ok(answer) => self.output.answer(message, &answer),
            Err(problem) => {
                self.unanswered = true;
                let asked = self.clients[0].peer();
                self.output.problem(Some(message), Some(asked), &problem)
            }
        }
    }

    fn answer(&mut self, message: &[u8]) -> Result<Answer, Problem> {
        let message = str::from_utf8(message).map_err(|error| Problem {
            kind: "message_not_utf8",
            message: format!("the message is not UTF-8: {error}"),
        })?;
        let mut others = self.clients.len();
        loop {
            others -= 1;
            let server = self.clients[0].peer();
            let asked = Instant::now();
            let error = match self.clients[0].request(message) {
                Ok(frame) => return Ok(Answer::new(server, &frame, asked.elapsed())),
                Err(error) => error,
            };
            let elsewhere = matches!(
                error,
                RequestError::NobodyListening { .. }
                    | RequestError::Unreachable { .. }
                    | RequestError::Connect { .. }
            );
            if !elsewhere || others == 0 {
                return Err(problem(&error));
            }
            self.clients.rotate_left(1);
        }
    }
}

fn problem(error: &RequestError) -> Problem {
    let kind = match error {
        RequestError::TimedOut { .. } => "timed_out",
        RequestError::Malformed { .. } => "malformed_answer",
        RequestError::NobodyListening { .. } => "nobody_listening",
        RequestError::Unreachable { .. } => "unreachable",
        RequestError::Connect { .. } => "cannot_connect",
        RequestError::NotSent { .. } => "not_sent",
        RequestError::Encode(_) => "message_not_allowed",
        RequestError::TooLong(_) => "message_too_long",
        RequestError::WindowFull { .. } => "too_many_unanswered",
        _ => "other",
    };
    let mut message = chain(error);
    if let RequestError::NobodyListening { peer } = error
        && peer.ip().is_loopback()
    {
        let server = command("serve", "", *peer);
        message = format!("{message}; start the server with: {server}");
    }
    Problem { kind, message }
}

/// Ends as Ctrl-C ends a program that knows nothing of it, so that a shell's loop ends too.
fn die_of_interrupt() -> ! {
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGINT);
    // What shells make of such an end.
    process::exit(130)
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| (Duration::from_nanos(1)..=Duration::from_secs(86_400)).contains(timeout))
        .ok_or("not a number of seconds above 0 and up to 86400")
}
