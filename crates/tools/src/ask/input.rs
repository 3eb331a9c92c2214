//! Where messages come from, if they are not arguments: an editor on a terminal, plain lines
//! otherwise.

use std::env;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};

use rustyline::error::ReadlineError;

use crate::ask::editor::Editor;
use crate::program::complain;

/// Gives out messages one by one.
pub(crate) enum Input {
    Editor(Box<Editor>),
    Lines { prompts: bool },
}

/// What comes next.
pub(crate) enum Next {
    Message(Vec<u8>),
    /// An empty line, or the end of the input.
    End,
    /// Ctrl-C.
    Interrupted,
}

impl Input {
    /// Somebody who types gets a prompt, and an editor if the terminal can do what one needs.
    pub(crate) fn new() -> io::Result<Self> {
        let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
        if prompts && moves_its_cursor() {
            let editor = Editor::new().map_err(in_input)?;
            return Ok(Self::Editor(Box::new(editor)));
        }
        Ok(Self::Lines { prompts })
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        match self {
            Self::Editor(editor) => edited(editor),
            Self::Lines { prompts } => line(*prompts),
        }
    }
}

fn edited(editor: &mut Editor) -> io::Result<Next> {
    loop {
        match editor.read(PROMPT) {
            Ok(message) if message.is_empty() => return Ok(Next::End),
            Ok(message) => return Ok(Next::Message(message.into_bytes())),
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

fn line(prompts: bool) -> io::Result<Next> {
    if prompts {
        write!(io::stdout(), "{PROMPT}")?;
        io::stdout().flush()?;
    }
    let mut line = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut line);
    let read = read.map_err(in_input)?;
    if read == 0 && prompts {
        // The cursor still stands behind the prompt.
        writeln!(io::stdout())?;
    }
    line.truncate(line.strip_suffix(b"\n").unwrap_or(&line).len());
    line.truncate(line.strip_suffix(b"\r").unwrap_or(&line).len());
    Ok(if line.is_empty() {
        Next::End
    } else {
        Next::Message(line)
    })
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
