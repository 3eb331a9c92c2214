//! `rejoinder ask`: sends messages to 小Zurich, or to any server of the ctime protocol.

mod asker;
mod editor;
mod input;
mod name;
mod output;
mod server;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::{self, ExitCode};
use std::str;
use std::time::Duration;

use rejoinder::RequestError;

use self::asker::Keys;
use self::input::{Input, Next};
use self::name::Name;
use self::output::{Output, Problem, Shape};
use self::server::{Server, may_be_elsewhere};
use crate::program::address::{Address, DEFAULT, command, looks_like_an_address, why_unanswered};
use crate::program::lookup::{by_the_os, resolve_within};
use crate::program::{CLIENT_BYTES, Failure, has_memory, warn, zone};

/// Send messages to a server of the ctime protocol and print the responses
///
/// Without a MESSAGE, every line of standard input is one. On a terminal, lines can be edited, the arrow
/// keys bring earlier ones back, what is pasted at once is one message, and an empty line or Ctrl-C ends.
/// In a pipe, empty lines are skipped.
///
/// With --json, an object has `message`, `server`, and either `text`, `time`, `clock_ahead_s` and
/// `round_trip_us`, or `error` with `kind` (a word that stays the same) and `message`.
///
/// The exit code is 0 if every message was answered, 1 if one was not, 2 for bad arguments.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Options {
    /// What to say; after --, it may begin with a dash
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
    /// The server: HOST:PORT, or only one of them. Default: 127.0.0.1:8888
    #[arg(short, long, value_name = "ADDRESS")]
    server: Option<String>,
    /// How long to wait for each response, more than 0, at most 86400
    ///
    /// If the server's name has several addresses, it is the time for all of them. Resolving the name takes at
    /// most as long before the first request.
    #[arg(
        short, long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
        default_value = "5"
    )]
    timeout: Duration,
    /// Print the text alone, without the frame's header
    #[arg(long)]
    text: bool,
    /// Print the server's time in ISO 8601, by how much it is ahead of the time here (zones included),
    /// and the text
    #[arg(long)]
    time: bool,
    /// Print the round-trip time first; it includes what was sent again
    #[arg(long)]
    rtt: bool,
    /// Print an object for each message, with all of that, on a line
    #[arg(long)]
    json: bool,
    /// Ask over DTLS, with the identity and the key of the first line of a file
    ///
    /// Its lines are `identity:hexkey`, as psktool writes them. None but its owner may read it. The server is
    /// `rejoinder serve --psk-file`.
    #[cfg(feature = "dtls")]
    #[arg(long, value_name = "FILE")]
    psk_file: Option<std::path::PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let output = Output {
        json: options.json,
        // The text is in both.
        shape: match options {
            Options { time: true, .. } => Shape::TimeAndText,
            Options { text: true, .. } => Shape::Text,
            _ => Shape::Frame,
        },
        round_trip: options.rtt,
    };
    if (options.time || options.json)
        && let Some(problem) = zone::problem()
    {
        warn(problem);
    }
    has_memory(CLIENT_BYTES, "a client")?;
    let server = options
        .server
        .clone()
        .unwrap_or_else(|| DEFAULT.to_string());
    if options.server.is_none()
        && let Some(message) = options
            .messages
            .first()
            .and_then(|message| message.to_str())
        && looks_like_an_address(message)
    {
        warn(format_args!(
            "`{message}` is sent as a message to {DEFAULT}; --server {message} asks that server"
        ));
    }

    #[cfg(feature = "dtls")]
    let keys = Keys::read(options.psk_file.as_deref())?;
    #[cfg(not(feature = "dtls"))]
    let keys = Keys;
    // A script reads one kind of line only.
    let reported = |kind, failure| match failure {
        Failure::RunTime(message) if output.json => {
            output.problem(None, None, &Problem { kind, message })?;
            Ok(ExitCode::FAILURE)
        }
        failure => Err(failure),
    };
    let address = Address::parse(&server, DEFAULT.port())?;
    if address.port() == 0 {
        return Err(Failure::Usage(format!(
            "no server has port 0, as in `{server}`"
        )));
    }
    match resolve_within(&address, options.timeout) {
        Ok(peers) => {
            let name = address.is_name().then(|| Name::new(by_the_os(&address)));
            let session = Session {
                server: Server::new(peers, name, keys, options.timeout),
                output,
                unanswered: false,
            };
            talk(session, &options.messages).or_else(|failure| reported("io", failure))
        }
        Err(failure) => reported("no_address", failure),
    }
}

