//! A client's sockets in a world that changes: they are replaced, kept, and not missed.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet, SimTransport};
use rejoinder::transport::{Connect, Datagram, Inbox, LocalPort, Outbox, SendReport};
use rejoinder::{Client, ClientBuilder, Codec, RequestError, Retry, Timestamp, Transport, Wait};

use super::client_core::Bits;

fn server() -> SocketAddr {
    "10.0.0.1:9999".parse().unwrap()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn upper<C>(net: &SimNet, codec: C)
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn std::fmt::Display>
        + Send
        + 'static,
{
    let core = ServerCore::new(codec, |text: &str| Some(text.to_uppercase()));
    net.host(server(), core).unwrap();
}

/// What has become of a socket.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The OS refuses to send: the socket's address is no longer the machine's.
    Refused(i32),
    /// What is sent leaves and never arrives: a dead entry of a NAT.
    Swallowed,
    /// The first so many sends fail by the report on an earlier datagram.
    Reported(usize),
    /// The process is stopped for a minute while it waits.
    Stopped,
}

/// Sockets of which those with a number below `troubled` have trouble, once that has begun.
#[derive(Clone)]
struct Ageing {
    net: SimNet,
    trouble: Trouble,
    troubled: usize,
    has_begun: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    /// The ports of those that are open, and of all there were.
    open: Arc<Mutex<BTreeSet<u16>>>,
    ports: Arc<Mutex<BTreeSet<u16>>>,
}

struct Socket {
    transport: SimTransport,
    trouble: Option<(Trouble, Arc<AtomicBool>)>,
    net: SimNet,
    open: Arc<Mutex<BTreeSet<u16>>>,
}

impl Ageing {
    fn new(net: &SimNet, trouble: Trouble, troubled: usize) -> Self {
        Self {
            net: net.clone(),
            trouble,
            troubled,
            has_begun: Arc::default(),
            opened: Arc::default(),
            open: Arc::default(),
            ports: Arc::default(),
        }
    }

    fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self) -> usize {
        self.open.lock().unwrap().len()
    }
}

impl Connect for Ageing {
    type Transport = Socket;

    fn connect(&self, peer: SocketAddr) -> io::Result<Socket> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let transport = self.net.connect(peer)?;
        let port = transport.local_addr()?.port();
        self.open.lock().unwrap().insert(port);
        self.ports.lock().unwrap().insert(port);
        let has_trouble = number < self.troubled;
        Ok(Socket {
            transport,
            trouble: has_trouble.then(|| (self.trouble, Arc::clone(&self.has_begun))),
            net: self.net.clone(),
            open: Arc::clone(&self.open),
        })
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.net.entropy(bytes)
    }

    fn wait_any(&self, all: &[&Socket], wait: Wait, ready: &mut Vec<usize>) -> io::Result<()> {
        let all: Vec<_> = all.iter().map(|socket| &socket.transport).collect();
        self.net.wait_any(&all, wait, ready)
    }
}

impl Transport for Socket {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        if let Some((Trouble::Stopped, has_begun)) = &self.trouble
            && wait != Wait::No
            && has_begun.swap(false, Ordering::Relaxed)
        {
            self.net.advance(secs(60));
            return self.transport.recv(inbox, Wait::No);
        }
        self.transport.recv(inbox, wait)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let Some((trouble, has_begun)) = &mut self.trouble else {
            return self.transport.send(outbox);
        };
        if !has_begun.load(Ordering::Relaxed) {
            return self.transport.send(outbox);
        }
        match trouble {
            Trouble::Refused(code) => {
                let mut report = SendReport::default();
                for _ in outbox.iter() {
                    report.record_failure(io::Error::from_raw_os_error(*code));
                }
                report
            }
            Trouble::Reported(times) if *times > 0 => {
                *times -= 1;
                let mut report = SendReport::default();
                // As a batch of segments fails: all of it, by one error.
                for _ in outbox.iter() {
                    report.record_failure(io::ErrorKind::ConnectionRefused.into());
                }
                report
            }
            Trouble::Reported(_) | Trouble::Stopped => self.transport.send(outbox),
            Trouble::Swallowed => SendReport::accepted(outbox.len()),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.transport.local_addr()
    }

