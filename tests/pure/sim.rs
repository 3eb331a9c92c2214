//! The network in memory, without faults.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rejoinder::bot::zurich;
use rejoinder::codec::{Ctime, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, Node, SimNet, SimTransport};
use rejoinder::transport::{Connect, Inbox, Outbox, SendReport};
use rejoinder::{
    Client, Codec, Context, Handler, Reply, ReplyError, RequestError, Retry, Server, Stats,
    Timestamp, Transport, Wait,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn send(from: &mut SimTransport, to: SocketAddr, bytes: &[u8]) {
    let mut outbox = Outbox::new(1, 1_024);
    push(&mut outbox, to, bytes);
    let sent = from.send(&outbox);
    assert_eq!((sent.sent, sent.failed), (1, 0));
}

fn push(outbox: &mut Outbox, to: SocketAddr, bytes: &[u8]) {
    let pushed = outbox.push(to, None, bytes);
    pushed.unwrap();
}

/// Everything that has arrived or is on its way: senders and payloads.
fn receive_all(transport: &mut SimTransport) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut inbox = Inbox::new(2, 1_024);
    let mut all = Vec::new();
    while transport.recv(&mut inbox, Wait::No).unwrap() > 0 {
        while let Some(datagram) = inbox.pop() {
            assert_eq!(
                datagram.meta.local,
                Some(transport.local_addr().unwrap().ip())
            );
            all.push((datagram.meta.peer, datagram.bytes.to_vec()));
        }
    }
    all
}

// Addresses.