fn talk(mut session: Session, messages: &[OsString]) -> Result<ExitCode, Failure> {
    let result = if messages.is_empty() {
        session.converse()
    } else {
        session.ask_all(messages)
    };
    match result {
        // The reader of the answers has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(ExitCode::from(u8::from(session.unanswered)))
}

struct Session {
    server: Server,
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
                Next::Message(message) => self.ask(message.as_bytes())?,
                Next::Bad(line, message) => {
                    let kind = match line {
                        Some(_) => "message_not_utf8",
                        None => "message_too_long",
                    };
                    self.fail(line.as_deref(), &Problem { kind, message })?;
                }
                Next::End => return Ok(()),
                Next::Interrupted => die_of_interrupt(),
            }
        }
    }

    /// Prints the answer, or why there is none.
    fn ask(&mut self, message: &[u8]) -> io::Result<()> {
        let text = match str::from_utf8(message) {
            Ok(text) => text,
            Err(error) => {
                let problem = Problem {
                    kind: "message_not_utf8",
                    message: format!("the message is not UTF-8: {error}"),
                };
                return self.fail(Some(message), &problem);
            }
        };
        match self.server.answer(text) {
            Ok(answer) => self.output.answer(message, &answer),
            Err(error) => {
                let problem = problem(&error, self.server.peers());
                match error.peer() {
                    Some(server) => self.fail_of(server, Some(message), &problem),
                    None => self.fail(Some(message), &problem),
                }
            }
        }
    }

    fn fail(&mut self, message: Option<&[u8]>, problem: &Problem) -> io::Result<()> {
        self.fail_of(self.server.peer(), message, problem)
    }

    fn fail_of(
        &mut self,
        server: SocketAddr,
        message: Option<&[u8]>,
        problem: &Problem,
    ) -> io::Result<()> {
        self.unanswered = true;
        self.output.problem(message, Some(server), problem)
    }
}

fn problem(error: &RequestError, peers: &[SocketAddr]) -> Problem {
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
    let mut message = why_unanswered(error);
    if let RequestError::NobodyListening { peer } = error
        && peer.ip().is_loopback()
    {
        let server = command("serve", "", *peer);
        message = format!("{message}; start the server with: {server}");
    } else if may_be_elsewhere(error) {
        let others: Vec<_> = peers
            .iter()
            .filter(|&&peer| error.peer() != Some(peer))
            .map(SocketAddr::to_string)
            .collect();
        let (shown, more) = others.split_at(others.len().min(SHOWN));
        if !shown.is_empty() {
            message = format!("{message}; nor was it answered at {}", shown.join(", "));
        }
        if !more.is_empty() {
            message = format!("{message} and {} more", more.len());
        }
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

/// An error names so many of a name's further addresses.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rejoinder::RequestError;

    #[test]
    fn an_error_names_the_other_addresses() {
        let addrs: Vec<SocketAddr> = (1..=6).map(|port| ([10, 0, 0, 1], port).into()).collect();
        let error = RequestError::NobodyListening { peer: addrs[1] };
        for (addrs, expected) in [
            (&addrs[1..2], "no service is listening at 10.0.0.1:2"),
            (
                &addrs[..3],
                "no service is listening at 10.0.0.1:2; nor was it answered at 10.0.0.1:1, 10.0.0.1:3",
            ),
            (
                &addrs[..],
                "no service is listening at 10.0.0.1:2; nor was it answered at 10.0.0.1:1, 10.0.0.1:3, \
                 10.0.0.1:4 and 2 more",
            ),
        ] {
            assert_eq!(super::problem(&error, addrs).message, expected);
        }
    }
}
