use std::cell::Cell;
use std::collections::HashMap;

use aho_corasick::automaton::OverlappingState;
use aho_corasick::{AhoCorasick, Anchored, Input, StartKind};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind};

use super::budget::{Budget, Exhausted};

/// Selects the rules that can match a request, by literals that every match of a rule must contain.
///
/// Asking a rule that cannot match costs little, but a thousand times little is much. One pass over
/// the request finds all those texts. Only their rules are tried, in order, so the result is the
/// same. Whatever a request contains, no rule is asked twice.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Rules that any request may match, as far as is known, a bit each.
    always: Box<[u64]>,
    /// Texts at the very beginning of the request.
    heads: Option<Literals>,
    /// Texts anywhere in the request.
    parts: Option<Literals>,
}

#[derive(Clone, Debug)]
struct Literals {
    automaton: AhoCorasick,
    /// For each text, the rules that it belongs to.
    rules: Vec<Box<[usize]>>,
}

/// Texts of which every match of a pattern contains one.
pub(super) struct Needed {
    at_start: bool,
    /// None of them is empty.
    literals: Vec<Vec<u8>>,
}

impl Index {
    /// An index of the rules that need one of each of these; `None` if there are too many texts.
    pub(super) fn new(rules: &[Vec<Needed>]) -> Option<Self> {
        let mut sharing = HashMap::<&[u8], usize>::new();
        for needed in rules {
            for literal in distinct_literals(needed) {
                *sharing.entry(literal).or_default() += 1;
            }
        }
        let mut always = vec![0; rules.len().div_ceil(64)].into_boxed_slice();
        let [mut heads, mut parts] = [const { Vec::<(&[u8], usize)>::new() }; 2];
        for (rule, needed) in rules.iter().enumerate() {
            match needed.iter().min_by_key(|needed| needed.cost(&sharing)) {
                Some(best) => {
                    let pairs = if best.at_start {
                        &mut heads
                    } else {
                        &mut parts
                    };
                    pairs.extend(
                        best.literals
                            .iter()
                            .map(|literal| (literal.as_slice(), rule)),
                    );
                }
                None => set(&mut always, rule),
            }
        }
        Some(Self {
            always,
            heads: Literals::new(heads, StartKind::Anchored)?,
            parts: Literals::new(parts, StartKind::Unanchored)?,
        })
    }

    /// The first result that a rule gives, in order, of those that can match the text.
    #[inline(never)]
    pub(super) fn find<T>(
        &self,
        text: &str,
        budget: &mut Budget,
        ask: impl FnMut(usize, &mut Budget) -> Result<Option<T>, Exhausted>,
    ) -> Result<Option<T>, Exhausted> {
        let mut scratch = SCRATCH.take();
        let found = self.find_among(text, budget, ask, &mut scratch);
        SCRATCH.set(scratch);
        found
    }

    fn find_among<T>(
        &self,
        text: &str,
        budget: &mut Budget,
        mut ask: impl FnMut(usize, &mut Budget) -> Result<Option<T>, Exhausted>,
        scratch: &mut Vec<u64>,
    ) -> Result<Option<T>, Exhausted> {
        scratch.clear();
        scratch.extend_from_slice(&self.always);
        budget.spend(self.always.len() as u64)?;
        if let Some(heads) = &self.heads {
            heads.mark(text, Anchored::Yes, self.always.len(), scratch, budget)?;
        }
        if let Some(parts) = &self.parts {
            parts.mark(text, Anchored::No, self.always.len(), scratch, budget)?;
        }
        for (word, number) in scratch[..self.always.len()].iter().zip(0..) {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                budget.spend(ASKING)?;
                if let Some(found) = ask(64 * number + bit, budget)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let literals = [&self.heads, &self.parts].into_iter().flatten();
        let literals = literals.map(|literals| {
            let rules = literals
                .rules
                .iter()
                .map(|rules| size_of_val(rules) + size_of_val(&**rules));
            literals.automaton.memory_usage() + rules.sum::<usize>()
        });
        size_of_val(&*self.always) + literals.sum::<usize>()
    }
}

impl Literals {
    /// `None` if there are too many; no literals at all if there are none.
    #[expect(
        clippy::option_option,
        reason = "within `Index::new`, and told apart by `?`"
    )]
    fn new(mut pairs: Vec<(&[u8], usize)>, start_kind: StartKind) -> Option<Option<Self>> {
        if pairs.is_empty() {
            return Some(None);
        }
        pairs.sort_unstable();
        pairs.dedup();
        let texts = || pairs.chunk_by(|one, next| one.0 == next.0);
        let automaton = AhoCorasick::builder()
            .start_kind(start_kind)
            .build(texts().map(|same| same[0].0))
            .ok()?;
        Some(Some(Self {
            automaton,
            rules: texts()
                .map(|same| same.iter().map(|(_, rule)| *rule).collect())
                .collect(),
        }))
    }

    /// Marks the rules of all texts that are found. Behind the rules' words, `scratch` has those in
    /// which is marked what has been found already, as it may be again and again.
    fn mark(
        &self,
        text: &str,
        anchored: Anchored,
        words: usize,
        scratch: &mut Vec<u64>,
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        // An anchored search stops where no text goes on.
        let read = if anchored.is_anchored() {
            text.len().min(self.automaton.max_pattern_len())
        } else {
            text.len()
        };
        let marks = self.rules.len().div_ceil(64);
        budget.spend((2 * read + marks) as u64)?;
        scratch.truncate(words);
        scratch.resize(words + self.rules.len().div_ceil(64), 0);
        let (candidates, seen) = scratch.split_at_mut(words);
        let input = Input::new(text).anchored(anchored);
        let mut state = OverlappingState::start();
        loop {
            self.automaton
                .try_find_overlapping(input.clone(), &mut state)
                .expect("it was built for this kind of search");
            let Some(found) = state.get_match() else {
                return Ok(());
            };
            budget.spend(FINDING)?;
            let literal = found.pattern().as_usize();
            if !is_set(seen, literal) {
                set(seen, literal);
                budget.spend(self.rules[literal].len() as u64)?;
                for rule in &self.rules[literal] {
                    set(candidates, *rule);
                }
            }
        }
    }
}

