//! The command line. A flag has one source: the fields of the commands' arguments, from which parser,
//! help, man pages and completions are made.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::program::signals::Signals;
use crate::program::{self, Failure};
use crate::{ask, flood, load, serve, sessions};

/// 小Zurich, a robot that answers over UDP, and the tools around it
#[derive(Debug, Parser)]
#[command(
    name = "rejoinder",
    version,
    propagate_version = true,
    about,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Options>),
    Ask(ask::Options),
    Load(Box<load::Arguments>),
    Flood(flood::Options),
    Sessions(sessions::Options),
    /// Print the completions of a shell
    ///
    /// For bash, for example: rejoinder completions bash >
    /// ~/.local/share/bash-completion/completions/rejoinder
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder, which must exist; a page of each command is written there
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
}

/// What became of the arguments.
pub(crate) enum Parsed<A> {
    Arguments(A),
    /// It was only asked for help, or for the version, and that was printed.
    Shown(ExitCode),
}

pub(crate) fn parse<A: Parser>() -> Result<Parsed<A>, Failure> {
    parse_from(std::env::args_os())
}

fn parse_from<A: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<A>, Failure> {
    match A::try_parse_from(args) {
        Ok(arguments) => Ok(Parsed::Arguments(arguments)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let text = error.to_string();
                Ok(Parsed::Shown(program::show(&format!(
                    "{}\n",
                    text.trim_end()
                ))))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Err(Failure::Usage("no command is given".to_owned()))
            }
            _ => Err(Failure::Usage(in_one_line(&error))),
        },
    }
}

/// The whole program.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    // First of all, so that no signal finds the server half started: a hangup ends a program that has no
    // handler for it yet.
    let is_server = std::env::args_os()
        .nth(1)
        .is_some_and(|name| name == "serve");
    let signals = is_server.then(Signals::register).transpose()?;
    match parse::<Cli>()? {
        Parsed::Shown(code) => Ok(code),
        Parsed::Arguments(cli) => match cli.command {
            Command::Serve(options) => {
                serve::run(*options, signals.map_or_else(Signals::register, Ok)?)
            }
            Command::Ask(options) => ask::run(&options),
            Command::Load(options) => load::run(*options),
            Command::Flood(options) => flood::run(&options),
            Command::Sessions(options) => sessions::run(&options),
            Command::Completions { shell } => Ok(completions(shell)),
            Command::Man { folder } => man(&folder),
        },
    }
}

/// What is wrong with the arguments, without the usage that clap adds.
fn in_one_line(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // The value of an option that a parser of ours refused: it says why.
    if let (ErrorKind::ValueValidation, Some(option), Some(value)) = (
        error.kind(),
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    ) && let Some(source) = std::error::Error::source(error)
    {
        let option = option.split(' ').next().unwrap_or(option);
        return format!("{option} `{value}`: {source}");
    }
    let shown = error.to_string();
    let mut lines = shown.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    // A list of what is missing stands on lines of its own.
    for more in lines.take_while(|line| !line.is_empty() && !line.starts_with("Usage:")) {
        let _ = write!(line, " {more}");
    }
    line
}

fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rejoinder", &mut script);
    program::show(&String::from_utf8_lossy(&script))
}

fn man(folder: &std::path::Path) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    command.build();
    let failed = |error: io::Error| Failure::RunTime(format!("{}: {error}", folder.display()));
    let pages = command
        .get_subcommands()
        .filter(|command| command.get_name() != "help");
    for command in std::iter::once(&command).chain(pages) {
        let name = match command.get_name() {
            "rejoinder" => "rejoinder".to_owned(),
            name => format!("rejoinder-{name}"),
        };
        let page = clap_mangen::Man::new(
            command
                .clone()
                .name(name.clone())
                .disable_help_subcommand(true),
        );
        let mut text = Vec::new();
        page.render(&mut text).map_err(failed)?;
        std::fs::write(folder.join(format!("{name}.1")), text).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    /// Whatever option there is, it has a text, and a value has a name that says what it is.
    #[test]
    fn every_argument_is_explained() {
        let mut command = Cli::command();
        command.build();
        for command in command.get_subcommands() {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {argument}",
                    command.get_name()
                );
            }
        }
    }
}
