use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::{Gate, RateLimit, RateLimitBuilder, ResponseSize, Subject};
use crate::drop_reason::DropReason;
use crate::identity::Identity;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Meta};

/// Many more than there is room for; under Miri, which is slow, some more.
const NETWORKS: u32 = if cfg!(miri) { 300 } else { 100_000 };

fn builder() -> RateLimitBuilder {
    RateLimit::builder().key([7; 16]).max_prefixes(256)
}

/// Asks once at a time, and takes one answer of `bytes` if it may.
fn ask_for(limit: &mut RateLimit, millis: u64, peer: &str, bytes: usize) -> bool {
    let now = Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH);
    let peer: IpAddr = peer.parse().unwrap();
    let datagram = Datagram::new(b"?", Meta::new((peer, 50_000).into()));
    let admitted = limit.accept(now, &datagram).is_ok();
    if admitted {
        limit
            .allow_responses(now, &datagram, ResponseSize::new(1, bytes))
            .unwrap();
    }
    admitted
}

fn ask(limit: &mut RateLimit, millis: u64, peer: &str) -> bool {
    ask_for(limit, millis, peer, 1)
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let mut limit = builder().responses_per_second(10).build().unwrap();
    for second in 0..5 {
        let answered = (0..100)
            .filter(|step| ask(&mut limit, second * 1_000 + step * 10, "192.0.2.1"))
            .count();
        assert_eq!(answered, if second == 0 { 20 } else { 10 });
    }
    // After a pause there is one burst again, and no more.
    let answered = (0..100)
        .filter(|_| ask(&mut limit, 60_000, "192.0.2.1"))
        .count();
    assert_eq!(answered, 10);
}

#[test]
fn bytes_on_the_wire_count_as_well_as_answers() {
    let mut limit = builder().bytes_per_second(10_000).build().unwrap();
    let answered = (0..100)
        .filter(|_| ask_for(&mut limit, 0, "192.0.2.1", 972))
        .count();
    assert_eq!(answered, 10);
    let answered = (0..100)
        .filter(|_| ask_for(&mut limit, 0, "2001:db8::1", 952))
        .count();
    assert_eq!(answered, 10);
}

#[test]
fn one_long_answer_is_paid_for_in_full() {
    let mut limit = builder().bytes_per_second(1_000).build().unwrap();
    assert!(ask_for(&mut limit, 0, "192.0.2.1", 9_972));
    assert!(!ask(&mut limit, 8_999, "192.0.2.1"));
    assert!(ask(&mut limit, 9_001, "192.0.2.1"));
}

#[test]
fn silence_costs_nothing() {
    let mut limit = builder().responses_per_second(1).build().unwrap();
    let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
    let datagram = Datagram::new(b"?", Meta::new("192.0.2.1:50000".parse().unwrap()));
    assert!((0..1_000).all(|_| limit.accept(now, &datagram).is_ok()));
}

#[test]
fn a_network_has_one_budget_and_others_have_their_own() {
    let mut limit = builder().responses_per_second(1).build().unwrap();
    assert!(ask(&mut limit, 0, "192.0.2.1"));
    assert!(!ask(&mut limit, 0, "192.0.2.200"));
    assert!(!ask(&mut limit, 0, "::ffff:192.0.2.9"));
    assert!(ask(&mut limit, 0, "192.0.3.1"));
    assert!(ask(&mut limit, 0, "2001:db8:0:100::1"));
    assert!(!ask(&mut limit, 0, "2001:db8:0:1ff::1"));
    assert!(ask(&mut limit, 0, "2001:db8:0:200::1"));
}

#[test]
fn hosts_that_share_a_translator_a_relay_or_a_link_are_no_network() {
    let mut limit = builder().responses_per_second(1).build().unwrap();
    for (first, same, other) in [
        // NAT64, and the same network without it.
        (
            "64:ff9b::192.0.2.1",
            "64:ff9b::192.0.2.2",
            "64:ff9b::192.0.3.1",
        ),
        (
            "198.51.100.1",
            "64:ff9b::198.51.100.9",
            "64:ff9b::198.51.101.1",
        ),
        // NAT64 with a prefix of its own.
        ("64:ff9b:1::1", "64:ff9b:1::1", "64:ff9b:1::2"),
        // Teredo: 203.0.113.1, 203.0.113.2 and 203.0.112.1 behind one server.
        (
            "2001:0:4136:e378:8000:63bf:34ff:8efe",
            "2001:0:4136:e378:8000:1111:34ff:8efd",
            "2001:0:4136:e378:8000:63bf:34ff:8ffe",
        ),
        // Teredo, beside the same network without it: 198.18.7.1, and 198.19.7.1 elsewhere.
        (
            "198.18.7.9",
            "2001:0:4136:e378:8000:63bf:39ed:f8fe",
            "2001:0:4136:e378:8000:63bf:39ec:f8fe",
        ),
        ("fe80::1", "fe80::1", "fe80::2"),
    ] {
        assert!(ask(&mut limit, 0, first), "{first}");
        assert!(!ask(&mut limit, 0, same), "{same}");
        assert!(ask(&mut limit, 0, other), "{other}");
    }
}

