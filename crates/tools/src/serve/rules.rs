//! `--rules`: a robot from a file.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rejoinder::bot::Robot;
use rejoinder::escape::Escaped;

use crate::program::{read_file, say};

/// A file of rules, which can be read as often as it is changed.
pub(crate) struct RulesFile(PathBuf);

impl RulesFile {
    pub(crate) fn new(path: OsString) -> Self {
        Self(path.into())
    }

    /// Reads the file and compiles its rules; or says in one line what is wrong, and where.
    pub(crate) fn load(&self) -> Result<Robot, String> {
        let bytes = read_file(&self.0).map_err(|error| format!("{self}: {error}"))?;
        let robot = Robot::from_toml(&bytes).map_err(|error| format!("{self}: {error}"))?;
        for warning in robot.warnings() {
            say(Escaped(&format!("warning: {self}: {warning}")));
        }
        Ok(robot)
    }
}

impl fmt::Display for RulesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
