use std::collections::HashMap;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::{Captures, Regex};
use regex_syntax::hir::{Hir, HirKind, Look};

use super::template::{Piece, Template};
use crate::codec::Codec;
use crate::handler::{Context, Handler, Reply, ReplyError};

/// A robot: answers text by rules.
///
/// The rules are tried in order, and the first whose pattern matches the beginning of the request
/// makes the answer from its template; with no match, the fallback does. Then the substitutions
/// are applied to the whole answer, in one pass from left to right: what one has put in, no other
/// changes. Where several fit, the longest wins.
///
/// A robot is a [`Handler`] for every codec of text, and every request gets exactly one answer.
///
/// ```
/// use rejoinder::Robot;
///
/// let robot = Robot::builder()
///     .rule("I am (?<what>[^.!?]+)", "Why are you {what}?")
///     .fallback("Go on.")
///     .substitute("my", "your")
///     .build()?;
/// assert_eq!(robot.answer("I am proud of my robot!").to_string(), "Why are you proud of your robot?");
/// assert_eq!(robot.answer("Well, I am.").to_string(), "Go on.");
/// # Ok::<(), rejoinder::RuleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Robot {
    rules: Vec<Rule>,
    fallback: Template,
    substitutions: Option<Substitutions>,
}

impl Robot {
    /// A robot without rules, whose fallback is the empty text.
    pub fn builder() -> RobotBuilder {
        RobotBuilder::default()
    }

    /// Answers a request. Nothing is put together before the answer is displayed.
    pub fn answer<'a>(&'a self, request: &'a str) -> Answer<'a> {
        let (template, captured) = self
            .rules
            .iter()
            .find_map(|rule| Some((&rule.template, rule.apply(request)?)))
            .unwrap_or((&self.fallback, Captured::Nothing));
        Answer {
            template,
            captured,
            substitutions: self.substitutions.as_ref(),
        }
    }
}

impl<C> Handler<C> for Robot
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        reply.send(&self.answer(request))
    }
}

/// A robot's answer to one request. It displays as the answer.
#[derive(Debug)]
pub struct Answer<'a> {
    template: &'a Template,
    captured: Captured<'a>,
    substitutions: Option<&'a Substitutions>,
}

impl Answer<'_> {
    /// The answer as it was before the substitutions.
    pub fn before_substitution(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            self.template.pieces.iter().try_for_each(|piece| {
                f.write_str(match piece {
                    Piece::Literal { plain, .. } => plain,
                    Piece::Capture(group) => self.captured.get(*group),
                })
            })
        })
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(substitutions) = self.substitutions else {
            return self.before_substitution().fmt(f);
        };
        if !substitutions.single_chars {
            // What is to be replaced may begin in one piece and end in another.
            return substitutions.write(&self.before_substitution().to_string(), f);
        }
        self.template
            .pieces
            .iter()
            .try_for_each(|piece| match piece {
                Piece::Literal { substituted, .. } => f.write_str(substituted),
                Piece::Capture(group) => substitutions.write(self.captured.get(*group), f),
            })
    }
}

/// Puts a [`Robot`] together.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RobotBuilder {
    rules: Vec<(String, String)>,
    fallback: String,
    substitutions: Vec<(String, String)>,
}

impl RobotBuilder {
    /// Adds a rule, to be tried after those that were added before.
    ///
    /// `pattern` is a regular expression in the syntax of the `regex` crate, and must match at the
    /// very beginning of the request, though not up to its end. `template` is the answer, where
    /// `{1}` or `{name}` stands for what that group of the pattern matched (nothing, if it took no
    /// part in the match), `{0}` for all that matched, `{{` and `}}` for braces.
    pub fn rule(mut self, pattern: impl Into<String>, template: impl Into<String>) -> Self {
        self.rules.push((pattern.into(), template.into()));
        self
    }

    /// The answer when no rule matches, literally. Default: the empty text.
    pub fn fallback(mut self, answer: impl Into<String>) -> Self {
        self.fallback = answer.into();
        self
    }

    /// Replaces every `from` in an answer by `to`.
    pub fn substitute(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.substitutions.push((from.into(), to.into()));
        self
    }

    /// Compiles the rules.
    pub fn build(self) -> Result<Robot, RuleError> {
        let rules = self.rules.iter().zip(1..);
        let mut robot = Robot {
            rules: rules
                .map(|((pattern, template), number)| Rule::new(number, pattern, template))
                .collect::<Result<_, _>>()?,
            fallback: Template::literal(&self.fallback),
            substitutions: Substitutions::new(&self.substitutions)?,
        };
        if let Some(substitutions) = &robot.substitutions {
            let templates = robot.rules.iter_mut().map(|rule| &mut rule.template);
            for template in templates.chain([&mut robot.fallback]) {
                for piece in &mut template.pieces {
                    if let Piece::Literal { plain, substituted } = piece {
                        substituted.clear();
                        substitutions
                            .write(plain, substituted)
                            .expect("a string takes everything");
                    }
                }
            }
        }
        Ok(robot)
    }
}

