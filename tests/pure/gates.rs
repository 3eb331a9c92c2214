//! What a server drops before it parses anything, and what it does not let out.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rejoinder::codec::{Ctime, Text, TextError};
use rejoinder::gate::{AmplificationLimit, Gate, REFLECTOR_PORTS, RateLimit, ResponseSize};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::transport::{Datagram, Inbox, Meta, Outbox};
use rejoinder::{
    Codec, Context, DropReason, Handler, Reply, ReplyError, Server, ServerBuilder, Stats,
    Timestamp, Transport, Wait, Writer,
};
use rejoinder_test_support::robot;

fn at(millis: u64) -> Timestamp {
    Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH)
}

fn client() -> SocketAddr {
    "192.0.2.1:50000".parse().unwrap()
}

/// Lets one datagram through a core and returns the replies.
fn ask<C: Codec, H: Handler<C>, G: Gate>(
    core: &mut ServerCore<C, H, G>,
    now: Timestamp,
    bytes: &[u8],
    meta: Meta,
) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::new(1, 1_024);
    let mut outbox = Outbox::new(MAX_RESPONSES, 1_024);
    inbox.push(bytes, meta);
    core.handle(now, &mut inbox, &mut outbox);
    assert!(core.stats().is_conserved());
    outbox.iter().map(|reply| reply.bytes.to_vec()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "a handler that may be silent")]
