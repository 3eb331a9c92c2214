//! The server's core, driven without sockets, threads or sleeps.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Ctime, Raw, Text, TextError};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Node, SimNet};
use rejoinder::transport::{ErrorClass, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::{
    Codec, Context, DropReason, Handler, Reply, ReplyError, Stats, Timestamp, Transport, Wait,
    Writer,
};
use rejoinder_test_support::robot;

/// 2019-07-07 17:17:58 UTC.
const SUMMER: Duration = Duration::from_secs(1_562_519_878);
/// The first second of the year 10000.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

fn now() -> Timestamp {
    Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH + SUMMER)
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// Passes datagrams through a core until all are taken; returns all replies, in order.
fn answers<C: Codec, H: Handler<C>>(
    core: &mut ServerCore<C, H>,
    datagrams: &[&[u8]],
) -> Vec<Vec<u8>> {
    let mut inbox = Inbox::new(datagrams.len(), 4_096);
    for bytes in datagrams {
        inbox.push(bytes, Meta::new(peer(7_777)));
    }
    drive(core, now(), &mut inbox)
}

fn drive<C: Codec, H: Handler<C>>(
    core: &mut ServerCore<C, H>,
    now: Timestamp,
    inbox: &mut Inbox,
) -> Vec<Vec<u8>> {
    let mut outbox = Outbox::new(MAX_RESPONSES, 4_096);
    let mut replies = Vec::new();
    while !inbox.is_empty() {
        core.handle(now, inbox, &mut outbox);
        replies.extend(outbox.iter().map(|reply| reply.bytes.to_vec()));
        outbox.clear();
        assert!(core.stats().is_conserved());
    }
    replies
}

/// Keeps the panics that tests cause on purpose out of their output.
fn quiet_panics() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let on_purpose = info.payload().is::<OnPurpose>() || info.payload().is::<Bomb>();
            if !on_purpose {
                loud(info);
            }
        }));
    });
}

/// What tests panic with.
struct OnPurpose;

/// A panic's payload that panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic::panic_any(OnPurpose);
    }
}

/// Does what the request says; see `Script`.
struct Scripted;

impl<C> Handler<C> for Scripted
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        let (replies, then) = request.split_once(' ').expect("a number and a word");
        for number in 0..replies.parse().unwrap() {
            reply.send(&format_args!("{number}/{replies}"))?;
        }
        match then {
            "panic" => panic::panic_any(OnPurpose),
            "give-up" => reply.send(&"x".repeat(100_000)),
            "shorten" => match reply.send(&"x".repeat(100_000)) {
                Err(ReplyError::TooLong(_)) => reply.send(&"short"),
                _ => panic::panic_any(OnPurpose),
            },
            "return" => Ok(()),
            other => unreachable!("{other}"),
        }
    }
}

#[test]
fn a_batch_larger_than_the_outbox_is_answered_in_order_over_several_calls() {
    let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    let mut inbox = Inbox::new(100, 64);
    for number in 0..100_u16 {
        inbox.push(
            number.to_string().as_bytes(),
            Meta::new(peer(50_000 + number)),
        );
    }
    let mut outbox = Outbox::new(20, 64);
    let mut replies = Vec::new();
    let mut calls = 0;
    while !inbox.is_empty() {
        core.handle(now(), &mut inbox, &mut outbox);
        // It stops as soon as the replies to one more request might not fit.
        assert!(!outbox.has_room_for(MAX_RESPONSES) || inbox.is_empty());
        let stats = core.stats();
        assert_eq!((stats.received, stats.pending), (100, inbox.len() as u64));
        // A full outbox is no reason to panic or to lose anything: nothing happens.
        let (waiting, queued) = (inbox.len(), outbox.len());
        if !inbox.is_empty() {
            core.handle(now(), &mut inbox, &mut outbox);
            assert_eq!((inbox.len(), outbox.len()), (waiting, queued));
        }
        replies.extend(
            outbox
                .iter()
                .map(|reply| (reply.peer.port(), reply.bytes.to_vec())),
        );
        outbox.clear();
        calls += 1;
    }
    let expected: Vec<_> = (0..100_u16)
        .map(|number| (50_000 + number, number.to_string().into_bytes()))
        .collect();
    assert_eq!(replies, expected);
    assert_eq!(calls, 20);
    assert_eq!(core.stats().replied, 100);
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    let mut inbox = Inbox::new(1, 64);
    let local = "192.0.2.77".parse().unwrap();
    inbox.push(b"x", Meta::new(peer(7_777)).sent_to(local));
    let mut outbox = Outbox::new(MAX_RESPONSES, 64);
    core.handle(now(), &mut inbox, &mut outbox);
    let reply = outbox.iter().next().unwrap();
    assert_eq!((reply.peer, reply.egress), (peer(7_777), local.into()));
}

