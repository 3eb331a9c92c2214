//! One datagram per system call: on every system, and on Linux where nothing else is to be had.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;

use super::family::Endpoint;
use crate::transport::{Inbox, Meta, Outbox, Outgoing, SendReport, canonical};

/// Receives one datagram; 0 if there is none. With `unsplit`, it may be several, and so is reported as
/// truncated.
pub(super) fn recv(
    socket: &UdpSocket,
    endpoint: &Endpoint,
    inbox: &mut Inbox,
    block: bool,
    unsplit: bool,
) -> io::Result<usize> {
    // The whole buffer: where a datagram does not fit, some systems report no more than that.
    let Some(buffer) = inbox.spare().next() else {
        return Ok(0);
    };
    match sys::recv_from(socket, buffer, block) {
        Ok((len, peer)) => {
            let mut meta = Meta::new(canonical(peer));
            meta.local = endpoint.local;
            meta.local_port = endpoint.port;
            meta.truncated = unsplit;
            inbox.fill(len, meta);
            Ok(1)
        }
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(0),
            _ => Err(error),
        },
    }
}

/// Sends every datagram of the outbox, and waits for none.
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

/// Sends what was not tried yet, until the send buffer is full. Returns whether every datagram was
/// tried.
#[cfg(feature = "tokio")]
pub(super) fn try_send(
    socket: &UdpSocket,
    endpoint: &Endpoint,
    outbox: &Outbox,
    sent: &mut SendReport,
) -> bool {
    for datagram in outbox.iter().skip(sent.sent + sent.failed) {
        match send_one(socket, endpoint, datagram) {
            Ok(()) => sent.sent += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => sent.record_failure(error),
        }
    }
    true
}

#[inline]
pub(super) fn send_one(
    socket: &UdpSocket,
    endpoint: &Endpoint,
    datagram: Outgoing<'_>,
) -> io::Result<()> {
    let to = endpoint.destination(datagram.peer)?;
    loop {
        match sys::send_to(socket, datagram.bytes, to) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(unix)]
mod sys {
    use std::io::{self, ErrorKind};
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use rustix::net::{self, RecvFlags, SendFlags};

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

    #[inline]
    pub(super) fn send_to(
        socket: &UdpSocket,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        match to {
            Some(to) => net::sendto(socket, bytes, SendFlags::DONTWAIT, &to)?,
            None => net::send(socket, bytes, SendFlags::DONTWAIT)?,
        };
        Ok(())
    }

    /// Stands for a sender that has no IP address. Nothing can be sent there.
    const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
}

#[cfg(not(unix))]
mod sys {
    use std::io;
    use std::net::{SocketAddr, UdpSocket};

    // The socket is non-blocking: there is no way to ask for that in a single call.

    pub(super) fn recv_from(
        socket: &UdpSocket,
        buffer: &mut [u8],
        _: bool,
    ) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(buffer)
    }

    pub(super) fn send_to(
        socket: &UdpSocket,
        bytes: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<()> {
        match to {
            Some(to) => socket.send_to(bytes, to)?,
            None => socket.send(bytes)?,
        };
        Ok(())
    }
}
