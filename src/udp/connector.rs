use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rustix::event::{PollFd, PollFlags};

use super::blocking::poll;
use super::open::open_for;
use super::options::UdpOptions;
use super::transport::{Owner, UdpTransport};
use crate::transport::{Connect, Wait, canonical};

/// Opens UDP sockets for a client, each connected to one peer on a free local port.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::udp::{UdpConnector, UdpOptions};
/// use rejoinder::Client;
///
/// let connector = UdpConnector::from(UdpOptions::new().portable());
/// let client = Client::new(connector, Text, "127.0.0.1:9999".parse()?);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UdpConnector {
    options: UdpOptions,
}

impl From<UdpOptions> for UdpConnector {
    fn from(options: UdpOptions) -> Self {
        Self { options }
    }
}

impl Connect for UdpConnector {
    type Transport = UdpTransport;

    /// Fails for an unspecified address: a server can be bound to it, but none answers from it.
    ///
    /// A socket for a group, a multicast or a broadcast address, is not connected: those who answer have
    /// addresses of their own. A broadcast address must be [allowed](UdpOptions::broadcast).
    fn connect(&self, peer: SocketAddr) -> io::Result<UdpTransport> {
        self.options.check()?;
        let peer = canonical(peer);
        if peer.ip().is_unspecified() {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("cannot connect to {}: it is no peer's address", peer.ip()),
            ));
        }
        let socket = open_for(peer)?;
        if !peer.ip().is_multicast() {
            match socket.connect(peer) {
                // So the OS refuses a broadcast address, which only it knows as one.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && self.options.allows_broadcast() => {}
                connected => connected?,
            }
        }
        self.options.set_up(socket, Owner::Transport)
    }

    fn wait_any(
        &self,
        transports: &[&UdpTransport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let mut sockets: Vec<_> = transports
            .iter()
            .map(|transport| PollFd::new(*transport, PollFlags::IN))
            .collect();
        poll(&mut sockets, wait.timeout())?;
        for (index, (polled, transport)) in sockets.iter().zip(transports).enumerate() {
            let events = polled.revents();
            if events == PollFlags::ERR {
                transport.on_error();
            }
            if !events.is_empty() {
                ready.push(index);
            }
        }
        Ok(())
    }
}
