use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

use super::error::RuleError;

/// Replaces words in one pass: `my` by `your` and `your` by `my`.
///
/// At every place, the longest that stand as words of their own are taken. An automaton (Aho and Corasick,
/// "Efficient String Matching", 1975) of the words, written backwards, reads the text backwards. So it
/// knows, at every place, the longest words that begin there. Where these go on in the text, it is known
/// from the words alone which shorter ones stand for themselves. The time is thus linear in the text, however
/// long the words are.
#[derive(Clone, Debug)]
pub(super) struct Reflection {
    /// The root is the first.
    nodes: Vec<Node>,
    words: Vec<Words>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Sorted by the character.
    children: Vec<(char, usize)>,
    /// The node for the longest proper suffix of what leads here.
    suffix: usize,
    /// The longest words that what leads here ends in; these begin with it in the text.
    longest: Option<usize>,
}

/// Words to be replaced.
#[derive(Clone, Debug)]
struct Words {
    /// How many characters they have.
    chars: usize,
    /// The longest that they begin with, and that stand for themselves there.
    shorter: Option<usize>,
    replacement: Replacement,
}

/// What comes in place of some words, by how these are written.
#[derive(Clone, Debug)]
struct Replacement {
    plain: String,
    /// For words that begin with a capital, where the rule's begin with a small letter.
    capitalized: Option<Capitalized>,
}

#[derive(Clone, Debug)]
struct Capitalized {
    first: String,
    all: String,
}

/// What the backward pass over a text finds.
#[derive(Default)]
struct Scratch {
    /// Where the characters begin, the last one first, behind the end of the text.
    starts: Vec<usize>,
    /// Words of their own, the last ones first: where they begin and end, and which they are.
    found: Vec<(usize, usize, usize)>,
}

impl Reflection {
    pub(super) fn new(pairs: &[(String, String)]) -> Result<Option<Self>, RuleError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut edges = HashMap::new();
        let mut ends = HashMap::new();
        let mut nodes = 1;
        for (index, (from, _)) in pairs.iter().enumerate() {
            let error = |problem: &str| RuleError::Reflection {
                from: from.clone(),
                problem: problem.into(),
            };
            let end = from.chars().rev().map(folded).fold(0, |node, c| {
                *edges.entry((node, c)).or_insert_with(|| {
                    nodes += 1;
                    nodes - 1
                })
            });
            if end == 0 {
                return Err(error("it is empty"));
            }
            if ends.insert(end, index).is_some() {
                return Err(error("there is another one, perhaps in another case"));
            }
        }
        let mut nodes = vec![Node::default(); nodes];
        for ((node, c), child) in edges {
            nodes[node].children.push((c, child));
        }
        for node in &mut nodes {
            node.children.sort_unstable();
        }
        let mut reflection = Self {
            nodes,
            words: pairs
                .iter()
                .map(|(from, to)| Words {
                    chars: from.chars().count(),
                    shorter: None,
                    replacement: Replacement::new(from, to),
                })
                .collect(),
        };
        reflection.link(&ends, pairs);
        Ok(Some(reflection))
    }

    /// Links the nodes with those of their suffixes, from the root on.
    fn link(&mut self, ends: &HashMap<usize, usize>, pairs: &[(String, String)]) {
        let mut queue = VecDeque::from([0]);
        while let Some(node) = queue.pop_front() {
            let suffix = self.nodes[node].suffix;
            let longest_of_suffix = if node == 0 {
                None
            } else {
                self.nodes[suffix].longest
            };
            self.nodes[node].longest = match ends.get(&node) {
                Some(&words) => {
                    self.words[words].shorter = longest_of_suffix
                        .filter(|shorter| self.is_word_within(*shorter, &pairs[words].0))
                        .or_else(|| self.words[longest_of_suffix?].shorter);
                    Some(words)
                }
                None => longest_of_suffix,
            };
            for (c, child) in self.nodes[node].children.clone() {
                self.nodes[child].suffix = if node == 0 { 0 } else { self.step(suffix, c) };
                queue.push_back(child);
            }
        }
    }

    /// Whether words that others begin with stand for themselves there.
    fn is_word_within(&self, shorter: usize, from: &str) -> bool {
        let mut rest = from.chars().skip(self.words[shorter].chars - 1);
        !is_same_word(rest.next(), rest.next())
    }

    /// The node for the longest suffix that goes on with a character.
    fn step(&self, mut node: usize, c: char) -> usize {
        loop {
            match self.nodes[node].child(c) {
                Some(child) => return child,
                None if node == 0 => return 0,
                None => node = self.nodes[node].suffix,
            }
        }
    }

    pub(super) fn write(&self, text: &str, out: &mut impl fmt::Write) -> fmt::Result {
        let mut scratch = SCRATCH.take();
        self.find(text, &mut scratch);
        let result = self.replace(text, &scratch.found, out);
        SCRATCH.set(scratch);
        result
    }

    fn find(&self, text: &str, scratch: &mut Scratch) {
        let Scratch { starts, found } = scratch;
        starts.clear();
        starts.push(text.len());
        found.clear();
        let mut node = 0;
        let mut chars = text.char_indices().rev().peekable();
        while let Some((start, c)) = chars.next() {
            node = self.step(node, folded(c));
            starts.push(start);
            let before = chars.peek().map(|(_, before)| *before);
            let Some(longest) = self.nodes[node].longest else {
                continue;
            };
            if is_same_word(before, Some(c)) {
                continue;
            }
            let end = |words: usize| starts[starts.len() - 1 - self.words[words].chars];
            let goes_on = {
                let last = text[..end(longest)].chars().next_back();
                is_same_word(last, text[end(longest)..].chars().next())
            };
            let words = if goes_on {
                self.words[longest].shorter
            } else {
                Some(longest)
            };
            if let Some(words) = words {
                found.push((start, end(words), words));
            }
        }
    }

    fn replace(
        &self,
        text: &str,
        found: &[(usize, usize, usize)],
        out: &mut impl fmt::Write,
    ) -> fmt::Result {
        let mut written = 0;
        for &(start, end, words) in found.iter().rev() {
            if start >= written {
                out.write_str(&text[written..start])?;
                let replacement = &self.words[words].replacement;
                out.write_str(replacement.for_words(&text[start..end]))?;
                written = end;
            }
        }
        out.write_str(&text[written..])
    }

    /// By how much a text can become longer, as a factor.
    pub(super) fn growth(&self) -> usize {
        let growths = self.words.iter().map(|words| {
            let Replacement { plain, capitalized } = &words.replacement;
            let capitals = capitalized
                .iter()
                .flat_map(|cases| [&cases.first, &cases.all]);
            let most = capitals.chain([plain]).map(String::len).max();
            most.unwrap_or_default().div_ceil(words.chars)
        });
        growths.max().unwrap_or_default().max(1)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let nodes = self.nodes.iter().map(|node| size_of_val(&*node.children));
        let words = self.words.iter().map(|words| {
            let cases = words.replacement.capitalized.iter();
            let cases = cases.map(|cases| cases.first.len() + cases.all.len());
            words.replacement.plain.len() + cases.sum::<usize>()
        });
        size_of_val(&*self.nodes)
            + size_of_val(&*self.words)
            + nodes.sum::<usize>()
            + words.sum::<usize>()
    }
}

