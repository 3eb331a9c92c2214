use std::fmt;
use std::sync::Arc;

use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::Hir;

use super::automata::Automata;
use super::budget::{Budget, Exhausted};
use super::fast_match::{Classes, LiteralClassRun};
use super::flags::Flags;
use super::given::Given;
use super::groups::{GroupTable, Groups, Margins};
use super::rule_pattern::Source;

/// A regular expression that matches at the very beginning, or anywhere.
#[derive(Clone)]
pub(super) struct Pattern {
    source: Box<str>,
    anywhere: bool,
    /// Whether there is a `$` in it, which also matches before a line end at the end of the request.
    has_dollar: bool,
    engine: Engine,
    groups: Arc<GroupTable>,
}

/// All find the same, each for its kind of patterns.
#[derive(Clone)]
enum Engine {
    Run(LiteralClassRun),
    Literal(Box<str>),
    Automata(Arc<Automata>),
    Given(Arc<Given>),
}

/// A match, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) start: usize,
    /// Whether `start` says where it begins.
    pub(super) is_start_known: bool,
    pub(super) end: usize,
    /// How much of the request was searched: all, or all but a line end.
    pub(super) searched: usize,
}

impl Found {
    #[inline]
    pub(super) fn at_start(end: usize, searched: usize) -> Self {
        Self {
            start: 0,
            is_start_known: true,
            end,
            searched,
        }
    }

    #[inline]
    fn set(&mut self, start: Option<usize>, end: usize, searched: usize) {
        self.is_start_known = start.is_some();
        self.start = start.unwrap_or_default();
        self.end = end;
        self.searched = searched;
    }
}

impl Pattern {
    /// Together with its syntax tree, if that is known.
    pub(super) fn new(
        source: &Source,
        flags: Flags,
        anywhere: bool,
        limits: PatternLimits,
        classes: &mut Classes,
    ) -> Result<(Self, Option<Hir>), PatternError> {
        match source {
            Source::Text(text) => {
                let (pattern, hir) = Self::compile(text, flags, anywhere, limits, classes)?;
                Ok((pattern, Some(hir)))
            }
            Source::Given(_) if flags != Flags::default() => Err(PatternError {
                offset: 0,
                problem: "a `Regex` keeps the flags that it was built with: set them with \
                          `RegexBuilder`"
                    .into(),
            }),
            Source::Given(regex) => {
                let tree = ast::parse::Parser::new().parse(regex.as_str()).ok();
                let pattern = Self {
                    source: regex.as_str().into(),
                    anywhere,
                    has_dollar: tree.is_some_and(|tree| has_dollar(&tree)),
                    groups: Arc::new(GroupTable::of_regex(regex)),
                    engine: Engine::Given(Arc::new(Given::new(regex.clone()))),
                };
                Ok((pattern, None))
            }
        }
    }

    fn compile(
        text: &str,
        flags: Flags,
        anywhere: bool,
        limits: PatternLimits,
        classes: &mut Classes,
    ) -> Result<(Self, Hir), PatternError> {
        let tree = ast::parse::ParserBuilder::new()
            .ignore_whitespace(flags.ignore_whitespace)
            .build()
            .parse(text)
            .map_err(regex_syntax::Error::from)?;
        // The search is anchored, not the pattern: neither a flag, nor a comment, nor an
        // alternation in it can reach beyond it.
        let hir = flags.parser().build().parse(text)?;
        let run = LiteralClassRun::new(&hir, classes).filter(|_| !anywhere);
        let (engine, groups) = match (run, literal(&hir)) {
            (Some(run), _) => (Engine::Run(run), GroupTable::of_tree(&hir)),
            (None, Some(literal)) => (Engine::Literal(literal), GroupTable::of_tree(&hir)),
            (None, None) => {
                let config = NFA::config()
                    .utf8(true)
                    .which_captures(WhichCaptures::All)
                    .nfa_size_limit(Some(limits.automaton_bytes));
                let mut compiler = NFA::compiler();
                let nfa = compiler
                    .configure(config)
                    .build_from_hir(&hir)
                    .map_err(Box::new)?;
                let groups = GroupTable::new(&hir, nfa.group_info());
                let automata = Automata::new(nfa, &hir, anywhere, limits.table_bytes)?;
                (Engine::Automata(Arc::new(automata)), groups)
            }
        };
        let pattern = Self {
            source: text.into(),
            anywhere,
            has_dollar: has_dollar(&tree),
            engine,
            groups: Arc::new(groups),
        };
        Ok((pattern, hir))
    }

    /// The memory that it takes for good.
    pub(super) fn memory_bytes(&self) -> usize {
        let engine = match &self.engine {
            Engine::Run(run) => run.memory_bytes(),
            Engine::Literal(literal) => literal.len(),
            Engine::Automata(automata) => automata.memory_bytes(),
            Engine::Given(_) => size_of::<Given>(),
        };
        size_of::<Self>() + self.source.len() + engine + self.groups.memory_bytes()
    }

    pub(super) fn has_group(&self, group: usize) -> bool {
        group < self.groups.len()
    }

    pub(super) fn group_named(&self, name: &str) -> Option<usize> {
        self.groups.named(name)
    }

    /// The regular expression that the caller has compiled, if it is one.
    pub(super) fn given(&self) -> Option<&regex::Regex> {
        match &self.engine {
            Engine::Given(given) => Some(given.regex()),
            _ => None,
        }
    }

    /// The search for a pattern of that form, if there is no second try for a `$`.
    #[inline]
    pub(super) fn run(&self) -> Option<&LiteralClassRun> {
        match &self.engine {
            Engine::Run(run) if !self.has_dollar => Some(run),
            _ => None,
        }
    }

