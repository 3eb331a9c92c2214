//! Standard output and standard error, for threads that may block on them.

use std::io::{self, ErrorKind, Write};
#[cfg(unix)]
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::AsFd;

/// Writes all bytes to a stream that may be non-blocking: what it does not take now, it gets when it
/// has room.
///
/// The error comes with the number of bytes that were written before it.
pub(crate) fn write_all(stream: impl AsFd, mut bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let all = bytes.len();
    while !bytes.is_empty() {
        let result = match rustix::io::write(&stream, bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                continue;
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(rustix::io::Errno::AGAIN) => wait(&stream, PollFlags::OUT),
            Err(error) => Err(error.into()),
        };
        result.map_err(|error| (all - bytes.len(), error))?;
    }
    Ok(())
}

/// Waits until a non-blocking stream has something to read.
pub(crate) fn wait_for_input(stream: impl AsFd) -> io::Result<()> {
    wait(&stream, PollFlags::IN)
}

fn wait(stream: &impl AsFd, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(stream, what)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes to standard output, and leaves nothing in its buffer. It fails if that was closed when the program
/// began (`rejoinder ask hi >&-`).
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    if closed::IS_CLOSED.load(Ordering::Relaxed) {
        return Err(in_output(rustix::io::Errno::BADF.into()));
    }
    write_all(io::stdout(), bytes).map_err(|(_, error)| in_output(error))
}

/// The standard library opens `/dev/null` for a standard stream that is closed, before `main` (so that no file gets
/// its number). Only before that can a closed one be distinguished from one that leads there.
#[cfg(unix)]
mod closed {
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) static IS_CLOSED: AtomicBool = AtomicBool::new(false);

    ctor::declarative::ctor! {
        /// One system call; nothing of the standard library works yet.
        #[ctor(unsafe)]
        fn look() {
            let is_closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
            IS_CLOSED.store(is_closed, Ordering::Relaxed);
        }
    }
}

/// Names the stream in an error. The error of a reader that has gone stays as it is, because no
/// program reports it.
pub(crate) fn in_output(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("standard output: {error}")),
    }
}

/// Standard output as a [`Write`] without a buffer.
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        print(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
