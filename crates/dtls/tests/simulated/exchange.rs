//! Requests and responses on a good network.

use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::SimNet;
use rejoinder::{Client, RequestError};
use rejoinder_dtls::{ClientConfig, DtlsDrop, HandshakeFailure};

use crate::support::{
    IDENTITY, KEY, Tap, builder, client, client_over, config, contains, server_addr, shout,
};

#[test]
fn a_request_is_answered_and_nothing_is_readable_on_the_wire() {
    let net = SimNet::seeded(1);
    let server = shout(&net, builder(1).engine().unwrap());
    let tap = Tap::new(net);
    let mut client = client_over(tap.clone(), config());
    assert_eq!(
        client.request("a secret question").unwrap(),
        "A SECRET QUESTION"
    );
    assert_eq!(client.request("another secret").unwrap(), "ANOTHER SECRET");
    let stats = server.stats();
    assert!(stats.conserves(), "{stats:?}");
    assert_eq!(
        (stats.begun, stats.established, stats.associations),
        (1, 1, 1)
    );
    assert_eq!((stats.payloads, stats.sent, stats.unsent), (2, 2, 0));
    let passed = tap.passed();
    for secret in ["secret", "SECRET", "0123456789abcdef"] {
        assert!(
            passed
                .iter()
                .all(|one| !contains(&one.bytes, secret.as_bytes()))
        );
    }
    let peer = passed[0].client;
    let identity = server.with(|node| node.engine().identity(peer).cloned());
    assert_eq!(identity, Some(IDENTITY.into()));
    // RFC 4279 sends the identity in the clear: that much is to be known.
    assert!(
        passed
            .iter()
            .any(|one| contains(&one.bytes, IDENTITY.as_bytes()))
    );
    // Hello, request for a cookie, hello, the server's flight, the client's, the server's last; and two
    // exchanges, each record in a datagram of its own.
    assert_eq!(passed.len(), 6 + 4);
}

#[test]
fn a_client_that_is_dropped_closes_and_the_server_forgets_it() {
    let net = SimNet::seeded(2);
    let server = shout(&net, builder(2).engine().unwrap());
    let mut one = client(&net, config());
    one.request("hello").unwrap();
    drop(one);
    net.advance(Duration::from_secs(1));
    let stats = server.stats();
    assert_eq!((stats.closed, stats.associations), (1, 0));
    assert!(stats.conserves());
}

#[test]
fn a_wrong_key_and_an_unknown_identity_fail_alike_with_an_alert() {
    let mut texts = Vec::new();
    for config in [
        ClientConfig::psk(IDENTITY, *b"another key here"),
        ClientConfig::psk("lamp-8", KEY),
    ] {
        let net = SimNet::seeded(3);
        let server = shout(&net, builder(3).engine().unwrap());
        let connector = config
            .insecure_seeds()
            .connector(net.clone(), &Tagged(Text));
        let mut client = Client::builder(Tagged(Text))
            .fail_when_unreachable(true)
            .with_connector(connector.unwrap(), server_addr())
            .unwrap();
        let error = client.request("hello").unwrap_err();
        assert!(
            matches!(error, RequestError::Unreachable { .. }),
            "{error:?}"
        );
        assert!(
            net.now().monotonic < Duration::from_secs(1),
            "the alert came at once"
        );
        texts.push(format!("{error:?}"));
        let stats = server.stats();
        assert_eq!(stats.failed(HandshakeFailure::Authentication), 1);
        assert_eq!((stats.established, stats.half_open), (0, 0));
        assert!(stats.conserves());
    }
    assert_eq!(texts[0], texts[1]);
    assert!(
        texts[0].contains("no association with the server"),
        "{}",
        texts[0]
    );
}

#[test]
fn payloads_of_every_length_pass_up_to_the_limit_and_longer_ones_are_refused() {
    let net = SimNet::seeded(4);
    let builder = builder(4).max_request_bytes(16_384);
    let server = shout(&net, builder.engine().unwrap());
    let mut client = client(&net, config());
    // A tag of eight digits stands in front of each.
    for len in [0, 1, 1_000, 9_000, 16_384 - 16] {
        let text = "x".repeat(len);
        assert_eq!(
            client.request(&text[..]).unwrap(),
            text.to_uppercase(),
            "{len}"
        );
    }
    let error = client.request(&"x".repeat(16_500)[..]).unwrap_err();
    assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
    assert_eq!(server.stats().payloads, 5);
}

#[test]
fn a_request_beyond_the_limit_is_dropped_before_it_is_decrypted_and_counted() {
    // `TLS_PSK_WITH_AES_128_CCM_8` protects with 8 bytes less than the longest.
    for (len, is_answered) in [(100, true), (108, true), (109, false), (9_000, false)] {
        let net = SimNet::seeded(7);
        let engine = builder(7).max_request_bytes(100).engine().unwrap();
        let server = shout(&net, engine);
        let mut client = client(&net, config());
        // A tag of nine bytes stands in front.
        let text = "x".repeat(len - 9);
        let answer = client.request(&text[..]).map(str::to_owned).ok();
        assert_eq!(answer, is_answered.then(|| text.to_uppercase()), "{len}");
        let stats = server.stats();
        assert_eq!(stats.dropped(DtlsDrop::TooLong) == 0, is_answered, "{len}");
        assert!(stats.conserves() && stats.associations >= 1, "{len}");
    }
}

#[test]
fn an_oversize_response_is_an_error_counted_and_no_datagram() {
    use rejoinder::sans_io::ServerCore;

    let net = SimNet::seeded(5);
    let core = ServerCore::new(Tagged(Text), |_: &str| Some("x".repeat(2_000)));
    let engine = builder(5).max_payload_bytes(1_000).engine().unwrap();
    let server = crate::support::Hosted::new(&net, engine, core);
    let mut client = client(&net, config());
    assert!(client.request("much").is_err());
    let stats = server.stats();
    assert_eq!(stats.sent, 0);
    assert!(stats.unsent >= 1);
    assert!(stats.conserves());
}

#[test]
fn without_an_association_protected_records_are_dropped_in_silence() {
    let net = SimNet::seeded(6);
    let server = shout(&net, builder(6).engine().unwrap());
    let tap = Tap::new(net.clone());
    let mut first = client_over(tap.clone(), config());
    first.request("hello").unwrap();
    let record = tap.passed().into_iter().rfind(|one| one.is_sent).unwrap();
    let before = net.trace().total();
    net.inject(
        "10.0.0.9:7000".parse().unwrap(),
        server_addr(),
        &record.bytes,
    );
    net.advance(Duration::from_secs(1));
    assert_eq!(net.trace().total(), before + 1);
    assert_eq!(server.stats().dropped(DtlsDrop::NoAssociation), 1);
}
