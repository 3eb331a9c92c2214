//! A robot that remembers its peers: state per peer, on `Handler`.
//!
//! ```text
//! rejoinder sessions
//! rejoinder sessions --talk 127.0.0.1:8889
//! ```

pub mod codec;
pub mod table;

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::program::address::{Address, why_unanswered};
use crate::program::input::Lines;
use crate::program::lookup::{PATIENCE, resolve_within};
use crate::program::signals::Signals;
use crate::program::stream::wait_for_input;
use crate::program::{self, Failure, complain, print};
use crate::service::{self, Common, Limit, Listen, Service, announce};
use codec::{Conversation, Turn};
use rejoinder::codec::{Tagged, Text};
use rejoinder::escape::Escaped;
use rejoinder::handler::Dedup;
use rejoinder::transport::LocalPort;
use rejoinder::{Client, Context, Handler, Reply, ReplyError, Server};
use table::Sessions;

/// A robot that remembers your name and counts what you say
///
/// Say 我叫小明, then 我是谁, 忘了我, or anything else. Ctrl-C ends it.
///
/// A request is `?`, eight bytes of id, and text, so netcat will do too: in `nc -u 127.0.0.1 8889`, type
/// ?00000001我叫小明. The same line again is the same request, and gets the same answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen: HOST:PORT, or only one of them; port 0 is any free port. Default:
    /// 127.0.0.1:8889, or the socket that a service manager has opened
    address: Option<String>,
    /// How many peers are remembered at most, 1 to 1000000
    #[arg(
        long, value_name = "N", value_parser = peers, allow_negative_numbers = true,
        default_value = "10000"
    )]
    peers: u32,
    /// For how long after what they said last, 1 to 31536000
    #[arg(
        long, value_name = "SECONDS", value_parser = lifetime, allow_negative_numbers = true,
        default_value = "600"
    )]
    lifetime: u32,
    /// Send each line of standard input there instead, and print the answers
    #[arg(long, value_name = "ADDRESS", exclusive = true)]
    talk: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Gets to know its peers. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Acquaintance(Arc<Sessions<Session>>);

impl Acquaintance {
    /// A robot that remembers so many peers, for so long after what they said last.
    #[must_use]
    pub fn new(peers: usize, lifetime: Duration) -> Self {
        Self(Arc::new(Sessions::new(peers, lifetime)))
    }

    /// How many peers it knows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// The handler that a server should have.
    ///
    /// A client that gets no answer asks again, and a network may duplicate what it likes: by
    /// itself, the robot would count a copy as one more thing that was said. `Dedup` hands it the
    /// first copy only, and has the answer ready for the others. (The other way is a protocol in
    /// which a copy does no harm: one whose requests say which turn they are.)
    pub fn once(self, peers: usize) -> impl Handler<Conversation> {
        // As many requests as there may be sessions, for longer than any client asks again.
        Dedup::new(self, id)
            .capacity(peers)
            .lifetime(Duration::from_secs(60))
            .max_response_bytes(256)
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

/// What is known of one peer. A peer cannot choose its size.
#[derive(Debug, Default)]
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

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    if let Some(server) = &options.talk {
        return talk(server);
    }
    let signals = Signals::register()?;
    program::queue_status()?;
    program::status_is_wanted(!options.common.quiet);
    let peers = options.peers as usize;
    program::has_memory(peers * SESSION_BYTES, format_args!("{peers} peers"))?;
    let robot = Acquaintance::new(peers, Duration::from_secs(options.lifetime.into()));
    let server = Server::builder(Conversation).max_request_bytes(1_200);
    let address = options.address.as_deref();
    let service = Service::open(
        Listen::at(address, DEFAULT),
        Limit::ForOthers,
        server,
        robot.once(peers),
    )?;
    let services = vec![service];
    let member = options.common.fleet.open()?;
    announce(&services, &member)?;
    service::run(services, signals, member, None, None, || None)
}

/// The other side: one client, whose requests all come from one socket, and so one session.
fn talk(server: &str) -> Result<ExitCode, Failure> {
    let peers = resolve_within(&Address::parse(server, DEFAULT.port())?, PATIENCE)?;
    // The server knows a session by its port.
    let builder = Client::builder(Tagged(Text)).local_port(LocalPort::Kept);
    let mut client = builder.connect(&peers[..])?;
    let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut lines = Lines::waiting(io::stdin().lock(), || wait_for_input(io::stdin()));
    loop {
        if prompts {
            print("你：".as_bytes())?;
        }
        let Some(line) = lines.next_line()? else {
            return Ok(ExitCode::SUCCESS);
        };
        let text = match line.text {
            Ok(text) if text.is_empty() => continue,
            Ok(text) => text,
            Err(bad) => {
                complain(format_args!("not sent: {}", bad.describe(line.number)));
                continue;
            }
        };
        let answer = client.request(text.trim_end());
        let answer = answer.map_err(|error| Failure::RunTime(why_unanswered(&error)))?;
        match print(format!("{}\n", Escaped(answer)).as_bytes()) {
            // The reader of the answers has read enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            printed => printed?,
        }
    }
}

fn peers(text: &str) -> Result<u32, String> {
    number(text, MAX_PEERS)
}

fn lifetime(text: &str) -> Result<u32, String> {
    number(text, MAX_LIFETIME)
}

fn number(text: &str, most: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("not a number from 1 to {most}"))
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8889);
const MAX_NAME_CHARS: usize = 20;
/// Of a session, its places in the tables, and the answer that is kept for copies.
const SESSION_BYTES: usize = 768;
/// Some hundred megabytes.
const MAX_PEERS: u32 = 1_000_000;
/// A year, in seconds.
const MAX_LIFETIME: u32 = 31_536_000;
