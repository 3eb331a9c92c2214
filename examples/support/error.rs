//! How `client` explains what went wrong.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use rejoinder::RequestError;
use rejoinder::escape::Escaped;

use super::address::command;

/// An error with its causes, and what to do about the most common one.
pub(crate) fn explained(error: &RequestError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    match error {
        RequestError::NobodyListening { peer } if peer.ip().is_loopback() => {
            format!(
                "{line}; start the server with: {}",
                command("server", "", *peer)
            )
        }
        _ => line,
    }
}

/// The exit code of a program that could not do its work: 2 if it was called wrongly.
pub(crate) fn fail(error: &(dyn Error + 'static)) -> ExitCode {
    if error.downcast_ref().map(io::Error::kind) == Some(ErrorKind::BrokenPipe) {
        // Its reader has read enough.
        return ExitCode::SUCCESS;
    }
    let is_usage = error.is::<lexopt::Error>();
    let advice = if is_usage { "; see --help" } else { "" };
    complain(&format!("{error}{advice}"));
    ExitCode::from(1 + u8::from(is_usage))
}

/// One line, whatever the text. Unlike `eprintln!`, it does not panic if standard error is closed.
pub(crate) fn complain(problem: &str) {
    let _ = writeln!(io::stderr(), "error: {}", Escaped(problem));
}
