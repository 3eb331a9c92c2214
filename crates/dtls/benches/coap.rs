//! What a `CoAP` answer costs a server, beside libcoap's servers: CPU time of their processes for each request.
//!
//! ```text
//! cargo bench --manifest-path crates/dtls/Cargo.toml --bench coap
//! ```
//!
//! Each server is a process of its own on loopback, and answers `GET /time`. The load is the same client for all,
//! one request at a time or 32. The rounds of all servers alternate, and the median of the rounds counts, because
//! other work on the machine changes what a round costs. libcoap's servers are those of Debian's `libcoap3-bin`; one
//! that is not installed is left out.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, Packet, RequestType, ResponseType};
use rejoinder::codec::{Signed, SigningKey};
use rejoinder::handler::{Context, Reply, ReplyError};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{Client, Handler, Server, Timestamp, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, Dtls};
use rejoinder_protocols::coap::codec::Coap;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("serve") {
        return serve(&arguments.next().ok_or("serve what?")?);
    }
    // `cargo test` only wants to see it work.
    let is_measured = env::args().any(|argument| argument == "--bench");
    let (rounds, requests) = if is_measured { (15, 4_000) } else { (1, 50) };
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match Process::start(kind) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            process => all.push(process?),
        }
    }
    let out = &mut io::stdout();
    writeln!(
        out,
        "{:<40} {:>12} {:>12}",
        "µs of CPU for each answer", "1 at a time", "32 at a time"
    )?;
    let mut times = vec![[Vec::new(), Vec::new()]; all.len()];
    for _ in 0..rounds {
        for (process, times) in all.iter_mut().zip(&mut times) {
            for (at_once, times) in [1, 32].into_iter().zip(times) {
                let before = process.cpu()?;
                process.asker.ask(requests, at_once)?;
                times.push(process.cpu()?.saturating_sub(before) / requests);
            }
        }
    }
    for (process, mut times) in all.iter().zip(times) {
        let [one, many] = times.each_mut().map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        writeln!(out, "{:<40} {one:>12.2} {many:>12.2}", process.kind.name())?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Signed,
    Psk,
    LibcoapPlain,
    LibcoapOpenssl,
    LibcoapGnutls,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Plain,
        Self::Signed,
        Self::Psk,
        Self::LibcoapPlain,
        Self::LibcoapOpenssl,
        Self::LibcoapGnutls,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "rejoinder, plain",
            Self::Signed => "rejoinder, Signed",
            Self::Psk => "rejoinder, DTLS, PSK, AES-128-CCM-8",
            Self::LibcoapPlain => "libcoap, plain",
            Self::LibcoapOpenssl => "libcoap, DTLS by OpenSSL, PSK",
            Self::LibcoapGnutls => "libcoap, DTLS by GnuTLS, PSK",
        }
    }

    /// The program, or the argument of this one.
    fn program(self) -> Result<&'static str, &'static str> {
        match self {
            Self::Plain => Err("plain"),
            Self::Signed => Err("signed"),
            Self::Psk => Err("psk"),
            Self::LibcoapPlain => Ok("coap-server-notls"),
            Self::LibcoapOpenssl => Ok("coap-server-openssl"),
            Self::LibcoapGnutls => Ok("coap-server-gnutls"),
        }
    }
}

/// Prints its port, and serves until it is killed.
fn serve(what: &str) -> Result<(), Box<dyn Error>> {
    let udp = UdpTransport::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "{}", udp.local_addr()?.port())?;
    match what {
        "plain" => Server::builder(Coap).with_transport(udp)?.serve(answer)?,
        "signed" => Server::builder(signed()?)
            .with_transport(udp)?
            .serve(Answering)?,
        _ => {
            let dtls = Dtls::builder().psk(|_: &[u8]| Some(KEY.into())).wrap(udp)?;
            Server::builder(Coap).with_transport(dtls)?.serve(answer)?
        }
    };
    Ok(())
}

fn signed() -> Result<Signed<Coap>, Box<dyn Error>> {
    let builder = Signed::builder(Coap).key(SigningKey::new(1, [7; 32]));
    Ok(builder.build(Timestamp::system())?)
}

