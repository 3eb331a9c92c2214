//! An authoritative name server for one small zone:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example dns -- --zone crates/protocols/src/dns/example.zone
//! dig @127.0.0.1 -p 5300 +ignore www.example.org
//! ```
//!
//! It knows no TCP, so what is truncated stays so, and no zones are transferred. It says FORMERR to a query
//! that it cannot interpret and NOTIMP to another operation. Responses, and datagrams that are shorter than a
//! header, get nothing.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rejoinder::Server;
use rejoinder::handler::Swap;
use rejoinder::udp::UdpOptions;
use rejoinder_protocols::dns::codec::{Dns, MAX_BYTES, blocked_ports};
use rejoinder_protocols::dns::zone::Zone;
use rejoinder_tools::program::input::read_file;
use rejoinder_tools::program::{Failure, warn};
use rejoinder_tools::service::{self, Behind, Common, Limit, Listen, Reload, Service};

/// A name server for one small zone (DNS on UDP: RFC 1035, RFC 6891)
///
/// A name that begins with the label whoami is answered with the address of the peer (A or AAAA), or with
/// address and port (TXT); within the zone, if the name above it exists. SIGHUP has the zone read again. Ctrl-C
/// ends it.
#[derive(clap::Parser)]
#[command(name = "dns")]
struct Options {
    /// Where to listen: HOST:PORT, or only one of them; port 0 is any free port. Default: 127.0.0.1:5300, or
    /// the socket that a service manager has opened
    address: Option<String>,
    /// A master file. Default: a zone example.org with a bit of everything
    #[arg(long, value_name = "FILE")]
    zone: Option<PathBuf>,
    /// How many answers per second each network prefix gets, or `off`
    ///
    /// A network is an IPv4 /24 or an IPv6 /56. Default: off on a loopback address without --proxied,
    /// otherwise 100
    #[arg(
        long, value_name = "ANSWERS", value_parser = service::limit, allow_negative_numbers = true,
        default_value = "default", hide_default_value = true
    )]
    limit: Limit,
    #[command(flatten)]
    behind: Behind,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    service::main(|options: Options| {
        let zone = match &options.zone {
            None => Zone::example()?,
            Some(path) => read_zone(path).map_err(Failure::RunTime)?,
        };
        let zones = Swap::new(zone);
        let server = Server::builder(Dns)
            .blocked_ports(blocked_ports())
            .max_request_bytes(MAX_BYTES.into())
            .max_response_bytes(MAX_BYTES.into());
        let address = options.address.as_deref();
        let server = options.behind.apply(server)?;
        let limit = options.limit.behind(&options.behind);
        // No message from outside is to make fragments, which can be forged.
        let udp = UdpOptions::new().ignore_path_mtu(true);
        let listen = Listen::at(address, DEFAULT).udp_options(udp);
        let service = Service::open(listen, limit, server, zones.clone())?;
        let service = service.noted(options.behind.note());
        let reload = options.zone.map(|path| {
            let load = move || {
                zones.replace(read_zone(&path)?);
                Ok(format!("answering from {}", path.display()))
            };
            Reload::start(load, "answering from the zone of before", None)
        });
        Ok((options.common, vec![service], reload.transpose()?))
    })
}

/// Reads the zone, and reports what was not taken as it is written.
fn read_zone(path: &Path) -> Result<Zone, String> {
    let in_file = |problem: &dyn Display| format!("--zone {}: {problem}", path.display());
    let bytes = read_file(path).map_err(|error| in_file(&error))?;
    let zone = Zone::parse(&bytes).map_err(|error| in_file(&error))?;
    for warning in zone.warnings() {
        warn(in_file(warning));
    }
    Ok(zone)
}

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);
