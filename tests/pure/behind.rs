//! Servers behind proxies: who is seen, who is answered, and what is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::gate::{REFLECTOR_PORTS, RateLimit};
use rejoinder::handler::Dedup;
use rejoinder::proxy::{Header, Proxies, ProxyMode};
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, Meta, Outbox};
use rejoinder::{
    Codec, Context, DropReason, Handler, Reply, ReplyError, Server, ServerBuilder, Timestamp,
    Writer,
};
use std::time::SystemTime;

const PROXY: &str = "10.0.0.9:5000";
const VIP: &str = "198.51.100.1:8888";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::new(Duration::from_secs(seconds), SystemTime::UNIX_EPOCH)
}

fn proxies(mode: ProxyMode) -> Proxies {
    let builder = Proxies::builder(mode).trust("10.0.0.0".parse().unwrap(), 8);
    builder
        .trust("2001:db8::".parse().unwrap(), 32)
        .build()
        .unwrap()
}

fn behind(mode: ProxyMode) -> ServerBuilder<Text> {
    Server::builder(Text).behind(proxies(mode))
}

/// Answers with the peer.
struct Whoami;

impl Handler<Text> for Whoami {
    fn handle(
        &self,
        _: &str,
        context: &Context,
        reply: &mut Reply<'_, Text>,
    ) -> Result<(), ReplyError> {
        reply.send(&context.peer)
    }
}

fn v2(client: &str, payload: &[u8]) -> Vec<u8> {
    [&Header::encode_v2(addr(client), addr(VIP))[..], payload].concat()
}

