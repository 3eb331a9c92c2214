//! What an attacker can send, and what comes of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rejoinder_dtls::{DtlsDrop, HandshakeFailure};

use crate::pipe::{Pipe, PipeClient, Server, Shared};
use crate::support::{IDENTITY, builder, config};

const PEER: &str = "192.0.2.1:7000";

/// A hello as a client sends it first, from one that has no server.
fn hello() -> Vec<u8> {
    let server = Server::start(builder(1).engine().unwrap());
    let (mut client, pipe) = server.client(PEER, config());
    pipe.state().is_cut = true;
    assert!(client.request("hello").is_err());
    pipe.state().sent[0].clone()
}

/// The same hello with a cookie, as its second message.
fn with_cookie(hello: &[u8], request: &[u8]) -> Vec<u8> {
    // Header of the record, of the message; version, random, an empty session id; then the cookie.
    const AT: usize = 13 + 12 + 2 + 32 + 1;
    let cookie = &request[request.len() - 32..];
    assert_eq!(hello[AT], 0, "no cookie yet");
    let mut second = hello[..AT].to_vec();
    second.push(32);
    second.extend_from_slice(cookie);
    second.extend_from_slice(&hello[AT + 1..]);
    second[10] = 1;
    let body = u32::try_from(second.len() - 13 - 12).unwrap().to_be_bytes();
    let record = u16::try_from(second.len() - 13).unwrap().to_be_bytes();
    second[11..13].copy_from_slice(&record);
    second[14..17].copy_from_slice(&body[1..]);
    second[18] = 1;
    second[22..25].copy_from_slice(&body[1..]);
    second
}

fn peer(number: u32) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0a00_0000 + number);
    (ip, 20_000).into()
}

fn set_random(hello: &mut [u8], number: u32) {
    hello[13 + 12 + 2..][..4].copy_from_slice(&number.to_be_bytes());
}

/// Has a peer begin a handshake, and leave it there.
fn begin(server: &Shared, number: u32) {
    let mut first = hello();
    set_random(&mut first, number);
    let request = server.lock().receive(peer(number), &first);
    let second = with_cookie(&first, &request[0].1);
    let flight = server.lock().receive(peer(number), &second);
    assert!(!flight.is_empty(), "{number}");
}

/// A record of an association, which did not arrive. The client goes on with other sockets.
fn lost_record(client: &mut PipeClient, pipe: &Pipe) -> Vec<u8> {
    let before = pipe.state().sent.len();
    pipe.state().is_cut = true;
    assert!(client.request("lost").is_err());
    let record = pipe.state().sent[before].clone();
    assert_eq!(record[0], 23);
    record
}

#[test]
fn a_hundred_thousand_spoofed_hellos_leave_no_trace_and_an_honest_peer_is_served() {
    let server = Server::start(builder(2).engine().unwrap());
    let (mut client, _) = server.client(PEER, config());
    let mut hello = hello();
    for number in 0..100_000 {
        set_random(&mut hello, number);
        let replies = server.lock().receive(peer(number), &hello);
        let [(to, reply)] = replies.as_slice() else {
            panic!("{} replies", replies.len());
        };
        assert_eq!(*to, peer(number));
        assert!(reply.len() <= hello.len());
        if number % 10_000 == 0 {
            client.request("are you there?").unwrap();
        }
    }
    let stats = server.stats();
    assert_eq!(
        (stats.begun, stats.half_open, stats.associations),
        (1, 0, 1)
    );
    assert!(stats.verify_request_bytes < stats.hello_bytes);
    println!(
        "{} bytes in, {} bytes out",
        stats.hello_bytes, stats.verify_request_bytes
    );
}

#[test]
fn handshakes_that_are_not_finished_displace_each_other_and_then_expire() {
    let server = Server::start(builder(3).max_handshakes(10).engine().unwrap());
    for number in 0..25 {
        begin(&server, number);
    }
    let stats = server.stats();
    assert_eq!(
        (stats.begun, stats.displaced_handshakes, stats.half_open),
        (25, 15, 10)
    );
    // One more finishes, in the place of another.
    let (mut client, _) = server.client(PEER, config());
    client.request("hello").unwrap();
    server.lock().advance(Duration::from_secs(6));
    let stats = server.stats();
    assert_eq!((stats.half_open, stats.established), (0, 1));
    assert_eq!(stats.expired + stats.failed_handshakes(), 9);
}