fn echo(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The one reason for which a core dropped something.
fn only_drop(stats: &Stats) -> DropReason {
    let happened: Vec<_> = stats.drops().filter(|&(_, count)| count > 0).collect();
    let [(reason, 1)] = happened[..] else {
        panic!("exactly one drop: {happened:?}")
    };
    reason
}

#[test]
fn a_source_that_no_client_has_is_never_answered() {
    let own: SocketAddr = "198.51.100.1:9999".parse().unwrap();
    for (peer, reason) in [
        ("192.0.2.1:0", DropReason::SourceInvalid),
        ("255.255.255.255:50000", DropReason::SourceInvalid),
        ("224.0.0.251:50000", DropReason::SourceInvalid),
        ("[ff02::fb]:50000", DropReason::SourceInvalid),
        ("0.0.0.0:50000", DropReason::SourceInvalid),
        ("0.1.2.3:50000", DropReason::SourceInvalid),
        ("[::]:50000", DropReason::SourceInvalid),
        ("192.0.2.1:19", DropReason::SourceReflector),
        ("192.0.2.1:11211", DropReason::SourceReflector),
        ("198.51.100.1:9999", DropReason::SourceOwn),
    ] {
        let mut core = Server::builder(Text).local_addr(own).core(echo);
        let replies = ask(&mut core, at(0), b"x", Meta::new(peer.parse().unwrap()));
        assert!(replies.is_empty(), "{peer}");
        assert_eq!(only_drop(&core.stats()), reason, "{peer}");
    }
}

#[test]
fn a_reserved_address_is_one_of_a_host() {
    let mut core = Server::builder(Text).core(echo);
    let meta = Meta::new("240.0.0.1:50000".parse().unwrap());
    assert_eq!(ask(&mut core, at(0), b"x", meta).len(), 1);
}

#[test]
fn a_server_that_can_tell_its_own_addresses_answers_its_port_on_other_machines() {
    for bound in ["0.0.0.0:9999", "[::]:9999"] {
        for (peer, answers) in [
            ("192.0.2.1:9999", 0),
            ("192.0.2.2:9999", 1),
            ("[2001:db8::1]:9999", 0),
            ("[2001:db8::2]:9999", 1),
        ] {
            let mut core = Server::builder(Text)
                .local_addr(bound.parse().unwrap())
                .core(echo);
            core.set_is_local_ip(|addr| addr.ip().to_string().ends_with('1'));
            let meta = Meta::new(peer.parse().unwrap());
            assert_eq!(ask(&mut core, at(0), b"x", meta).len(), answers, "{peer}");
        }
    }
}

#[test]
fn a_server_on_every_address_that_cannot_tell_its_own_never_answers_its_port() {
    for bound in ["0.0.0.0:9999", "[::]:9999"] {
        for (peer, local) in [
            ("127.0.0.2:9999", Some("127.0.0.3")),
            ("127.0.0.2:9999", Some("127.0.0.2")),
            ("127.0.0.2:9999", None),
            ("[2001:db8::1]:9999", Some("2001:db8::2")),
        ] {
            let mut core = Server::builder(Text)
                .local_addr(bound.parse().unwrap())
                .core(echo);
            let mut meta = Meta::new(peer.parse().unwrap());
            meta.local = local.map(|local| local.parse().unwrap());
            assert!(ask(&mut core, at(0), b"x", meta).is_empty());
            assert_eq!(only_drop(&core.stats()), DropReason::SourceOwn);
            meta.peer.set_port(9_998);
            assert_eq!(ask(&mut core, at(0), b"x", meta).len(), 1);
        }
    }
    // It may have several addresses.
    let both = ["192.0.2.1:7777", "192.0.2.2:9999"].map(|own| own.parse().unwrap());
    let mut core = both
        .into_iter()
        .fold(Server::builder(Text), ServerBuilder::local_addr)
        .core(echo);
    for own in both {
        assert!(ask(&mut core, at(0), b"x", Meta::new(own)).is_empty());
    }
    assert_eq!(core.stats().dropped(DropReason::SourceOwn), 2);
    let neighbour = Meta::new("192.0.2.1:9999".parse().unwrap());
    assert_eq!(ask(&mut core, at(0), b"x", neighbour).len(), 1);

    // On one address it knows which is its own, and another may have the same port.
    let mut core = Server::builder(Text)
        .local_addr("127.0.0.3:9999".parse().unwrap())
        .core(echo);
    let neighbour = Meta::new("127.0.0.2:9999".parse().unwrap());
    assert_eq!(ask(&mut core, at(0), b"x", neighbour).len(), 1);
}

#[test]
fn every_port_of_the_list_is_blocked_and_another_list_can_be_set() {
    let mut strict = ServerCore::new(Text, echo);
    let mut lax = Server::builder(Text).blocked_ports([50_000]).core(echo);
    for port in REFLECTOR_PORTS {
        let meta = Meta::new(SocketAddr::from(([192, 0, 2, 1], port)));
        assert!(ask(&mut strict, at(0), b"x", meta).is_empty());
        assert_eq!(ask(&mut lax, at(0), b"x", meta).len(), 1);
    }
    let blocked = strict.stats().dropped(DropReason::SourceReflector);
    assert_eq!(blocked, REFLECTOR_PORTS.len() as u64);
    assert!(ask(&mut lax, at(0), b"x", Meta::new(client())).is_empty());
}

#[test]
fn checks_come_in_the_order_that_the_documentation_says() {
    let waited = |peer: &str, seconds| {
        let mut meta = Meta::new(peer.parse().unwrap());
        meta.waited = Duration::from_secs(seconds);
        meta
    };
    let mut truncated = waited("0.0.0.0:19", 2);
    truncated.truncated = true;
    let response: &[u8] = b"[b'Sun Jul  7 17:17:58 2019']x";
    // Each datagram has the fault of its line and those of all lines below.
    for (bytes, meta, reason) in [
        (response, truncated, DropReason::Truncated),
        (response, waited("0.0.0.0:19", 2), DropReason::SourceInvalid),
        (
            response,
            waited("192.0.2.7:19", 2),
            DropReason::SourceReflector,
        ),
        (response, waited("192.0.2.7:9999", 2), DropReason::SourceOwn),
        (response, waited("192.0.2.7:50000", 2), DropReason::Stale),
        (response, waited("192.0.2.7:50000", 0), DropReason::Response),
        (
            b"\xff",
            waited("192.0.2.7:50000", 0),
            DropReason::Gate("no"),
        ),
    ] {
        let mut core = Server::builder(Ctime::utc())
            .local_addr("192.0.2.7:9999".parse().unwrap())
            .max_age(Duration::from_secs(1))
            .gate(|_: &Datagram<'_>| Err("no"))
            .core(robot::handler());
        assert!(ask(&mut core, at(0), bytes, meta).is_empty());
        assert_eq!(only_drop(&core.stats()), reason);
    }
    let mut core = robot::core();
    assert!(ask(&mut core, at(0), b"\xff", Meta::new(client())).is_empty());
    assert_eq!(only_drop(&core.stats()), DropReason::Malformed);
}

/// Text that must not be read.
struct Unread;

impl Codec for Unread {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a [u8];
    type Error = TextError;

    fn decode_request<'a>(&self, _: &'a [u8]) -> Result<&'a str, TextError> {
        panic!("it was parsed")
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        _: &[u8],
        _: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        Ok(())
    }
    fn encode_request(&self, _: u64, _: &str, _: &mut Writer<'_>) -> Result<(), TextError> {
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_response(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}

#[test]
fn what_a_gate_refuses_is_not_parsed() {
    let refuse = |_: &Datagram<'_>| Err("no");
    let mut core = Server::builder(Unread)
        .gate(refuse)
        .core(|_: &str| Some(b"x".to_vec()));
    assert!(ask(&mut core, at(0), b"x", Meta::new(client())).is_empty());
    assert_eq!(only_drop(&core.stats()), DropReason::Gate("no"));
}

#[test]
fn a_closure_is_a_gate_and_its_reason_has_a_counter() {
    let mut core = Server::builder(Text)
        .gate(|datagram: &Datagram<'_>| match datagram.bytes {
            [b'a', ..] => Err("begins with a"),
            _ => Ok(()),
        })
        .gate(|datagram: &Datagram<'_>| match datagram.meta.peer.ip() {
            IpAddr::V6(_) => Err("not at home in IPv6"),
            IpAddr::V4(_) => Ok(()),
        })
        .core(echo);
    let v6 = Meta::new("[2001:db8::1]:50000".parse().unwrap());
    assert!(ask(&mut core, at(0), b"abc", Meta::new(client())).is_empty());
    assert!(ask(&mut core, at(0), b"abc", v6).is_empty());
    assert!(ask(&mut core, at(0), b"xyz", v6).is_empty());
    assert_eq!(ask(&mut core, at(0), b"xyz", Meta::new(client())), [b"xyz"]);
    let stats = core.stats();
    assert_eq!(stats.dropped(DropReason::Gate("begins with a")), 2);
    assert_eq!(stats.dropped(DropReason::Gate("not at home in IPv6")), 1);
    assert!(
        stats
            .counters()
            .any(|counter| counter == ("dropped_gate", 3))
    );
    assert!(
        stats
            .to_string()
            .contains("(begins with a 2, not at home in IPv6 1)"),
        "{stats}"
    );
}

