//! `--rules`: a robot from a file.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rejoinder::bot::Robot;

use crate::program::read_file;

/// A file of rules, which can be read as often as it is changed.
pub(crate) struct RulesFile(PathBuf);

impl RulesFile {
    pub(crate) fn new(path: OsString) -> Self {
        Self(path.into())
    }

    /// Reads the file and compiles its rules; or says in one line what is wrong, and where.
    pub(crate) fn load(&self) -> Result<Robot, String> {
        let bytes = read_file(&self.0).map_err(|error| format!("{self}: {error}"))?;
        let text = str::from_utf8(&bytes).map_err(|error| {
            let (line, column) = place(&bytes, error.valid_up_to());
            format!("{self}: line {line}, column {column}: not UTF-8")
        })?;
        if text.trim().is_empty() {
            // A robot without rules is one, but nobody means it: this is a file half written.
            return Err(format!("{self}: line 1, column 1: it is empty"));
        }
        Robot::from_toml(text).map_err(|error| format!("{self}: {error}"))
    }
}

impl fmt::Display for RulesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The line and the column of a byte, both from 1; the column in characters.
fn place(text: &[u8], at: usize) -> (usize, usize) {
    let before = String::from_utf8_lossy(&text[..at]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    // A byte order mark is no character.
    let line = line.trim_start_matches('\u{feff}');
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
