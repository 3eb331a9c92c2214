//! How receiving waits.

use std::hint;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

#[cfg(not(unix))]
use rustix::event::PollFlags;
use rustix::event::{self, PollFd, Timespec};

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
    /// `poll` waits, and the socket is non-blocking: there is no way to receive from a blocking
    /// one without waiting.
    #[cfg(not(unix))]
    Poll,
}

impl Blocking {
    #[cfg(unix)]
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        Ok(Self {
            mode: Mode::Timeout(Timeout::Unknown),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { mode: Mode::Poll })
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
                receive(true)
            }
            #[cfg(not(unix))]
            Mode::Poll => {
                poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout)?;
                receive(false)
            }
        }
    }
}

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

/// A timeout of so little is set exactly.
#[cfg(unix)]
const SHORT: Duration = Duration::from_millis(10);
/// Some systems take no more than 2^31 milliseconds. Returning early is allowed.
const LONGEST_POLL: Duration = Duration::from_secs(86_400);
