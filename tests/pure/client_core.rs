//! The client's core, driven by hand: sockets, tickets, ids, and what is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rejoinder::codec::{ResponseKind, Tagged, Text};
use rejoinder::sans_io::{ClientCore, SocketEvent, SocketId};
use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
use rejoinder::{
    Client, ClientBuilder, Codec, ConfigError, Correlation, RequestError, Retry, Ticket, Timestamp,
    Writer,
};

pub(super) const SERVER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    8888,
);
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn at(time: Duration) -> Timestamp {
    Timestamp::new(time, SystemTime::UNIX_EPOCH)
}

/// A core with a driver that remembers what is to be known of its sockets.
pub(super) struct Driven<C> {
    pub(super) core: ClientCore<C>,
    pub(super) now: Duration,
    random: u64,
    /// The sockets that are open, and whether something is waited for on each.
    pub(super) sockets: BTreeMap<SocketId, bool>,
    inbox: Inbox,
    outbox: Outbox,
}

/// What was sent at once, from one socket.
pub(super) type Batch = (SocketId, Vec<Vec<u8>>);

impl<C: Codec> Driven<C> {
    pub(super) fn new(builder: ClientBuilder<C>) -> Self {
        Self {
            core: builder.core(SERVER).unwrap(),
            now: Duration::ZERO,
            random: 0,
            sockets: BTreeMap::new(),
            inbox: Inbox::new(4, 2_000),
            outbox: Outbox::new(64, 2_000),
        }
    }

    pub(super) fn submit(&mut self, request: C::Request<'_>) -> Result<Ticket, RequestError> {
        let random = &mut self.random;
        self.core.submit(at(self.now), request, &mut || {
            // Odd, so that it comes to every number of so many bits.
            *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            Ok(*random)
        })
    }

    /// Sends what is due, with what the OS says of each batch, and of each socket to be opened.
    pub(super) fn send_with(
        &mut self,
        mut report: impl FnMut(&Outbox) -> SendReport,
        mut open: impl FnMut() -> io::Result<()>,
    ) -> Vec<Batch> {
        let mut batches = Vec::new();
        loop {
            self.close();
            let Some(socket) = self.core.poll_send(at(self.now), &mut self.outbox) else {
                return batches;
            };
            if !self.sockets.contains_key(&socket)
                && let Err(error) = open()
            {
                self.core.on_connect_error(at(self.now), socket, &error);
            } else {
                assert_ne!(self.sockets.insert(socket, true), Some(false), "it is idle");
                let datagrams = self.outbox.iter();
                batches.push((socket, datagrams.map(|one| one.bytes.to_vec()).collect()));
                self.core.on_sent(at(self.now), &report(&self.outbox));
            }
            self.outbox.clear();
        }
    }

    pub(super) fn send(&mut self) -> Vec<Batch> {
        self.send_with(all_sent, || Ok(()))
    }

    pub(super) fn close(&mut self) {
        while let Some(event) = self.core.poll_socket(at(self.now)) {
            match event {
                SocketEvent::Idle(socket) => {
                    assert_eq!(self.sockets.insert(socket, false), Some(true));
                }
                SocketEvent::Close(socket) => {
                    self.sockets.remove(&socket);
                }
                _ => {}
            }
        }
    }

    pub(super) fn receive(&mut self, socket: SocketId, bytes: &[u8]) {
        self.receive_with(socket, bytes, Meta::new(SERVER));
    }

    fn receive_with(&mut self, socket: SocketId, bytes: &[u8], meta: Meta) {
        self.inbox.push(bytes, meta);
        self.core.on_receive(at(self.now), socket, &mut self.inbox);
    }

    pub(super) fn fails(&mut self, socket: SocketId, kind: ErrorKind) -> Duration {
        self.core
            .on_receive_error(at(self.now), socket, &kind.into())
    }

    pub(super) fn error(&mut self) -> RequestError {
        let (_, result) = self.core.poll_result().unwrap();
        result.err().unwrap()
    }
}

