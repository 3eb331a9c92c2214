use std::fmt;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::core::Snapshot;
use super::stats::Stats;

/// Stops a [`Server`](super::Server) and reads its counters while it runs.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Client, Server};
/// use std::thread;
///
/// let server = Server::bind("127.0.0.1:0", Text)?;
/// let (addr, handle) = (server.local_addr()?, server.handle());
/// let serving = thread::spawn(move || server.serve(|text: &str| Some(text.to_uppercase())));
///
/// Client::connect(addr, Text)?.request("quiet")?;
/// assert!(handle.last_receive_error().is_none() && handle.last_send_error().is_none());
/// handle.shutdown();
/// serving.join().expect("nothing panics there")?;
/// assert_eq!(handle.stats().replied, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
}

impl ServerHandle {
    /// Asks the server to end. It answers what has arrived already, the system's queue included
    /// (at most 65,536 datagrams per worker), and returns from [`serve`](super::Server::serve):
    /// within half a second, unless a handler keeps it longer.
    ///
    /// All that it does is to set a flag, so a signal handler may call it.
    pub fn shutdown(&self) {
        self.shared.end();
    }

    /// The counters of all workers together, each after its latest batch. They are consistent with
    /// each other.
    pub fn stats(&self) -> Stats {
        self.shared.snapshots().map(|worker| worker.stats).sum()
    }

    /// The latest error in receiving, whenever that was; with several workers, that of one which
    /// had any.
    pub fn last_receive_error(&self) -> Option<io::Error> {
        let mut errors = self
            .shared
            .snapshots()
            .map(|worker| worker.last_receive_error);
        errors.find_map(|error| error.map(Into::into))
    }

    /// The latest error in sending, whenever that was; with several workers, that of one which had
    /// any.
    pub fn last_send_error(&self) -> Option<io::Error> {
        let mut errors = self.shared.snapshots().map(|worker| worker.last_send_error);
        errors.find_map(|error| error.map(Into::into))
    }
}

/// What the workers of a server have in common with its handles.
pub(super) struct Shared {
    stop: AtomicBool,
    workers: Box<[Published]>,
}

/// What one worker shows to the others.
///
/// One lock per batch costs less than one atomic addition per counter and datagram would, and
/// readers see counters that fit together. Two workers do not write to the same line of the cache.
#[derive(Default)]
#[repr(align(128))]
struct Published(Mutex<Snapshot>);

impl Shared {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            workers: iter::repeat_with(Published::default)
                .take(workers)
                .collect(),
        }
    }

    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn publish(&self, worker: usize, snapshot: &Snapshot) {
        *self.workers[worker]
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = *snapshot;
    }

    fn snapshots(&self) -> impl Iterator<Item = Snapshot> {
        let lock = |one: &Published| *one.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.workers.iter().map(lock)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
