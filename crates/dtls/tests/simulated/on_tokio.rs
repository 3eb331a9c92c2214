//! The same on tokio, in virtual time.

use std::time::Duration;

use rejoinder::aio::{AsyncSim, Client, Server};
use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::{Link, SimNet};
use rejoinder_dtls::ClientConfig;
use tokio::time::{Instant, sleep};

use crate::support::{IDENTITY, builder, config, server_addr};

async fn exchange(seed: u64, link: Link, config: ClientConfig) -> (u64, u64) {
    let net = SimNet::seeded(seed);
    net.set_link(link).unwrap();
    let endpoint = AsyncSim::new(net.bind(server_addr()).unwrap());
    let transport = builder(seed).wrap_async(endpoint).unwrap();
    let server = Server::builder(Tagged(Text)).with_transport(transport);
    let server = server.unwrap();
    let handle = server.handle();
    let serving = server.serve(async |text: &str| {
        sleep(Duration::from_millis(3)).await;
        text.to_uppercase()
    });
    let connector = config.connector(net, &Tagged(Text)).unwrap();
    let client = Client::builder(Tagged(Text)).with_connector(connector, server_addr());
    let client = client.unwrap();
    let asking = async {
        let (mut answered, mut failed) = (0, 0);
        for round in 0..4 {
            let texts = [0, 1, 2].map(|number| format!("question {round} {number}"));
            let (a, b, c) = tokio::join!(
                client.request(&texts[0][..]),
                client.request(&texts[1][..]),
                client.request(&texts[2][..])
            );
            for (result, text) in [a, b, c].into_iter().zip(&texts) {
                match result {
                    Ok(answer) => {
                        assert_eq!(answer.get(), text.to_uppercase());
                        answered += 1;
                    }
                    Err(_) => failed += 1,
                }
            }
        }
        handle.shutdown();
        (answered, failed)
    };
    let (stats, counts) = tokio::join!(serving, asking);
    assert!(stats.unwrap().replied >= counts.0);
    counts
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_on_a_good_network() {
    assert_eq!(exchange(1, Link::new(), config()).await, (12, 0));
}

#[tokio::test(start_paused = true)]
async fn every_request_ends_with_its_own_answer_or_none() {
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..40 {
        let link = Link::new()
            .latency(Duration::from_millis(10))
            .jitter(Duration::from_millis(5))
            .loss(0.1)
            .duplication(0.1)
            .reordering(0.1, Duration::from_millis(40));
        let counts = exchange(seed, link, config()).await;
        answered += counts.0;
        failed += counts.1;
    }
    assert_eq!(answered + failed, 40 * 12);
    assert!(
        answered > 10 * failed,
        "{answered} answered, {failed} failed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_fails_at_once_where_that_is_wanted() {
    let net = SimNet::seeded(2);
    let endpoint = AsyncSim::new(net.bind(server_addr()).unwrap());
    let transport = builder(2).wrap_async(endpoint).unwrap();
    let server = Server::builder(Tagged(Text)).with_transport(transport);
    let server = server.unwrap();
    let handle = server.handle();
    let connector = ClientConfig::psk(IDENTITY, *b"another key here")
        .insecure_seeds()
        .connector(net, &Tagged(Text));
    let client = Client::builder(Tagged(Text))
        .fail_when_unreachable(true)
        .with_connector(connector.unwrap(), server_addr())
        .unwrap();
    let begun = Instant::now();
    let asking = async {
        let error = client.request("hello").await.unwrap_err();
        let elapsed = begun.elapsed();
        handle.shutdown();
        (error, elapsed)
    };
    let serving = server.serve(async |text: &str| text.to_uppercase());
    let (_, (error, elapsed)) = tokio::join!(serving, asking);
    assert!(
        format!("{error:?}").contains("no association with the server"),
        "{error:?}"
    );
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}
