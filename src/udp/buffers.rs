//! The sizes of a socket's buffers.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Asks for a buffer of `bytes`, if that makes it larger or the socket is this process's own; 0 asks
/// for nothing.
pub(super) fn enlarge(
    socket: &UdpSocket,
    buffer: Buffer,
    bytes: usize,
    adopted: bool,
) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if bytes > 0 && (!adopted || buffer.would_grow(&socket, bytes)?) {
        buffer.ask_for(&socket, bytes);
    }
    Ok(())
}

/// One of the two buffers of a socket.
#[derive(Clone, Copy)]
pub(super) struct Buffer {
    size: fn(&Socket) -> io::Result<usize>,
    set_size: fn(&Socket, usize) -> io::Result<()>,
}

impl Buffer {
    /// Whether asking for `bytes` makes it larger. A process with more rights may have set it to more
    /// than the kernel grants to this one, which shows on a socket that nothing else has.
    fn would_grow(&self, socket: &Socket, bytes: usize) -> io::Result<bool> {
        let domain = Domain::for_address(
            socket
                .local_addr()?
                .as_socket()
                .ok_or(ErrorKind::InvalidInput)?,
        );
        let trial = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        self.ask_for(&trial, bytes);
        Ok((self.size)(&trial)? > (self.size)(socket)?)
    }

    /// Asks for `bytes`, or as much of it as is granted.
    fn ask_for(&self, socket: &Socket, mut bytes: usize) {
        // Linux grants what it may. Other systems refuse what is too much.
        while bytes > 0 && (self.set_size)(socket, bytes).is_err() {
            bytes /= 2;
        }
    }
}

pub(super) const RECEIVE: Buffer = Buffer {
    size: Socket::recv_buffer_size,
    set_size: Socket::set_recv_buffer_size,
};
pub(super) const SEND: Buffer = Buffer {
    size: Socket::send_buffer_size,
    set_size: Socket::set_send_buffer_size,
};