/// Notes what it is asked.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<String>>>);

impl Gate for Witness {
    fn accept(&mut self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        let millis = now.monotonic.as_millis();
        let text = String::from_utf8_lossy(datagram.bytes);
        self.0
            .lock()
            .unwrap()
            .push(format!("{millis} admit {text}"));
        Ok(())
    }

    fn allow_responses(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        replies: ResponseSize,
    ) -> Result<(), DropReason> {
        let millis = now.monotonic.as_millis();
        let ResponseSize {
            datagrams, bytes, ..
        } = replies;
        let text = String::from_utf8_lossy(datagram.bytes);
        self.0
            .lock()
            .unwrap()
            .push(format!("{millis} release {text}: {datagrams}, {bytes}"));
        match datagram.bytes {
            b"hold back" => Err(DropReason::Gate("held back")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_gate_sees_what_comes_in_and_what_would_go_out() {
    let witness = Witness::default();
    let mut core = Server::builder(Text)
        .gate(None::<AmplificationLimit>)
        .gate(witness.clone())
        .core(|text: &str| match text {
            "two" => Some([Some("one"), Some("three")]),
            "hold back" => Some([Some("never seen"), None]),
            _ => None,
        });
    assert_eq!(ask(&mut core, at(1), b"two", Meta::new(client())).len(), 2);
    assert!(ask(&mut core, at(2), b"none", Meta::new(client())).is_empty());
    assert!(ask(&mut core, at(3), b"\xff", Meta::new(client())).is_empty());
    assert!(ask(&mut core, at(4), b"hold back", Meta::new(client())).is_empty());
    assert_eq!(
        *witness.0.lock().unwrap(),
        [
            "1 admit two",
            "1 release two: 2, 8",
            "2 admit none",
            "3 admit \u{fffd}",
            "4 admit hold back",
            "4 release hold back: 1, 10",
        ]
    );
    let stats = core.stats();
    assert_eq!(
        (stats.replied, stats.silent, stats.dropped_total()),
        (1, 1, 2)
    );
    assert_eq!(stats.dropped(DropReason::Gate("held back")), 1);
}

#[test]
fn what_is_held_back_takes_nothing_else_with_it() {
    let mut core = Server::builder(Text).gate(Witness::default()).core(echo);
    let mut inbox = Inbox::new(3, 64);
    let mut outbox = Outbox::new(64, 64);
    for text in ["first", "hold back", "third"] {
        inbox.push(text.as_bytes(), Meta::new(client()));
    }
    core.handle(at(0), &mut inbox, &mut outbox);
    let sent: Vec<_> = outbox.iter().map(|reply| reply.bytes.to_vec()).collect();
    assert_eq!(sent, [b"first", b"third"]);
}

#[test]
fn a_gate_is_told_of_the_replies_to_one_request_and_not_of_those_before_it() {
    let witness = Witness::default();
    let mut core = Server::builder(Text).gate(witness.clone()).core(echo);
    let mut inbox = Inbox::new(3, 64);
    let mut outbox = Outbox::new(64, 64);
    for text in ["first", "next", "the last"] {
        inbox.push(text.as_bytes(), Meta::new(client()));
    }
    core.handle(at(0), &mut inbox, &mut outbox);
    let mut releases = witness.0.lock().unwrap().clone();
    releases.retain(|line| line.contains("release"));
    assert_eq!(
        releases,
        [
            "0 release first: 1, 5",
            "0 release next: 1, 4",
            "0 release the last: 1, 8",
        ]
    );
}

#[test]
fn a_panic_of_a_gate_costs_one_datagram() {
    quiet_panics();
    let mut core = Server::builder(Text)
        .gate(|datagram: &Datagram<'_>| {
            if datagram.bytes == b"bomb" {
                panic::panic_any(OnPurpose);
            }
            Ok(())
        })
        .core(echo);
    assert!(ask(&mut core, at(0), b"bomb", Meta::new(client())).is_empty());
    assert_eq!(
        ask(&mut core, at(0), b"next", Meta::new(client())),
        [b"next"]
    );
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 1);
}

#[test]
fn a_rate_limited_network_gets_its_budget_and_others_do_not_notice() {
    let limit = RateLimit::builder()
        .responses_per_second(5)
        .key([1; 16])
        .build()
        .unwrap();
    let mut core = Server::builder(Ctime::utc())
        .gate(limit)
        .core(robot::handler());
    let noisy = |host: u8| Meta::new(SocketAddr::from(([192, 0, 2, host], 50_000)));
    let answered = (0..100)
        .filter(|&host| !ask(&mut core, at(0), b"?", noisy(host)).is_empty())
        .count();
    assert_eq!(answered, 5);
    assert_eq!(core.stats().dropped(DropReason::RateLimited), 95);
    let other = Meta::new("198.51.100.1:50000".parse().unwrap());
    assert_eq!(ask(&mut core, at(0), b"?", other).len(), 1);
    // Malformed and silent requests use nothing up.
    assert_eq!(ask(&mut core, at(1_000), b"?", noisy(1)).len(), 1);
    for _ in 0..100 {
        ask(&mut core, at(1_000), b"\xff", noisy(1));
    }
    assert_eq!(ask(&mut core, at(1_000), b"?", noisy(1)).len(), 1);
}

#[test]
fn strict_mode_never_sends_over_three_times_what_came() {
    let mut core = Server::builder(Text)
        .gate(AmplificationLimit::default())
        .core(|text: &str| {
            let length: usize = text.trim().parse().unwrap();
            Some("x".repeat(length))
        });
    // 38 bytes on the wire: 114 may go out, 86 of them payload.
    assert_eq!(
        ask(&mut core, at(0), b"86        ", Meta::new(client())).len(),
        1
    );
    assert!(ask(&mut core, at(0), b"87        ", Meta::new(client())).is_empty());
    assert_eq!(only_drop(&core.stats()), DropReason::Amplification);
    assert_eq!(core.stats().replied, 1);
}

#[test]
fn a_request_that_waited_too_long_is_dropped_unread() {
    let mut core = Server::builder(Text)
        .max_age(Duration::from_secs(1))
        .core(|_: &str| -> Option<&'static str> { panic!("it is not read") });
    let mut meta = Meta::new(client());
    meta.waited = Duration::from_millis(1_001);
    assert!(ask(&mut core, at(0), b"x", meta).is_empty());
    assert_eq!(only_drop(&core.stats()), DropReason::Stale);

    let mut core = Server::builder(Text)
        .max_age(Duration::from_secs(1))
        .core(echo);
    meta.waited = Duration::from_secs(1);
    assert_eq!(ask(&mut core, at(0), b"x", meta).len(), 1);
    meta.waited = Duration::MAX;
    assert!(ask(&mut core, at(u64::MAX), b"x", meta).is_empty());
}

#[test]
fn behind_a_slow_handler_old_requests_are_dropped_and_replies_leave_early() {
    let clock = Cell::new(0);
    let elapsed = Arc::new(Mutex::new(0_u64));
    let handler = {
        let elapsed = Arc::clone(&elapsed);
        move |text: &str| {
            *elapsed.lock().unwrap() += 30;
            Some(text.to_owned())
        }
    };
    let mut core = Server::builder(Text)
        .max_age(Duration::from_millis(100))
        .core(handler);
    let mut inbox = Inbox::new(64, 64);
    let mut outbox = Outbox::new(64, 64);
    for number in 0..64 {
        inbox.push(number.to_string().as_bytes(), Meta::new(client()));
    }
    let mut batches = Vec::new();
    while !inbox.is_empty() {
        let read = || {
            clock.set(clock.get() + 1);
            at(*elapsed.lock().unwrap())
        };
        core.handle_with_clock(at(0), read, &mut inbox, &mut outbox);
        assert!(core.stats().is_conserved());
        batches.push(outbox.len());
        outbox.clear();
    }
    // Read at 0, 30, 60 and 90 ms; then they are too old. Each reply left before the next request
    // was read.
    assert_eq!(batches, [1, 1, 1, 1, 0]);
    assert_eq!(core.stats().dropped(DropReason::Stale), 60);
    assert!(clock.get() > 64);
}

#[test]
fn with_a_limit_to_the_age_the_10_ms_begin_when_the_first_request_is_read() {
    let mut core = Server::builder(Text)
        .max_age(Duration::from_secs(1))
        .core(echo);
    let mut inbox = Inbox::new(3, 64);
    for _ in 0..3 {
        inbox.push(b"x", Meta::new(client()));
    }
    let mut outbox = Outbox::new(64, 64);
    // The thread did not run for a while after it had received them.
    core.handle_with_clock(at(0), || at(50), &mut inbox, &mut outbox);
    assert_eq!(outbox.len(), 3, "no handler was slow");
}

#[test]
fn a_lone_request_costs_no_reading_of_the_clock() {
    let mut core = ServerCore::new(Text, echo);
    let mut inbox = Inbox::new(1, 64);
    inbox.push(b"x", Meta::new(client()));
    let mut outbox = Outbox::new(64, 64);
    core.handle_with_clock(at(0), || panic!("not read"), &mut inbox, &mut outbox);
    assert_eq!(outbox.len(), 1);
}

/// Requests that each take the handler so many milliseconds, in one batch received at 1,000 ms:
/// when the clock was read, in requests handled till then, and how many replies left at once.
fn timed(millis: &[u64], answers: impl Fn(usize) -> bool) -> (Vec<usize>, Vec<usize>) {
    let done = Arc::new(Mutex::new((0, 1_000)));
    let handler = |_: &str| {
        let mut done = done.lock().unwrap();
        let index = done.0;
        *done = (index + 1, done.1 + millis[index]);
        answers(index).then_some("x")
    };
    let mut core = ServerCore::new(Text, Arc::new(handler));
    let mut inbox = Inbox::new(millis.len(), 64);
    for _ in millis {
        inbox.push(b"x", Meta::new(client()));
    }
    let mut outbox = Outbox::new(1_024, 64);
    let (readings, mut batches) = (Mutex::new(Vec::new()), Vec::new());
    while !inbox.is_empty() {
        let read = || {
            let (requests, now) = *done.lock().unwrap();
            readings.lock().unwrap().push(requests);
            at(now)
        };
        core.handle_with_clock(at(1_000), read, &mut inbox, &mut outbox);
        assert!(core.stats().is_conserved());
        batches.push(outbox.len());
        outbox.clear();
    }
    (readings.into_inner().unwrap(), batches)
}

#[test]
fn a_slow_handler_does_not_hold_back_finished_answers() {
    let (_, batches) = timed(&[20; 200], |_| true);
    assert_eq!(batches, [1; 200]);
    // 10 ms have passed after 5, but it is looked at after 8.
    let (_, batches) = timed(&[2; 24], |_| true);
    assert_eq!(batches, [8; 3]);
    // What was silent has no reply to let go, and the first one leaves at once.
    let (readings, batches) = timed(&[20; 100], |index| index >= 70);
    assert_eq!(batches[0], 1);
    assert_eq!(readings[..3], [1, 2, 3]);
    assert_eq!(batches.len(), 30);
}

#[test]
fn a_fast_batch_costs_few_readings_of_the_clock() {
    let (readings, batches) = timed(&[0; 300], |_| true);
    assert_eq!(readings, [1, 8, 64, 128, 192, 256]);
    assert_eq!(batches, [300]);
    // A pace of 10 ms for every 16 requests is no longer fast: every doubling is looked at.
    let (readings, _) = timed(&[1; 7], |_| true);
    assert_eq!(readings, [1, 2, 4]);
    // What was fast may become slow before it is looked at again.
    let (_, batches) = timed(&[0, 5, 5, 5, 5, 5, 5, 5], |_| true);
    assert_eq!(batches, [8]);
}

#[test]
fn two_servers_that_cannot_tell_responses_go_quiet_once_the_budget_is_spent() {
    let net = SimNet::new();
    let core = || {
        let limit = RateLimit::builder()
            .responses_per_second(20)
            .key([3; 16])
            .build();
        Arc::new(Mutex::new(
            Server::builder(Text).gate(limit.unwrap()).core(echo),
        ))
    };
    let (a, b) = (core(), core());
    let addrs: [SocketAddr; 2] = ["10.0.0.1:8001", "10.0.1.1:8002"].map(|a| a.parse().unwrap());
    net.host(addrs[0], Arc::clone(&a)).unwrap();
    // b has to speak first, so it is poked from its own address before it moves in.
    let mut poke = net.bind(addrs[1]).unwrap();
    let mut outbox = Outbox::new(1, 64);
    outbox.push(addrs[0], None, b"hello").unwrap();
    poke.send(&outbox);
    drop(poke);
    net.host(addrs[1], Arc::clone(&b)).unwrap();

    let mut bystander = net.bind("10.0.2.1:8003".parse().unwrap()).unwrap();
    bystander
        .recv(&mut Inbox::new(1, 64), Wait::For(Duration::from_secs(1)))
        .unwrap();
    let (a, b) = (a.lock().unwrap().stats(), b.lock().unwrap().stats());
    assert_eq!((a.replied, b.replied), (20, 20));
    assert_eq!(
        a.dropped(DropReason::RateLimited) + b.dropped(DropReason::RateLimited),
        1
    );
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_gate_goes_in_with_one_line_of_the_builder() {
    let server = Server::builder(Text)
        .gate(RateLimit::default())
        .bind("127.0.0.1:0")
        .unwrap();
    let handle = server.handle();
    handle.shutdown();
    assert!(server.serve(echo).unwrap().is_conserved());
    assert!(handle.last_receive_error().is_none() && handle.last_send_error().is_none());
}

/// What tests panic with.
struct OnPurpose;

fn quiet_panics() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<OnPurpose>() {
                loud(info);
            }
        }));
    });
}