impl Needed {
    /// What a pattern needs, in several ways, each of which would do. None if nothing is known.
    pub(super) fn by(pattern: &Hir, anywhere: bool) -> Vec<Self> {
        let mut parts = Vec::new();
        flatten(pattern, &mut parts);
        let mut extractor = Extractor::new();
        extractor.limit_total(MAX_LITERALS);
        // A match contains a match of all that follows any of the parts, and that begins with ...
        (0..parts.len().min(MAX_PARTS))
            .filter_map(|first| {
                let rest = Hir::concat(parts[first..].to_vec());
                let literals = extractor.extract(&rest);
                let literals = literals.literals()?;
                let useful = !literals.is_empty() && literals.iter().all(|text| !text.is_empty());
                useful.then(|| Self {
                    at_start: first == 0 && !anywhere,
                    literals: literals
                        .iter()
                        .map(|text| text.as_bytes().to_vec())
                        .collect(),
                })
            })
            .collect()
    }

    /// How many rules are asked and do not match, roughly: as many as share a text, and more if it is so
    /// short that it is in every request. Looking in all of the request costs something, too.
    fn cost(&self, sharing: &HashMap<&[u8], usize>) -> usize {
        let costs = self.literals.iter().map(|literal| {
            let weight = match (self.at_start, literal.len()) {
                (true, _) => 1,
                (false, 1) => 16,
                (false, 2) => 4,
                (false, _) => 2,
            };
            weight * sharing[literal.as_slice()]
        });
        costs.max().unwrap_or(usize::MAX)
    }
}

/// The texts that a rule can be found by, each once.
fn distinct_literals(needed: &[Needed]) -> Vec<&[u8]> {
    let literals = needed.iter().flat_map(|needed| &needed.literals);
    let mut literals: Vec<_> = literals.map(Vec::as_slice).collect();
    literals.sort_unstable();
    literals.dedup();
    literals
}

/// The parts one after the other, without the groups around them.
fn flatten(pattern: &Hir, parts: &mut Vec<Hir>) {
    match pattern.kind() {
        HirKind::Concat(subs) => subs.iter().for_each(|sub| flatten(sub, parts)),
        HirKind::Capture(group) => flatten(&group.sub, parts),
        _ => parts.push(pattern.clone()),
    }
}

fn set(words: &mut [u64], bit: usize) {
    words[bit / 64] |= 1 << (bit % 64);
}

fn is_set(words: &[u64], bit: usize) -> bool {
    words[bit / 64] & 1 << (bit % 64) != 0
}

/// Steps that it takes to ask a rule, beside its search: its tables come from main memory.
pub(super) const ASKING: u64 = 50;
/// Steps that it takes to note that a text was found.
const FINDING: u64 = 5;
/// Spellings of a text without case, or alternatives: more are cut short.
const MAX_LITERALS: usize = 32;
/// Parts of a pattern that are looked at; each look takes time in proportion to the pattern.
const MAX_PARTS: usize = 16;

thread_local! {
    /// The candidates, and the texts found. It is kept, so that a robot that has warmed up allocates
    /// nothing, and takes a bit per rule and text.
    static SCRATCH: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}
