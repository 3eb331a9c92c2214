use std::collections::HashMap;
use std::fmt;

use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Anchored, Input, PatternID, meta};
use regex_syntax::hir::{Hir, HirKind};

use super::fast_match::{LiteralClassRun, parts};

/// A regular expression that matches at the very beginning, or anywhere.
#[derive(Clone)]
pub(super) struct Pattern {
    source: String,
    anywhere: bool,
    regex: meta::Regex,
    /// Finds the same, for a pattern that is as simple as those of robots often are.
    run: Option<LiteralClassRun>,
    /// Where each group lies, if that follows from where the whole match lies.
    margins: Vec<Option<Margins>>,
}

impl Pattern {
    /// Together with its syntax tree.
    pub(super) fn new(
        source: &str,
        anywhere: bool,
        limits: PatternLimits,
    ) -> Result<(Self, Hir), PatternError> {
        // The search is anchored, not the pattern: neither a flag, nor a comment, nor an
        // alternation in it can reach beyond it.
        let hir = regex_syntax::parse(source)?;
        // A lazy automaton knows the borders of words in ASCII only, and allocates to tell that it gives
        // up on others.
        let looks = hir.properties().look_set();
        let config = meta::Config::new()
            .nfa_size_limit(Some(limits.automaton_bytes))
            .hybrid(!looks.contains_word_unicode())
            .hybrid_cache_capacity(limits.cache_bytes);
        let regex = meta::Builder::new()
            .configure(config)
            .build_from_hir(&hir)
            .map_err(|error| PatternError {
                offset: 0,
                problem: match error.size_limit() {
                    Some(limit) => format!("its automaton takes more than {limit} bytes"),
                    None => error.to_string(),
                },
            })?;
        let known = fixed_margins(&hir);
        let pattern = Self {
            source: source.into(),
            anywhere,
            run: LiteralClassRun::new(&hir).filter(|_| !anywhere),
            // `captures_len` leaves out groups that are repeated zero times, but not their numbers.
            margins: (0..regex.group_info().group_len(PatternID::ZERO))
                .map(|group| known.get(&group).copied())
                .collect(),
            regex,
        };
        Ok((pattern, hir))
    }

    /// The memory that the automaton takes for good.
    pub(super) fn automaton_bytes(&self) -> usize {
        self.regex.memory_usage()
    }

    pub(super) fn has_group(&self, group: usize) -> bool {
        group < self.margins.len()
    }

    pub(super) fn group_named(&self, name: &str) -> Option<usize> {
        self.regex.group_info().to_index(PatternID::ZERO, name)
    }

    /// Where the match begins and ends, in bytes.
    #[inline]
    pub(super) fn find(&self, text: &str) -> Option<(usize, usize)> {
        if let Some(run) = &self.run {
            return run.match_len(text).map(|end| (0, end));
        }
        let input = Input::new(text);
        if self.anywhere {
            let found = self.regex.search(&input)?;
            return Some((found.start(), found.end()));
        }
        let end = self.regex.search_half(&input.anchored(Anchored::Yes))?;
        Some((0, end.offset()))
    }

    /// Where a group lies in every match, if that is known.
    #[inline]
    pub(super) fn margins(&self, group: usize) -> Option<Margins> {
        self.margins[group]
    }

    /// Finds the groups up to number `last` of a match that begins at `start`.
    pub(super) fn groups<'t>(&self, text: &'t str, start: usize, last: usize) -> Groups<'t> {
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
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        self.regex.search_slots(&input, slots);
        groups
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source).finish()
    }
}

/// How much memory a pattern may take.
#[derive(Clone, Copy)]
pub(super) struct PatternLimits {
    pub(super) automaton_bytes: usize,
    /// For each direction of search, and each thread that searches at the same time.
    pub(super) cache_bytes: usize,
}

/// What is wrong with a pattern, and where, in bytes.
pub(super) struct PatternError {
    pub(super) offset: usize,
    pub(super) problem: String,
}

impl From<regex_syntax::Error> for PatternError {
    fn from(error: regex_syntax::Error) -> Self {
        let (offset, problem) = match &error {
            regex_syntax::Error::Parse(error) => {
                (error.span().start.offset, error.kind().to_string())
            }
            regex_syntax::Error::Translate(error) => {
                (error.span().start.offset, error.kind().to_string())
            }
            // The message shows the pattern, in several lines.
            _ => (0, "no regular expression".to_owned()),
        };
        Self { offset, problem }
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

/// For so many groups, finding them allocates nothing.
const FEW_GROUPS: usize = 16;