#[test]
#[should_panic(
    expected = "outbox too small: it needs room for the 16 responses to one request, has it for 15"
)]
fn an_outbox_that_could_never_hold_the_replies_to_one_request_is_refused() {
    let mut core = ServerCore::new(Text, |_: &str| ());
    core.handle(
        now(),
        &mut Inbox::new(1, 64),
        &mut Outbox::new(MAX_RESPONSES - 1, 64),
    );
}

#[test]
fn a_request_is_answered_with_no_reply_one_or_as_many_as_are_allowed() {
    let mut core = ServerCore::new(Text, Scripted);
    assert!(answers(&mut core, &[b"0 return"]).is_empty());
    assert_eq!((core.stats().silent, core.stats().replied), (1, 0));
    assert_eq!(answers(&mut core, &[b"1 return"]), [b"0/1"]);
    assert_eq!(core.stats().replied, 1);

    let all = answers(&mut core, &[b"16 return"]);
    assert_eq!(all.len(), MAX_RESPONSES);
    assert_eq!(all[0], b"0/16");
    assert_eq!(all[15], b"15/16");
    assert_eq!(core.stats().replied, 2);
}

#[test]
fn one_reply_too_many_is_an_error_that_takes_back_all_of_them() {
    let mut core = ServerCore::new(Text, Scripted);
    assert_eq!(
        answers(&mut core, &[b"17 return", b"1 return"]),
        [b"0/1"],
        "nothing of the first, all of the second"
    );
    assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 1);
    assert_eq!(core.stats().replied, 1);
}

#[test]
fn one_reply_too_many_says_how_many_are_allowed() {
    let mut outbox = Outbox::new(64, 64);
    let context = Context::new(&Meta::new(peer(7_777)), now());
    let mut reply = Reply::new(&Text, b"?", &context, &mut outbox);
    for _ in 0..MAX_RESPONSES {
        reply.send(&"x").unwrap();
    }
    let error = reply.send(&"x").unwrap_err();
    assert!(matches!(
        error,
        ReplyError::TooMany {
            limit: MAX_RESPONSES
        }
    ));
    assert_eq!(outbox.len(), MAX_RESPONSES);
}

#[test]
fn a_reply_that_is_too_long_is_an_error_with_the_numbers_and_a_shorter_one_may_follow() {
    let mut outbox = Outbox::new(MAX_RESPONSES, 8);
    let context = Context::new(&Meta::new(peer(7_777)), now());
    let mut reply = Reply::new(&Text, b"?", &context, &mut outbox);
    let error = reply.send(&"nine byte").unwrap_err();
    let ReplyError::TooLong(too_long) = error else {
        panic!("{error:?}");
    };
    assert_eq!((too_long.bytes, too_long.limit), (9, 8));
    reply.send(&"8 bytes!").unwrap();
    let replies: Vec<_> = outbox.iter().map(|reply| reply.bytes).collect();
    assert_eq!(replies, [b"8 bytes!"]);

    let mut core = ServerCore::new(Text, Scripted);
    assert_eq!(
        answers(&mut core, &[b"1 shorten"]),
        [&b"0/1"[..], &b"short"[..]]
    );
    assert_eq!(core.stats().replied, 1);
}

#[test]
fn a_handler_that_gives_up_sends_nothing_and_is_counted() {
    let mut core = ServerCore::new(Text, Scripted);
    assert_eq!(
        answers(&mut core, &[b"1 return", b"3 give-up", b"1 return"]),
        [b"0/1", b"0/1"]
    );
    assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 1);
    assert_eq!(core.stats().replied, 2);
}

#[test]
fn invariant_3_a_panic_of_a_handler_takes_back_its_replies_and_the_next_request_is_answered() {
    quiet_panics();
    let mut core = ServerCore::new(Text, Scripted);
    assert_eq!(
        answers(
            &mut core,
            &[b"1 return", b"3 panic", b"0 panic", b"1 return"]
        ),
        [b"0/1", b"0/1"]
    );
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 2);
    assert_eq!(core.stats().replied, 2);
}

