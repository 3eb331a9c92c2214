use std::cell::Cell;
use std::fmt;

use siphasher::sip::SipHasher24;

use super::pattern::Groups;
use super::robot::{CompiledRule, Robot};
use super::substitution::{Substituting, Substitutions};
use super::template::{Piece, Template};
use crate::codec::Codec;
use crate::handler::{Context, Handler, Reply, ReplyError};

impl Robot {
    /// Answers a request. Nothing is put together before the answer is displayed.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().rule("(.+)!", "{1}? Really?").build()?;
    /// assert_eq!(robot.answer("It rains!").to_string(), "It rains? Really?");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn answer<'a>(&'a self, request: &'a str) -> RobotAnswer<'a> {
        let ask = |rule| Match::find(rule, request);
        let matched = match &self.index {
            Some(index) => index.find(request, |rule| ask(&self.rules[rule])),
            None => self.rules.iter().find_map(ask),
        };
        let templates = match &matched {
            Some(matched) => &matched.rule.templates,
            None => &self.fallbacks,
        };
        RobotAnswer {
            robot: self,
            request,
            template: match templates.as_slice() {
                [only] => only,
                several => chosen(several, request),
            },
            matched,
        }
    }

    /// The first fallback, which is the answer where any other would be too long.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// assert_eq!(zurich.fallback().to_string(), zurich.answer("?").to_string());
    /// ```
    pub fn fallback(&self) -> RobotAnswer<'_> {
        RobotAnswer {
            robot: self,
            request: "",
            template: &self.fallbacks[0],
            matched: None,
        }
    }
}

/// One of several, by a hash of the request that is the same everywhere and for ever.
#[inline(never)]
fn chosen<'a>(templates: &'a [Template], request: &str) -> &'a Template {
    let hash = SipHasher24::new().hash(request.as_bytes());
    let number = hash % templates.len() as u64;
    &templates[usize::try_from(number).expect("it is below a length")]
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
///
/// ```
/// let zurich = rejoinder::bot::zurich();
/// let answer = zurich.answer("你爱我吗？");
/// assert_eq!(format!("{answer}"), "【机器人】小Zurich 爱自己!");
/// ```
pub struct RobotAnswer<'a> {
    pub(super) robot: &'a Robot,
    pub(super) request: &'a str,
    pub(super) template: &'a Template,
    pub(super) matched: Option<Match<'a>>,
}

/// Which rule matches, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match<'a> {
    pub(super) rule: &'a CompiledRule,
    start: usize,
    end: usize,
}

impl<'a> Match<'a> {
    pub(super) fn find(rule: &'a CompiledRule, request: &str) -> Option<Self> {
        let (start, end) = rule.pattern.find(request)?;
        Some(Self { rule, start, end })
    }
}

impl RobotAnswer<'_> {
    /// The number of the rule that makes the answer, from 1; nothing for a fallback.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// assert_eq!(zurich.answer("你好吗？").rule(), Some(1));
    /// assert_eq!(zurich.answer("你好！").rule(), None);
    /// ```
    pub fn rule(&self) -> Option<usize> {
        self.matched.map(|matched| matched.rule.number)
    }

    /// The answer as it was before the substitutions.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// let answer = zurich.answer("你爱我吗？");
    /// assert_eq!(answer.before_substitution().to_string(), "【机器人】小Zurich 爱我!");
    /// ```
    pub fn before_substitution(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.write(None, f))
    }

    /// Writes the pieces one by one, each after these substitutions.
    fn write(
        &self,
        substitutions: Option<&Substitutions>,
        out: &mut impl fmt::Write,
    ) -> fmt::Result {
        let mut groups = None;
        self.template
            .pieces
            .iter()
            .try_for_each(|piece| match piece {
                Piece::Literal { plain, substituted } => out.write_str(match substitutions {
                    Some(_) => substituted,
                    None => plain,
                }),
                Piece::Capture { group, reflected } => {
                    let text = self.captured(*group, &mut groups);
                    let reflection = self.robot.reflection.as_ref().filter(|_| *reflected);
                    match (reflection, substitutions) {
                        (None, None) => out.write_str(text),
                        (None, Some(substitutions)) => substitutions.write(text, out),
                        (Some(reflection), None) => reflection.write(text, out),
                        (Some(reflection), Some(substitutions)) => {
                            reflection.write(text, &mut Substituting { substitutions, out })
                        }
                    }
                }
            })
    }

    /// What a group matched. Where it lies may follow from where the match lies. Only if not, the
    /// `groups` are searched, which takes several times as long.
    fn captured<'g>(&'g self, group: usize, groups: &mut Option<Groups<'g>>) -> &'g str {
        let Some(Match { rule, start, end }) = self.matched else {
            return "";
        };
        let pattern = &rule.pattern;
        match pattern.margins(group) {
            Some(margins) => margins.within(&self.request[start..end]),
            None => groups
                .get_or_insert_with(|| {
                    let last = self.template.captures().max().unwrap_or(group);
                    pattern.groups(self.request, start, last)
                })
                .get(group),
        }
    }
}

impl fmt::Display for RobotAnswer<'_> {
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

impl fmt::Debug for RobotAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobotAnswer")
            .field("request", &self.request)
            .field("matched", &self.matched)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Where answers are put together that cannot be written piece by piece. It is kept, so that a
    /// robot that has warmed up allocates nothing.
    static WHOLE_ANSWER: Cell<String> = const { Cell::new(String::new()) };
}
