use std::cell::Cell;
use std::fmt;

use regex_syntax::hir::Hir;
use siphasher::sip::SipHasher24;

use super::error::RuleError;
use super::index::{Index, Needed};
use super::pattern::{Groups, Limits, Pattern};
use super::reflection::Reflection;
use super::rule::Rule;
use super::substitution::{Substituting, Substitutions};
use super::template::{Piece, Template, TemplateError};
use crate::codec::Codec;
use crate::handler::{Context, Handler, Reply, ReplyError};

/// A robot: answers text by rules.
///
/// The rules are tried in order, and the first whose pattern matches the request makes the answer
/// from one of its templates; with no match, a fallback does. Then the substitutions are applied to
/// the whole answer, in one pass from left to right: what one has put in, no other changes. Where
/// several fit, the longest wins.
///
/// A robot is a [`Handler`] for every codec of text, and every request gets exactly one answer: the
/// first fallback, if the answer would be longer than a datagram may be. (Where that is longer too, it
/// is an error, and there is none.)
///
/// The same request always gets the same answer, in time proportional to its length, whatever the
/// patterns. Each thread that answers keeps what the search for each rule needs: space in proportion
/// to the pattern, and a cache with a bound (2 MiB in each direction for one rule, for more than 16 an
/// equal part of 32 MiB, but at least 64 KiB). Answering allocates nothing once it is warm, unless a
/// template uses a group with a number above 15. Some patterns, though not 小Zurich's, add to the cache
/// when a text leads them where none has led before.
///
/// ```
/// use rejoinder::bot::Robot;
///
/// let robot = Robot::builder()
///     .rule("I am (?<what>[^.!?]+)", "Why are you {~what}?")
///     .reflect("my", "your")
///     .fallback("Go on.")
///     .build()?;
/// assert_eq!(robot.answer("I am proud of my robot!").to_string(), "Why are you proud of your robot?");
/// assert_eq!(robot.answer("Well, I am.").to_string(), "Go on.");
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Robot {
    rules: Vec<CompiledRule>,
    /// `None` for few rules.
    index: Option<Index>,
    /// At least one.
    fallbacks: Vec<Template>,
    reflection: Option<Reflection>,
    substitutions: Option<Substitutions>,
}

impl Robot {
    /// A robot without rules, whose fallback is the empty text.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().fallback("What?").build()?;
    /// assert_eq!(robot.answer("Hello!").to_string(), "What?");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn builder() -> RobotBuilder {
        RobotBuilder::default()
    }

    /// Answers a request. Nothing is put together before the answer is displayed.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().rule("(.+)!", "{1}? Really?").build()?;
    /// assert_eq!(robot.answer("It rains!").to_string(), "It rains? Really?");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn answer<'a>(&'a self, request: &'a str) -> RobotAnswer<'a> {
        let ask = |rule| Match::of(rule, request);
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
    robot: &'a Robot,
    request: &'a str,
    template: &'a Template,
    matched: Option<Match<'a>>,
}

/// Which rule matches, and what.
#[derive(Clone, Copy, Debug)]
struct Match<'a> {
    rule: &'a CompiledRule,
    start: usize,
    end: usize,
}

impl<'a> Match<'a> {
    fn of(rule: &'a CompiledRule, request: &str) -> Option<Self> {
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

/// Puts a [`Robot`] together.
///
/// ```
/// use rejoinder::bot::Robot;
///
/// let robot = Robot::builder()
///     .rule("你是(?<what>.+)吗", "为什么问我是不是{what}？")
///     .rule("我(?<what>.+)", "你{~what}？")
///     .reflect("我", "你")
///     .reflect("你", "我")
///     .fallback("请继续。")
///     .build()?;
/// assert_eq!(robot.answer("我觉得你懂我").to_string(), "你觉得我懂你？");
/// # Ok::<(), rejoinder::bot::RuleError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RobotBuilder {
    rules: Vec<Rule>,
    fallbacks: Vec<String>,
    reflections: Vec<(String, String)>,
    substitutions: Vec<(String, String)>,
}

impl RobotBuilder {
    /// Adds a rule, to be tried after those that were added before, with one template.
    ///
    /// The same as [`rules`](Self::rules) with [`Rule::new(pattern, template)`](Rule::new).
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder()
    ///     .rule("(?<greeting>Hello|Hi)", "{greeting} to you, too.")
    ///     .rule("H", "never asked about Hello and Hi")
    ///     .build()?;
    /// assert_eq!(robot.answer("Hi, robot").to_string(), "Hi to you, too.");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn rule(self, pattern: impl Into<String>, template: impl Into<String>) -> Self {
        self.rules([Rule::new(pattern, template)])
    }