/// Does what the request says.
struct Obedient;

impl Handler<Ctime> for Obedient {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Ctime>,
    ) -> Result<(), ReplyError> {
        for command in request.chars() {
            match command {
                's' => reply.send(&"short")?,
                'l' => reply.send(&"long".repeat(20))?,
                'L' => reply.send(&"too long".repeat(1_000))?,
                'p' => panic::panic_any(OnPurpose),
                _ => {}
            }
        }
        Ok(())
    }
}

/// One datagram of a random sequence, and how long after the one before it comes.
#[derive(Clone, Debug)]
struct Event {
    bytes: Vec<u8>,
    peer: SocketAddr,
    truncated: bool,
    waited: u64,
    pause: u64,
    wall: i64,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let bytes = prop_oneof![
        4 => "[slx]{1,4}".prop_map(String::into_bytes),
        1 => "[sLpx]{1,20}".prop_map(String::into_bytes),
        1 => Just(b"[b'Sun Jul  7 17:17:58 2019']s".to_vec()),
        1 => Just(b"[b'Sun Jul  8 17:17:58 2019']s".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(Vec::new()),
    ];
    let ip = prop_oneof![
        8 => (0..4_u8, 0..3_u8).prop_map(|(net, host)| IpAddr::from([192, 0, net, host])),
        2 => (0..3_u16).prop_map(|net| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, 1])),
        1 => Just(IpAddr::from([224, 0, 0, 1])),
        1 => Just(IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1])),
    ];
    let port = prop_oneof![8 => 49_152..=u16::MAX, 1 => Just(0), 1 => Just(53), 1 => Just(9_999)];
    let event = (
        bytes,
        (ip, port).prop_map(SocketAddr::from),
        prop::bool::weighted(0.05),
        0..400_u64,
        0..50_u64,
        prop_oneof![8 => Just(0_i64), 1 => -100_000_000_000..300_000_000_000_i64],
    );
    let event = event.prop_map(|(bytes, peer, truncated, waited, pause, wall)| Event {
        bytes,
        peer,
        truncated,
        waited,
        pause,
        wall,
    });
    prop::collection::vec(event, 1..200)
}