pub(super) fn all_sent(outbox: &Outbox) -> SendReport {
    SendReport::accepted(outbox.len())
}

pub(super) fn all_refused(outbox: &Outbox, kind: ErrorKind) -> SendReport {
    let mut report = SendReport::default();
    for _ in outbox.iter() {
        report.record_failure(kind.into());
    }
    report
}

pub(super) fn builder<C: Codec>(codec: C) -> ClientBuilder<C> {
    Client::builder(codec).timeout(TIMEOUT)
}

#[test]
fn no_two_requests_have_the_same_ticket() {
    let mut client = Driven::new(builder(Text).window(2));
    let mut tickets = BTreeSet::new();
    for round in 0..100 {
        let ticket = client.submit("x").unwrap();
        assert!(tickets.last().is_none_or(|last| *last < ticket));
        assert!(tickets.insert(ticket), "{ticket:?} in round {round}");
        assert!(ticket.slot() < 2);
        let sent = client.send();
        client.receive(sent[0].0, b"y");
        assert!(client.core.has_result(ticket));
        // The slot's earlier requests are others.
        assert_eq!(
            tickets
                .iter()
                .filter(|ticket| client.core.has_result(**ticket))
                .count(),
            1
        );
        let response = client.core.take_result(ticket).unwrap().unwrap();
        assert_eq!((response.peer(), response.bytes()), (SERVER, &b"y"[..]));
        let shown = format!("{response:?}");
        assert!(shown.contains(&SERVER.to_string()), "{shown}");
        assert_eq!(response.decode().unwrap(), "y");
        assert!(client.core.take_result(ticket).is_none());
        client.now += secs(300);
    }
}

#[test]
fn an_error_counts_what_was_ignored_since_its_request_was_submitted() {
    let mut client = Driven::new(builder(Tagged(Text)).retry(Retry::never()));
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    for _ in 0..3 {
        client.receive(socket, b"junk");
    }
    client.now = secs(1);
    client.submit("two").unwrap();
    client.send();
    for _ in 0..4 {
        client.receive(socket, b"junk");
    }
    client.now = secs(6);
    assert!(client.send().is_empty());
    for expected in [7, 4] {
        let error = client.error();
        assert!(
            matches!(error, RequestError::TimedOut { ignored, .. } if ignored == expected),
            "{error:?}"
        );
    }
    assert_eq!(client.core.stats().ignored, 7);
}

#[test]
fn a_cancelled_request_is_not_sent_and_has_no_result() {
    let mut client = Driven::new(builder(Text).window(2).retry(Retry::new().max_in_flight(1)));
    let (one, two) = (client.submit("one").unwrap(), client.submit("two").unwrap());
    assert!(client.core.cancel(at(client.now), one));
    assert!(!client.core.cancel(at(client.now), one));
    let sent = client.send();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, [b"two"]);
    let stats = client.core.stats();
    assert_eq!((stats.in_flight, stats.room, stats.sockets), (1, 1, 1));

    // The only place for a retransmission is free again.
    let three = client.submit("three").unwrap();
    let third = client.send()[0].0;
    client.now = secs(2);
    let sent = client.send();
    assert_eq!(sent.len(), 1, "there is one place");
    let (first, other) = match &sent[0].1[0][..] {
        b"two" => (two, three),
        _ => (three, two),
    };
    assert!(client.core.cancel(at(client.now), first));
    assert_eq!(client.send().len(), 1);
    assert!(client.core.cancel(at(client.now), other));
    assert_eq!(client.core.next_timer(), None);

    // A response may still come, so their ports are kept; and it is no response to anything.
    client.close();
    assert_eq!(client.core.stats().cooling_sockets, 2);
    client.receive(third, b"late");
    assert_eq!(client.core.stats().ignored, 1);
    assert!(client.core.poll_result().is_none());
    client.now += secs(202);
    client.close();
    assert!(client.sockets.is_empty());

    // One that has its result can be given up too, but not once that is given out.
    let ticket = client.submit("four").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"yes");
    assert!(client.core.cancel(at(client.now), ticket));
    assert!(client.core.poll_result().is_none());
    assert_eq!(client.core.stats().room, 2);
    let ticket = client.submit("five").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"yes");
    assert!(client.core.take_result(ticket).is_some());
    assert!(!client.core.cancel(at(client.now), ticket));
}

