use std::collections::HashSet;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::RuleError;

/// Replaces several texts in one pass.
#[derive(Clone, Debug)]
pub(super) struct Substitutions {
    searcher: Searcher,
    replacements: Vec<String>,
    growth: usize,
    /// Whether each of the texts is a single character, so that each is within one piece.
    pub(super) single_chars: bool,
}

impl Substitutions {
    pub(super) fn new(pairs: &[(String, String)]) -> Result<Option<Self>, RuleError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let error = |from: &str, problem: &str| RuleError::Substitution {
            from: from.into(),
            problem: problem.into(),
        };
        let mut earlier = HashSet::with_capacity(pairs.len());
        for (from, _) in pairs {
            if from.is_empty() {
                return Err(error(from, "it is empty"));
            }
            if !earlier.insert(from) {
                return Err(error(from, "there is another one"));
            }
        }
        let searcher = match single_char(&pairs[0].0) {
            Some(from) if pairs.len() == 1 => Searcher::Char(from),
            _ => AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(pairs.iter().map(|(from, _)| from))
                .map(Searcher::Texts)
                .map_err(|problem| error(&pairs[0].0, &problem.to_string()))?,
        };
        Ok(Some(Self {
            searcher,
            growth: pairs
                .iter()
                .map(|(from, to)| to.len().div_ceil(from.len()))
                .max()
                .unwrap_or_default()
                .max(1),
            replacements: pairs.iter().map(|(_, to)| to.clone()).collect(),
            single_chars: pairs.iter().all(|(from, _)| single_char(from).is_some()),
        }))
    }

    /// By how much a text can become longer, as a factor.
    pub(super) fn growth(&self) -> usize {
        self.growth
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let texts = self
            .replacements
            .iter()
            .map(|text| size_of_val(text) + text.len());
        let searcher = match &self.searcher {
            Searcher::Char(_) => 0,
            Searcher::Texts(texts) => texts.memory_usage(),
        };
        searcher + texts.sum::<usize>()
    }

    pub(super) fn write(&self, text: &str, out: &mut impl fmt::Write) -> fmt::Result {
        let mut written = 0;
        let mut replace = |start, end, index: usize| {
            out.write_str(&text[written..start])?;
            written = end;
            out.write_str(&self.replacements[index])
        };
        match &self.searcher {
            Searcher::Char(from) => text
                .match_indices(*from)
                .try_for_each(|(start, found)| replace(start, start + found.len(), 0))?,
            Searcher::Texts(texts) => texts.find_iter(text).try_for_each(|found| {
                replace(found.start(), found.end(), found.pattern().as_usize())
            })?,
        }
        out.write_str(&text[written..])
    }
}

/// Writes what is written to it after the substitutions, each of which replaces a single character.
pub(super) struct Substituting<'a, W> {
    pub(super) substitutions: &'a Substitutions,
    pub(super) out: &'a mut W,
}

impl<W: fmt::Write> fmt::Write for Substituting<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.substitutions.write(text, self.out)
    }
}

/// Looks for the texts to be replaced.
#[derive(Clone, Debug)]
enum Searcher {
    /// A single character needs no automaton, and is found in half the time without.
    Char(char),
    Texts(AhoCorasick),
}

fn single_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}