fn v1(client: &str, payload: &str) -> Vec<u8> {
    let client = addr(client);
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let to = if client.is_ipv4() {
        "198.51.100.1"
    } else {
        "2001:db8::1"
    };
    let (ip, port) = (client.ip(), client.port());
    format!("PROXY {family} {ip} {to} {port} 8888\r\n{payload}").into_bytes()
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The responses to one datagram from a peer: their destinations and bytes.
fn ask<H: Handler<Text>, G: rejoinder::gate::Gate>(
    core: &mut ServerCore<Text, H, G>,
    now: Timestamp,
    from: &str,
    datagram: &[u8],
) -> Vec<(SocketAddr, String)> {
    let (mut inbox, mut outbox) = (Inbox::new(1, 1_200), Outbox::new(16, 1_200));
    inbox.push(datagram, Meta::new(addr(from)));
    core.handle(now, &mut inbox, &mut outbox);
    assert!(core.stats().is_conserved());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    outbox
        .iter()
        .map(|one| (one.peer, text(one.bytes)))
        .collect()
}

fn only_drop<H, G>(core: &ServerCore<Text, H, G>) -> DropReason {
    let stats = core.stats();
    let mut drops = stats.drops().filter(|drop| drop.1 > 0);
    let (reason, count) = drops.next().expect("a drop");
    assert_eq!((count, drops.next()), (1, None));
    reason
}

#[test]
fn the_handler_sees_the_client_and_the_proxy_gets_the_response() {
    for (mode, client) in [
        (ProxyMode::V2, "192.0.2.1:7777"),
        (ProxyMode::V2, "[2001:db8:1::7]:7777"),
        (ProxyMode::V1, "192.0.2.1:7777"),
        (ProxyMode::V1, "[2001:db8:1::7]:7777"),
        (ProxyMode::FirstOfFlow, "192.0.2.1:7777"),
    ] {
        let datagram = match mode {
            ProxyMode::V1 => v1(client, "who?"),
            _ => v2(client, b"who?"),
        };
        for proxy in [PROXY, "[2001:db8::9]:5000"] {
            let mut core = behind(mode).core(Whoami);
            let answers = ask(&mut core, at(0), proxy, &datagram);
            assert_eq!(answers, [(addr(proxy), client.to_owned())], "{mode:?}");
        }
    }
}

#[test]
fn who_is_no_proxy_is_dropped_with_a_header_and_without() {
    for mode in [ProxyMode::V2, ProxyMode::V1, ProxyMode::FirstOfFlow] {
        for datagram in [&b"hello"[..], &v2("192.0.2.1:7", b"hello"), LOCAL] {
            let mut core = behind(mode).core(Whoami);
            assert!(ask(&mut core, at(0), "192.0.2.66:5000", datagram).is_empty());
            assert_eq!(only_drop(&core), DropReason::NotProxied);
        }
    }
}

#[test]
fn a_proxy_without_a_valid_header_is_dropped() {
    for (mode, datagram) in [
        (ProxyMode::V2, b"hello".to_vec()),
        (ProxyMode::V2, v1("192.0.2.1:7", "hello")),
        (ProxyMode::V1, v2("192.0.2.1:7", b"hello")),
        (ProxyMode::V1, b"PROXY TCP4 a b c d\r\nhello".to_vec()),
        (ProxyMode::V2, v2("192.0.2.1:7", b"")[..20].to_vec()),
        (ProxyMode::FirstOfFlow, b"hello".to_vec()),
        (
            ProxyMode::FirstOfFlow,
            b"PROXY TCP4 a b c d\r\nhello".to_vec(),
        ),
    ] {
        let mut core = behind(mode).core(Whoami);
        assert!(ask(&mut core, at(0), PROXY, &datagram).is_empty());
        assert_eq!(
            only_drop(&core),
            DropReason::ProxyHeader,
            "{mode:?} {datagram:?}"
        );
    }
}

#[test]
fn without_proxies_a_header_is_text() {
    let mut core = ServerCore::new(Text, |text: &str| Some(text.len().to_string()));
    let datagram = v1("192.0.2.1:7", "hello");
    let answers = ask(&mut core, at(0), PROXY, &datagram);
    assert_eq!(answers, [(addr(PROXY), datagram.len().to_string())]);
}

#[test]
fn the_first_datagram_of_a_flow_names_the_client_of_the_later_ones() {
    let mut core = behind(ProxyMode::FirstOfFlow).core(Whoami);
    let to = |client: &str| vec![(addr(PROXY), client.to_owned())];
    let first = v1("192.0.2.1:7777", "who?");
    assert_eq!(ask(&mut core, at(0), PROXY, &first), to("192.0.2.1:7777"));
    assert_eq!(
        ask(&mut core, at(20), PROXY, b"and now?"),
        to("192.0.2.1:7777")
    );
    assert_eq!(
        ask(&mut core, at(40), PROXY, b"and now?"),
        to("192.0.2.1:7777")
    );
    // The port is used for another client.
    let next = v2("192.0.2.2:7777", b"who?");
    assert_eq!(ask(&mut core, at(41), PROXY, &next), to("192.0.2.2:7777"));
    assert_eq!(
        ask(&mut core, at(42), PROXY, b"and now?"),
        to("192.0.2.2:7777")
    );
    // Another port is another flow, and one is forgotten after 30 seconds.
    assert!(ask(&mut core, at(42), "10.0.0.9:5001", b"who?").is_empty());
    assert!(ask(&mut core, at(73), PROXY, b"who?").is_empty());
    assert_eq!(core.stats().dropped(DropReason::ProxyHeader), 2);
}

#[test]
fn no_header_of_a_client_makes_its_flow_the_proxys_own() {
    let unknown = b"PROXY UNKNOWN\r\n";
    for forged in [unknown, LOCAL] {
        let limit = RateLimit::builder().responses_per_second(2).key([7; 16]);
        let core = behind(ProxyMode::FirstOfFlow).gate(limit.build().unwrap());
        let mut core = core.core(Whoami);
        let first = v1("192.0.2.1:7777", "who?");
        let to_client = [(addr(PROXY), "192.0.2.1:7777".to_owned())];
        assert_eq!(ask(&mut core, at(0), PROXY, &first), to_client);
        let forged = [forged, &b"who?"[..]].concat();
        for _ in 0..1_000 {
            assert!(ask(&mut core, at(0), PROXY, &forged).is_empty());
        }
        assert_eq!(core.stats().dropped(DropReason::ProxyHeader), 1_000);
        // The flow is still the client's.
        assert_eq!(ask(&mut core, at(1), PROXY, b"who?"), to_client);
        // It did not keep the flow alive either. Then it is answered like the proxy, which has a limit.
        assert!(ask(&mut core, at(31), PROXY, &forged).is_empty());
        let answers: Vec<_> = (0..1_000)
            .flat_map(|_| ask(&mut core, at(40), PROXY, &forged))
            .collect();
        assert!((1..=10).contains(&answers.len()), "{}", answers.len());
        assert!(
            answers
                .iter()
                .all(|one| *one == (addr(PROXY), PROXY.to_owned()))
        );
        // The proxy's own flow may become a client's.
        assert_eq!(ask(&mut core, at(41), PROXY, &first), to_client);
    }
}

#[test]
fn the_checks_of_the_sender_are_those_of_the_client() {
    let own = addr(VIP);
    for (client, reason) in [
        (
            format!("192.0.2.1:{}", REFLECTOR_PORTS[0]),
            DropReason::SourceReflector,
        ),
        ("192.0.2.1:0".to_owned(), DropReason::SourceInvalid),
        ("224.0.0.1:7777".to_owned(), DropReason::SourceInvalid),
        (VIP.to_owned(), DropReason::SourceOwn),
    ] {
        let mut core = behind(ProxyMode::V2).local_addr(own).core(Whoami);
        assert!(ask(&mut core, at(0), PROXY, &v2(&client, b"x")).is_empty());
        assert_eq!(only_drop(&core), reason, "{client}");
    }
    // The proxy's own port does not matter.
    let mut core = behind(ProxyMode::V2).core(Whoami);
    assert_eq!(
        ask(&mut core, at(0), "10.0.0.9:53", &v2("192.0.2.1:7777", b"x")).len(),
        1
    );
}

#[test]
fn four_hundred_clients_behind_one_proxy_have_limits_of_their_own() {
    let limit = || {
        let builder = RateLimit::builder().responses_per_second(2).key([7; 16]);
        builder.build().unwrap()
    };
    let mut core = behind(ProxyMode::V2).gate(limit()).core(Whoami);
    for client in 0..400_u32 {
        let client = format!("100.{}.{}.1:7777", client / 200, client % 200);
        assert_eq!(
            ask(&mut core, at(0), PROXY, &v2(&client, b"x")).len(),
            1,
            "{client}"
        );
    }
    // Each has its own, and none more than that.
    let client = v2("100.0.0.1:7777", b"x");
    let answered = (0..10).filter(|_| !ask(&mut core, at(0), PROXY, &client).is_empty());
    assert_eq!(answered.count(), 1);
    // The proxy's health checks have no limit.
    for _ in 0..100 {
        let answers = ask(&mut core, at(0), PROXY, LOCAL);
        assert_eq!(answers, [(addr(PROXY), PROXY.to_owned())]);
    }
}

#[test]
fn a_request_may_have_its_whole_limit_beside_the_header() {
    let core = |bytes| {
        let builder = behind(ProxyMode::V2).max_request_bytes(bytes);
        builder.core(|text: &str| Some(text.len().to_string()))
    };
    let request = [b'x'; 100];
    assert_eq!(
        ask(&mut core(100), at(0), PROXY, &v2("192.0.2.1:7", &request)).len(),
        0
    );
    let datagram = v2("192.0.2.1:7777", &request);
    assert_eq!(
        ask(&mut core(100), at(0), PROXY, &datagram),
        [(addr(PROXY), "100".to_owned())]
    );
    let mut small = core(99);
    assert!(ask(&mut small, at(0), PROXY, &datagram).is_empty());
    assert_eq!(only_drop(&small), DropReason::Truncated);
}

#[test]
fn dedup_tells_the_clients_of_one_proxy_apart() {
    let counted = std::sync::atomic::AtomicU32::new(0);
    let count = |_: &str| {
        let count = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(count.to_string())
    };
    let handler = Dedup::new(count, |text: &&str| Some((*text).to_owned()));
    let mut core = behind(ProxyMode::V2).core(handler);
    let mut ask = |client| {
        ask(&mut core, at(0), PROXY, &v2(client, b"same"))[0]
            .1
            .clone()
    };
    assert_eq!(ask("192.0.2.1:7777"), "0");
    assert_eq!(ask("192.0.2.1:7777"), "0");
    assert_eq!(ask("192.0.2.2:7777"), "1");
}

/// Requests and responses begin with their mark; a malformed datagram is repeated as a response, as far as there is
/// room, and with as many bytes more as its last byte says.
struct Repeats;

#[derive(Debug)]
struct NoText;

impl std::fmt::Display for NoText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no text")
    }
}

