use std::cell::Cell;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::RuleError;
use super::pattern::{Groups, Pattern};
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
/// A robot is a [`Handler`] for every codec of text, and every request gets exactly one answer: the
/// fallback, if the answer would be longer than a datagram may be.
///
/// Answering allocates nothing once a thread has answered a request or two, unless a template uses
/// a group with a number above 15.
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
        let matched = self
            .rules
            .iter()
            .find_map(|rule| Some((rule, rule.pattern.match_len(request)?)));
        Answer {
            robot: self,
            request,
            matched,
        }
    }

    /// The answer to what no rule matches.
    ///
    /// ```
    /// let zurich = rejoinder::zurich();
    /// assert_eq!(zurich.fallback().to_string(), zurich.answer("?").to_string());
    /// ```
    pub fn fallback(&self) -> Answer<'_> {
        Answer {
            robot: self,
            request: "",
            matched: None,
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
        match reply.send(&self.answer(request)) {
            Ok(()) => Ok(()),
            // What is repeated and substituted can be longer than the request was.
            Err(ReplyError::TooLong(_)) => reply.send(&self.fallback()),
            Err(error) => Err(error),
        }
    }
}

/// A robot's answer to one request. It displays as the answer.
pub struct Answer<'a> {
    robot: &'a Robot,
    request: &'a str,
    /// The rule that makes the answer, and how many bytes of the request its pattern matches.
    matched: Option<(&'a Rule, usize)>,
}

impl Answer<'_> {
    /// The answer as it was before the substitutions.
    pub fn before_substitution(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.write(None, f))
    }

    /// Writes the pieces one by one, each after these substitutions.
    fn write(
        &self,
        substitutions: Option<&Substitutions>,
        out: &mut impl fmt::Write,
    ) -> fmt::Result {
        let template = match self.matched {
            Some((rule, _)) => &rule.template,
            None => &self.robot.fallback,
        };
        let mut groups = None;
        template.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal { plain, substituted } => out.write_str(match substitutions {
                Some(_) => substituted,
                None => plain,
            }),
            Piece::Capture(group) => {
                let text = self.captured(*group, &mut groups);
                match substitutions {
                    Some(substitutions) => substitutions.write(text, out),
                    None => out.write_str(text),
                }
            }
        })
    }

    /// What a group matched. Where it lies may follow from where the match ends. Only if not, the
    /// `groups` are searched, which takes several times as long.
    fn captured<'g>(&'g self, group: usize, groups: &mut Option<Groups<'g>>) -> &'g str {
        let Some((rule, len)) = self.matched else {
            return "";
        };
        match rule.pattern.margins(group) {
            Some(margins) => margins.within(&self.request[..len]),
            None => groups
                .get_or_insert_with(|| {
                    let last = rule.template.captures().max().unwrap_or(group);
                    rule.pattern.groups(self.request, last)
                })
                .get(group),
        }
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.robot.substitutions {
            // What is to be replaced may begin in one piece and end in another.
            Some(substitutions) if !substitutions.single_chars => {
                let mut whole = WHOLE_ANSWER.take();
                whole.clear();
                self.write(None, &mut whole)?;
                let result = substitutions.write(&whole, f);
                WHOLE_ANSWER.set(whole);
                result
            }
            substitutions => self.write(substitutions.as_ref(), f),
        }
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("request", &self.request)
            .field("matched", &self.matched)
            .finish_non_exhaustive()
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

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    template: Template,
}

impl Rule {
    fn new(rule: usize, pattern: &str, template: &str) -> Result<Self, RuleError> {
        let pattern =
            Pattern::new(pattern).map_err(|problem| RuleError::Pattern { rule, problem })?;
        let template = Template::parse(rule, template, &pattern)?;
        Ok(Self { pattern, template })
    }
}

/// Replaces several texts in one pass.
#[derive(Clone, Debug)]
struct Substitutions {
    searcher: Searcher,
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
            replacements: pairs.iter().map(|(_, to)| to.clone()).collect(),
            single_chars: pairs.iter().all(|(from, _)| single_char(from).is_some()),
        }))
    }

    fn write(&self, text: &str, out: &mut impl fmt::Write) -> fmt::Result {
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

thread_local! {
    /// Where answers are put together that cannot be written piece by piece. It is kept, so that a
    /// robot that has warmed up allocates nothing.
    static WHOLE_ANSWER: Cell<String> = const { Cell::new(String::new()) };
}
