//! A robot that knows whom it talks to: state per peer, on `Handler`.
//!
//! ```text
//! cargo run --example sessions
//! cargo run --example sessions -- --talk 127.0.0.1:8889
//! ```

#[path = "sessions/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;
#[path = "sessions/table.rs"]
pub(crate) mod table;

use std::error::Error;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt};

use codec::{Conversation, Turn};
use rejoinder::codec::{Tagged, Text};
use rejoinder::escape::Escaped;
use rejoinder::handler::Dedup;
use rejoinder::transport::LocalPort;
use rejoinder::{Client, Context, Handler, Reply, ReplyError, Server};
use service::{Failure, complain, print};
use table::Sessions;

const HELP: &str = "\
A robot that remembers your name and counts what you say.

Usage: sessions [ADDRESS] [--peers N] [--lifetime SECONDS] [--quiet]
       sessions --talk ADDRESS

  ADDRESS               where to listen, HOST:PORT; port 0 is any free port.
                        Default: 127.0.0.1:8889
  --peers N             how many peers are remembered at most, 1 to 1000000.
                        Default: 10000
  --lifetime SECONDS    for how long after what they said last, 1 to 31536000.
                        Default: 600
  -q, --quiet           print nothing
  -h, --help            this text

  --talk ADDRESS        sends each line of standard input, and prints the answers

Say 我叫小明, then 我是谁, 忘了我, or anything else. Ctrl-C ends it.

A request is `?`, eight bytes of id, and text, so netcat will do too: in `nc -u 127.0.0.1 8889`,
type ?00000001我叫小明. The same line again is the same request, and gets the same answer.
";

/// Gets to know its peers. Clones share what they know.
#[derive(Clone)]
pub(crate) struct Acquaintance(Arc<Sessions<Session>>);

impl Acquaintance {
    pub(crate) fn new(peers: usize, lifetime: Duration) -> Self {
        Self(Arc::new(Sessions::new(peers, lifetime)))
    }

    /// How many peers it knows.
    #[allow(dead_code, reason = "what tests look at")]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The handler that a server should have.
    ///
    /// A client that gets no answer asks again, and a network may duplicate what it likes: by
    /// itself, the robot would count a copy as one more thing that was said. `Dedup` hands it the
    /// first copy only, and has the answer ready for the others. (The other way is a protocol in
    /// which a copy does no harm: one whose requests say which turn they are.)
    pub(crate) fn once(self, peers: usize) -> impl Handler<Conversation> {
        // As many requests as there may be sessions, for longer than any client asks again.
        Dedup::new(self, id)
            .capacity(peers)
            .lifetime(Duration::from_secs(60))
            .max_answer_bytes(256)
    }
}

/// What makes two requests of one peer the same.
#[expect(clippy::unnecessary_wraps, reason = "the form that `Dedup` takes")]
fn id(turn: &Turn<'_>) -> Option<[u8; 8]> {
    Some(turn.id)
}

impl Handler<Conversation> for Acquaintance {
    fn handle(
        &self,
        turn: Turn<'_>,
        context: &Context,
        reply: &mut Reply<'_, Conversation>,
    ) -> Result<(), ReplyError> {
        // The time is that of the request: nothing here reads a clock, so a test can make it up.
        let answer = self
            .0
            .with(context.peer, context.now, |session| session.hear(turn.text));
        reply.send(&answer)
    }
}

/// What is known of one peer. It has a size that nobody outside can choose.
#[derive(Default)]
pub(crate) struct Session {
    name: Option<String>,
    heard: u64,
}

impl Session {
    fn hear(&mut self, text: &str) -> Answer {
        self.heard += 1;
        let text = text.trim_matches(|c: char| c.is_whitespace() || "。.!！?？".contains(c));
        match text.strip_prefix("我叫") {
            Some("什么" | "什么名字") => self.who(),
            Some(name) => self.meet(name.trim()),
            None if text == "我是谁" => self.who(),
            None if text == "忘了我" => {
                *self = Self::default();
                Answer::Forgotten
            }
            None => Answer::Counted(self.name.clone(), self.heard),
        }
    }

