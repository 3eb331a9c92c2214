use std::cell::Cell;
use std::fmt;
use std::sync::atomic::Ordering;

use siphasher::sip::SipHasher24;

use super::budget::{Budget, Exhausted};
use super::fast_match::LiteralClassRun;
use super::groups::Groups;
use super::pattern::Found;
use super::robot::{CompiledRule, Robot};
use super::substitution::{Substituting, Substitutions};
use super::template::{Needs, Piece, Template};
use crate::codec::Codec;
use crate::handler::{Context, Handler, Reply, ReplyError};
use crate::transport::MAX_DATAGRAM_BYTES;

impl Robot {
    /// Answers a request. Nothing is put together before the answer is displayed.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().rule("(.+)!", "{1}? Really?").build()?;
    /// assert_eq!(robot.answer("It rains!").to_string(), "It rains? Really?");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn answer<'a>(&'a self, request: &'a str) -> RobotAnswer<'a> {
        match self.single_run() {
            Some((rule, run)) => {
                let end = run.match_len(request);
                RobotAnswer {
                    robot: self,
                    request,
                    template: match end {
                        Some(_) => one_of(&rule.templates, request),
                        None => one_of(&self.fallbacks, request),
                    },
                    rule: end.map(|_| rule),
                    found: Found::at_start(end.unwrap_or_default(), request.len()),
                    computed: None,
                    is_exhausted: false,
                }
            }
            None => self.answer_by_search(request),
        }
    }

    /// The one rule, if it is so simple that it cannot use up the budget: that of 小Zurich.
    ///
    /// It does not need the search for all the others, in which an answer is put together bit by bit. To move
    /// what was just written in parts of another size makes a processor wait for a fifth of 小Zurich's time.
    #[inline]
    fn single_run(&self) -> Option<(&CompiledRule, &LiteralClassRun)> {
        match self.rules.as_slice() {
            [rule] if self.is_single_run => Some((rule, rule.pattern.run()?)),
            _ => None,
        }
    }

    #[inline(never)]
    fn answer_by_search<'a>(&'a self, request: &'a str) -> RobotAnswer<'a> {
        let mut answer = RobotAnswer::new(self, request);
        let mut budget = Budget::for_request(request.len());
        if answer.search(&mut budget).is_err() {
            self.exhausted.fetch_add(1, Ordering::Relaxed);
            answer.rule = None;
            answer.is_exhausted = true;
        }
        if answer.rule.is_none() {
            answer.template = one_of(&self.fallbacks, request);
        }
        answer
    }

    /// The first fallback, which is the answer where any other would be too long.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// assert_eq!(zurich.fallback().to_string(), zurich.answer("?").to_string());
    /// ```
    pub fn fallback(&self) -> RobotAnswer<'_> {
        RobotAnswer::new(self, "")
    }
}

