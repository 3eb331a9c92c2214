//! One seed's life on a bad network: shared by the short run among the tests and the long one
//! among the benchmarks.

use std::collections::HashMap;
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::{Client, ClientBuilder, Codec, RequestError, Retry, Wait};

/// How the exchanges of one or many seeds ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests with an answer.
    pub answered: u64,
    /// Requests without one.
    pub timed_out: u64,
}

/// Asks on a network with up to 30 % loss, 20 % duplication and 50 % reordering, by the seed, and
/// with both kinds of correlation. Panics if an answer goes to the wrong question, a request
/// outlives its deadline, or one fails after the faults have stopped.
pub fn survive(net: &SimNet, seed: u64) -> Tally {
    let level = |most: f64, which: u32| {
        let thirds = u8::try_from(seed >> (2 * which) & 3).unwrap();
        most * f64::from(thirds) / 3.0
    };
    net.set_link(
        Link::new()
            .loss(level(0.3, 0))
            .duplication(level(0.2, 1))
            .reordering(level(0.5, 2), ms(6_000))
            .latency(ms(5))
            .jitter(ms(40)),
    )
    .unwrap();
    let with_ids = "10.0.0.1:1000".parse().unwrap();
    let without = "10.0.0.1:2000".parse().unwrap();
    net.host(with_ids, ServerCore::new(Tagged(Text), answer))
        .unwrap();
    net.host(without, ServerCore::new(Text, answer)).unwrap();
    let mut one = client(Tagged(Text))
        .with_connector(net.clone(), with_ids)
        .unwrap();
    let mut other = client(Text).with_connector(net.clone(), without).unwrap();

    let mut tally = Tally::default();
    // What is late in one round arrives in the middle of a later one.
    for round in 0..3 {
        ask(net, &mut one, &format!("tagged {round}"), &mut tally);
        ask(net, &mut other, &format!("plain {round}"), &mut tally);
    }
    net.set_link(Link::new().latency(ms(5))).unwrap();
    let before = tally.timed_out;
    ask(net, &mut one, "tagged, fair", &mut tally);
    ask(net, &mut other, "plain, fair", &mut tally);
    assert_eq!(tally.timed_out, before, "the faults have stopped");
    tally
}

/// Puts some questions at once, and sees to it that each gets its own answer.
fn ask<C>(net: &SimNet, client: &mut Client<SimNet, C>, topic: &str, tally: &mut Tally)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let since = net.now().monotonic;
    let mut questions = HashMap::new();
    for index in 0..3 {
        let question = format!("{topic}, {index}");
        questions.insert(client.submit(&question).unwrap(), question);
    }
    while let Some((ticket, result)) = client.collect(Wait::Forever) {
        let question = questions.remove(&ticket).expect("one result per request");
        match result {
            Ok(text) => {
                assert_eq!(text, format!("re: {question}"), "whose answer is it?");
                tally.answered += 1;
            }
            Err(RequestError::TimedOut { after, .. }) => {
                assert_eq!(after, TIMEOUT);
                tally.timed_out += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(net.now().monotonic <= since + TIMEOUT);
    }
    assert!(questions.is_empty(), "every request ends");
}

fn answer(question: &str) -> String {
    format!("re: {question}")
}

fn client<C: Codec>(codec: C) -> ClientBuilder<C> {
    // Retransmissions cross with answers that are only late, so there are many of both.
    Client::builder(codec)
        .timeout(TIMEOUT)
        .retry(Retry::new().initial(ms(300)))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const TIMEOUT: Duration = Duration::from_secs(5);