    /// Adds rules, to be tried in this order after those that were added before.
    ///
    /// ```
    /// use rejoinder::bot::{Robot, Rule};
    ///
    /// let animals = ["cat", "dog"];
    /// let robot = Robot::builder()
    ///     .rules(animals.map(|animal| Rule::new(animal, format!("A {animal}!")).anywhere()))
    ///     .build()?;
    /// assert_eq!(robot.answer("my dog").to_string(), "A dog!");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Adds an answer for when no rule matches, to be taken literally. Of several, one is chosen as
    /// [among a rule's templates](Rule::or). Default: the empty text.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder().fallback("Go on.").fallback("{1}").build()?;
    /// assert_eq!(robot.answer("Well!").to_string(), "Go on.");
    /// assert_eq!(robot.answer("Well").to_string(), "{1}");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn fallback(mut self, answer: impl Into<String>) -> Self {
        self.fallbacks.push(answer.into());
        self
    }

    /// Replaces the words `from` by `to` in what a template takes over with a `~`: `{~1}`.
    ///
    /// All reflections are made in one pass from left to right, so that two can swap: what one has
    /// put in, no other changes. Where several fit, the longest wins.
    ///
    /// **Whole words.** `my` is not found in `myth` or `army`. At either end of `from`, if there is a
    /// letter, a mark, a digit or an underscore of a script that puts spaces between words, none may
    /// stand next to it in the text. Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and Yi put
    /// none, so 我 is found wherever it stands; and their characters end a word of another script,
    /// as in `给my朋友`. An apostrophe is no letter: list `I'm` beside `I`.
    ///
    /// **Case.** Words are found in any case, and with `’` for `'`. If `from` begins with a small
    /// letter, and the words in the text with a capital, so does what comes in their place (`My`
    /// becomes `Your`); if all of two or more letters are capitals, all are (`MY` becomes `YOUR`).
    /// Otherwise `to` stands as it is: for `I` write a capital, and it becomes `you`.
    ///
    /// ```
    /// use rejoinder::bot::Robot;
    ///
    /// let robot = Robot::builder()
    ///     .rule("(?i)(?:i think|我觉得)(?<what>.+)", "Because{~what}?")
    ///     .reflect("I", "you").reflect("I'm", "you're").reflect("my", "your")
    ///     .reflect("you", "I").reflect("your", "my")
    ///     .reflect("我", "你").reflect("你", "我")
    ///     .build()?;
    /// for (request, answer) in [
    ///     ("I think my myths bore you", "Because your myths bore I?"),
    ///     ("I think I’m YOUR friend", "Because you're MY friend?"),
    ///     ("我觉得你比我高", "Because我比你高?"),
    /// ] {
    ///     assert_eq!(robot.answer(request).to_string(), answer);
    /// }
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn reflect(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.reflections.push((from.into(), to.into()));
        self
    }

    /// Replaces every `from` in an answer by `to`, within words too.
    ///
    /// ```
    /// let robot = rejoinder::bot::Robot::builder()
    ///     .rule("(.*)", "{1}")
    ///     .substitute("黑", "白")
    ///     .substitute("白", "黑")
    ///     .build()?;
    /// assert_eq!(robot.answer("黑白分明").to_string(), "白黑分明");
    /// # Ok::<(), rejoinder::bot::RuleError>(())
    /// ```
    pub fn substitute(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.substitutions.push((from.into(), to.into()));
        self
    }

    /// Compiles the rules.
    ///
    /// The automaton of one pattern may take 10 MiB, those of all together 64 MiB.
    ///
    /// ```
    /// let builder = rejoinder::bot::Robot::builder().rule("(?<a>.)", "{b}");
    /// assert!(builder.build().is_err());
    /// ```
    pub fn build(self) -> Result<Robot, RuleError> {
        let reflection = Reflection::new(&self.reflections)?;
        let mut rules = Vec::with_capacity(self.rules.len());
        let mut needed = Vec::with_capacity(self.rules.len());
        let mut bytes_left = MAX_RULES_BYTES;
        for (rule, number) in self.rules.iter().zip(1..) {
            let limits = Limits {
                automaton_bytes: bytes_left.min(MAX_RULE_BYTES),
                cache_bytes: (MAX_CACHES_BYTES / self.rules.len())
                    .clamp(MIN_CACHE_BYTES, MAX_CACHE_BYTES),
            };
            let has_reflections = reflection.is_some();
            let (compiled, hir) = CompiledRule::new(number, rule, limits, has_reflections)?;
            bytes_left = bytes_left.saturating_sub(compiled.pattern.automaton_bytes());
            rules.push(compiled);
            if self.rules.len() >= MANY_RULES {
                needed.push(Needed::by(&hir, rule.anywhere));
            }
        }
        let mut robot = Robot {
            rules,
            index: (!needed.is_empty()).then(|| Index::new(&needed)).flatten(),
            fallbacks: match self.fallbacks.as_slice() {
                [] => vec![Template::literal("")],
                answers => answers.iter().map(|text| Template::literal(text)).collect(),
            },
            reflection,
            substitutions: Substitutions::new(&self.substitutions)?,
        };
        if let Some(substitutions) = &robot.substitutions {
            let templates = robot.rules.iter_mut().flat_map(|rule| &mut rule.templates);
            for template in templates.chain(&mut robot.fallbacks) {
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
struct CompiledRule {
    /// From 1.
    number: usize,
    pattern: Pattern,
    /// At least one.
    templates: Vec<Template>,
}

impl CompiledRule {
    fn new(
        number: usize,
        rule: &Rule,
        limits: Limits,
        has_reflections: bool,
    ) -> Result<(Self, Hir), RuleError> {
        let (pattern, hir) =
            Pattern::new(&rule.pattern, rule.anywhere, limits).map_err(|error| {
                RuleError::Pattern {
                    rule: number,
                    offset: error.offset,
                    problem: error.problem,
                }
            })?;
        let templates = rule.templates.iter().zip(1..).map(|(text, template)| {
            Template::parse(text, &pattern, has_reflections).map_err(
                |TemplateError { offset, problem }| RuleError::Template {
                    rule: number,
                    template,
                    offset,
                    problem,
                },
            )
        });
        let templates = templates.collect::<Result<_, _>>()?;
        let compiled = Self {
            number,
            pattern,
            templates,
        };
        Ok((compiled, hir))
    }
}

/// From so many rules on, an index is worth its while.
const MANY_RULES: usize = 8;
/// What the automaton of one rule may take: as much as the `regex` crate allows by default.
const MAX_RULE_BYTES: usize = 10 << 20;
/// What those of all rules may take together.
const MAX_RULES_BYTES: usize = 64 << 20;
/// What is kept of automata that are built while they run, by a thread, for all rules together ...
const MAX_CACHES_BYTES: usize = 16 << 20;
/// ... and for one ...
const MAX_CACHE_BYTES: usize = 1 << 20;
/// ... and, where there are very many, enough for a pattern of the usual size. A pattern for which it
/// is not enough is searched by a slower automaton, in linear time too. Vectors that grow by doubling
/// take up to twice as much, which is what the documentation tells.
const MIN_CACHE_BYTES: usize = 32 << 10;

thread_local! {
    /// Where answers are put together that cannot be written piece by piece. It is kept, so that a
    /// robot that has warmed up allocates nothing.
    static WHOLE_ANSWER: Cell<String> = const { Cell::new(String::new()) };
}
