use std::collections::HashMap;
use std::sync::Arc;

use regex_syntax::hir::Hir;

use super::budget::STEPS_PER_BYTE;
use super::error::RuleError;
use super::fast_match::Classes;
use super::index::{Index, Needed};
use super::pattern::{Pattern, PatternLimits};
use super::reflection::Reflection;
use super::robot::{CompiledRule, Robot};
use super::rule::{Rule, RuleAnswer};
use super::rule_pattern::RulePattern;
use super::substitution::Substitutions;
use super::template::{Needs, Template, TemplateError};
use super::warning::{RuleProblem, RuleWarning};

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
    memory_limit: Option<usize>,
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
    pub fn rule(self, pattern: impl Into<RulePattern>, template: impl Into<String>) -> Self {
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

    /// Replaces the words `from` by `to` in what a template captures with a `~`: `{~1}`.
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

    /// How much memory the rules may take, in bytes: their automata, tables and texts, and the index that
    /// finds them. Default: 64 MiB, which is enough for 10,000 simple rules. Any number is allowed; a robot
    /// that needs more is an error of [`build`](Self::build).
    ///
    /// ```
    /// use rejoinder::bot::{Robot, RuleError};
    ///
    /// let error = Robot::builder().rule("hi", "Hi.").memory_limit(100).build().unwrap_err();
    /// assert!(matches!(error, RuleError::TooManyRules { rule: 1, limit: 100, .. }));
    /// ```
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Compiles the rules.
    ///
    /// The automaton of one pattern may take 10 MiB, and all rules together 64 MiB, or what
    /// [`memory_limit`](Self::memory_limit) allows. What is wrong is an error with its place.
    ///
    /// ```
    /// let builder = rejoinder::bot::Robot::builder().rule("(?<a>.)", "{b}");
    /// assert!(builder.build().is_err());
    /// ```
    pub fn build(self) -> Result<Robot, RuleError> {
        let limit = self.memory_limit.unwrap_or(DEFAULT_MEMORY_BYTES);
        let reflection = Reflection::new(&self.reflections)?;
        let substitutions = Substitutions::new(&self.substitutions)?;
        let mut rules = Vec::with_capacity(self.rules.len());
        let mut needed = Vec::with_capacity(self.rules.len());
        let mut classes = Classes::default();
        let mut bytes = 0;
        let limits = PatternLimits {
            automaton_bytes: MAX_RULE_BYTES,
            table_bytes: (MAX_TABLES_BYTES / self.rules.len().max(1)).min(MAX_TABLE_BYTES),
        };
        for (rule, number) in self.rules.iter().zip(1..) {
            let (mut compiled, hir) =
                CompiledRule::new(number, rule, reflection.is_some(), limits, &mut classes)?;
            for template in &mut compiled.templates {
                template.substitute(substitutions.as_ref());
            }
            bytes += compiled.memory_bytes();
            let taken = bytes + classes.memory_bytes();
            if taken > limit {
                return Err(RuleError::TooManyRules {
                    rule: number,
                    bytes: taken,
                    limit,
                });
            }
            rules.push(compiled);
            if self.rules.len() >= MANY_RULES {
                let hir = hir.as_ref();
                needed.push(hir.map_or_else(Vec::new, |hir| Needed::by(hir, rule.anywhere)));
            }
        }
        let index = (!needed.is_empty()).then(|| Index::new(&needed)).flatten();
        bytes += classes.memory_bytes()
            + index.as_ref().map_or(0, Index::memory_bytes)
            + reflection.as_ref().map_or(0, Reflection::memory_bytes)
            + substitutions
                .as_ref()
                .map_or(0, Substitutions::memory_bytes);
        if bytes > limit {
            return Err(RuleError::TooManyRules {
                rule: rules.len(),
                bytes,
                limit,
            });
        }
        let mut fallbacks: Vec<_> = match self.fallbacks.as_slice() {
            [] => vec![Template::literal("")],
            answers => answers.iter().map(|text| Template::literal(text)).collect(),
        };
        for fallback in &mut fallbacks {
            fallback.substitute(substitutions.as_ref());
        }
        let reflecting = reflection.as_ref().map_or(1, Reflection::growth);
        let substituting = substitutions.as_ref().map_or(1, Substitutions::growth);
        Ok(Robot {
            warnings: warnings(&self.rules, &rules),
            is_single_run: is_single_run(&rules),
            rules,
            index,
            fallbacks,
            reflection,
            substitutions,
            growth: reflecting.saturating_mul(substituting),
            memory_bytes: bytes,
            exhausted: Arc::default(),
        })
    }
}