#[test]
fn invariant_3_a_panic_that_panics_again_when_it_is_dropped_is_survived() {
    quiet_panics();
    let mut core = ServerCore::new(Text, |text: &str| {
        if text == "bomb" {
            panic::panic_any(Bomb);
        }
        Some("fine")
    });
    assert_eq!(answers(&mut core, &[b"bomb", b"next"]), [b"fine"]);
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 1);
}

/// An answer that panics when half of it is written.
struct Half;

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half an ans")?;
        panic::panic_any(OnPurpose)
    }
}

struct Halves;

impl Handler<Text> for Halves {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Text>,
    ) -> Result<(), ReplyError> {
        match request {
            "half" => reply.send(&Half),
            _ => reply.send(&"whole"),
        }
    }
}

#[test]
fn invariant_3_a_panic_while_an_answer_is_displayed_is_survived() {
    quiet_panics();
    let mut core = ServerCore::new(Text, Halves);
    assert_eq!(answers(&mut core, &[b"half", b"x"]), [b"whole"]);
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 1);
}

/// A codec with a bug: some datagrams make it panic.
struct Fragile;

impl Codec for Fragile {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], TextError> {
        if datagram == b"decode" {
            panic::panic_any(OnPurpose);
        }
        Ok(datagram)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        out.put(answer);
        Ok(())
    }
    fn encode_request(&self, _: u64, _: &[u8], _: &mut Writer<'_>) -> Result<(), TextError> {
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], TextError> {
        Ok(datagram)
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        if datagram == b"is_response" {
            panic::panic_any(OnPurpose);
        }
        false
    }
}

#[test]
fn invariant_3_a_panic_of_a_codec_is_survived_too() {
    quiet_panics();
    let mut core = ServerCore::new(Fragile, |bytes: &[u8]| Some(bytes.to_vec()));
    assert_eq!(
        answers(&mut core, &[b"decode", b"is_response", b"x"]),
        [b"x"]
    );
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 2);
}

/// A codec whose errors panic when they are dropped.
struct Mined;

#[derive(Debug)]
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic::panic_any(OnPurpose);
    }
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("do not touch")
    }
}

impl std::error::Error for Mine {}

impl Codec for Mined {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = Mine;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Mine> {
        match datagram {
            b"mine" => Err(Mine),
            _ => Ok(datagram),
        }
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Mine> {
        out.put(answer);
        Ok(())
    }
    fn encode_request(&self, _: u64, _: &[u8], _: &mut Writer<'_>) -> Result<(), Mine> {
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Mine> {
        Ok(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}

#[test]
fn invariant_3_an_error_of_a_codec_that_panics_when_it_is_dropped_is_survived() {
    quiet_panics();
    let mut core = ServerCore::new(Mined, |bytes: &[u8]| Some(bytes.to_vec()));
    assert_eq!(answers(&mut core, &[b"mine", b"x"]), [b"x"]);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 1);
}

#[test]
fn invariant_4_a_truncated_datagram_never_reaches_the_codec_or_the_handler() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let mut core = ServerCore::new(Raw, move |bytes: &[u8]| {
        counter.fetch_max(bytes.len(), Ordering::Relaxed);
        Some(bytes.to_vec())
    });
    let mut inbox = Inbox::new(4, 5);
    for bytes in [&b"five!"[..], b"sixsix", b"much longer than that", b"five?"] {
        inbox.push(bytes, Meta::new(peer(7_777)));
    }
    // Whatever its length is: the transport has the last word.
    let mut marked = Inbox::new(1, 5);
    let mut meta = Meta::new(peer(7_777));
    meta.truncated = true;
    marked.push(b"cut", meta);

    assert_eq!(drive(&mut core, now(), &mut inbox), [b"five!", b"five?"]);
    assert!(drive(&mut core, now(), &mut marked).is_empty());
    assert_eq!(seen.load(Ordering::Relaxed), 5);
    assert_eq!(core.stats().dropped(DropReason::Truncated), 3);
}

#[test]
fn invariant_5_what_cannot_be_understood_is_met_with_silence() {
    let mut core = robot::core();
    for invalid in INVALID_UTF8 {
        assert!(answers(&mut core, &[invalid]).is_empty(), "{invalid:x?}");
    }
    assert!(answers(&mut core, &[b""]).is_empty());
    assert_eq!(
        core.stats().dropped(DropReason::Malformed),
        INVALID_UTF8.len() as u64 + 1
    );
    assert_eq!(answers(&mut core, &["你好吗？".as_bytes()]).len(), 1);
}

/// A request is `?` and more; what begins with a digit is rejected with as many `!` as it says.
#[derive(Clone, Copy)]
pub(crate) struct Picky;

impl Codec for Picky {
    type Request<'a> = ();
    type Response<'a> = ();
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = fmt::Error;