#[test]
fn prefixes_can_be_set_to_their_ends() {
    let mut all = builder()
        .responses_per_second(1)
        .v4_prefix(0)
        .v6_prefix(128)
        .build()
        .unwrap();
    assert!(ask(&mut all, 0, "192.0.2.1"));
    assert!(!ask(&mut all, 0, "198.51.100.1"));
    assert!(ask(&mut all, 0, "2001:db8::1"));
    assert!(ask(&mut all, 0, "2001:db8::2"));
}

#[test]
fn exempt_networks_are_not_limited() {
    let mut limit = builder()
        .responses_per_second(1)
        .exempt("10.1.2.3".parse().unwrap(), 8)
        .exempt("fd00::".parse().unwrap(), 8)
        .build()
        .unwrap();
    for peer in ["10.200.0.1", "::ffff:10.0.0.1", "fd12::1"] {
        assert!((0..100).all(|_| ask(&mut limit, 0, peer)), "{peer}");
    }
    assert!(ask(&mut limit, 0, "11.0.0.1"));
    assert!(!ask(&mut limit, 0, "11.0.0.1"));
}

#[test]
fn a_short_exempt_prefix_of_ipv6_holds_nothing_of_ipv4() {
    for (network, bits) in [("::", 0), ("::", 64), ("::1", 80)] {
        let mut limit = builder()
            .responses_per_second(1)
            .exempt(network.parse().unwrap(), bits)
            .build()
            .unwrap();
        assert!((0..100).all(|_| ask(&mut limit, 0, "::1")));
        for peer in ["192.0.2.1", "::ffff:198.51.100.1"] {
            assert!(ask(&mut limit, 0, peer) && !ask(&mut limit, 0, peer));
        }
    }
    // What is written as a mapped address is one of IPv4.
    let mut limit = builder()
        .responses_per_second(1)
        .exempt("::ffff:10.0.0.0".parse().unwrap(), 104)
        .build()
        .unwrap();
    assert!((0..100).all(|_| ask(&mut limit, 0, "10.1.2.3")));
}

#[test]
fn no_rate_is_so_high_that_it_is_none() {
    let mut limit = builder()
        .responses_per_second(u32::MAX)
        .bytes_per_second(u64::MAX)
        .burst(Duration::from_nanos(10))
        .build()
        .unwrap();
    let answered = (0..100).filter(|_| ask(&mut limit, 0, "192.0.2.1")).count();
    assert!((10..=11).contains(&answered), "{answered}");
}

#[test]
fn a_bad_value_is_an_error() {
    let v4 = "10.0.0.0".parse().unwrap();
    for (builder, message) in [
        (
            builder().responses_per_second(0),
            "responses_per_second is 0, must be more than 0",
        ),
        (
            builder().bytes_per_second(0),
            "bytes_per_second is 0, must be more than 0",
        ),
        (
            builder().burst(Duration::ZERO),
            "burst is 0, must be more than 0",
        ),
        (
            builder().max_prefixes(0),
            "max_prefixes is 0, must be 1 to 16777216",
        ),
        (
            builder().v4_prefix(33),
            "v4_prefix is 33, must be 0 to 32 bits",
        ),
        (
            builder().v6_prefix(129),
            "v6_prefix is 129, must be 0 to 128 bits",
        ),
        (
            builder().exempt(v4, 33),
            "exempt is 33, must be 0 to 32 bits",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().to_string(), message);
    }
}

#[test]
fn extreme_values_do_not_overflow() {
    let mut limit = builder()
        .responses_per_second(1)
        .bytes_per_second(1)
        .burst(Duration::MAX)
        .build()
        .unwrap();
    for millis in [0, u64::MAX, 1, u64::MAX] {
        ask_for(&mut limit, millis, "192.0.2.1", usize::MAX / 2);
    }
}

#[test]
fn a_flood_of_networks_neither_grows_the_table_nor_limits_a_newcomer() {
    let mut limit = builder().responses_per_second(1).build().unwrap();
    let memory = limit.memory_bytes();
    assert_eq!(memory, 256 * 16);
    let larger = builder().max_prefixes(1_024).build().unwrap();
    assert_eq!(larger.memory_bytes(), 1_024 * 16);
    for network in 0..NETWORKS {
        let [_, a, b, c] = network.to_be_bytes();
        let peer = format!("{}.{b}.{c}.1", 1 + a);
        assert!(
            ask(&mut limit, 0, &peer),
            "{peer} is limited for what others did"
        );
    }
    assert_eq!(limit.memory_bytes(), memory);
}

