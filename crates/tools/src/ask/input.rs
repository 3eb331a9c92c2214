//! Where messages come from, if they are not arguments: an editor on a terminal, plain lines
//! otherwise.

use std::env;
use std::io::{self, ErrorKind, IsTerminal, StdinLock};

use rustyline::error::ReadlineError;

use crate::ask::editor::Editor;
use crate::program::input::{BadLine, Lines};
use crate::program::stream::wait_for_input;
use crate::program::{complain, print};

/// Gives out messages one by one.
pub(crate) enum Input {
    Editor(Box<Editor>),
    Lines {
        lines: Lines<StdinLock<'static>>,
        prompts: bool,
    },
}

/// What comes next.
pub(crate) enum Next {
    Message(String),
    /// A line that is no message, and why: with its bytes, if it is not UTF-8.
    Bad(Option<Vec<u8>>, String),
    /// An empty line on a terminal, or the end of the input.
    End,
    /// Ctrl-C.
    Interrupted,
}

impl Input {
    /// A person gets a prompt, and an editor if the terminal can do what one needs.
    pub(crate) fn new() -> io::Result<Self> {
        let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
        if prompts && moves_its_cursor() {
            let editor = Editor::new().map_err(in_input)?;
            return Ok(Self::Editor(Box::new(editor)));
        }
        let lines = Lines::waiting(io::stdin().lock(), || wait_for_input(io::stdin()));
        Ok(Self::Lines { lines, prompts })
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        match self {
            Self::Editor(editor) => edited(editor),
            Self::Lines { lines, prompts } => next_line(lines, *prompts),
        }
    }
}

fn edited(editor: &mut Editor) -> io::Result<Next> {
    loop {
        match editor.read(PROMPT) {
            Ok(message) if message.is_empty() => return Ok(Next::End),
            Ok(message) => return Ok(Next::Message(message)),
            Err(ReadlineError::Eof) => return Ok(Next::End),
            Err(ReadlineError::Interrupted) => return Ok(Next::Interrupted),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                complain("the terminal does not send UTF-8; nothing was asked");
            }
            Err(ReadlineError::Io(error)) => return Err(in_input(error)),
            Err(error) => return Err(in_input(io::Error::other(error))),
        }
    }
}

fn next_line(lines: &mut Lines<StdinLock<'static>>, prompts: bool) -> io::Result<Next> {
    loop {
        if prompts {
            print(PROMPT.as_bytes())?;
        }
        let Some(line) = lines.next_line().map_err(in_input)? else {
            if prompts {
                // The cursor still stands behind the prompt.
                print(b"\n")?;
            }
            return Ok(Next::End);
        };
        return Ok(match line.text {
            Ok(text) if text.is_empty() && prompts => Next::End,
            Ok(text) if text.is_empty() => continue,
            Ok(text) => Next::Message(text),
            Err(bad) => {
                let problem = format!("the message is no text: {}", bad.describe(line.number));
                let bytes = match bad {
                    BadLine::NotUtf8 { bytes, .. } => Some(bytes),
                    BadLine::TooLong => None,
                };
                Next::Bad(bytes, problem)
            }
        });
    }
}

/// By its name: some cannot, and say so in no other way.
fn moves_its_cursor() -> bool {
    // Windows has no such names.
    cfg!(not(unix))
        || env::var_os("TERM").is_some_and(|name| {
            !["", "dumb", "cons25", "emacs"]
                .iter()
                .any(|dumb| name == *dumb)
        })
}

fn in_input(error: impl Into<io::Error>) -> io::Error {
    io::Error::other(format!("standard input: {}", error.into()))
}

const PROMPT: &str = "【客户端】输入：";
