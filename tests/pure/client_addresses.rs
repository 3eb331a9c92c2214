//! A client of a server that has several addresses, or gets others.

use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::transport::LocalPort;
use rejoinder::{Client, ClientBuilder, Codec, RequestError, Retry, Wait};

fn addr(number: usize) -> SocketAddr {
    format!("10.0.0.{number}:9999").parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server that answers with its number.
fn host<C>(net: &SimNet, codec: C, number: usize)
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn std::fmt::Display>
        + Send
        + 'static,
{
    let core = ServerCore::new(codec, move |_: &str| Some(number.to_string()));
    net.host(addr(number), core).unwrap();
}

/// Nothing gets through to a server, or back.
fn cut(net: &SimNet, number: usize) {
    net.partition(addr(number).ip(), CLIENT.parse().unwrap());
}

fn heal(net: &SimNet, number: usize) {
    net.heal(addr(number).ip(), CLIENT.parse().unwrap());
}

/// Whatever the codec, it is a case of its own.
trait Words:
    for<'a> Codec<
        Request<'a> = &'a str,
        Response<'a> = &'a str,
        Answer<'a> = &'a dyn std::fmt::Display,
    > + Clone
    + Send
    + 'static
{
}

impl Words for Text {}
impl Words for Tagged<Text> {}

fn builder<C: Words>(codec: C, addresses: usize) -> ClientBuilder<C> {
    Client::builder(codec).other_peers((2..=addresses).map(addr))
}

#[test]
fn every_address_has_a_share_of_the_time() {
    fn asks<C: Words>(codec: &C) {
        for addresses in 2..=5 {
            for timeout in [
                ms(50),
                ms(500),
                secs(1),
                secs(2),
                secs(3),
                secs(5),
                secs(20),
            ] {
                let net = SimNet::new();
                host(&net, codec.clone(), addresses);
                let mut client = builder(codec.clone(), addresses)
                    .timeout(timeout)
                    .with_connector(net.clone(), addr(1))
                    .unwrap();
                let answer = client.request("?").map(str::to_owned);
                let case = (addresses, timeout);
                assert_eq!(answer.unwrap(), addresses.to_string(), "{case:?}");
                assert!(net.now().monotonic < timeout, "{case:?}");
            }
        }
    }
    asks(&Text);
    asks(&Tagged(Text));
}

#[test]
fn a_request_leaves_an_address_that_responded_before() {
    fn asks<C: Words>(codec: &C) {
        for timeout in [ms(300), secs(1), secs(2), secs(5)] {
            let net = SimNet::new();
            host(&net, codec.clone(), 1);
            host(&net, codec.clone(), 2);
            let mut client = builder(codec.clone(), 2)
                .timeout(timeout)
                .with_connector(net.clone(), addr(1))
                .unwrap();
            for dead in [1, 2, 1, 2] {
                for _ in 0..20 {
                    assert_eq!(client.request("?").unwrap(), dead.to_string());
                }
                cut(&net, dead);
                let answer = client.request("?").map(str::to_owned);
                assert_eq!(answer.unwrap(), (3 - dead).to_string(), "{timeout:?}");
                heal(&net, dead);
            }
        }
    }
    asks(&Text);
    asks(&Tagged(Text));
}

#[test]
fn the_response_of_the_next_address_is_a_measurement() {
    let net = SimNet::new();
    host(&net, Text, 1);
    host(&net, Text, 2);
    let mut client = builder(Text, 2)
        .timeout(secs(60))
        .with_connector(net.clone(), addr(1))
        .unwrap();
    for (dead, most) in [(1, ms(1_500)), (2, ms(150)), (1, ms(150))] {
        cut(&net, dead);
        let begun = net.now().monotonic;
        assert_eq!(client.request("?").unwrap(), (3 - dead).to_string());
        // The least first timeout, and its jitter.
        let took = net.now().monotonic.saturating_sub(begun);
        assert!(took <= most, "{took:?}");
        heal(&net, dead);
    }
}

#[test]
fn one_address_has_all_of_the_time() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(950))).unwrap();
    host(&net, Text, 1);
    let mut client = builder(Text, 1)
        .timeout(secs(2))
        .with_connector(net.clone(), addr(1))
        .unwrap();
    assert_eq!(client.request("?").unwrap(), "1");
    assert_eq!(net.now().monotonic, ms(1_900));
}

