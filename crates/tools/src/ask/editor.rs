//! A line that can be edited on the terminal.
//!
//! - Earlier lines are kept in memory, and nowhere else.
//! - Text that is pasted is put into the line, line ends included. Nothing is asked before Enter,
//!   and then it is one message. Line ends at its end are left out, because copying a whole line
//!   copies one.
//! - What would act on the terminal rather than be seen is not shown, and not sent either: control
//!   characters other than the tab and the line end, and invisible changes of direction. They are
//!   typed or pasted by accident. Arguments and piped lines, which programs write, stay as they are.
//! - How wide a character is that was joined of several, such as a family, terminals do not agree
//!   about. Where one draws it wider than the line editor takes it to be, and the line wraps behind
//!   it, a row above the prompt may be drawn over.

use std::borrow::Cow;
use std::io;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{History, MemHistory};
use rustyline::validate::Validator;
use rustyline::{Behavior, ColorMode, Config, GraphemeClusterMode, Helper};
use unicode_segmentation::UnicodeSegmentation;

use crate::ask::output::acts_on_display;

/// Edits lines, and remembers the last hundred of them as long as it lives.
pub(crate) struct Editor(rustyline::Editor<Visible, MemHistory>);

impl Editor {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        signals::restore_the_terminal()?;
        // Without colours, the highlighter would not be called.
        let config = Config::builder().color_mode(ColorMode::Forced);
        // A standard input that another process has made non-blocking is left alone: the terminal
        // can be opened once more.
        let config = if is_non_blocking() {
            config.behavior(Behavior::PreferTerm)
        } else {
            config
        };
        let config = config.build();
        let widths = config.grapheme_cluster_mode();
        let history = MemHistory::with_config(&config);
        let editor = rustyline::Editor::with_history(config, history);
        let mut editor = editor.map_err(io::Error::other)?;
        editor.set_helper(Some(Visible { widths }));
        Ok(Self(editor))
    }

    /// One message. It is empty if there was nothing in the line that is sent.
    pub(crate) fn read(&mut self, prompt: &str) -> Result<String, ReadlineError> {
        let line = self.0.readline(prompt)?;
        let mut message = without(&line, |_, _| {});
        message.truncate(message.trim_end_matches(['\n', '\r']).len());
        self.0.history_mut().add(&message)?;
        Ok(message)
    }
}

#[cfg(unix)]
fn is_non_blocking() -> bool {
    let flags = rustix::fs::fcntl_getfl(io::stdin());
    flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}

#[cfg(not(unix))]
fn is_non_blocking() -> bool {
    false
}

/// Shows a line as it is, but for what would act on the terminal.
struct Visible {
    widths: GraphemeClusterMode,
}

impl Highlighter for Visible {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !line.chars().any(is_left_out) {
            return Cow::Borrowed(line);
        }
        // As wide as the editor takes it to be, or the cursor would stand in the wrong place.
        Cow::Owned(without(line, |shown, c| {
            let width = self.widths.width(c.encode_utf8(&mut [0; 4]));
            shown.extend((0..width).map(|_| char::REPLACEMENT_CHARACTER));
        }))
    }

    /// Whether a key needs the whole line drawn again: where characters join into one, its width is
    /// not the sum of theirs.
    fn highlight_char(&self, line: &str, _: usize, kind: CmdKind) -> bool {
        let is_joined = |cluster: &str| cluster.chars().nth(1).is_some();
        kind != CmdKind::ForcedRefresh && line.graphemes(true).any(is_joined)
    }
}

impl Completer for Visible {
    type Candidate = String;
}

impl Hinter for Visible {
    type Hint = String;
}

impl Validator for Visible {}

impl Helper for Visible {}

/// A line without the omitted parts, each of which is passed to `replace`.
fn without(line: &str, replace: impl Fn(&mut String, char)) -> String {
    let mut kept = String::with_capacity(line.len());
    for c in line.chars() {
        if is_left_out(c) {
            replace(&mut kept, c);
        } else {
            kept.push(c);
        }
    }
    kept
}

fn is_left_out(c: char) -> bool {
    acts_on_display(c) && c != '\n' && c != '\t'
}

#[cfg(unix)]
mod signals {
    use std::io;
    use std::thread;

    use rustix::process::getpgrp;
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    /// Has the terminal be as it is now when a signal ends the program in the middle of a line.
    /// (While a line is edited, Ctrl-C is a key and no signal.)
    pub(crate) fn restore_the_terminal() -> io::Result<()> {
        let before = tcgetattr(io::stdin())?;
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let restoring = thread::Builder::new().name("signals".to_owned());
        restoring.spawn(move || {
            for signal in signals.forever() {
                let _ = restore(&before);
                let _ = emulate_default_handler(signal);
            }
        })?;
        Ok(())
    }

    fn restore(before: &Termios) -> rustix::io::Result<()> {
        let is_editing = tcgetattr(io::stdin())?.local_modes != before.local_modes;
        // A program in the background has no business with the terminal.
        if is_editing && tcgetpgrp(io::stdin())? == getpgrp() {
            rustix::io::write(io::stdout(), BRACKETED_PASTE_OFF)?;
            tcsetattr(io::stdin(), OptionalActions::Now, before)?;
        }
        Ok(())
    }

    const BRACKETED_PASTE_OFF: &[u8] = b"\x1b[?2004l\n";
}
