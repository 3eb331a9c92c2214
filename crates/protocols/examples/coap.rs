//! 小Zurich as a resource of the constrained web:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example coap
//! coap-client -m post -e '你好吗？' coap://127.0.0.1:5683/zurich
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use coap_lite::Packet;
use rejoinder::Server;
use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::coap::zurich::answer;
use rejoinder_protocols::coap::{once, quiet_in_groups};
use rejoinder_tools::service::{self, Common, Limit, Listen, Service};

/// 小Zurich as a CoAP server (RFC 7252)
///
/// POST a text to /zurich, or GET /zurich?q=TEXT. An answer that would make a message of more than 1,152
/// bytes is 5.00. Ctrl-C ends it.
#[derive(clap::Parser)]
#[command(name = "coap")]
struct Options {
    /// Where to listen: HOST:PORT, or only one of them; port 0 is any free port. Default: 127.0.0.1:5683, or
    /// the socket that a service manager has opened
    address: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    service::main(|options: Options| {
        let robot = rejoinder::bot::zurich();
        let answer = move |request: Packet| answer(&robot, &request);
        let handler = once(quiet_in_groups(answer));
        // What every path takes in one piece (§4.6).
        let server = Server::builder(Coap)
            .max_request_bytes(1152)
            .max_response_bytes(1152);
        let service = Service::open(
            Listen::at(options.address.as_deref(), DEFAULT),
            Limit::ForOthers,
            server,
            handler,
        )?;
        Ok((options.common, vec![service], None))
    })
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5683);