#[test]
fn what_is_not_answered_is_repeated_to_a_peer_that_has_shown_its_address() {
    let server = Server::start(builder(4).engine().unwrap());
    begin(&server, 1);
    let mut repeated = 0;
    for _ in 0..12 {
        let sent = server.lock().advance(Duration::from_millis(500));
        assert!(sent.iter().all(|(to, _)| *to == peer(1)));
        repeated += sent.len();
    }
    // After about one second and three; then the handshake expires.
    assert_eq!(repeated, 2);
    assert_eq!(server.lock().engine.next_timer(), None);
}

#[test]
fn the_association_used_least_recently_makes_room_and_an_idle_one_is_closed() {
    let server = Server::start(builder(5).max_associations(3).engine().unwrap());
    let mut clients: Vec<_> = (0..3)
        .map(|number| server.client(&format!("192.0.2.1:{}", 7_000 + number), config()))
        .collect();
    for (client, _) in &mut clients {
        client.request("hello").unwrap();
    }
    clients[0].0.request("still here").unwrap();
    let (mut another, _) = server.client("192.0.2.1:7003", config());
    another.request("hello").unwrap();
    let identity = |port: u16| {
        let addr = format!("192.0.2.1:{port}").parse().unwrap();
        server.lock().engine.identity(addr).cloned()
    };
    assert!(identity(7_000).is_some() && identity(7_001).is_none());
    assert_eq!(server.stats().displaced, 1);
    let closed = server.lock().advance(Duration::from_secs(15 * 60));
    assert_eq!(closed.len(), 3, "each is sent a close_notify");
    let stats = server.stats();
    assert_eq!((stats.idle, stats.associations), (3, 0));
}

#[test]
fn replayed_records_are_dropped_and_change_nothing() {
    let server = Server::start(builder(6).engine().unwrap());
    let (mut client, pipe) = server.client(PEER, config());
    for question in ["one", "two", "three"] {
        client.request(question).unwrap();
    }
    let sent = pipe.state().sent.clone();
    let payloads = server.lock().payloads.len();
    for _ in 0..3 {
        for datagram in &sent {
            server.lock().receive(PEER.parse().unwrap(), datagram);
        }
    }
    assert_eq!(server.lock().payloads.len(), payloads);
    let stats = server.stats();
    assert!(stats.dropped(DtlsDrop::Unauthenticated) >= 9, "{stats:?}");
    // The second hello, whose cookie is still good.
    assert_eq!(stats.dropped(DtlsDrop::Repeated), 3);
    assert_eq!((stats.begun, stats.associations), (1, 1));
    assert_eq!(client.request("four").unwrap(), "four");
}

#[test]
fn a_record_that_was_changed_anywhere_is_dropped_and_the_association_lives_on() {
    let server = Server::start(builder(7).engine().unwrap());
    let (mut client, pipe) = server.client(PEER, config());
    client.request("one").unwrap();
    let record = lost_record(&mut client, &pipe);
    let payloads = server.lock().payloads.len();
    for at in 0..record.len() {
        for bit in [1, 0x80] {
            let mut changed = record.clone();
            changed[at] ^= bit;
            server.lock().receive(PEER.parse().unwrap(), &changed);
        }
    }
    assert_eq!(server.lock().payloads.len(), payloads);
    let stats = server.stats();
    assert_eq!((stats.broken, stats.associations), (0, 1));
    // As it was sent it is good, once.
    server.lock().receive(PEER.parse().unwrap(), &record);
    assert_eq!(server.lock().payloads.len(), payloads + 1);
    pipe.state().is_cut = false;
    assert_eq!(client.request("two").unwrap(), "two");
}

