//! The parts of the program `rejoinder`, and what its services share with others.
//!
//! This library is made for that program, for the services of other people's protocols in the same
//! repository, and for their tests. Its items change with them.

// `println!` panics on a closed pipe.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod ask;
mod flood;
mod load;
pub mod program;
pub mod serve;
pub mod service;
pub mod sessions;

use std::process::ExitCode;

use program::Failure;

const HELP: &str = "\
小Zurich, a robot that answers over UDP, and the tools around it.

Usage: rejoinder COMMAND [ARGUMENT]...

Commands:
  serve       answer requests: the robot, or rules of your own
  ask         send messages to a server and print the responses
  load        send as many requests as a server can bear, or at a rate, and measure
  flood       show what a flood does to a server, with and without a rate limit
  sessions    a robot that remembers its peers

`rejoinder COMMAND --help` describes a command.
";

/// The whole program, with the arguments that it was started with.
#[must_use]
pub fn main() -> ExitCode {
    program::end(run(lexopt::Parser::from_env()))
}

fn run(mut args: lexopt::Parser) -> Result<ExitCode, Failure> {
    use lexopt::prelude::*;

    let command = match args.next()? {
        None => return Err(Failure::Usage("no command".into())),
        Some(Short('h') | Long("help")) => return Ok(program::help(HELP)),
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "serve" => serve::run(args),
        "ask" => ask::run(args),
        "load" => load::run(args),
        "flood" => flood::run(args),
        "sessions" => sessions::run(args),
        other => Err(Failure::Usage(format!("no command `{other}`"))),
    }
}
