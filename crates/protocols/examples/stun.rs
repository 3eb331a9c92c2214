//! Tells whoever asks which address it asks from:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example stun
//! turnutils_stunclient -p 3478 127.0.0.1
//! ```

use std::process::ExitCode;

use rejoinder::Server;
use rejoinder_protocols::stun::Mirror;
use rejoinder_protocols::stun::codec::Stun;
use rejoinder_tools::service;

const HELP: &str = "\
STUN's binding method on UDP (RFC 8489).

Usage: stun [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:3478
  -q, --quiet    print nothing
  -h, --help     this text

Ctrl-C ends it.
";

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS"], |arguments| {
        let server = Server::builder(Stun).max_request_bytes(1500);
        let service = arguments.service("ADDRESS", "127.0.0.1:3478", server, Mirror)?;
        Ok(vec![service])
    })
}
