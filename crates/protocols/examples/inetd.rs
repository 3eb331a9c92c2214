//! The small services of every Unix machine of 1983, on ports for everyone:
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

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use rejoinder::Server;
use rejoinder::codec::Raw;
use rejoinder::gate::REFLECTOR_PORTS;
use rejoinder::transport::Datagram;
use rejoinder_protocols::inetd::services::Service;
use rejoinder_tools::service;

const HELP: &str = "\
ECHO, TIME, DAYTIME and QOTD on UDP (RFC 862, 868, 867, 865).

Usage: inetd [--echo ADDRESS] [--time ADDRESS] [--daytime ADDRESS] [--qotd ADDRESS] [--quiet]

Each service that has an address runs there (HOST:PORT, port 0 is any free port). Without any, all
four run on 127.0.0.1, at ports 7007, 3737, 1313 and 1717.

Whatever a datagram says, it is answered, unless it comes from a port below 1024, from a higher one
that is known to answer anything, or from the port of one of the services; and each gives any one
network 100 answers, and 64 KiB, a second at most.

  -q, --quiet    print nothing
  -h, --help     this text

Ctrl-C ends it.
";

fn main() -> ExitCode {
    let services = [
        ("echo", "127.0.0.1:7007", Service::Echo),
        ("time", "127.0.0.1:3737", Service::Time),
        ("daytime", "127.0.0.1:1313", Service::Daytime),
        ("qotd", "127.0.0.1:1717", Service::Quote),
    ];
    let names = services.map(|(name, ..)| name);
    service::main(HELP, &names, |mut arguments| {
        arguments.always_limited = true;
        let all = names.iter().all(|name| arguments.get(name).is_none());
        let own_ports = Arc::new(OnceLock::<Vec<u16>>::new());
        let mut running = Vec::new();
        for (name, address, it) in services {
            if all || arguments.get(name).is_some() {
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
                running.push(arguments.service(name, address, server, it)?);
            }
        }
        // Known only now, if one of them was to be any free port. None of them has begun.
        own_ports.get_or_init(|| running.iter().map(|service| service.addr.port()).collect());
        Ok(running)
    })
}
