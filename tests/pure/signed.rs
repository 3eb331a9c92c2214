//! `Signed`: what proves its sender is answered once, and what does not is dropped with the stated reason and
//! never answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::sample::Index;
use rejoinder::codec::{Raw, Signed, SignedBuilder, SignedError, SigningKey, Tagged, Text};
use rejoinder::gate::RateLimit;
use rejoinder::handler::{Dedup, MAX_RESPONSES};
use rejoinder::proxy::{Header, Proxies, ProxyMode};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
use rejoinder::{
    Client, Codec, ConfigError, Context, DropReason, Handler, Identity, Reply, ReplyError, Retry,
    Server, Timestamp, Writer,
};

type Fault = SignedError<rejoinder::codec::TextError>;

/// When the codecs of these tests are built, in seconds since 1970.
const START: u64 = 1_562_519_878;

/// So many microseconds after the start.
fn at(micros: i64) -> Timestamp {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(START);
    let span = Duration::from_micros(micros.unsigned_abs());
    let wall = if micros < 0 { wall - span } else { wall + span };
    Timestamp::new(Duration::from_secs(5), wall)
}

const SECOND: i64 = 1_000_000;

fn key(id: u32) -> SigningKey {
    SigningKey::new(id, [u8::try_from(id % 251).unwrap(); 32])
}

fn builder() -> SignedBuilder<Text> {
    Signed::builder(Text).salt(*b"salted..")
}

fn codec() -> Signed<Text> {
    builder().key(key(1)).build(at(0)).unwrap()
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn written<E: fmt::Debug>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Vec<u8> {
    let mut space = vec![0; 2_048];
    let mut out = Writer::new(&mut space);
    write(&mut out).unwrap();
    let len = out.finish().unwrap();
    space.truncate(len);
    space
}

/// A request as a client sends it.
fn request<C>(codec: &C, id: u64, text: &str, now: Timestamp) -> Vec<u8>
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let mut bytes = written(|out| codec.encode_request(id, text, out));
    codec.stamp_request(now, &mut bytes);
    bytes
}

fn response<C>(codec: &C, request: &[u8], text: &str) -> Vec<u8>
where
    C: for<'a> Codec<Answer<'a> = &'a dyn fmt::Display>,
{
    written(|out| codec.encode_response(at(0), request, &text, out))
}

/// Answers with the identity of the peer and how often it was asked.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<u32>>);

impl<C> Handler<C> for Counting
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    fn handle(
        &self,
        text: &str,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        let identity = context.identity().unwrap();
        reply.send(&format_args!("{text} {identity} {count}"))
    }
}

/// Passes one datagram through a core; returns what leaves.
fn pass<C: Codec, H: Handler<C>, G: rejoinder::gate::Gate>(
    core: &mut ServerCore<C, H, G>,
    now: Timestamp,
    from: SocketAddr,
    bytes: &[u8],
) -> Vec<Vec<u8>> {
    let (mut inbox, mut outbox) = (Inbox::new(1, 2_048), Outbox::new(MAX_RESPONSES, 2_048));
    inbox.push(bytes, Meta::new(from));
    core.handle(now, &mut inbox, &mut outbox);
    assert!(inbox.is_empty() && core.stats().is_conserved());
    outbox.iter().map(|reply| reply.bytes.to_vec()).collect()
}

#[test]
fn a_signed_request_is_answered_with_a_signed_response() {
    let key = key(1).identity(Identity::from("sensor"));
    let codec = builder().key(key).build(at(0)).unwrap();
    let mut core = ServerCore::new(codec.clone(), Counting::default());
    let asked = request(&codec, 7, "how", at(0));
    assert_eq!(asked.len(), 45 + 3);
    let replies = pass(&mut core, at(0), peer(7_777), &asked);
    let [reply] = &replies[..] else {
        panic!("one reply: {replies:?}")
    };
    assert_eq!(reply.len(), 37 + "how sensor 1".len());
    assert!(codec.is_response(reply) && !codec.is_response(&asked));
    assert!(codec.is_authentic_response(&asked, reply) && codec.response_matches(&asked, reply));
    assert_eq!(codec.decode_response(reply), Ok("how sensor 1"));
    assert_eq!(codec.request_id(&asked), Some(7));
    assert_eq!(codec.response_id(reply), Some(7));
}

#[test]
fn the_identity_of_a_key_is_its_number_unless_it_has_another() {
    let keys = builder().key(key(4_000_000_000)).key(key(2));
    let codec = keys.build(at(0)).unwrap();
    let asked = request(&codec, 7, "x", at(0));
    let identity = codec.authenticate(at(0), &asked).unwrap().unwrap();
    assert_eq!(identity.as_str(), Some("4000000000"));
}

