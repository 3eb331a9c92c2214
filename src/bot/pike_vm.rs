//! A simulation of a non-deterministic automaton that counts its steps.

use regex_automata::nfa::thompson::{NFA, State};
use regex_automata::util::primitives::{NonMaxUsize, StateID};

use super::budget::{Budget, Exhausted};

/// Follows all states of an automaton at once through a text, each with the places that its groups have
/// so far (Pike's way; see Cox, "Regular Expression Matching: the Virtual Machine Approach", 2009).
///
/// In contrast to the one of `regex-automata`, it stops when a budget is used up. It keeps its memory,
/// which is in proportion to the automaton.
#[derive(Debug, Default)]
pub(super) struct PikeVm {
    now: Threads,
    next: Threads,
    stack: Vec<Frame>,
    /// The groups of the thread that is followed.
    slots: Vec<Option<NonMaxUsize>>,
}

/// States in the order of their priority, each at most once, with the slots of each.
#[derive(Debug, Default)]
struct Threads {
    order: Vec<StateID>,
    /// For each state, its place in `order`, if it is there.
    places: Vec<u32>,
    slots: Vec<Option<NonMaxUsize>>,
}

#[derive(Debug)]
enum Frame {
    Explore(StateID),
    Restore(usize, Option<NonMaxUsize>),
}

impl PikeVm {
    /// Finds the leftmost match, and where its groups lie, as many as there are slots for: group `n` in
    /// the slots `2 n` and `2 n + 1`. If there is no match, the slots stay as they are.
    pub(super) fn search(
        &mut self,
        nfa: &NFA,
        text: &str,
        anywhere: bool,
        found: &mut [Option<NonMaxUsize>],
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        self.run(nfa, text, 0, anywhere, found, budget)
    }

    /// The same for the match that begins at `start`.
    pub(super) fn search_from(
        &mut self,
        nfa: &NFA,
        text: &str,
        start: usize,
        found: &mut [Option<NonMaxUsize>],
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        self.run(nfa, text, start, false, found, budget)
    }

    fn run(
        &mut self,
        nfa: &NFA,
        text: &str,
        from: usize,
        anywhere: bool,
        found: &mut [Option<NonMaxUsize>],
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        self.now.prepare(nfa.states().len(), found.len());
        self.next.prepare(nfa.states().len(), found.len());
        self.slots.clear();
        self.slots.resize(found.len(), None);
        let mut matched = false;
        for at in from..=text.len() {
            let begins = !matched && (at == from || anywhere) && text.is_char_boundary(at);
            if begins {
                self.slots.fill(None);
                let (threads, stack) = (&mut self.now, &mut self.stack);
                let start = nfa.start_anchored();
                threads.follow(nfa, start, text, at, &mut self.slots, stack, budget)?;
            } else if self.now.order.is_empty() && (matched || !anywhere) {
                break;
            }
            for index in 0..self.now.order.len() {
                let state = self.now.order[index];
                let to = match nfa.state(state) {
                    State::ByteRange { trans } => {
                        budget.spend(VISIT)?;
                        trans.matches(text.as_bytes(), at).then_some(trans.next)
                    }
                    State::Sparse(sparse) => {
                        budget.spend(VISIT + sparse.transitions.len() as u64 / 2)?;
                        sparse.matches(text.as_bytes(), at)
                    }
                    State::Dense(dense) => {
                        budget.spend(VISIT)?;
                        dense.matches(text.as_bytes(), at)
                    }
                    State::Match { .. } => {
                        found.copy_from_slice(self.now.slots_of(state, found.len()));
                        matched = true;
                        // All that follow are less preferred.
                        break;
                    }
                    _ => None,
                };
                if let Some(to) = to {
                    let slots = self.now.slots_of(state, found.len());
                    self.slots.copy_from_slice(slots);
                    let (threads, stack) = (&mut self.next, &mut self.stack);
                    threads.follow(nfa, to, text, at + 1, &mut self.slots, stack, budget)?;
                }
            }
            std::mem::swap(&mut self.now, &mut self.next);
            self.next.order.clear();
        }
        Ok(())
    }
}

impl Threads {
    fn prepare(&mut self, states: usize, slots: usize) {
        self.order.clear();
        if self.places.len() < states {
            self.places.resize(states, 0);
        }
        if self.slots.len() < states * slots {
            self.slots.resize(states * slots, None);
        }
    }

    fn slots_of(&self, state: StateID, slots: usize) -> &[Option<NonMaxUsize>] {
        &self.slots[state.as_usize() * slots..][..slots]
    }

    /// Adds a state and all that are reached from it without reading a byte.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one machine, borrowed apart"
    )]
    fn follow(
        &mut self,
        nfa: &NFA,
        from: StateID,
        text: &str,
        at: usize,
        slots: &mut [Option<NonMaxUsize>],
        stack: &mut Vec<Frame>,
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        stack.clear();
        stack.push(Frame::Explore(from));
        while let Some(frame) = stack.pop() {
            let mut state = match frame {
                Frame::Explore(state) => state,
                Frame::Restore(slot, place) => {
                    slots[slot] = place;
                    continue;
                }
            };
            loop {
                budget.spend(VISIT + slots.len() as u64 / 4)?;
                if !self.insert(state) {
                    break;
                }
                state = match nfa.state(state) {
                    State::Look { look, next } => {
                        if !nfa.look_matcher().matches(*look, text.as_bytes(), at) {
                            break;
                        }
                        *next
                    }
                    State::Union { alternates } => {
                        let Some((first, others)) = alternates.split_first() else {
                            break;
                        };
                        budget.spend(others.len() as u64)?;
                        stack.extend(others.iter().rev().map(|state| Frame::Explore(*state)));
                        *first
                    }
                    State::BinaryUnion { alt1, alt2 } => {
                        stack.push(Frame::Explore(*alt2));
                        *alt1
                    }
                    State::Capture { next, slot, .. } => {
                        if let Some(place) = slots.get_mut(slot.as_usize()) {
                            stack.push(Frame::Restore(slot.as_usize(), *place));
                            *place = NonMaxUsize::new(at);
                        }
                        *next
                    }
                    State::Fail => break,
                    State::ByteRange { .. }
                    | State::Sparse(_)
                    | State::Dense(_)
                    | State::Match { .. } => {
                        self.slots[state.as_usize() * slots.len()..][..slots.len()]
                            .copy_from_slice(slots);
                        break;
                    }
                };
            }
        }
        Ok(())
    }

    /// `false` if the state is there already.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "there are at most as many as states, whose numbers have 31 bits"
    )]
    fn insert(&mut self, state: StateID) -> bool {
        let place = self.places[state.as_usize()] as usize;
        if self.order.get(place) == Some(&state) {
            return false;
        }
        self.places[state.as_usize()] = self.order.len() as u32;
        self.order.push(state);
        true
    }
}

/// A visit of a state takes as long as so many steps of a table.
const VISIT: u64 = 4;
