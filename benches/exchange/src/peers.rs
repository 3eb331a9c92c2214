//! The servers: rejoinder's, and what people would use instead.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::net::UdpSocket;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use regex::Regex;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Ctime, Tagged, Text};
use rejoinder::proxy::{Header, Proxies, ProxyMode};
use rejoinder::udp::UdpOptions;
use rejoinder::{Codec as _, Server, ServerBuilder, Stats, Timestamp, Writer, aio};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::udp::UdpFramed;

use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A loop over the standard library's socket, as one writes it by hand.
    Std,
    /// Tokio's `UdpFramed` with a codec, on one thread.
    Framed,
    /// The system calls of the fast path with our robot, and nothing else.
    Bare,
    /// rejoinder's `Server`.
    Ours,
    /// The same behind a proxy: each request has a PROXY header of 28 bytes in front.
    OursBehind,
    /// The same without the fast path.
    OursPortable,
    /// The same with two threads.
    OursWorkers,
    /// The same, which polls.
    OursPolling,
    /// The robot on the async server, as a sync handler.
    AioSync,
    /// The same as an async handler that does not wait.
    AioAsync,
    /// An async handler that waits 5 ms, in the slots of the async server.
    WaitSlots,
    /// The same in a task for each datagram, as one writes it by hand.
    WaitSpawn,
    /// rejoinder's `Server` with short answers, to measure clients by.
    Short,
}

impl Peer {
    pub const ALL: [Self; 10] = [
        Self::Std,
        Self::Framed,
        Self::Bare,
        Self::Ours,
        Self::OursBehind,
        Self::OursPortable,
        Self::OursWorkers,
        Self::OursPolling,
        Self::AioSync,
        Self::AioAsync,
    ];
    pub const WAITING: [Self; 2] = [Self::WaitSpawn, Self::WaitSlots];

    /// The server with this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain(Self::WAITING);
        all.chain([Self::Short]).find(|peer| peer.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Std => "std loop",
            Self::Framed => "UdpFramed",
            Self::Bare => "bare batched loop",
            Self::Ours => "rejoinder",
            Self::OursBehind => "rejoinder, behind a proxy",
            Self::OursPortable => "rejoinder, portable",
            Self::OursWorkers => "rejoinder, 2 workers",
            Self::OursPolling => "rejoinder, busy-poll",
            Self::AioSync => "rejoinder, tokio, sync",
            Self::AioAsync => "rejoinder, tokio, async",
            Self::WaitSlots => "rejoinder, tokio, waits",
            Self::WaitSpawn => "task per datagram",
            Self::Short => "rejoinder, short answers",
        }
    }

    /// What stands in front of each request.
    pub fn header(self) -> Vec<u8> {
        match self {
            Self::OursBehind => Header::encode_v2(
                ([192, 0, 2, 1], 50_000).into(),
                ([198, 51, 100, 1], 8_888).into(),
            ),
            _ => Vec::new(),
        }
    }

    /// Serves for ever, after it has printed its port.
    pub fn serve(self, cores: &[usize]) -> Result<(), Box<dyn Error>> {
        sys::end_with_parent();
        sys::pin(cores)?;
        let server = Server::builder(Ctime::local());
        match self {
            Self::Std => std_loop(&socket()?),
            Self::Framed => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()?;
                runtime.block_on(framed(socket()?))
            }
            Self::Bare => bare(&socket()?),
            Self::Ours => ours(server),
            Self::OursBehind => {
                let proxies = Proxies::builder(ProxyMode::V2).trust([127, 0, 0, 1].into(), 32);
                ours(server.behind(proxies.build()?))
            }
            Self::OursPortable => ours(server.udp_options(UdpOptions::new().portable())),
            Self::OursWorkers => ours(server.workers(2)),
            Self::OursPolling => ours(server.busy_poll(true)),
            Self::AioSync => runtime()?.block_on(async {
                let server = aio::Server::builder(Ctime::local())
                    .bind("127.0.0.1:0")
                    .await?;
                announce(server.local_addr()?.port())?;
                ended(tokio::spawn(server.serve_sync(zurich())).await??)
            }),
            Self::AioAsync => runtime()?.block_on(async {
                let server = aio::Server::builder(Ctime::local())
                    .bind("127.0.0.1:0")
                    .await?;
                announce(server.local_addr()?.port())?;
                let robot = zurich();
                let answer = async move |text: &str| Some(robot.answer(text).to_string());
                ended(tokio::spawn(server.serve(answer)).await??)
            }),
            Self::WaitSlots => runtime()?.block_on(async {
                let server = aio::Server::builder(Tagged(Text)).max_in_flight(16_384);
                let server = server.bind("127.0.0.1:0").await?;
                announce(server.local_addr()?.port())?;
                let wait = async |_: &str| {
                    tokio::time::sleep(WAIT).await;
                    "always the same"
                };
                ended(tokio::spawn(server.serve(wait)).await??)
            }),
            Self::WaitSpawn => runtime()?.block_on(spawning(socket()?)),
            Self::Short => {
                let server = Server::builder(Tagged(Text)).bind("127.0.0.1:0")?;
                announce(server.local_addr()?.port())?;
                ended(server.serve(|_: &str| Some("always the same"))?)
            }
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// None of the servers ends by itself.
fn ended(stats: Stats) -> Result<(), Box<dyn Error>> {
    eprintln!("{stats}");
    exit(1)
}

/// A task for each datagram, and a semaphore so that they have a bound.
async fn spawning(socket: UdpSocket) -> Result<(), Box<dyn Error>> {
    socket.set_nonblocking(true)?;
    let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
    let bound = Arc::new(tokio::sync::Semaphore::new(16_384));
    let mut buffer = [0; 65_535];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer).await?;
        let (Some(b'?'), Some(id)) = (buffer[..len].first(), buffer[1..len].first_chunk::<8>())
        else {
            continue;
        };
        let (id, socket) = (*id, Arc::clone(&socket));
        let permit = Arc::clone(&bound).acquire_owned().await?;
        tokio::spawn(async move {
            tokio::time::sleep(WAIT).await;
            let mut response = Vec::with_capacity(64);
            response.push(b'!');
            response.extend_from_slice(&id);
            response.extend_from_slice(b"always the same");
            let _ = socket.send_to(&response, peer).await;
            drop(permit);
        });
    }
}

