//! The small services of every Unix machine of 1983, on ports for everyone:
//!
//! ```text
//! cargo run --example inetd
//! rdate -u -p -o 3737 127.0.0.1
//! ```
//!
//! Responses of these protocols look like requests, so two such servers, one of which gets a packet
//! that is forged to come from the other, can keep a datagram going for ever (CVE-2024-2169). So
//! nothing is answered that comes from a port below 1024, where the like of these services lives, or
//! from a port that one of them has here, be it on another address. Against a server that somebody
//! put on yet another port that does not help; then the rate limit, which is always on, keeps the
//! game slow: 100 datagrams a second.

#[path = "support/service.rs"]
mod service;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};
use rejoinder::{Context, Datagram, Handler, Raw, Reply, ReplyError, ServerBuilder};

const HELP: &str = "\
ECHO, TIME, DAYTIME and QOTD on UDP (RFC 862, 868, 867, 865).

Usage: inetd [--echo ADDRESS] [--time ADDRESS] [--daytime ADDRESS] [--qotd ADDRESS] [--quiet]

Each service that has an address runs there (HOST:PORT, port 0 is any free port). Without any, all
four run on 127.0.0.1, at ports 7007, 3737, 1313 and 1717.

Whatever a datagram says, it is answered, unless it comes from a port below 1024 or from the port of
one of the services; and any one network is answered at most 100 times a second by each.

  -q, --quiet    print nothing
  -h, --help     this text

Ctrl-C ends it.
";

/// What a datagram is answered with.
#[derive(Clone, Copy)]
pub(crate) enum Service {
    Echo,
    Time,
    Daytime,
    Quote,
}

impl Handler<Raw> for Service {
    fn handle(
        &self,
        request: &[u8],
        context: &Context,
        reply: &mut Reply<'_, Raw>,
    ) -> Result<(), ReplyError> {
        let now = context.now.wall;
        match self {
            Self::Echo => reply.send(request),
            Self::Time => reply.send(&seconds_since_1900(now).to_be_bytes()),
            Self::Daytime => reply.send(local_time(now).as_bytes()),
            Self::Quote => {
                // A quote of the day: it changes at midnight, UTC.
                let day = seconds_since_1900(now) / 86_400;
                reply.send(QUOTES[day as usize % QUOTES.len()].as_bytes())
            }
        }
    }
}

fn not_from(ports: &OnceLock<Vec<u16>>, datagram: &Datagram<'_>) -> Result<(), &'static str> {
    match ports.get() {
        Some(ports) if ports.contains(&datagram.meta.peer.port()) => Err("from a port of our own"),
        _ => Ok(()),
    }
}

/// As the inetd of BSD writes it.
fn local_time(time: SystemTime) -> String {
    let time = DateTime::<Local>::from(time);
    format!("{}\r\n", time.format("%a %b %e %H:%M:%S %Y"))
}

/// TIME's 32 bits, which begin again at zero in 2036.
fn seconds_since_1900(time: SystemTime) -> u32 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since_1970.unwrap_or(Duration::ZERO).as_secs() + 2_208_988_800;
    // The low 32 bits.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "era 1 begins with zero again"
    )]
    let seconds = seconds as u32;
    seconds
}

const QUOTES: [&str; 3] = [
    "Be conservative in what you do, be liberal in what you accept from others. -- RFC 761\r\n",
    "With sufficient thrust, pigs fly just fine. -- RFC 1925\r\n",
    "It is always possible to add another level of indirection. -- RFC 1925\r\n",
];

fn main() -> ExitCode {
    let services = [
        ("echo", "127.0.0.1:7007", Service::Echo),
        ("time", "127.0.0.1:3737", Service::Time),
        ("daytime", "127.0.0.1:1313", Service::Daytime),
        ("qotd", "127.0.0.1:1717", Service::Quote),
    ];
    service::main(HELP, &services.map(|(name, ..)| name), |arguments| {
        let all = services
            .iter()
            .all(|(name, ..)| arguments.get(name).is_none());
        let own_ports = Arc::new(OnceLock::new());
        let running: Vec<service::Service> = services
            .into_iter()
            .filter(|(name, ..)| all || arguments.get(name).is_some())
            .map(|(name, addr, it)| {
                let own_ports = Arc::clone(&own_ports);
                let server = ServerBuilder::new(Raw)
                    .blocked_ports(1..1024)
                    .gate(move |datagram: &Datagram<'_>| not_from(&own_ports, datagram));
                arguments.limited_service(name, addr, server, it)
            })
            .collect::<Result<_, _>>()?;
        // Known only now, if one of them was to be any free port. None of them has begun.
        own_ports.get_or_init(|| running.iter().map(|service| service.addr.port()).collect());
        Ok(running)
    })
}