fn wall(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(span),
        _ => SystemTime::UNIX_EPOCH.checked_sub(span),
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn everything_on(answers: u32, factor: usize) -> ServerCore<Ctime, Obedient, impl Gate + use<>> {
    let limit = RateLimit::builder()
        .responses_per_second(answers)
        .max_prefixes(256)
        .key([5; 16]);
    Server::builder(Ctime::utc())
        .local_addr("192.0.0.1:9999".parse().unwrap())
        .max_age(Duration::from_millis(350))
        .gate(|datagram: &Datagram<'_>| match datagram.bytes.first() {
            Some(b'x') => Err("begins with x"),
            _ => Ok(()),
        })
        .gate(AmplificationLimit::new(factor))
        .gate(limit.build().unwrap())
        .core(Obedient)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariants 1, 2 and 5, with every guard and gate in play, a clock that jumps, and small
    /// batches: each datagram is counted once and answered at most once, and no reply of a server
    /// is ever answered.
    #[test]
    fn invariant_1_and_2_hold_whatever_comes_in_and_whichever_gates_there_are(
        events in events(),
        buffers in 1..20_usize,
        answers in 1..50_u32,
        factor in 0..6_usize,
    ) {
        quiet_panics();
        let mut core = everything_on(answers, factor);
        let mut other = everything_on(1_000_000, 1_000);
        let mut inbox = Inbox::new(buffers, 64);
        let mut outbox = Outbox::new(MAX_RESPONSES + 3, 200);
        let mut back = Inbox::new(1, 200);
        let mut nothing = Outbox::new(MAX_RESPONSES, 200);
        let mut received = 0;
        let mut replies = 0;
        let mut monotonic = Duration::ZERO;
        let mut bytes_in: HashMap<SocketAddr, usize> = HashMap::new();
        let mut bytes_out: HashMap<SocketAddr, usize> = HashMap::new();

        for batch in events.chunks(buffers) {
            for event in batch {
                let mut meta = Meta::new(event.peer);
                meta.truncated = event.truncated;
                meta.waited = Duration::from_millis(event.waited);
                inbox.push(&event.bytes, meta);
                monotonic += Duration::from_millis(event.pause);
                *bytes_in.entry(event.peer).or_default() += wire(event.peer, event.bytes.len());
            }
            received += batch.len() as u64;
            let now = Timestamp::new(monotonic, wall(batch[0].wall));
            while !inbox.is_empty() {
                core.handle(now, &mut inbox, &mut outbox);
                let stats = core.stats();
                prop_assert!(stats.is_conserved(), "{stats}");
                prop_assert_eq!((stats.received, stats.pending), (received, inbox.len() as u64));
                for reply in outbox.iter() {
                    replies += 1;
                    *bytes_out.entry(reply.peer).or_default() += wire(reply.peer, reply.bytes.len());
                    // It comes back, as if the client were a server like this.
                    back.push(reply.bytes, Meta::new("192.0.2.77:50000".parse().unwrap()));
                    other.handle(now, &mut back, &mut nothing);
                    prop_assert!(nothing.is_empty(), "a reply was answered");
                }
                outbox.clear();
            }
        }
        let stats = core.stats();
        prop_assert_eq!((stats.received, stats.pending), (received, 0));
        prop_assert!(stats.replied <= replies && replies <= stats.replied * MAX_RESPONSES as u64);
        prop_assert_eq!(other.stats().dropped(DropReason::Response), replies);
        prop_assert_eq!(stats.drops().map(|(_, count)| count).sum::<u64>(), stats.dropped_total());
        for (peer, bytes) in bytes_out {
            prop_assert!(bytes <= factor * bytes_in[&peer], "{bytes} bytes to {peer}");
        }
    }

    /// In any window of time, what a network gets is at most a burst, what the rate gives, and the
    /// replies to one request.
    #[test]
    fn no_network_gets_more_than_its_rate(events in events(), answers in 1..50_u32) {
        quiet_panics();
        let limit = RateLimit::builder().responses_per_second(answers).key([9; 16]).build().unwrap();
        let mut core = Server::builder(Ctime::utc()).gate(limit).core(Obedient);
        let mut millis = 0;
        let mut given: HashMap<_, f64> = HashMap::new();
        for event in events {
            millis += event.pause;
            let replies = ask(&mut core, at(millis), &event.bytes, Meta::new(event.peer));
            let network = match event.peer.ip() {
                IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & !0xff).into()),
                IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 72 << 72).into()),
            };
            let given = given.entry(network).or_default();
            *given += f64::from(u32::try_from(replies.len()).unwrap());
            let earned = f64::from(answers) * (1.0 + f64::from(u32::try_from(millis).unwrap()) / 1_000.0);
            prop_assert!(*given <= earned + 16.0, "{given} answers to {network} in {millis} ms");
        }
    }
}

