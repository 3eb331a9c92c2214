//! The time, for whoever asks in SNTP:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example sntp
//! rdate -n -p -o 12312 127.0.0.1
//! ```
//!
//! What it tells is the machine's own clock, and it says so in its stratum: it is for networks that
//! need to agree more than to be right.

use std::process::ExitCode;

use rejoinder::Server;
use rejoinder_protocols::sntp::blocked_ports;
use rejoinder_protocols::sntp::codec::{LOCAL_CLOCK, Sntp};
use rejoinder_tools::service;

const HELP: &str = "\
The machine's time by SNTP (RFC 4330, RFC 5905).

Usage: sntp [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:12312
  -q, --quiet    print nothing
  -h, --help     this text

Ctrl-C ends it.
";

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS"], |arguments| {
        let server = Server::builder(Sntp)
            .blocked_ports(blocked_ports())
            .max_request_bytes(1500)
            .max_reply_bytes(48);
        let service = arguments.service("ADDRESS", "127.0.0.1:12312", server, |()| LOCAL_CLOCK)?;
        Ok(vec![service])
    })
}