#[test]
fn an_address_can_be_had_once_until_its_owner_is_dropped() {
    let net = SimNet::new();
    let here = addr("10.0.0.1:7");
    let owner = net.bind(here).unwrap();
    assert_eq!(owner.local_addr().unwrap(), here);
    assert_eq!(net.bind(here).unwrap_err().kind(), ErrorKind::AddrInUse);
    let node = ServerCore::new(Text, |_: &str| ());
    assert_eq!(
        net.host(here, node).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    // Another port, another machine and another network are something else.
    let _others = [
        net.bind(addr("10.0.0.1:8")).unwrap(),
        net.bind(addr("10.0.0.2:7")).unwrap(),
        SimNet::new().bind(here).unwrap(),
    ];
    drop(owner);
    net.bind(here).unwrap();

    net.host(here, ServerCore::new(Text, |_: &str| ())).unwrap();
    assert_eq!(net.bind(here).unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[test]
fn an_endpoint_needs_an_address_of_its_own() {
    let net = SimNet::new();
    for unspecified in ["0.0.0.0:7", "0.0.0.0:0", "[::]:7"] {
        let error = net.bind(addr(unspecified)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes 16,384 ports")]
fn port_0_is_any_free_port_and_all_of_them_can_be_used() {
    let net = SimNet::new();
    // RFC 6335 §6: 49152 to 65535. One of them is taken already.
    let _taken = net.bind(addr("10.0.0.1:50000")).unwrap();
    let mut ports = Vec::new();
    let mut owners = Vec::new();
    for _ in 49_152..65_535 {
        let owner = net.bind(addr("10.0.0.1:0")).unwrap();
        ports.push(owner.local_addr().unwrap().port());
        owners.push(owner);
    }
    ports.sort_unstable();
    let expected: Vec<u16> = (49_152..=65_535).filter(|port| *port != 50_000).collect();
    assert!(ports == expected);
    assert_eq!(
        net.bind(addr("10.0.0.1:0")).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    owners.swap_remove(77);
    net.bind(addr("10.0.0.1:0")).unwrap();
}

#[test]
fn an_ipv4_mapped_address_is_one_of_ipv4() {
    let net = SimNet::new();
    let mut one = net.bind(addr("[::ffff:10.0.0.1]:7")).unwrap();
    assert_eq!(one.local_addr().unwrap(), addr("10.0.0.1:7"));
    let taken = net.bind(addr("10.0.0.1:7")).err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let mut two = net.connect(addr("[::ffff:10.0.0.1]:7")).unwrap();
    let from = two.local_addr().unwrap();
    send(&mut two, addr("10.0.0.1:7"), b"hello");
    assert_eq!(receive_all(&mut one), [(from, b"hello".to_vec())]);
    send(&mut one, from, b"you too");
    assert_eq!(
        receive_all(&mut two),
        [(addr("10.0.0.1:7"), b"you too".to_vec())]
    );
    // Also where no endpoint is.
    let mapped = |ip: &str| ip.parse::<std::net::IpAddr>().unwrap();
    net.inject(addr("[::ffff:10.0.0.9]:9"), addr("10.0.0.1:7"), b"forged");
    assert_eq!(
        receive_all(&mut one),
        [(addr("10.0.0.9:9"), b"forged".to_vec())]
    );
    net.partition(mapped("::ffff:10.0.0.9"), mapped("::ffff:10.0.0.1"));
    net.inject(addr("10.0.0.9:9"), addr("10.0.0.1:7"), b"cut off");
    assert!(receive_all(&mut one).is_empty());
}

#[test]
fn connecting_gives_an_address_that_no_other_has() {
    let net = SimNet::new();
    for peer in ["10.0.0.1:7", "[fd00::1]:7"] {
        let peer = addr(peer);
        let [one, other] = [(); 2].map(|()| net.connect(peer).unwrap());
        let [one, other] = [one, other].map(|transport| transport.local_addr().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.is_ipv4(), peer.is_ipv4());
    }
}

// Delivery.

#[test]
fn several_endpoints_talk_and_each_gets_its_own_in_order() {
    let net = SimNet::new();
    let places = ["10.0.0.1:7", "10.0.0.1:8", "[fd00::1]:7"].map(addr);
    let mut endpoints = places.map(|place| net.bind(place).unwrap());
    for round in 0..5_u8 {
        for (from, endpoint) in endpoints.iter_mut().enumerate() {
            for (to, place) in places.iter().enumerate() {
                // To oneself as well.
                send(
                    endpoint,
                    *place,
                    &[u8::try_from(10 * from + to).unwrap(), round],
                );
            }
        }
    }
    for (to, endpoint) in endpoints.iter_mut().enumerate() {
        let expected: Vec<_> = (0..5)
            .flat_map(|round| {
                places.iter().enumerate().map(move |(from, place)| {
                    (*place, vec![u8::try_from(10 * from + to).unwrap(), round])
                })
            })
            .collect();
        assert_eq!(receive_all(endpoint), expected);
    }
}

#[test]
fn what_is_sent_to_nobody_is_lost() {
    let net = SimNet::new();
    let mut endpoint = net.bind(addr("10.0.0.1:7")).unwrap();
    send(&mut endpoint, addr("10.0.0.2:7"), b"anybody?");
    assert!(receive_all(&mut endpoint).is_empty());
    // Who comes later does not get it.
    let mut late = net.bind(addr("10.0.0.2:7")).unwrap();
    assert!(receive_all(&mut late).is_empty());
}

#[test]
fn invariant_4_truncation_is_told_exactly() {
    let net = SimNet::new();
    let here = addr("10.0.0.1:7");
    let mut endpoint = net.bind(here).unwrap();
    for (len, truncated) in [(0, false), (16, false), (17, true), (500, true)] {
        send(&mut endpoint, here, &vec![b'x'; len]);
        let mut inbox = Inbox::new(1, 16);
        assert_eq!(endpoint.recv(&mut inbox, Wait::No).unwrap(), 1);
        let datagram = inbox.pop().unwrap();
        assert_eq!(datagram.meta.truncated, truncated, "{len}");
        assert!(truncated || datagram.bytes.len() == len);
    }
}

#[test]
fn a_node_is_called_until_its_inbox_is_empty_and_learns_what_was_sent() {
    /// Takes its time: it looks at its inbox only on the second call.
    #[derive(Default)]
    struct Slow {
        calls: usize,
        sent: usize,
    }
    impl Node for Slow {
        fn receive(&mut self, _: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                let peer = inbox.pop().unwrap().meta.peer;
                push(outbox, peer, b"1");
                push(outbox, peer, b"2");
            }
        }
        fn on_sent(&mut self, sent: &SendReport) {
            self.sent += sent.sent;
        }
    }
    let net = SimNet::new();
    let there = addr("10.0.0.1:7");
    let node = Arc::new(Mutex::new(Slow::default()));
    net.host(there, Arc::clone(&node)).unwrap();
    let mut asker = net.bind(addr("10.0.0.2:7")).unwrap();
    send(&mut asker, there, b"?");
    assert_eq!(
        receive_all(&mut asker),
        [(there, b"1".to_vec()), (there, b"2".to_vec())]
    );
    let node = node.lock().unwrap();
    assert_eq!((node.calls, node.sent), (2, 2));
}

#[test]
fn a_handler_may_be_a_client_of_the_same_network() {
    let net = Arc::new(SimNet::new());
    let (front, back) = (addr("10.0.0.1:7"), addr("10.0.0.2:7"));
    net.host(
        back,
        ServerCore::new(Text, |text: &str| Some(text.to_uppercase())),
    )
    .unwrap();
    // A handler that had a handle of its own would keep the network, and the network the handler.
    let inner = Arc::downgrade(&net);
    let forward = move |text: &str| {
        let inner = inner.upgrade().unwrap();
        let mut client = Client::new(SimNet::clone(&inner), Text, back);
        let answer = client.request(text).unwrap();
        Some(format!("they say {answer}"))
    };
    net.host(front, ServerCore::new(Text, forward)).unwrap();
    let mut client = Client::new(SimNet::clone(&net), Text, front);
    assert_eq!(client.request("hello").unwrap(), "they say HELLO");
}

// Time.

#[test]
fn invariant_8_virtual_time_begins_in_2000_and_passes_only_while_somebody_waits_for_nothing() {
    let net = SimNet::new();
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
    assert_eq!(net.now(), Timestamp::new(Duration::ZERO, epoch));

    let mut one = net.bind(addr("10.0.0.1:7")).unwrap();
    let mut inbox = Inbox::new(4, 64);
    assert_eq!(one.recv(&mut inbox, Wait::No).unwrap(), 0);
    send(&mut one, addr("10.0.0.1:7"), b"x");
    assert_eq!(
        one.recv(&mut inbox, Wait::For(Duration::from_secs(9)))
            .unwrap(),
        1
    );
    while inbox.pop().is_some() {}
    assert_eq!(net.now().monotonic, Duration::ZERO, "nobody had to wait");

    let year = Duration::from_secs(365 * 86_400);
    assert_eq!(one.recv(&mut inbox, Wait::For(year)).unwrap(), 0);
    assert_eq!(net.now(), Timestamp::new(year, epoch + year));
    // There is one clock.
    assert_eq!(one.now(), net.now());
    assert_eq!(Connect::now(&net.clone()), net.now());
}

#[test]
fn waiting_for_ever_for_nothing_is_an_error() {
    let net = SimNet::new();
    let here = addr("10.0.0.1:7");
    let mut endpoint = net.bind(here).unwrap();
    let mut inbox = Inbox::new(1, 64);
    let error = endpoint.recv(&mut inbox, Wait::Forever).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    send(&mut endpoint, here, b"x");
    assert_eq!(endpoint.recv(&mut inbox, Wait::Forever).unwrap(), 1);
}

#[test]
fn a_server_answers_with_the_time_of_the_network() {
    let net = SimNet::new();
    let there = addr("10.0.0.1:7");
    net.host(there, ServerCore::new(Ctime::utc(), zurich()))
        .unwrap();
    let mut idle = net.bind(addr("10.0.0.9:9")).unwrap();
    let almost_a_day = Duration::from_millis(86_399_999);
    idle.recv(&mut Inbox::new(1, 1), Wait::For(almost_a_day))
        .unwrap();
    let mut client = Client::new(net, Ctime::utc(), there);
    let time = client.request("你好吗？").unwrap().time;
    assert_eq!(time.to_string(), "Sat Jan  1 23:59:59 2000");
}

// The same as on a real network.

/// Answers differently every time, and not always: its answers show any request that was lost,
/// repeated or out of order.
#[derive(Default)]
struct Diary(AtomicU32);

impl<C> Handler<C> for Diary
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn std::fmt::Display>,
{
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        let page = self.0.fetch_add(1, Ordering::Relaxed);
        match request {
            "silence" => Ok(()),
            "long" => reply.send(&"x".repeat(70_000)),
            _ => reply.send(&format_args!("page {page}: {request}")),
        }
    }
}

/// Asks everything and notes what came, without the times.
fn transcript<N: Connect>(mut client: Client<N, Ctime>, requests: &[String]) -> Vec<String> {
    requests
        .iter()
        .map(|request| match client.request(request) {
            Ok(frame) => frame.text.to_owned(),
            Err(RequestError::TimedOut { sends, ignored, .. }) => {
                format!("no answer, {sends} sent, {ignored} ignored")
            }
            Err(other) => other.to_string(),
        })
        .collect()
}

fn same_on_both<H: Handler<Ctime> + Send + Sync + 'static>(
    handler: impl Fn() -> H,
    requests: &[String],
    timeout: Duration,
) {
    // When it is sent again depends on how busy a machine is, and so would the numbers of pages.
    let once = Retry::never();
    let client = Client::builder(Ctime::utc()).timeout(timeout).retry(once);

    let net = SimNet::new();
    let there = addr("10.0.0.1:7");
    let core = Arc::new(Mutex::new(ServerCore::new(Ctime::utc(), handler())));
    net.host(there, Arc::clone(&core)).unwrap();
    let simulated = transcript(client.clone().with_connector(net, there).unwrap(), requests);

    let server = Server::bind("127.0.0.1:0", Ctime::utc()).unwrap();
    let (there, handle) = (server.local_addr().unwrap(), server.handle());
    let handler = handler();
    let thread = thread::spawn(move || server.serve(handler).unwrap());
    let real = transcript(client.connect(there).unwrap(), requests);
    handle.shutdown();
    let real_stats = thread.join().unwrap();

    assert_eq!(simulated, real);
    let simulated_stats = core.lock().unwrap().stats();
    assert_eq!(counters(&simulated_stats), counters(&real_stats));
}

/// All but one: on a real network a signal may come, for example when the tests are suspended.
fn counters(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counters = stats.counters();
    counters
        .filter(|counter| counter.0 != "receive_errors_interrupted")
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn the_same_handler_gives_the_same_transcript_in_memory_and_over_udp() {
    let requests = [
        "one",
        "two",
        "",
        "silence",
        "three",
        "long",
        "[b'Sat Jan  1 00:00:00 2000']x",
        "你好吗？",
        "four",
    ];
    // Silence costs real time on a real network.
    let timeout = Duration::from_secs(1);
    same_on_both(Diary::default, &requests.map(String::from), timeout);
}

/// Failures that were found are kept beside this file, and tried again first.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(20))]

    #[test]
    #[cfg_attr(miri, ignore = "needs a socket")]
    fn the_robot_gives_the_same_transcript_in_memory_and_over_udp(
        requests in prop::collection::vec("你?[我\\PC]{0,12}(吗？)?", 1..20),
    ) {
        same_on_both(zurich, &requests, Duration::from_secs(30));
    }
}

// Groups.

/// Answers with the way that the request came.
struct HowItCame;

impl Handler<Text> for HowItCame {
    fn handle(
        &self,
        _: &str,
        context: &Context,
        reply: &mut Reply<'_, Text>,
    ) -> Result<(), ReplyError> {
        let local = context.local_addr().unwrap();
        reply.send(&format_args!("{:?} {local}", context.delivery))
    }
}

#[test]
fn a_datagram_to_a_group_reaches_its_members_which_answer_from_their_own_addresses() {
    for (group, delivery) in [
        ("239.1.2.3", "Multicast"),
        ("ff02::1", "Multicast"),
        ("10.0.0.255", "Broadcast"),
    ] {
        let net = SimNet::new();
        let group = group.parse().unwrap();
        for host in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            let host = format!("{host}:9999").parse().unwrap();
            net.host(host, Server::builder(Text).core(HowItCame))
                .unwrap();
        }
        // In another order, one of them twice, one that has no socket, and not the third.
        for member in ["10.0.0.2", "10.0.0.1", "10.0.0.4", "10.0.0.2"] {
            net.join_group(group, member.parse().unwrap());
        }
        let mut client = net.bind(addr("10.0.0.9:0")).unwrap();
        send(&mut client, (group, 9999).into(), b"who?");
        let answer = |host: &str| {
            let host = addr(&format!("{host}:9999"));
            (host, format!("{delivery} {host}").into_bytes())
        };
        net.advance(Duration::from_secs(1));
        assert_eq!(
            receive_all(&mut client),
            [answer("10.0.0.2"), answer("10.0.0.1")]
        );

        net.leave_group(group, "10.0.0.2".parse().unwrap());
        send(&mut client, (group, 9999).into(), b"who?");
        net.advance(Duration::from_secs(1));
        assert_eq!(receive_all(&mut client), [answer("10.0.0.1")]);
        // To a machine alone it is an ordinary request.
        send(&mut client, addr("10.0.0.1:9999"), b"who?");
        net.advance(Duration::from_secs(1));
        assert_eq!(receive_all(&mut client)[0].1, b"Unicast 10.0.0.1:9999");
    }
}

#[test]
fn a_group_without_anybody_is_silent_even_where_closed_ports_are_reported() {
    let net = SimNet::new();
    net.set_link(Link::new().port_unreachable(true)).unwrap();
    let group = "239.1.2.3".parse().unwrap();
    let mut client = net.connect(SocketAddr::new(group, 9999)).unwrap();
    send(&mut client, SocketAddr::new(group, 9999), b"who?");
    net.join_group(group, "10.0.0.1".parse().unwrap());
    send(&mut client, SocketAddr::new(group, 9999), b"who?");
    net.advance(Duration::from_secs(1));
    // No error, and nothing else.
    assert_eq!(receive_all(&mut client), []);
    assert_eq!(net.trace().total(), 2);
}
