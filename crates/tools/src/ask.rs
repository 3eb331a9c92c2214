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
use rejoinder::{Client, RequestError, Wait};

use self::asker::{Asker, Keys, retry};
use self::input::{Input, Next};
use self::output::{Answer, Output, Problem, Shape};
use crate::program::address::{
    Address, DEFAULT, command, looks_like_an_address, reachable, why_unanswered,
};
use crate::program::lookup::{Lookup, Resolve, by_the_os, resolve_within};
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
            let session = Session::new(peers, name, keys, options.timeout, output);
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
    /// The addresses of the server's name: `localhost` is often both `::1` and `127.0.0.1`, and a server
    /// may listen at one of them only. There is at least one.
    peers: Vec<SocketAddr>,
    /// `None` for an IP address.
    name: Option<Name>,
    client: Option<Asker>,
    keys: Keys,
    timeout: Duration,
    output: Output,
    unanswered: bool,
}

/// The server's name, whose addresses may change.
struct Name {
    resolve: Resolve,
    /// One that has no result yet, and when it began: no other is started meanwhile.
    lookup: Option<(Instant, Lookup)>,
    /// When it was resolved, unless a request was answered since then.
    resolved: Option<Instant>,
    /// Whether the last request failed.
    is_doubtful: bool,
}

impl Name {
    /// A name that was resolved just now.
    fn new(resolve: Resolve) -> Self {
        Self {
            resolve,
            lookup: None,
            resolved: Some(Instant::now()),
            is_doubtful: false,
        }
    }

    /// When it may be resolved again.
    fn earliest(&self, timeout: Duration) -> Option<Instant> {
        Some(self.resolved? + RESOLVE_AFTER.min(timeout / 2))
    }

    /// When it is to be resolved again for a request that begins now, unless that is answered before.
    fn due(&self, begun: Instant, timeout: Duration) -> Instant {
        let due = match self.is_doubtful {
            true => begun,
            false => begun + RESOLVE_AFTER.min(timeout / 2),
        };
        self.earliest(timeout).map_or(due, |at| at.max(due))
    }

    /// The addresses, if the resolver finds them in this time, and when it was asked.
    fn find(&mut self, time: Duration) -> Option<(Instant, Vec<SocketAddr>)> {
        let now = Instant::now();
        let (asked, lookup) = match self.lookup.take() {
            Some(pending) => pending,
            None => match Lookup::start(&self.resolve) {
                Ok(lookup) => (now, lookup),
                // Without a thread, the addresses stay as they are.
                Err(_) => return Some((now, Vec::new())),
            },
        };
        let Some(found) = lookup.wait(time) else {
            self.lookup = Some((asked, lookup));
            return None;
        };
        self.resolved = Some(asked);
        // A name that cannot be resolved any more says nothing about the addresses it had.
        Some((asked, found.unwrap_or_default()))
    }
}