#[test]
fn each_way_to_prove_nothing_has_its_error_and_no_response() {
    let codec = codec();
    let asked = |now| request(&codec, 7, "x", now);
    let by = |builder: SignedBuilder<Text>| request(&builder.build(at(0)).unwrap(), 7, "x", at(1));
    let unstamped = written(|out| codec.encode_request(7, "x", out));
    let minute = 60 * SECOND;
    let (age, window) = (Duration::from_micros(60_000_001), Duration::from_secs(60));
    let cases = [
        ("nothing", vec![], Fault::NotSigned),
        ("plain text", b"hello".to_vec(), Fault::NotSigned),
        (
            "an empty envelope but for a byte",
            asked(at(1))[..44].to_vec(),
            Fault::NotSigned,
        ),
        ("not stamped", unstamped, Fault::WrongSignature),
        (
            "another secret",
            by(builder().key(SigningKey::new(1, [9; 32]))),
            Fault::WrongSignature,
        ),
        (
            "another service",
            by(builder().key(key(1)).service("x")),
            Fault::WrongSignature,
        ),
        (
            "another key",
            by(builder().key(key(2))),
            Fault::UnknownKey { id: 2 },
        ),
        ("before the start", asked(at(-1)), Fault::Forgotten),
        ("long ago", asked(at(-1)), Fault::TooOld { age, window }),
        (
            "in the future",
            asked(at(2 * minute)),
            Fault::TooEarly { ahead: age, window },
        ),
    ];
    let mut core = ServerCore::new(codec.clone(), Counting::default());
    for (number, (case, bytes, error)) in (1..).zip(cases) {
        let now = match error {
            Fault::TooOld { .. } => at(minute),
            Fault::TooEarly { .. } => at(minute - 1),
            _ => at(1),
        };
        assert_eq!(codec.authenticate(now, &bytes), Err(error), "{case}");
        assert!(
            pass(&mut core, now, peer(7_777), &bytes).is_empty(),
            "{case}"
        );
        let unauthenticated = core.stats().dropped(DropReason::Unauthenticated);
        assert_eq!(unauthenticated, number, "{case}");
    }
    // The edges of the window are inside.
    let mut at_edge = |now, signed, id| {
        let asked = request(&codec, id, "x", at(signed));
        pass(&mut core, at(now), peer(7_777), &asked).len()
    };
    assert_eq!(at_edge(minute, 0, 1), 1);
    assert_eq!(at_edge(minute, 2 * minute, 2), 1);
}

#[test]
fn a_replay_is_dropped_whatever_its_address() {
    let codec = codec();
    let mut core = ServerCore::new(codec.clone(), Counting::default());
    let asked = request(&codec, 7, "x", at(1));
    assert_eq!(pass(&mut core, at(1), peer(7_777), &asked).len(), 1);
    for (number, port) in (1..).zip([7_777, 7_778]) {
        assert_eq!(codec.authenticate(at(2), &asked), Err(Fault::Replayed));
        assert!(pass(&mut core, at(2), peer(port), &asked).is_empty());
        assert_eq!(core.stats().dropped(DropReason::Unauthenticated), number);
    }
    // A clone is another worker of the same server.
    let mut other = ServerCore::new(codec.clone(), Counting::default());
    assert!(pass(&mut other, at(2), peer(7_777), &asked).is_empty());
}

#[test]
fn a_server_that_starts_again_accepts_nothing_of_before() {
    let before = codec();
    let [early, late, ahead] =
        [1, 9 * SECOND, 12 * SECOND].map(|time| request(&before, 7, "x", at(time)));
    for asked in [&early, &late, &ahead] {
        assert!(before.authenticate(at(9 * SECOND), asked).is_ok());
    }
    // The same keys, ten seconds later.
    let after = builder().key(key(1)).build(at(10 * SECOND)).unwrap();
    let now = at(10 * SECOND + 1);
    assert_eq!(after.authenticate(now, &early), Err(Fault::Forgotten));
    assert_eq!(after.authenticate(now, &late), Err(Fault::Forgotten));
    // The documented limit: the clock that signed this one was fast.
    assert!(after.authenticate(now, &ahead).is_ok());
    assert_eq!(after.authenticate(now, &ahead), Err(Fault::Replayed));
    assert!(
        after
            .authenticate(now, &request(&before, 8, "x", now))
            .is_ok()
    );
}

