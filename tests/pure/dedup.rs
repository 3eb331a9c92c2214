//! `Dedup`: a request is handled once, however often it arrives.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rejoinder::codec::{RequestKey, Tagged, Text, TextError};
use rejoinder::handler::Dedup;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::transport::{Inbox, Meta, Outbox};
use rejoinder::{
    Client, Codec, Context, DropReason, Handler, Identity, Reply, ReplyError, Timestamp, Writer,
};

const PEER: &str = "192.0.2.1:5683";

/// Sends one datagram through a core, and returns what comes back.
fn ask<H: Handler<Text>>(
    core: &mut ServerCore<Text, H>,
    text: &str,
    meta: Meta,
    monotonic: Duration,
) -> Vec<String> {
    let (mut inbox, mut outbox) = (Inbox::new(1, 2000), Outbox::new(16, 2000));
    inbox.push(text.as_bytes(), meta);
    let now = Timestamp::new(monotonic, SystemTime::UNIX_EPOCH);
    core.handle(now, &mut inbox, &mut outbox);
    assert!(core.stats().is_conserved());
    outbox
        .iter()
        .map(|datagram| String::from_utf8(datagram.bytes.to_vec()).unwrap())
        .collect()
}

fn ask_at<H: Handler<Text>>(
    core: &mut ServerCore<Text, H>,
    text: &str,
    seconds: u64,
) -> Vec<String> {
    let meta = Meta::new(PEER.parse().unwrap());
    ask(core, text, meta, Duration::from_secs(seconds))
}

/// The text before the colon, if there is one.
fn key(request: &&str) -> Option<String> {
    Some(request.split_once(':')?.0.to_owned())
}

/// Answers with how often it was asked.
fn counter() -> impl Fn(&str) -> Option<String> {
    let count = AtomicU32::new(0);
    move |_: &str| Some((count.fetch_add(1, Ordering::Relaxed) + 1).to_string())
}

#[test]
fn a_copy_gets_the_stored_answer_until_its_lifetime_is_over() {
    let mut core = ServerCore::new(Text, Dedup::new(counter(), key));
    assert_eq!(ask_at(&mut core, "a:", 1000), ["1"]);
    assert_eq!(ask_at(&mut core, "a:", 1246), ["1"]);
    assert_eq!(ask_at(&mut core, "b:", 1246), ["2"]);
    // RFC 7252 §4.8.2: 247 seconds, counted from the first copy.
    assert_eq!(ask_at(&mut core, "a:", 1247), ["3"]);
    assert_eq!(ask_at(&mut core, "a:", 1248), ["3"]);
}

#[test]
fn peer_and_local_address_are_parts_of_the_key() {
    let mut core = ServerCore::new(Text, Dedup::new(counter(), key));
    let one = Meta::new(PEER.parse().unwrap());
    let other_port = Meta::new("192.0.2.1:5684".parse().unwrap());
    let other_local = one.sent_to("198.51.100.1".parse().unwrap());
    for (meta, answer) in [
        (one, "1"),
        (other_port, "2"),
        (other_local, "3"),
        (one, "1"),
    ] {
        assert_eq!(ask(&mut core, "a:", meta, Duration::ZERO), [answer]);
    }
}

#[test]
fn a_client_that_got_the_port_of_another_does_not_get_its_answer() {
    let mut core = ServerCore::new(Text, Dedup::new(counter(), key));
    assert_eq!(ask_at(&mut core, "a:one", 0), ["1"]);
    assert_eq!(ask_at(&mut core, "a:two", 0), ["2"]);
    assert_eq!(ask_at(&mut core, "a:one", 0), ["1"]);
    assert_eq!(ask_at(&mut core, "a:two", 0), ["2"]);
}

#[test]
fn another_association_of_a_peer_without_identity_is_another_peer() {
    let mut core = ServerCore::new(Text, Dedup::new(counter(), key));
    let mut inbox = Inbox::new(1, 2000);
    let mut ask = |association, identity: Option<&str>| {
        let mut outbox = Outbox::new(16, 2000);
        let mut meta = Meta::new(PEER.parse().unwrap());
        meta.association = association;
        match identity {
            Some(identity) => inbox.push_identified(b"a:", meta, &Identity::from(identity)),
            None => inbox.push(b"a:", meta),
        }
        core.handle(Timestamp::system(), &mut inbox, &mut outbox);
        let response = outbox.iter().next().expect("a response");
        // A stored response leaves by the association of the copy.
        assert_eq!(response.egress, meta.egress());
        assert_eq!(response.egress.association, association);
        String::from_utf8(response.bytes.to_vec()).unwrap()
    };
    assert_eq!((ask(7, None), ask(7, None)), ("1".into(), "1".into()));
    assert_eq!((ask(8, None), ask(0, None)), ("2".into(), "3".into()));
    // Who proves an identity again is the same peer, and none but that.
    assert_eq!(ask(7, Some("Ada")), "4");
    assert_eq!(ask(9, Some("Ada")), "4");
    assert_eq!(ask(9, Some("Bob")), "5");
}

