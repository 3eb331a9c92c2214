//! Tells whoever asks which address it asks from:
//!
//! ```text
//! cargo run --example stun
//! turnutils_stunclient -p 3478 127.0.0.1
//! ```

#[path = "stun/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;

use std::process::ExitCode;

use codec::Stun;
use rejoinder::{Context, Handler, Reply, ReplyError, Server};

const HELP: &str = "\
STUN's binding method on UDP (RFC 8489).

Usage: stun [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:3478
  -q, --quiet    print nothing
  -h, --help     this text

Ctrl-C ends it.
";

/// What a mirror does.
pub(crate) struct Mirror;

impl Handler<Stun> for Mirror {
    fn handle(
        &self,
        (): (),
        context: &Context,
        reply: &mut Reply<'_, Stun>,
    ) -> Result<(), ReplyError> {
        reply.send(context.peer)
    }
}

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS"], |arguments| {
        let server = Server::builder(Stun).max_request_bytes(1500);
        let service = arguments.service("ADDRESS", "127.0.0.1:3478", server, Mirror)?;
        Ok(vec![service])
    })
}
