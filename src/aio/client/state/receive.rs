//! What the driver receives on the client's sockets.

use std::io;
use std::mem;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{SOCKET_GROUPS, State};
use crate::aio::connect::AsyncConnect;
use crate::aio::transport::AsyncTransport;
use crate::codec::Codec;
use crate::panics::quietly;

/// What came of a look at a socket.
#[derive(Clone, Copy, Default)]
struct Looked {
    received: bool,
    is_unfinished: bool,
}

impl<N: AsyncConnect, C: Codec> State<N, C> {
    /// Receives on the sockets that were woken. Returns whether anything came.
    pub(super) fn receive(&mut self, left: &mut usize) -> bool {
        self.has_new_socket = false;
        let mut woken = mem::take(&mut self.ready);
        self.wakes.drain(&mut woken);
        let is_listed = &mut self.is_listed;
        woken.retain(|&group| !mem::replace(&mut is_listed[group as usize], true));
        for &group in &woken {
            self.is_listed[group as usize] = false;
        }
        let now = self.connector.now().monotonic;
        let mut received = false;
        let (mut looked_at, mut unfinished) = (0, Vec::new());
        for &group in &woken {
            if *left == 0 {
                break;
            }
            looked_at += 1;
            let mut is_unfinished = false;
            for index in (group as usize..self.sockets.len()).step_by(SOCKET_GROUPS) {
                let looked = self.receive_on(index, now, left);
                received |= looked.received;
                is_unfinished |= looked.is_unfinished;
            }
            if is_unfinished {
                unfinished.push(group);
            }
        }
        // Those that there was no time for come before those that had some and want more.
        woken.drain(..looked_at);
        woken.append(&mut unfinished);
        debug_assert!(woken.len() <= SOCKET_GROUPS, "each group once");
        self.ready = woken;
        received
    }

    fn receive_on(&mut self, index: usize, now: Duration, left: &mut usize) -> Looked {
        let mut looked = Looked::default();
        loop {
            let Some(socket) = self.sockets[index].as_mut().filter(|one| one.is_listening) else {
                return looked;
            };
            if *left == 0 || socket.paused_until.is_some_and(|until| until > now) {
                looked.is_unfinished = true;
                return looked;
            }
            socket.paused_until = None;
            *left -= 1;
            let mut cx = Context::from_waker(&socket.waker);
            let Poll::Ready(received) = socket.transport.poll_recv(&mut cx, &mut self.inbox) else {
                return looked;
            };
            looked.received = true;
            let (id, now) = (socket.id, socket.transport.now());
            if let Err(error) = received {
                let pause = self.core.on_receive_error(now, id, &error);
                if !pause.is_zero() {
                    socket.paused_until = Some(now.monotonic.saturating_add(pause));
                }
                // A socket that is gone reports it for ever.
                if error.kind() == io::ErrorKind::NotConnected {
                    socket.is_listening = false;
                }
            }
            // A codec that panics on a datagram, which is out of the inbox by then, must not end the driver
            // and all requests with it.
            while !self.inbox.is_empty() {
                quietly(|| self.core.on_receive(now, id, &mut self.inbox));
            }
        }
    }
}