/// Text of which no identity sends the same twice, as if it held a nonce, or might do so.
struct Nonces {
    is_unique: bool,
}

impl Codec for Nonces {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn std::fmt::Display;
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_request(datagram)
    }
    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: &dyn std::fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        Text.encode_response(now, request, answer, out)
    }
    fn encode_request(&self, id: u64, text: &str, out: &mut Writer<'_>) -> Result<(), TextError> {
        Text.encode_request(id, text, out)
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_response(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn request_key<'a>(&self, request: &'a [u8]) -> RequestKey<'a> {
        RequestKey {
            bytes: request,
            is_unique: self.is_unique,
        }
    }
}

#[test]
fn a_copy_from_another_address_is_one_only_with_an_identity_and_bytes_that_are_unique() {
    for (is_unique, identity, second) in [
        (false, false, "2"),
        (false, true, "2"),
        (true, false, "2"),
        (true, true, "1"),
    ] {
        let mut core = ServerCore::new(Nonces { is_unique }, Dedup::new(counter(), key));
        let mut answers = Vec::new();
        for peer in [PEER, "198.51.100.1:5683"] {
            let (mut inbox, mut outbox) = (Inbox::new(1, 2000), Outbox::new(16, 2000));
            let meta = Meta::new(peer.parse().unwrap());
            if identity {
                inbox.push_identified(b"a:", meta, &Identity::from("Ada"));
            } else {
                inbox.push(b"a:", meta);
            }
            core.handle(Timestamp::system(), &mut inbox, &mut outbox);
            answers.extend(outbox.iter().map(|one| one.bytes.to_vec()));
        }
        assert_eq!(answers, [b"1", second.as_bytes()], "{is_unique} {identity}");
    }
}

#[test]
fn the_same_question_asked_again_is_no_copy_where_the_codec_adds_ids() {
    let net = SimNet::scripted(0, "1 duplicate".parse().unwrap());
    let server = "10.0.0.1:9999".parse().unwrap();
    let once = Dedup::new(counter(), |_: &&str| Some(()));
    net.host(server, ServerCore::new(Tagged(Text), once))
        .unwrap();
    let mut client = Client::new(net, Tagged(Text), server);
    // The first request arrives twice, and is counted once.
    assert_eq!(client.request("how often?").unwrap(), "1");
    assert_eq!(client.request("how often?").unwrap(), "2");
    assert_eq!(client.ignored(), 1);
}

#[test]
fn without_a_key_every_copy_is_handled() {
    let mut core = ServerCore::new(Text, Dedup::new(counter(), key));
    assert_eq!(ask_at(&mut core, "a", 0), ["1"]);
    assert_eq!(ask_at(&mut core, "a", 0), ["2"]);
}

#[test]
fn several_replies_are_replayed_in_order_and_silence_stays_silence() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |text: &str| {
        counted.fetch_add(1, Ordering::Relaxed);
        (text != "quiet:").then(|| ["one".to_owned(), String::new(), "three".to_owned()])
    };
    let mut core = ServerCore::new(Text, Dedup::new(handler, key));
    for _ in 0..3 {
        assert_eq!(ask_at(&mut core, "loud:", 0), ["one", "", "three"]);
        assert!(ask_at(&mut core, "quiet:", 0).is_empty());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!((core.stats().replied, core.stats().silent), (3, 3));
}

#[test]
fn of_an_answer_too_long_to_keep_only_silence_is_repeated() {
    let handler = |text: &str| Some("x".repeat(text.len()));
    let mut core = ServerCore::new(Text, Dedup::new(handler, key).max_response_bytes(3));
    assert_eq!(ask_at(&mut core, "a:1", 0), ["xxx"]);
    assert_eq!(ask_at(&mut core, "a:1", 0), ["xxx"]);
    assert_eq!(ask_at(&mut core, "b:12", 0), ["xxxx"]);
    assert!(ask_at(&mut core, "b:12", 0).is_empty());
}

