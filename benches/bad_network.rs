//! The long run on the simulated network:
//!
//! ```text
//! cargo bench -p rejoinder-benches --bench bad_network -- 100000
//! ```
//!
//! runs that many seeds (1,000 without a number) through the storm of `tests/bad_network.rs`, and
//! measures how fast exchanges run in virtual time. A seed that fails is named.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::{Client, Wait};
use rejoinder_test_support::storm;

fn main() {
    let seeds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000);
    storms(seeds);
    one_by_one(seeds * 10);
    many_in_flight(seeds * 10);
}

fn storms(seeds: u64) {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = storm::Tally::default();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            return sum;
                        }
                        let tally = SimNet::seeded(seed).run(|net| storm::survive(net, seed));
                        sum.answered += tally.answered;
                        sum.timed_out += tally.timed_out;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
    let timed_out: u64 = tallies.iter().map(|tally| tally.timed_out).sum();
    println!(
        "{seeds} seeds: {} requests, {answered} answered, {timed_out} timed out, 0 wrong, in {:.1?}",
        answered + timed_out,
        begun.elapsed()
    );
}

fn one_by_one(exchanges: u64) {
    let (net, server) = upper();
    let mut client = Client::new(net, Tagged(Text), server);
    let begun = Instant::now();
    for _ in 0..exchanges {
        assert_eq!(client.request("question").unwrap(), "QUESTION");
    }
    println!("{exchanges} exchanges one by one: {:.2?}", begun.elapsed());
}

fn many_in_flight(exchanges: u64) {
    let (net, server) = upper();
    let mut client = Client::builder(Tagged(Text))
        .window(256)
        .with_connector(net, server)
        .unwrap();
    let begun = Instant::now();
    let (mut submitted, mut collected) = (0, 0);
    while collected < exchanges {
        while submitted < exchanges && client.in_flight() < 256 {
            if client.submit("question").is_err() {
                break;
            }
            submitted += 1;
        }
        let (_, result) = client.collect(Wait::Forever).unwrap();
        assert_eq!(result.unwrap(), "QUESTION");
        collected += 1;
    }
    println!(
        "{exchanges} exchanges, 256 in flight: {:.2?}",
        begun.elapsed()
    );
}

fn upper() -> (SimNet, std::net::SocketAddr) {
    let net = SimNet::new();
    let server = "10.0.0.1:9999".parse().unwrap();
    let core = ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase()));
    net.host(server, core).unwrap();
    (net, server)
}
