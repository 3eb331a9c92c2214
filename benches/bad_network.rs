//! The long run on the simulated network:
//!
//! ```text
//! cargo bench -p rejoinder-benches --bench bad_network -- 100000
//! ```
//!
//! runs that many seeds (1,000 without a number) through the storm of `tests/bad_network.rs`, and
//! measures how fast exchanges run in virtual time, and how fast late responses are sorted out. A seed
//! that fails is named.
//!
//! With the number 0 it runs every fate of the first eight datagrams of four overlapping exchanges
//! instead, 390,625 scripts for each kind of correlation, and for responses of two datagrams.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::{Client, Wait};
use rejoinder_test_support::{fates, storm};

fn main() {
    let seeds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000);
    if seeds == 0 {
        for kind in fates::KINDS {
            every_fate(kind);
        }
        return;
    }
    storms(seeds);
    one_by_one(seeds * 10);
    many_in_flight(seeds * 10);
    for responses in [15_000, 60_000] {
        late_responses(responses);
    }
}

/// Shares the numbers below `end` among threads, and adds up what comes of them.
fn in_threads(end: u64, run: impl Fn(u64) -> [u64; 2] + Sync) -> [u64; 2] {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut sum = [0; 2];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return sum;
            }
            let [one, other] = run(number);
            sum = [sum[0] + one, sum[1] + other];
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let sums = workers.into_iter().map(|worker| worker.join().unwrap());
        sums.fold([0; 2], |sum, [one, other]| [sum[0] + one, sum[1] + other])
    })
}

fn every_fate(kind: fates::Kind) {
    let begun = Instant::now();
    let scripts = fates::scripts(8);
    let [answered, _] = in_threads(scripts, |number| {
        let net = SimNet::scripted(number, fates::script(number, 8));
        [net.run(|net| fates::run(net, kind)).into(), 0]
    });
    println!(
        "{kind:?}: {scripts} scripts, {} requests, {answered} answered, 0 wrong, in {:.1?}",
        scripts * 4,
        begun.elapsed()
    );
}

/// All are sent once more, as far as there is room for that, before they are answered.
fn late_responses(requests: usize) {
    let (net, server) = upper();
    net.set_link(
        Link::new()
            .latency(Duration::from_secs(2))
            .jitter(Duration::from_millis(500)),
    )
    .unwrap();
    let mut client = Client::builder(Tagged(Text))
        .window(requests)
        .with_connector(net, server)
        .unwrap();
    for _ in 0..requests {
        client.submit("question").unwrap();
    }
    assert!(client.collect(Wait::For(Duration::from_secs(3))).is_none());
    let begun = Instant::now();
    while let Some((_, result)) = client.collect(Wait::Forever) {
        assert_eq!(result.unwrap(), "QUESTION");
    }
    let elapsed = begun.elapsed();
    println!(
        "{requests} late responses: {elapsed:.2?}, {:.2?} each",
        elapsed / u32::try_from(requests).unwrap()
    );
}

fn storms(seeds: u64) {
    let begun = Instant::now();
    let [answered, timed_out] = in_threads(seeds, |seed| {
        let tally = SimNet::seeded(seed).run(|net| storm::survive(net, seed));
        [tally.answered, tally.timed_out]
    });
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
