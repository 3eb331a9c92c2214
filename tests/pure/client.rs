//! The client: its core driven purely, then over a network in memory and over UDP.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use rejoinder::codec::{Ctime, CtimeError, Raw, Tagged, Text, TextError};
use rejoinder::sans_io::{ClientCore, ServerCore, SocketId};
use rejoinder::sim::{Node, SimNet, SimTransport};
use rejoinder::transport::{
    Connect, Datagram, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport,
};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{
    Client, ClientBuilder, Codec, RequestError, Retry, Timestamp, Transport, Wait, Writer,
};
use rejoinder_test_support::robot;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough that a machine under load answers in time.
const PATIENT: Duration = Duration::from_secs(30);
/// For tests in which nothing comes.
const SHORT: Duration = Duration::from_millis(60);
const QUESTION: &str = "question";

fn at(time: Duration) -> Timestamp {
    Timestamp::new(time, SystemTime::UNIX_EPOCH)
}

fn server() -> SocketAddr {
    "192.0.2.1:8888".parse().unwrap()
}

fn builder<C: Codec>(codec: C) -> ClientBuilder<C> {
    Client::builder(codec).timeout(TIMEOUT)
}

/// A core with one request, and what drives it.
struct Asking<C> {
    core: ClientCore<C>,
    socket: Option<SocketId>,
    was_refused: bool,
    inbox: Inbox,
    outbox: Outbox,
}

/// A core with one request, in slot 0, that was submitted `now`. `random` decides the jitter: with
/// 0 the first timeout is one second.
fn submitted<C>(
    builder: ClientBuilder<C>,
    peer: SocketAddr,
    now: Duration,
    random: u64,
) -> Asking<C>
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let mut core = builder.core(peer).unwrap();
    let ticket = core.submit(at(now), QUESTION, &mut || Ok(random)).unwrap();
    assert_eq!((ticket.slot(), core.stats().in_flight), (0, 1));
    Asking {
        core,
        socket: None,
        was_refused: false,
        inbox: Inbox::new(1, 512),
        outbox: Outbox::new(1, 512),
    }
}

/// A core that has just sent its only request, at time zero, and will again after 1 and 3 seconds.
fn asking<C>(codec: C, peer: SocketAddr) -> Asking<C>
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let mut asking = submitted(builder(codec), peer, Duration::ZERO, 0);
    assert_eq!(asking.sends(Duration::ZERO), 1);
    asking
}

impl<C: Codec> Asking<C> {
    /// Lets everything be sent that is due, and returns how much that was.
    fn sends(&mut self, now: Duration) -> u32 {
        self.sends_with(now, &SendReport::default())
    }

    fn sends_with(&mut self, now: Duration, report: &SendReport) -> u32 {
        let mut sends = 0;
        while let Some(socket) = self.core.poll_send(at(now), &mut self.outbox) {
            // Another is tried only where the OS refuses to send from this one.
            let is_same = self.socket.is_none_or(|before| before == socket);
            assert!(is_same || self.was_refused);
            self.socket = Some(socket);
            assert_eq!(self.outbox.len(), 1);
            for datagram in self.outbox.iter() {
                assert_eq!(datagram.bytes, QUESTION.as_bytes());
            }
            self.core.on_sent(at(now), report);
            self.was_refused |= report.last_error.is_some();
            self.outbox.clear();
            sends += 1;
        }
        sends
    }

    /// Waits, as the core wants it, until nothing is in flight. Returns when it sent.
    fn wait(&mut self) -> Vec<Duration> {
        let mut times = Vec::new();
        let mut earlier = None;
        while let Some(timer) = self.core.next_timer() {
            assert!(earlier < Some(timer), "or a driver would spin");
            earlier = Some(timer);
            if let Some(before) = timer.checked_sub(Duration::from_nanos(1)) {
                assert_eq!(self.sends(before), 0, "not before its time");
            }
            for _ in 0..self.sends(timer) {
                times.push(timer);
            }
        }
        times
    }

    /// The result, which is a failure.
    fn failure(&mut self) -> RequestError {
        assert_eq!(self.core.stats().in_flight, 0);
        let (_, result) = self.core.poll_result().expect("it has its result");
        let error = result.expect_err("it has failed");
        assert!(
            self.core.poll_result().is_none(),
            "one result for one request"
        );
        error
    }

    /// Why there is no response at the deadline, if nothing else happens.
    fn failure_in_the_end(&mut self) -> RequestError {
        self.wait();
        self.failure()
    }

    fn receive(&mut self, now: Duration, datagram: Datagram<'_>) {
        self.inbox.push(datagram.bytes, datagram.meta);
        let socket = self.socket.expect("something was sent");
        self.core.on_receive(at(now), socket, &mut self.inbox);
    }

    /// Whether a datagram that comes at once is the response. If not, it is counted.
    fn accepts(&mut self, datagram: Datagram<'_>) -> bool {
        let ignored = self.core.stats().ignored;
        self.receive(Duration::ZERO, datagram);
        let accepted = self.core.stats().uncollected == 1;
        assert_eq!(self.core.stats().in_flight, usize::from(!accepted));
        assert_eq!(self.core.stats().ignored, ignored + u64::from(!accepted));
        accepted
    }