#[test]
fn no_load_has_a_replay_accepted_and_none_takes_places_of_another_key() {
    let keys = |first, second| {
        builder()
            .key(key(first))
            .key(key(second))
            .replay_capacity(8)
    };
    let server = keys(1, 2).build(at(0)).unwrap();
    let other = keys(2, 1).build(at(0)).unwrap();
    assert_eq!(server.memory_bytes(), 2 * 8 * 25);
    let honest = request(&other, 1, "x", at(1));
    assert!(server.authenticate(at(1), &honest).is_ok());
    let mut sent = Vec::new();
    // Miri is slow.
    let load = if cfg!(miri) { 40 } else { 1_000 };
    for number in 0..load {
        // At the end of the window, as one who wants to crowd out others would.
        let time = at(59 * SECOND + number);
        let id = number.unsigned_abs();
        sent.push(request(&server, id, "x", time));
        assert!(server.authenticate(at(2), &sent[sent.len() - 1]).is_ok());
    }
    let fault = |bytes: &Vec<u8>| server.authenticate(at(3), bytes).unwrap_err();
    let faults: Vec<_> = sent.iter().map(fault).collect();
    let (forgotten, known) = faults.split_at(faults.len() - 8);
    assert!(forgotten.iter().all(|fault| *fault == Fault::Forgotten));
    assert!(known.iter().all(|fault| *fault == Fault::Replayed));
    // Of the key that does it, what is honest is refused; of another, it is not.
    let honest_too = request(&server, 5_000, "x", at(4));
    assert_eq!(
        server.authenticate(at(4), &honest_too),
        Err(Fault::Forgotten)
    );
    assert_eq!(server.authenticate(at(4), &honest), Err(Fault::Replayed));
    assert!(
        server
            .authenticate(at(4), &request(&other, 2, "x", at(4)))
            .is_ok()
    );
    assert_eq!(server.memory_bytes(), 2 * 8 * 25);
}

#[test]
fn a_response_is_no_request_and_a_request_no_response() {
    let codec = codec();
    let mut core = ServerCore::new(codec.clone(), Counting::default());
    let asked = request(&codec, 7, "x", at(1));
    let answered = response(
        &codec,
        &asked,
        "a response that is longer than the header of a request",
    );
    assert!(pass(&mut core, at(1), peer(7_777), &answered).is_empty());
    assert_eq!(core.stats().dropped(DropReason::Response), 1);
    // With the mark of the other direction.
    let turned = [b"q", &answered[1..]].concat();
    assert_eq!(
        codec.authenticate(at(1), &turned),
        Err(Fault::WrongSignature)
    );
    assert!(pass(&mut core, at(1), peer(7_777), &turned).is_empty());

    let turned = [b"r", &asked[1..]].concat();
    for bytes in [&asked, &turned] {
        assert!(!codec.is_authentic_response(&asked, bytes));
    }
    // The same, so long that its parts are where those of a response are.
    let nonce_as_time = [b"r", &asked[1..5], &asked[13..29], &asked[29..]].concat();
    assert_eq!(codec.response_id(&nonce_as_time), Some(7));
    assert!(!codec.is_authentic_response(&asked, &nonce_as_time));
}

#[test]
fn a_response_to_another_request_is_not_authentic() {
    let codec = codec();
    let mine = request(&codec, 7, "ab", at(1));
    assert!(codec.is_authentic_response(&mine, &response(&codec, &mine, "c")));
    // Another id; another client; another key.
    let others = [
        request(&codec, 8, "ab", at(1)),
        request(
            &builder()
                .key(key(1))
                .salt(*b"another.")
                .build(at(0))
                .unwrap(),
            7,
            "ab",
            at(1),
        ),
    ];
    for other in others {
        let theirs = response(&codec, &other, "c");
        assert!(!codec.is_authentic_response(&mine, &theirs));
        // With this request's nonce in it.
        let forged = [&theirs[..5], &mine[13..29], &theirs[21..]].concat();
        assert_eq!(codec.response_id(&forged), Some(7));
        assert!(!codec.is_authentic_response(&mine, &forged));
    }
    let both = builder().key(key(2)).key(key(1)).build(at(0)).unwrap();
    let other_key = response(&both, &request(&both, 7, "ab", at(1)), "c");
    assert!(!codec.is_authentic_response(&mine, &other_key));
    assert!(!both.is_authentic_response(&mine, &other_key));
}

/// Two clients that were given one salt, against the documentation, draw the same id.
#[test]
fn a_nonce_of_two_clients_lets_neither_believe_the_answer_of_the_other() {
    let codec = codec();
    let (mine, theirs) = (
        request(&codec, 7, "ab", at(1)),
        request(&codec, 7, "a", at(1)),
    );
    assert_eq!(codec.response_id(&response(&codec, &theirs, "c")), Some(7));
    // The MAC covers the request, and where its end is.
    for answer in ["c", "bc", "b"] {
        let answered = response(&codec, &theirs, answer);
        assert!(!codec.is_authentic_response(&mine, &answered), "{answer}");
    }
    // The server accepts the second once it is sent again.
    assert!(codec.authenticate(at(1), &mine).is_ok());
    assert_eq!(codec.authenticate(at(1), &theirs), Err(Fault::Replayed));
    assert!(
        codec
            .authenticate(at(2), &request(&codec, 7, "a", at(2)))
            .is_ok()
    );
}

