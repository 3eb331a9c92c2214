//! The client on tokio, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rejoinder::aio::{AsyncSim, Client, Server, Tokio};
use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::{Link, SimNet};
use rejoinder::transport::LocalPort;
use rejoinder::{ClientBuilder, Codec, RequestError, Retry};
use rejoinder_test_support::fates::{self, Kind};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep, timeout};

const SERVER: &str = "10.0.0.1:9999";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server that answers after as many milliseconds as it is asked for, and how often it was asked.
fn serve<C>(net: &SimNet, codec: C) -> Arc<AtomicU32>
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn std::fmt::Display>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let endpoint = AsyncSim::new(net.bind(SERVER.parse().unwrap()).unwrap());
    let server = Server::builder(codec).with_transport(endpoint);
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let handler = async move |text: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        if let Ok(millis) = text.parse() {
            sleep(ms(millis)).await;
        }
        (text != "quiet").then(|| text.to_uppercase())
    };
    task::spawn(server.unwrap().serve(handler));
    asked
}

fn client<C: Codec + Clone + Send + Sync + 'static>(
    net: &SimNet,
    builder: ClientBuilder<C, Tokio>,
) -> Client<SimNet, C> {
    let connected = builder.with_connector(net.clone(), SERVER.parse().unwrap());
    connected.unwrap()
}

/// Sockets share places in the list of those to look at where there are more than 4,096.
#[tokio::test(start_paused = true)]
#[cfg_attr(miri, ignore = "takes thousands of sockets")]
async fn thousands_of_sockets_are_each_looked_at_once() {
    const REQUESTS: usize = 4_500;
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(20))).unwrap();
    let endpoint = AsyncSim::new(net.bind(SERVER.parse().unwrap()).unwrap());
    let server = Server::builder(Text).with_transport(endpoint).unwrap();
    task::spawn(server.serve(async |text: &str| text.to_uppercase()));
    let builder = Client::builder(Text).window(REQUESTS);
    let client = client(&net, builder.max_cooling_sockets(100_000));
    ask_at_once(&client, REQUESTS).await;
}

