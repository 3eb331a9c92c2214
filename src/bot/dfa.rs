//! A table-driven automaton: one step a byte, whatever the pattern.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{NFA, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Dot, Hir, Repetition};

use super::budget::{Budget, Exhausted};

/// Finds where the leftmost match of a pattern ends, with all states in a table that was built before.
///
/// Building the states while searching takes less memory, but then a request can cause as many as it has
/// bytes, each of which takes as long as a step of a non-deterministic automaton.
pub(super) struct Dfa {
    table: Table,
    start: StateID,
}

type Table = dense::DFA<Vec<u32>>;

/// What a search finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    NoMatch,
    /// The leftmost match ends here.
    End(usize),
    /// There is a character in the text that the table has no room for.
    Unknown,
}

impl Dfa {
    /// `None` if the table would be too large, also if it is for texts of ASCII only.
    pub(super) fn new(hir: &Hir, anywhere: bool, max_bytes: usize) -> Option<Self> {
        // Whole characters, so that an empty match does not split one.
        let skipped = anywhere.then(|| {
            Hir::repetition(Repetition {
                min: 0,
                max: None,
                greedy: false,
                sub: Box::new(Hir::dot(Dot::AnyChar)),
            })
        });
        let whole = Hir::concat(skipped.into_iter().chain([hir.clone()]).collect());
        let config = NFA::config()
            .utf8(true)
            .nfa_size_limit(Some(MAX_NFA_BYTES))
            .which_captures(WhichCaptures::None);
        let nfa = NFA::compiler()
            .configure(config)
            .build_from_hir(&whole)
            .ok()?;
        let full = dense::Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .start_kind(StartKind::Anchored)
            .accelerate(false)
            // On texts of ASCII; at other characters, the search gives up.
            .unicode_word_boundary(true)
            .dfa_size_limit(Some(max_bytes))
            .determinize_size_limit(Some(2 * max_bytes));
        let ascii = || (0x80..=0xff).fold(full.clone(), |config, byte| config.quit(byte, true));
        let table = Self::table(&nfa, full.clone()).or_else(|| Self::table(&nfa, ascii()))?;
        let at_start = start::Config::new().anchored(Anchored::Yes);
        let start = table.start_state(&at_start).ok()?;
        Some(Self { table, start })
    }

    fn table(nfa: &NFA, config: dense::Config) -> Option<Table> {
        let mut builder = dense::Builder::new();
        builder.configure(config).build_from_nfa(nfa).ok()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.table.memory_usage()
    }

    /// Where the leftmost match ends, in bytes.
    #[inline]
    pub(super) fn find_end(&self, text: &str, budget: &mut Budget) -> Result<Search, Exhausted> {
        let limit = usize::try_from(budget.left()).unwrap_or(usize::MAX);
        let mut state = self.start;
        let mut end = None;
        for (at, byte) in text.bytes().enumerate().take(limit) {
            state = self.table.next_state(state, byte);
            if self.table.is_special_state(state) {
                // A match is reported one byte late.
                if self.table.is_match_state(state) {
                    end = Some(at);
                } else if self.table.is_dead_state(state) {
                    budget.spend(at as u64)?;
                    return Ok(end.map_or(Search::NoMatch, Search::End));
                } else if self.table.is_quit_state(state) {
                    budget.spend(at as u64)?;
                    return Ok(Search::Unknown);
                }
            }
        }
        budget.spend(text.len() as u64)?;
        if self.table.is_match_state(self.table.next_eoi_state(state)) {
            end = Some(text.len());
        }
        Ok(end.map_or(Search::NoMatch, Search::End))
    }
}

/// Of an automaton that is larger, the table is, too; trying takes time.
const MAX_NFA_BYTES: usize = 2 << 20;
