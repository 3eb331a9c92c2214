//! Networks that lose, duplicate, reorder and corrupt.

use std::time::Duration;

use rejoinder::Wait;
use rejoinder::sim::{Link, SimNet};

use crate::support::{Tap, builder, client_over, config, contains, shout};

/// What a run came to.
#[derive(Default, Debug)]
struct Outcome {
    answered: u64,
    failed: u64,
}

fn run(seed: u64) -> Outcome {
    SimNet::seeded(seed).run(|net| {
        // Each seed has a network of its own kind.
        let part =
            |shift: u32, max: f64| max * f64::from((seed >> shift).to_le_bytes()[0] & 7) / 7.0;
        let link = Link::new()
            .latency(Duration::from_millis(5 + seed % 40))
            .jitter(Duration::from_millis(seed % 23))
            .loss(part(0, 0.2))
            .duplication(part(3, 0.2))
            .reordering(part(6, 0.2), Duration::from_millis(60))
            .corruption(part(9, 0.05));
        net.set_link(link).unwrap();
        let server = shout(net, builder(seed).engine().unwrap());
        let tap = Tap::new(net.clone());
        let mut client = client_over(tap.clone(), config());
        let mut asked = std::collections::HashMap::new();
        let mut outcome = Outcome::default();
        for round in 0..4 {
            for number in 0..3 {
                let question = format!("plaintext {seed} {round} {number}");
                asked.insert(client.submit(&question[..]).unwrap(), question);
            }
            while let Some((ticket, result)) = client.collect(Wait::Forever) {
                let question = asked.remove(&ticket).expect("no ticket comes twice");
                match result {
                    Ok(answer) => {
                        assert_eq!(answer, question.to_uppercase(), "a wrong answer");
                        outcome.answered += 1;
                    }
                    Err(_) => outcome.failed += 1,
                }
            }
        }
        assert!(asked.is_empty(), "every request has a result");
        let stats = server.stats();
        assert!(stats.conserves(), "{stats:?}");
        for one in tap.passed() {
            let is_plain = contains(&one.bytes, b"plaintext") || contains(&one.bytes, b"PLAINTEXT");
            assert!(!is_plain, "plaintext on the wire: {one:?}");
        }
        outcome
    })
}

fn run_all(seeds: std::ops::Range<u64>) {
    let mut sum = Outcome::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        // Spread over the kinds of networks.
        let outcome = run(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        sum.answered += outcome.answered;
        sum.failed += outcome.failed;
    }
    println!(
        "{count} seeds: {} answered, {} failed",
        sum.answered, sum.failed
    );
    assert_eq!(sum.answered + sum.failed, count * 12);
    // Most networks are bad, none so bad that most requests fail.
    assert!(sum.answered > 10 * sum.failed, "{sum:?}");
}

#[test]
fn every_request_ends_with_its_own_answer_or_none() {
    run_all(0..200);
}

#[test]
#[ignore = "takes minutes: run it with --release"]
fn every_request_ends_with_its_own_answer_or_none_10_000_seeds() {
    run_all(0..10_000);
}
