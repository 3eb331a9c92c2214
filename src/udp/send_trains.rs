//! The trains of an outbox, handed to the kernel.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::UdpSocket;
use std::ops::Range;

use super::family::Endpoint;
use super::gso::{Plan, SendTrains, Train};
use super::kernel::is_forbidden;
use super::syscall::{self, Call, Calls, Header, MAX_MESSAGES};
use super::{cmsg, fallback, sockaddr};
use crate::transport::Outbox;

/// Sends trains with the calls that are allowed.
pub(super) struct KernelSender<'a> {
    pub(super) socket: &'a UdpSocket,
    pub(super) endpoint: &'a Endpoint,
    pub(super) outbox: &'a Outbox,
    pub(super) headers: &'a mut Vec<Header>,
    /// Becomes less when a filter turns out to forbid one.
    pub(super) calls: Calls,
    /// Whether the kernel takes where to send from.
    pub(super) source: bool,
}

impl SendTrains for KernelSender<'_> {
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize> {
        let (arena, queued) = self.outbox.parts();
        let most = if self.calls.many { MAX_MESSAGES } else { 1 };
        let trains = &plan.trains[index..];
        let most = most.min(trains.len());
        let mut ready = 0;
        for (header, train) in Header::at_least(self.headers, most).iter_mut().zip(trains) {
            let first = &queued[train.first];
            header.address_len = match self.endpoint.destination(first.peer) {
                Ok(Some(addr)) => sockaddr::encode(addr, &mut header.address),
                Ok(None) => 0,
                Err(error) if ready == 0 => return Err(error),
                Err(_) => break,
            };
            let source = if self.source {
                self.endpoint.source(first.egress, first.peer)
            } else {
                None
            };
            header.control_len = cmsg::encode(&mut header.control, train.segment_bytes, source);
            ready += 1;
        }
        loop {
            if self.calls == Calls::NONE {
                return self.send_single(&trains[0]);
            }
            let slices = |train: &Train| -> &[Range<usize>] { &plan.slices[train.slices.clone()] };
            let ready = self.headers[..ready].iter();
            let messages = ready.zip(trains.iter().map(slices));
            let sent = syscall::send(self.socket, arena, messages, self.calls);
            match sent {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if syscall::is_refusal(&error) && self.find_forbidden() => {}
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                sent => return sent,
            }
        }
    }
}

impl KernelSender<'_> {
    /// Finds out which calls of sending a filter has come to forbid; `false` if none.
    #[cold]
    fn find_forbidden(&mut self) -> bool {
        let left = Calls {
            one: self.calls.one && !is_forbidden(Call::Sendmsg),
            many: self.calls.many && !is_forbidden(Call::Sendmmsg),
        };
        mem::replace(&mut self.calls, left) != left
    }

    /// Sends a train of one datagram by the fallback, which cannot segment.
    #[cold]
    fn send_single(&self, train: &Train) -> io::Result<usize> {
        if train.segment_bytes.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let datagram = self.outbox.iter().nth(train.first);
        let datagram = datagram.expect("a train is made of what is queued");
        fallback::send_one(self.socket, self.endpoint, datagram).map(|()| 1)
    }
}
