//! The small services of every Unix machine of 1983, on unprivileged ports:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example inetd
//! rdate -u -p -o 3737 127.0.0.1
//! ```
//!
//! Responses look like requests here, so two such servers can keep a forged datagram going for ever
//! (CVE-2024-2169). So nothing is answered that comes from a port below 1024, where the like of them
//! lives, from another known to answer anything, or from one that a service has here. Whatever is left,
//! the rate limit keeps slow.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use rejoinder::Server;
use rejoinder::codec::Raw;
use rejoinder::gate::REFLECTOR_PORTS;
use rejoinder::transport::Datagram;
use rejoinder_protocols::inetd::services::Service as Kind;
use rejoinder_tools::service::{self, Common, Limit, Listen, Service};

/// ECHO, TIME, DAYTIME and QOTD on UDP (RFC 862, 868, 867, 865)
///
/// Each service that has an address runs there (HOST:PORT, port 0 is any free port). Without any, all four
/// run on 127.0.0.1, at ports 7007, 3737, 1313 and 1717, or on the sockets that a service manager has
/// opened, in this order.
///
/// Whatever a datagram says, it is answered, unless it comes from a port below 1024, from a higher one that
/// is known to answer anything, or from the port of one of the services; and each gives each network prefix 100
/// answers, and 64 KiB, a second at most. Ctrl-C ends it.
#[derive(clap::Parser)]
#[command(name = "inetd")]
struct Options {
    /// Repeat what was sent
    #[arg(long, value_name = "ADDRESS")]
    echo: Option<String>,
    /// Seconds since 1900
    #[arg(long, value_name = "ADDRESS")]
    time: Option<String>,
    /// The time for people
    #[arg(long, value_name = "ADDRESS")]
    daytime: Option<String>,
    /// A quotation, another one each day
    #[arg(long, value_name = "ADDRESS")]
    qotd: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    service::main(|options: Options| {
        let services = [
            ("echo", options.echo, 7007, Kind::Echo),
            ("time", options.time, 3737, Kind::Time),
            ("daytime", options.daytime, 1313, Kind::Daytime),
            ("qotd", options.qotd, 1717, Kind::Quote),
        ];
        let all = services.iter().all(|(_, address, ..)| address.is_none());
        let own_ports = Arc::new(OnceLock::<Vec<u16>>::new());
        let mut running = Vec::new();
        for (name, address, port, kind) in services {
            if all || address.is_some() {
                let own_ports = Arc::clone(&own_ports);
                let gate = move |datagram: &Datagram<'_>| match own_ports.get() {
                    Some(own) if own.contains(&datagram.meta.peer.port()) => {
                        Err("from a port of our own")
                    }
                    _ => Ok(()),
                };
                let server = Server::builder(Raw)
                    .blocked_ports((1..1024).chain(REFLECTOR_PORTS))
                    .gate(gate);
                let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                let service = Service::open_one_of_several(
                    Listen::at(address.as_deref(), default),
                    Limit::Always,
                    server,
                    kind,
                )?;
                running.push(service.named(name));
            }
        }
        // Known only now, if one of them was to be any free port. None of them has begun.
        let ports = running.iter().flat_map(Service::addresses);
        own_ports.get_or_init(|| ports.map(SocketAddr::port).collect());
        Ok((options.common, running, None))
    })
}