#[test]
fn a_retransmission_is_no_replay_and_any_response_answers_it() {
    let codec = codec();
    let mut bytes = request(&codec, 7, "x", at(10 * SECOND));
    let first = bytes.clone();
    assert!(codec.authenticate(at(10 * SECOND), &first).is_ok());
    let answer = response(&codec, &first, "y");
    // Forward, not at all, and back: each transmission is later than the one before.
    for (now, time) in [
        (11 * SECOND, 11 * SECOND),
        (11 * SECOND, 11 * SECOND + 1),
        (0, 11 * SECOND + 2),
    ] {
        let before = bytes.clone();
        codec.stamp_request(at(now), &mut bytes);
        assert_eq!(bytes, request(&codec, 7, "x", at(time)));
        assert!(codec.authenticate(at(11 * SECOND), &bytes).is_ok());
        assert_eq!(
            codec.authenticate(at(11 * SECOND), &before),
            Err(Fault::Replayed)
        );
        assert!(codec.is_authentic_response(&bytes, &answer));
        assert_eq!(codec.request_key(&bytes), codec.request_key(&first));
    }
    // The first one, held back until now, is one of before.
    assert_eq!(
        codec.authenticate(at(11 * SECOND), &first),
        Err(Fault::Replayed)
    );
}

#[test]
fn the_clock_may_say_anything() {
    let codec = builder()
        .key(key(1))
        .build(Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH));
    let codec = codec.unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let at_zero = Timestamp::new(Duration::ZERO, before_1970);
    let mut bytes = request(&codec, 7, "x", at_zero);
    assert!(codec.authenticate(at_zero, &bytes).is_ok());
    bytes[5..13].fill(0xff);
    codec.stamp_request(at(0), &mut bytes);
    assert_eq!(bytes[5..13], [0xff; 8]);
    assert!(matches!(
        codec.authenticate(at(0), &bytes),
        Err(Fault::TooEarly { .. })
    ));
}

#[test]
fn keys_are_replaced_while_the_server_runs() {
    let server = builder().key(key(1)).build(at(0)).unwrap();
    let worker = server.clone();
    let client = |id| builder().key(key(id)).build(at(0)).unwrap();
    let (old, new) = (client(1), client(2));
    let accepts = |client: &Signed<Text>, id, now| {
        let asked = request(client, id, "x", at(now));
        worker.authenticate(at(now), &asked).map(|_| asked)
    };
    let first = accepts(&old, 1, 1).unwrap();
    assert_eq!(accepts(&new, 1, 1), Err(Fault::UnknownKey { id: 2 }));

    server.set_keys(at(10), &[key(2), key(1)]).unwrap();
    assert!(accepts(&old, 2, 11).is_ok() && accepts(&new, 2, 11).is_ok());
    // What the old key accepted is still known, and of the new one nothing before its time is accepted.
    assert_eq!(worker.authenticate(at(12), &first), Err(Fault::Replayed));
    let earlier = request(&new, 3, "x", at(9));
    assert_eq!(worker.authenticate(at(12), &earlier), Err(Fault::Forgotten));
    // It signs what is sent from here.
    assert_eq!(
        request(&server, 4, "x", at(12)),
        request(&new, 4, "x", at(12))
    );

    let in_flight = accepts(&old, 5, 13).unwrap();
    server.set_keys(at(20), &[key(2)]).unwrap();
    assert_eq!(accepts(&old, 6, 21), Err(Fault::UnknownKey { id: 1 }));
    assert!(accepts(&new, 6, 21).is_ok());
    let mut space = [0; 100];
    let answered = worker.encode_response(at(21), &in_flight, &"y", &mut Writer::new(&mut space));
    assert_eq!(answered, Err(Fault::UnknownKey { id: 1 }));

    // A key that comes back, or has another secret, knows nothing of before.
    server.set_keys(at(30), &[key(2), key(1)]).unwrap();
    assert_eq!(
        worker.authenticate(at(31), &in_flight),
        Err(Fault::Forgotten)
    );
    server
        .set_keys(at(40), &[SigningKey::new(2, [9; 32])])
        .unwrap();
    assert_eq!(accepts(&new, 7, 41), Err(Fault::WrongSignature));

    // What is wrong changes nothing.
    assert!(server.set_keys(at(50), &[]).is_err());
    assert_eq!(accepts(&new, 8, 51), Err(Fault::WrongSignature));
}