fn wire(peer: SocketAddr, payload: usize) -> usize {
    payload + if peer.is_ipv4() { 28 } else { 48 }
}

#[test]
fn what_the_first_gate_holds_back_the_second_does_not_count() {
    let limit = RateLimit::builder()
        .responses_per_second(1)
        .build()
        .unwrap();
    let mut core = Server::builder(Text)
        .gate(AmplificationLimit::new(0))
        .gate(limit)
        .core(echo);
    for _ in 0..3 {
        assert!(ask(&mut core, at(0), b"x", Meta::new(client())).is_empty());
    }
    assert_eq!(core.stats().dropped(DropReason::Amplification), 3);
}

#[test]
fn options_of_a_core_can_be_set_in_any_order() {
    let own: SocketAddr = "192.0.2.7:9999".parse().unwrap();
    let mut core = Server::builder(Text)
        .local_addr(own)
        .blocked_ports([19])
        .core(echo);
    assert!(ask(&mut core, at(0), b"x", Meta::new(own)).is_empty());
    assert_eq!(only_drop(&core.stats()), DropReason::SourceOwn);
    assert!(ask(&mut core, at(0), b"x", Meta::new(own)).is_empty());
    assert_eq!(core.stats().dropped(DropReason::SourceOwn), 2);
}
