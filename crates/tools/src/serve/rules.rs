//! `--rules`: a robot from a file.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rejoinder::bot::Robot;
use rejoinder::escape::Escaped;

use crate::program::input::read_text;
use crate::program::{say, warn};

/// A file of rules, which can be read as often as it is changed.
#[derive(Debug)]
pub(crate) struct RulesFile(PathBuf);

/// A robot that was read, and what there is to say of its rules.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) robot: Robot,
    pub(crate) rules: usize,
    warnings: Vec<String>,
}

impl RulesFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the file and compiles its rules. An error is one line with the place.
    pub(crate) fn load(&self) -> Result<Loaded, String> {
        let text = read_text(&self.0).map_err(|problem| format!("{self}: {problem}"))?;
        if text.trim().is_empty() {
            // It is a file half written.
            return Err(format!("{self}: line 1, column 1: it is empty"));
        }
        let robot = Robot::from_toml(&text).map_err(|error| format!("{self}: {error}"))?;
        let rules = text
            .lines()
            .filter(|line| line.trim() == "[[rule]]")
            .count();
        Ok(Loaded {
            rules,
            warnings: Vec::new(),
            robot,
        })
    }
}

impl Loaded {
    /// Prints how many rules there are, and what is odd about them.
    pub(crate) fn report(&self, before: Option<usize>) {
        for warning in &self.warnings {
            warn(Escaped(warning));
        }
        match before {
            None => say(format_args!("{} rules", self.rules)),
            Some(before) => say(format_args!("{} rules, {before} before", self.rules)),
        }
    }
}

impl fmt::Display for RulesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
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

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
