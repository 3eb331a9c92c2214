//! Load for the race of name servers: one client with many requests in flight.
//!
//! ```text
//! cargo bench -p rejoinder-benches --bench dns_load -- 127.0.0.1:5300 SECONDS WINDOW
//! ```
//!
//! Prints how many queries were answered, and in how many seconds; any other outcome of any of them
//! is an error. Without arguments it does nothing, so that it can stand among the other benches.

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use domain::base::iana::{Class, Rtype};
use domain::base::{Header, Name};
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, Wait};
use rejoinder_protocols::dns::codec::{Dns, Query};

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds an argument of its own.
    let arguments: Vec<String> = env::args().skip(1).filter(|one| one != "--bench").collect();
    let [server, seconds, window] = arguments.as_slice() else {
        return Ok(());
    };
    let server: SocketAddr = server.parse()?;
    let time = Duration::from_secs(seconds.parse()?);
    let window = window.parse()?;
    let names: Vec<(Name<Vec<u8>>, Rtype)> = QUERIES
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rtype)| Ok((Name::from_str(name)?, Rtype::from_str(rtype)?)))
        .collect::<Result<_, Box<dyn Error>>>()?;

    // Ids have 16 bits: if they rested, there would be none left within the first second.
    let mut client = Client::builder(Dns)
        .window(window)
        .cooldown(Duration::ZERO)
        .with_connector(UdpConnector::default(), server)
        .expect("the settings are in range");
    let mut queries = names.iter().cycle();
    let mut answered = 0_u64;
    let started = Instant::now();
    while started.elapsed() < time || client.in_flight() > 0 {
        while client.in_flight() < window
            && started.elapsed() < time
            && let Some((name, rtype)) = queries.next()
        {
            client.submit(Query {
                header: Header::new(),
                name: name.as_slice(),
                rtype: *rtype,
                class: Class::IN,
                edns: None,
            })?;
        }
        let mut wait = Wait::Forever;
        while let Some((_, response)) = client.collect(wait) {
            response?;
            answered += 1;
            wait = Wait::No;
        }
    }
    #[expect(clippy::print_stdout, reason = "it is the result")]
    {
        println!("{answered} {}", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The same as dnsperf's.
const QUERIES: &str = include_str!("dns_race/queries");
