//! Handlers that wait, and clients.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use rejoinder::codec::{Tagged, Text};
use rejoinder::transport::{Connect as _, Inbox, Outbox};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{Client, Transport as _, Wait, aio};

use crate::loads::Result;
use crate::peers::Peer;
use crate::report::{Report, Sample};
use crate::{CORE, OTHER_CORE, Options, Server, sys};

pub fn measure_servers(options: &Options, report: &mut Report) -> Result<()> {
    let servers: Vec<_> = Peer::WAITING
        .iter()
        .map(|&peer| Server::start(peer, &[OTHER_CORE]))
        .collect::<Result<_>>()?;
    for (load, in_flight) in [
        ("2,000 in flight, 8 plain peers", 2_000),
        ("10,000 in flight, our client, segmenting", 10_000),
    ] {
        for round in 0..options.rounds {
            for server in &servers {
                let mut asker: Box<dyn Asker> = if in_flight == 2_000 {
                    Box::new(Plain::new(server.addr, in_flight)?)
                } else {
                    Box::new(Segmenting::new(server.addr, in_flight)?)
                };
                // Until all are in flight.
                asker.run(Duration::from_millis(30))?;
                let cpu = server.cpu()?;
                let answers = asker.run(options.time)?;
                let value = (server.cpu()? - cpu).as_nanos() as f64 / answers as f64;
                report.add(Sample {
                    table: "waiting",
                    load,
                    peer: server.peer,
                    round,
                    value,
                });
            }
        }
    }
    Ok(())
}

pub fn measure_clients(options: &Options, report: &mut Report) -> Result<()> {
    let server = Server::start(Peer::Short, &[OTHER_CORE])?;
    for round in 0..options.rounds {
        for (kind, peer) in [("blocking", Peer::Ours), ("async", Peer::AioAsync)] {
            let millis = options.time.as_millis().to_string();
            let output = Command::new(std::env::current_exe()?)
                .args(["ask", &server.addr.to_string(), kind, &millis])
                .output()?;
            let text = String::from_utf8(output.stdout)?;
            report.add(Sample {
                table: "clients",
                load: "256 in flight",
                peer,
                round,
                value: text.trim().parse()?,
            });
        }
    }
    Ok(())
}

/// Keeps 256 requests in flight and prints the nanoseconds of processor time per answer.
pub fn ask(addr: SocketAddr, is_async: bool, time: Duration) -> Result<()> {
    sys::pin(&[CORE])?;
    let answers = if is_async {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(ask_async(addr, time))?
    } else {
        ask_blocking(addr, time)?
    };
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let nanos: f64 = text
        .split(' ')
        .next()
        .ok_or("an empty schedstat")?
        .parse()?;
    writeln!(io::stdout(), "{}", nanos / answers as f64)?;
    Ok(())
}

fn ask_blocking(addr: SocketAddr, time: Duration) -> Result<u64> {
    let mut client = Client::builder(Tagged(Text))
        .window(IN_FLIGHT)
        .connect(addr)?;
    let (begun, mut answers) = (Instant::now(), 0);
    while begun.elapsed() < time {
        while client.in_flight() < IN_FLIGHT && client.submit("question").is_ok() {}
        while let Some((_, result)) = client.collect(Wait::Forever) {
            result?;
            answers += 1;
            if client.in_flight() < IN_FLIGHT / 2 {
                break;
            }
        }
    }
    Ok(answers)
}

async fn ask_async(addr: SocketAddr, time: Duration) -> Result<u64> {
    let client = aio::Client::connect(addr, Tagged(Text)).await?;
    let begun = Instant::now();
    let asking = (0..IN_FLIGHT).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut answers = 0;
            while begun.elapsed() < time {
                client.request("question").await.map_err(io::Error::other)?;
                answers += 1;
            }
            Ok::<_, io::Error>(answers)
        })
    });
    let mut answers = 0;
    for asking in asking.collect::<Vec<_>>() {
        answers += asking.await??;
    }
    Ok(answers)
}

trait Asker {
    /// Asks for so long, and returns how many answers there were.
    fn run(&mut self, time: Duration) -> Result<u64>;
}

/// Eight plain sockets.
struct Plain {
    sockets: Vec<(UdpSocket, usize)>,
    each: usize,
    next: u64,
}

impl Plain {
    fn new(addr: SocketAddr, in_flight: usize) -> Result<Self> {
        let mut sockets = Vec::new();
        for _ in 0..8 {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            let sizes = socket2::SockRef::from(&socket);
            sizes.set_recv_buffer_size(4 << 20)?;
            socket.connect(addr)?;
            socket.set_nonblocking(true)?;
            sockets.push((socket, 0));
        }
        Ok(Self {
            sockets,
            each: in_flight / 8,
            next: 0,
        })
    }
}

impl Asker for Plain {
    fn run(&mut self, time: Duration) -> Result<u64> {
        let (begun, mut last, mut answers) = (Instant::now(), Instant::now(), 0);
        let mut buffer = [0; 2_048];
        while begun.elapsed() < time {
            for (socket, in_flight) in &mut self.sockets {
                loop {
                    match socket.recv(&mut buffer) {
                        Ok(len) if buffer[..len].ends_with(b"always the same") => {
                            *in_flight = in_flight.saturating_sub(1);
                            answers += 1;
                            last = Instant::now();
                        }
                        Ok(_) => return Err("a wrong answer".into()),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
                while *in_flight < self.each {
                    match socket.send(&question(self.next)) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                    self.next += 1;
                    *in_flight += 1;
                }
            }
            if last.elapsed() > LOST {
                self.sockets
                    .iter_mut()
                    .for_each(|(_, in_flight)| *in_flight = 0);
                last = Instant::now();
            }
        }
        Ok(answers)
    }
}

/// One socket of ours.
struct Segmenting {
    transport: UdpTransport,
    addr: SocketAddr,
    inbox: Inbox,
    outbox: Outbox,
    most: usize,
    in_flight: usize,
    next: u64,
}

impl Segmenting {
    fn new(addr: SocketAddr, in_flight: usize) -> Result<Self> {
        Ok(Self {
            transport: UdpConnector::default().connect(addr)?,
            addr,
            inbox: Inbox::new(64, 512),
            outbox: Outbox::new(512, 512),
            most: in_flight,
            in_flight: 0,
            next: 0,
        })
    }
}

impl Asker for Segmenting {
    fn run(&mut self, time: Duration) -> Result<u64> {
        let (begun, mut last, mut answers) = (Instant::now(), Instant::now(), 0);
        while begun.elapsed() < time {
            if self.transport.recv(&mut self.inbox, Wait::No)? > 0 {
                last = Instant::now();
            }
            while let Some(datagram) = self.inbox.pop() {
                if !datagram.bytes.ends_with(b"always the same") {
                    return Err("a wrong answer".into());
                }
                answers += 1;
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            while self.in_flight < self.most && self.outbox.has_room_for(1) {
                self.outbox.push(self.addr, None, &question(self.next))?;
                self.next += 1;
                self.in_flight += 1;
            }
            let report = self.transport.send(&self.outbox);
            self.in_flight -= report.failed;
            self.outbox.clear();
            if last.elapsed() > LOST {
                self.in_flight = 0;
                last = Instant::now();
            }
        }
        Ok(answers)
    }
}

fn question(number: u64) -> [u8; 13] {
    let mut datagram = *b"?00000000wait";
    datagram[1..9].copy_from_slice(&number.to_be_bytes());
    datagram
}

const IN_FLIGHT: usize = 256;
/// If nothing comes for so long, what was in flight is lost.
const LOST: Duration = Duration::from_millis(50);