    fn now(&self) -> Timestamp {
        self.transport.now()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let port = self.transport.local_addr().unwrap().port();
        self.open.lock().unwrap().remove(&port);
    }
}

// Sockets that are of no use any more.

#[test]
fn a_socket_that_the_os_refuses_to_send_on_is_replaced_at_once() {
    // ENETUNREACH, EADDRNOTAVAIL, EINVAL, EPERM.
    for code in [101, 99, 22, 1] {
        let net = SimNet::new();
        upper(&net, Tagged(Text));
        let sockets = Ageing::new(&net, Trouble::Refused(code), 1);
        let mut client = Client::new(sockets.clone(), Tagged(Text), server());
        assert_eq!(client.request("before").unwrap(), "BEFORE");
        sockets.begin();
        for _ in 0..3 {
            assert_eq!(client.request("after").unwrap(), "AFTER");
        }
        assert_eq!(net.now().monotonic, Duration::ZERO, "error {code}");
        assert_eq!(sockets.opened(), 2);
    }
}

#[test]
fn many_requests_on_a_socket_that_is_refused_move_to_another_together() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Refused(99), 1);
    let mut client = Client::new(sockets.clone(), Tagged(Text), server());
    client.request("before").unwrap();
    sockets.begin();
    for _ in 0..200 {
        client.submit("after").unwrap();
    }
    for _ in 0..200 {
        assert_eq!(client.collect(Wait::Forever).unwrap().1.unwrap(), "AFTER");
    }
    assert_eq!(net.now().monotonic, Duration::ZERO);
    assert_eq!(sockets.opened(), 2);
}

#[test]
fn a_request_with_a_socket_of_its_own_moves_to_another_when_it_is_refused_midway() {
    let net = SimNet::scripted(0, "1 lose".parse().unwrap());
    upper(&net, Text);
    let sockets = Ageing::new(&net, Trouble::Refused(22), 1);
    let mut client = Client::new(sockets.clone(), Text, server());
    client.submit("moved").unwrap();
    assert!(client.collect(Wait::No).is_none());
    sockets.begin();
    assert_eq!(client.collect(Wait::Forever).unwrap().1.unwrap(), "MOVED");
    assert!(
        net.now().monotonic < ms(1_500),
        "with its first retransmission"
    );
    assert_eq!(sockets.opened(), 2);
}

/// A firewall, say: then no other socket helps, and there is no end of them.
#[test]
fn an_error_that_another_socket_does_not_help_against_costs_one_for_each_send() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Refused(1), usize::MAX);
    let mut client = Client::new(sockets.clone(), Tagged(Text), server());
    client.request("before").unwrap();
    sockets.begin();
    let error = client.request("after").unwrap_err();
    assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
    assert_eq!(net.now().monotonic, secs(5));
    // Each of the five sends finds the last one broken, and tries one more.
    assert_eq!(sockets.opened(), 6);
}

#[test]
fn the_request_that_meets_a_socket_without_answers_is_answered_on_another() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Swallowed, 1);
    let mut client = Client::new(sockets.clone(), Tagged(Text), server());
    client.request("before").unwrap();
    sockets.begin();
    for _ in 0..20 {
        assert_eq!(client.request("after").unwrap(), "AFTER");
    }
    assert!(net.now().monotonic < secs(5), "only the first had to wait");
    assert_eq!(sockets.opened(), 2);
}

#[test]
fn without_retransmissions_a_socket_without_answers_is_replaced_after_two_requests() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Swallowed, 1);
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::never())
        .with_connector(sockets.clone(), server())
        .unwrap();
    client.request("before").unwrap();
    net.advance(ms(1));
    sockets.begin();
    for is_answered in [false, false, true, true] {
        assert_eq!(client.request("after").is_ok(), is_answered);
    }
    assert_eq!(sockets.opened(), 2);
}

#[test]
fn a_server_that_is_down_does_not_use_up_the_ports() {
    let net = SimNet::new();
    let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
    let mut client = Client::builder(Tagged(Text))
        .timeout(ms(100))
        .with_connector(sockets.clone(), server())
        .unwrap();
    // For ten minutes.
    for _ in 0..6_000 {
        client.request("there?").unwrap_err();
    }
    // After 1, 2, 4, 8, 16 and 32 seconds, and then every 32 seconds.
    let opened = sockets.opened();
    assert!((10..=30).contains(&opened), "{opened}");
    assert!(sockets.open() <= 10);
    upper(&net, Tagged(Text));
    assert_eq!(client.request("there?").unwrap(), "THERE?");
}