/// How long the handlers wait that do.
const WAIT: Duration = Duration::from_millis(5);

/// All get the same buffers, so that none loses a datagram.
fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let sizes = socket2::SockRef::from(&socket);
    sizes.set_recv_buffer_size(4 << 20)?;
    sizes.set_send_buffer_size(4 << 20)?;
    announce(socket.local_addr()?.port())?;
    Ok(socket)
}

fn announce(port: u16) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{port}")?;
    out.flush()
}

/// 小Zurich as most would write it.
struct Naive(Regex);

impl Naive {
    fn new() -> Result<Self, regex::Error> {
        Ok(Self(Regex::new(r"^你(\D+)吗？")?))
    }

    fn answer(&self, request: &str) -> String {
        let text = match self.0.captures(request) {
            Some(captures) => format!("【机器人】小Zurich {}!", &captures[1]),
            None => "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~".into(),
        };
        let time = chrono::Local::now().format("%a %b %e %H:%M:%S %Y");
        format!("[b'{time}']{}", text.replace('我', "自己"))
    }
}

fn std_loop(socket: &UdpSocket) -> Result<(), Box<dyn Error>> {
    let robot = Naive::new()?;
    let mut buffer = [0; 65_535];
    loop {
        let (len, peer) = socket.recv_from(&mut buffer)?;
        if let Ok(request) = std::str::from_utf8(&buffer[..len]) {
            socket.send_to(robot.answer(request).as_bytes(), peer)?;
        }
    }
}

struct TextCodec;

impl Decoder for TextCodec {
    type Item = String;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<String>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(bytes.to_vec());
        bytes.clear();
        text.map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Encoder<String> for TextCodec {
    type Error = io::Error;

    fn encode(&mut self, text: String, out: &mut BytesMut) -> io::Result<()> {
        out.reserve(text.len());
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

async fn framed(socket: UdpSocket) -> Result<(), Box<dyn Error>> {
    socket.set_nonblocking(true)?;
    let robot = Naive::new()?;
    let mut framed = UdpFramed::new(tokio::net::UdpSocket::from_std(socket)?, TextCodec);
    while let Some(request) = framed.next().await {
        if let Ok((request, peer)) = request {
            framed.send((robot.answer(&request), peer)).await?;
        }
    }
    Ok(())
}

fn bare(socket: &UdpSocket) -> ! {
    struct Shown<'a>(&'a Robot, &'a str);
    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.answer(self.1).fmt(f)
        }
    }
    let (robot, codec) = (zurich(), Ctime::local());
    let now = std::cell::Cell::new(Timestamp::system());
    sys::bare_loop(
        socket,
        || now.set(Timestamp::system()),
        |request, space| {
            let Ok(request) = std::str::from_utf8(request) else {
                return 0;
            };
            let mut out = Writer::new(space);
            if codec
                .encode_response(
                    now.get(),
                    request.as_bytes(),
                    &Shown(&robot, request),
                    &mut out,
                )
                .is_err()
            {
                return 0;
            }
            out.finish().unwrap_or(0)
        },
    )
}

fn ours(server: ServerBuilder<Ctime>) -> Result<(), Box<dyn Error>> {
    let server = server.bind("127.0.0.1:0")?;
    announce(server.local_addr()?.port())?;
    let stats = server.serve(zurich())?;
    eprintln!("{stats}");
    exit(1)
}