    fn decode_request(&self, datagram: &[u8]) -> Result<(), fmt::Error> {
        datagram.starts_with(b"?").then_some(()).ok_or(fmt::Error)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), fmt::Error> {
        write!(out, "{answer}")
    }
    fn encode_request(&self, _: u64, (): (), out: &mut Writer<'_>) -> Result<(), fmt::Error> {
        out.put(b"?");
        Ok(())
    }
    fn decode_response(&self, _: &[u8]) -> Result<(), fmt::Error> {
        Ok(())
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.starts_with(b"!")
    }
    fn encode_rejection(&self, datagram: &[u8], _: &fmt::Error, out: &mut Writer<'_>) {
        match datagram {
            [digit @ b'0'..=b'9', ..] => out.put(&vec![b'!'; usize::from(digit - b'0')]),
            [b'l', ..] => out.put(b"?"),
            [b'x', ..] => out.put(&[b'!'; 65]),
            [b'p', ..] => panic!("a codec that panics"),
            _ => {}
        }
    }
}

#[test]
fn a_rejection_is_never_longer_than_what_came_and_always_a_response() {
    let mut core = ServerCore::new(Picky, |()| Some("!"));
    assert_eq!(answers(&mut core, &[b"?"]), [b"!"]);
    assert_eq!(
        answers(&mut core, &[b"1", b"3ab", b"2abc"]),
        [&b"!"[..], b"!!!", b"!!"]
    );
    // Too long, of no length, no response, longer than any may be, none at all.
    let long = [b'x'; 100];
    for bad in [&b"2"[..], b"9abc", b"0abc", b"l", &long, b"", b"a"] {
        assert!(answers(&mut core, &[bad]).is_empty(), "{bad:x?}");
    }
    assert_eq!(core.stats().rejected, 3);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 10);
    assert_eq!(core.stats().replied, 1);

    let mut inbox = Inbox::new(1, 100);
    let mut meta = Meta::new(peer(40_000));
    meta.delivery = rejoinder::transport::Delivery::Multicast;
    inbox.push(b"1", meta);
    let mut outbox = Outbox::new(32, 100);
    core.handle(now(), &mut inbox, &mut outbox);
    assert!(outbox.is_empty());

    assert!(answers(&mut core, &[b"p"]).is_empty());
    assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 1);
    assert!(core.stats().is_conserved());
}

/// Rejects everything, with nothing; and an empty datagram is a response.
struct Curt;

impl Codec for Curt {
    type Request<'a> = ();
    type Response<'a> = ();
    type Answer<'a> = ();
    type Error = fmt::Error;

    fn decode_request(&self, _: &[u8]) -> Result<(), fmt::Error> {
        Err(fmt::Error)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        (): (),
        _: &mut Writer<'_>,
    ) -> Result<(), fmt::Error> {
        Ok(())
    }
    fn encode_request(&self, _: u64, (): (), _: &mut Writer<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
    fn decode_response(&self, _: &[u8]) -> Result<(), fmt::Error> {
        Ok(())
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.is_empty()
    }
}

#[test]
fn invariant_5_a_codec_that_writes_no_rejection_rejects_nothing() {
    let mut core = ServerCore::new(Curt, |()| Some(()));
    assert!(answers(&mut core, &[b"a", b"b"]).is_empty());
    assert_eq!(core.stats().rejected, 0);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 2);
}

#[test]
fn a_core_keeps_the_latest_errors_and_counts_the_datagrams_that_the_kernel_dropped() {
    let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    assert!(core.last_receive_error().is_none() && core.last_send_error().is_none());
    core.on_receive_error(now(), &ErrorKind::ConnectionRefused.into());
    // A signal is no error worth keeping, but counts.
    core.on_receive_error(now(), &ErrorKind::Interrupted.into());
    let error = core.last_receive_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(core.stats().receive_errors_of(ErrorClass::Interrupted), 1);

    let mut report = SendReport::accepted(2);
    report.record_failure(ErrorKind::HostUnreachable.into());
    core.on_sent(&report);
    core.on_sent(&SendReport::accepted(1));
    let error = core.last_send_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);

    core.set_kernel_drops(3);
    core.set_kernel_drops(5);
    assert_eq!(core.stats().kernel_drops, 5);
}

