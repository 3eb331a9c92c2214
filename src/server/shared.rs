use std::fmt;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "tokio")]
use std::task::Waker;

use super::core::ServerCore;
use super::last_error::LastError;
use super::stats::Stats;

/// What the workers of a server have in common with its handles.
pub(crate) struct Shared {
    shutdown: AtomicBool,
    out_of_service: AtomicBool,
    /// How many workers have not ended.
    running: AtomicUsize,
    workers: Box<[Published]>,
    /// How to wake the workers that are async, and whether there are any: without one, a shutdown
    /// only sets a flag.
    #[cfg(feature = "tokio")]
    wakers: (AtomicBool, Mutex<Vec<(usize, Waker)>>),
}

/// What one worker shows to the handles.
///
/// One lock per batch costs less than one atomic addition per counter and datagram would, and
/// readers see counters that fit together. Two workers do not write to the same cache line.
#[derive(Default)]
#[repr(align(128))]
struct Published(Mutex<Snapshot>);

/// A core's counters and its latest errors.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    stats: Stats,
    last_receive_error: Option<LastError>,
    last_send_error: Option<LastError>,
}

impl Shared {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shutdown: AtomicBool::new(false),
            out_of_service: AtomicBool::new(false),
            running: AtomicUsize::new(workers),
            workers: iter::repeat_with(Published::default)
                .take(workers)
                .collect(),
            #[cfg(feature = "tokio")]
            wakers: (AtomicBool::new(false), Mutex::default()),
        }
    }

    // `SeqCst` here and in `wake_on_shutdown`: the shutdown sees the waker, or the worker the flag.
    pub(crate) fn shut_down(&self) {
        self.shutdown.store(true, Ordering::SeqCst);
        #[cfg(feature = "tokio")]
        if self.wakers.0.load(Ordering::SeqCst) {
            let wakers = std::mem::take(&mut *self.lock_wakers());
            wakers.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Registers how to wake a worker, instead of how it was woken before. The worker looks at
    /// [`is_shutdown`](Self::is_shutdown) after that.
    #[cfg(feature = "tokio")]
    pub(crate) fn wake_on_shutdown(&self, worker: usize, waker: &Waker) {
        let mut wakers = self.lock_wakers();
        match wakers.iter_mut().find(|(index, _)| *index == worker) {
            Some((_, known)) => known.clone_from(waker),
            None => wakers.push((worker, waker.clone())),
        }
        drop(wakers);
        self.wakers.0.store(true, Ordering::SeqCst);
    }

    #[cfg(feature = "tokio")]
    fn lock_wakers(&self) -> impl std::ops::DerefMut<Target = Vec<(usize, Waker)>> + '_ {
        self.wakers.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.out_of_service.store(!ready, Ordering::Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.out_of_service.load(Ordering::Relaxed) && !self.is_shutdown()
    }

    /// Notes that one worker, or one that never began, is over.
    pub(crate) fn worker_finished(&self) {
        self.running.fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    pub(crate) fn publish<C, H, G>(&self, worker: usize, core: &ServerCore<C, H, G>) {
        let mut shown = self.lock(worker);
        shown.stats.clone_from(&core.stats());
        shown.last_receive_error = core.last_receive_error().as_ref().map(LastError::new);
        shown.last_send_error = core.last_send_error().as_ref().map(LastError::new);
    }

    pub(crate) fn stats(&self) -> Stats {
        let workers = 0..self.workers.len();
        workers.map(|worker| self.lock(worker).stats.clone()).sum()
    }

    pub(crate) fn last_receive_error(&self) -> Option<io::Error> {
        let mut workers = 0..self.workers.len();
        workers.find_map(|worker| self.lock(worker).last_receive_error.map(Into::into))
    }

    pub(crate) fn last_send_error(&self) -> Option<io::Error> {
        let mut workers = 0..self.workers.len();
        workers.find_map(|worker| self.lock(worker).last_send_error.map(Into::into))
    }

    fn lock(&self, worker: usize) -> impl std::ops::DerefMut<Target = Snapshot> + '_ {
        self.workers[worker]
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("shutdown", &self.shutdown)
            .finish_non_exhaustive()
    }
}