#[test]
fn requests_with_ids_share_a_batch_and_others_have_a_socket_each() {
    let mut client = Driven::new(builder(Tagged(Text)));
    for _ in 0..100 {
        client.submit("x").unwrap();
    }
    let lengths: Vec<_> = client.send().iter().map(|(_, sent)| sent.len()).collect();
    assert_eq!(lengths, [64, 36]);
    assert_eq!(client.sockets.len(), 1);

    let mut client = Driven::new(builder(Text));
    for _ in 0..100 {
        client.submit("x").unwrap();
    }
    assert_eq!(client.send().len(), 100);
    assert_eq!(client.sockets.len(), 100);
    assert_eq!(client.core.stats().sockets, 100);
}

#[test]
fn a_socket_is_idle_after_its_request_and_closed_after_its_cooldown() {
    let mut client = Driven::new(builder(Text).cooldown(secs(60)).retry(Retry::never()));
    client.submit("x").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"y");
    client.close();
    assert_eq!(client.sockets, BTreeMap::from([(socket, false)]));
    client.now = secs(59);
    client.close();
    assert_eq!(client.sockets.len(), 1);
    // Its name is not another's before it is closed.
    client.submit("x").unwrap();
    let other = client.send()[0].0;
    assert_ne!(other, socket);
    client.now = secs(60);
    client.close();
    assert_eq!(client.sockets, BTreeMap::from([(other, true)]));
    client.submit("x").unwrap();
    assert_eq!(client.send()[0].0, socket);
}

#[test]
fn a_socket_from_which_nothing_left_needs_no_cooldown() {
    let mut client = Driven::new(builder(Text).retry(Retry::never()));
    client.submit("x").unwrap();
    client.send_with(
        |outbox| all_refused(outbox, ErrorKind::PermissionDenied),
        || Ok(()),
    );
    client.now = TIMEOUT;
    assert!(client.send().is_empty());
    client.close();
    assert!(client.sockets.is_empty());
    let error = client.error();
    assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
}

#[test]
fn one_that_cannot_be_opened_takes_the_descriptor_of_one_that_cools_down() {
    let mut client = Driven::new(builder(Text));
    for _ in 0..3 {
        client.submit("x").unwrap();
        let socket = client.send()[0].0;
        client.receive(socket, b"y");
        client
            .core
            .poll_result()
            .unwrap()
            .1
            .unwrap()
            .decode()
            .unwrap();
    }
    client.close();
    assert_eq!(client.sockets.len(), 3);
    client.submit("x").unwrap();
    let mut attempts = 0;
    let sent = client.send_with(all_sent, || {
        attempts += 1;
        match attempts {
            1 | 2 => Err(io::Error::from_raw_os_error(24)), // EMFILE
            _ => Ok(()),
        }
    });
    assert_eq!((sent.len(), attempts), (1, 3));
    assert_eq!(client.sockets.len(), 2);

    // Where that would not help, it fails.
    client.submit("x").unwrap();
    let sent = client.send_with(all_sent, || Err(ErrorKind::PermissionDenied.into()));
    assert!(sent.is_empty());
    let error = client.error();
    assert!(
        matches!(&error, RequestError::Connect { peer: SERVER, source }
            if source.kind() == ErrorKind::PermissionDenied),
        "{error:?}"
    );
    // Its name is free, and there is nothing to close.
    client.close();
    assert_eq!(client.core.stats().sockets, 1);
}

