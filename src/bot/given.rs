use std::sync::{Mutex, PoisonError};

use regex::{CaptureLocations, Regex};
use regex_automata::util::primitives::NonMaxUsize;

use super::groups::Groups;

/// A regular expression that the caller has compiled.
pub(super) struct Given {
    regex: Regex,
    /// What searches for groups need, one for each that has run at the same time. Only workers that search
    /// groups of this rule meet here.
    locations: Mutex<Vec<CaptureLocations>>,
}

impl Given {
    pub(super) fn new(regex: Regex) -> Self {
        Self {
            regex,
            locations: Mutex::default(),
        }
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.regex
    }

    /// The groups up to number `last` of the leftmost match, which begins at `start`.
    pub(super) fn groups<'t>(&self, text: &'t str, start: usize, last: usize) -> Groups<'t> {
        let pool = || {
            self.locations
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let pooled = pool().pop();
        let mut locations = pooled.unwrap_or_else(|| self.regex.capture_locations());
        self.regex.captures_read_at(&mut locations, text, start);
        let mut groups = Groups::new(text, last);
        let slots = groups.slots_mut().chunks_exact_mut(2);
        for (group, slots) in slots.enumerate() {
            if let Some((start, end)) = locations.get(group) {
                slots[0] = NonMaxUsize::new(start);
                slots[1] = NonMaxUsize::new(end);
            }
        }
        pool().push(locations);
        groups
    }
}