#[inline]
fn one_of<'a>(templates: &'a [Template], request: &str) -> &'a Template {
    match templates {
        [only] => only,
        several => chosen(several, request),
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
        let answer = self.answer(request);
        let sent = if answer.most_bytes() <= MAX_DATAGRAM_BYTES {
            reply.send(&answer)
        } else {
            reply.send(&Limited(&answer))
        };
        match sent {
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
    robot: &'a Robot,
    request: &'a str,
    template: &'a Template,
    /// `None` if it is a fallback.
    rule: Option<&'a CompiledRule>,
    /// What the rule matches.
    found: Found,
    /// What a function of the caller has made.
    computed: Option<String>,
    is_exhausted: bool,
}

impl<'a> RobotAnswer<'a> {
    /// The first fallback, until something else is found.
    fn new(robot: &'a Robot, request: &'a str) -> Self {
        Self {
            robot,
            request,
            template: &robot.fallbacks[0],
            rule: None,
            found: Found::default(),
            computed: None,
            is_exhausted: false,
        }
    }

    /// Finds the rule that answers, and what its template needs, within the budget.
    #[inline]
    fn search(&mut self, budget: &mut Budget) -> Result<(), Exhausted> {
        let (robot, request, found) = (self.robot, self.request, &mut self.found);
        let mut ask = |rule: &'a CompiledRule, budget: &mut Budget| {
            let matches = rule.pattern.find(request, found, budget)?;
            Ok(matches.then_some(rule))
        };
        self.rule = if let Some(index) = &robot.index {
            index.find(request, budget, |rule, budget| {
                ask(&robot.rules[rule], budget)
            })?
        } else {
            let mut asked = robot.rules.iter().map(|rule| ask(rule, budget));
            asked.find_map(Result::transpose).transpose()?
        };
        match self.rule {
            Some(rule) => {
                self.template = one_of(&rule.templates, request);
                self.locate(budget)
            }
            None => Ok(()),
        }
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
        self.rule.map(|rule| rule.number)
    }

    /// Whether a fallback answers because the search for a rule took too much work.
    ///
    /// ```
    /// assert!(!rejoinder::bot::zurich().answer("你好吗？").is_exhausted());
    /// ```
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    /// The answer as it was before the substitutions.
    ///
    /// ```
    /// let zurich = rejoinder::bot::zurich();
    /// let answer = zurich.answer("你爱我吗？");
    /// assert_eq!(answer.before_substitution().to_string(), "【机器人】小Zurich 爱我!");
    /// ```
    pub fn before_substitution(&self) -> impl fmt::Display {
        struct Before<'a>(&'a RobotAnswer<'a>);

        impl fmt::Display for Before<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write_pieces(None, f)
            }
        }

        Before(self)
    }

    /// Finds out what the template needs of the match, within the budget.
    #[inline]
    fn locate(&mut self, budget: &mut Budget) -> Result<(), Exhausted> {
        budget.spend(self.template.steps_per_byte * self.found.searched as u64)?;
        match self.template.needs {
            Needs::Nothing => Ok(()),
            Needs::Start if self.found.is_start_known => Ok(()),
            _ => self.locate_by_search(budget),
        }
    }

    #[inline(never)]
    fn locate_by_search(&mut self, budget: &mut Budget) -> Result<(), Exhausted> {
        let Some(rule) = self.rule else {
            return Ok(());
        };
        let pattern = &rule.pattern;
        self.found.start = pattern.start(self.request, self.found, budget)?;
        self.found.is_start_known = true;
        match self.template.needs {
            Needs::Nothing | Needs::Start => Ok(()),
            Needs::Groups(last) => pattern.spend_for_groups(self.request, self.found, last, budget),
            Needs::Computed => {
                self.computed = self.compute();
                Ok(())
            }
        }
    }

    fn compute(&self) -> Option<String> {
        let text = &self.request[..self.found.searched];
        let captures = self.rule?.pattern.given()?.captures(text)?;
        match self.template.pieces.as_slice() {
            [Piece::Computed(compute)] => Some(compute.call(&captures)),
            _ => None,
        }
    }

    /// How long the answer is at most, in bytes; often it is much shorter.
    fn most_bytes(&self) -> usize {
        let captured = self.template.captures.saturating_mul(self.request.len());
        let computed = self.computed.as_ref().map_or(0, String::len);
        let growing = captured.saturating_add(computed);
        let literal = self.template.literal_bytes;
        literal
            .saturating_add(growing)
            .saturating_mul(self.robot.growth)
    }

    /// Writes the answer.
    #[inline]
    fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.robot.substitutions {
            // What is to be replaced may begin in one piece and end in another.
            Some(substitutions) if !substitutions.single_chars => {
                self.write_whole(substitutions, out)
            }
            substitutions => self.write_pieces(substitutions.as_ref(), out),
        }
    }

    fn write_whole(&self, substitutions: &Substitutions, out: &mut impl fmt::Write) -> fmt::Result {
        let mut whole = WHOLE_ANSWER.take();
        whole.clear();
        self.write_pieces(None, &mut whole)?;
        let result = substitutions.write(&whole, out);
        WHOLE_ANSWER.set(whole);
        result
    }

    /// Writes the pieces one by one, each after these substitutions.
    fn write_pieces(
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
                Piece::Computed(_) => {
                    let text = self.computed.as_deref().unwrap_or_default();
                    match substitutions {
                        None => out.write_str(text),
                        Some(substitutions) => substitutions.write(text, out),
                    }
                }
                Piece::Capture {
                    group,
                    margins,
                    reflected,
                } => {
                    let text = match margins {
                        Some(margins) => {
                            margins.within(&self.request[self.found.start..self.found.end])
                        }
                        None => self.captured(*group, &mut groups),
                    };
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

    /// What a group matched. To search the groups takes several times as long as the match did.
    #[inline(never)]
    fn captured<'g>(&'g self, group: usize, groups: &mut Option<Groups<'g>>) -> &'g str {
        let Some(rule) = self.rule else {
            return "";
        };
        let last = match self.template.needs {
            Needs::Groups(last) => last,
            _ => group,
        };
        groups
            .get_or_insert_with(|| rule.pattern.groups(self.request, self.found, last))
            .get(group)
    }
}

impl fmt::Display for RobotAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

impl fmt::Debug for RobotAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobotAnswer")
            .field("request", &self.request)
            .field("rule", &self.rule())
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

/// An answer of which no more is written than shows that it is too long for a datagram: what is repeated
/// and replaced can be thousands of times as long as the request.
struct Limited<'a>(&'a RobotAnswer<'a>);

impl fmt::Display for Limited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Out<'o, 'f> {
            out: &'o mut fmt::Formatter<'f>,
            written: usize,
        }

        impl fmt::Write for Out<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                if self.written > MAX_DATAGRAM_BYTES {
                    return Err(fmt::Error);
                }
                self.written += text.len();
                self.out.write_str(text)
            }
        }

        let mut out = Out { out: f, written: 0 };
        let result = self.0.write(&mut out);
        if out.written > MAX_DATAGRAM_BYTES {
            return Ok(());
        }
        result
    }
}

thread_local! {
    /// Where answers are put together that cannot be written piece by piece. It is kept, so that a
    /// robot that has warmed up allocates nothing.
    static WHOLE_ANSWER: Cell<String> = const { Cell::new(String::new()) };
}
