//! Who waits for what: callers for results, and callers for room in the window.

use std::collections::BTreeMap;
use std::mem;
use std::task::{Poll, Waker};

/// Callers that wait for the results of their requests. A place that was left is used again.
pub(super) struct Waiters<R> {
    places: Vec<Place<R>>,
    free: Vec<usize>,
}

enum Place<R> {
    Free,
    Waiting(Option<Waker>),
    Done(R),
}

impl<R> Waiters<R> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes a place, until its result is [taken](Self::poll) or it is [left](Self::leave).
    pub(super) fn enter(&mut self) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::Free);
            self.places.len() - 1
        });
        self.places[place] = Place::Waiting(None);
        place
    }

    /// Delivers a result. Returns the waker of its caller.
    pub(super) fn finish(&mut self, place: usize, result: R) -> Option<Waker> {
        match mem::replace(&mut self.places[place], Place::Done(result)) {
            Place::Waiting(waker) => waker,
            Place::Free | Place::Done(_) => None,
        }
    }

    /// Takes the result and gives the place back. If it is not there yet, `waker` is woken when it is.
    pub(super) fn poll(&mut self, place: usize, waker: &Waker) -> Poll<R> {
        match mem::replace(&mut self.places[place], Place::Free) {
            Place::Done(result) => {
                self.free.push(place);
                Poll::Ready(result)
            }
            Place::Waiting(_) | Place::Free => {
                self.places[place] = Place::Waiting(Some(waker.clone()));
                Poll::Pending
            }
        }
    }

    /// Gives a place back without its result. Returns whether that is still to come.
    pub(super) fn leave(&mut self, place: usize) -> bool {
        let left = mem::replace(&mut self.places[place], Place::Free);
        self.free.push(place);
        matches!(left, Place::Waiting(_))
    }

    /// Brings every caller that waits a result, and wakes it.
    pub(super) fn finish_all(&mut self, mut result: impl FnMut() -> R) {
        for place in 0..self.places.len() {
            if let Place::Waiting(_) = self.places[place]
                && let Some(waker) = self.finish(place, result())
            {
                waker.wake();
            }
        }
    }
}

/// Callers that wait for room, in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    entered: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Queue {
    /// Whether the caller that has this number, or none yet, is the next one.
    pub(super) fn is_next(&self, number: Option<u64>) -> bool {
        match self.waiting.first_key_value() {
            None => true,
            Some((&first, _)) => number == Some(first),
        }
    }

    /// Puts a caller at the end, if it has no number yet. Returns its number.
    pub(super) fn wait(&mut self, number: Option<u64>, waker: &Waker) -> u64 {
        let number = number.unwrap_or_else(|| {
            self.entered += 1;
            self.entered
        });
        self.waiting.insert(number, waker.clone());
        number
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Wakes the next one.
    pub(super) fn wake_next(&self) {
        if let Some((_, waker)) = self.waiting.first_key_value() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn wake_all(&self) {
        self.waiting.values().for_each(Waker::wake_by_ref);
    }
}
