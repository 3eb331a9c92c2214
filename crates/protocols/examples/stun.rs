//! Returns to each client its own address:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example stun
//! turnutils_stunclient -p 3478 127.0.0.1
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use rejoinder::Server;
use rejoinder_protocols::stun::Mirror;
use rejoinder_protocols::stun::codec::Stun;
use rejoinder_tools::service::{self, Common, Limit, Listen, Service};

/// STUN's binding method on UDP (RFC 8489)
#[derive(clap::Parser)]
#[command(name = "stun")]
struct Options {
    /// Where to listen: HOST:PORT, or only one of them; port 0 is any free port. Default: 127.0.0.1:3478, or
    /// the socket that a service manager has opened
    address: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    service::main(|options: Options| {
        let server = Server::builder(Stun).max_request_bytes(1500);
        let service = Service::open(
            Listen::at(options.address.as_deref(), DEFAULT),
            Limit::ForOthers,
            server,
            Mirror,
        )?;
        Ok((options.common, vec![service], None))
    })
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3478);
