use super::pattern::Pattern;
use crate::escape::Escaped;

/// What a rule answers: text with places for captures.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) pieces: Vec<Piece>,
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
        reflected: bool,
    },
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
            pieces.push(Piece::Capture { group, reflected });
        }
        literal.push_str(rest);
        push_literal(&mut pieces, &mut literal);
        Ok(Self { pieces })
    }

    /// A template without captures.
    pub(super) fn literal(text: &str) -> Self {
        let mut pieces = Vec::new();
        push_literal(&mut pieces, &mut text.to_owned());
        Self { pieces }
    }

    pub(super) fn captures(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Capture { group, .. } => Some(*group),
            Piece::Literal { .. } => None,
        })
    }
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &mut String) {
    if !literal.is_empty() {
        let plain = std::mem::take(literal);
        let substituted = plain.clone();
        pieces.push(Piece::Literal { plain, substituted });
    }
}
