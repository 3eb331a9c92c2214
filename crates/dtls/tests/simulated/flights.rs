//! What a handshake sends, and what comes with its last message.

use std::sync::{Arc, Mutex};

use rejoinder::codec::{Tagged, Text};
use rejoinder::gate::{Gate, ResponseSize};
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::Datagram;
use rejoinder::{DropReason, Timestamp};
use rejoinder_dtls::{DtlsDrop, DtlsNode, DtlsStats};

use crate::certificates;
use crate::pipe::{Server, Shared};
use crate::support::{IDENTITY, Tap, builder, client_over, config, server_addr};

/// Notes what it is asked to let go, and forbids what is of more datagrams than it may be.
#[derive(Clone)]
struct Scale {
    asked: Arc<Mutex<Vec<ResponseSize>>>,
    max_datagrams: usize,
}

impl Gate for Scale {
    fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
        Ok(())
    }

    fn allow_responses(
        &mut self,
        _: Timestamp,
        _: &Datagram<'_>,
        size: ResponseSize,
    ) -> Result<(), DropReason> {
        self.asked.lock().unwrap().push(size);
        if size.datagrams <= self.max_datagrams {
            Ok(())
        } else {
            Err(DropReason::Gate("too much"))
        }
    }
}

/// A handshake with a certificate in datagrams of 256 bytes, and one exchange. Returns what the gate was
/// asked, the lengths of what the client received, and the counters.
fn certificate_flight(max_datagrams: usize) -> (Vec<ResponseSize>, Vec<usize>, DtlsStats) {
    let net = certificates::net();
    let scale = Scale {
        asked: Arc::default(),
        max_datagrams,
    };
    let engine = certificates::builder("server")
        .handshake_datagram_bytes(256)
        .gate(scale.clone())
        .engine();
    let core = ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase()));
    let node = Arc::new(Mutex::new(DtlsNode::new(engine.unwrap(), core)));
    net.host(server_addr(), Arc::clone(&node)).unwrap();
    let tap = Tap::new(net);
    let mut client = client_over(tap.clone(), certificates::trusting("server.example"));
    let _ = client.request("hello");
    let received = tap.passed().into_iter().filter(|one| !one.is_sent);
    let received = received.map(|one| one.bytes.len()).collect();
    let asked = scale.asked.lock().unwrap().clone();
    let stats = node.lock().unwrap().stats().clone();
    assert!(stats.conserves(), "{stats:?}");
    (asked, received, stats)
}

#[test]
fn the_gate_is_charged_every_datagram_of_a_flight_with_its_length() {
    let (asked, mut received, stats) = certificate_flight(usize::MAX);
    // The response to the request is the server's, whose gates are its own.
    received.pop();
    assert_eq!(stats.sent, 1);
    let datagrams: usize = asked.iter().map(|size| size.datagrams).sum();
    let bytes: usize = asked.iter().map(|size| size.bytes).sum();
    assert_eq!(datagrams, received.len());
    assert_eq!(bytes, received.iter().sum());
    // A cookie; hello, certificate, key exchange; and the last message.
    let counts: Vec<_> = asked.iter().map(|size| size.datagrams).collect();
    assert!(matches!(counts[..], [1, 2..=16, 1]), "{counts:?}");
}

#[test]
fn a_flight_that_the_gate_forbids_does_not_leave_and_no_handshake_has_begun() {
    let (asked, received, stats) = certificate_flight(2);
    assert!(asked.iter().any(|size| size.datagrams > 2));
    // Requests for a cookie only.
    assert!(received.iter().all(|&len| len == 60), "{received:?}");
    assert!(stats.dropped(DtlsDrop::Gate) > 0);
    assert_eq!((stats.begun, stats.half_open), (0, 0));
}

/// A server that is like another to the bit, as long as both begin a handshake in one second.
fn twins() -> [Shared; 2] {
    [1, 1].map(|seed| Server::start(builder(seed).engine().unwrap()))
}

#[test]
fn data_behind_the_last_message_of_a_handshake_is_delivered_and_answered() {
    const PEER: &str = "192.0.2.1:7000";
    // The random values have the time in them, in seconds: the twins may differ, but not for long.
    for _ in 0..100 {
        let [one, other] = twins();
        let (mut client, pipe) = one.client(PEER, config());
        client.request("hello").unwrap();
        let sent = pipe.state().sent.clone();
        let [first, second, flight, record] = &sent[..] else {
            panic!("{} datagrams", sent.len());
        };
        let addr = PEER.parse().unwrap();
        let mut other = other.lock();
        other.receive(addr, first);
        other.receive(addr, second);
        // As a client may send it: RFC 6347 §4.1.1 lets several records share a datagram.
        let replies = other.receive(addr, &[&flight[..], record].concat());
        let stats = other.engine.stats().clone();
        assert!(stats.conserves(), "{stats:?}");
        if stats.established == 0 {
            continue;
        }
        let (from, payload) = &other.payloads[0];
        assert_eq!((*from, &payload[9..]), (addr, &b"hello"[..]));
        assert_eq!((stats.payloads, stats.application, stats.sent), (1, 1, 1));
        assert_eq!(other.engine.identity(addr), Some(&IDENTITY.into()));
        assert_ne!(other.metas[0].association, 0);
        // The server's last flight, and behind it the response.
        assert_eq!(replies.len(), 2);
        assert_eq!((replies[0].1[0], replies[1].1[0]), (20, 23));
        // A copy is no second payload.
        other.receive(addr, &[&flight[..], record].concat());
        assert_eq!(other.payloads.len(), 1);
        return;
    }
    panic!("no two handshakes began in one second");
}

#[test]
fn several_records_in_a_datagram_are_several_payloads_and_more_than_eight_are_none() {
    let server = Server::start(builder(3).engine().unwrap());
    let (mut client, pipe) = server.client("192.0.2.1:7000", config());
    client.request("hello").unwrap();
    pipe.state().is_cut = true;
    let before = pipe.state().sent.len();
    let tickets: Vec<_> = (0..9)
        .map(|number| client.submit(&format!("number {number}")[..]).unwrap())
        .collect();
    assert_eq!(tickets.len(), 9);
    while pipe.state().sent.len() < before + 9 {
        let _ = client.collect(rejoinder::Wait::No);
    }
    let records = pipe.state().sent[before..before + 9].to_vec();
    let addr = "192.0.2.1:7000".parse().unwrap();
    let nine = records.concat();
    assert!(server.lock().receive(addr, &nine).is_empty());
    assert_eq!(server.stats().dropped(DtlsDrop::Malformed), 1);
    // What is behind the last whole record is ignored, and a record that was changed is left out.
    let mut eight = records[..8].concat();
    let last = eight.len() - 1;
    eight[last] ^= 1;
    eight.extend_from_slice(b"garbage");
    let payloads = server.lock().payloads.len();
    assert_eq!(server.lock().receive(addr, &eight).len(), 7);
    assert_eq!(server.lock().payloads.len(), payloads + 7);
    let stats = server.stats();
    assert_eq!((stats.associations, stats.broken), (1, 0));
}
