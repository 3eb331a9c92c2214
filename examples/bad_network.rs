//! A bot under test on a network that loses, duplicates and delays, from a seed.
//!
//! ```text
//! cargo run --example bad_network
//! cargo run --example bad_network -- 42
//! ```
//!
//! Time is virtual: the minutes that retransmissions take pass in milliseconds. The same seed gives
//! the same datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::{Client, RequestError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(7), |seed| seed.parse())?;
    let net = SimNet::seeded(seed);
    net.set_link(
        Link::new()
            .loss(0.3)
            .duplication(0.1)
            .latency(Duration::from_millis(20))
            .jitter(Duration::from_millis(30)),
    )?;

    let server: SocketAddr = "10.0.0.1:7000".parse()?;
    let echo = |text: &str| text.to_owned();
    net.host(server, ServerCore::new(Tagged(Text), echo))?;
    let mut client = Client::builder(Tagged(Text))
        .timeout(Duration::from_secs(2))
        .with_connector(net.clone(), server)?;

    let (mut answered, mut lost) = (0, 0);
    for number in 0..1_000 {
        let question = number.to_string();
        match client.request(&question) {
            // The id of `Tagged` sees to it that no late answer is taken for another question's.
            Ok(answer) if answer == question => answered += 1,
            Err(RequestError::TimedOut { .. }) => lost += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    let seconds = net.now().monotonic.as_secs();
    println!("{answered} answered and {lost} given up in {seconds} s of virtual time");
    println!("{} datagrams and faults", net.trace().total());
    Ok(())
}