    /// Has the OS report that the peer cannot be reached.
    fn unreachable(&mut self, now: Duration, kind: io::ErrorKind) {
        let socket = self.socket.expect("something was sent");
        let pause = self.core.on_receive_error(at(now), socket, &kind.into());
        assert!(pause <= Duration::from_millis(1));
    }
}

fn from(peer: SocketAddr, bytes: &[u8]) -> Datagram<'_> {
    Datagram::new(bytes, Meta::new(peer))
}

// The core.

#[test]
fn a_request_is_sent_at_once_and_again_by_the_documented_schedule() {
    for (random, first) in [
        (0, Duration::from_secs(1)),
        (1 << 63, Duration::from_millis(1_250)),
        (u64::MAX, Duration::from_millis(1_500)),
    ] {
        let mut core = submitted(builder(Text), server(), Duration::ZERO, random);
        let times = core.wait();
        assert_eq!(times, [0, 1, 3].map(|timeouts| first * timeouts));
        assert!(matches!(
            core.failure(),
            RequestError::TimedOut {
                after: TIMEOUT,
                sends: 3,
                ignored: 0,
                ..
            }
        ));

        let patient = Client::builder(Text).timeout(TIMEOUT * 20);
        let mut core = submitted(patient, server(), Duration::ZERO, random);
        let times = core.wait();
        assert_eq!(times, [0, 1, 3, 7, 15].map(|timeouts| first * timeouts));
        assert!(matches!(
            core.failure(),
            RequestError::TimedOut { after, sends: 5, .. } if after == TIMEOUT * 20
        ));
    }
}

#[test]
fn without_retransmissions_the_request_is_sent_once_and_the_wait_is_what_is_left() {
    let once = builder(Text).retry(Retry::never());
    let mut core = submitted(once, server(), Duration::ZERO, 0);
    assert_eq!(core.sends(Duration::ZERO), 1);
    for millis in [0, 1, 4_999] {
        assert_eq!(core.sends(Duration::from_millis(millis)), 0);
        assert_eq!(
            (
                core.core.stats().in_flight,
                core.core.stats().uncollected > 0
            ),
            (1, false)
        );
    }
    assert_eq!(core.core.next_timer(), Some(TIMEOUT));
    assert_eq!(core.sends(TIMEOUT), 0);
    assert_eq!(core.core.next_timer(), None);
    // A result that is not taken stays as it is.
    assert_eq!(core.sends(TIMEOUT * 2), 0);
    assert!(matches!(
        core.failure(),
        RequestError::TimedOut {
            after: TIMEOUT,
            sends: 1,
            ..
        }
    ));
}

#[test]
fn a_driver_that_comes_late_sends_nothing_after_the_deadline() {
    let mut core = asking(Text, server());
    assert_eq!(core.sends(TIMEOUT * 2), 0);
    assert!(matches!(
        core.failure(),
        RequestError::TimedOut { after, sends: 1, .. } if after == TIMEOUT * 2
    ));
}

#[test]
fn a_timeout_of_zero_fails_before_anything_is_sent() {
    let none = builder(Text).timeout(Duration::ZERO);
    let mut core = submitted(none, server(), TIMEOUT, 0);
    assert_eq!(core.sends(TIMEOUT), 0);
    let RequestError::TimedOut {
        after: Duration::ZERO,
        sends: 0,
        ..
    } = core.failure()
    else {
        panic!("no time is no time");
    };
}

#[test]
fn the_longest_timeout_there_is_does_not_overflow() {
    let longest = builder(Text).timeout(Duration::MAX);
    let mut core = submitted(longest.clone(), server(), TIMEOUT, 0);
    let times = core.wait();
    let expected = [0, 1, 3, 7, 15].map(|seconds| TIMEOUT + Duration::from_secs(seconds));
    assert_eq!(times, expected);
    assert!(matches!(
        core.failure(),
        RequestError::TimedOut { after, .. } if after == Duration::MAX.checked_sub(TIMEOUT).unwrap()
    ));

    for random in [0, u64::MAX] {
        let rarely = longest.clone().retry(Retry::new().initial(Duration::MAX));
        let mut core = submitted(rarely, server(), TIMEOUT, random);
        assert_eq!(core.wait(), [TIMEOUT]);
    }
}

#[test]
fn invariant_6_only_the_peer_asked_can_answer() {
    let mut core = asking(Text, server());
    for other in ["192.0.2.2:8888", "192.0.2.1:8889", "[2001:db8::1]:8888"] {
        let other = other.parse().unwrap();
        assert!(!core.accepts(from(other, b"forged")));
    }
    // The same machine, as an IPv4-mapped IPv6 address: not what a transport may report.
    let mapped = "[::ffff:192.0.2.1]:8888".parse().unwrap();
    assert!(!core.accepts(from(mapped, b"forged")));
    assert!(core.accepts(from(server(), b"real")));
    let response = core.core.poll_result().unwrap().1.unwrap();
    assert_eq!(response.decode().unwrap(), "real");

    let mut core = asking(Text, server());
    for port in [1, 8_887, 8_889, 65_535] {
        let other = SocketAddr::new(server().ip(), port);
        assert!(!core.accepts(from(other, b"forged")));
    }
    let RequestError::TimedOut { ignored: 4, .. } = core.failure_in_the_end() else {
        panic!("each of the others was counted");
    };
}

