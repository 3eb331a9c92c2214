//! One datagram per system call: on every system, and on Linux where nothing else is to be had.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;

use super::family::Endpoint;
use crate::transport::{Inbox, Meta, Outbox, Outgoing, SendReport, canonical};

/// Receives one datagram; 0 if there is none.
pub(super) fn recv(
    socket: &UdpSocket,
    endpoint: &Endpoint,
    inbox: &mut Inbox,
    block: bool,
) -> io::Result<usize> {
    // The whole buffer: where a datagram does not fit, some systems report no more than that.
    let Some(buffer) = inbox.spare().next() else {
        return Ok(0);
    };
    match sys::recv_from(socket, buffer, block) {
        Ok((len, peer)) => {
            let mut meta = Meta::new(canonical(peer));
            meta.local = endpoint.local;
            inbox.fill(len, meta);
            Ok(1)
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(0),
            _ => Err(error),
        },
    }
}

/// Sends every datagram of the outbox.
pub(super) fn send(socket: &UdpSocket, endpoint: &Endpoint, outbox: &Outbox) -> SendReport {
    let mut sent = SendReport::default();
    for datagram in outbox.iter() {
        match send_one(socket, endpoint, datagram) {
            Ok(()) => sent.sent += 1,
            Err(error) => sent.record_failure(error),
        }
    }
    sent
}

#[inline]
fn send_one(socket: &UdpSocket, endpoint: &Endpoint, datagram: Outgoing<'_>) -> io::Result<()> {
    let to = endpoint.destination(datagram.peer)?;
    loop {
        let sent = match to {
            Some(to) => socket.send_to(datagram.bytes, to),
            None => socket.send(datagram.bytes),
        };
        match sent {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
mod sys {
    use std::io::{self, ErrorKind};
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use rustix::net::{self, RecvFlags};

    pub(super) fn recv_from(
        socket: &UdpSocket,
        buffer: &mut [u8],
        block: bool,
    ) -> io::Result<(usize, SocketAddr)> {
        let flags = if block {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        let (len, _, peer) = net::recvfrom(socket, buffer, flags)?;
        match peer {
            // A socket that was shut down for receiving returns nothing from nowhere, without end.
            None if len == 0 => Err(ErrorKind::NotConnected.into()),
            // It was received, so it is counted like everything else, as an invalid source.
            None => Ok((len, NO_ADDRESS)),
            Some(peer) => Ok((len, peer.try_into().unwrap_or(NO_ADDRESS))),
        }
    }

    /// Stands for a sender that has no IP address. Nothing can be sent there.
    const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
}

#[cfg(not(unix))]
mod sys {
    use std::io;
    use std::net::{SocketAddr, UdpSocket};

    /// The socket is non-blocking: there is no way to ask it for a single call.
    pub(super) fn recv_from(
        socket: &UdpSocket,
        buffer: &mut [u8],
        _: bool,
    ) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(buffer)
    }
}