/// Whether there is one rule that takes few steps for each byte.
fn is_single_run(rules: &[CompiledRule]) -> bool {
    let cheap = |template: &Template| {
        template.needs <= Needs::Start && template.steps_per_byte < STEPS_PER_BYTE
    };
    match rules {
        [rule] => rule.pattern.run().is_some() && rule.templates.iter().all(cheap),
        _ => false,
    }
}

/// Rules that never answer.
fn warnings(rules: &[Rule], compiled: &[CompiledRule]) -> Vec<RuleWarning> {
    let mut warnings = Vec::new();
    let mut warn = |rule, problem| {
        warnings.push(RuleWarning {
            rule,
            line: None,
            problem,
        });
    };
    // A rule that matches anywhere answers all that the same one answers at the beginning.
    let mut earlier = HashMap::new();
    for (rule, compiled) in rules.iter().zip(compiled) {
        let number = compiled.number;
        let source = rule.pattern.0.as_str();
        let key = |anywhere| (source, rule.pattern.0.is_text(), rule.flags, anywhere);
        let same = earlier
            .get(&key(true))
            .or_else(|| earlier.get(&key(rule.anywhere)));
        if let Some(earlier) = same {
            warn(number, RuleProblem::Repeated { earlier: *earlier });
        } else if compiled.matches_all && number < rules.len() {
            warn(number, RuleProblem::MatchesAll);
        } else if source.is_empty() {
            warn(number, RuleProblem::Empty);
        }
        earlier.entry(key(rule.anywhere)).or_insert(number);
    }
    warnings
}

impl CompiledRule {
    /// Together with the syntax tree of its pattern, if that is known.
    fn new(
        number: usize,
        rule: &Rule,
        has_reflections: bool,
        limits: PatternLimits,
        classes: &mut Classes,
    ) -> Result<(Self, Option<Hir>), RuleError> {
        let source = &rule.pattern.0;
        let pattern = Pattern::new(source, rule.flags, rule.anywhere, limits, classes);
        let (pattern, hir) = pattern.map_err(|error| RuleError::Pattern {
            rule: number,
            offset: error.offset,
            problem: error.problem,
        })?;
        let templates = rule.answers.iter().zip(1..).map(|(answer, template)| {
            let text = match answer {
                RuleAnswer::Template(text) => text,
                RuleAnswer::Computed(compute) => return Ok(Template::computed(compute.clone())),
            };
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
            matches_all: hir.as_ref().is_some_and(|hir| {
                let properties = hir.properties();
                properties.minimum_len() == Some(0) && properties.look_set().is_empty()
            }),
            pattern,
            templates,
        };
        Ok((compiled, hir))
    }

    fn memory_bytes(&self) -> usize {
        let templates = self.templates.iter().map(Template::memory_bytes);
        size_of::<Self>() + self.pattern.memory_bytes() + templates.sum::<usize>()
    }
}

/// From so many rules on, an index is worth its while.
const MANY_RULES: usize = 8;
/// What the automaton of one rule may take: as much as the `regex` crate allows by default.
const MAX_RULE_BYTES: usize = 10 << 20;
/// What all rules may take together, if nothing else is asked for.
const DEFAULT_MEMORY_BYTES: usize = 64 << 20;
/// The tables of all rules together ...
const MAX_TABLES_BYTES: usize = 32 << 20;
/// ... and that of one, which has some 130 states then, if the pattern has many classes of bytes.
const MAX_TABLE_BYTES: usize = 64 << 10;
