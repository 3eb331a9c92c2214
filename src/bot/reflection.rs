use std::fmt;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

use super::error::RuleError;

/// Turns words round in one pass: `my` into `your` and `your` into `my`.
///
/// The words are a tree, one character an edge, in which the longest that stands as a word of its own
/// is looked for at every place. An automaton that finds the longest cannot be asked for the next
/// shorter one where a word goes on behind it.
#[derive(Clone, Debug)]
pub(super) struct Reflection {
    /// The root is the first.
    nodes: Vec<Node>,
    replacements: Vec<Replacement>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Sorted by the character.
    children: Vec<(char, usize)>,
    /// The index of the replacement for what leads here.
    replacement: Option<usize>,
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

impl Reflection {
    pub(super) fn new(pairs: &[(String, String)]) -> Result<Option<Self>, RuleError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let mut reflection = Self {
            nodes: vec![Node::default()],
            replacements: Vec::new(),
        };
        for (from, to) in pairs {
            let error = |problem: &str| RuleError::Reflection {
                from: from.clone(),
                problem: problem.into(),
            };
            let node = reflection.node_for(from);
            if node == 0 {
                return Err(error("it is empty"));
            }
            let next = reflection.replacements.len();
            if reflection.nodes[node].replacement.replace(next).is_some() {
                return Err(error("there is another one, perhaps in another case"));
            }
            reflection.replacements.push(Replacement::new(from, to));
        }
        Ok(Some(reflection))
    }

    /// The node that a text leads to, with all that are missing on the way.
    fn node_for(&mut self, text: &str) -> usize {
        text.chars().map(folded).fold(0, |node, c| {
            let next = self.nodes.len();
            let children = &mut self.nodes[node].children;
            match children.binary_search_by_key(&c, |child| child.0) {
                Ok(at) => children[at].1,
                Err(at) => {
                    children.insert(at, (c, next));
                    self.nodes.push(Node::default());
                    next
                }
            }
        })
    }

    pub(super) fn write(&self, text: &str, out: &mut impl fmt::Write) -> fmt::Result {
        let mut written = 0;
        let mut at = 0;
        let mut before = None;
        while let Some(c) = text[at..].chars().next() {
            let Some((len, replacement)) = self.longest(before, &text[at..]) else {
                before = Some(c);
                at += c.len_utf8();
                continue;
            };
            out.write_str(&text[written..at])?;
            let words = &text[at..at + len];
            out.write_str(replacement.for_words(words))?;
            before = words.chars().next_back();
            at += len;
            written = at;
        }
        out.write_str(&text[written..])
    }

    /// The longest words with a reflection at the beginning of the text, and their length.
    fn longest(&self, before: Option<char>, text: &str) -> Option<(usize, &Replacement)> {
        let mut node = &self.nodes[0];
        let mut longest = None;
        let mut previous = before;
        for (at, c) in text.char_indices() {
            let child = node.child(folded(c));
            if let Some(index) = node.replacement
                && !is_same_word(previous, Some(c))
            {
                longest = Some((at, &self.replacements[index]));
            }
            node = match child {
                Some(_) if at == 0 && is_same_word(before, Some(c)) => return None,
                Some(child) => &self.nodes[child],
                None => return longest,
            };
            previous = Some(c);
        }
        match node.replacement {
            Some(index) => Some((text.len(), &self.replacements[index])),
            None => longest,
        }
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