#[test]
fn who_owes_much_is_not_forgotten_in_a_flood_of_those_who_owe_little() {
    let mut limit = builder()
        .responses_per_second(100)
        .burst(Duration::from_secs(1))
        .build()
        .unwrap();
    while ask(&mut limit, 0, "192.0.2.1") {}
    for network in 0..NETWORKS {
        let [_, a, b, c] = network.to_be_bytes();
        ask(&mut limit, 0, &format!("{}.{b}.{c}.1", 1 + a));
    }
    assert!(!ask(&mut limit, 0, "192.0.2.1"));
}

#[test]
fn clones_share_the_budget() {
    let mut limit = builder().responses_per_second(1).build().unwrap();
    let mut clone = limit.clone();
    assert!(ask(&mut limit, 0, "192.0.2.1"));
    assert!(!ask(&mut clone, 0, "192.0.2.1"));
}

#[test]
fn the_key_is_not_shown_and_random_by_default() {
    let secret = builder().key([123; 16]);
    assert!(!format!("{secret:?}{:?}", secret.clone().build().unwrap()).contains("123"));
    let [one, two] = [RateLimit::default(), RateLimit::default()];
    let ip = "192.0.2.1".parse().unwrap();
    let hash = |limit: &RateLimit| {
        let shared = &limit.shared;
        let Subject::Prefix(prefixes) = &shared.subject else {
            panic!("limits prefixes unless set otherwise");
        };
        shared.table.hash(&prefixes.of(ip).unwrap().to_be_bytes())
    };
    assert_ne!(hash(&one), hash(&two));
}

#[test]
fn networks_are_spread_over_the_whole_table() {
    // A quarter of the places: in sets of four, few have no room.
    let (places, networks) = (1 << 14, 1_u32 << 12);
    let limit = RateLimit::builder().key([7; 16]).max_prefixes(places);
    let mut limit = limit.responses_per_second(1).build().unwrap();
    let mut answered = || {
        (0..networks)
            .filter(|network| {
                let [_, _, b, c] = network.to_be_bytes();
                ask(&mut limit, 0, &format!("10.{b}.{c}.1"))
            })
            .count()
    };
    assert_eq!(answered(), 4_096);
    let forgotten = answered();
    assert!(forgotten < 100, "{forgotten} of {networks}");
}

/// Asks once at a time as an identity, and takes one answer if it may.
fn ask_as(limit: &mut RateLimit, millis: u64, identity: &str) -> bool {
    let now = Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH);
    let identity = Identity::from(identity);
    let meta = Meta::new("192.0.2.1:50000".parse().unwrap());
    let datagram = Datagram::new(b"?", meta).identified(Some(&identity));
    let admitted = limit
        .accept(now, &datagram)
        .and_then(|()| limit.accept_identified(now, &datagram));
    if admitted.is_ok() {
        let one = ResponseSize::new(1, 1);
        limit.allow_responses(now, &datagram, one).unwrap();
    }
    assert!(matches!(admitted, Ok(()) | Err(DropReason::RateLimited)));
    admitted.is_ok()
}

#[test]
fn each_identity_has_a_budget_and_strangers_pass() {
    let limited = builder().responses_per_second(10).per_identity();
    let mut limit = limited.build().unwrap();
    for identity in ["one", "other", "\0", ""] {
        let answered = (0..100).filter(|_| ask_as(&mut limit, 0, identity)).count();
        assert_eq!(answered, 10, "{identity:?}");
    }
    assert!((0..100).all(|_| ask(&mut limit, 0, "192.0.2.1")));
    // An answer is paid for after it was given.
    assert!(ask_as(&mut limit, 1, "one"));
    assert!(!ask_as(&mut limit, 99, "one"));
    assert!(ask_as(&mut limit, 101, "one"));
}

#[test]
fn a_limit_of_networks_is_blind_to_identities() {
    let mut limit = builder().responses_per_second(10).build().unwrap();
    let identities = (0..100).map(|number| number.to_string());
    let answered = identities.filter(|identity| ask_as(&mut limit, 0, identity));
    assert_eq!(answered.count(), 10);
}

#[test]
fn a_table_of_identities_is_bounded() {
    let limited = builder().responses_per_second(10).per_identity();
    let mut limit = limited.build().unwrap();
    let memory = limit.memory_bytes();
    for number in 0..NETWORKS {
        assert!(ask_as(&mut limit, 0, &number.to_string()));
    }
    assert_eq!(limit.memory_bytes(), memory);
}
