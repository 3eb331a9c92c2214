//! Requests to groups on tokio, in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rejoinder::RequestError;
use rejoinder::aio::{Client, Discovery};
use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use tokio::time::{Instant, sleep, timeout};

const GROUP: &str = "239.1.2.3:9999";
const TIME: Duration = Duration::from_secs(2);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A group of so many members, which respond with their address.
fn group_of(members: u8, net: &SimNet) -> SocketAddr {
    let group: SocketAddr = GROUP.parse().unwrap();
    for member in 1..=members {
        let ip = IpAddr::from([10, 0, 0, member]);
        let answer = move |_: &str| Some(format!("{ip}"));
        let member = ServerCore::new(Tagged(Text), answer);
        net.host((ip, group.port()).into(), member).unwrap();
        net.join_group(group.ip(), ip);
    }
    group
}

/// All responses that come, in the order of their peers.
async fn collect(mut discovery: Discovery<SimNet, Tagged<Text>>) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((peer, response)) = discovery.next_response().await {
        let response = response.unwrap();
        assert_eq!(response.get(), peer.ip().to_string());
        names.push(response.get().to_owned());
    }
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn each_member_is_heard_once_until_the_time_is_over() {
    let net = SimNet::seeded(7);
    let link = Link::new().latency(ms(20)).jitter(ms(30));
    net.set_link(link.loss(0.3).duplication(0.3)).unwrap();
    let client = Client::builder(Tagged(Text)).with_connector(net.clone(), group_of(5, &net));
    let client = client.unwrap();
    let begun = Instant::now();
    // What one copy of the request loses, the next one finds: after one second, and two.
    let discovery = client.discover("who is there?", ms(10_000)).await.unwrap();
    let heard = collect(discovery).await;
    assert_eq!(
        heard,
        ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
    );
    assert_eq!(begun.elapsed(), ms(10_000));
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn several_discoveries_go_on_side_by_side() {
    let net = SimNet::new();
    let client = Client::builder(Tagged(Text)).with_connector(net.clone(), group_of(3, &net));
    let client = client.unwrap();
    let begun = Instant::now();
    let all = (0..3_u32).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            sleep(ms(100) * number).await;
            let discovery = client.discover("who is there?", TIME).await.unwrap();
            collect(discovery).await
        })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap().len(), 3);
    }
    assert_eq!(begun.elapsed(), TIME + ms(200));
}

#[tokio::test(start_paused = true)]
async fn a_discovery_that_is_dropped_gives_its_room_back() {
    let net = SimNet::new();
    let client = Client::builder(Tagged(Text)).window(1);
    let client = client
        .with_connector(net.clone(), group_of(2, &net))
        .unwrap();
    let mut first = client.discover("who is there?", TIME).await.unwrap();
    assert!(first.next_response().await.is_some());
    let begun = Instant::now();
    let second = tokio::spawn({
        let client = client.clone();
        async move { collect(client.discover("and now?", TIME).await.unwrap()).await }
    });
    sleep(ms(300)).await;
    let now = client.try_request("no room").await;
    assert!(matches!(now, Err(RequestError::WindowFull { .. })));
    drop(first);
    assert_eq!(second.await.unwrap().len(), 2);
    assert_eq!(begun.elapsed(), TIME + ms(300));
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn giving_up_the_wait_for_a_response_loses_none() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(50))).unwrap();
    let client = Client::builder(Tagged(Text)).with_connector(net.clone(), group_of(2, &net));
    let mut discovery = client
        .unwrap()
        .discover("who is there?", TIME)
        .await
        .unwrap();
    // The client itself is dropped already: the discovery keeps it.
    let mut given_up = 0;
    let mut heard = 0;
    loop {
        match timeout(ms(30), discovery.next_response()).await {
            Err(_) => given_up += 1,
            Ok(Some(_)) => heard += 1,
            Ok(None) => break,
        }
    }
    assert_eq!(heard, 2);
    assert!(given_up > 3, "{given_up}");
}

#[test]
fn a_discovery_whose_runtime_ends_reports_it_once() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let net = SimNet::new();
    let first = runtime();
    let mut discovery = first.block_on(async {
        let client = Client::builder(Tagged(Text)).with_connector(net.clone(), group_of(2, &net));
        let mut discovery = client
            .unwrap()
            .discover("who is there?", TIME)
            .await
            .unwrap();
        assert!(discovery.next_response().await.is_some());
        discovery
    });
    drop(first);
    runtime().block_on(async {
        let mut errors = 0;
        while let Some((peer, response)) = discovery.next_response().await {
            if let Err(error) = response {
                assert!(matches!(error, RequestError::Transport(_)), "{error}");
                assert_eq!(peer, GROUP.parse().unwrap());
                errors += 1;
            }
        }
        assert_eq!(errors, 1);
    });
}