impl std::error::Error for NoText {}

impl Codec for Repeats {
    type Request<'a> = ();
    type Response<'a> = ();
    type Answer<'a> = ();
    type Error = NoText;

    fn decode_request(&self, _: &[u8]) -> Result<(), NoText> {
        Err(NoText)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        (): (),
        _: &mut Writer<'_>,
    ) -> Result<(), NoText> {
        Err(NoText)
    }
    fn encode_request(&self, _: u64, (): (), _: &mut Writer<'_>) -> Result<(), NoText> {
        Err(NoText)
    }
    fn decode_response(&self, _: &[u8]) -> Result<(), NoText> {
        Ok(())
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.starts_with(b"!")
    }
    fn encode_rejection(&self, datagram: &[u8], _: &NoText, out: &mut Writer<'_>) {
        let (more, rest) = datagram.split_last().unwrap();
        out.put(b"!");
        out.put(rest);
        out.put(&vec![b'x'; (more - b'0').into()]);
    }
}

/// Neither the header's bytes nor those of the proxy count: a rejection is never longer than what the client sent.
#[test]
fn a_rejection_goes_to_the_proxy_and_is_no_longer_than_what_came_behind_the_header() {
    for (datagram, expected) in [
        (&b"?abc0"[..], Some(&b"!?abc"[..])),
        // One byte longer than the client's datagram; the header would have had room for it.
        (b"?abc1", None),
        (b"?abc9", None),
    ] {
        for (mode, whole) in [
            (ProxyMode::V2, v2("192.0.2.1:7777", datagram)),
            (
                ProxyMode::V1,
                v1("192.0.2.1:7777", str::from_utf8(datagram).unwrap()),
            ),
        ] {
            let mut core = Server::builder(Repeats).behind(proxies(mode)).core(|()| ());
            let (mut inbox, mut outbox) = (Inbox::new(1, 1_200), Outbox::new(16, 1_200));
            inbox.push(&whole, Meta::new(addr(PROXY)));
            core.handle(at(0), &mut inbox, &mut outbox);
            let sent: Vec<_> = outbox.iter().map(|one| (one.peer, one.bytes)).collect();
            let expected: Vec<_> = expected
                .map(|bytes| (addr(PROXY), bytes))
                .into_iter()
                .collect();
            assert_eq!(sent, expected, "{mode:?}");
            let stats = core.stats();
            assert!(stats.is_conserved());
            assert_eq!(stats.dropped(DropReason::Malformed), 1);
            assert_eq!(stats.rejected, sent.len() as u64);
        }
    }
}

