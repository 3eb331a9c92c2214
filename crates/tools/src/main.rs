//! `rejoinder`: a server, its client, and tools to test both.

use std::process::ExitCode;

fn main() -> ExitCode {
    rejoinder_tools::main()
}