#[test]
fn a_peer_given_as_an_ipv4_mapped_address_is_recognised() {
    let mapped = "[::ffff:192.0.2.1]:8888".parse().unwrap();
    let mut core = asking(Text, mapped);
    assert!(core.accepts(from(server(), b"real")));
}

#[test]
fn an_ipv6_scope_matters_only_if_one_was_asked_for() {
    let scoped = |scope| {
        let SocketAddr::V6(mut addr) = "[fe80::1]:7".parse().unwrap() else {
            unreachable!()
        };
        addr.set_scope_id(scope);
        // The flow label says nothing about who sent a datagram.
        addr.set_flowinfo(scope * 3);
        SocketAddr::V6(addr)
    };
    let accepts = |asked, actual| asking(Text, asked).accepts(from(actual, b"x"));
    assert!(accepts(scoped(2), scoped(2)));
    assert!(!accepts(scoped(2), scoped(3)));
    assert!(accepts(scoped(0), scoped(3)));

    let [one, other] = ["[fd00::1]:7", "[fd00::1]:8"].map(|addr| addr.parse().unwrap());
    assert!(accepts(one, one) && !accepts(one, other));
}

#[test]
fn invariant_4_a_truncated_answer_is_no_answer() {
    let mut core = asking(Text, server());
    let mut cut = from(server(), b"half of an answ");
    cut.meta.truncated = true;
    assert!(!core.accepts(cut));
    let RequestError::TimedOut { ignored: 1, .. } = core.failure_in_the_end() else {
        panic!("it was counted, and nothing else is known about it");
    };
}