#[test]
fn a_response_on_the_old_socket_is_still_accepted() {
    // The first send arrives late: when the third has left from another socket, and was lost.
    let net = SimNet::scripted(0, "1 delay 4500ms, 2 lose, 3 lose".parse().unwrap());
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
    let mut client = Client::new(sockets.clone(), Tagged(Text), server());
    assert_eq!(client.request("late").unwrap(), "LATE");
    assert_eq!(net.now().monotonic, ms(4_500));
    assert_eq!(sockets.opened(), 2);
}

#[test]
fn requests_share_a_port_for_some_minutes_only() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
    let mut client = Client::new(sockets.clone(), Tagged(Text), server());
    // An hour, with a request each second.
    for _ in 0..3_600 {
        client.request("again").unwrap();
        net.advance(secs(1));
    }
    assert_eq!(sockets.opened(), 12);
    assert_eq!(sockets.open(), 1, "the cooldown of the last one is over");
}

#[test]
fn a_port_of_its_own_for_each_request_or_each_send() {
    let ports = |builder: ClientBuilder<Tagged<Text>>| {
        let net = SimNet::scripted(0, "1 lose, 2 lose".parse().unwrap());
        upper(&net, Tagged(Text));
        let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
        let mut client = builder.with_connector(sockets.clone(), server()).unwrap();
        for _ in 0..3 {
            assert_eq!(client.request("x").unwrap(), "X");
        }
        sockets.ports.lock().unwrap().len()
    };
    let with = |port| {
        let builder = Client::builder(Tagged(Text)).timeout(secs(60));
        ports(builder.local_port(port))
    };
    assert_eq!(with(LocalPort::Kept), 1);
    assert_eq!(with(LocalPort::Renewed), 2); // two sends in a row were lost
    assert_eq!(with(LocalPort::PerRequest), 3);
    assert_eq!(with(LocalPort::PerSend), 5);
}

#[test]
fn a_port_that_is_to_be_kept_is_kept_but_for_errors() {
    let net = SimNet::new();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Refused(22), 1);
    let mut client = Client::builder(Tagged(Text))
        .local_port(LocalPort::Kept)
        .with_connector(sockets.clone(), server())
        .unwrap();
    for _ in 0..100 {
        client.request("x").unwrap();
        net.advance(secs(60));
        net.partition(server().ip(), "10.255.255.254".parse().unwrap());
        client.request("x").unwrap_err();
        net.heal(server().ip(), "10.255.255.254".parse().unwrap());
    }
    assert_eq!(sockets.opened(), 1);
    sockets.begin();
    assert_eq!(client.request("x").unwrap(), "X");
    assert_eq!(sockets.opened(), 2);
}

// Several addresses.

#[test]
fn a_request_moves_to_the_next_address_if_one_refuses_it_or_does_not_respond() {
    for (with_ids, refuses) in [(true, true), (true, false), (false, true), (false, false)] {
        let net = SimNet::new();
        net.set_link(Link::new().port_unreachable(refuses)).unwrap();
        if with_ids {
            upper(&net, Tagged(Text));
            moves(&net, Tagged(Text), refuses);
        } else {
            upper(&net, Text);
            moves(&net, Text, refuses);
        }
    }
}

fn moves<C>(net: &SimNet, codec: C, refuses: bool)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let down = "10.0.0.9:9999".parse().unwrap();
    let mut client = Client::builder(codec)
        .other_peers([server()])
        .with_connector(net.clone(), down)
        .unwrap();
    assert_eq!(client.request("x").unwrap(), "X");
    let first = net.now().monotonic;
    assert_eq!(first.is_zero(), refuses);
    assert!(first < secs(5));
    // The next begin there.
    for _ in 0..100 {
        client.submit("y").unwrap();
    }
    while let Some((_, result)) = client.collect(Wait::Forever) {
        assert_eq!(result.unwrap(), "Y");
    }
    assert_eq!(net.now().monotonic, first);
}