#[test]
fn settings_out_of_range_are_errors_that_say_so() {
    let refused = |builder: SignedBuilder<Text>| match builder.build(at(0)) {
        Err(error @ ConfigError::OutOfRange { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let one = || builder().key(key(1));
    for (builder, message) in [
        (builder(), "key is 0, must be 1 to 65536"),
        (
            one().key(key(1)),
            "key is 1 twice, must be a number of its own",
        ),
        (
            one().key(SigningKey::new(2, [2; 15])),
            "bytes of a key's secret is 15, must be 16 to 1024",
        ),
        (
            one().window(Duration::ZERO),
            "window is 0ns, must be more than 0, at most 86400 s",
        ),
        (
            one().window(Duration::from_secs(86_401)),
            "window is 86401s, must be more than 0, at most 86400 s",
        ),
        (
            one().replay_capacity(0),
            "replay_capacity is 0, must be 1 to 16777216",
        ),
    ] {
        assert_eq!(refused(builder), message);
    }
    let shown = format!(
        "{:?} {:?}",
        one().key(SigningKey::new(2, [123; 32])),
        codec()
    );
    assert!(
        !shown.contains("123") && shown.contains("keys: [1]"),
        "{shown}"
    );
}

#[test]
fn the_salt_is_random_unless_it_is_set() {
    let build = || Signed::builder(Text).key(key(1)).build(at(0)).unwrap();
    assert_ne!(
        request(&build(), 7, "x", at(0)),
        request(&build(), 7, "x", at(0))
    );
}

fn changed(bytes: &[u8], at: Index, change: u8, kind: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let place = at.index(bytes.len());
    match kind {
        0 => changed[place] ^= 1 << (change % 8),
        1 => changed.truncate(place),
        2 => changed.push(change),
        3 => changed.insert(place, change),
        4 => drop(changed.remove(place)),
        5 => drop(changed.drain(..place)),
        _ => changed.rotate_left(place),
    }
    changed
}

proptest! {
    /// Invariant 4 and 5: no part and no change of a message proves anything.
    #[test]
    fn what_is_changed_proves_nothing(
        text in ".{0,40}",
        id: u64,
        place: Index,
        change: u8,
        kind in 0_u8..7,
    ) {
        let codec = Signed::builder(Tagged(Text)).salt([1; 8]).key(key(1)).build(at(0)).unwrap();
        let asked = request(&codec, id, &text, at(5));
        let mut core = ServerCore::new(codec.clone(), |_: &str| Some("an answer"));
        let bytes = changed(&asked, place, change, kind);
        prop_assume!(bytes != asked);
        prop_assert!(pass(&mut core, at(5), peer(7_777), &bytes).is_empty());
        let dropped = [DropReason::Unauthenticated, DropReason::Response];
        let dropped = dropped.map(|reason| core.stats().dropped(reason));
        prop_assert_eq!(dropped.iter().sum::<u64>(), 1);

        let answered = response(&codec, &asked, &text);
        let bytes = changed(&answered, place, change, kind);
        prop_assume!(bytes != answered);
        prop_assert!(!codec.is_authentic_response(&asked, &bytes));
        prop_assert!(codec.is_authentic_response(&asked, &answered));
        // The request that was not sent is not answered.
        let other = changed(&asked, place, change, kind);
        let inner = |bytes: &[u8]| bytes.get(13..bytes.len().saturating_sub(16)).map(<[u8]>::to_vec);
        if inner(&other) != inner(&asked) || other.get(..5) != asked.get(..5) {
            prop_assert!(!codec.is_authentic_response(&other, &answered));
        }
    }

    /// Any bytes are no proof, and no panic.
    #[test]
    fn any_bytes_prove_nothing(bytes in prop::collection::vec(any::<u8>(), 0..120), mark in 0..3) {
        let mut bytes = bytes;
        if let (Some(first), 0..2) = (bytes.first_mut(), mark) {
            *first = if mark == 0 { b'q' } else { b'r' };
        }
        let codec = codec();
        prop_assert!(codec.authenticate(at(0), &bytes).is_err());
        let asked = request(&codec, 7, "x", at(0));
        prop_assert!(!codec.is_authentic_response(&asked, &bytes));
        let _ = (codec.response_kind(&bytes, &asked), codec.request_key(&bytes));
        let mut out = [0; 64];
        let _ = codec.encode_response(at(0), &bytes, &"x", &mut Writer::new(&mut out));
        codec.stamp_request(at(0), &mut bytes);
    }
}

#[test]
fn dedup_recognizes_a_transmission_whatever_its_address() {
    let codec = codec();
    let once = Dedup::new(Counting::default(), |text: &&str| Some((*text).to_owned()));
    let mut core = ServerCore::new(codec.clone(), once);
    let mut asked = request(&codec, 7, "x", at(1));
    let first = pass(&mut core, at(1), peer(7_777), &asked);
    assert_eq!(codec.decode_response(&first[0]), Ok("x 1 1"));
    // The client takes another socket, or what was caught on its way comes from elsewhere.
    for (now, port) in [(2, 7_777), (3, 7_778)] {
        codec.stamp_request(at(now), &mut asked);
        assert_eq!(pass(&mut core, at(now), peer(port), &asked), first);
        assert!(codec.is_authentic_response(&asked, &first[0]));
    }
    // The same text once more is another request.
    let again = request(&codec, 8, "x", at(4));
    let second = pass(&mut core, at(4), peer(7_777), &again);
    assert_eq!(codec.decode_response(&second[0]), Ok("x 1 2"));
}

#[test]
fn behind_a_proxy_the_payload_is_verified() {
    let codec = codec();
    let proxies = Proxies::builder(ProxyMode::V2).trust("10.0.0.0".parse().unwrap(), 8);
    let builder = Server::builder(codec.clone()).behind(proxies.build().unwrap());
    let mut core = builder.core(Counting::default());
    let client = "192.0.2.7:5000".parse().unwrap();
    let wrapped = |payload: &[u8]| {
        let mut datagram = Header::encode_v2(client, "198.51.100.1:9".parse().unwrap());
        datagram.extend(payload);
        datagram
    };
    let proxy = "10.0.0.9:5000".parse().unwrap();
    let asked = request(&codec, 7, "x", at(1));
    let replies = pass(&mut core, at(1), proxy, &wrapped(&asked));
    assert_eq!(codec.decode_response(&replies[0]), Ok("x 1 1"));
    assert!(pass(&mut core, at(1), proxy, &wrapped(&asked)).is_empty());
    assert!(pass(&mut core, at(1), proxy, &wrapped(b"hello")).is_empty());
    assert_eq!(core.stats().dropped(DropReason::Unauthenticated), 2);
}

#[test]
fn a_limit_per_identity_counts_a_key_wherever_it_is_used() {
    let limit = RateLimit::builder().responses_per_second(1).per_identity();
    let server = builder().key(key(1)).key(key(2)).build(at(0)).unwrap();
    let other = builder().key(key(2)).build(at(0)).unwrap();
    let builder = Server::builder(server.clone()).gate(limit.build().unwrap());
    let mut core = builder.core(Counting::default());
    let mut answered = |codec, id, port| {
        let asked = request(codec, id, "x", at(1));
        pass(&mut core, at(1), peer(port), &asked).len()
    };
    assert_eq!(answered(&server, 1, 7_777), 1);
    assert_eq!(answered(&server, 2, 7_778), 0);
    assert_eq!(answered(&other, 3, 7_777), 1);
    assert_eq!(core.stats().dropped(DropReason::RateLimited), 1);
}

/// Raw bytes, of which those that begin with `x` are no request, and are rejected.
#[derive(Clone)]
struct Rejecting;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no request")]
struct NoRequest;

impl Codec for Rejecting {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = NoRequest;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], NoRequest> {
        (!datagram.starts_with(b"x"))
            .then_some(datagram)
            .ok_or(NoRequest)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), NoRequest> {
        out.put(answer);
        Ok(())
    }
    fn encode_request(
        &self,
        _: u64,
        request: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), NoRequest> {
        out.put(request);
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], NoRequest> {
        Ok(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn encode_rejection(&self, _: &[u8], _: &NoRequest, out: &mut Writer<'_>) {
        out.put(b"no");
    }
}

#[test]
fn only_what_is_authentic_is_rejected_and_the_rejection_is_signed() {
    let codec = Signed::builder(Rejecting).key(key(1)).build(at(0)).unwrap();
    let mut core = ServerCore::new(codec.clone(), |bytes: &[u8]| Some(bytes.to_vec()));
    let mut asked = written(|out| codec.encode_request(7, b"x", out));
    assert!(pass(&mut core, at(1), peer(7_777), &asked).is_empty());
    codec.stamp_request(at(1), &mut asked);
    let replies = pass(&mut core, at(1), peer(7_777), &asked);
    assert!(codec.is_authentic_response(&asked, &replies[0]));
    assert_eq!(codec.decode_response(&replies[0]), Ok(&b"no"[..]));
    let stats = core.stats();
    assert_eq!(
        (stats.rejected, stats.dropped(DropReason::Malformed)),
        (1, 1)
    );
    assert_eq!(stats.dropped(DropReason::Unauthenticated), 1);
}

#[test]
fn a_client_ignores_what_is_forged_and_goes_on_waiting() {
    let codec = codec();
    let server = peer(9_999);
    let mut core = Client::builder(codec.clone()).core(server).unwrap();
    let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
    let start = Timestamp::new(Duration::ZERO, at(0).wall);
    let later = Timestamp::new(Duration::from_secs(1), at(SECOND).wall);
    let ticket = core.submit(start, "x", &mut || Ok(7)).unwrap();
    let socket = core.poll_send(start, &mut outbox).unwrap();
    core.on_sent(start, &SendReport::accepted(1));
    let first = outbox.iter().next().unwrap().bytes.to_vec();
    outbox.clear();
    assert_eq!(core.poll_send(later, &mut outbox), Some(socket));
    core.on_sent(later, &SendReport::accepted(1));
    let second = outbox.iter().next().unwrap().bytes.to_vec();
    assert_ne!(first, second);

    let honest = response(&codec, &first, "an answer");
    let other_key = builder()
        .key(SigningKey::new(1, [9; 32]))
        .build(at(0))
        .unwrap();
    let forged = [
        response(&other_key, &first, "an answer"),
        honest[..honest.len() - 1].to_vec(),
        // Its text does not decode, which says nothing about the server.
        [&honest[..21], &[0xff; 9], &honest[30..]].concat(),
        [b"r", &second[1..]].concat(),
        b"an answer".to_vec(),
    ];
    for bytes in &forged {
        inbox.push(bytes, Meta::new(server));
    }
    core.on_receive(later, socket, &mut inbox);
    assert!(!core.has_result(ticket));
    assert_eq!(core.stats().ignored, forged.len() as u64);
    // The response to the first transmission comes after the second was sent.
    inbox.push(&honest, Meta::new(server));
    core.on_receive(later, socket, &mut inbox);
    let response = core.take_result(ticket).unwrap().unwrap();
    assert_eq!(response.decode().unwrap(), "an answer");
}

#[test]
fn a_forged_response_leaves_no_trace_in_the_error_of_a_request() {
    let codec = codec();
    let server = peer(9_999);
    let mut core = Client::builder(codec.clone()).core(server).unwrap();
    let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(8, 512));
    let start = Timestamp::new(Duration::ZERO, at(0).wall);
    let ticket = core.submit(start, "x", &mut || Ok(7)).unwrap();
    let socket = core.poll_send(start, &mut outbox).unwrap();
    core.on_sent(start, &SendReport::accepted(1));
    let mut forged = response(&codec, outbox.iter().next().unwrap().bytes, "xx");
    forged[21..23].fill(0xff);
    inbox.push(&forged, Meta::new(server));
    core.on_receive(start, socket, &mut inbox);
    outbox.clear();
    let end = Timestamp::new(Duration::from_secs(600), at(600 * SECOND).wall);
    assert_eq!(core.poll_send(end, &mut outbox), None);
    let error = core.take_result(ticket).unwrap().unwrap_err();
    assert!(
        matches!(error, rejoinder::RequestError::TimedOut { ignored: 1, .. }),
        "{error}"
    );
}

/// Each request is answered rightly, and handled once, on a network that does all it can.
#[test]
fn invariant_8_on_a_bad_network_each_request_is_handled_once_and_seeds_repeat() {
    let seeds = if cfg!(miri) { 1 } else { 40 };
    for seed in 0..seeds {
        let hashes = [(), ()].map(|()| {
            SimNet::seeded(seed).run(|net| {
                let link = Link::new().loss(0.1).duplication(0.2).corruption(0.05);
                let ms = Duration::from_millis;
                let link = link.latency(ms(5)).jitter(ms(20)).reordering(0.2, ms(300));
                net.set_link(link).unwrap();
                let codec = Signed::builder(Tagged(Text)).key(key(1)).salt([7; 8]);
                let codec = codec.build(net.now()).unwrap();
                let counted = Arc::new(Mutex::new(BTreeMap::new()));
                let counts = Arc::clone(&counted);
                let handler = move |text: &str| {
                    *counts.lock().unwrap().entry(text.to_owned()).or_insert(0) += 1;
                    Some(format!("re: {text}"))
                };
                let once = Dedup::new(handler, |text: &&str| Some((*text).to_owned()));
                // As long as the client goes on.
                let once = once.lifetime(Duration::from_secs(600));
                let core = Arc::new(Mutex::new(ServerCore::new(codec.clone(), once)));
                let server = "10.0.0.1:9999".parse().unwrap();
                net.host(server, Arc::clone(&core)).unwrap();
                let retry = Retry::new().max_sends(20).adaptive(false);
                let client = Client::builder(codec).retry(retry);
                let client = client.timeout(Duration::from_secs(600)).window(8);
                let connector = net.from_host("10.0.0.2".parse().unwrap());
                let mut client = client.with_connector(connector, server).unwrap();
                for number in 0..20 {
                    let text = format!("request {number}");
                    assert_eq!(client.request(&text).unwrap(), format!("re: {text}"));
                }
                let stats = core.lock().unwrap().stats();
                assert!(stats.is_conserved(), "{stats}");
                let counted = counted.lock().unwrap();
                assert_eq!(counted.len(), 20);
                assert!(counted.values().all(|count| *count == 1), "{counted:?}");
                net.trace().hash()
            })
        });
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

/// An id in front of the signed part is not covered, and makes no other request of it.
#[test]
fn dedup_is_not_misled_by_what_no_signature_covers() {
    let codec = Tagged(codec());
    let once = Dedup::new(Counting::default(), |text: &&str| Some((*text).to_owned()));
    let mut core = ServerCore::new(codec.clone(), once);
    let mut asked = request(&codec, 7, "x", at(1));
    assert_eq!(pass(&mut core, at(1), peer(7_777), &asked).len(), 1);
    codec.stamp_request(at(2), &mut asked);
    asked[8] ^= 1;
    let again = pass(&mut core, at(2), peer(7_778), &asked);
    assert_eq!(codec.decode_response(&again[0]), Ok("x 1 1"));
}

/// A request inside `Tagged`, which knows nothing of signatures, is signed and verified.
#[test]
fn it_works_inside_another_codec() {
    let net = SimNet::new();
    let key = key(1).identity(Identity::from("sensor"));
    let codec = Tagged(Signed::builder(Text).key(key).build(net.now()).unwrap());
    let server = "10.0.0.1:9999".parse().unwrap();
    let core = ServerCore::new(codec.clone(), Counting::default());
    let core = Arc::new(Mutex::new(core));
    net.host(server, Arc::clone(&core)).unwrap();
    let mut client = Client::new(net.clone(), codec.clone(), server);
    assert_eq!(client.request("x").unwrap(), "x sensor 1");
    // The id in front is not covered, but the nonce is.
    let mut asked = request(&codec, 7, "x", net.now());
    asked[8] ^= 1;
    let mut core = core.lock().unwrap();
    let answered = pass(&mut core, net.now(), peer(7_777), &asked);
    assert!(!codec.is_authentic_response(&request(&codec, 7, "y", net.now()), &answered[0]));
    assert!(pass(&mut core, net.now(), peer(7_777), &asked).is_empty());
}

#[test]
fn a_group_is_asked_and_strangers_in_it_are_ignored() {
    let net = SimNet::new();
    let group: SocketAddr = "239.1.2.3:9999".parse().unwrap();
    let codec = |secret| {
        let key = SigningKey::new(1, [secret; 32]);
        Signed::builder(Raw).key(key).build(net.now()).unwrap()
    };
    for (member, secret) in [("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 1)] {
        let member: std::net::IpAddr = member.parse().unwrap();
        let core = ServerCore::new(codec(secret), |_: &[u8]| Some(b"here".to_vec()));
        net.host((member, 9_999).into(), core).unwrap();
        net.join_group(group.ip(), member);
    }
    let mut client = Client::builder(codec(1));
    client = client.timeout(Duration::from_secs(5));
    let connector = net.from_host("10.0.0.9".parse().unwrap());
    let mut client = client.with_connector(connector, group).unwrap();
    let mut found = Vec::new();
    let mut responses = client.discover(b"who", Duration::from_secs(2)).unwrap();
    while let Some((peer, response)) = responses.next_response() {
        assert_eq!(response.unwrap(), b"here");
        found.push(peer.ip().to_string());
    }
    found.sort();
    assert_eq!(found, ["10.0.0.1", "10.0.0.3"]);
}

/// Handlers that wait, on tokio, in virtual time.
#[cfg(feature = "tokio")]
mod aio {
    use rejoinder::aio::{self, AsyncSim};

    use super::*;

    struct Waiting;

    impl aio::AsyncHandler<Signed<Text>> for Waiting {
        type Reply = String;
        async fn handle<'a>(&'a self, text: &'a str, context: &'a Context) -> String {
            tokio::time::sleep(Duration::from_millis(5)).await;
            format!("{text} {}", context.identity().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn async_servers_and_clients_sign_and_verify() {
        let net = SimNet::new();
        let key = key(1).identity(Identity::from("sensor"));
        let codec = Signed::builder(Text).key(key).build(net.now()).unwrap();
        let server: SocketAddr = "10.0.0.1:9999".parse().unwrap();
        let endpoint = AsyncSim::new(net.bind(server).unwrap());
        let builder = aio::Server::builder(codec.clone());
        let serving = builder.with_transport(endpoint).unwrap();
        let handle = serving.handle();

        let stranger = "10.0.0.9:4000".parse().unwrap();
        let replayed = request(&codec, 7, "x", net.now());
        for bytes in [&replayed[..], &replayed, b"hello"] {
            net.inject(stranger, server, bytes);
        }
        let asking = async {
            let connector = net.from_host("10.0.0.2".parse().unwrap());
            let client = aio::Client::builder(codec.clone());
            let client = client.with_connector(connector, server).unwrap();
            assert_eq!(client.request("hello").await.unwrap().get(), "hello sensor");
            handle.shutdown();
        };
        let (stats, ()) = tokio::join!(serving.serve(Waiting), asking);
        let stats = stats.unwrap();
        assert_eq!(
            (stats.replied, stats.dropped(DropReason::Unauthenticated)),
            (2, 2)
        );
        assert!(stats.is_conserved());
    }
}