#[test]
fn a_slow_response_is_accepted_after_the_request_has_moved_on() {
    fn asks<C: Words>(codec: C) {
        let net = SimNet::new();
        net.set_link(Link::new().latency(ms(950))).unwrap();
        host(&net, codec.clone(), 1);
        let mut client = builder(codec, 3)
            .timeout(secs(2))
            .with_connector(net.clone(), addr(1))
            .unwrap();
        client.submit("?").unwrap();
        let (_, response) = client.collect_raw(Wait::Forever).unwrap();
        let response = response.unwrap();
        assert_eq!(response.peer(), addr(1));
        assert_eq!(response.decode().unwrap(), "1");
        assert_eq!(net.now().monotonic, ms(1_900));
    }
    asks(Text);
    asks(Tagged(Text));
}

#[test]
fn the_next_request_begins_elsewhere_after_one_without_a_response() {
    fn asks<C: Words>(codec: C) {
        let net = SimNet::new();
        host(&net, codec.clone(), 2);
        // A single send has no share to give.
        let mut client = builder(codec, 2)
            .retry(Retry::never())
            .with_connector(net.clone(), addr(1))
            .unwrap();
        let error = client.request("?").unwrap_err();
        assert_eq!(error.peer(), Some(addr(1)));
        assert_eq!(client.peer(), addr(2));
        assert_eq!(client.request("?").unwrap(), "2");
        assert_eq!(net.now().monotonic, secs(5));
    }
    asks(Text);
    asks(Tagged(Text));
}

#[test]
fn a_session_stays_at_its_address_during_a_request_and_leaves_it_after_one_without_a_response() {
    let net = SimNet::new();
    host(&net, Tagged(Text), 2);
    host(&net, Tagged(Text), 3);
    let mut client = builder(Tagged(Text), 3)
        .local_port(LocalPort::Kept)
        .with_connector(net.clone(), addr(1))
        .unwrap();
    // None of them knows the port yet.
    assert_eq!(client.request("?").unwrap(), "2");
    cut(&net, 2);
    client.request("?").unwrap_err();
    assert_eq!(client.request("?").unwrap(), "3");
}

#[test]
fn one_request_without_a_response_does_not_change_the_address_while_others_are_answered() {
    let net = SimNet::new();
    let picky = |text: &str| (text != "never").then(|| "1".to_owned());
    net.host(addr(1), ServerCore::new(Tagged(Text), picky))
        .unwrap();
    host(&net, Tagged(Text), 2);
    let mut client = builder(Tagged(Text), 2)
        .with_connector(net.clone(), addr(1))
        .unwrap();
    let never = client.submit("never").unwrap();
    let mut failed = false;
    while !failed {
        client.submit("?").unwrap();
        while let Some((ticket, answer)) = client.collect(Wait::For(ms(100))) {
            match answer {
                Ok(answer) => assert_eq!(answer, "1"),
                Err(error) => {
                    assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
                    assert_eq!(ticket, never);
                    failed = true;
                }
            }
        }
    }
    assert_eq!(client.request("?").unwrap(), "1");
}

#[test]
fn a_refusal_is_the_refusing_addresss() {
    // The second refuses at once, the first is silent.
    let net = SimNet::new();
    cut(&net, 1);
    net.set_link(Link::new().port_unreachable(true)).unwrap();
    let mut client = builder(Text, 2)
        .with_connector(net.clone(), addr(1))
        .unwrap();
    let error = client.request("?").unwrap_err();
    let RequestError::NobodyListening { peer } = error else {
        panic!("{error:?}");
    };
    assert_eq!(peer, addr(2));
    assert_eq!(net.now().monotonic, secs(5));
}