#[test]
fn when_all_addresses_refuse_the_error_names_the_last() {
    let net = SimNet::new();
    net.set_link(Link::new().port_unreachable(true)).unwrap();
    let addrs: [SocketAddr; 3] =
        ["10.0.0.7:1", "10.0.0.8:1", "10.0.0.9:1"].map(|addr| addr.parse().unwrap());
    for fails in [true, false] {
        let mut client = Client::builder(Tagged(Text))
            .fail_when_unreachable(fails)
            .other_peers([addrs[1], addrs[2]])
            .with_connector(net.clone(), addrs[0])
            .unwrap();
        let begun = net.now().monotonic;
        let error = client.request("x").unwrap_err();
        let took = net.now().monotonic.saturating_sub(begun);
        let RequestError::NobodyListening { peer } = error else {
            panic!("{error:?}");
        };
        if fails {
            assert_eq!((peer, took), (addrs[2], Duration::ZERO));
        } else {
            assert_eq!(took, secs(5));
        }
    }
}

#[test]
fn an_address_to_which_no_socket_can_be_opened_is_passed_over() {
    /// A machine without IPv6.
    struct V4(SimNet);

    impl Connect for V4 {
        type Transport = SimTransport;

        fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
            match peer {
                SocketAddr::V4(_) => self.0.connect(peer),
                // EAFNOSUPPORT
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(97)),
            }
        }
        fn now(&self) -> Timestamp {
            self.0.now()
        }
    }

    let net = SimNet::new();
    upper(&net, Text);
    let mut client = Client::builder(Text)
        .other_peers([server()])
        .with_connector(V4(net.clone()), "[fd00::1]:9999".parse().unwrap())
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.request("x").unwrap(), "X");
    }
    assert_eq!(net.now().monotonic, Duration::ZERO);
}

#[test]
fn invariant_6_another_address_of_the_server_cannot_answer_for_the_one_asked() {
    let net = Arc::new(SimNet::new());
    let wire = Arc::downgrade(&net);
    let other: SocketAddr = "10.0.0.2:9999".parse().unwrap();
    net.host(
        server(),
        move |_: Timestamp, question: Datagram<'_>, _: &mut Outbox| {
            wire.upgrade()
                .unwrap()
                .inject(other, question.meta.peer, b"forged");
        },
    )
    .unwrap();
    let mut client = Client::builder(Text)
        .other_peers([other])
        .retry(Retry::never())
        .with_connector(SimNet::clone(&net), server())
        .unwrap();
    client.request("x").unwrap_err();
    assert_eq!(client.ignored(), 1);
}

// Ids and ports that run out.

/// How many of so many requests, one every so often, are answered; and the most sockets at a time.
fn answered(bits: u32, requests: usize, every: Duration) -> (usize, usize) {
    let net = SimNet::new();
    net.host(
        server(),
        |_: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            let pushed = outbox.push(question.meta.peer, None, question.bytes);
            pushed.unwrap();
        },
    )
    .unwrap();
    let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
    let mut client = Client::new(sockets.clone(), Bits(bits), server());
    let mut most = 0;
    let answered = (0..requests)
        .filter(|_| {
            net.advance(every);
            most = most.max(sockets.open());
            client.request(()).is_ok()
        })
        .count();
    (answered, most)
}

#[test]
fn eight_bits_of_id_last_for_five_hundred_requests_a_second() {
    let requests = if cfg!(miri) { 600 } else { 130_000 };
    let (answered, most) = answered(8, requests, ms(2));
    assert_eq!(answered, requests);
    assert!(most <= 512, "{most} sockets");
}

#[test]
fn sixteen_bits_of_id_last_for_fifty_thousand_requests_a_second() {
    // What a second of this needs: see the arithmetic of the whole in the core's test of ids.
    let requests = if cfg!(miri) { 600 } else { 200_000 };
    let (answered, most) = answered(16, requests, Duration::from_micros(20));
    assert_eq!(answered, requests);
    // 57,344 requests on each: in 202 seconds, 177 sockets.
    assert_eq!(most, requests.div_ceil(57_344).max(1));
}

// Errors that are about another datagram.