    fn who(&self) -> Answer {
        match &self.name {
            Some(name) => Answer::Known(name.clone()),
            None => Answer::Unknown,
        }
    }

    fn meet(&mut self, name: &str) -> Answer {
        if !(1..=MAX_NAME_CHARS).contains(&name.chars().count()) {
            return Answer::NoName;
        }
        match self.name.replace(name.to_owned()) {
            Some(before) if before == name => Answer::Known(before),
            Some(before) => Answer::Renamed(before, name.to_owned()),
            None => Answer::Met(name.to_owned()),
        }
    }
}

enum Answer {
    Met(String),
    Renamed(String, String),
    Known(String),
    Unknown,
    NoName,
    Forgotten,
    Counted(Option<String>, u64),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met(name) => write!(f, "你好，{name}！很高兴认识你。"),
            Self::Renamed(before, name) => write!(f, "原来你不叫{before}，叫{name}。"),
            Self::Known(name) => write!(f, "你是{name}，我记得。"),
            Self::Unknown => f.write_str("我还不知道。你叫什么？"),
            Self::NoName => write!(f, "名字要有 1 到 {MAX_NAME_CHARS} 个字，我才记得住。"),
            Self::Forgotten => f.write_str("好，我什么都不记得了。"),
            Self::Counted(Some(name), heard) => write!(f, "{name}，这是你说的第 {heard} 句话。"),
            Self::Counted(None, heard) => write!(f, "这是你说的第 {heard} 句话。你叫什么？"),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--talk") {
        return service::end(match &args[1..] {
            [server] => talk(&server.to_string_lossy()),
            _ => Err(Failure::Usage(
                "--talk takes one address, HOST:PORT, and nothing else".to_owned(),
            )),
        });
    }
    service::main(HELP, &["ADDRESS", "peers", "lifetime"], |arguments| {
        let number = |option, default, most: u32| match arguments.get(option) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| {
                    let problem = format!("--{option} `{text}`: not a number from 1 to {most}");
                    Failure::Usage(problem)
                }),
        };
        let peers = number("peers", 10_000, MAX_PEERS)? as usize;
        let lifetime = number("lifetime", 600, MAX_LIFETIME)?.into();
        let robot = Acquaintance::new(peers, Duration::from_secs(lifetime));
        let server = Server::builder(Conversation).max_request_bytes(1_200);
        let robot = robot.once(peers);
        Ok(vec![arguments.service(
            "ADDRESS",
            "127.0.0.1:8889",
            server,
            robot,
        )?])
    })
}

/// The other side: one client, whose requests all come from one socket, and so one session.
fn talk(server: &str) -> Result<ExitCode, Failure> {
    // The server knows a session by its port.
    let builder = Client::builder(Tagged(Text)).local_port(LocalPort::Kept);
    let mut client = builder.connect(server).map_err(|error| {
        let error = io::Error::from(error);
        let problem = format!("--talk `{server}`: {error}; write HOST:PORT");
        match error.kind() {
            ErrorKind::InvalidInput => Failure::Usage(problem),
            _ => Failure::RunTime(problem),
        }
    })?;
    let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut line = Vec::new();
    loop {
        if prompts {
            print("你：".as_bytes())?;
        }
        line.clear();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let Ok(text) = str::from_utf8(&line) else {
            complain("that line is not UTF-8, so it was not sent");
            continue;
        };
        let answer = client.request(text.trim_end());
        let answer = answer.map_err(Box::<dyn Error>::from)?;
        match print(format!("{}\n", Escaped(answer)).as_bytes()) {
            // Whoever read the answers has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            printed => printed?,
        }
    }
}

const MAX_NAME_CHARS: usize = 20;
/// Some hundred megabytes.
const MAX_PEERS: u32 = 1_000_000;
/// A year, in seconds.
const MAX_LIFETIME: u32 = 31_536_000;
