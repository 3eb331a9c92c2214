use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

use super::boundary::floor_char_boundary;

/// A pattern of the form `literal[class]+literal`, with `*` for `+`, a group around the middle and
/// without one or both of the literals: `你(\D+)吗？`, `I am (.*)`.
///
/// An automaton takes its steps byte by byte, each of which depends on the one before. Looking for
/// the bytes that can end the run does not, and takes less than half the time.
#[derive(Clone)]
pub(super) struct LiteralClassRun {
    prefix: Box<str>,
    /// Whether the run may not be empty.
    some: bool,
    outside: Arc<Outside>,
    suffix: Box<str>,
}

/// The characters that are not in a class.
struct Outside {
    /// Sorted.
    ranges: Box<[ClassUnicodeRange]>,
    /// Whether a byte is the first of such a character.
    first: [bool; 256],
    /// For each such byte, which of the ranges have characters that begin with it: few, where a
    /// search among all would take as long as the rest of the answer.
    ranges_from: [Range<u16>; 256],
}

/// The classes of a robot's runs, each of which many rules may share.
#[derive(Default)]
pub(super) struct Classes {
    known: BTreeMap<Vec<ClassUnicodeRange>, Arc<Outside>>,
}

impl LiteralClassRun {
    /// `None` if the pattern has another form.
    pub(super) fn new(hir: &Hir, classes: &mut Classes) -> Option<Self> {
        let (prefix, rest) = split_literal(parts(hir))?;
        let (middle, rest) = rest.split_first()?;
        let (suffix, []) = split_literal(rest)? else {
            return None;
        };
        let run = match middle.kind() {
            HirKind::Capture(group) => group.sub.kind(),
            other => other,
        };
        let HirKind::Repetition(run) = run else {
            return None;
        };
        let HirKind::Class(Class::Unicode(class)) = run.sub.kind() else {
            return None;
        };
        if run.min > 1 || run.max.is_some() || !run.greedy {
            return None;
        }
        Some(Self {
            prefix: prefix.into(),
            some: run.min == 1,
            outside: classes.outside(class)?,
            suffix: suffix.into(),
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.prefix.len() + self.suffix.len()
    }

    #[inline]
    pub(super) fn match_len(&self, text: &str) -> Option<usize> {
        let rest = text.strip_prefix(&*self.prefix)?;
        let longest = self.longest(rest);
        let shortest = match rest.chars().next() {
            Some(first) if self.some => first.len_utf8(),
            None if self.some => return None,
            _ => 0,
        };
        // The run is greedy: it ends at the last place where the suffix follows.
        let end = floor_char_boundary(rest, longest + self.suffix.len());
        let window = rest.get(shortest..end)?;
        let after = if window.ends_with(&*self.suffix) {
            window.len()
        } else {
            window.rfind(&*self.suffix)? + self.suffix.len()
        };
        Some(self.prefix.len() + shortest + after)
    }

    /// The length of the run if nothing follows it.
    #[inline]
    fn longest(&self, text: &str) -> usize {
        let outside = &*self.outside;
        let mut len = 0;
        while let Some(found) = outside.position(&text.as_bytes()[len..]) {
            len += found;
            let first = text.as_bytes()[len];
            let next = text[len..].chars().next();
            let Some(next) = next.filter(|c| !outside.contains(first, *c)) else {
                return len;
            };
            len += next.len_utf8();
        }
        text.len()
    }
}

impl Outside {
    /// `None` if there are more ranges than are counted.
    fn of(class: &ClassUnicode) -> Option<Self> {
        let mut outside = class.clone();
        outside.negate();
        let mut first = [false; 256];
        let mut ranges_from = [const { 0..0 }; 256];
        for (index, range) in outside.ranges().iter().enumerate() {
            let index = u16::try_from(index).ok()?;
            let first_byte = |c: char| usize::from(c.encode_utf8(&mut [0; 4]).as_bytes()[0]);
            for byte in first_byte(range.start())..=first_byte(range.end()) {
                let start = if first[byte] {
                    ranges_from[byte].start
                } else {
                    index
                };
                first[byte] = true;
                ranges_from[byte] = start..index + 1;
            }
        }
        // In between lie bytes that are first in no character, but occur further on in many.
        first[0x80..0xc0].fill(false);
        Some(Self {
            ranges: outside.ranges().into(),
            first,
            ranges_from,
        })
    }

    /// The first of the bytes that can begin such a character.
    #[inline]
    fn position(&self, bytes: &[u8]) -> Option<usize> {
        let is_first = |byte: &u8| self.first[usize::from(*byte)];
        if bytes.len() < 16 {
            return bytes.iter().position(is_first);
        }
        // Eight at a time, without a branch for each.
        let (chunks, _) = bytes.as_chunks::<8>();
        let without = chunks
            .iter()
            .take_while(|chunk| !chunk.iter().fold(false, |any, byte| any | is_first(byte)))
            .count();
        let rest = bytes[8 * without..].iter().position(is_first)?;
        Some(8 * without + rest)
    }

    /// Whether a character, which begins with this byte, is not in the class.
    fn contains(&self, first: u8, c: char) -> bool {
        let Range { start, end } = self.ranges_from[usize::from(first)];
        let ranges = &self.ranges[usize::from(start)..usize::from(end)];
        let at = ranges.partition_point(|range| range.end() < c);
        ranges.get(at).is_some_and(|range| range.start() <= c)
    }
}

impl Classes {
    fn outside(&mut self, class: &ClassUnicode) -> Option<Arc<Outside>> {
        if let Some(known) = self.known.get(class.ranges()) {
            return Some(Arc::clone(known));
        }
        let outside = Arc::new(Outside::of(class)?);
        self.known
            .insert(class.ranges().to_vec(), Arc::clone(&outside));
        Some(outside)
    }

    /// What the classes take, each counted once.
    pub(super) fn memory_bytes(&self) -> usize {
        let ranges = self.known.keys().map(Vec::len).sum::<usize>();
        self.known.len() * size_of::<Outside>() + ranges * size_of::<ClassUnicodeRange>()
    }
}

/// The literal at the beginning, which may be empty, and what follows.
fn split_literal(parts: &[Hir]) -> Option<(String, &[Hir])> {
    let Some((first, rest)) = parts.split_first() else {
        return Some((String::new(), parts));
    };
    match first.kind() {
        HirKind::Literal(literal) => Some((str::from_utf8(&literal.0).ok()?.to_owned(), rest)),
        _ => Some((String::new(), parts)),
    }
}

/// The parts one after the other.
pub(super) fn parts(hir: &Hir) -> &[Hir] {
    match hir.kind() {
        HirKind::Concat(parts) => parts,
        _ => std::slice::from_ref(hir),
    }
}