#[test]
fn a_deferred_request_is_answered_through_the_proxy() {
    let proxies = proxies(ProxyMode::V2);
    let mut core = Server::builder(Tagged(Text)).behind(proxies).core(());
    let (mut inbox, mut outbox) = (Inbox::new(4, 1_200), Outbox::new(16, 1_200));
    inbox.push(b"no header", Meta::new(addr(PROXY)));
    inbox.push(
        &v2("192.0.2.1:7777", b"?12345678hello"),
        Meta::new(addr(PROXY)),
    );
    let mut keep = Vec::new();
    let deferred = core
        .defer_next(at(0), at(0), &mut inbox, &mut outbox, &mut keep)
        .expect("one");
    assert_eq!(keep, b"?12345678hello");
    assert_eq!(deferred.context().peer, addr("192.0.2.1:7777"));
    core.answer_deferred(at(1), deferred, &keep, &mut outbox, |reply| {
        reply.send(&"hi")
    });
    let sent: Vec<_> = outbox.iter().map(|one| (one.peer, one.bytes)).collect();
    assert_eq!(sent, [(addr(PROXY), &b"!12345678hi"[..])]);
    let stats = core.stats();
    assert!(stats.is_conserved());
    assert_eq!(
        (stats.replied, stats.dropped(DropReason::ProxyHeader)),
        (1, 1)
    );
}

#[test]
fn a_response_names_the_association_of_the_proxy_at_once_and_deferred() {
    let meta = |association: u32| {
        let mut meta = Meta::new(addr(PROXY));
        meta.association = association;
        meta
    };
    let mut core = behind(ProxyMode::FirstOfFlow).core(Whoami);
    let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    inbox.push(&v2("192.0.2.1:7000", b"?"), meta(5));
    inbox.push(b"again", meta(5));
    // Another proxy has the address: the client of the former one is not its client.
    inbox.push(b"again", meta(6));
    core.handle(at(1), &mut inbox, &mut outbox);
    let sent: Vec<_> = outbox.iter().map(|one| (one.peer, one.egress)).collect();
    let expected = (addr(PROXY), meta(5).egress());
    assert_eq!(sent, [expected, expected]);
    assert_eq!(core.stats().dropped(DropReason::ProxyHeader), 1);

    outbox.clear();
    inbox.push(b"again", meta(5));
    let mut keep = Vec::new();
    let deferred = core.defer_next(at(2), at(2), &mut inbox, &mut outbox, &mut keep);
    let deferred = deferred.expect("a request");
    assert_eq!(deferred.context().association, 5);
    core.answer_deferred(at(3), deferred, &keep, &mut outbox, |reply| {
        reply.send(&"one")?;
        reply.send(&"two")
    });
    let sent: Vec<_> = outbox.iter().map(|one| one.egress.association).collect();
    assert_eq!(sent, [5, 5]);
}