#[test]
fn alerts_and_data_in_the_clear_do_not_touch_an_association() {
    let server = Server::start(builder(8).engine().unwrap());
    let (mut client, _) = server.client(PEER, config());
    client.request("one").unwrap();
    let payloads = server.lock().payloads.len();
    let plain = |content_type: u8, fragment: &[u8]| {
        let mut record = vec![content_type, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0];
        record.push(u8::try_from(fragment.len()).unwrap());
        record.extend_from_slice(fragment);
        record
    };
    for datagram in [
        plain(21, &[2, 40]),
        plain(21, &[1, 0]),
        plain(20, &[1]),
        plain(23, b"?12345678in the clear"),
        plain(22, &[14, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]),
    ] {
        server.lock().receive(PEER.parse().unwrap(), &datagram);
    }
    assert_eq!(server.lock().payloads.len(), payloads);
    assert_eq!(server.stats().associations, 1);
    assert_eq!(client.request("two").unwrap(), "two");
}

#[test]
fn a_peer_that_starts_again_keeps_its_association_until_the_new_one_is_verified() {
    let server = Server::start(builder(9).engine().unwrap());
    let addr: SocketAddr = PEER.parse().unwrap();
    let (mut client, pipe) = server.client(PEER, config());
    client.request("one").unwrap();
    // A record that is late.
    let late = lost_record(&mut client, &pipe);

    // A peer with this address says hello, and even returns the cookie.
    let mut first = hello();
    set_random(&mut first, 77);
    let request = server.lock().receive(addr, &first);
    let flight = server
        .lock()
        .receive(addr, &with_cookie(&first, &request[0].1));
    assert!(!flight.is_empty());
    assert_eq!(server.stats().half_open, 1);
    let payloads = server.lock().payloads.len();
    server.lock().receive(addr, &late);
    assert_eq!(
        server.lock().payloads.len(),
        payloads + 1,
        "the old one is alive"
    );
    assert_eq!(server.lock().engine.identity(addr), Some(&IDENTITY.into()));

    // The peer itself starts again, and finishes.
    let (mut restarted, _) = server.client(PEER, config());
    assert_eq!(restarted.request("two").unwrap(), "two");
    let stats = server.stats();
    assert_eq!((stats.replaced, stats.associations), (1, 1));
    assert_eq!((stats.displaced_handshakes, stats.half_open), (1, 0));
}

#[test]
fn no_address_that_is_not_verified_is_sent_more_than_it_sent() {
    let server = Server::start(builder(10).engine().unwrap());
    let (mut client, pipe) = server.client(PEER, config());
    client.request("one").unwrap();
    let mut datagrams = pipe.state().sent.clone();
    datagrams.push(hello());
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % below
    };
    let (mut sent, mut received) = (0, 0);
    for number in 0..20_000 {
        // From an address that has received nothing, whatever was recorded, changed here and there.
        let from = peer(number);
        let mut datagram = datagrams[draw(datagrams.len())].clone();
        for _ in 0..draw(4) {
            let at = draw(datagram.len());
            datagram[at] = draw(256).to_le_bytes()[0];
        }
        datagram.truncate(datagram.len() - draw(8).saturating_sub(5));
        let replies = server.lock().receive(from, &datagram);
        let bytes: usize = replies.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= datagram.len(), "{} for {}", bytes, datagram.len());
        assert!(replies.iter().all(|(to, _)| *to == from));
        sent += bytes;
        received += datagram.len();
    }
    println!("{received} bytes in, {sent} bytes out");
    assert!(sent > 0);
    assert_eq!((server.stats().begun, server.stats().half_open), (1, 0));
}

