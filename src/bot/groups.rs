use std::collections::HashMap;

use regex::Regex;
use regex_automata::PatternID;
use regex_automata::util::captures::GroupInfo;
use regex_automata::util::primitives::NonMaxUsize;
use regex_syntax::hir::{Hir, HirKind};

use super::fast_match::parts;

/// The groups of a pattern.
pub(super) struct GroupTable {
    names: Box<[Option<Box<str>>]>,
    /// Where each group lies, if that follows from where the whole match lies.
    margins: Box<[Option<Margins>]>,
}

impl GroupTable {
    pub(super) fn new(hir: &Hir, info: &GroupInfo) -> Self {
        let known = fixed_margins(hir);
        let names = info.pattern_names(PatternID::ZERO);
        let names: Box<[_]> = names.map(|name| name.map(Into::into)).collect();
        Self {
            margins: (0..names.len())
                .map(|group| known.get(&group).copied())
                .collect(),
            names,
        }
    }

    /// Those of a pattern that has no automaton.
    pub(super) fn of_tree(hir: &Hir) -> Self {
        let mut names = vec![None];
        collect_names(hir, &mut names);
        let known = fixed_margins(hir);
        Self {
            margins: (0..names.len())
                .map(|group| known.get(&group).copied())
                .collect(),
            names: names.into(),
        }
    }

    pub(super) fn of_regex(regex: &Regex) -> Self {
        let names = regex.capture_names();
        let names: Box<[_]> = names.map(|name| name.map(Into::into)).collect();
        Self {
            margins: (0..names.len())
                .map(|group| (group == 0).then(Margins::default))
                .collect(),
            names,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.margins.len()
    }

    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .position(|known| known.as_deref() == Some(name))
    }

    #[inline]
    pub(super) fn margins(&self, group: usize) -> Option<Margins> {
        self.margins[group]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.names)
            + size_of_val(&*self.margins)
            + self
                .names
                .iter()
                .flatten()
                .map(|name| name.len())
                .sum::<usize>()
    }
}

/// The names by the groups' numbers. A group that is repeated zero times is not in the tree.
fn collect_names(hir: &Hir, names: &mut Vec<Option<Box<str>>>) {
    match hir.kind() {
        HirKind::Capture(group) => {
            let index = group.index as usize;
            if names.len() <= index {
                names.resize(index + 1, None);
            }
            names[index].clone_from(&group.name);
            collect_names(&group.sub, names);
        }
        HirKind::Repetition(repetition) => collect_names(&repetition.sub, names),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            for part in parts {
                collect_names(part, names);
            }
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
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

/// The groups whose margins are the same in every match, and the whole match as group 0.
fn fixed_margins(hir: &Hir) -> HashMap<usize, Margins> {
    let parts = parts(hir);
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

/// What the groups of a pattern matched.
pub(super) struct Groups<'t> {
    text: &'t str,
    /// Group `n` begins at slot `2 n` and ends at slot `2 n + 1`.
    few: [Option<NonMaxUsize>; 2 * FEW_GROUPS],
    used: usize,
    /// In place of `few`, where those are too few.
    many: Vec<Option<NonMaxUsize>>,
}

impl<'t> Groups<'t> {
    /// Room for the groups up to number `last`.
    pub(super) fn new(text: &'t str, last: usize) -> Self {
        let used = 2 * (last + 1);
        Self {
            text,
            few: [None; 2 * FEW_GROUPS],
            used,
            many: if used > 2 * FEW_GROUPS {
                vec![None; used]
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Option<NonMaxUsize>] {
        if self.many.is_empty() {
            &mut self.few[..self.used]
        } else {
            &mut self.many
        }
    }

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

/// For so many groups, finding them allocates nothing.
const FEW_GROUPS: usize = 16;
