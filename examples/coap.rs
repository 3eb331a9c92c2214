//! 小Zurich as a resource of the constrained web:
//!
//! ```text
//! cargo run --example coap
//! coap-client -m post -e '你好吗？' coap://127.0.0.1:5683/zurich
//! ```

#[path = "coap/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;
#[path = "coap/zurich.rs"]
pub(crate) mod zurich;

use std::process::ExitCode;

use coap_lite::{MessageType, Packet};
use codec::Coap;
use rejoinder::handler::Dedup;
use rejoinder::{Handler, Server};
use zurich::answer;

const HELP: &str = "\
小Zurich as a CoAP server (RFC 7252).

Usage: coap [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:5683
  -q, --quiet    print nothing
  -h, --help     this text

POST a text to /zurich, or GET /zurich?q=TEXT. An answer that would make a message of more than
1,152 bytes is 5.00. Ctrl-C ends it.
";

type Id = (bool, u16, Vec<u8>);

/// What makes a request the same as another of the same peer. The message id would do (§4.2); whoever
/// forges requests has to guess the token too. Whether it is confirmable tells whether a copy is
/// answered again.
#[expect(clippy::unnecessary_wraps, reason = "the form that `Dedup` takes")]
fn id(request: &Packet) -> Option<Id> {
    let confirmable = request.header.get_type() == MessageType::Confirmable;
    let token = request.get_token().to_vec();
    Some((confirmable, request.header.message_id, token))
}

/// Handles a request once. Copies get the answer again, or silence if they were not confirmable:
/// nobody waits for that answer (§4.3).
pub(crate) fn once<H: Handler<Coap>>(handler: H) -> impl Handler<Coap> {
    Dedup::new(handler, id).silent_for(|(confirmable, ..): &Id| !confirmable)
}

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS"], |arguments| {
        let robot = rejoinder::bot::zurich();
        let handler = once(move |request: Packet| answer(&robot, &request));
        // What every path takes in one piece (§4.6).
        let server = Server::builder(Coap)
            .max_request_bytes(1152)
            .max_reply_bytes(1152);
        let service = arguments.service("ADDRESS", "127.0.0.1:5683", server, handler)?;
        Ok(vec![service])
    })
}
