//! `rejoinder ask`: sends messages to 小Zurich, or to any server of the ctime protocol.

mod asker;
mod editor;
mod input;
mod output;

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::{self, ExitCode};
use std::str;
use std::time::{Duration, Instant};

use rejoinder::codec::Ctime;
use rejoinder::udp::{UdpConnector, UdpOptions};
use rejoinder::{Client, RequestError};

use self::asker::{Asker, Keys};
use self::input::{Input, Next};
use self::output::{Answer, Output, Problem, Shape};
use crate::program::address::{DEFAULT, command, looks_like_an_address, reachable, resolve};
use crate::program::{CLIENT_BYTES, Failure, chain, has_memory, warn, zone};

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
    /// If the server's name has several addresses, it is the time for all of them.
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
    match resolve(&server, DEFAULT.port()) {
        Ok(peers) if peers.iter().any(|peer| peer.port() == 0) => Err(Failure::Usage(format!(
            "no server has port 0, as in `{server}`"
        ))),
        Ok(peers) => talk(&peers, options.timeout, output, keys, &options.messages)
            .or_else(|failure| reported("io", failure)),
        Err(failure) => reported("no_address", failure),
    }
}

fn talk(
    peers: &[SocketAddr],
    timeout: Duration,
    output: Output,
    keys: Keys,
    messages: &[OsString],
) -> Result<ExitCode, Failure> {
    let mut session = Session {
        peers: peers.iter().copied().map(reachable).collect(),
        client: None,
        keys,
        timeout,
        output,
        unanswered: false,
    };
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
    /// The addresses of the server's name, first the one to ask first: `localhost` is often both `::1`
    /// and `127.0.0.1`, and a server may listen at one of them only. There is at least one.
    peers: Vec<SocketAddr>,
    /// For the first of them, once it has answered.
    client: Option<Asker>,
    keys: Keys,
    timeout: Duration,
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
        match self.answer(message) {
            Ok(answer) => self.output.answer(message, &answer),
            Err(problem) => self.fail(Some(message), &problem),
        }
    }

    fn fail(&mut self, message: Option<&[u8]>, problem: &Problem) -> io::Result<()> {
        self.unanswered = true;
        self.output.problem(message, Some(self.peers[0]), problem)
    }

    fn answer(&mut self, message: &[u8]) -> Result<Answer, Problem> {
        let message = str::from_utf8(message).map_err(|error| Problem {
            kind: "message_not_utf8",
            message: format!("the message is not UTF-8: {error}"),
        })?;
        let deadline = Instant::now() + self.timeout;
        for others in (0..self.peers.len()).rev() {
            let error = match self.ask_first(message, deadline, others) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.client = None;
            if others == 0 || !may_be_elsewhere(&error) || Instant::now() >= deadline {
                return Err(problem(&error));
            }
            self.peers.rotate_left(1);
        }
        unreachable!("a name has at least one address")
    }

    /// Asks the first address. One that has not answered yet shares the time with the `others`.
    fn ask_first(
        &mut self,
        message: &str,
        deadline: Instant,
        others: usize,
    ) -> Result<Answer, RequestError> {
        let peer = self.peers[0];
        let asked = Instant::now();
        let mut first = match self.client.take() {
            Some(client) => client,
            None if others == 0 && self.peers.len() == 1 => self.connect(self.timeout)?,
            None => {
                let left = deadline.saturating_duration_since(asked);
                let share = left / u32::try_from(others + 1).unwrap_or(u32::MAX);
                self.connect(share.max(SHORTEST))?
            }
        };
        let frame = match first.request(message) {
            // So the OS refuses a broadcast address, which only it knows as one.
            Err(RequestError::Connect { source, .. })
                if source.kind() == ErrorKind::PermissionDenied && peer.is_ipv4() =>
            {
                let left = deadline.saturating_duration_since(asked);
                return self.ask_broadcast(message, left);
            }
            result => result?,
        };
        let answer = Answer::new(peer, &frame, asked.elapsed());
        self.client = Some(match self.peers.len() {
            1 => first,
            // All the time is its own from now on.
            _ => self.connect(self.timeout)?,
        });
        Ok(answer)
    }

    /// Asks all who hear the first address, and takes the first response.
    fn ask_broadcast(&self, message: &str, time: Duration) -> Result<Answer, RequestError> {
        let asked = Instant::now();
        let mut client = self.connect_with(time, UdpOptions::new().broadcast(true))?;
        let mut responses = client.discover(message, time)?;
        match responses.next_response() {
            Some((peer, frame)) => Ok(Answer::new(peer, &frame?, asked.elapsed())),
            None => Err(RequestError::TimedOut {
                peer: self.peers[0],
                after: asked.elapsed(),
                sends: 1,
                ignored: 0,
            }),
        }
    }

    /// A client for the first address.
    fn connect(&self, timeout: Duration) -> Result<Asker, RequestError> {
        #[cfg(feature = "dtls")]
        if let Some(asker) = self.keys.connect(self.peers[0], timeout)? {
            return Ok(asker);
        }
        let Keys { .. } = self.keys;
        let plain = self.connect_with(timeout, UdpOptions::new())?;
        Ok(Asker::Plain(Box::new(plain)))
    }

    fn connect_with(
        &self,
        timeout: Duration,
        udp: UdpOptions,
    ) -> Result<Client<UdpConnector, Ctime>, RequestError> {
        let peer = self.peers[0];
        Client::builder(Ctime::local())
            .timeout(timeout)
            .fail_when_unreachable(true)
            .udp_options(udp)
            .connect(peer)
            .map_err(|error| RequestError::Connect {
                peer,
                source: error.into(),
            })
    }
}

/// Whether the server may well listen at another address of its name.
fn may_be_elsewhere(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::NobodyListening { .. }
            | RequestError::Unreachable { .. }
            | RequestError::Connect { .. }
            | RequestError::TimedOut { .. }
    )
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

/// The least time for one of several addresses.
const SHORTEST: Duration = Duration::from_millis(1);
