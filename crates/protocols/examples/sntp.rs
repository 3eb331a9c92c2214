//! The time, over SNTP:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example sntp
//! rdate -n -p -o 12312 127.0.0.1
//! ```
//!
//! It serves the machine's own clock, as its stratum states. It suits networks where agreement
//! matters more than the right time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use rejoinder::Server;
use rejoinder_protocols::sntp::blocked_ports;
use rejoinder_protocols::sntp::codec::{LOCAL_CLOCK, Sntp};
use rejoinder_tools::service::{self, Common, Limit, Listen, Service};

/// The machine's time by SNTP (RFC 4330, RFC 5905)
#[derive(clap::Parser)]
#[command(name = "sntp")]
struct Options {
    /// Where to listen: HOST:PORT, or only one of them; port 0 is any free port. Default: 127.0.0.1:12312, or
    /// the socket that a service manager has opened
    address: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    service::main(|options: Options| {
        let server = Server::builder(Sntp)
            .blocked_ports(blocked_ports())
            .max_request_bytes(1500)
            .max_response_bytes(48);
        let address = options.address.as_deref();
        let service = Service::open(
            Listen::at(address, DEFAULT),
            Limit::ForOthers,
            server,
            |()| LOCAL_CLOCK,
        )?;
        Ok((options.common, vec![service], None))
    })
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 12312);