#[test]
fn invariant_2_what_comes_from_an_address_of_its_own_is_dropped() {
    let mut core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    assert_eq!(answers(&mut core, &[b"a"]).len(), 1);
    core.add_local_addr(peer(7_777));
    assert!(answers(&mut core, &[b"a"]).is_empty());
    assert_eq!(core.stats().dropped(DropReason::SourceOwn), 1);
}

/// Every kind of invalid UTF-8 in Unicode 16 §3.9 (table 3-7), by itself or after a text.
const INVALID_UTF8: [&[u8]; 12] = [
    b"\x80",                 // a continuation without a beginning
    b"\xe4\xbd",             // a beginning without an end
    b"\xe4\xbd ok",          // the same in the middle
    b"\xc0\xaf",             // overlong, two bytes
    b"\xe0\x80\xaf",         // overlong, three bytes
    b"\xf0\x80\x80\xaf",     // overlong, four bytes
    b"\xed\xa0\x80",         // a high surrogate
    b"\xed\xbf\xbf",         // a low surrogate
    b"\xf4\x90\x80\x80",     // beyond U+10FFFF
    b"\xf5\x80\x80\x80",     // no byte of UTF-8
    b"\xff\xfe\x60\x4f",     // UTF-16
    b"\xe4\xbd\xa0\xc4\xe3", // GBK after UTF-8
];

#[test]
fn invariant_5_a_robot_that_answers_what_is_malformed_says_no_more_than_was_said() {
    let robot = || {
        let builder = rejoinder::Server::builder(Ctime::utc().answer_malformed(true));
        builder.core(robot::handler())
    };
    let (mut one, mut other) = (robot(), robot());
    for len in 1..70 {
        let malformed = vec![0xff; len];
        let sent = answers(&mut one, &[&malformed]);
        let expected = len >= 29;
        assert_eq!(sent.len(), usize::from(expected), "{len} bytes");
        for response in sent {
            assert!(response.len() <= len);
            // And another robot has nothing to say to that.
            assert!(answers(&mut other, &[&response]).is_empty());
        }
    }
    let stats = one.stats();
    assert_eq!(
        (stats.dropped(DropReason::Malformed), stats.rejected),
        (69, 41)
    );
    assert_eq!(other.stats().dropped(DropReason::Response), 41);
}

#[test]
fn an_empty_datagram_is_a_request_where_the_protocol_says_so() {
    let mut core = ServerCore::new(Text, |text: &str| Some(format!("<{text}>")));
    assert_eq!(answers(&mut core, &[b""]), [b"<>"]);
}

#[test]
fn a_response_is_dropped_whatever_follows_its_header() {
    let mut core = robot::core();
    let header = b"[b'Sun Jul  7 17:17:58 2019']";
    let frames = [
        header.to_vec(),
        [header, "你好吗？".as_bytes()].concat(),
        [header, &b"\xff"[..]].concat(),
        [&header[..], header].concat(),
    ];
    for frame in &frames {
        assert!(answers(&mut core, &[frame]).is_empty());
    }
    assert_eq!(core.stats().dropped(DropReason::Response), 4);
    // What only looks like one is a request like any other.
    let almost = b"[b'Mon Jul  7 17:17:58 2019']";
    assert_eq!(answers(&mut core, &[almost]).len(), 1);
}

#[test]
fn an_answer_that_cannot_be_encoded_is_counted_and_nothing_is_sent() {
    let mut core = robot::core();
    let request = "你好吗？".as_bytes();
    let at = |wall| Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH + wall);
    let mut inbox = Inbox::new(1, 64);

    inbox.push(request, Meta::new(peer(7_777)));
    let last = drive(
        &mut core,
        at(YEAR_10000.checked_sub(Duration::from_nanos(1)).unwrap()),
        &mut inbox,
    );
    assert!(last[0].starts_with(b"[b'Fri Dec 31 23:59:59 9999']"));

    inbox.push(request, Meta::new(peer(7_777)));
    assert!(drive(&mut core, at(YEAR_10000), &mut inbox).is_empty());
    assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 1);

    inbox.push(request, Meta::new(peer(7_777)));
    assert_eq!(drive(&mut core, at(SUMMER), &mut inbox).len(), 1);
    assert_eq!(core.stats().replied, 2);
}

