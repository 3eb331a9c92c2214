use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::core::ClientCore;
use crate::clock::Now;
use crate::codec::Codec;
use crate::transport::Connect;

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
        /// Sockets whose requests are over but may still be answered, with the time until which
        /// nobody else shall get their ports; the oldest first.
        retired: VecDeque<(Duration, T)>,
        rest: Duration,
    },
}

impl<T> Sockets<T> {
    pub(super) fn own(rest: Duration) -> Self {
        Self::Own {
            of: Vec::new(),
            open: Vec::new(),
            retired: VecDeque::new(),
            rest,
        }
    }

    /// Opens the socket for another request, where one is needed.
    pub(super) fn open(
        &mut self,
        connector: &impl Connect<Transport = T>,
        peer: SocketAddr,
        now: Now,
    ) -> io::Result<Option<T>> {
        match self {
            Self::Shared(Some(_)) => Ok(None),
            Self::Shared(socket) => {
                *socket = Some(connector.connect(peer)?);
                Ok(None)
            }
            Self::Own { retired, .. } => {
                while retired
                    .front()
                    .is_some_and(|(until, _)| *until <= now.monotonic)
                {
                    retired.pop_front();
                }
                let socket = match connector.connect(peer) {
                    Err(_) if !retired.is_empty() => {
                        // Those that rest may be just the ones too many.
                        retired.clear();
                        connector.connect(peer)
                    }
                    result => result,
                };
                socket.map(Some)
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

    /// Closes or retires the sockets of requests that have their results.
    pub(super) fn release<C: Codec>(&mut self, now: Now, core: &ClientCore<C>) {
        let Self::Own {
            of,
            open,
            retired,
            rest,
        } = self
        else {
            return;
        };
        open.retain(|&slot| {
            if core.is_in_flight(slot) {
                return true;
            }
            if let Some(socket) = of[slot].take()
                && core.may_be_answered_late(slot)
            {
                if retired.len() == MAX_RETIRED {
                    retired.pop_front();
                }
                retired.push_back((now.monotonic.saturating_add(*rest), socket));
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

impl<T> fmt::Debug for Sockets<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(socket) => write!(f, "Shared({})", u8::from(socket.is_some())),
            Self::Own { open, retired, .. } => {
                write!(f, "Own({}, {} retired)", open.len(), retired.len())
            }
        }
    }
}

const MAX_RETIRED: usize = 64;
