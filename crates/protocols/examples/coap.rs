//! 小Zurich as a resource of the constrained web:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example coap
//! coap-client -m post -e '你好吗？' coap://127.0.0.1:5683/zurich
//! ```

use std::process::ExitCode;

use coap_lite::Packet;
use rejoinder::Server;
use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::coap::once;
use rejoinder_protocols::coap::zurich::answer;
use rejoinder_tools::service;

const HELP: &str = "\
小Zurich as a CoAP server (RFC 7252).

Usage: coap [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:5683
  -q, --quiet    print nothing
  -h, --help     this text

POST a text to /zurich, or GET /zurich?q=TEXT. An answer that would make a message of more than
1,152 bytes is 5.00. Ctrl-C ends it.
";

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