#[test]
fn a_socket_that_is_gone_fails_its_requests_and_is_replaced() {
    let mut client = Driven::new(builder(Tagged(Text)));
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        client.submit("one").unwrap();
        client.submit("two").unwrap();
        let socket = client.send()[0].0;
        names.insert(socket);
        assert!(client.fails(socket, ErrorKind::NotConnected).is_zero());
        for _ in 0..2 {
            let error = client.error();
            assert!(matches!(error, RequestError::Transport(_)), "{error:?}");
        }
        client.close();
        assert!(client.sockets.is_empty());
    }
    assert_eq!(names.len(), 1, "its name is free each time");
}

#[test]
fn an_error_that_came_before_a_request_is_not_its_own() {
    let mut client = Driven::new(builder(Tagged(Text)).retry(Retry::never()));
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    client.fails(socket, ErrorKind::ConnectionRefused);
    client.submit("two").unwrap();
    client.send();
    client.now = TIMEOUT;
    client.send();
    let (one, two) = (client.error(), client.error());
    assert!(
        matches!(one, RequestError::NobodyListening { .. }),
        "{one:?}"
    );
    assert!(matches!(two, RequestError::TimedOut { .. }), "{two:?}");
}

#[test]
fn a_request_that_the_outbox_has_no_room_for_fails() {
    let mut client = Driven::new(builder(Text));
    client.submit(&"x".repeat(2_001)).unwrap();
    assert!(client.send().is_empty());
    let RequestError::TooLong(error) = client.error() else {
        panic!("it is too long");
    };
    assert_eq!((error.bytes, error.limit), (2_001, 2_000));
}

#[test]
fn a_response_that_came_in_time_is_not_lost_because_the_driver_comes_late() {
    // How long after the deadline it is received, how long it had waited, whether it is accepted.
    for (late, waited, accepted) in [
        (secs(0), secs(0), false),
        (secs(10), secs(0), true),
        (secs(10), secs(9), false),
        (secs(10), secs(10), false),
        (secs(10), secs(11), true),
    ] {
        let mut client = Driven::new(builder(Text).retry(Retry::never()));
        client.submit("x").unwrap();
        let socket = client.send()[0].0;
        client.now = TIMEOUT + late;
        let mut meta = Meta::new(SERVER);
        meta.waited = waited;
        client.receive_with(socket, b"y", meta);
        assert_eq!(
            client.core.stats().uncollected == 1,
            accepted,
            "{late:?} {waited:?}"
        );
        client.send();
        assert_eq!(client.core.stats().in_flight, 0);
        assert_eq!(client.core.poll_result().unwrap().1.is_ok(), accepted);
    }
}

#[test]
fn a_setting_out_of_range_is_an_error_that_names_it() {
    let setting = |builder: ClientBuilder<Bits>| match builder.core(SERVER) {
        Err(ConfigError::OutOfRange { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    let with = |retry: Retry| Client::builder(Bits(16)).retry(retry);
    let one = || Client::builder(Bits(16));
    assert_eq!(setting(one().window(0)), "window");
    assert_eq!(setting(one().max_cooling_sockets(0)), "max_cooling_sockets");
    assert_eq!(
        setting(with(Retry::new().initial(Duration::ZERO))),
        "initial"
    );
    assert_eq!(setting(with(Retry::new().max_sends(0))), "max_sends");
    assert_eq!(
        setting(with(Retry::new().max_in_flight(0))),
        "max_in_flight"
    );
    for bits in [0, 65] {
        assert_eq!(setting(Client::builder(Bits(bits))), "codec ids (bits)");
    }
    for bits in 1..=64 {
        assert!(Client::builder(Bits(bits)).core(SERVER).is_ok());
    }
    let error = one().window(0).connect("127.0.0.1:9").unwrap_err();
    assert_eq!(error.to_string(), "window is 0, must be at least 1");
}

#[test]
fn ids_are_used_up_to_seven_eighths_and_never_twice_on_a_socket() {
    for (bits, uses) in [(1, 2), (2, 4), (3, 7), (8, 224), (16, 57_344), (32, 65_536)] {
        if cfg!(miri) && uses > 224 {
            continue;
        }
        let mut client = Driven::new(builder(Bits(bits)));
        let mut ids = BTreeSet::new();
        for number in 0..uses {
            client.submit(()).unwrap();
            let sent = client.send();
            assert_eq!(sent[0].0.index(), 0, "{number} of {bits} bits");
            assert!(ids.insert(sent[0].1[0].clone()));
            client.receive(sent[0].0, &sent[0].1[0]);
            client
                .core
                .poll_result()
                .unwrap()
                .1
                .unwrap()
                .decode()
                .unwrap();
        }
        client.submit(()).unwrap();
        assert_eq!(client.send()[0].0.index(), 1, "{bits} bits");
        assert_eq!(client.core.stats().cooling_sockets, 1);
    }
}

/// A datagram is an id of so many bits, in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits(pub(super) u32);

impl Codec for Bits {
    type Request<'a> = ();
    type Response<'a> = ();
    type Answer<'a> = ();
    type Error = Infallible;

    fn decode_request(&self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }
    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        (): (),
        out: &mut Writer<'_>,
    ) -> Result<(), Infallible> {
        out.put(request);
        Ok(())
    }
    fn encode_request(&self, id: u64, (): (), out: &mut Writer<'_>) -> Result<(), Infallible> {
        assert!(self.0 == 64 || id >> self.0 == 0);
        out.put(&id.to_be_bytes());
        Ok(())
    }
    fn decode_response(&self, _: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: self.0 }
    }
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(response.try_into().ok()?))
    }
}