/// As libcoap's server answers.
fn answer(_: Packet) -> Packet {
    let mut answer = Packet::new();
    answer.header.code = MessageClass::Response(ResponseType::Content);
    answer.add_option(CoapOption::ContentFormat, Vec::new());
    answer.add_option(CoapOption::MaxAge, vec![1]);
    answer.payload = b"Nov 27 04:19:39".to_vec();
    answer
}

/// Behind signatures.
struct Answering;

impl Handler<Signed<Coap>> for Answering {
    fn handle(
        &self,
        request: Packet,
        _: &Context,
        reply: &mut Reply<'_, Signed<Coap>>,
    ) -> Result<(), ReplyError> {
        reply.send(answer(request))
    }
}

/// A server, and a client that asks it.
struct Process {
    kind: Kind,
    child: Child,
    asker: Asker,
}

impl Process {
    fn start(kind: Kind) -> io::Result<Self> {
        let (child, port) = match kind.program() {
            Ok(program) => {
                let port = free_port()?;
                let child = Command::new(program)
                    .args([
                        "-A",
                        "127.0.0.1",
                        "-p",
                        &port.to_string(),
                        "-k",
                        KEY,
                        "-h",
                        "hint",
                    ])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?;
                // Secured requests go to the port above.
                (child, port + u16::from(kind != Kind::LibcoapPlain))
            }
            Err(argument) => {
                let mut child = Command::new(env::current_exe()?)
                    .args(["serve", argument])
                    .stdout(Stdio::piped())
                    .spawn()?;
                let mut line = String::new();
                let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                BufReader::new(stdout).read_line(&mut line)?;
                let port = line.trim().parse().map_err(io::Error::other)?;
                (child, port)
            }
        };
        let asker = Asker::new(kind, ([127, 0, 0, 1], port).into());
        let mut process = Self {
            kind,
            child,
            asker: asker.map_err(|error| io::Error::other(error.to_string()))?,
        };
        // It listens, and there is an association.
        let begun = process.asker.ask(8, 1);
        begun.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(process)
    }

    /// The time that its threads have spent on a processor.
    fn cpu(&self) -> io::Result<Duration> {
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
            total += Duration::from_nanos(nanos.ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(total)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port, above which another is free.
fn free_port() -> io::Result<u16> {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

enum Asker {
    Plain(Client<UdpConnector, Coap>),
    Signed(Client<UdpConnector, Signed<Coap>>),
    Psk(Client<Connector<UdpConnector>, Coap>),
}

impl Asker {
    fn new(kind: Kind, addr: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let patience = Duration::from_secs(20);
        let udp = UdpConnector::default();
        Ok(match kind {
            Kind::Plain | Kind::LibcoapPlain => {
                let builder = Client::builder(Coap).timeout(patience);
                Self::Plain(builder.with_connector(udp, addr)?)
            }
            Kind::Signed => {
                let builder = Client::builder(signed()?).timeout(patience);
                Self::Signed(builder.with_connector(udp, addr)?)
            }
            Kind::Psk | Kind::LibcoapOpenssl | Kind::LibcoapGnutls => {
                let config = ClientConfig::psk("peer", KEY);
                let config = config.retransmit_after(Duration::from_millis(200));
                let builder = Client::builder(Coap).timeout(patience);
                Self::Psk(builder.with_connector(config.connector(udp, &Coap)?, addr)?)
            }
        })
    }

    fn ask(&mut self, requests: u32, at_once: u32) -> Result<(), Box<dyn Error>> {
        macro_rules! ask {
            ($client:expr) => {{
                let (mut sent, mut answered) = (0, 0);
                while answered < requests {
                    while sent < requests && sent - answered < at_once {
                        $client.submit(request())?;
                        sent += 1;
                    }
                    let Some((_, response)) = $client.collect(Wait::Forever) else {
                        return Err("a request is missing".into());
                    };
                    let code = response?.header.code;
                    if code != MessageClass::Response(ResponseType::Content) {
                        return Err(format!("{code:?} in place of content").into());
                    }
                    answered += 1;
                }
            }};
        }
        match self {
            Self::Plain(client) => ask!(client),
            Self::Signed(client) => ask!(client),
            Self::Psk(client) => ask!(client),
        }
        Ok(())
    }
}

fn request() -> Packet {
    let mut request = Packet::new();
    request.header.code = MessageClass::Request(RequestType::Get);
    request.add_option(CoapOption::UriPath, b"time".to_vec());
    request
}

const KEY: &str = "0123456789abcdef";