#[test]
fn the_report_on_an_earlier_datagram_costs_no_request_its_first_send() {
    for (requests, with_ids) in [(1, false), (1, true), (200, false), (200, true)] {
        let net = SimNet::new();
        let sockets = Ageing::new(&net, Trouble::Reported(1), usize::MAX);
        sockets.begin();
        if with_ids {
            upper(&net, Tagged(Text));
            all_at_once(&net, Tagged(Text), sockets, requests);
        } else {
            upper(&net, Text);
            all_at_once(&net, Text, sockets, requests);
        }
    }
}

fn all_at_once<C>(net: &SimNet, codec: C, sockets: Ageing, requests: usize)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let mut client = Client::builder(codec)
        .fail_when_unreachable(true)
        .with_connector(sockets, server())
        .unwrap();
    for _ in 0..requests {
        client.submit("x").unwrap();
    }
    for _ in 0..requests {
        assert_eq!(client.collect(Wait::Forever).unwrap().1.unwrap(), "X");
    }
    assert_eq!(net.now().monotonic, Duration::ZERO);
}

#[test]
fn an_error_of_the_second_attempt_is_the_requests_own() {
    let net = SimNet::new();
    upper(&net, Text);
    let sockets = Ageing::new(&net, Trouble::Reported(2), usize::MAX);
    sockets.begin();
    let mut client = Client::builder(Text)
        .fail_when_unreachable(true)
        .with_connector(sockets, server())
        .unwrap();
    let error = client.request("x").unwrap_err();
    assert!(
        matches!(error, RequestError::NobodyListening { .. }),
        "{error:?}"
    );
    assert_eq!(net.now().monotonic, Duration::ZERO);
}

#[test]
fn a_send_that_finds_no_buffer_is_tried_again_soon_and_not_counted() {
    // EAGAIN and ENOBUFS.
    for code in [11, 105] {
        let net = SimNet::new();
        upper(&net, Text);
        let sockets = Ageing::new(&net, Trouble::Refused(code), usize::MAX);
        sockets.begin();
        let mut client = Client::builder(Text)
            .timeout(ms(500))
            .with_connector(sockets.clone(), server())
            .unwrap();
        client.submit("x").unwrap();
        assert!(client.collect(Wait::For(ms(100))).is_none());
        sockets.has_begun.store(false, Ordering::Relaxed);
        assert_eq!(client.collect(Wait::Forever).unwrap().1.unwrap(), "X");
        assert!(net.now().monotonic <= ms(100 + 64));

        // At the deadline it is over.
        sockets.begin();
        let before = net.now().monotonic;
        let error = client.request("x").unwrap_err();
        assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
        assert_eq!(net.now().monotonic.saturating_sub(before), ms(500));
    }
}

// Callers that come late.

#[test]
fn a_response_that_came_in_time_is_returned_however_late_it_is_collected() {
    for with_ids in [false, true] {
        let net = SimNet::new();
        net.set_link(Link::new().latency(secs(1))).unwrap();
        if with_ids {
            upper(&net, Tagged(Text));
            collected_late(&net, Tagged(Text));
        } else {
            upper(&net, Text);
            collected_late(&net, Text);
        }
    }
}

fn collected_late<C>(net: &SimNet, codec: C)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let mut client = Client::builder(codec)
        .retry(Retry::never())
        .with_connector(net.clone(), server())
        .unwrap();
    for _ in 0..200 {
        client.submit("x").unwrap();
    }
    assert!(client.collect(Wait::No).is_none(), "it is sent");
    // The caller is busy.
    net.advance(secs(60));
    for _ in 0..200 {
        assert_eq!(client.collect(Wait::No).unwrap().1.unwrap(), "X");
    }
    // And a request meanwhile changes nothing.
    client.submit("old").unwrap();
    assert!(client.collect(Wait::No).is_none());
    net.advance(secs(60));
    assert_eq!(client.request("new").unwrap(), "NEW");
    assert_eq!(client.collect(Wait::No).unwrap().1.unwrap(), "OLD");
}