#[test]
fn cores_that_share_a_handler_count_for_themselves_and_add_up() {
    let handler = Arc::new(|text: &str| Some(text.to_owned()));
    let mut cores = [
        ServerCore::new(Text, Arc::clone(&handler)),
        ServerCore::new(Text, handler),
    ];
    assert_eq!(answers(&mut cores[0], &[b"a", b"b"]), [b"a", b"b"]);
    assert_eq!(answers(&mut cores[1], &[b"c", b"\xff"]), [b"c"]);
    let total: Stats = cores.iter().map(ServerCore::stats).sum();
    assert_eq!((total.received, total.replied), (4, 3));
    assert!(total.is_conserved());
}

/// What happens to one datagram, computed independently of the code under test.
#[derive(Clone, Debug)]
enum Script {
    /// The handler sends so many replies and then does something.
    Request {
        replies: usize,
        then: Then,
    },
    Empty,
    Frame(String),
    InvalidUtf8(usize),
    /// A datagram that passes the inbox's limit by so many bytes.
    TooLong(usize),
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Return,
    Panic,
    GiveUp,
    Shorten,
}

const REQUEST_LIMIT: usize = 200;

impl Script {
    fn datagram(&self) -> Vec<u8> {
        match self {
            Self::Request { replies, then } => {
                let then = match then {
                    Then::Return => "return",
                    Then::Panic => "panic",
                    Then::GiveUp => "give-up",
                    Then::Shorten => "shorten",
                };
                format!("{replies} {then}").into_bytes()
            }
            Self::Empty => Vec::new(),
            Self::Frame(text) => format!("[b'Sun Jul  7 17:17:58 2019']{text}").into_bytes(),
            Self::InvalidUtf8(which) => INVALID_UTF8[*which].to_vec(),
            Self::TooLong(by) => vec![b'x'; REQUEST_LIMIT + by],
        }
    }

    /// The counter that moves, and the texts of the replies.
    fn outcome(&self) -> (&'static str, Vec<String>) {
        let (replies, then) = match self {
            Self::Request { replies, then } => (*replies, *then),
            Self::Empty | Self::InvalidUtf8(_) => return ("dropped_malformed", vec![]),
            Self::Frame(_) => return ("dropped_response", vec![]),
            Self::TooLong(_) => return ("dropped_truncated", vec![]),
        };
        let mut texts: Vec<_> = (0..replies)
            .map(|number| format!("{number}/{replies}"))
            .collect();
        // With sixteen sent, the shorter one is one too many as well.
        match then {
            _ if replies > 16 => ("dropped_reply_failed", vec![]),
            Then::Return if replies == 0 => ("silent", vec![]),
            Then::Return => ("replied", texts),
            Then::Panic => ("dropped_handler_panicked", vec![]),
            Then::GiveUp => ("dropped_reply_failed", vec![]),
            // The handler under test takes any error but "too long" for a reason to panic.
            Then::Shorten if replies == 16 => ("dropped_handler_panicked", vec![]),
            Then::Shorten => {
                texts.push("short".into());
                ("replied", texts)
            }
        }
    }
}

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let then = prop_oneof![
        4 => Just(Then::Return),
        1 => Just(Then::Panic),
        1 => Just(Then::GiveUp),
        1 => Just(Then::Shorten),
    ];
    let script = prop_oneof![
        8 => (prop_oneof![4 => 0..4_usize, 1 => 0..20_usize], then)
            .prop_map(|(replies, then)| Script::Request { replies, then }),
        1 => Just(Script::Empty),
        1 => "\\PC{0,20}".prop_map(Script::Frame),
        1 => (0..INVALID_UTF8.len()).prop_map(Script::InvalidUtf8),
        1 => (1..50_usize).prop_map(Script::TooLong),
    ];
    prop::collection::vec(script, 0..60)
}

