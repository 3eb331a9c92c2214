//! The loads: who asks, how many, in which order.

use std::error::Error;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rejoinder::transport::{Connect as _, Inbox, MAX_DATAGRAM_BYTES, Outbox};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{Transport as _, Wait};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// 256 sockets, one request each.
    Many,
    /// One plain socket, 64 requests in flight.
    One,
    /// One socket of ours, which segments too, 64 requests in flight.
    Segmenting,
    /// The same with 256.
    SegmentingMore,
    /// 32 sockets, four requests in a row each.
    Bursts,
    /// 32 sockets, four requests each, taking turns.
    Interleaved,
}

impl Load {
    pub const ALL: [Self; 6] = [
        Self::Many,
        Self::One,
        Self::Segmenting,
        Self::SegmentingMore,
        Self::Bursts,
        Self::Interleaved,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Many => "many peers (256 sockets)",
            Self::One => "one plain peer, 64 in flight",
            Self::Segmenting => "our client, segmenting on both sides",
            Self::SegmentingMore => "the same, 256 in flight",
            Self::Bursts => "32 peers × bursts of 4",
            Self::Interleaved => "32 peers × 4, interleaved",
        }
    }

    /// What the sockets are asked to do, as their indices in order.
    fn order(self) -> Vec<usize> {
        match self {
            Self::Many => (0..256).collect(),
            Self::One | Self::Segmenting => vec![0; 64],
            Self::SegmentingMore => vec![0; 256],
            Self::Bursts => (0..128).map(|number| number / 4).collect(),
            Self::Interleaved => (0..128).map(|number| number % 32).collect(),
        }
    }

    fn sockets(self) -> usize {
        self.order().into_iter().max().map_or(0, |last| last + 1)
    }
}

/// One who asks, and checks every answer.
pub enum Asker {
    Plain {
        sockets: Vec<UdpSocket>,
        order: Vec<usize>,
        header: Vec<u8>,
        next: u32,
    },
    Segmenting {
        transport: Box<UdpTransport>,
        peer: SocketAddr,
        outbox: Outbox,
        inbox: Inbox,
        in_flight: usize,
        header: Vec<u8>,
        next: u32,
    },
}

impl Asker {
    /// Each request follows a header, which may be empty.
    pub fn new(load: Load, peer: SocketAddr, header: Vec<u8>) -> Result<Self> {
        if let Load::Segmenting | Load::SegmentingMore = load {
            let transport = UdpConnector::default().connect(peer)?;
            return Ok(Self::Segmenting {
                transport: Box::new(transport),
                peer,
                outbox: Outbox::new(256, MAX_DATAGRAM_BYTES),
                inbox: Inbox::new(64, MAX_DATAGRAM_BYTES),
                in_flight: load.order().len(),
                header,
                next: 0,
            });
        }
        let sockets = (0..load.sockets())
            .map(|_| plain(peer))
            .collect::<Result<_>>()?;
        Ok(Self::Plain {
            sockets,
            order: load.order(),
            header,
            next: 0,
        })
    }

    /// Sends the whole window, then receives all the answers. Returns how many.
    pub fn window(&mut self) -> Result<usize> {
        let all = self.size();
        let first = self.next();
        self.ask(0..all)?;
        self.receive(0..all, first)?;
        Ok(all)
    }

    /// Keeps one half of the window with the server while it checks the answers to the other, until
    /// `done`. Returns how many answers there were.
    pub fn stream(&mut self, mut done: impl FnMut() -> bool) -> Result<usize> {
        let all = self.size();
        let mut halves = [(0..all / 2, 0), (all / 2..all, 0)];
        for (half, first) in &mut halves {
            *first = self.next();
            self.ask(half.clone())?;
        }
        let mut collected = 0;
        while !done() {
            for (half, first) in &mut halves {
                self.receive(half.clone(), *first)?;
                collected += half.len();
                *first = self.next();
                self.ask(half.clone())?;
            }
        }
        for (half, first) in halves {
            collected += half.len();
            self.receive(half, first)?;
        }
        Ok(collected)
    }

    fn size(&self) -> usize {
        match self {
            Self::Plain { order, .. } => order.len(),
            Self::Segmenting { in_flight, .. } => *in_flight,
        }
    }