#[test]
fn a_response_that_came_in_time_is_returned_by_a_process_that_was_stopped() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(secs(1))).unwrap();
    upper(&net, Tagged(Text));
    let sockets = Ageing::new(&net, Trouble::Stopped, 1);
    sockets.begin();
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::never())
        .with_connector(sockets, server())
        .unwrap();
    // More than one batch.
    for _ in 0..200 {
        client.submit("x").unwrap();
    }
    while let Some((_, result)) = client.collect(Wait::Forever) {
        assert_eq!(result.unwrap(), "X");
    }
    assert_eq!(net.now().monotonic, secs(60));
}

// After an outage.

#[test]
fn an_idle_client_gives_its_sockets_back() {
    let net = SimNet::new();
    let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
    let mut client = Client::builder(Text)
        .timeout(ms(100))
        .with_connector(sockets.clone(), server())
        .unwrap();
    for _ in 0..500 {
        client.request("up?").unwrap_err();
    }
    assert_eq!(sockets.open(), 500);
    net.advance(secs(3_600));
    assert!(client.collect(Wait::No).is_none());
    assert_eq!(sockets.open(), 0);
}

#[test]
fn the_return_of_a_server_is_seen_at_the_next_probe() {
    for every in [ms(250), ms(50)] {
        let net = SimNet::new();
        let sockets = Ageing::new(&net, Trouble::Swallowed, 0);
        let mut client = Client::builder(Text)
            .timeout(ms(40))
            .with_connector(sockets.clone(), server())
            .unwrap();
        // For five minutes.
        let probes = 300_000 / u32::try_from(every.as_millis()).unwrap();
        for _ in 0..probes {
            let error = client.request("up?").unwrap_err();
            assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
            net.advance(every.saturating_sub(ms(40)));
        }
        assert!(sockets.open() <= 513);
        upper(&net, Text);
        assert_eq!(client.request("up?").unwrap(), "UP?");
    }
}

// Timeouts that follow the network.

/// The times that so many requests take, sorted, and how many datagrams there were.
fn times(retry: Retry, link: Link, requests: usize) -> (Vec<Duration>, u64) {
    let net = SimNet::seeded(42);
    net.set_link(link).unwrap();
    upper(&net, Tagged(Text));
    let mut client = Client::builder(Tagged(Text))
        .retry(retry)
        .timeout(secs(30))
        .with_connector(net.clone(), server())
        .unwrap();
    let mut times = Vec::new();
    for _ in 0..requests {
        let begun = net.now().monotonic;
        assert_eq!(client.request("x").unwrap(), "X");
        times.push(net.now().monotonic.saturating_sub(begun));
    }
    times.sort_unstable();
    (times, net.trace().total())
}

#[test]
#[cfg_attr(miri, ignore = "a percentile needs many requests")]
fn the_first_timeout_follows_the_round_trip_time() {
    let link = || Link::new().latency(ms(10)).loss(0.05);
    let requests = 10_000;
    let fixed = Retry::new().initial(secs(1));
    let (fixed_times, fixed_datagrams) = times(fixed, link(), requests);
    let (times, datagrams) = times(Retry::new(), link(), requests);
    let p99 = requests * 99 / 100;
    assert!(
        times[p99] * 4 < fixed_times[p99],
        "{:?} {:?}",
        times[p99],
        fixed_times[p99]
    );
    assert!(
        datagrams * 10 <= fixed_datagrams * 11,
        "{datagrams} {fixed_datagrams}"
    );
}

#[test]
fn a_slow_network_is_not_flooded_with_retransmissions() {
    let slow = Link::new().latency(ms(1_500));
    let (_, datagrams) = times(Retry::new(), slow, 50);
    // 100, and what it takes to learn that two seconds are too short.
    assert!(datagrams <= 106, "{datagrams}");

    // Many at a time learn it together.
    let net = SimNet::seeded(1);
    net.set_link(slow).unwrap();
    upper(&net, Tagged(Text));
    let mut client = Client::builder(Tagged(Text))
        .timeout(secs(30))
        .with_connector(net.clone(), server())
        .unwrap();
    for _ in 0..20 {
        for _ in 0..100 {
            client.submit("x").unwrap();
        }
        while let Some((_, result)) = client.collect(Wait::Forever) {
            result.unwrap();
        }
    }
    let datagrams = net.trace().total();
    assert!(datagrams <= 4_000 + 600, "{datagrams}");
}
