use regex_syntax::hir::Hir;

use super::error::RuleError;
use super::index::{Index, Needed};
use super::pattern::{Pattern, PatternLimits};
use super::reflection::Reflection;
use super::robot::{CompiledRule, Robot};
use super::rule::Rule;
use super::substitution::Substitutions;
use super::template::{Piece, Template, TemplateError};

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
    /// [among a rule's templates](Rule::or_template). Default: the empty text.
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
            let limits = PatternLimits {
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

impl CompiledRule {
    fn new(
        number: usize,
        rule: &Rule,
        limits: PatternLimits,
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
