use super::error::RuleError;
use super::pattern::Pattern;

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
    /// The index of a capture group.
    Capture(usize),
}

impl Template {
    /// Parses `{1}` and `{name}` as captures of `pattern`, `{{` and `}}` as braces.
    pub(super) fn parse(rule: usize, text: &str, pattern: &Pattern) -> Result<Self, RuleError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let offset = text.len() - rest.len() + at;
            let error = |problem| RuleError::Template {
                rule,
                offset,
                problem,
            };
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
            let (name, after) = rest
                .split_once('}')
                .ok_or_else(|| error("a `{` that is not closed (write `{{` for a brace)".into()))?;
            rest = after;
            // No name begins with a digit or a sign (and a number has no sign).
            let group = match name.parse::<usize>() {
                Ok(number) if !name.starts_with('+') => {
                    Some(number).filter(|number| pattern.has_group(*number))
                }
                _ => pattern.group_named(name),
            };
            let group = group
                .ok_or_else(|| error(format!("`{{{name}}}`, but the pattern has no such group")))?;
            push_literal(&mut pieces, &mut literal);
            pieces.push(Piece::Capture(group));
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
            Piece::Capture(group) => Some(*group),
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