    fn ask(&mut self, part: std::ops::Range<usize>) -> Result<()> {
        match self {
            Self::Plain {
                sockets,
                order,
                header,
                next,
            } => {
                for &socket in &order[part] {
                    let (bytes, len) = after(header, &request(*next));
                    sockets[socket].send(&bytes[..len])?;
                    *next += 1;
                }
            }
            Self::Segmenting {
                transport,
                peer,
                outbox,
                header,
                next,
                ..
            } => {
                outbox.clear();
                for _ in part {
                    let (bytes, len) = after(header, &request(*next));
                    outbox.push(*peer, None, &bytes[..len])?;
                    *next += 1;
                }
                let sent = transport.send(outbox);
                if let Some(error) = sent.last_error {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> u32 {
        match self {
            Self::Plain { next, .. } | Self::Segmenting { next, .. } => *next,
        }
    }

    fn receive(&mut self, part: std::ops::Range<usize>, first: u32) -> Result<()> {
        match self {
            Self::Plain { sockets, order, .. } => {
                let mut buffer = [0; 256];
                for (&socket, number) in order[part].iter().zip(first..) {
                    let len = sockets[socket].recv(&mut buffer)?;
                    check(&buffer[..len], number)?;
                }
            }
            Self::Segmenting {
                transport, inbox, ..
            } => {
                let mut numbers = first..first + part.len() as u32;
                while !numbers.is_empty() {
                    if inbox.is_empty() && transport.recv(inbox, Wait::For(PATIENCE))? == 0 {
                        return Err("an answer is missing".into());
                    }
                    while !numbers.is_empty()
                        && let Some(datagram) = inbox.pop()
                    {
                        check(datagram.bytes, numbers.next().expect("not empty"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// One who has one request in flight.
pub struct Lone {
    socket: UdpSocket,
    header: Vec<u8>,
    next: u32,
    polls: bool,
}

impl Lone {
    pub fn new(peer: SocketAddr, header: Vec<u8>, polls: bool) -> Result<Self> {
        let socket = plain(peer)?;
        socket.set_nonblocking(polls)?;
        Ok(Self {
            socket,
            header,
            next: 0,
            polls,
        })
    }

    pub fn exchange(&mut self) -> Result<()> {
        let mut buffer = [0; 256];
        let (bytes, len) = after(&self.header, &request(self.next));
        self.socket.send(&bytes[..len])?;
        let len = loop {
            match self.socket.recv(&mut buffer) {
                Err(error) if self.polls && error.kind() == ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        check(&buffer[..len], self.next)?;
        self.next += 1;
        Ok(())
    }
}

fn plain(peer: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(peer)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A request behind a header: a datagram, and its length.
fn after(header: &[u8], request: &[u8]) -> ([u8; 64], usize) {
    let mut datagram = [0; 64];
    let len = header.len() + request.len();
    datagram[..header.len()].copy_from_slice(header);
    datagram[header.len()..len].copy_from_slice(request);
    (datagram, len)
}

/// 你…吗？ with three letters that say which one it is: as long as 你好吗？.
fn request(number: u32) -> [u8; 12] {
    let mut request = *"你好吗？"
        .as_bytes()
        .first_chunk()
        .expect("it has 12 bytes");
    request[3..6].copy_from_slice(&letters(number));
    request
}

fn letters(number: u32) -> [u8; 3] {
    [26 * 26, 26, 1].map(|place| b'a' + (number / place % 26) as u8)
}

/// Every answer is the right one, in order.
fn check(answer: &[u8], number: u32) -> Result<()> {
    let text = answer
        .strip_prefix(b"[b'")
        .and_then(|rest| rest.get(24..))
        .and_then(|rest| rest.strip_prefix(b"']"))
        .and_then(|rest| rest.strip_prefix("【机器人】小Zurich ".as_bytes()));
    if text.is_some_and(|text| text.len() == 4 && text[..3] == letters(number) && text[3] == b'!') {
        return Ok(());
    }
    Err(format!(
        "not the answer to number {number}: {}",
        answer.escape_ascii()
    )
    .into())
}

const PATIENCE: Duration = Duration::from_secs(2);
