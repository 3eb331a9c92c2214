use std::cell::Cell;
use std::ops::Range;

use regex_automata::nfa::thompson::backtrack::{self, BoundedBacktracker};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::Hir;

use super::budget::{Budget, Exhausted};
use super::dfa::{Dfa, Search};
use super::groups::Groups;
use super::pike_vm::PikeVm;

/// The automata of one pattern: each finds the same, and says what it costs before or while it does.
pub(super) struct Automata {
    /// Finds where a match ends. `None` if its table would be too large.
    dfa: Option<Dfa>,
    /// Finds groups, where that takes little. It has the automaton that all else is made of.
    backtracker: BoundedBacktracker,
    /// How long every match is, if they are of one length.
    match_bytes: Option<usize>,
}

impl Automata {
    pub(super) fn new(
        nfa: NFA,
        hir: &Hir,
        anywhere: bool,
        max_table_bytes: usize,
    ) -> Result<Self, Box<thompson::BuildError>> {
        let properties = hir.properties();
        let (min, max) = (properties.minimum_len(), properties.maximum_len());
        let config = BoundedBacktracker::config().visited_capacity(MAX_VISITED.div_ceil(8));
        let mut builder = BoundedBacktracker::builder();
        Ok(Self {
            dfa: Dfa::new(hir, anywhere, max_table_bytes),
            match_bytes: min.filter(|_| min == max),
            backtracker: builder
                .configure(config)
                .build_from_nfa(nfa)
                .map_err(Box::new)?,
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let dfa = self.dfa.as_ref().map_or(0, Dfa::memory_bytes);
        size_of::<Self>() + dfa + self.nfa().memory_usage()
    }

    fn nfa(&self) -> &NFA {
        self.backtracker.get_nfa()
    }

    /// Where the leftmost match begins, if that is known, and ends.
    #[inline]
    pub(super) fn find(
        &self,
        text: &str,
        anywhere: bool,
        budget: &mut Budget,
    ) -> Result<Option<(Option<usize>, usize)>, Exhausted> {
        if let Some(dfa) = &self.dfa {
            match dfa.find_end(text, budget)? {
                Search::NoMatch => return Ok(None),
                Search::End(end) if anywhere => {
                    return Ok(Some((self.match_bytes.map(|bytes| end - bytes), end)));
                }
                Search::End(end) => return Ok(Some((Some(0), end))),
                Search::Unknown => {}
            }
        }
        let found = self.simulate(text, anywhere, budget)?;
        Ok(found.map(|(start, end)| (Some(start), end)))
    }

    /// Where the leftmost match begins in a text that has one.
    pub(super) fn start(&self, text: &str, budget: &mut Budget) -> Result<usize, Exhausted> {
        let found = self.simulate(text, true, budget)?;
        Ok(found.expect("the text has a match").0)
    }

    #[inline(never)]
    fn simulate(
        &self,
        text: &str,
        anywhere: bool,
        budget: &mut Budget,
    ) -> Result<Option<(usize, usize)>, Exhausted> {
        let mut slots = [None; 2];
        with_scratch(|scratch| {
            let vm = &mut scratch.pike_vm;
            vm.search(self.nfa(), text, anywhere, &mut slots, budget)
        })?;
        match slots {
            [Some(start), Some(end)] => Ok(Some((start.get(), end.get()))),
            _ => Ok(None),
        }
    }

    /// Whether the groups up to number `last` of a match are found within the budget.
    pub(super) fn spend_for_groups(
        &self,
        text: &str,
        matched: Range<usize>,
        last: usize,
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        if let Some(visits) = self.backtracker_visits(&matched) {
            return budget.spend(visits);
        }
        let mut groups = Groups::new(text, last);
        self.simulate_groups(text, matched.start, &mut groups, budget)
    }

    /// How often the backtracker visits a state at most, if it has room for that.
    fn backtracker_visits(&self, matched: &Range<usize>) -> Option<u64> {
        let visits = (matched.len() + 1) * self.nfa().states().len();
        (visits <= MAX_VISITED).then_some(visits as u64)
    }

    pub(super) fn groups<'t>(
        &self,
        text: &'t str,
        matched: Range<usize>,
        last: usize,
    ) -> Groups<'t> {
        let mut groups = Groups::new(text, last);
        if self.backtracker_visits(&matched).is_some() {
            let input = Input::new(text).range(matched).anchored(Anchored::Yes);
            with_scratch(|scratch| {
                let cache = scratch
                    .backtrack
                    .get_or_insert_with(|| self.backtracker.create_cache());
                cache.reset(&self.backtracker);
                let slots = groups.slots_mut();
                let found = self.backtracker.try_search_slots(cache, &input, slots);
                debug_assert!(matches!(found, Ok(Some(_))), "there is a match: {found:?}");
            });
        } else {
            let mut unlimited = Budget::unlimited();
            let found = self.simulate_groups(text, matched.start, &mut groups, &mut unlimited);
            debug_assert!(found.is_ok(), "without a limit");
        }
        groups
    }

    /// Finds the groups of the match that begins at `start`.
    fn simulate_groups(
        &self,
        text: &str,
        start: usize,
        groups: &mut Groups<'_>,
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        with_scratch(|scratch| {
            let (vm, slots) = (&mut scratch.pike_vm, groups.slots_mut());
            vm.search_from(self.nfa(), text, start, slots, budget)
        })
    }
}

/// What searches need, kept by each thread, so that a robot that has warmed up allocates nothing.
#[derive(Default)]
struct Scratch {
    pike_vm: PikeVm,
    backtrack: Option<backtrack::Cache>,
}

fn with_scratch<T>(search: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = search(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The backtracker remembers so many visits of a state at a place, in a bit each. What may take more is left
/// to the simulation, which takes longer for each visit, but counts those that there are.
const MAX_VISITED: usize = 1 << 17;