/// Why a robot could not be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A pattern is no regular expression, or a too large one.
    #[error("rule {rule}: bad pattern: {problem}")]
    Pattern {
        /// The number of the rule, from 1.
        rule: usize,
        /// What is wrong, and where.
        problem: String,
    },
    /// A template is malformed, or names a group that its pattern does not have.
    #[error("rule {rule}: bad template at byte {offset}: {problem}")]
    Template {
        /// The number of the rule, from 1.
        rule: usize,
        /// Where in the template, in bytes.
        offset: usize,
        /// What is wrong.
        problem: String,
    },
    /// A substitution is empty, or there are two for the same text, or too many in all.
    #[error("bad substitution of `{from}`: {problem}")]
    Substitution {
        /// What was to be replaced.
        from: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Clone, Debug)]
struct Rule {
    regex: Regex,
    template: Template,
    /// Where the groups lie, if that follows from where the whole match lies.
    margins: Option<Vec<Margins>>,
}

impl Rule {
    fn new(rule: usize, pattern: &str, template: &str) -> Result<Self, RuleError> {
        let bad_pattern = |problem: String| RuleError::Pattern { rule, problem };
        // Parsed before it is anchored, so that neither a flag nor a comment in the pattern can
        // reach beyond it, and a message shows it as it was written.
        let hir = regex_syntax::parse(pattern).map_err(|error| bad_pattern(error.to_string()))?;
        let anchored = Hir::concat(vec![Hir::look(Look::Start), hir.clone()]);
        let regex =
            Regex::new(&anchored.to_string()).map_err(|error| bad_pattern(error.to_string()))?;
        let template = Template::parse(rule, template, &regex)?;
        let known = fixed_margins(&hir);
        let margins = template
            .captures()
            .all(|group| known.contains_key(&group))
            .then(|| {
                let last = template.captures().max().unwrap_or(0);
                (0..=last)
                    .map(|group| known.get(&group).copied().unwrap_or_default())
                    .collect()
            });
        Ok(Self {
            regex,
            template,
            margins,
        })
    }

    fn apply<'a>(&'a self, request: &'a str) -> Option<Captured<'a>> {
        match &self.margins {
            // Finding the ends of a match is several times as fast as finding its groups.
            Some(margins) => Some(Captured::Within {
                matched: self.regex.find(request)?.as_str(),
                margins,
            }),
            None => self.regex.captures(request).map(Captured::Groups),
        }
    }
}

/// How far a group lies from the ends of the match that it is in, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Margins {
    before: usize,
    after: usize,
}

/// The groups whose margins are the same in every match, and the whole match as group 0.
fn fixed_margins(hir: &Hir) -> HashMap<usize, Margins> {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
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

#[derive(Debug)]
enum Captured<'a> {
    Nothing,
    Within {
        matched: &'a str,
        margins: &'a [Margins],
    },
    Groups(Captures<'a>),
}

impl Captured<'_> {
    fn get(&self, group: usize) -> &str {
        match self {
            Self::Nothing => "",
            Self::Within { matched, margins } => {
                &matched[margins[group].before..matched.len() - margins[group].after]
            }
            Self::Groups(captures) => captures.get(group).map_or("", |found| found.as_str()),
        }
    }
}

/// Replaces several texts in one pass.
#[derive(Clone, Debug)]
struct Substitutions {
    searcher: AhoCorasick,
    replacements: Vec<String>,
    /// Whether each of the texts is a single character, so that each is within one piece.
    single_chars: bool,
}

impl Substitutions {
    fn new(pairs: &[(String, String)]) -> Result<Option<Self>, RuleError> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let error = |from: &str, problem: &str| RuleError::Substitution {
            from: from.into(),
            problem: problem.into(),
        };
        for (index, (from, _)) in pairs.iter().enumerate() {
            if from.is_empty() {
                return Err(error(from, "it is empty"));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == from) {
                return Err(error(from, "there is another one"));
            }
        }
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(pairs.iter().map(|(from, _)| from))
            .map_err(|problem| error(&pairs[0].0, &problem.to_string()))?;
        Ok(Some(Self {
            searcher,
            replacements: pairs.iter().map(|(_, to)| to.clone()).collect(),
            single_chars: pairs.iter().all(|(from, _)| from.chars().count() == 1),
        }))
    }

    fn write(&self, text: &str, out: &mut impl fmt::Write) -> fmt::Result {
        let mut written = 0;
        for found in self.searcher.find_iter(text) {
            out.write_str(&text[written..found.start()])?;
            out.write_str(&self.replacements[found.pattern()])?;
            written = found.end();
        }
        out.write_str(&text[written..])
    }
}