impl Node {
    fn child(&self, c: char) -> Option<usize> {
        let at = self.children.binary_search_by_key(&c, |child| child.0);
        at.ok().map(|at| self.children[at].1)
    }
}

impl Replacement {
    fn new(from: &str, to: &str) -> Self {
        let small = from.chars().next().is_some_and(char::is_lowercase);
        Self {
            plain: to.into(),
            capitalized: small.then(|| {
                let mut rest = to.chars();
                let first = rest.next();
                Capitalized {
                    first: first
                        .into_iter()
                        .flat_map(char::to_uppercase)
                        .chain(rest)
                        .collect(),
                    all: to.to_uppercase(),
                }
            }),
        }
    }

    fn for_words(&self, words: &str) -> &str {
        let mut letters = words.chars().filter(|c| c.is_alphabetic());
        match &self.capitalized {
            Some(capitalized) if letters.next().is_some_and(char::is_uppercase) => {
                match letters.next() {
                    Some(second) if second.is_uppercase() && letters.all(char::is_uppercase) => {
                        &capitalized.all
                    }
                    _ => &capitalized.first,
                }
            }
            _ => &self.plain,
        }
    }
}

/// A character as it is compared: without case, where a single character says the same.
fn folded(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (c, lower.next(), lower.next()) {
        // Both are in use as the apostrophe.
        ('\u{2019}', ..) => '\'',
        (_, Some(lower), None) => lower,
        _ => c,
    }
}

/// Whether a word goes on from one character to the next.
fn is_same_word(before: Option<char>, next: Option<char>) -> bool {
    before.is_some_and(is_in_spaced_word) && next.is_some_and(is_in_spaced_word)
}

/// Whether a character is part of a word in a script that puts spaces, or the like, between words.
fn is_in_spaced_word(c: char) -> bool {
    static CLASS: LazyLock<ClassUnicode> = LazyLock::new(|| {
        let hir = regex_syntax::parse(SPACED_WORD).expect("it is constant");
        match hir.into_kind() {
            HirKind::Class(Class::Unicode(class)) => class,
            other => unreachable!("{other:?} is no class"),
        }
    });
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    let ranges = CLASS.ranges();
    let at = ranges.partition_point(|range| range.end() < c);
    ranges.get(at).is_some_and(|range| range.start() <= c)
}

/// Letters, marks, digits and connectors (UTS #18, `\w`), but for the scripts that are written
/// without spaces between words (UAX #14, 5.1, and UAX #29, 4.1).
const SPACED_WORD: &str = r"[\w--[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{scx=Yiii}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}\p{scx=Tibt}]]";

thread_local! {
    /// It is kept, so that a robot that has warmed up allocates nothing, and takes some bytes for each
    /// character of the longest text.
    static SCRATCH: Cell<Scratch> = Cell::default();
}