#[test]
fn a_malformed_answer_is_ignored_and_told_in_the_end() {
    let mut core = asking(Ctime::utc(), server());
    assert!(!core.accepts(from(server(), b"no frame")));
    // From another address it means nothing.
    let other = "192.0.2.2:8888".parse().unwrap();
    assert!(!core.accepts(from(other, b"[b'Sun")));

    let error = core.failure_in_the_end();
    assert_eq!(
        error.to_string(),
        "no answer from 192.0.2.1:8888 after 5s, only malformed datagrams"
    );
    let RequestError::Malformed { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(matches!(
        source.downcast_ref(),
        Some(CtimeError::NotAResponse { offset: 0, .. })
    ));

    // A real answer is none the worse for what came before it.
    let mut core = asking(Ctime::utc(), server());
    assert!(!core.accepts(from(server(), b"no frame")));
    let frame = "[b'Sun Jul  7 17:17:58 2019']好";
    assert!(core.accepts(from(server(), frame.as_bytes())));
    let response = core.core.poll_result().unwrap().1.unwrap();
    assert_eq!(response.decode().unwrap().to_string(), frame);
}

#[test]
fn the_error_says_what_is_known() {
    let timed_out = asking(Text, server()).failure_in_the_end();
    assert_eq!(
        timed_out.to_string(),
        "no answer from 192.0.2.1:8888 after 5s (sent 3, ignored 0 datagrams)"
    );

    let mut refused = asking(Text, server());
    refused.unreachable(Duration::ZERO, io::ErrorKind::ConnectionRefused);
    assert!(refused.core.stats().in_flight == 1, "that may be a lie");
    assert_eq!(
        refused.failure_in_the_end().to_string(),
        "no service is listening at 192.0.2.1:8888"
    );

    for kind in [
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
    ] {
        let mut far = asking(Text, server());
        far.unreachable(Duration::ZERO, kind);
        let error = far.failure_in_the_end();
        assert_eq!(error.to_string(), "192.0.2.1:8888 cannot be reached");
        assert!(matches!(error, RequestError::Unreachable { source, .. } if source.kind() == kind));
    }

    let mut refused = asking(Text, server());
    refused.unreachable(Duration::ZERO, io::ErrorKind::ConnectionRefused);
    // A malformed response shows that the port is open, after all.
    assert!(!refused.accepts(from(server(), b"\xff")));
    assert!(matches!(
        refused.failure_in_the_end(),
        RequestError::Malformed { .. }
    ));

    let mut late = submitted(builder(Text), server(), Duration::ZERO, 0);
    assert_eq!(late.sends(Duration::from_nanos(5_034_678_279)), 0);
    assert_eq!(
        late.failure().to_string(),
        "no answer from 192.0.2.1:8888 after 5.035s (sent 0, ignored 0 datagrams)"
    );

    // If the system refuses some, others may have got through.
    for refusals in 0..=3 {
        let mut core = submitted(builder(Text), server(), Duration::ZERO, 0);
        for send in 0..3 {
            let now = core.core.next_timer().unwrap();
            let mut report = SendReport::default();
            if send < refusals {
                report.record_failure(io::ErrorKind::PermissionDenied.into());
            }
            assert_eq!(core.sends_with(now, &report), 1);
        }
        let error = core.failure_in_the_end();
        let expected = if refusals == 3 {
            "cannot send to 192.0.2.1:8888 in 5s"
        } else {
            "no answer from 192.0.2.1:8888 after 5s (sent 3, ignored 0 datagrams)"
        };
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_unreachable_peer_fails_a_request_at_once_if_that_was_asked_for() {
    let impatient = builder(Text).fail_when_unreachable(true);
    let mut core = submitted(impatient, server(), Duration::ZERO, 0);
    assert_eq!(core.sends(Duration::ZERO), 1);
    core.unreachable(Duration::ZERO, io::ErrorKind::ConnectionRefused);
    assert_eq!(core.core.next_timer(), None);
    assert!(matches!(
        core.failure(),
        RequestError::NobodyListening { peer } if peer == server()
    ));
}

#[test]
fn what_only_the_codec_can_compare_is_asked_of_the_codec() {
    let mut core = asking(Echoing, server());
    assert!(!core.accepts(from(server(), b"questiom")));
    assert!(core.accepts(from(server(), b"question")));
}

/// A protocol whose responses repeat their requests.
struct Echoing;

impl Codec for Echoing {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a str;
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_request(datagram)
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        out.put(answer.as_bytes());
        Ok(())
    }
    fn encode_request(
        &self,
        id: u64,
        request: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        Text.encode_request(id, request, out)
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_response(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        request == response
    }
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
    fn invariant_6_nothing_that_anybody_sends_moves_the_deadline(
        random in any::<u64>(),
        junk in prop::collection::vec(
            (0..5_000_u64, 0..4_u8, prop::collection::vec(any::<u8>(), 0..60)),
            0..40,
        ),
    ) {
        let quiet = submitted(builder(Ctime::utc()), server(), Duration::ZERO, random).wait();
        prop_assert_eq!(quiet.len(), 3);

        let mut junk = junk;
        junk.sort();
        let mut core = submitted(builder(Ctime::utc()), server(), Duration::ZERO, random);
        let mut times = Vec::new();
        for (millis, kind, bytes) in &junk {
            let now = Duration::from_millis(*millis);
            while let Some(timer) = core.core.next_timer() && timer <= now {
                times.extend((0..core.sends(timer)).map(|_| timer));
            }
            let timer = core.core.next_timer();
            let sender = match kind {
                0 => "192.0.2.1:1".parse().unwrap(),
                1 => "192.0.2.9:8888".parse().unwrap(),
                _ => server(),
            };
            let mut datagram = from(sender, bytes);
            datagram.meta.truncated = *kind == 2;
            if *kind == 3 {
                core.unreachable(now, io::ErrorKind::ConnectionRefused);
            }
            core.receive(now, datagram);
            prop_assert_eq!(core.core.next_timer(), timer);
            prop_assert!(core.core.stats().in_flight == 1);
        }
        let ignored = u64::try_from(junk.len()).unwrap();
        prop_assert_eq!(core.core.stats().ignored, ignored);
        times.extend(core.wait());
        prop_assert_eq!(times, quiet);

        match core.failure() {
            RequestError::Malformed { after, .. } => {
                prop_assert_eq!(after, TIMEOUT);
                prop_assert!(junk.iter().any(|(_, kind, _)| *kind == 3));
            }
            RequestError::TimedOut { after, sends, ignored: counted, .. } => {
                prop_assert_eq!((after, sends, counted), (TIMEOUT, 3, ignored));
                prop_assert!(junk.iter().all(|(_, kind, _)| *kind != 3));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

// Over a network in memory.

fn sim_server(net: &SimNet) -> SocketAddr {
    let addr = "10.0.0.1:8888".parse().unwrap();
    net.host(addr, robot::core()).unwrap();
    addr
}

#[test]
fn a_client_asks_again_and_again() {
    let net = SimNet::new();
    let mut client = Client::new(net.clone(), Ctime::utc(), sim_server(&net));
    for name in ["甲", "乙", "我"] {
        let frame = client.request(&format!("你是{name}吗？")).unwrap();
        let name = name.replace('我', "自己");
        assert_eq!(frame.text, format!("【机器人】小Zurich 是{name}!"));
    }
    assert_eq!(net.now().monotonic, Duration::ZERO, "nobody waited");
}

#[test]
fn silence_lasts_until_the_deadline_and_not_longer() {
    let net = SimNet::new();
    let addr = "10.0.0.1:8888".parse().unwrap();
    net.host(addr, ServerCore::new(Text, |_: &str| ())).unwrap();
    let mut client = Client::new(net.clone(), Text, addr);
    let error = client.request("anybody?").unwrap_err();
    let RequestError::TimedOut {
        peer,
        after,
        sends: 3,
        ignored: 0,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((peer, after), (addr, TIMEOUT));
    assert_eq!(net.now().monotonic, TIMEOUT);
}

/// A server that lets an accomplice answer before it answers itself.
struct Victim {
    accomplice: SocketAddr,
    asker: Option<SocketAddr>,
}

/// Answers the addresses it is given, and then reports.
struct Accomplice;

fn push(outbox: &mut Outbox, peer: SocketAddr, bytes: &[u8]) {
    let pushed = outbox.push(peer, None, bytes);
    pushed.unwrap();
}

impl Node for Victim {
    fn receive(&mut self, _: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        while let Some(datagram) = inbox.pop() {
            let peer = datagram.meta.peer;
            match self.asker {
                Some(asker) if peer == self.accomplice => push(outbox, asker, b"real"),
                _ => {
                    self.asker = Some(peer);
                    push(outbox, self.accomplice, peer.to_string().as_bytes());
                }
            }
        }
    }
    fn on_sent(&mut self, _: &SendReport) {}
}

impl Node for Accomplice {
    fn receive(&mut self, _: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        while let Some(datagram) = inbox.pop() {
            let asker = std::str::from_utf8(datagram.bytes).unwrap().parse();
            push(outbox, asker.unwrap(), b"forged");
            push(outbox, datagram.meta.peer, b"done");
        }
    }
    fn on_sent(&mut self, _: &SendReport) {}
}

#[test]
fn invariant_6_a_forged_answer_that_comes_first_is_ignored_and_the_real_one_is_returned() {
    let peer = "10.0.0.1:8888".parse().unwrap();
    // The same address as the victim's but for the port, then but for the machine.
    for accomplice in ["10.0.0.1:8889", "10.0.0.2:8888"] {
        let accomplice = accomplice.parse().unwrap();
        let net = SimNet::new();
        let asker = None;
        net.host(peer, Victim { accomplice, asker }).unwrap();
        net.host(accomplice, Accomplice).unwrap();
        let mut client = Client::new(net, Text, peer);
        assert_eq!(client.request("?").unwrap(), "real");
    }
}

#[test]
fn a_request_that_cannot_be_encoded_is_not_sent() {
    let net = SimNet::new();
    let addr = sim_server(&net);
    let mut client = Client::new(net.clone(), Ctime::utc(), addr);
    let encode_error = |error| match error {
        RequestError::Encode(source) => *source.downcast::<CtimeError>().unwrap(),
        other => panic!("{other:?}"),
    };
    let empty = client.request("").unwrap_err();
    assert_eq!(encode_error(empty), CtimeError::EmptyRequest);
    let frame = client.request("[b'Sun Jul  7 17:17:58 2019']").unwrap_err();
    assert_eq!(encode_error(frame), CtimeError::RequestIsResponse);

    let text = "x".repeat(MAX_DATAGRAM_BYTES + 1);
    let RequestError::TooLong(too_long) = client.request(&text).unwrap_err() else {
        panic!("too long");
    };
    assert_eq!(
        (too_long.bytes, too_long.limit),
        (MAX_DATAGRAM_BYTES + 1, MAX_DATAGRAM_BYTES)
    );
    assert_eq!(net.now().monotonic, Duration::ZERO, "nobody waited");
    // And the client is as good as before.
    assert!(client.request(&text[1..]).is_ok());
}

#[test]
fn invariant_8_the_same_simulation_gives_the_same_bytes() {
    let transcript = || {
        let net = SimNet::new();
        let mut client = Client::new(net.clone(), Ctime::utc(), sim_server(&net));
        let mut transcript = String::new();
        for request in ["你好吗？", "", "你觉得我帅吗？", "hello"] {
            transcript += &match client.request(request) {
                Ok(frame) => frame.to_string(),
                Err(error) => error.to_string(),
            };
        }
        (transcript, net.now())
    };
    assert_eq!(transcript(), transcript());
}

/// A transport that meets errors as planned, on a network where the peer answers.
struct Flaky {
    errors: Vec<io::ErrorKind>,
    net: SimNet,
}

struct FlakyTransport<T> {
    errors: Vec<io::ErrorKind>,
    inner: T,
}

impl Connect for Flaky {
    type Transport = FlakyTransport<<SimNet as Connect>::Transport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        Ok(FlakyTransport {
            errors: self.errors.clone(),
            inner: self.net.connect(peer)?,
        })
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }
}

impl<T: Transport> Transport for FlakyTransport<T> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        match self.errors.pop() {
            Some(kind) => Err(kind.into()),
            None => self.inner.recv(inbox, wait),
        }
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.inner.send(outbox)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

#[test]
fn errors_that_may_pass_are_waited_out_and_the_answer_is_returned() {
    let net = SimNet::new();
    let peer = sim_server(&net);
    let errors = vec![
        io::ErrorKind::OutOfMemory,
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::Interrupted,
    ];
    let flaky = Flaky { errors, net };
    let mut client = Client::new(flaky, Ctime::utc(), peer);
    assert!(client.request("你好吗？").unwrap().text.ends_with("好!"));
}

#[test]
fn a_transport_that_is_gone_ends_the_request_at_once() {
    let net = SimNet::new();
    let peer = sim_server(&net);
    let errors = vec![io::ErrorKind::NotConnected];
    let mut client = Client::new(Flaky { errors, net }, Ctime::utc(), peer);
    let error = client.request("你好吗？").unwrap_err();
    assert!(matches!(error, RequestError::Transport(_)), "{error:?}");
}

/// Sockets that cannot send, and how many were opened.
struct Broken(Arc<AtomicU32>);

impl Connect for Broken {
    type Transport = BrokenTransport;

    fn connect(&self, _: SocketAddr) -> io::Result<BrokenTransport> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(BrokenTransport)
    }
}

struct BrokenTransport;

impl Transport for BrokenTransport {
    fn recv(&mut self, _: &mut Inbox, _: Wait) -> io::Result<usize> {
        Ok(0)
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut sent = SendReport::default();
        for _ in outbox.iter() {
            sent.record_failure(io::ErrorKind::NotConnected.into());
        }
        sent
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(server())
    }
}

#[test]
fn a_shared_socket_that_is_gone_is_replaced_also_if_it_is_seen_when_sending() {
    let opened = Arc::default();
    let mut client = Client::new(Broken(Arc::clone(&opened)), Tagged(Text), server());
    for _ in 0..5 {
        let error = client.request(QUESTION).unwrap_err();
        assert!(matches!(error, RequestError::Transport(_)), "{error:?}");
    }
    assert_eq!(opened.load(Ordering::Relaxed), 5);
}

/// A network that fails on demand, and counts the sockets opened.
#[derive(Clone)]
struct Failing {
    net: SimNet,
    error: Arc<Mutex<Option<io::ErrorKind>>>,
    asked: Arc<AtomicU32>,
}

impl Connect for Failing {
    type Transport = SimTransport;

    fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match *self.error.lock().unwrap() {
            Some(kind) => Err(kind.into()),
            None => self.net.connect(peer),
        }
    }

    fn now(&self) -> Timestamp {
        Connect::now(&self.net)
    }
}

#[test]
fn sockets_at_rest_are_given_up_for_another_only_where_that_may_help() {
    let net = SimNet::new();
    let failing = Failing {
        error: Arc::default(),
        asked: Arc::default(),
        net: net.clone(),
    };
    let mut client = Client::new(failing.clone(), Ctime::utc(), sim_server(&net));
    for _ in 0..10 {
        client.request(QUESTION).unwrap();
    }
    for (kind, asked) in [
        (io::ErrorKind::NetworkUnreachable, 1),
        (io::ErrorKind::PermissionDenied, 1),
        // Ten are closed, one after the other.
        (io::ErrorKind::AddrNotAvailable, 11),
        (io::ErrorKind::OutOfMemory, 1),
    ] {
        *failing.error.lock().unwrap() = Some(kind);
        failing.asked.store(0, Ordering::Relaxed);
        let error = client.request(QUESTION).unwrap_err();
        assert!(matches!(error, RequestError::Connect { .. }), "{error:?}");
        assert_eq!(failing.asked.load(Ordering::Relaxed), asked, "{kind}");
    }
}

/// A network whose sockets refuse what is longer than 1,000 bytes, and how many datagrams each batch
/// had.
struct Narrow(SimNet, Arc<Mutex<Vec<usize>>>);

struct NarrowTransport(SimTransport, Arc<Mutex<Vec<usize>>>);

impl Connect for Narrow {
    type Transport = NarrowTransport;

    fn connect(&self, peer: SocketAddr) -> io::Result<NarrowTransport> {
        Ok(NarrowTransport(self.0.connect(peer)?, Arc::clone(&self.1)))
    }
    fn now(&self) -> Timestamp {
        Connect::now(&self.0)
    }
    fn wait_any(
        &self,
        all: &[&NarrowTransport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let all: Vec<_> = all.iter().map(|transport| &transport.0).collect();
        self.0.wait_any(&all, wait, ready)
    }
}

impl Transport for NarrowTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.0.recv(inbox, wait)
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.1.lock().unwrap().push(outbox.len());
        let mut short = Outbox::new(64, 1_000);
        let mut refused = SendReport::default();
        for datagram in outbox.iter() {
            if datagram.bytes.len() > 1_000 {
                refused.record_failure(io::Error::other("too long"));
            } else {
                push(&mut short, datagram.peer, datagram.bytes);
            }
        }
        let sent = self.0.send(&short);
        refused.sent = sent.sent;
        refused
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

#[test]
fn a_request_that_the_system_may_have_refused_is_sent_again_alone() {
    let net = SimNet::new();
    let echo = |text: &str| Some(text.to_owned());
    net.host(server(), ServerCore::new(Tagged(Text), echo))
        .unwrap();
    let batches = Arc::default();
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::new().max_sends(2))
        .with_connector(Narrow(net.clone(), Arc::clone(&batches)), server())
        .unwrap();
    client.submit("before").unwrap();
    let long = client.submit(&"x".repeat(2_000)).unwrap();
    let (_, answer) = client.collect(Wait::Forever).unwrap();
    assert_eq!(answer.unwrap(), "before");
    // So late that both are due: the new one, and the long one once more.
    client.submit("after").unwrap();
    net.advance(TIMEOUT / 2);
    let mut results = Vec::new();
    while let Some((ticket, result)) = client.collect(Wait::Forever) {
        results.push((ticket == long, result.map(str::to_owned)));
    }
    assert!(
        matches!(
            &results[..],
            [(true, Err(RequestError::NotSent { .. })), (false, Ok(_))]
                | [(false, Ok(_)), (true, Err(RequestError::NotSent { .. }))]
        ),
        "{results:?}"
    );
    assert_eq!(*batches.lock().unwrap(), [2, 1, 1]);
}

// Over UDP.

/// UDP sockets that each meet so many errors first.
struct Troubled(usize);

impl Connect for Troubled {
    type Transport = FlakyTransport<UdpTransport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        Ok(FlakyTransport {
            // A peer-induced error that does not mean a closed port.
            errors: vec![io::ErrorKind::ConnectionAborted; self.0],
            inner: UdpConnector::default().connect(peer)?,
        })
    }
}

/// A network that is down, and how often that was reported.
struct Down(Arc<AtomicU32>);

struct DownTransport(Arc<AtomicU32>);

impl Connect for Down {
    type Transport = DownTransport;

    fn connect(&self, _: SocketAddr) -> io::Result<DownTransport> {
        Ok(DownTransport(Arc::clone(&self.0)))
    }
}

impl Transport for DownTransport {
    fn recv(&mut self, _: &mut Inbox, _: Wait) -> io::Result<usize> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(io::ErrorKind::NetworkDown.into())
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        SendReport::accepted(outbox.len())
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(server())
    }
}

#[test]
#[cfg_attr(miri, ignore = "waits in earnest")]
fn a_system_that_tells_of_the_same_error_for_ever_is_not_asked_without_a_pause() {
    let told = Arc::default();
    let builder = Client::builder(Text).timeout(Duration::from_millis(500));
    let mut client = builder
        .with_connector(Down(Arc::clone(&told)), server())
        .unwrap();
    let begun = Instant::now();
    assert!(client.request("?").is_err());
    // As documented, 64 for each millisecond; the first ones are free.
    let most = 64 * (begun.elapsed().as_millis() + 1);
    let told = told.load(Ordering::Relaxed);
    assert!(u128::from(told) <= most, "{told} of {most}");
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn errors_that_anybody_can_cause_do_not_keep_an_answer_waiting() {
    // With a millisecond's pause after each, they would take twice as long as there is time.
    let errors = 2 * usize::try_from(PATIENT.as_millis()).unwrap();
    let socket = loopback();
    let peer = socket.local_addr().unwrap();
    let builder = Client::builder(Text).timeout(PATIENT);
    let mut client = builder.with_connector(Troubled(errors), peer).unwrap();
    let thread = thread::spawn(move || {
        let (_, peer) = question(&socket);
        socket.send_to(b"yes", peer).unwrap();
    });
    assert_eq!(client.request("?").unwrap(), "yes");
    thread.join().unwrap();
}

fn loopback() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Receives the next question.
fn question(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    let (len, peer) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(len);
    (buffer, peer)
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_6_forged_answers_from_other_sockets_are_ignored_and_the_real_one_is_returned() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (_, asker) = question(&server);
        // One from another port of the same machine, one from another address of it.
        for forger in ["127.0.0.1:0", "127.0.0.2:0"] {
            if let Ok(forger) = UdpSocket::bind(forger) {
                let _ = forger.send_to(b"forged", asker);
            }
        }
        server.send_to(b"real", asker).unwrap();
    });
    let mut client = Client::builder(Text)
        .timeout(PATIENT)
        .connect(addr)
        .unwrap();
    assert_eq!(client.request("?").unwrap(), "real");
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn malformed_answers_are_ignored_and_the_real_one_is_returned() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let frame = "[b'Sun Jul  7 17:17:58 2019']好";
    let thread = thread::spawn(move || {
        let (_, asker) = question(&server);
        for answer in [&b""[..], b"\xff", b"no frame", frame.as_bytes()] {
            server.send_to(answer, asker).unwrap();
        }
    });
    let mut client = Client::builder(Ctime::utc())
        .timeout(PATIENT)
        .connect(addr)
        .unwrap();
    assert_eq!(client.request("?").unwrap().to_string(), frame);
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn only_malformed_answers_are_told_at_the_deadline() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let (done, wait) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let (_, asker) = question(&server);
        server.send_to(b"no frame", asker).unwrap();
        let _ = wait.recv();
    });
    let mut client = Client::builder(Ctime::utc())
        .timeout(Duration::from_secs(1))
        .connect(addr)
        .unwrap();
    let error = client.request("?").unwrap_err();
    let RequestError::Malformed { peer, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(peer, addr);
    drop(done);
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_silent_server_times_out() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let mut client = Client::builder(Text).timeout(SHORT).connect(addr).unwrap();
    let begun = Instant::now();
    let error = client.request("?").unwrap_err();
    let RequestError::TimedOut {
        peer,
        after,
        sends: 1,
        ignored: 0,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(peer, addr);
    assert!(after >= SHORT && begun.elapsed() >= after);
    assert!(begun.elapsed() < PATIENT);
}

/// An address whose port is closed, most probably.
fn closed_port() -> SocketAddr {
    loopback().local_addr().unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_closed_port_fails_at_once_if_that_was_asked_for() {
    let addr = closed_port();
    let mut client = Client::builder(Text)
        .timeout(PATIENT)
        .fail_when_unreachable(true)
        .connect(addr)
        .unwrap();
    let begun = Instant::now();
    let error = client.request("?").unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no service is listening at {addr}")
    );
    assert!(begun.elapsed() < PATIENT);
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_closed_port_is_told_at_the_deadline_by_default() {
    let addr = closed_port();
    let mut client = Client::builder(Text).timeout(SHORT).connect(addr).unwrap();
    let begun = Instant::now();
    let error = client.request("?").unwrap_err();
    assert!(
        matches!(error, RequestError::NobodyListening { peer } if peer == addr),
        "{error:?}"
    );
    assert!(begun.elapsed() >= SHORT);
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_server_that_answers_after_all_is_believed() {
    // A "port unreachable" does not end the wait for a response. Here a transport turns the first
    // receive into one.
    struct Refused(SocketAddr);
    struct RefusedOnce(<UdpConnector as Connect>::Transport, bool);
    impl Connect for Refused {
        type Transport = RefusedOnce;
        fn connect(&self, peer: SocketAddr) -> io::Result<RefusedOnce> {
            assert_eq!(peer, self.0);
            Ok(RefusedOnce(UdpConnector::default().connect(peer)?, false))
        }
    }
    impl Transport for RefusedOnce {
        fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
            if std::mem::replace(&mut self.1, true) {
                self.0.recv(inbox, wait)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
        fn send(&mut self, outbox: &Outbox) -> SendReport {
            self.0.send(outbox)
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (_, asker) = question(&server);
        server.send_to(b"here", asker).unwrap();
    });
    let mut client = Client::builder(Text)
        .timeout(PATIENT)
        .with_connector(Refused(addr), addr)
        .unwrap();
    assert_eq!(client.request("?").unwrap(), "here");
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn an_answer_of_65507_bytes_arrives_whole() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (request, asker) = question(&server);
        assert_eq!(request.len(), MAX_DATAGRAM_BYTES);
        server.send_to(&request, asker).unwrap();
    });
    let mut client = Client::builder(Raw).timeout(PATIENT).connect(addr).unwrap();
    let request: Vec<u8> = (0..=250).cycle().take(MAX_DATAGRAM_BYTES).collect();
    assert!(client.request(&request).unwrap() == request);
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn an_empty_answer_is_an_answer_where_the_protocol_says_so() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (request, asker) = question(&server);
        assert!(request.is_empty());
        server.send_to(b"", asker).unwrap();
    });
    let mut client = Client::builder(Text)
        .timeout(PATIENT)
        .connect(addr)
        .unwrap();
    assert_eq!(client.request("").unwrap(), "");
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_late_answer_is_never_returned_for_the_next_question() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        // The first question stays without an answer until the second was asked: so its asker has
        // given up for sure.
        let (first, first_asker) = question(&server);
        let (second, second_asker) = question(&server);
        assert_eq!((&first[..], &second[..]), (&b"one"[..], &b"two"[..]));
        assert_ne!(first_asker, second_asker, "a fresh socket for each");
        server.send_to(b"answer one", first_asker).unwrap();
        server.send_to(b"answer two", second_asker).unwrap();
    });
    let mut client = Client::builder(Text)
        .timeout(Duration::from_secs(1))
        .connect(addr)
        .unwrap();
    let error = client.request("one").unwrap_err();
    assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
    assert_eq!(client.request("two").unwrap(), "answer two");
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_peer_can_be_given_as_an_ipv4_mapped_address() {
    let server = loopback();
    let addr = server.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (_, asker) = question(&server);
        server.send_to(b"yes", asker).unwrap();
    });
    let mapped = format!("[::ffff:127.0.0.1]:{}", addr.port());
    let mut client = Client::builder(Text)
        .timeout(PATIENT)
        .connect(mapped)
        .unwrap();
    assert_eq!(client.request("?").unwrap(), "yes");
    thread.join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn an_unspecified_address_is_nobodys_and_fails_at_once() {
    for addr in ["0.0.0.0:8888", "[::]:8888", "[::ffff:0.0.0.0]:8888"] {
        let mut client = Client::builder(Text)
            .timeout(PATIENT)
            .connect(addr)
            .unwrap();
        let error = client.request("?").unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to "));
        let RequestError::Connect { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
    }
}

/// A network that notes how its transports are asked to wait.
struct Watched<T>(T, Arc<Mutex<Vec<Wait>>>);

impl Connect for Watched<SimNet> {
    type Transport = Watched<SimTransport>;

    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport> {
        Ok(Watched(self.0.connect(peer)?, Arc::clone(&self.1)))
    }

    fn now(&self) -> Timestamp {
        Connect::now(&self.0)
    }
}

impl Transport for Watched<SimTransport> {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.1.lock().unwrap().push(wait);
        self.0.recv(inbox, wait)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.0.send(outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

#[test]
fn a_client_that_is_told_to_poll_polls_where_there_is_one_socket() {
    let waits = Arc::default();
    let net = Watched(SimNet::new(), Arc::clone(&waits));
    let echo = |text: &str| Some(text.to_owned());
    net.0
        .host(server(), ServerCore::new(Tagged(Text), echo))
        .unwrap();
    let mut client = Client::new(net, Tagged(Text), server());
    for wait in [Wait::Spin(TIMEOUT), Wait::For(TIMEOUT)] {
        waits.lock().unwrap().clear();
        client.submit(QUESTION).unwrap();
        let (_, answer) = client.collect(wait).unwrap();
        assert_eq!(answer.unwrap(), QUESTION);
        let waits = waits.lock().unwrap();
        let polls = |wait: &Wait| matches!(wait, Wait::Spin(_));
        assert!(!waits.is_empty() && waits.iter().all(|one| polls(one) == polls(&wait)));
    }

    // Without ids, a lone request has the only socket.
    let net = Watched(SimNet::new(), Arc::clone(&waits));
    net.0.host(server(), ServerCore::new(Text, echo)).unwrap();
    let mut client = Client::new(net, Text, server());
    waits.lock().unwrap().clear();
    client.submit(QUESTION).unwrap();
    client.collect(Wait::Spin(TIMEOUT)).unwrap().1.unwrap();
    let waits = waits.lock().unwrap();
    assert!(!waits.is_empty() && waits.iter().all(|one| matches!(one, Wait::Spin(_))));
}