#[test]
fn a_request_in_flight_moves_at_once_to_addresses_that_are_new_and_keeps_its_deadline() {
    fn asks<C: Words>(codec: &C) {
        let net = SimNet::new();
        host(&net, codec.clone(), 3);
        for answered in [true, false] {
            let begun = net.now().monotonic;
            let mut client = builder(codec.clone(), 2)
                .with_connector(net.clone(), addr(1))
                .unwrap();
            client.submit("?").unwrap();
            assert!(client.collect(Wait::For(ms(700))).is_none());
            client.set_peers(addr(if answered { 3 } else { 4 }), &[]);
            let (_, answer) = client.collect(Wait::Forever).unwrap();
            let took = net.now().monotonic.saturating_sub(begun);
            if answered {
                assert_eq!((answer.unwrap(), took), ("3", ms(700)));
                assert_eq!(client.peer(), addr(3));
            } else {
                let error = answer.unwrap_err();
                assert!(matches!(error, RequestError::TimedOut { after, .. } if after == secs(5)));
                assert_eq!(error.peer(), Some(addr(4)));
                assert_eq!(took, secs(5));
            }
        }
    }
    asks(&Text);
    asks(&Tagged(Text));
}

#[test]
fn an_address_that_stays_keeps_its_requests_and_its_place() {
    fn asks<C: Words>(codec: C) {
        let net = SimNet::new();
        net.set_link(Link::new().latency(ms(100))).unwrap();
        host(&net, codec.clone(), 2);
        host(&net, codec.clone(), 3);
        let mut client = builder(codec, 2)
            .with_connector(net.clone(), addr(1))
            .unwrap();
        assert_eq!(client.request("?").unwrap(), "2");
        client.submit("?").unwrap();
        let begun = net.now().monotonic;
        assert!(client.collect(Wait::For(ms(50))).is_none());
        client.set_peers(addr(3), &[addr(2), addr(3)]);
        let (_, answer) = client.collect(Wait::Forever).unwrap();
        assert_eq!(answer.unwrap(), "2");
        assert_eq!(net.now().monotonic.saturating_sub(begun), ms(200));
        assert_eq!(client.request("?").unwrap(), "2");
    }
    asks(Text);
    asks(Tagged(Text));
}

#[test]
fn the_response_of_an_address_that_is_not_listed_any_more_is_accepted() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(400))).unwrap();
    host(&net, Text, 1);
    let mut client = builder(Text, 1)
        .with_connector(net.clone(), addr(1))
        .unwrap();
    client.submit("?").unwrap();
    assert!(client.collect(Wait::For(ms(100))).is_none());
    client.set_peers(addr(2), &[]);
    let (_, response) = client.collect_raw(Wait::Forever).unwrap();
    assert_eq!(response.unwrap().peer(), addr(1));
    assert_eq!(net.now().monotonic, ms(800));
    // But the next one goes to the new one.
    assert_eq!(client.request("?").unwrap_err().peer(), Some(addr(2)));
}

#[test]
fn new_addresses_may_all_refuse() {
    fn asks<C: Words>(codec: C) {
        let net = SimNet::new();
        host(&net, codec.clone(), 7);
        cut(&net, 1);
        net.set_link(Link::new().port_unreachable(true)).unwrap();
        let mut client = builder(codec, 2)
            .fail_when_unreachable(true)
            .with_connector(net.clone(), addr(1))
            .unwrap();
        client.submit("?").unwrap();
        assert!(client.collect(Wait::For(ms(100))).is_none());
        client.set_peers(addr(4), &[addr(5), addr(6), addr(7)]);
        let (_, answer) = client.collect(Wait::Forever).unwrap();
        assert_eq!(answer.unwrap(), "7");
        assert_eq!(net.now().monotonic, ms(100));
        client.set_peers(addr(4), &[addr(5), addr(6)]);
        let error = client.request("?").unwrap_err();
        assert!(
            matches!(error, RequestError::NobodyListening { .. }),
            "{error:?}"
        );
    }
    asks(Text);
    asks(Tagged(Text));
}

/// The first machine that connects in a simulated network.
const CLIENT: &str = "10.255.255.254";
