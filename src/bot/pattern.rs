use std::collections::HashMap;
use std::fmt;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Anchored, Input, PatternID, meta};
use regex_syntax::hir::{Hir, HirKind};

/// A regular expression that matches only at the very beginning.
#[derive(Clone)]
pub(super) struct Pattern {
    source: String,
    regex: meta::Regex,
    /// Finds where the match ends, like `regex`, without the time that it takes to choose an
    /// engine. Not there if it would be large, or the pattern is beyond it (Unicode's `\b`).
    dfa: Option<dense::DFA<Vec<u32>>>,
    /// Where each group lies, if that follows from where the whole match lies.
    margins: Vec<Option<Margins>>,
}

impl Pattern {
    pub(super) fn new(source: &str) -> Result<Self, String> {
        // The search is anchored, not the pattern: neither a flag, nor a comment, nor an
        // alternation in it can reach beyond it.
        let hir = regex_syntax::parse(source).map_err(|error| error.to_string())?;
        let regex = meta::Builder::new()
            .configure(meta::Config::new().nfa_size_limit(Some(MAX_NFA_BYTES)))
            .build_from_hir(&hir)
            .map_err(|error| error.to_string())?;
        let known = fixed_margins(&hir);
        Ok(Self {
            source: source.into(),
            dfa: build_dfa(&hir),
            // `captures_len` leaves out groups that are repeated zero times, but not their numbers.
            margins: (0..regex.group_info().group_len(PatternID::ZERO))
                .map(|group| known.get(&group).copied())
                .collect(),
            regex,
        })
    }

    pub(super) fn has_group(&self, group: usize) -> bool {
        group < self.margins.len()
    }

    pub(super) fn group_named(&self, name: &str) -> Option<usize> {
        self.regex.group_info().to_index(PatternID::ZERO, name)
    }

    /// How much of the text matches, in bytes.
    #[inline]
    pub(super) fn match_len(&self, text: &str) -> Option<usize> {
        let input = Input::new(text).anchored(Anchored::Yes);
        if let Some(dfa) = &self.dfa
            && let Ok(end) = dfa.try_search_fwd(&input)
        {
            return end.map(|end| end.offset());
        }
        self.regex.search_half(&input).map(|end| end.offset())
    }

    /// Where a group lies in every match, if that is known.
    #[inline]
    pub(super) fn margins(&self, group: usize) -> Option<Margins> {
        self.margins[group]
    }

    /// Finds the groups up to number `last` in a text that matches.
    pub(super) fn groups<'t>(&self, text: &'t str, last: usize) -> Groups<'t> {
        let mut groups = Groups {
            text,
            few: [None; 2 * FEW_GROUPS],
            many: Vec::new(),
        };
        let slots = 2 * (last + 1);
        let slots = if slots <= groups.few.len() {
            &mut groups.few[..slots]
        } else {
            groups.many.resize(slots, None);
            &mut groups.many
        };
        self.regex
            .search_slots(&Input::new(text).anchored(Anchored::Yes), slots);
        groups
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source).finish()
    }
}

/// How far a group lies from the ends of the match that it is in, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Margins {
    before: usize,
    after: usize,
}

impl Margins {
    #[inline]
    pub(super) fn within<'t>(&self, matched: &'t str) -> &'t str {
        &matched[self.before..matched.len() - self.after]
    }
}

/// What the groups of a pattern matched.
pub(super) struct Groups<'t> {
    text: &'t str,
    few: [Option<NonMaxUsize>; 2 * FEW_GROUPS],
    /// Used, in place of `few`, where those are too few.
    many: Vec<Option<NonMaxUsize>>,
}

impl<'t> Groups<'t> {
    /// Nothing for a group that took no part in the match.
    pub(super) fn get(&self, group: usize) -> &'t str {
        let slots = if self.many.is_empty() {
            &self.few[..]
        } else {
            &self.many
        };
        match (slots[2 * group], slots[2 * group + 1]) {
            (Some(start), Some(end)) => &self.text[start.get()..end.get()],
            _ => "",
        }
    }
}

/// The groups whose margins are the same in every match, and the whole match as group 0.
fn fixed_margins(hir: &Hir) -> HashMap<usize, Margins> {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let fixed_len = |parts: &[Hir]| {
        parts
            .iter()
            .map(|part| {
                let properties = part.properties();
                let len = properties.minimum_len()?;
                (properties.maximum_len() == Some(len)).then_some(len)
            })
            .sum::<Option<usize>>()
    };
    let groups = parts.iter().enumerate().filter_map(|(index, part)| {
        let HirKind::Capture(group) = part.kind() else {
            return None;
        };
        let margins = Margins {
            before: fixed_len(&parts[..index])?,
            after: fixed_len(&parts[index + 1..])?,
        };
        Some((group.index as usize, margins))
    });
    groups.chain([(0, Margins::default())]).collect()
}

fn build_dfa(hir: &Hir) -> Option<dense::DFA<Vec<u32>>> {
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .which_captures(WhichCaptures::None)
                .nfa_size_limit(Some(MAX_DFA_BYTES)),
        )
        .build_from_hir(hir)
        .ok()?;
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .specialize_start_states(false)
                .dfa_size_limit(Some(MAX_DFA_BYTES))
                .determinize_size_limit(Some(MAX_DFA_BYTES)),
        )
        .build_from_nfa(&nfa)
        .ok()
}

/// As much as the `regex` crate allows by default.
const MAX_NFA_BYTES: usize = 10 << 20;
/// 小Zurich's has 30 kB. What is larger takes long to build and does not stay in the cache.
const MAX_DFA_BYTES: usize = 128 << 10;
/// For so many groups, finding them allocates nothing.
const FEW_GROUPS: usize = 16;