#[test]
fn hellos_from_reflectors_impossible_sources_and_over_the_limit_are_not_answered() {
    use rejoinder::gate::RateLimit;
    use rejoinder::transport::{Datagram, Delivery, Meta};

    let limit = RateLimit::builder()
        .responses_per_second(5)
        .build()
        .unwrap();
    let mut engine = builder(11).gate(limit).engine().unwrap();
    engine.set_own_addr("198.51.100.1:5684".parse().unwrap());
    let (hello, mut outbox) = (hello(), engine.outbox());
    let now = rejoinder::Timestamp::system();
    let mut answered = |meta: Meta| {
        outbox.clear();
        let datagram = Datagram::new(&hello, meta);
        engine.receive(now, &datagram, &mut outbox, &mut |_| {});
        !outbox.is_empty()
    };
    for source in [
        "192.0.2.1:53",
        "192.0.2.1:0",
        "0.0.0.0:7000",
        "224.0.0.1:7000",
        "255.255.255.255:7000",
        "[ff02::1]:7000",
        "198.51.100.1:5684",
    ] {
        assert!(!answered(Meta::new(source.parse().unwrap())), "{source}");
    }
    let mut group = Meta::new(PEER.parse().unwrap());
    group.delivery = Delivery::Multicast;
    assert!(!answered(group));
    let from_one_network = (0..20).filter(|_| answered(Meta::new(PEER.parse().unwrap())));
    assert_eq!(from_one_network.count(), 5);
    assert!(answered(Meta::new("198.51.100.2:7000".parse().unwrap())));
    let stats = engine.stats();
    assert_eq!(stats.dropped(DtlsDrop::Source), 7);
    assert_eq!(stats.dropped(DtlsDrop::Group), 1);
    assert_eq!(stats.dropped(DtlsDrop::Gate), 15);
    assert!(stats.conserves());
}

#[test]
fn a_hello_without_a_suite_in_common_is_answered_with_an_alert_behind_the_cookie() {
    let server = Server::start(builder(12).engine().unwrap());
    let mut first = hello();
    // The one suite that is offered becomes another: TLS_PSK_WITH_AES_128_GCM_SHA256.
    let at = first
        .windows(2)
        .position(|two| two == [0xc0, 0xa8])
        .unwrap();
    first[at..at + 2].copy_from_slice(&[0x00, 0xa8]);
    let request = server.lock().receive(peer(1), &first);
    let second = with_cookie(&first, &request[0].1);
    let alert = server.lock().receive(peer(1), &second);
    assert_eq!(alert.len(), 1);
    assert_eq!((alert[0].1[0], &alert[0].1[13..]), (21, &[2, 40][..]));
    let stats = server.stats();
    assert_eq!(stats.failed(HandshakeFailure::NoCommonParameters), 1);
    assert_eq!(stats.half_open, 0);
}

#[test]
fn a_hello_in_fragments_is_dropped_and_counted() {
    let server = Server::start(builder(13).engine().unwrap());
    let mut fragment = hello();
    fragment[13 + 11] -= 10;
    assert!(server.lock().receive(peer(1), &fragment).is_empty());
    assert_eq!(server.stats().dropped(DtlsDrop::FragmentedHello), 1);
}

#[test]
fn datagrams_of_every_kind_at_every_stage_panic_nowhere() {
    let recorded: Vec<Vec<u8>> = {
        let server = Server::start(builder(14).engine().unwrap());
        let (mut client, pipe) = server.client(PEER, config());
        client.request("one").unwrap();
        pipe.state().sent.clone()
    };
    let addr: SocketAddr = PEER.parse().unwrap();
    let mut random = 99_u64;
    let mut draw = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % below
    };
    let server = Server::start(builder(15).engine().unwrap());
    for number in 0..3_000 {
        // A handshake is under way, and anything may come.
        let mut first = hello_from(&recorded);
        set_random(&mut first, number);
        let request = server.lock().receive(addr, &first);
        server
            .lock()
            .receive(addr, &with_cookie(&first, &request[0].1));
        for _ in 0..draw(6) {
            let mut datagram = Vec::new();
            for _ in 0..=draw(3) {
                datagram.extend_from_slice(&recorded[draw(recorded.len())]);
            }
            for _ in 0..draw(5) {
                let at = draw(datagram.len());
                datagram[at] = draw(256).to_le_bytes()[0];
            }
            server.lock().receive(addr, &datagram);
        }
        server
            .lock()
            .advance(Duration::from_millis(draw(2_000) as u64));
    }
    let stats = server.stats();
    assert_eq!(stats.established, 0);
    assert!(stats.failed_handshakes() > 0);
}

fn hello_from(recorded: &[Vec<u8>]) -> Vec<u8> {
    recorded[0].clone()
}