/// Failures that were found are kept beside this file, and tried again first.
fn config() -> ProptestConfig {
    ProptestConfig {
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn invariant_1_conservation_every_datagram_is_counted_exactly_once(
        scripts in scripts(),
        buffers in 1..20_usize,
        queue in MAX_RESPONSES..40,
        refused in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        quiet_panics();
        let mut core = ServerCore::new(Ctime::utc(), Scripted);
        let mut inbox = Inbox::new(buffers, REQUEST_LIMIT);
        let mut outbox = Outbox::new(queue, 128);
        let mut waiting: VecDeque<_> = scripts.iter().cloned().zip(50_000..).collect();
        let mut in_inbox: VecDeque<(Script, u16)> = VecDeque::new();
        let mut refused = refused.into_iter().cycle();
        let mut model: Vec<(&str, u64)> = Stats::default().counters().collect();
        let bump = |model: &mut Vec<(&str, u64)>, counter: &str, by: u64| {
            model.iter_mut().find(|(name, _)| *name == counter).unwrap().1 += by;
        };

        while !waiting.is_empty() {
            while inbox.has_space() && let Some((script, port)) = waiting.pop_front() {
                inbox.push(&script.datagram(), Meta::new(peer(port)));
                in_inbox.push_back((script, port));
            }
            while !inbox.is_empty() {
                let before = inbox.len();
                core.handle(now(), &mut inbox, &mut outbox);
                prop_assert!(inbox.len() < before, "every call takes something");

                let mut expected = Vec::new();
                for _ in inbox.len()..before {
                    let (script, port) = in_inbox.pop_front().unwrap();
                    let (counter, texts) = script.outcome();
                    bump(&mut model, "received", 1);
                    bump(&mut model, counter, 1);
                    expected.extend(texts.into_iter().map(|text| {
                        (peer(port), format!("[b'Sun Jul  7 17:17:58 2019']{text}").into_bytes())
                    }));
                }
                let queued: Vec<_> = outbox
                    .iter()
                    .map(|reply| (reply.peer, reply.bytes.to_vec()))
                    .collect();
                prop_assert_eq!(queued, expected);

                let mut sent = SendReport::default();
                for _ in 0..outbox.len() {
                    if refused.next().unwrap() {
                        sent.failed += 1;
                    } else {
                        sent.sent += 1;
                    }
                }
                bump(&mut model, "responses_sent", sent.sent as u64);
                bump(&mut model, "responses_failed", sent.failed as u64);
                // Without the error, its class is unknown.
                bump(&mut model, "send_errors_other", sent.failed as u64);
                core.on_sent(&sent);
                outbox.clear();

                prop_assert!(core.stats().is_conserved());
                // Whatever is left in the inbox was received and is pending.
                let mut model = model.clone();
                bump(&mut model, "received", inbox.len() as u64);
                bump(&mut model, "pending", inbox.len() as u64);
                prop_assert_eq!(core.stats().counters().collect::<Vec<_>>(), model);
            }
        }
        prop_assert_eq!(core.stats().received, scripts.len() as u64);
    }

    #[test]
    fn invariant_2_a_reply_never_triggers_a_reply(
        requests in prop::collection::vec(".{0,40}", 1..20),
        replies in prop::collection::vec(".{0,40}|\\[b'Sun Jul  7 17:17:58 2019'\\].{0,9}", 0..5),
        second in -62_135_596_800_i64..253_402_300_800,
    ) {
        let wall = match u64::try_from(second) {
            Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
            Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(second.unsigned_abs()),
        };
        let now = Timestamp::new(Duration::ZERO, wall);
        let mut core = ServerCore::new(Ctime::utc(), Several(replies.clone()));
        let mut inbox = Inbox::new(requests.len(), 512);
        for request in &requests {
            inbox.push(request.as_bytes(), Meta::new(peer(7_777)));
        }
        let outputs = drive(&mut core, now, &mut inbox);
        let understood = core.stats().replied;
        prop_assert_eq!(outputs.len() as u64, understood * replies.len() as u64);

        // To itself, and to the robot: neither says a word.
        let mut robot = robot::core();
        for output in &outputs {
            prop_assert!(answers(&mut core, &[output]).is_empty());
            prop_assert!(answers(&mut robot, &[output]).is_empty());
        }
        prop_assert_eq!(robot.stats().dropped(DropReason::Response), outputs.len() as u64);
        prop_assert_eq!(core.stats().replied, understood);
    }

    #[test]
    fn invariant_3_no_datagram_makes_a_core_panic(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
    ) {
        let mut core = robot::core();
        let datagrams: Vec<_> = datagrams.iter().map(Vec::as_slice).collect();
        answers(&mut core, &datagrams);
        prop_assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 0);
        prop_assert_eq!(answers(&mut core, &["你好吗？".as_bytes()]).len(), 1);
    }

    #[test]
    fn invariant_8_time_is_an_argument_so_the_same_input_gives_the_same_bytes(
        datagrams in prop::collection::vec(".{0,40}", 1..20),
        seconds in 0..253_402_300_800_u64,
    ) {
        let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let transcript = || {
            let mut core = robot::core();
            let mut inbox = Inbox::new(datagrams.len(), 512);
            for datagram in &datagrams {
                inbox.push(datagram.as_bytes(), Meta::new(peer(7_777)));
            }
            (drive(&mut core, now, &mut inbox), core.stats())
        };
        prop_assert_eq!(transcript(), transcript());
    }
}