/// A datagram is one byte of kind, and what the tests make of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds;

#[derive(Debug, thiserror::Error)]
#[error("code {0}")]
pub(super) struct Code(pub(super) u8);

impl Codec for Kinds {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = Code;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Code> {
        Ok(datagram)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Code> {
        out.put(answer);
        Ok(())
    }
    fn encode_request(&self, _: u64, request: &[u8], out: &mut Writer<'_>) -> Result<(), Code> {
        out.put(request);
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Code> {
        match datagram {
            [b'r' | b'x', code, ..] => Err(Code(*code)),
            other => Ok(other),
        }
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn response_matches(&self, _: &[u8], response: &[u8]) -> bool {
        response != b"a other"
    }
    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match datagram {
            [b'a', ..] => ResponseKind::Acknowledged,
            [b'r', ..] => ResponseKind::Refused,
            [b'p', index, total, payload @ ..] => ResponseKind::Part {
                index: u32::from(*index),
                total: u32::from(*total),
                payload,
            },
            _ => ResponseKind::Whole,
        }
    }
}

#[test]
fn an_acknowledgement_ends_the_retransmissions_and_not_the_wait() {
    for is_sent_again in [false, true] {
        let mut client =
            Driven::new(builder(Kinds).retry(Retry::new().initial(secs(1)).max_in_flight(1)));
        client.submit(b"?").unwrap();
        let socket = client.send()[0].0;
        if is_sent_again {
            client.now = client.core.next_timer().unwrap();
            assert_eq!(client.send().len(), 1);
        }
        client.receive(socket, b"a other");
        assert_eq!(client.core.stats().ignored, 1);
        assert!(client.core.next_timer() < Some(TIMEOUT));
        client.receive(socket, b"a");
        client.receive(socket, b"a");
        assert_eq!(client.core.stats().ignored, 1);
        assert_eq!(client.core.next_timer(), Some(TIMEOUT));
        client.now = secs(4);
        assert!(client.send().is_empty());
        client.receive(socket, b"yes");
        assert_eq!(
            client
                .core
                .poll_result()
                .unwrap()
                .1
                .unwrap()
                .decode()
                .unwrap(),
            b"yes"
        );

        // It has given up its place for a retransmission; and its wait ends at the deadline.
        for _ in 0..2 {
            client.submit(b"?").unwrap();
        }
        let sockets: Vec<_> = client.send().iter().map(|batch| batch.0).collect();
        client.now = secs(6);
        assert_eq!(client.send().len(), 1, "there is one place");
        for socket in sockets {
            client.receive(socket, b"a");
        }
        assert!(client.send().is_empty());
        client.now = secs(9);
        assert!(client.send().is_empty());
        for _ in 0..2 {
            let error = client.error();
            assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_refusal_ends_the_exchange_with_the_codecs_error() {
    let mut client = Driven::new(builder(Kinds));
    client.submit(b"?").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"r\x07");
    let error = client.error();
    assert_eq!(error.to_string(), "192.0.2.1:8888 refused the request");
    let RequestError::Refused { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.downcast_ref::<Code>().unwrap().0, 7);
    assert_eq!(client.core.next_timer(), None);
    // From another it is nothing.
    client.submit(b"?").unwrap();
    let socket = client.send()[0].0;
    client.receive_with(
        socket,
        b"r\x07",
        Meta::new("192.0.2.2:8888".parse().unwrap()),
    );
    assert_eq!(client.core.stats().in_flight, 1);
}

#[test]
fn several_datagrams_make_one_response() {
    let mut client = Driven::new(builder(Kinds).max_response(4, 10));
    client.submit(b"?").unwrap();
    let socket = client.send()[0].0;
    for part in [&b"p\x02\x03ef"[..], b"p\x00\x03ab", b"p\x02\x03ef"] {
        client.receive(socket, part);
        assert_eq!(client.core.stats().in_flight, 1);
    }
    assert_eq!(client.core.stats().ignored, 1, "one came twice");
    client.receive(socket, b"p\x01\x03cd");
    assert_eq!(
        client
            .core
            .poll_result()
            .unwrap()
            .1
            .unwrap()
            .decode()
            .unwrap(),
        b"abcdef"
    );

    // What comes of the next in the same slot is its own.
    client.submit(b"?").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"p\x00\x01z");
    assert_eq!(
        client
            .core
            .poll_result()
            .unwrap()
            .1
            .unwrap()
            .decode()
            .unwrap(),
        b"z"
    );
}

#[test]
fn a_response_of_which_datagrams_are_missing_is_asked_for_again_and_named_in_the_end() {
    let mut client = Driven::new(builder(Kinds));
    client.submit(b"?").unwrap();
    let socket = client.send()[0].0;
    client.now = ms(900);
    client.receive(socket, b"p\x00\x02ab");
    // As long as they come, nothing is missing.
    client.now = ms(1_800);
    assert!(client.send().is_empty());
    client.now = ms(2_500);
    assert_eq!(client.send().len(), 1);
    client.now = TIMEOUT;
    client.send();
    let error = client.error();
    assert_eq!(
        error.to_string(),
        "only 1 of the 2 datagrams of a response came from 192.0.2.1:8888 in 5s: missing 1"
    );
    assert!(matches!(error, RequestError::Incomplete { missing, .. } if missing == [1..=1]));
}

#[test]
fn a_response_that_is_too_large_is_no_response() {
    for part in [&b"p\x00\x05a"[..], b"p\x00\x02abcdefghijk"] {
        let mut client = Driven::new(builder(Kinds).max_response(4, 10));
        client.submit(b"?").unwrap();
        let socket = client.send()[0].0;
        client.receive(socket, part);
        assert_eq!(client.core.stats().ignored, 1);
        client.now = TIMEOUT;
        client.send();
        let error = client.error();
        assert!(matches!(error, RequestError::Malformed { .. }), "{error:?}");
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A discovery of [`SERVER`]'s group, sent, and its socket.
fn discovery<C>(client: &mut Driven<C>, time: Duration) -> (Ticket, SocketId)
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let mut random = 0;
    let ticket = client.core.discover(at(client.now), "who?", time, &mut || {
        random += 1;
        Ok(random)
    });
    let batches = client.send();
    assert_eq!(batches.len(), 1);
    (ticket.unwrap(), batches[0].0)
}

fn member(number: u8) -> Meta {
    Meta::new((std::net::Ipv4Addr::new(192, 0, 2, number), 8888).into())
}

/// The responses that are there, each with the last byte of its peer's address.
fn responses<C>(client: &mut Driven<C>, ticket: Ticket) -> Vec<(u8, String)>
where
    C: for<'a> Codec<Response<'a> = &'a str>,
{
    let mut responses = Vec::new();
    while let Some(response) = client.core.take_result(ticket) {
        let response = response.unwrap();
        let std::net::IpAddr::V4(ip) = response.peer().ip() else {
            panic!("{response:?} is of no member");
        };
        responses.push((ip.octets()[3], response.decode().unwrap().to_owned()));
    }
    responses
}

#[test]
fn a_discovery_takes_one_response_of_each_peer_until_its_time_is_over() {
    let mut client = Driven::new(builder(Text));
    let (ticket, socket) = discovery(&mut client, secs(2));
    assert!(!client.core.has_result(ticket));
    client.receive_with(socket, b"one", member(1));
    client.receive_with(socket, b"two", member(2));
    client.receive_with(socket, b"two again", member(2));
    client.receive_with(socket, b"\xff", member(3)); // no text
    client.receive_with(socket, b"three", member(3));
    assert_eq!(client.core.stats().ignored, 2);
    let some = [
        (1, "one".to_owned()),
        (2, "two".into()),
        (3, "three".into()),
    ];
    assert_eq!(responses(&mut client, ticket), some);

    // It is sent again, and those who have responded do not count twice.
    client.now = secs(1);
    assert_eq!(client.send().len(), 1);
    client.receive_with(socket, b"one", member(1));
    client.receive_with(socket, b"four", member(4));
    assert_eq!(responses(&mut client, ticket), [(4, "four".to_owned())]);

    client.now = secs(2);
    client.send();
    assert!(client.core.has_result(ticket));
    assert!(responses(&mut client, ticket).is_empty());
    assert!(client.core.poll_result().is_none());
    client.receive_with(socket, b"late", member(5));
    assert!(client.core.take_result(ticket).is_none());
    assert_eq!(client.core.stats().ignored, 4);

    let room = client.core.stats().room;
    assert!(client.core.cancel(at(client.now), ticket));
    assert!(!client.core.cancel(at(client.now), ticket));
    assert!(!client.core.has_result(ticket));
    assert_eq!(client.core.stats().room, room + 1);
}

#[test]
fn a_discovery_with_ids_has_a_socket_of_its_own_and_takes_its_own_id_only() {
    let mut client = Driven::new(builder(Tagged(Text)));
    client.submit("another").unwrap();
    let another = client.send()[0].0;
    let (ticket, socket) = discovery(&mut client, secs(2));
    assert_ne!(another, socket);
    client.receive_with(socket, b"!\0\0\0\0\0\0\0\x01one", member(1));
    client.receive_with(socket, b"!\0\0\0\0\0\0\0\x02forged", member(2));
    client.receive_with(another, b"!\0\0\0\0\0\0\0\x01three", member(3));
    assert_eq!(responses(&mut client, ticket), [(1, "one".to_owned())]);
    assert_eq!(client.core.stats().in_flight, 2);
    // Only its own peer can answer the other.
    assert!(client.core.poll_result().is_none());
}

#[test]
fn a_discovery_is_bounded_in_peers_and_in_bytes_that_wait() {
    let mut client = Driven::new(builder(Text).max_responders(3).max_response(4, 10));
    let (ticket, socket) = discovery(&mut client, secs(2));
    client.receive_with(socket, b"123456", member(1));
    client.receive_with(socket, b"12345", member(2));
    assert_eq!(responses(&mut client, ticket), [(1, "123456".to_owned())]);
    for number in 2..6 {
        client.receive_with(socket, b"!", member(number));
    }
    let taken = [(2, "!".to_owned()), (3, "!".into())];
    assert_eq!(responses(&mut client, ticket), taken);
    assert_eq!(client.core.stats().ignored, 3);
}

#[test]
fn a_discovery_that_cannot_be_sent_says_why() {
    let mut client = Driven::new(builder(Text));
    let random = &mut || Ok(1);
    let ticket = client.core.discover(at(secs(0)), "who?", secs(1), random);
    let refuse = |outbox: &Outbox| all_refused(outbox, ErrorKind::PermissionDenied);
    client.send_with(refuse, || Ok(()));
    client.now = secs(1);
    client.send_with(refuse, || Ok(()));
    let ticket = ticket.unwrap();
    let error = client.core.take_result(ticket).unwrap().unwrap_err();
    assert_eq!(error.peer(), Some(SERVER));
    assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
    assert!(client.core.has_result(ticket));
    assert!(client.core.take_result(ticket).is_none());
}

#[test]
fn a_refusal_of_one_member_leaves_the_others() {
    let mut client = Driven::new(builder(Kinds));
    let random = &mut || Ok(1);
    let ticket = client.core.discover(at(secs(0)), b"?", secs(1), random);
    let (ticket, socket) = (ticket.unwrap(), client.send()[0].0);
    client.receive_with(socket, b"a", member(1));
    client.receive_with(socket, b"r1", member(2));
    client.receive_with(socket, b"w", member(3));
    let mut kinds = Vec::new();
    while let Some(result) = client.core.take_result(ticket) {
        kinds.push(match result {
            Ok(response) => (response.peer().to_string(), Some(response.bytes().to_vec())),
            Err(error) => (error.peer().unwrap().to_string(), None),
        });
    }
    assert_eq!(kinds[0], ("192.0.2.2:8888".to_owned(), None));
    assert_eq!(kinds[1], ("192.0.2.3:8888".to_owned(), Some(b"w".to_vec())));
    assert_eq!((kinds.len(), client.core.stats().ignored), (2, 1));
}

#[test]
fn a_socket_that_is_of_no_use_and_cannot_be_replaced_is_not_tried_for_ever() {
    let mut client = Driven::new(builder(Text).max_cooling_sockets(1));
    let first = client.submit("one").unwrap();
    client.submit("two").unwrap();
    client.send();
    // Its socket cools down, and a response may come to it. So there can be no third one now.
    client.core.cancel(at(client.now), first);
    client.now += secs(2);
    let mut attempts = 0;
    client.send_with(
        |outbox| {
            attempts += 1;
            assert!(attempts < 20, "it goes on and on");
            all_refused(outbox, ErrorKind::AddrNotAvailable)
        },
        || Ok(()),
    );
    assert_ne!(attempts, 0);
}

#[test]
fn a_response_names_the_address_that_sent_it_also_when_the_request_has_moved_on() {
    let other = (std::net::Ipv4Addr::new(192, 0, 2, 77), 8888).into();
    let mut client = Driven::new(builder(Text).other_peers([other]));
    let ticket = client.submit("one").unwrap();
    let first = client.send()[0].0;
    client.now = secs(2);
    let second = client.send()[0].0;
    assert_ne!(first, second);
    client.receive(first, b"slow");
    let response = client.core.take_result(ticket).unwrap().unwrap();
    assert_eq!((response.peer(), response.bytes()), (SERVER, &b"slow"[..]));

    let mut client = Driven::new(builder(Kinds).other_peers([other]));
    let random = &mut || Ok(1);
    let ticket = client.core.submit(at(secs(0)), b"?", random).unwrap();
    let first = client.send()[0].0;
    client.now = secs(2);
    client.send();
    client.receive(first, b"r1");
    let error = client.core.take_result(ticket).unwrap().unwrap_err();
    assert!(matches!(error, RequestError::Refused { peer, .. } if peer == SERVER));
}

#[test]
fn an_error_of_a_closed_socket_changes_nothing_where_there_are_several_addresses() {
    let other = (std::net::Ipv4Addr::new(192, 0, 2, 77), 8888).into();
    let mut client = Driven::new(builder(Text).cooldown(Duration::ZERO).other_peers([other]));
    let ticket = client.submit("one").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"1");
    client.core.take_result(ticket).unwrap().unwrap();
    client.close();
    let refused = ErrorKind::ConnectionRefused.into();
    client
        .core
        .on_receive_error(at(client.now), socket, &refused);
    assert_eq!(client.core.peer(), SERVER);
}
