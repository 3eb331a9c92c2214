use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::transport::AsyncTransport;
use crate::timestamp::Timestamp;
use crate::transport::{Inbox, Outbox, SendReport, Transport, Wait};
use crate::udp::UdpTransport;

/// A UDP socket as an [`AsyncTransport`], on tokio.
///
/// It moves datagrams as a [`UdpTransport`] does, on Linux many per system call. Readiness comes from a
/// second descriptor of the same socket, which tokio watches: one more descriptor per socket, and no
/// unsafe code.
///
/// A send never waits: a datagram for which the send buffer has no room fails with
/// [`WouldBlock`](ErrorKind::WouldBlock). One absent neighbour can fill the buffer for seconds, and a
/// server's other peers would wait with it. A socket that a client opened through
/// [`UdpConnector`](crate::udp::UdpConnector) has one peer, so it waits for room.
///
/// ```
/// use rejoinder::aio::{AsyncTransport, AsyncUdp};
/// use rejoinder::udp::UdpTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
/// assert_ne!(transport.local_addr()?.port(), 0);
/// # Ok(())
/// # }
/// ```
pub struct AsyncUdp {
    udp: UdpTransport,
    socket: Arc<UdpSocket>,
    readable: Readable,
    waits_for_room: bool,
}

impl AsyncUdp {
    /// Registers a socket with the runtime. The socket does not block from now on.
    ///
    /// # Errors
    ///
    /// Those of the OS: when there is no descriptor left, say.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn new(udp: UdpTransport) -> io::Result<Self> {
        #[cfg(unix)]
        let watched: std::net::UdpSocket = udp.as_fd().try_clone_to_owned()?.into();
        #[cfg(windows)]
        let watched: std::net::UdpSocket = udp.as_socket().try_clone_to_owned()?.into();
        watched.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(watched)?);
        Ok(Self {
            readable: Readable::new(Arc::clone(&socket)),
            socket,
            udp,
            waits_for_room: false,
        })
    }

    /// The same, with sends that wait until the send buffer has room: for a socket with one peer.
    pub(super) fn waiting_for_room(udp: UdpTransport) -> io::Result<Self> {
        Ok(Self {
            waits_for_room: true,
            ..Self::new(udp)?
        })
    }
}

impl AsyncUdp {
    /// Receives, if tokio has seen that it is worth trying.
    fn recv_if(&mut self, interest: Interest, inbox: &mut Inbox) -> io::Result<usize> {
        let Self { udp, socket, .. } = self;
        let mut received = Ok(0);
        // Where the closure returns `WouldBlock`, tokio forgets the readiness, unless it was reported
        // again meanwhile. What matters of the result is in `received`.
        let _ = socket.try_io(interest, || {
            let is_empty;
            (received, is_empty) = udp.try_recv(inbox);
            match received {
                // An empty queue, which would be what the next call reports.
                Ok(datagrams) if datagrams == 0 || is_empty => Err(ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        received
    }
}

impl AsyncTransport for AsyncUdp {
    fn poll_recv(&mut self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        for _ in 0..FALSE_ALARMS {
            // tokio takes one kind of readiness at a time here.
            for interest in [Interest::READABLE, Interest::ERROR] {
                match self.recv_if(interest, inbox) {
                    Ok(0) => {}
                    received => return Poll::Ready(received),
                }
            }
            let is_closed = ready!(self.readable.poll(cx))?;
            if is_closed {
                // Closed is what the socket stays, and a call that does not wait does not report it.
                return Poll::Ready(match self.try_recv(inbox) {
                    Ok(0) => Err(ErrorKind::NotConnected.into()),
                    received => received,
                });
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn try_recv(&mut self, inbox: &mut Inbox) -> io::Result<usize> {
        self.udp.recv(inbox, Wait::No)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        report: &mut SendReport,
    ) -> Poll<()> {
        if !self.waits_for_room {
            *report = self.udp.send(outbox);
            return Poll::Ready(());
        }
        loop {
            // Whether the socket is writable is known before the call: an event that comes while it
            // runs is not forgotten.
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                if self.udp.try_send(outbox, report) {
                    Ok(())
                } else {
                    Err(ErrorKind::WouldBlock.into())
                }
            });
            if sent.is_ok() {
                return Poll::Ready(());
            }
            if ready!(self.socket.poll_send_ready(cx)).is_err() {
                // The runtime is being shut down: the rest is lost.
                for _ in report.sent + report.failed..outbox.len() {
                    report.record_failure(ErrorKind::NotConnected.into());
                }
                return Poll::Ready(());
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Transport::local_addr(&self.udp)
    }

    fn is_local_ip(addr: SocketAddr) -> bool {
        <UdpTransport as Transport>::is_local_ip(addr)
    }

    fn kernel_drops(&self) -> u64 {
        Transport::kernel_drops(&self.udp)
    }

    fn now(&self) -> Timestamp {
        Transport::now(&self.udp)
    }
}

impl fmt::Debug for AsyncUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncUdp").field(&self.udp).finish()
    }
}

/// Waits until a socket has a datagram or an error to receive.
///
/// Of an error that a peer caused, the kernel reports `EPOLLERR` and nothing else, for which
/// `poll_recv_ready` does not wake. Only the future of `ready` does. It is kept from one wait to the
/// next in a future that never ends, so that waiting allocates nothing.
struct Readable {
    watch: Pin<Box<dyn Future<Output = ()> + Send>>,
    state: Arc<AtomicU8>,
}

impl Readable {
    fn new(socket: Arc<UdpSocket>) -> Self {
        let state = Arc::new(AtomicU8::new(WAITING));
        let report = Arc::clone(&state);
        let watch = async move {
            loop {
                let ready = socket.ready(RECEIVE).await;
                let seen = match ready {
                    Ok(ready) if ready.is_read_closed() => CLOSED,
                    Ok(_) => READY,
                    Err(_) => GONE,
                };
                report.store(seen, Ordering::Relaxed);
                Pause(false).await;
            }
        };
        Self {
            watch: Box::pin(watch),
            state,
        }
    }

    /// Ready with whether the socket was shut down.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Poll::Pending = self.watch.as_mut().poll(cx) else {
            unreachable!("the loop does not end")
        };
        match self.state.swap(WAITING, Ordering::Relaxed) {
            WAITING => Poll::Pending,
            READY => Poll::Ready(Ok(false)),
            CLOSED => Poll::Ready(Ok(true)),
            // The runtime is being shut down.
            _ => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

/// Pending once, without a wake-up: the caller polls again by itself.
struct Pause(bool);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        Poll::Pending
    }
}

/// What wakes a receiver.
const RECEIVE: Interest = Interest::READABLE.add(Interest::ERROR);
const WAITING: u8 = 0;
const READY: u8 = 1;
const CLOSED: u8 = 2;
const GONE: u8 = 3;
/// How often in a row a socket may seem ready that is not, before other tasks have a turn.
const FALSE_ALARMS: u32 = 3;
