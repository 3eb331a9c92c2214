//! An authoritative name server for one small zone:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example dns -- --zone crates/protocols/src/dns/example.zone
//! dig @127.0.0.1 -p 5300 +ignore www.example.org
//! ```
//!
//! It knows no TCP, so what is truncated stays so, and no zones are transferred. Where others say
//! FORMERR it is silent: what is no query deserves no packet to an address that may be forged.

use std::process::ExitCode;

use rejoinder::Server;
use rejoinder::udp::UdpOptions;
use rejoinder_protocols::dns::codec::{Dns, MAX_BYTES, blocked_ports};
use rejoinder_protocols::dns::zone::Zone;
use rejoinder_tools::service;

const HELP: &str = "\
A name server for one small zone (DNS on UDP: RFC 1035, RFC 6891).

Usage: dns [ADDRESS] [--zone FILE] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:5300
  --zone FILE    a master file. Default: a zone example.org with a bit of everything
  -q, --quiet    print nothing
  -h, --help     this text

A name that begins with the label whoami is answered with the address of the asker (A or AAAA), or
with address and port (TXT). Ctrl-C ends it.
";

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS", "zone"], |arguments| {
        let zone = arguments.file("zone", Zone::parse)?;
        let zone = zone.map_or_else(Zone::example, Ok)?;
        let server = Server::builder(Dns)
            // No message from outside is to make fragments, which can be forged.
            .udp_options(UdpOptions::new().ignore_path_mtu(true))
            .blocked_ports(blocked_ports())
            .max_request_bytes(MAX_BYTES.into())
            .max_reply_bytes(MAX_BYTES.into());
        let service = arguments.service("ADDRESS", "127.0.0.1:5300", server, zone)?;
        Ok(vec![service])
    })
}