/// Gives the same replies to every request.
struct Several(Vec<String>);

impl Handler<Ctime> for Several {
    fn handle(&self, _: &str, _: &Context, reply: &mut Reply<'_, Ctime>) -> Result<(), ReplyError> {
        self.0.iter().try_for_each(|text| reply.send(text))
    }
}

/// A robot that ends the test, rather than to go on for ever.
struct Patience(Arc<Mutex<ServerCore<Ctime, Arc<Robot>>>>);

impl Node for Patience {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        self.0.receive(now, inbox, outbox);
        let stats = self.0.lock().unwrap().stats();
        assert!(stats.received < 10, "they go on: {stats}");
    }
    fn on_sent(&mut self, sent: &SendReport) {
        self.0.on_sent(sent);
    }
}

#[test]
fn invariant_2_two_robots_facing_each_other_go_quiet_after_one_datagram() {
    let net = SimNet::new();
    let (a, b) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
    let robots = [a, b].map(|_| Arc::new(Mutex::new(robot::core())));
    net.host(a, Patience(Arc::clone(&robots[0]))).unwrap();

    // A forged request to the first robot seems to come from the second.
    let mut forger = net.bind(b).unwrap();
    let mut outbox = Outbox::new(1, 64);
    let written = outbox.push_with(a, None, |space| {
        let mut out = Writer::new(space);
        write!(out, "你好吗？").unwrap();
        out.finish()
    });
    written.unwrap();
    forger.send(&outbox);
    drop(forger);
    net.host(b, Patience(Arc::clone(&robots[1]))).unwrap();

    // The network rests only when nothing is in flight any more.
    let mut bystander = net.bind("10.0.0.3:3".parse().unwrap()).unwrap();
    let rest = bystander.recv(&mut Inbox::new(1, 64), Wait::Forever);
    assert_eq!(rest.unwrap_err().kind(), ErrorKind::Deadlock);

    let [first, second] = robots.map(|robot| robot.lock().unwrap().stats());
    assert_eq!(
        (first.received, first.replied, first.responses_sent),
        (1, 1, 1)
    );
    assert_eq!((second.received, second.responses_sent), (1, 0));
    assert_eq!(second.dropped(DropReason::Response), 1);
}

#[test]
fn invariant_9_the_batches_never_grow() {
    let mut inbox = Inbox::new(3, 8);
    let mut taken = 0;
    while inbox.has_space() {
        inbox.push(b"x", Meta::new(peer(7_777)));
        taken += 1;
    }
    assert_eq!((taken, inbox.len()), (3, 3));

    let mut outbox = Outbox::new(1_000, 60_000);
    let mut queued = 0;
    while outbox
        .push_with(peer(7_777), None, |space| Ok(space.len()))
        .is_ok()
    {
        queued += 1;
    }
    assert_eq!(queued, Outbox::ARENA_DATAGRAMS, "of the greatest length");
    outbox.clear();
    let mut queued = 0;
    while outbox.push_with(peer(7_777), None, |_| Ok(0)).is_ok() {
        queued += 1;
    }
    assert_eq!(queued, 1_000, "of no length");
}

#[test]
#[cfg_attr(miri, ignore = "searches nearly 64 KiB")]
fn a_robot_whose_answer_is_too_long_gives_the_fallback() {
    // Each 我 becomes 自己: a request that fits has an answer that does not.
    let request = format!("你{}吗？", "我".repeat(21_830));
    assert!(request.len() <= MAX_DATAGRAM_BYTES);
    let mut core = robot::core();
    let mut inbox = Inbox::new(1, MAX_DATAGRAM_BYTES);
    let mut outbox = Outbox::new(64, MAX_DATAGRAM_BYTES);
    inbox.push(
        request.as_bytes(),
        Meta::new("192.0.2.1:50000".parse().unwrap()),
    );
    core.handle(now(), &mut inbox, &mut outbox);
    let reply = outbox.iter().next().unwrap();
    let frame = Ctime::utc().decode_response(reply.bytes).unwrap();
    assert_eq!(frame.text, zurich().fallback().to_string());
    assert_eq!(core.stats().replied, 1);
}
