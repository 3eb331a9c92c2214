use super::groups::Margins;
use super::pattern::Pattern;
use super::rule::Compute;
use super::substitution::Substitutions;
use crate::escape::Escaped;

/// What a rule answers: text with places for captures.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) pieces: Vec<Piece>,
    pub(super) needs: Needs,
    /// How many captures there are.
    pub(super) captures: usize,
    /// What they cost, for each byte of the request.
    pub(super) steps_per_byte: u64,
    /// How long the rest is, before substitutions.
    pub(super) literal_bytes: usize,
}

/// What must be known of a match, beside where it ends, before the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    Nothing,
    /// Where it begins.
    Start,
    /// Where its groups up to this number lie.
    Groups(usize),
    /// What a function makes of it.
    Computed,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Literal {
        plain: String,
        /// The same after the robot's substitutions, if they can be made here already.
        substituted: String,
    },
    Capture {
        /// The index of a capture group.
        group: usize,
        /// Where it lies in every match, if that is known.
        margins: Option<Margins>,
        reflected: bool,
    },
    /// What a function of the caller makes of the groups.
    Computed(Compute),
}

/// What is wrong with a template, and where, in bytes.
pub(super) struct TemplateError {
    pub(super) offset: usize,
    pub(super) problem: String,
}

impl Template {
    /// Parses `{1}` and `{name}` as captures of `pattern`, `{~1}` as one that is reflected, `{{` and
    /// `}}` as braces.
    pub(super) fn parse(
        text: &str,
        pattern: &Pattern,
        has_reflections: bool,
    ) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let offset = text.len() - rest.len() + at;
            let error = |problem| TemplateError { offset, problem };
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(error(
                    "a `}` that closes nothing (write `}}` for a brace)".into(),
                ));
            }
            let (inside, after) = rest
                .split_once('}')
                .ok_or_else(|| error("a `{` that is not closed (write `{{` for a brace)".into()))?;
            rest = after;
            let (name, reflected) = match inside.strip_prefix('~') {
                Some(name) => (name, true),
                None => (inside, false),
            };
            // No name begins with a digit or a sign (and a number has no sign).
            let group = match name.parse::<usize>() {
                Ok(number) if !name.starts_with('+') => {
                    Some(number).filter(|number| pattern.has_group(*number))
                }
                _ => pattern.group_named(name),
            };
            let group = group.ok_or_else(|| {
                error(format!(
                    "`{{{}}}`, but the pattern has no such group",
                    Escaped(inside)
                ))
            })?;
            if reflected && !has_reflections {
                return Err(error(format!(
                    "`{{{inside}}}`, but the robot has no reflections"
                )));
            }
            push_literal(&mut pieces, &mut literal);
            pieces.push(Piece::Capture {
                group,
                margins: pattern.margins(group),
                reflected,
            });
        }
        literal.push_str(rest);
        push_literal(&mut pieces, &mut literal);
        Ok(Self::new(pieces))
    }

    /// A template without captures.
    pub(super) fn literal(text: &str) -> Self {
        let mut pieces = Vec::new();
        push_literal(&mut pieces, &mut text.to_owned());
        Self::new(pieces)
    }

    /// A template that is all computed.
    pub(super) fn computed(compute: Compute) -> Self {
        Self::new(vec![Piece::Computed(compute)])
    }

    fn new(pieces: Vec<Piece>) -> Self {
        let mut template = Self {
            pieces: Vec::new(),
            needs: Needs::Nothing,
            captures: 0,
            steps_per_byte: 0,
            literal_bytes: 0,
        };
        for piece in &pieces {
            let needs = match piece {
                Piece::Literal { plain, .. } => {
                    template.literal_bytes += plain.len();
                    Needs::Nothing
                }
                Piece::Computed(_) => Needs::Computed,
                Piece::Capture {
                    group,
                    margins,
                    reflected,
                } => {
                    template.captures += 1;
                    template.steps_per_byte += if *reflected { REFLECTING } else { COPYING };
                    if margins.is_some() {
                        Needs::Start
                    } else {
                        Needs::Groups(*group)
                    }
                }
            };
            template.needs = template.needs.max(needs);
        }
        template.pieces = pieces;
        template
    }

    /// Makes the substitutions in the literal parts, once.
    pub(super) fn substitute(&mut self, substitutions: Option<&Substitutions>) {
        let Some(substitutions) = substitutions else {
            return;
        };
        for piece in &mut self.pieces {
            if let Piece::Literal { plain, substituted } = piece {
                substituted.clear();
                substitutions
                    .write(plain, substituted)
                    .expect("writing to a `String` does not fail");
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let texts = self.pieces.iter().map(|piece| match piece {
            Piece::Literal { plain, substituted } => plain.len() + substituted.len(),
            Piece::Capture { .. } | Piece::Computed(_) => 0,
        });
        size_of::<Self>() + size_of_val(&*self.pieces) + texts.sum::<usize>()
    }
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &mut String) {
    if !literal.is_empty() {
        let plain = std::mem::take(literal);
        let substituted = plain.clone();
        pieces.push(Piece::Literal { plain, substituted });
    }
}

/// Steps that it takes to write a byte that was captured ...
const COPYING: u64 = 2;
/// ... and to look for a reflection there.
const REFLECTING: u64 = 8;
