//! The parts of the program `rejoinder`, and what its services share with others.
//!
//! This library is made for that program, for the services of other people's protocols in the same
//! repository, and for their tests. Its items change with them.

// `println!` panics on a closed pipe.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod ask;
mod cli;
mod flood;
mod load;
pub mod program;
pub mod serve;
pub mod service;
pub mod sessions;

use std::process::ExitCode;

/// The whole program, with the arguments that it was started with.
#[must_use]
pub fn main() -> ExitCode {
    program::end(cli::run())
}