/// So many requests at once, each with its own response.
async fn ask_at_once<C>(client: &Client<SimNet, C>, requests: usize)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str> + Clone + Send + Sync + 'static,
{
    let mut asking = JoinSet::new();
    for number in 0..requests {
        let client = client.clone();
        asking.spawn(async move {
            let text = format!("number {number}");
            let response = client.request(&text).await.unwrap();
            assert_eq!(response.get(), text.to_uppercase());
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}

/// Panics on a response that an attacker would send.
#[derive(Clone, Copy, Debug)]
struct Fragile;

impl Codec for Fragile {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn std::fmt::Display;
    type Error = rejoinder::codec::TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Self::Error> {
        Text.decode_request(datagram)
    }
    fn encode_response(
        &self,
        now: rejoinder::Timestamp,
        request: &[u8],
        answer: &dyn std::fmt::Display,
        out: &mut rejoinder::Writer<'_>,
    ) -> Result<(), Self::Error> {
        Text.encode_response(now, request, answer, out)
    }
    fn encode_request(
        &self,
        id: u64,
        request: &str,
        out: &mut rejoinder::Writer<'_>,
    ) -> Result<(), Self::Error> {
        Text.encode_request(id, request, out)
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Self::Error> {
        assert_ne!(datagram, b"BOOM", "as planned");
        Text.decode_response(datagram)
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        Text.is_response(datagram)
    }
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_panics_on_a_response_costs_that_request_only() {
    let net = SimNet::new();
    serve(&net, Text);
    let builder = Client::builder(Fragile)
        .timeout(ms(500))
        .retry(Retry::never());
    let client = client(&net, builder);
    let (fatal, other) = tokio::join!(client.request("boom"), client.request("hi"));
    assert!(matches!(fatal, Err(RequestError::TimedOut { .. })));
    assert_eq!(other.unwrap().get(), "HI");
    assert_eq!(client.request("again").await.unwrap().get(), "AGAIN");
}

/// As `four_exchanges_are_right_whatever_becomes_of_their_first_four_datagrams`, with the callers as tasks.
#[test]
#[cfg_attr(miri, ignore = "takes hundreds of networks")]
fn four_tasks_are_right_whatever_becomes_of_their_first_three_datagrams() {
    for kind in fates::KINDS {
        let mut answered = 0;
        for number in 0..fates::scripts(3) {
            let net = SimNet::scripted(number, fates::script(number, 3));
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            answered += net.run(|net| {
                runtime.block_on(async {
                    fates::host(net, kind);
                    match kind {
                        Kind::Ids => four(net, Client::builder(Tagged(Text))).await,
                        Kind::Sockets => four(net, Client::builder(Text)).await,
                        Kind::Renewed => {
                            let builder = Client::builder(fates::Short);
                            four(net, builder.local_port(LocalPort::PerSend)).await
                        }
                        Kind::Parts => four(net, Client::builder(fates::Halves)).await,
                    }
                })
            });
        }
        assert!(answered > 480, "{answered} of 500 {kind:?}");
    }
}

/// Two requests, and two more when the first ones are due again. Returns how many were answered.
async fn four<C>(net: &SimNet, builder: ClientBuilder<C, Tokio>) -> u32
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str> + Clone + Send + Sync + 'static,
{
    let client = client(net, fates::settings(builder));
    let ask = async |text: &str, after| {
        sleep(after).await;
        let begun = Instant::now();
        let result = client.request(text).await;
        let elapsed = begun.elapsed();
        match result {
            Ok(response) => {
                assert_eq!(response.get(), text.to_uppercase(), "whose response is it?");
                // tokio's timers have a resolution of a millisecond.
                assert!(elapsed <= fates::TIMEOUT + ms(1), "{elapsed:?}");
                1
            }
            Err(RequestError::TimedOut { .. } | RequestError::Incomplete { .. }) => {
                assert!(elapsed >= fates::TIMEOUT, "{elapsed:?}");
                assert!(elapsed <= fates::TIMEOUT + ms(1), "{elapsed:?}");
                0
            }
            Err(error) => panic!("{error}"),
        }
    };
    let (one, two, three, four) = tokio::join!(
        ask("one", ms(0)),
        ask("two", ms(0)),
        ask("three", ms(350)),
        ask("four", ms(350))
    );
    assert_eq!(client.stats().in_flight, 0);
    one + two + three + four
}

#[tokio::test(start_paused = true)]
async fn requests_go_on_side_by_side_with_ids_and_without() {
    let net = SimNet::new();
    serve(&net, Text);
    let plain = client(&net, Client::builder(Text));
    let begun = Instant::now();
    let (slow, quick) = tokio::join!(plain.request("30"), plain.request("10"));
    assert_eq!((slow.unwrap().get(), quick.unwrap().get()), ("30", "10"));
    assert!(begun.elapsed() < ms(35));

    let net = SimNet::new();
    serve(&net, Tagged(Text));
    let tagged = client(&net, Client::builder(Tagged(Text)));
    ask_at_once(&tagged, 100).await;
    assert_eq!(tagged.stats().in_flight, 0);
    assert_eq!(tagged.stats().sockets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_is_sent_no_more_and_frees_its_place() {
    for tagged in [false, true] {
        let net = SimNet::new();
        let (in_flight, asked, cooling) = if tagged {
            dropped(&net, Tagged(Text)).await
        } else {
            dropped(&net, Text).await
        };
        assert_eq!((in_flight, asked), (0, 2), "{tagged}");
        assert_eq!(cooling, usize::from(!tagged) * 2);
    }
}

async fn dropped<C>(net: &SimNet, codec: C) -> (usize, u32, usize)
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn std::fmt::Display>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let asked = serve(net, codec.clone());
    let client = client(net, Client::builder(codec).window(1));
    let given_up = timeout(ms(100), client.request("quiet")).await;
    assert!(given_up.is_err());
    // There is room for the next one at once, and nothing is retransmitted for the first.
    assert!(client.request("now").await.is_ok());
    sleep(ms(10_000)).await;
    let stats = client.stats();
    (
        stats.in_flight,
        asked.load(Ordering::Relaxed),
        stats.cooling_sockets,
    )
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_room_in_the_order_in_which_they_came() {
    let net = SimNet::new();
    serve(&net, Tagged(Text));
    let client = client(&net, Client::builder(Tagged(Text)).window(2));
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..10 {
        let client = client.clone();
        asking.spawn(async move {
            if number == 3 {
                // One that waits for room, and gives up.
                assert!(timeout(ms(1), client.request("10")).await.is_err());
                return (number, ms(0));
            }
            client.request("10").await.unwrap();
            (number, begun.elapsed())
        });
    }
    let mut ended = Vec::new();
    while let Some(one) = asking.join_next().await {
        ended.push(one.unwrap());
    }
    // Two at a time, which end in the same millisecond.
    let mut order: Vec<_> = ended.iter().map(|one| one.0).collect();
    order[1..].chunks_mut(2).for_each(<[i32]>::sort_unstable);
    assert_eq!(order, [3, 0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert!(ended[9].1 >= ms(50) && ended[9].1 < ms(70), "{ended:?}");
    assert!(matches!(
        client.try_request("now").await.map(|one| one.get().to_owned()),
        Ok(text) if text == "NOW"
    ));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_sent_again_and_silence_ends_at_the_deadline() {
    let net = SimNet::scripted(0, "1 lose".parse().unwrap());
    serve(&net, Text);
    let builder = Client::builder(Text).retry(Retry::new().initial(ms(100)));
    let client = client(&net, builder.timeout(ms(1_000)));
    let begun = Instant::now();
    assert_eq!(client.request("again").await.unwrap().get(), "AGAIN");
    assert!((ms(100)..ms(250)).contains(&begun.elapsed()));
    let begun = Instant::now();
    let error = client.request("quiet").await.unwrap_err();
    assert!(matches!(error, RequestError::TimedOut { .. }), "{error}");
    assert!((ms(1_000)..ms(1_002)).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_shows_at_once_if_that_is_wanted() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(5)).port_unreachable(true))
        .unwrap();
    let client = client(&net, Client::builder(Text).fail_when_unreachable(true));
    let begun = Instant::now();
    let error = client.request("anybody?").await.unwrap_err();
    assert!(
        matches!(error, RequestError::NobodyListening { .. }),
        "{error}"
    );
    assert!(begun.elapsed() < ms(20));
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_the_last_clone() {
    let net = SimNet::new();
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let one = client(&net, Client::builder(Text));
    let other = one.clone();
    drop(one);
    task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), before + 1);
    drop(other);
    task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), before);
}

#[test]
fn a_client_whose_runtime_ends_fails_instead_of_waiting_for_ever() {
    let build = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let net = SimNet::new();
    let first = build();
    let client = first.block_on(async { client(&net, Client::builder(Text)) });
    drop(first);
    let error = build().block_on(async { client.request("?").await.unwrap_err() });
    assert!(matches!(error, RequestError::Transport(_)), "{error}");
}

/// The storm: a bad network, many requests at once, both ends on tokio. Every request has one result,
/// every answer is the right one, and the same seed gives the same trace.
#[tokio::test(start_paused = true)]
async fn the_storm_through_the_async_drivers() {
    for seed in 0..6 {
        let first = storm(seed).await;
        assert!(first.1 > 300, "{first:?}");
        assert_eq!(first, storm(seed).await, "seed {seed}");
    }
}

async fn storm(seed: u64) -> (u64, u32, u32, Duration) {
    let net = SimNet::seeded(seed);
    let link = Link::new()
        .latency(ms(20))
        .jitter(ms(30))
        .loss(0.2)
        .duplication(0.2)
        .reordering(0.3, ms(100))
        .corruption(0.05);
    net.set_link(link).unwrap();
    serve(&net, Tagged(Text));
    let builder = Client::builder(Tagged(Text)).window(32);
    let client = client(&net, builder.retry(Retry::new().initial(ms(200))));
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..400_u32 {
        let client = client.clone();
        asking.spawn(async move {
            let asked = format!("number {number}");
            match client.request(&asked).await {
                // A flipped bit may make other text of it, but never that of another request.
                Ok(response) => {
                    let got = response.get();
                    let expected = asked.to_uppercase();
                    let differ = got.chars().zip(expected.chars());
                    assert!(
                        differ.filter(|(a, b)| a != b).count() <= 2,
                        "{got} for {asked}"
                    );
                    (1, 0)
                }
                Err(RequestError::TimedOut { .. }) => (0, 1),
                Err(error) => panic!("{error}"),
            }
        });
    }
    let (mut answered, mut failed) = (0, 0);
    while let Some(one) = asking.join_next().await {
        let (yes, no) = one.unwrap();
        answered += yes;
        failed += no;
    }
    assert_eq!(answered + failed, 400);
    let stats = client.stats();
    assert_eq!((stats.in_flight, stats.uncollected), (0, 0));
    (net.trace().hash(), answered, failed, begun.elapsed())
}
