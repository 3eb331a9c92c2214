//! `--rules`: a robot from a file.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rejoinder::bot::{Robot, RuleError, RuleFile, RuleFileProblem};
use rejoinder::escape::Escaped;

use crate::program::input::read_file;
use crate::program::{say, warn};

/// A file of rules, which can be read as often as it is changed.
#[derive(Debug)]
pub(crate) struct RulesFile {
    path: PathBuf,
    /// The most memory that the rules may take, in bytes.
    memory: usize,
}

impl RulesFile {
    pub(crate) fn new(path: PathBuf, memory: usize) -> Self {
        Self { path, memory }
    }

    /// Reads the file and compiles its rules. An error is one line with the place.
    pub(crate) fn load(&self) -> Result<Robot, String> {
        let bytes = read_file(&self.path).map_err(|error| format!("{self}: {error}"))?;
        RuleFile::parse(bytes)
            .and_then(|file| file.memory_limit(self.memory).build())
            .map_err(|error| match error.problem {
                // The library's message names its own setting.
                RuleFileProblem::Rule(RuleError::TooManyRules { rule, bytes, limit }) => format!(
                    "{self}: line {}, column {}: the rules up to rule {rule} take {bytes} bytes, more than \
                     the limit of {limit}: raise it with --rules-memory MIB, or leave out rules",
                    error.line, error.column,
                ),
                _ => format!("{self}: {error}"),
            })
    }

    /// Prints how many rules there are, and what is odd about them.
    pub(crate) fn report(&self, robot: &Robot, before: Option<usize>) {
        let warnings = robot.warnings();
        for warning in warnings.iter().take(SHOWN_WARNINGS) {
            warn(Escaped(&format!("{self}: {warning}")));
        }
        if let Some(more @ 1..) = warnings.len().checked_sub(SHOWN_WARNINGS) {
            warn(Escaped(&format!("{self}: and {more} more such rules")));
        }
        let rules = robot.rules();
        let plural = if rules == 1 { "" } else { "s" };
        match before {
            None => say(format_args!("{rules} rule{plural}")),
            Some(before) => say(format_args!("{rules} rule{plural}, {before} before")),
        }
    }
}

impl fmt::Display for RulesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// What has become of the rules since the start, for metrics.
#[derive(Debug)]
pub(crate) struct Counters {
    /// 0 without a file.
    rules: AtomicU64,
    /// Seconds since 1970.
    loaded: AtomicU64,
    reloads: AtomicU64,
    failures: AtomicU64,
}

impl Counters {
    pub(crate) fn new(rules: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            rules: AtomicU64::new(rules.unwrap_or(0) as u64),
            loaded: AtomicU64::new(now()),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Counts rules that replace others, of which the number is returned.
    #[expect(clippy::cast_possible_truncation, reason = "it was a usize")]
    pub(crate) fn replaced(&self, rules: usize) -> usize {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        self.loaded.store(now(), Ordering::Relaxed);
        self.rules.swap(rules as u64, Ordering::Relaxed) as usize
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rules(&self) -> u64 {
        self.rules.load(Ordering::Relaxed)
    }

    pub(crate) fn loaded_at(&self) -> u64 {
        self.loaded.load(Ordering::Relaxed)
    }

    pub(crate) fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A file that was generated can have as many mistakes as rules.
const SHOWN_WARNINGS: usize = 10;

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