#[test]
fn copies_get_silence_where_their_key_says_so() {
    let dedup = Dedup::new(counter(), key).silent_for(|key: &String| key == "quiet");
    let mut core = ServerCore::new(Text, dedup);
    assert_eq!(ask_at(&mut core, "loud:", 0), ["1"]);
    assert_eq!(ask_at(&mut core, "quiet:", 0), ["2"]);
    assert_eq!(ask_at(&mut core, "loud:", 1), ["1"]);
    assert!(ask_at(&mut core, "quiet:", 246).is_empty());
    assert_eq!(ask_at(&mut core, "quiet:", 247), ["3"]);
}

#[test]
fn after_a_panic_or_an_error_the_next_copy_is_a_first_one() {
    struct Moody(AtomicU32);

    impl Handler<Text> for Moody {
        fn handle(
            &self,
            _: &str,
            _: &Context,
            reply: &mut Reply<'_, Text>,
        ) -> Result<(), ReplyError> {
            reply.send(&"begun")?;
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("on purpose"),
                1 => reply.send(&"x".repeat(2001)),
                _ => reply.send(&"done"),
            }
        }
    }

    let mut core = ServerCore::new(Text, Dedup::new(Moody(AtomicU32::new(0)), key));
    assert!(ask_at(&mut core, "a:", 0).is_empty());
    assert!(ask_at(&mut core, "a:", 0).is_empty());
    for _ in 0..2 {
        assert_eq!(ask_at(&mut core, "a:", 0), ["begun", "done"]);
    }
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 1);
    assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 1);
}

#[test]
fn a_copy_that_arrives_while_the_first_is_handled_gets_silence() {
    /// Signals that it has begun, and waits until it may go on.
    struct Slow {
        begun: Mutex<mpsc::Sender<()>>,
        go_on: Mutex<mpsc::Receiver<()>>,
    }

    impl Handler<Text> for Slow {
        fn handle(
            &self,
            _: &str,
            _: &Context,
            reply: &mut Reply<'_, Text>,
        ) -> Result<(), ReplyError> {
            self.begun.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
            reply.send(&"once")
        }
    }

    let (begun, has_begun) = mpsc::channel();
    let (may_go_on, go_on) = mpsc::channel();
    let slow = Slow {
        begun: Mutex::new(begun),
        go_on: Mutex::new(go_on),
    };
    let handler = Arc::new(Dedup::new(slow, key));
    let mut first = ServerCore::new(Text, Arc::clone(&handler));
    let mut second = ServerCore::new(Text, handler);
    thread::scope(|scope| {
        let worker = scope.spawn(|| ask_at(&mut first, "a:", 0));
        has_begun.recv().unwrap();
        assert!(ask_at(&mut second, "a:", 0).is_empty());
        may_go_on.send(()).unwrap();
        assert_eq!(worker.join().unwrap(), ["once"]);
    });
    assert_eq!(ask_at(&mut second, "a:", 0), ["once"]);
}

proptest! {
    /// Against a model that keeps everything in a list.
    #[test]
    fn remembers_exactly_the_latest(
        capacity in 0usize..5,
        lifetime in 0u64..20,
        requests in prop::collection::vec((0u16..3, 0u8..4, 0u64..6), 0..60),
    ) {
        let dedup = Dedup::new(counter(), key)
            .capacity(capacity)
            .lifetime(Duration::from_secs(lifetime));
        let mut core = ServerCore::new(Text, dedup);
        let mut handled: Vec<(u16, u8, u64)> = Vec::new();
        let mut now = 0;
        for (port, key, pause) in requests {
            now += pause;
            let latest = handled.len().saturating_sub(capacity);
            let expected = handled
                .iter()
                .enumerate()
                .skip(latest)
                .rfind(|(_, one)| (one.0, one.1) == (port, key) && now - one.2 < lifetime)
                .map(|(index, _)| index);
            let expected = expected.unwrap_or_else(|| {
                handled.push((port, key, now));
                handled.len() - 1
            });
            let meta = Meta::new(([192, 0, 2, 1], 40_000 + port).into());
            let answer = ask(&mut core, &format!("{key}:"), meta, Duration::from_secs(now));
            prop_assert_eq!(answer, [(expected + 1).to_string()]);
        }
    }
}
