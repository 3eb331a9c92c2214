//! `CoAP`: requests, and what must be reset or ignored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coap_lite::Packet;
use rejoinder::bot::zurich;
use rejoinder::codec::ResponseKind;
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Delivery, Inbox, Meta, Outbox};
use rejoinder::{Codec, DropReason, Handler, Timestamp};
use rejoinder_protocols::coap::codec::Coap;

use super::{PEER, answer, ask, ask_as, hex};

/// The example's handler, and how often it was asked.
fn coap() -> (ServerCore<Coap, impl Handler<Coap>>, Arc<AtomicU32>) {
    let robot = zurich();
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let handler = move |request: Packet| {
        counter.fetch_add(1, Ordering::Relaxed);
        rejoinder_protocols::coap::zurich::answer(&robot, &request)
    };
    let handler = rejoinder_protocols::coap::quiet_in_groups(handler);
    (
        ServerCore::new(Coap, rejoinder_protocols::coap::once(handler)),
        asked,
    )
}

#[test]
fn coap_acknowledges_with_the_answer_and_once() {
    let (mut core, asked) = coap();
    // CON POST, message id 0x1234, token 0x55, Uri-Path "zurich".
    let post = |kind: u8| {
        [
            &[kind, 2, 0x12, 0x34, 0x55, 0xb6],
            &b"zurich\xff"[..],
            "你好吗？".as_bytes(),
        ]
        .concat()
    };
    // ACK 2.04, Content-Format 0.
    let expected = [
        &[0x61, 0x44, 0x12, 0x34, 0x55, 0xc0, 0xff],
        "【机器人】小Zurich 好!".as_bytes(),
    ]
    .concat();
    for _ in 0..3 {
        assert_eq!(answer(&mut core, &post(0x41)), expected);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    // Not confirmable: the same, but not an acknowledgement. Another message id, another exchange.
    let mut non = post(0x51);
    non[3] = 0x35;
    assert_eq!(answer(&mut core, &non)[..5], [0x51, 0x44, 0x12, 0x35, 0x55]);
    // No client waits for an answer to its duplicate.
    assert!(ask(&mut core, &non).is_empty());
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn coap_resets_what_is_confirmable_and_malformed() {
    let (mut core, _) = coap();
    // A token of 15 bytes; a method class that is none; a payload marker without a payload.
    for bad in ["4f011234", "40c11234", "40011234ff"] {
        assert_eq!(answer(&mut core, &hex(bad)), hex("70001234"), "{bad}");
    }
    // Not confirmable; of another version; without an id.
    for bad in ["5f011234", "8f011234", "4f0112"] {
        assert!(ask(&mut core, &hex(bad)).is_empty(), "{bad}");
    }
    assert_eq!(core.stats().rejected, 3);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 6);
}

/// RFC 7252 §4.2 and §4.3: what is confirmable must be acknowledged or reset, and a server that asks nothing
/// expects no response. aiocoap's server does the same with the codes of responses.
#[test]
fn coap_resets_a_confirmable_message_with_a_code_that_is_no_requests() {
    let (mut core, asked) = coap();
    let group = || {
        let mut meta = Meta::new(PEER.parse().unwrap());
        meta.delivery = Delivery::Multicast;
        meta
    };
    let mut resets = 0;
    // Classes 1 to 7, each with its first, some and its last code.
    for code in (1..8).flat_map(|class| [0, 1, 4, 5, 31].map(|detail| class << 5 | detail)) {
        for (kind, rest) in [
            (0x40, &b""[..]),
            (0x42, b"To"),
            (0x42, b"To\xffpayload"),
            // Options that cannot be read, and a marker without a payload.
            (0x40, b"\xf0"),
            (0x40, b"\xff"),
            (0x4f, b""),
        ] {
            let message = [&[kind, code, 0xab, 0xcd], rest].concat();
            assert_eq!(
                ask(&mut core, &message),
                [[0x70, 0, 0xab, 0xcd]],
                "{message:x?}"
            );
            resets += 1;
            assert!(
                ask_as(&mut core, group(), &message).is_empty(),
                "{message:x?}"
            );
            // Not confirmable, acknowledgement, reset; other versions.
            for other in [0x10, 0x20, 0x30, 0x40, 0xc0, 0x80] {
                let message = [&[kind ^ other, code, 0xab, 0xcd], rest].concat();
                assert!(ask(&mut core, &message).is_empty(), "{message:x?}");
            }
        }
        // Without an id there is nothing to reset.
        assert!(ask(&mut core, &[0x40, code, 0xab]).is_empty());
    }
    // A request, or nothing, in an acknowledgement or a reset.
    for code in [0, 1, 2] {
        for kind in [0x60, 0x70] {
            assert!(ask(&mut core, &[kind, code, 0xab, 0xcd]).is_empty());
        }
    }
    assert_eq!(core.stats().rejected, resets);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// RFC 7252 §8.1 and §8.2.
#[test]
fn coap_answers_a_group_only_with_what_is_of_use() {
    let get = |kind: u8, code: u8, path: &[u8]| {
        let id = kind ^ code;
        [&[kind, code, 0xab, id], path].concat()
    };
    let zurich = [&b"\xb6zurich"[..], b"\x43q=x"].concat();
    for delivery in [Delivery::Multicast, Delivery::Broadcast] {
        let (mut core, asked) = coap();
        let mut meta = Meta::new(PEER.parse().unwrap());
        meta.delivery = delivery;
        let [response] = ask_as(&mut core, meta, &get(0x50, 1, &zurich))
            .try_into()
            .unwrap();
        assert_eq!(response[..2], [0x50, 0x45]);
        // 4.04, 4.05 and 4.02; the first of them to this machine alone gets its response.
        for (code, path) in [(1, &b"\xb1x"[..]), (3, b""), (1, b"\x30")] {
            assert!(ask_as(&mut core, meta, &get(0x50, code, path)).is_empty());
        }
        // A ping, and a request that is confirmable.
        let before = asked.load(Ordering::Relaxed);
        for (code, path) in [(0, &b""[..]), (1, &zurich)] {
            assert!(ask_as(&mut core, meta, &get(0x40, code, path)).is_empty());
        }
        assert_eq!(asked.load(Ordering::Relaxed), before);
        assert_eq!(core.stats().rejected, 0);
    }
    let (mut core, _) = coap();
    assert_eq!(
        answer(&mut core, &get(0x50, 1, b"\xb1x"))[..2],
        [0x50, 0x84]
    );
}

#[test]
fn a_coap_client_knows_an_acknowledgement_and_a_reset() {
    let request = hex("42011234 1234");
    for (message, kind) in [
        ("60001234", ResponseKind::Acknowledged),
        ("70001234", ResponseKind::Refused),
        ("62451234 1234", ResponseKind::Whole),
        ("42459999 1234", ResponseKind::Whole),
    ] {
        let message = hex(message);
        assert_eq!(Coap.response_id(&message), Some(0x1234));
        assert!(Coap.response_matches(&request, &message));
        assert_eq!(Coap.response_kind(&request, &message), kind);
    }
    assert!(!Coap.response_matches(&request, &hex("60001235")));
    let reset = Coap.decode_response(&hex("70001234"));
    assert_eq!(
        reset.unwrap_err().to_string(),
        "a reset: the peer does not process the message"
    );
}

#[test]
fn coap_looks_at_the_options_the_method_and_the_path_in_this_order() {
    let (mut core, _) = coap();
    let mut message_id = 0;
    for (code, options, expected) in [
        (
            1,
            &[
                0xb6, b'z', b'u', b'r', b'i', b'c', b'h', 0x43, b'q', b'=', b'x',
            ][..],
            0x45,
        ),
        // PUT, FETCH and an unassigned method, to a path that does not exist.
        (3, &[0xb1, b'x'], 0x85),
        (5, &[0xb1, b'x'], 0x85),
        (31, &[0xb1, b'x'], 0x85),
        (1, &[0xb1, b'x'], 0x84),
        // Accept: two formats; three bytes. Uri-Host: none.
        (1, &[0xd0, 4, 0x00], 0x82),
        (1, &[0xd3, 4, 0, 0, 0], 0x82),
        (1, &[0x30], 0x82),
        (31, &[0xd3, 4, 0, 0, 0], 0x82),
    ] {
        for (kind, answered) in [(0x40, true), (0x50, expected != 0x82)] {
            message_id += 1;
            let request = [&[kind, code, 0, message_id], options].concat();
            let codes: Vec<u8> = ask(&mut core, &request).iter().map(|it| it[1]).collect();
            let expected = Vec::from_iter(answered.then_some(expected));
            assert_eq!(codes, expected, "{request:x?}");
        }
    }
}

#[test]
fn coap_says_so_when_the_answer_is_too_long() {
    let (mut core, asked) = coap();
    // 921 bytes, and 自己 has twice as many as 我.
    let text = format!("你{}吗？", "我".repeat(304));
    let request = [
        &[0x41, 2, 0x12, 0x34, 0x55, 0xb6],
        &b"zurich\xff"[..],
        text.as_bytes(),
    ]
    .concat();
    for _ in 0..2 {
        let (mut inbox, mut outbox) = (Inbox::new(1, 1152), Outbox::new(16, 1152));
        inbox.push(&request, Meta::new(PEER.parse().unwrap()));
        core.handle(Timestamp::system(), &mut inbox, &mut outbox);
        let answers: Vec<&[u8]> = outbox.iter().map(|it| it.bytes).collect();
        // ACK 5.00.
        let expected = [
            &[0x61, 0xa0, 0x12, 0x34, 0x55, 0xff],
            &b"the answer is too long"[..],
        ];
        assert_eq!(answers, [expected.concat()]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn coap_answers_a_ping_with_a_reset_and_garbage_with_a_reset_or_silence() {
    let (mut core, _) = coap();
    assert_eq!(
        answer(&mut core, &[0x40, 0, 0xab, 0xcd]),
        [0x70, 0, 0xab, 0xcd]
    );
    for garbage in [
        &[0x40, 0, 0xab][..],
        // A ping with a token, or a payload; one that is not confirmable; version 2.
        &[0x41, 0, 0xab, 0xcd, 1],
        &[0x40, 0, 0xab, 0xcd, 0xff, 1],
        &[0x50, 0, 0xab, 0xcd],
        &[0x80, 1, 0xab, 0xcd],
        // A payload marker without a payload; a token of 9 bytes; the reserved class 1.
        &[0x40, 1, 0xab, 0xcd, 0xff],
        &[0x49, 1, 0xab, 0xcd, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[0x40, 0x21, 0xab, 0xcd],
    ] {
        // What is confirmable and has an id is reset.
        let reset: &[Vec<u8>] = match garbage {
            [0x40..=0x4f, _, _, _, ..] => &[vec![0x70, 0, 0xab, 0xcd]],
            _ => &[],
        };
        assert_eq!(ask(&mut core, garbage), reset, "{garbage:x?}");
    }
    // Acknowledgement, reset, a response of its own that is not confirmable.
    for response in [[0x60, 0x45, 0, 1], [0x70, 0, 0, 1], [0x50, 0x45, 0, 1]] {
        assert!(ask(&mut core, &response).is_empty());
    }
    assert_eq!(core.stats().dropped(DropReason::Response), 3);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 8);
}
