use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::core::ClientCore;
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{Connect, ErrorClass};

/// The sockets of a client.
pub(super) enum Sockets<T> {
    /// One for all, opened with the first request.
    Shared(Option<T>),
    /// One for each request.
    Own {
        /// By slot.
        of: Vec<Option<T>>,
        /// The slots that have one.
        open: Vec<usize>,
        resting: Resting<T>,
    },
}

/// Sockets whose requests are over, so that nobody else gets their ports, with the time until when;
/// the oldest first.
pub(super) struct Resting<T> {
    /// An answer may still be on its way to them.
    expected: VecDeque<(Duration, T)>,
    /// Only what the network duplicated may still come to them: the first to be given up.
    answered: VecDeque<(Duration, T)>,
    time: Duration,
    most: usize,
}

/// Why there is no socket for another request.
pub(super) enum NoSocket {
    Error(io::Error),
    /// So many rest that none may be given up.
    Resting(usize),
}

impl<T> Sockets<T> {
    /// At most `most` sockets rest, each for `time`.
    pub(super) fn own(time: Duration, most: usize) -> Self {
        Self::Own {
            of: Vec::new(),
            open: Vec::new(),
            resting: Resting {
                expected: VecDeque::new(),
                answered: VecDeque::new(),
                time,
                most,
            },
        }
    }

    /// Opens the socket for another request, where one is needed.
    pub(super) fn open(
        &mut self,
        connector: &impl Connect<Transport = T>,
        peer: SocketAddr,
        now: Timestamp,
    ) -> Result<Option<T>, NoSocket> {
        match self {
            Self::Shared(Some(_)) => Ok(None),
            Self::Shared(socket) => {
                *socket = Some(connector.connect(peer).map_err(NoSocket::Error)?);
                Ok(None)
            }
            Self::Own { resting, .. } => {
                resting.wake(now);
                if resting.expected.len() >= resting.most {
                    return Err(NoSocket::Resting(resting.expected.len()));
                }
                loop {
                    match connector.connect(peer) {
                        Ok(socket) => return Ok(Some(socket)),
                        // Those that rest may be just the ones too many.
                        Err(error) if is_for_want(&error) && resting.give_up() => {}
                        Err(error) => return Err(NoSocket::Error(error)),
                    }
                }
            }
        }
    }

    /// Gives a slot the socket that was opened for it.
    pub(super) fn give(&mut self, slot: usize, socket: Option<T>) {
        if let Self::Own { of, open, .. } = self {
            if slot >= of.len() {
                of.resize_with(slot + 1, || None);
            }
            of[slot] = socket;
            open.push(slot);
        }
    }

    pub(super) fn of(&mut self, slot: usize) -> Option<&mut T> {
        match self {
            Self::Shared(socket) => socket.as_mut(),
            Self::Own { of, .. } => of.get_mut(slot)?.as_mut(),
        }
    }

    /// The sockets that belong to a slot each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let (of, open) = match self {
            Self::Shared(_) => (&[][..], &[][..]),
            Self::Own { of, open, .. } => (&of[..], &open[..]),
        };
        open.iter()
            .filter_map(|&slot| Some((slot, of[slot].as_ref()?)))
    }

    /// Lays the sockets of requests that have their results to rest.
    pub(super) fn release<C: Codec>(&mut self, now: Timestamp, core: &ClientCore<C>) {
        let Self::Own { of, open, resting } = self else {
            return;
        };
        resting.wake(now);
        open.retain(|&slot| {
            if core.is_in_flight(slot) {
                return true;
            }
            if let Some(socket) = of[slot].take() {
                let until = now.monotonic.saturating_add(resting.time);
                if core.may_be_answered_late(slot) {
                    resting.expected.push_back((until, socket));
                } else if core.was_sent(slot) {
                    resting.answered.push_back((until, socket));
                }
                resting.keep_to_the_limit();
            }
            false
        });
    }

    /// Forgets a shared socket that is gone; the next request opens another.
    pub(super) fn drop_shared(&mut self) {
        if let Self::Shared(socket) = self {
            *socket = None;
        }
    }
}

/// Whether a socket may be had once another is closed: of memory, descriptors (which have no class of
/// their own) or ports there may be too few.
fn is_for_want(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || matches!(
            ErrorClass::classify(error),
            ErrorClass::Resources | ErrorClass::Other
        )
}

impl<T> Resting<T> {
    /// Closes those that have rested long enough.
    fn wake(&mut self, now: Timestamp) {
        for sockets in [&mut self.expected, &mut self.answered] {
            while sockets
                .front()
                .is_some_and(|(until, _)| *until <= now.monotonic)
            {
                sockets.pop_front();
            }
        }
    }

    fn keep_to_the_limit(&mut self) {
        while self.expected.len() + self.answered.len() > self.most && self.give_up() {}
    }

    /// Closes the one for which that is the least risk, if there is such.
    fn give_up(&mut self) -> bool {
        self.answered.pop_front().is_some()
    }
}

impl<T> fmt::Debug for Sockets<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(socket) => write!(f, "Shared({})", u8::from(socket.is_some())),
            Self::Own { open, resting, .. } => {
                let at_rest = resting.expected.len() + resting.answered.len();
                write!(f, "Own({}, {at_rest} resting)", open.len())
            }
        }
    }
}