impl Session {
    fn new(
        peers: Vec<SocketAddr>,
        name: Option<Name>,
        keys: Keys,
        timeout: Duration,
        output: Output,
    ) -> Self {
        Self {
            peers: peers.into_iter().map(reachable).collect(),
            name,
            client: None,
            keys,
            timeout,
            output,
            unanswered: false,
        }
    }

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
        match self.answer(text) {
            Ok(answer) => self.output.answer(message, &answer),
            Err(error) => {
                let problem = problem(&error, &self.peers);
                match error.peer() {
                    Some(server) => self.fail_of(server, Some(message), &problem),
                    None => self.fail(Some(message), &problem),
                }
            }
        }
    }

    fn fail(&mut self, message: Option<&[u8]>, problem: &Problem) -> io::Result<()> {
        let server = self.client.as_ref().map_or(self.peers[0], Asker::peer);
        self.fail_of(server, message, problem)
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

    /// Asks every address of the server in turn, and resolves its name again if none responds.
    fn answer(&mut self, message: &str) -> Result<Answer, RequestError> {
        let begun = Instant::now();
        let result = self.exchange(message, begun);
        if let Some(name) = &mut self.name {
            name.is_doubtful = result.as_ref().is_err_and(may_be_elsewhere);
            if result.is_ok() {
                name.resolved = None;
            }
        }
        match result {
            // So the OS refuses a broadcast address, which only it knows as one.
            Err(RequestError::Connect { peer, source })
                if source.kind() == ErrorKind::PermissionDenied
                    && peer.is_ipv4()
                    // Over DTLS, a group cannot be asked.
                    && matches!(self.client, Some(Asker::Plain(_))) =>
            {
                self.ask_broadcast(peer, message, begun)
            }
            result => result,
        }
    }

    fn exchange(&mut self, message: &str, begun: Instant) -> Result<Answer, RequestError> {
        self.submit(message, self.timeout)?;
        let due = self.name.as_ref().map(|name| name.due(begun, self.timeout));
        let mut resolve_at = due;
        loop {
            let until_due = resolve_at.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = match until_due {
                None => Wait::Forever,
                // The resolver works meanwhile.
                Some(Duration::ZERO) => Wait::For(LOOK_AT_LOOKUP),
                Some(time) => Wait::For(time),
            };
            if until_due == Some(Duration::ZERO)
                && self.resolve_again(begun, Duration::ZERO).is_some()
            {
                resolve_at = None;
                continue;
            }
            let Some(client) = &mut self.client else {
                unreachable!("a message was submitted to it")
            };
            match client.collect(wait, begun) {
                None => {}
                // All its addresses refuse. The time that is left is for new ones.
                Some(Err(error))
                    if may_be_elsewhere(&error)
                        && resolve_at.is_some_and(|_| self.may_resolve(begun)) =>
                {
                    resolve_at = None;
                    if self.resolve_again(begun, self.left(begun)) != Some(true) {
                        return Err(error);
                    }
                    self.submit(message, self.left(begun))?;
                }
                Some(result) => return result,
            }
        }
    }

    fn left(&self, begun: Instant) -> Duration {
        self.timeout.saturating_sub(begun.elapsed())
    }

    /// Whether there is time to resolve the name again, and reason to.
    fn may_resolve(&self, begun: Instant) -> bool {
        let Some(name) = &self.name else {
            return false;
        };
        let earliest = name.earliest(self.timeout);
        earliest.is_none_or(|at| at <= Instant::now()) && !self.left(begun).is_zero()
    }

    /// Takes the addresses that the name has since a request began, if they are found in this time, and returns
    /// whether there is a new one.
    fn resolve_again(&mut self, begun: Instant, time: Duration) -> Option<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (asked, found) = self.name.as_mut()?.find(left)?;
            let is_new = self.take_peers(found);
            // A lookup for an earlier request may have found what was true then.
            if is_new || asked >= begun {
                return Some(is_new);
            }
        }
    }

    fn take_peers(&mut self, found: Vec<SocketAddr>) -> bool {
        let found: Vec<_> = found.into_iter().map(reachable).collect();
        let [first, others @ ..] = &found[..] else {
            return false;
        };
        if let Some(client) = &mut self.client {
            client.set_peers(*first, others);
        }
        let is_new = found.iter().any(|peer| !self.peers.contains(peer));
        self.peers = found;
        is_new
    }

    fn submit(&mut self, message: &str, time: Duration) -> Result<(), RequestError> {
        if let Some(client) = &mut self.client {
            match client.submit(message, time) {
                // Sockets cool down, to which responses may be under way. Another client has others.
                Err(RequestError::WindowFull { .. }) => {}
                result => return result,
            }
        }
        let mut client = self.connect()?;
        let result = client.submit(message, time);
        self.client = Some(client);
        result
    }

    /// Asks all who hear an address, and takes the first response.
    fn ask_broadcast(
        &self,
        peer: SocketAddr,
        message: &str,
        begun: Instant,
    ) -> Result<Answer, RequestError> {
        let udp = UdpOptions::new().broadcast(true);
        let mut client = plain(peer, &[], udp)?;
        let mut responses = client.discover(message, self.left(begun))?;
        match responses.next_response() {
            Some((peer, frame)) => Ok(Answer::new(peer, &frame?, begun.elapsed())),
            None => Err(RequestError::TimedOut {
                peer,
                after: begun.elapsed(),
                sends: 1,
                ignored: 0,
            }),
        }
    }

    /// A client for the addresses, in their order.
    fn connect(&self) -> Result<Asker, RequestError> {
        let [peer, others @ ..] = &self.peers[..] else {
            unreachable!("a name has at least one address")
        };
        #[cfg(feature = "dtls")]
        if let Some(asker) = self.keys.connect(*peer, others)? {
            return Ok(asker);
        }
        let Keys { .. } = self.keys;
        let plain = plain(*peer, others, UdpOptions::new())?;
        Ok(Asker::Plain(Box::new(plain)))
    }
}

