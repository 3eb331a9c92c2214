//! Where the server's sockets come from: it opens them, or a service manager has.

use std::io;
use std::net::SocketAddr;

#[cfg(unix)]
use listenfd::ListenFd;
use rejoinder::gate::Gate;
#[cfg(unix)]
use rejoinder::udp::UdpOptions;
use rejoinder::udp::UdpTransport;
use rejoinder::{Codec, Server, ServerBuilder, Transport};

use crate::program::{DEFAULT, Failure, resolve, why_not_bound};

/// What the server is to listen on.
pub(crate) enum Sockets {
    /// An address, as it was written and as it was understood, and how many workers are to share it.
    Address(String, Vec<SocketAddr>, usize),
    /// Sockets that are open already, with a worker for each.
    Passed(Vec<UdpTransport>),
}

impl Sockets {
    /// What the arguments say, or the service manager; not both.
    pub(crate) fn find(address: Option<String>, workers: Option<usize>) -> Result<Self, Failure> {
        let passed = passed()?;
        let (count, plural) = match passed.len() {
            0 => {
                let address = address.unwrap_or_else(|| DEFAULT.to_string());
                let addresses = resolve(&address)?;
                return Ok(Self::Address(address, addresses, workers.unwrap_or(1)));
            }
            1 => (1, ""),
            count => (count, "s"),
        };
        if let Some(address) = address {
            return Err(Failure::Usage(format!(
                "cannot listen on {address}: the service manager has opened {count} socket{plural} \
                 for this server already; leave the address to it"
            )));
        }
        if let Some(workers) = workers
            && workers != count
        {
            return Err(Failure::Usage(format!(
                "--workers `{workers}`: the service manager has opened {count} \
                 socket{plural}, and each has one worker"
            )));
        }
        Ok(Self::Passed(passed))
    }

    /// Whether nobody but this machine can reach them.
    pub(crate) fn are_local(&self) -> io::Result<bool> {
        Ok(match self {
            Self::Address(_, addresses, _) => addresses.iter().all(|addr| addr.ip().is_loopback()),
            Self::Passed(transports) => addresses_of(transports)?
                .iter()
                .all(|addr| addr.ip().is_loopback()),
        })
    }

    /// A server on them.
    pub(crate) fn serve<C: Codec + Clone, G: Gate + Clone>(
        self,
        builder: ServerBuilder<C, G>,
    ) -> Result<Listening<C, G>, Failure> {
        match self {
            Self::Address(address, addresses, workers) => {
                let server = builder
                    .workers(workers)
                    .bind(&addresses[..])
                    .map_err(|error| Failure::RunTime(why_not_bound(&address, &error.into())))?;
                let addresses = vec![server.local_addr()?];
                Ok(Listening { server, addresses })
            }
            Self::Passed(transports) => {
                let addresses = addresses_of(&transports)?;
                let server = builder.with_transports(transports)?;
                Ok(Listening { server, addresses })
            }
        }
    }
}

/// A server, and everywhere it can be asked at.
pub(crate) struct Listening<C, G> {
    pub(crate) server: Server<UdpTransport, C, G>,
    pub(crate) addresses: Vec<SocketAddr>,
}

fn addresses_of(transports: &[UdpTransport]) -> io::Result<Vec<SocketAddr>> {
    transports.iter().map(Transport::local_addr).collect()
}

/// The sockets that a service manager has opened, as systemd passes them (`sd_listen_fds(3)`).
/// Their buffers are not made smaller.
#[cfg(unix)]
fn passed() -> Result<Vec<UdpTransport>, Failure> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    let options = UdpOptions::new();
    (0..count)
        .map(|index| match passed.take_udp_socket(index) {
            Ok(Some(socket)) => Ok(options.adopt(socket).map_err(io::Error::from)?),
            _ => Err(Failure::RunTime(format!(
                "socket {} of {count} that the service manager passed is no UDP socket: a socket \
                 unit needs ListenDatagram=, systemd-socket-activate needs --datagram",
                index + 1
            ))),
        })
        .collect()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn passed() -> Result<Vec<UdpTransport>, Failure> {
    Ok(Vec::new())
}
