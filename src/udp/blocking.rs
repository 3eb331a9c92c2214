//! How receiving waits.

use std::hint;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::event::{self, PollFd, PollFlags, Timespec};

use crate::transport::Wait;

/// Waits for a datagram, and remembers how the socket was left.
#[derive(Debug)]
pub(super) struct Blocking {
    mode: Mode,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The receiving call waits, as long as the socket's own timeout says: one system call.
    #[cfg(unix)]
    Timeout(Timeout),
    /// `poll` waits, and the receiving call does not.
    Poll {
        /// Whether the last call received several datagrams, so that there may be more.
        more: bool,
    },
}

impl Blocking {
    /// For a socket of this process's own. It is in blocking mode, as it was opened.
    #[cfg(unix)]
    #[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
    pub(super) fn owned(_: &UdpSocket) -> io::Result<Self> {
        Ok(Self {
            mode: Mode::Timeout(Timeout::Unknown),
        })
    }

    /// On this system there is no way to receive from a blocking socket, or to send to it, without
    /// waiting.
    #[cfg(not(unix))]
    pub(super) fn owned(socket: &UdpSocket) -> io::Result<Self> {
        Self::adopted(socket)
    }

    /// For a socket that other processes may have too: they share its blocking mode and its timeout
    /// (`open(2)`: both belong to the open file description), and may change them at any time. So
    /// nothing here depends on either, and on unix neither is changed.
    pub(super) fn adopted(socket: &UdpSocket) -> io::Result<Self> {
        if cfg!(not(unix)) {
            socket.set_nonblocking(true)?;
        }
        Ok(Self {
            mode: Mode::Poll { more: false },
        })
    }

    /// Calls `receive` and waits as `wait` says for it to return more than 0. Its argument is
    /// whether it shall block.
    #[inline]
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        wait: Wait,
        mut receive: impl FnMut(bool) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let timeout = match wait {
            Wait::Spin(time) => return spin(time, receive),
            _ => wait.timeout(),
        };
        if timeout == Some(Duration::ZERO) {
            return receive(false);
        }
        match &mut self.mode {
            #[cfg(unix)]
            Mode::Timeout(current) => {
                current.set(socket, timeout)?;
                let received = receive(true)?;
                if received == 0 {
                    // It may have returned early, because a borrower of the descriptor changed its
                    // mode or its timeout.
                    *current = Timeout::Unknown;
                    socket.set_nonblocking(false)?;
                }
                Ok(received)
            }
            Mode::Poll { more } => {
                let mut received = 0;
                if *more {
                    received = receive(false)?;
                }
                if received == 0 {
                    let mut polled = [PollFd::new(socket, PollFlags::IN | SHUT_DOWN)];
                    poll(&mut polled, timeout)?;
                    let ready = polled[0].revents();
                    if !ready.is_empty() {
                        received = receive(false)?;
                    }
                    if received == 0 && ready.intersects(SHUT_DOWN) {
                        return Err(ErrorKind::NotConnected.into());
                    }
                    if received == 0 && ready.contains(PollFlags::ERR) {
                        clear_error_queue(socket);
                    }
                }
                *more = received > 1;
                Ok(received)
            }
        }
    }

    /// After `poll` reported an error on the socket and nothing to receive.
    pub(super) fn on_error(&self, socket: &UdpSocket) {
        if matches!(self.mode, Mode::Poll { .. }) {
            clear_error_queue(socket);
        }
    }
}

/// Turns the queue of extended errors off, which also empties it (`IP_RECVERR`, ip(7)).
///
/// What waits there takes up the receive buffer, and lets `poll` return at once, without end. Another
/// owner of the socket may have turned it on.
#[cfg(target_os = "linux")]
pub(super) fn clear_error_queue(socket: &UdpSocket) {
    // A socket of IPv6 has both.
    let _ = super::syscall::set_option(socket, (libc::IPPROTO_IP, libc::IP_RECVERR), 0);
    let _ = super::syscall::set_option(socket, (libc::IPPROTO_IPV6, libc::IPV6_RECVERR), 0);
}

#[cfg(not(target_os = "linux"))]
pub(super) fn clear_error_queue(_: &UdpSocket) {}

fn spin(time: Duration, mut receive: impl FnMut(bool) -> io::Result<usize>) -> io::Result<usize> {
    let end = Instant::now().checked_add(time);
    loop {
        match receive(false)? {
            0 if end.is_none_or(|end| Instant::now() < end) => hint::spin_loop(),
            received => return Ok(received),
        }
    }
}

/// Waits until one of the sockets is ready; `None` waits without a limit. It may return early.
pub(super) fn poll(sockets: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|time| {
        Timespec::try_from(time.min(LONGEST_POLL)).expect("poll takes the seconds of a day")
    });
    event::poll(sockets, timeout.as_ref())?;
    Ok(())
}

/// What a socket's receive timeout is set to.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
enum Timeout {
    Unknown,
    Never,
    After(Duration),
}

#[cfg(unix)]
impl Timeout {
    /// A timeout that comes nearer with every call, as before a deadline, must not cost a system
    /// call each time. It is halved instead when it has become too long, and fits for as long
    /// again: a wait may end early.
    fn set(&mut self, socket: &UdpSocket, wanted: Option<Duration>) -> io::Result<()> {
        let timeout = match (*self, wanted) {
            (Self::Never, None) => return Ok(()),
            (Self::After(current), Some(wanted)) if current <= wanted && wanted / 2 <= current => {
                return Ok(());
            }
            (Self::After(current), Some(wanted)) if wanted < current && wanted > SHORT => {
                Some(wanted / 2)
            }
            _ => wanted,
        };
        *self = Self::Unknown;
        socket.set_read_timeout(timeout)?;
        *self = timeout.map_or(Self::Never, Self::After);
        Ok(())
    }
}

/// The socket was shut down for receiving: only `poll` reports that, where the call does not wait.
#[cfg(target_os = "linux")]
const SHUT_DOWN: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const SHUT_DOWN: PollFlags = PollFlags::HUP;
/// A timeout of so little is set exactly.
#[cfg(unix)]
const SHORT: Duration = Duration::from_millis(10);
/// Some systems take no more than 2^31 milliseconds. Returning early is allowed.
const LONGEST_POLL: Duration = Duration::from_secs(86_400);