fn plain(
    peer: SocketAddr,
    others: &[SocketAddr],
    udp: UdpOptions,
) -> Result<Client<UdpConnector, Ctime>, RequestError> {
    Client::builder(Ctime::local())
        .fail_when_unreachable(true)
        .udp_options(udp)
        .other_peers(others.iter().copied())
        .retry(retry(1 + others.len()))
        .connect(peer)
        .map_err(|error| RequestError::Connect {
            peer,
            source: error.into(),
        })
}

/// Whether the server may well listen at another address of its name.
fn may_be_elsewhere(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::NobodyListening { .. }
            | RequestError::Unreachable { .. }
            | RequestError::Connect { .. }
            | RequestError::NotSent { .. }
            | RequestError::TimedOut { .. }
            | RequestError::Malformed { .. }
    )
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

/// A request without a response for so long has the server's name be resolved again; or half of its time, if
/// that is less. While nothing is answered, there are no more lookups than that.
const RESOLVE_AFTER: Duration = Duration::from_secs(1);
/// An error names so many of a name's further addresses.
const SHOWN: usize = 3;
/// How often a lookup is looked at while a response may come.
const LOOK_AT_LOOKUP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use rejoinder::RequestError;

    use super::{Keys, Name, Output, Session};
    use crate::program::Failure;
    use crate::program::lookup::{Found, Resolve};

    /// Answers with a frame.
    fn answering() -> SocketAddr {
        let (socket, addr) = silent();
        thread::spawn(move || {
            loop {
                if let Ok((_, peer)) = socket.recv_from(&mut [0; 2_048]) {
                    let _ = socket.send_to(b"[b'Sun Jul  7 17:17:58 2019']yes", peer);
                }
            }
        });
        addr
    }

    fn silent() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = socket.local_addr().expect("it is bound");
        (socket, addr)
    }

    /// Refuses, and keeps its port from others: a connected socket receives from one peer only.
    fn refusing() -> (UdpSocket, SocketAddr) {
        let (socket, addr) = silent();
        socket.connect("127.0.0.1:9").expect("it needs no peer");
        (socket, addr)
    }

    /// A session with a name, which had some addresses when the session began and has others since, and how
    /// often it was resolved.
    fn session(
        before: &[SocketAddr],
        after: impl Fn() -> Found + Send + Sync + 'static,
        timeout: Duration,
    ) -> (Session, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let resolve: Resolve = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            after()
        });
        #[cfg(feature = "dtls")]
        let keys = Keys::read(None).expect("there is no file");
        #[cfg(not(feature = "dtls"))]
        let keys = Keys;
        let mut name = Name::new(resolve);
        // It was resolved long ago.
        name.resolved = None;
        let output = Output::default();
        let session = Session::new(before.to_vec(), Some(name), keys, timeout, output);
        (session, count)
    }

    fn asks(session: &mut Session) -> Result<SocketAddr, RequestError> {
        session.answer("?").map(|answer| answer.server())
    }

    #[test]
    fn a_name_is_resolved_once_more_when_its_addresses_refuse() {
        let ((_one, refusing), up) = (refusing(), answering());
        let (mut session, count) = session(&[refusing], move || Ok(vec![up]), LONG);
        assert_eq!(asks(&mut session).expect("an answer"), up);
        assert_eq!(asks(&mut session).expect("an answer"), up);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_request_without_a_response_moves_to_the_new_address_of_the_name() {
        let ((_one, silent), up) = (silent(), answering());
        let (mut session, _) = session(&[silent], move || Ok(vec![up]), LONG);
        assert_eq!(asks(&mut session).expect("an answer"), up);
    }

    #[test]
    fn the_next_request_has_the_name_resolved_at_once() {
        let ((_one, silent), up) = (silent(), answering());
        let names = Arc::new(Mutex::new(vec![silent]));
        let found = Arc::clone(&names);
        let find = move || Ok(found.lock().expect("no thread panicked").clone());
        let (mut session, count) = session(&[silent], find, Duration::from_millis(20));
        let error = asks(&mut session).expect_err("it is silent");
        assert!(
            matches!(error, RequestError::TimedOut { peer, .. } if peer == silent),
            "{error:?}"
        );
        let failed = count.load(Ordering::Relaxed);
        *names.lock().expect("no thread panicked") = vec![up];
        session.timeout = LONG;
        let begun = Instant::now();
        let due = session.name.as_ref().expect("it has one").due(begun, LONG);
        let resolved = session.name.as_ref().expect("it has one").resolved;
        // Not before the pause after the last time, if the request came to that.
        assert_eq!(
            due,
            resolved.map_or(begun, |at| begun.max(at + super::RESOLVE_AFTER))
        );
        assert_eq!(asks(&mut session).expect("an answer"), up);
        assert_eq!(count.load(Ordering::Relaxed), failed + 1);
    }

    #[test]
    fn a_refusal_is_reported_at_once_if_the_name_has_nothing_new() {
        let (_one, refusing) = refusing();
        let same = move || Ok(vec![refusing]);
        let unknown = || Err(Failure::RunTime("no such name".to_owned()));
        let lookups: [Box<dyn Fn() -> Found + Send + Sync>; 3] = [
            Box::new(same),
            Box::new(unknown),
            Box::new(|| Ok(Vec::new())),
        ];
        for lookup in lookups {
            let (mut session, count) = session(&[refusing], lookup, LONG);
            for _ in 0..10 {
                let error = asks(&mut session).expect_err("it refuses");
                assert!(
                    matches!(error, RequestError::NobodyListening { peer } if peer == refusing),
                    "{error:?}"
                );
            }
            assert!(count.load(Ordering::Relaxed) >= 1);
        }
    }

    #[test]
    fn a_resolver_that_hangs_delays_no_answer_and_is_started_once() {
        let (socket, slow) = silent();
        // It returns when the sender is dropped.
        let (_hangs, until) = mpsc::channel::<()>();
        let until = Mutex::new(until);
        let hangs = move || {
            let _ = until.lock().expect("no thread panicked").recv();
            Ok(Vec::new())
        };
        let (mut session, count) = session(&[slow], hangs, LONG);
        let name = session.name.as_mut().expect("it has one");
        name.is_doubtful = true;
        let started = Arc::clone(&count);
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                while started.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                let _ = socket.send_to(b"[b'Sun Jul  7 17:17:58 2019']yes", peer);
            }
        });
        for _ in 0..3 {
            assert_eq!(asks(&mut session).expect("an answer"), slow);
            session.name.as_mut().expect("it has one").is_doubtful = true;
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_silent_address_leaves_time_for_the_others() {
        let ((_one, silent), up) = (silent(), answering());
        let (mut session, _) = session(
            &[silent, up],
            move || Ok(vec![silent, up]),
            Duration::from_secs(2),
        );
        assert_eq!(asks(&mut session).expect("an answer"), up);
    }

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

    /// Nothing is waited for as long as that.
    const LONG: Duration = Duration::from_secs(60);
}