    /// Finds the leftmost match, in the request or, if there is none, in what stands before its line end.
    pub(super) fn find(
        &self,
        request: &str,
        found: &mut Found,
        budget: &mut Budget,
    ) -> Result<bool, Exhausted> {
        let matches = self.find_in(request, found, budget)?;
        if matches || !self.has_dollar {
            return Ok(matches);
        }
        match without_line_end(request) {
            Some(line) => self.find_in(line, found, budget),
            None => Ok(false),
        }
    }

    fn find_in(
        &self,
        text: &str,
        found: &mut Found,
        budget: &mut Budget,
    ) -> Result<bool, Exhausted> {
        let matched = match &self.engine {
            Engine::Run(run) => {
                budget.spend(text.len() as u64)?;
                run.match_len(text).map(|end| (Some(0), end))
            }
            Engine::Literal(literal) if self.anywhere => {
                budget.spend(2 * text.len() as u64)?;
                let start = text.find(&**literal);
                start.map(|start| (Some(start), start + literal.len()))
            }
            Engine::Literal(literal) => {
                budget.spend(literal.len() as u64)?;
                let starts = text.starts_with(&**literal);
                starts.then_some((Some(0), literal.len()))
            }
            Engine::Automata(automata) => automata.find(text, self.anywhere, budget)?,
            Engine::Given(given) => {
                budget.spend(text.len() as u64)?;
                let matched = given.regex().find(text);
                let matched = matched.filter(|matched| self.anywhere || matched.start() == 0);
                matched.map(|matched| (Some(matched.start()), matched.end()))
            }
        };
        let Some((start, end)) = matched else {
            return Ok(false);
        };
        found.set(start, end, text.len());
        Ok(true)
    }

    /// Where a match begins of which the end was found.
    pub(super) fn start(
        &self,
        request: &str,
        found: Found,
        budget: &mut Budget,
    ) -> Result<usize, Exhausted> {
        match &self.engine {
            Engine::Automata(automata) if !found.is_start_known => {
                automata.start(&request[..found.searched], budget)
            }
            _ => Ok(found.start),
        }
    }

    /// Where a group lies in every match, if that is known.
    #[inline]
    pub(super) fn margins(&self, group: usize) -> Option<Margins> {
        self.groups.margins(group)
    }

    /// Whether [`groups`](Self::groups) finds the groups up to number `last` within the budget.
    pub(super) fn spend_for_groups(
        &self,
        request: &str,
        found: Found,
        last: usize,
        budget: &mut Budget,
    ) -> Result<(), Exhausted> {
        let text = &request[..found.searched];
        match &self.engine {
            Engine::Automata(automata) => {
                automata.spend_for_groups(text, found.start..found.end, last, budget)
            }
            _ => budget.spend(text.len() as u64),
        }
    }

    /// Finds the groups up to number `last` of a match, whose start is known.
    pub(super) fn groups<'t>(&self, request: &'t str, found: Found, last: usize) -> Groups<'t> {
        let text = &request[..found.searched];
        match &self.engine {
            Engine::Automata(automata) => automata.groups(text, found.start..found.end, last),
            Engine::Given(given) => given.groups(text, found.start, last),
            // Their groups have margins, but for those that nothing is left of.
            Engine::Run(_) | Engine::Literal(_) => Groups::new(text, last),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source).finish()
    }
}

/// How much memory a pattern may take.
#[derive(Clone, Copy)]
pub(super) struct PatternLimits {
    pub(super) automaton_bytes: usize,
    /// For the table of a search. Where more were needed, the search takes longer.
    pub(super) table_bytes: usize,
}

/// What is wrong with a pattern, and where, in bytes.
pub(super) struct PatternError {
    pub(super) offset: usize,
    pub(super) problem: String,
}

impl From<regex_syntax::Error> for PatternError {
    fn from(error: regex_syntax::Error) -> Self {
        let (offset, problem) = match &error {
            regex_syntax::Error::Parse(error) => {
                (error.span().start.offset, error.kind().to_string())
            }
            regex_syntax::Error::Translate(error) => {
                (error.span().start.offset, error.kind().to_string())
            }
            // The message shows the pattern, in several lines.
            _ => (0, "no regular expression".to_owned()),
        };
        Self { offset, problem }
    }
}

impl From<Box<thompson::BuildError>> for PatternError {
    fn from(error: Box<thompson::BuildError>) -> Self {
        let problem = match error.size_limit() {
            Some(limit) => format!("its automaton takes more than {limit} bytes"),
            None => error.to_string(),
        };
        Self { offset: 0, problem }
    }
}

/// The request without the line end at its end, if there is one.
fn without_line_end(request: &str) -> Option<&str> {
    let line = request.strip_suffix('\n')?;
    Some(line.strip_suffix('\r').unwrap_or(line))
}

/// The text, if the pattern is no more than that.
fn literal(hir: &Hir) -> Option<Box<str>> {
    match hir.kind() {
        regex_syntax::hir::HirKind::Literal(literal) => {
            str::from_utf8(&literal.0).ok().map(Into::into)
        }
        _ => None,
    }
}

fn has_dollar(tree: &Ast) -> bool {
    struct Dollar(bool);

    impl ast::Visitor for Dollar {
        type Output = bool;
        type Err = std::convert::Infallible;

        fn finish(self) -> Result<bool, Self::Err> {
            Ok(self.0)
        }

        fn visit_pre(&mut self, part: &Ast) -> Result<(), Self::Err> {
            if let Ast::Assertion(assertion) = part {
                self.0 |= assertion.kind == ast::AssertionKind::EndLine;
            }
            Ok(())
        }
    }

    let Ok(found) = ast::visit(tree, Dollar(false));
    found
}
