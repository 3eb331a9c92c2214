//! What the fuzz targets do with their bytes. A test of this package does the same with the committed
//! corpus, on a stable compiler.

#[cfg(feature = "dtls")]
mod dtls;
mod signed;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use proxy_header::{ParseConfig, ProxyHeader};
use rejoinder::bot::{Robot, Rule, zurich};
use rejoinder::codec::{Ctime, Tagged};
use rejoinder::gate::{AmplificationLimit, RateLimit};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::proxy::{Header, HeaderError};
use rejoinder::sans_io::{ClientCore, SocketEvent, SocketId};
use rejoinder::transport::{Datagram, Inbox, Meta, Outbox, SendReport};
use rejoinder::{Client, Codec, DropReason, RequestError, Server, Ticket, Timestamp, Writer};

#[cfg(feature = "dtls")]
pub use self::dtls::{dtls, dtls_input};
pub use self::signed::signed;

/// Any bytes are a request, a response or an error; what decodes encodes to the same bytes.
pub fn ctime(data: &[u8]) {
    let codec = Ctime::utc();
    let response = codec.decode_response(data);
    if let Ok(frame) = &response {
        assert_eq!(frame.to_string().as_bytes(), data);
        assert!(codec.is_response(data));
        let time = frame.time;
        assert!((1..=9_999).contains(&time.year()));
        assert!((1..=12).contains(&time.month()) && (1..=31).contains(&time.day()));
        assert!(time.hour() < 24 && time.minute() < 60 && time.second() < 60);
    }
    let Ok(text) = codec.decode_request(data) else {
        return;
    };
    assert_eq!(text.as_bytes(), data);
    // A text is a response as a whole, or not at all.
    assert_eq!(codec.is_response(data), response.is_ok());

    let mut space = vec![0; data.len() + 40];
    let (head, _) = data.split_at(data.len().min(8));
    let seconds = head.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let wall = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let now = Timestamp::new(Duration::ZERO, wall.unwrap_or(SystemTime::UNIX_EPOCH));
    let mut out = Writer::new(&mut space);
    if codec.encode_response(now, data, &text, &mut out).is_ok() {
        let len = out.finish().expect("a header has at most 31 bytes");
        let frame = codec
            .decode_response(&space[..len])
            .expect("it was just encoded");
        assert_eq!(frame.text, text);
    }
    let mut out = Writer::new(&mut space);
    if codec.encode_request(0, text, &mut out).is_ok() {
        let len = out.finish().expect("it adds nothing");
        assert_eq!(codec.decode_request(&space[..len]), Ok(text));
        assert!(!codec.is_response(&space[..len]));
    }
}

/// 小Zurich answers any text, as the two rules of the original say; the listener gives the same answer
/// twice; and a robot of any rules answers by the first that matches, or there is an error.
pub fn robot(data: &[u8]) {
    zurich_answers(data);
    // Compiling so many patterns takes Miri hours.
    if cfg!(miri) {
        return;
    }
    any_rules_answer(data);
    any_file_is_a_robot_or_an_error(data);
}

fn zurich_answers(data: &[u8]) {
    static ZURICH: LazyLock<Robot> = LazyLock::new(zurich);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let answer = ZURICH.answer(text);
    assert_eq!(
        answer.to_string(),
        answer
            .before_substitution()
            .to_string()
            .replace('我', "自己")
    );
    assert_eq!(
        answer.before_substitution().to_string(),
        expected_answer(text)
    );
}

/// Rules, each on a line, and behind an empty line a request. A rule is a pattern, a tab, and a template;
/// with another tab before it, it matches anywhere. After `~`, there is a reflection, and after `=`, a
/// substitution, of the first text by the second.
fn any_rules_answer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (lines, request) = text.split_once("\n\n").unwrap_or((text, text));
    let mut builder = Robot::builder().fallback("-");
    let mut rules = Vec::new();
    // Few, so that a run is short, but so many that there is an index.
    for line in lines.lines().take(12) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["~", from, to] => builder = builder.reflect(*from, *to),
            ["=", from, to] => builder = builder.substitute(*from, *to),
            [pattern, template] => rules.push((*pattern, *template, false)),
            ["", pattern, template] => rules.push((*pattern, *template, true)),
            _ => {}
        }
    }
    // Patterns that take long to compile say nothing about answering.
    if rules.iter().any(|(pattern, ..)| pattern.contains('{')) {
        return;
    }
    let rule = |(pattern, template, anywhere): &(&str, &str, bool)| {
        let rule = Rule::new(*pattern, *template);
        if *anywhere { rule.anywhere() } else { rule }
    };
    let Ok(robot) = builder.rules(rules.iter().map(rule)).build() else {
        return;
    };
    let answer = robot.answer(request);
    assert_eq!(answer.to_string(), robot.answer(request).to_string());
    // A `$` also matches before the line end of a request.
    if request.ends_with('\n') && rules.iter().any(|(pattern, ..)| pattern.contains('$')) {
        return;
    }
    // A match at the beginning is the leftmost there is.
    let first = rules.iter().zip(1..).find(|((pattern, _, anywhere), _)| {
        let regex = regex::Regex::new(pattern).expect("the robot has compiled it");
        let found = regex.find(request);
        found.is_some_and(|found| *anywhere || found.start() == 0)
    });
    assert_eq!(answer.rule(), first.map(|(_, number)| number));
}

/// The text is a file, and then a request to the listener.
fn any_file_is_a_robot_or_an_error(data: &[u8]) {
    static LISTENER: LazyLock<Robot> = LazyLock::new(|| {
        Robot::from_toml(include_str!("../../../rules/eliza.toml")).expect("its tests pass")
    });
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Robot::from_toml(text) {
        let line = text
            .split('\n')
            .nth(error.line - 1)
            .expect("the line is in the text");
        assert!((1..=line.chars().count() + 1).contains(&error.column));
        assert!(!error.to_string().contains(char::is_control));
    }
    let answer = LISTENER.answer(text);
    assert_eq!(answer.to_string(), answer.to_string());
}

/// The same robot, written as a person would without regular expressions.
fn expected_answer(text: &str) -> String {
    let matched = text.strip_prefix('你').and_then(|rest| {
        // The longest run without a decimal digit, up to the last 吗？ in it.
        let end = rest.find(is_decimal_digit).unwrap_or(rest.len());
        let end = rest[..end].rfind("吗？")?;
        (end > 0).then(|| &rest[..end])
    });
    match matched {
        Some(between) => format!("【机器人】小Zurich {between}!"),
        None => "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~".into(),
    }
}

fn is_decimal_digit(c: char) -> bool {
    static DIGIT: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"^\d$").expect("it is constant"));
    DIGIT.is_match(c.encode_utf8(&mut [0; 4]))
}

/// A server with every gate: whatever comes, from wherever, whenever, each datagram is counted once
/// and no reply is one that would be answered.
pub fn server(data: &[u8]) {
    let mut input = Input(data);
    let limit = RateLimit::builder()
        .responses_per_second(1 + u32::from(input.byte()))
        .bytes_per_second(1 + u64::from(input.byte()) * 64)
        .v4_prefix(input.byte() % 33)
        .v6_prefix(input.byte() % 129)
        .exempt(IpAddr::from([10, 0, 0, 0]), 8)
        .max_prefixes(8)
        .key([input.byte(); 16])
        .build()
        .expect("the values are in range");
    let factor = usize::from(input.byte() % 8);
    let mut core = Server::builder(Ctime::utc())
        .local_addr(SocketAddr::from(([10, 0, 0, 1], 9_999)))
        .max_age(Duration::from_secs(1))
        .gate(|datagram: &Datagram<'_>| match datagram.bytes {
            [b'#', ..] => Err("a comment"),
            _ => Ok(()),
        })
        .gate(AmplificationLimit::new(factor))
        .gate(limit)
        .core(|text: &str| match text.chars().next() {
            Some('0') => None,
            Some('2') => Some([Some("one".to_owned()), Some("two".to_owned())]),
            _ => Some([Some(text.to_owned()), None]),
        });
    let mut inbox = Inbox::new(4, 64);
    let mut outbox = Outbox::new(MAX_RESPONSES + 1, 96);
    let mut monotonic = Duration::ZERO;
    let (mut received, mut sent) = (0, 0);
    while !input.0.is_empty() {
        monotonic = monotonic.saturating_add(input.duration());
        let now = Timestamp::new(monotonic, input.wall());
        for _ in 0..=input.byte() % 4 {
            let mut meta = Meta::new(input.addr());
            meta.waited = input.duration();
            let bytes = input.bytes();
            inbox.push(bytes, meta);
            received += 1;
        }
        while !inbox.is_empty() {
            let before = inbox.len();
            core.handle(now, &mut inbox, &mut outbox);
            assert!(inbox.len() < before);
            for reply in outbox.iter() {
                sent += 1;
                assert!(Ctime::utc().is_response(reply.bytes));
                assert!(reply.bytes.len() <= 96 && reply.peer.port() != 0);
            }
            outbox.clear();
        }
    }
    let stats = core.stats();
    assert!(stats.is_conserved(), "{stats}");
    assert_eq!((stats.received, stats.pending), (received, 0));
    assert!(stats.replied <= sent && sent <= 2 * stats.replied);
    assert!(factor > 0 || sent == 0);
    let malformed = stats.dropped(DropReason::Malformed);
    assert!(malformed <= received);
}

/// A header of a proxy, of either version: what is accepted has the addresses and the length that another
/// parser finds, and what is refused is refused there too, or for a reason that is known.
pub fn proxy(data: &[u8]) {
    let theirs = ProxyHeader::parse(data, ParseConfig::default());
    let theirs = theirs.map(|(header, bytes)| {
        let addresses = header.proxied_address();
        (addresses.map(|one| (one.source, one.destination)), bytes)
    });
    let ours = match data.first() {
        Some(b'P') => Header::parse_v1(data),
        _ => Header::parse_v2(data),
    };
    match (&ours, &theirs) {
        (Ok((header, bytes)), theirs) => {
            let rest = data
                .get(*bytes..)
                .expect("a header is a part of the datagram");
            assert!(rest.len() < data.len());
            match (header.client.zip(header.destination), theirs) {
                (Some((client, destination)), Ok((Some(theirs), their_bytes))) => {
                    assert_eq!(
                        (client, destination),
                        (peer_of(theirs.0), peer_of(theirs.1))
                    );
                    assert_eq!(bytes, their_bytes);
                }
                (None, Ok((None, their_bytes))) => assert_eq!(bytes, their_bytes),
                // They read the addresses of a health check, which are to be skipped, and refuse short
                // datagrams for a longer header that might come.
                (None, Err(_)) => {}
                (ours, theirs) => panic!("{ours:?}, {theirs:?}"),
            }
            vectors_are_all_of_the_rest(header, &data[..*bytes]);
        }
        (Err(error), Ok((addresses, bytes))) => {
            let is_known = match error {
                HeaderError::Missing => !data.starts_with(b"PROXY "),
                HeaderError::Truncated => *bytes > 107,
                HeaderError::TooLong { bytes: rest } => *rest > 520 && *bytes == 16 + rest,
                // Addresses of Unix, or none although a client is promised.
                HeaderError::Family => addresses.is_none(),
                // They take `+1` and `01` for ports, and any bytes behind `UNKNOWN`.
                HeaderError::Address => data.starts_with(b"PROXY "),
                // They read vectors later, one at a time.
                HeaderError::Tlv => data.starts_with(b"\r"),
                _ => false,
            };
            assert!(is_known, "{error:?}, {addresses:?}");
        }
        (Err(_), Err(_)) => {}
    }
    if let Ok((header, _)) = ours
        && let Some((client, destination)) = header.client.zip(header.destination)
    {
        let again = Header::encode_v2(client, destination);
        let (again, bytes) = Header::parse_v2(&again).expect("it was just encoded");
        assert_eq!(
            (again.client, again.destination),
            (header.client, header.destination)
        );
        assert!(bytes == 28 || bytes == 52);
    }
}

/// Put together, the vectors are what follows the addresses.
fn vectors_are_all_of_the_rest(header: &Header<'_>, bytes: &[u8]) {
    let mut vectors = Vec::new();
    for (kind, value) in header.tlvs() {
        let len = u16::try_from(value.len()).expect("a header is not so long");
        vectors.push(kind);
        vectors.extend(len.to_be_bytes());
        vectors.extend_from_slice(value);
    }
    let family = bytes
        .get(13)
        .filter(|_| bytes[0] == b'\r' && header.client.is_some());
    let addresses = match family {
        Some(0x11 | 0x12) => 28,
        Some(_) => 52,
        None => return assert_eq!(vectors, []),
    };
    assert_eq!(vectors, bytes[addresses..]);
}

/// A client with requests in flight: whatever comes, only its peer's responses are accepted, every
/// request gets one result, by its deadline, and sending comes to an end.
pub fn client(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() % 2 == 0 {
        client_of(&Ctime::utc(), input);
    } else {
        client_of(&Tagged(Ctime::utc()), input);
    }
}

fn client_of<C>(codec: &C, mut input: Input<'_>)
where
    C: for<'a> Codec<Request<'a> = &'a str> + Clone,
{
    let peer = input.addr();
    let timeout = input.duration();
    let window = 1 + usize::from(input.byte() % 4);
    let monotonic = input.duration();
    let core = Client::builder(codec.clone())
        .timeout(timeout)
        .window(window)
        .fail_when_unreachable(input.byte().is_multiple_of(2))
        .core(peer)
        .expect("the settings are in range");
    let mut driven = Driven {
        codec,
        core,
        peer,
        known: vec![peer],
        timeout,
        window,
        monotonic,
        deadlines: BTreeMap::new(),
        latest: Vec::new(),
        sockets: Vec::new(),
        drawn: 0,
        inbox: Inbox::new(1, 512),
        outbox: Outbox::new(4, 512),
    };
    while !input.0.is_empty() {
        driven.act(&mut input);
    }
    driven.end();
}

/// A client's core, and what must be true of it.
struct Driven<'a, C> {
    codec: &'a C,
    core: ClientCore<C>,
    /// The address that was set last, and all that the server had.
    peer: SocketAddr,
    known: Vec<SocketAddr>,
    timeout: Duration,
    window: usize,
    monotonic: Duration,
    /// When each request without a result must have ended.
    deadlines: BTreeMap<Ticket, Duration>,
    /// What was sent last, to answer it.
    latest: Vec<u8>,
    /// From which sockets something was sent, and to which address.
    sockets: Vec<(SocketId, SocketAddr)>,
    drawn: u64,
    inbox: Inbox,
    outbox: Outbox,
}

impl<C> Driven<'_, C>
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    fn now(&self) -> Timestamp {
        Timestamp::new(self.monotonic, SystemTime::UNIX_EPOCH)
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let action = input.byte() % 8;
        let any = usize::from(input.byte());
        let chosen = any.checked_rem(self.sockets.len()).unwrap_or(0);
        let socket = self.sockets.get(chosen).copied();
        let mut failure = None;
        match (action, socket) {
            (0, _) => self.submit(),
            (1, Some((socket, asked))) => self.receive(socket, asked, input),
            (2, Some((socket, _))) => {
                let pause = self
                    .core
                    .on_receive_error(self.now(), socket, &input.error());
                assert!(pause <= Duration::from_millis(100));
            }
            (3, _) => failure = Some((input.error(), any.is_multiple_of(4))),
            (4, _) => self.monotonic = self.monotonic.saturating_add(input.duration()),
            (5, _) => {
                let index = any.checked_rem(self.deadlines.len()).unwrap_or(0);
                let ticket = self.deadlines.keys().nth(index).copied();
                if let Some(ticket) = ticket {
                    assert!(self.core.cancel(self.now(), ticket));
                    assert!(!self.core.cancel(self.now(), ticket));
                    assert!(!self.core.has_result(ticket));
                    self.deadlines.remove(&ticket);
                }
            }
            (7, _) => self.set_peers(any, input),
            _ => self.collect(),
        }
        self.send(failure);
        if self.core.stats().in_flight > 0 {
            let timer = self.core.next_timer();
            let timer = timer.expect("what is in flight has a deadline");
            assert!(timer > self.monotonic || self.monotonic == Duration::MAX);
        }
    }

    /// The name of the server has other addresses, and perhaps some of those that it had.
    fn set_peers(&mut self, any: usize, input: &mut Input<'_>) {
        let count = any % 4;
        let others: Vec<_> = (0..count)
            .map(|other| match self.known.get(any / 4 + other) {
                Some(&known) => known,
                None => input.addr(),
            })
            .collect();
        let peer = input.addr();
        self.core.set_peers(self.now(), peer, &others);
        self.known.extend(others);
        self.known.push(peer);
        self.peer = peer;
        assert!(
            self.known
                .iter()
                .any(|&known| peer_of(known) == self.core.peer())
        );
    }

    fn submit(&mut self) {
        let drawn = &mut self.drawn;
        let mut random = || {
            *drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            Ok::<_, io::Error>(*drawn)
        };
        let now = Timestamp::new(self.monotonic, SystemTime::UNIX_EPOCH);
        let had_room = self.core.stats().room > 0;
        match self.core.submit(now, "你好吗？", &mut random) {
            Ok(ticket) => {
                assert!(had_room);
                let deadline = self.monotonic.saturating_add(self.timeout);
                let earlier = self.deadlines.insert(ticket, deadline);
                assert!(earlier.is_none(), "{ticket:?} names two requests");
            }
            Err(RequestError::WindowFull { cooling, .. }) => assert!(!had_room || cooling > 0),
            Err(error) => panic!("{error}"),
        }
    }

    /// Delivers a datagram: junk or a response, from the address that was asked from this socket or another.
    fn receive(&mut self, socket: SocketId, asked: SocketAddr, input: &mut Input<'_>) {
        let from = if input.byte().is_multiple_of(4) {
            input.addr()
        } else {
            asked
        };
        let mut meta = Meta::new(from);
        meta.truncated = input.byte().is_multiple_of(8);
        let bytes = if input.byte().is_multiple_of(2) {
            input.bytes().to_vec()
        } else {
            // What a server would answer to the request that was sent last.
            answer_to(self.codec, &self.latest)
        };
        let in_flight = self.core.stats().in_flight;
        let ignored = self.core.stats().ignored;
        self.inbox.push(&bytes, meta);
        self.core.on_receive(self.now(), socket, &mut self.inbox);
        let ended = in_flight - self.core.stats().in_flight;
        let ignored = self.core.stats().ignored - ignored;
        assert_eq!((ignored, ended), if ended == 0 { (1, 0) } else { (0, 1) });
        if ended > 0 {
            assert!(!meta.truncated && self.codec.decode_response(&bytes).is_ok());
            // A group is answered by its members.
            let ip = asked.ip().to_canonical();
            let is_group = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
            assert!(
                is_group || (meta.peer.ip().to_canonical(), meta.peer.port()) == (ip, asked.port())
            );
        }
    }

    fn collect(&mut self) {
        while let Some((ticket, result)) = self.core.poll_result() {
            let deadline = self.deadlines.remove(&ticket);
            match result {
                Ok(response) => {
                    assert!(self.timeout > Duration::ZERO);
                    assert!(response.decode().is_ok());
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            assert!(deadline.expect("a request has one result") >= self.timeout);
        }
    }

    /// Sends what is due. The first time it fails, or the socket cannot be opened.
    fn send(&mut self, mut failure: Option<(io::Error, bool)>) {
        let mut sends = 0;
        loop {
            while let Some(event) = self.core.poll_socket(self.now()) {
                // Nothing arrives on a socket that is closed, and its name may be another's.
                if let SocketEvent::Close(closed) = event {
                    self.sockets.retain(|&(known, _)| known != closed);
                }
            }
            let Some(socket) = self.core.poll_send(self.now(), &mut self.outbox) else {
                return;
            };
            let mut asked = peer_of(self.peer);
            for outgoing in self.outbox.iter() {
                asked = outgoing.peer;
                assert!(self.known.iter().any(|&known| peer_of(known) == asked));
                self.latest.clear();
                self.latest.extend_from_slice(outgoing.bytes);
                sends += 1;
            }
            assert!(
                sends <= (2 + self.known.len()) * self.window,
                "a request is sent once, and once more where that failed"
            );
            self.sockets.retain(|&(known, _)| known != socket);
            self.sockets.push((socket, asked));
            let mut report = SendReport::default();
            match failure.take() {
                Some((error, true)) => self.core.on_connect_error(self.now(), socket, &error),
                Some((error, false)) => {
                    report.record_failure(error);
                    report.sent = self.outbox.len() - 1;
                    self.core.on_sent(self.now(), &report);
                }
                None => {
                    report.sent = self.outbox.len();
                    self.core.on_sent(self.now(), &report);
                }
            }
            self.outbox.clear();
        }
    }

    /// By its deadline, everything has a result.
    fn end(&mut self) {
        if let Some(&last) = self.deadlines.values().max()
            && last < Duration::MAX
        {
            self.monotonic = last.max(self.monotonic);
            self.send(None);
            assert_eq!(self.core.stats().in_flight, 0);
            self.collect();
            assert!(self.deadlines.is_empty());
        }
    }
}

/// As transports report it.
fn peer_of(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        v4 @ IpAddr::V4(_) => SocketAddr::new(v4, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn answer_to<C>(codec: &C, request: &[u8]) -> Vec<u8>
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    // A tagged request is `?`, its id and the text; a response repeats the id after `!`.
    let header = "[b'Sun Jul  7 17:17:58 2019']好".as_bytes();
    match request {
        [b'?', id @ ..] if id.len() > 8 && codec.decode_request(request).is_ok() => {
            [b"!", &id[..8], header].concat()
        }
        _ => header.to_vec(),
    }
}

/// Bytes to be made into something; zeros where there are no more.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    /// At most 80 bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % 81).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// From nothing to some hundred years, and all there is.
    fn duration(&mut self) -> Duration {
        let (exponent, mantissa) = (self.byte() % 64, u64::from(self.byte()));
        if exponent == 63 {
            return Duration::MAX;
        }
        Duration::from_nanos(mantissa << exponent.min(55))
    }

    /// Both sides of 1970, and beyond the year 9999.
    fn wall(&mut self) -> SystemTime {
        let span = Duration::from_secs(u64::from(self.byte()) << (self.byte() % 40));
        let time = match self.byte() % 2 {
            0 => SystemTime::UNIX_EPOCH.checked_add(span),
            _ => SystemTime::UNIX_EPOCH.checked_sub(span),
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// One of each kind that a client distinguishes.
    fn error(&mut self) -> io::Error {
        let kinds = [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NotConnected,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::Interrupted,
            io::ErrorKind::WouldBlock,
            io::ErrorKind::Other,
        ];
        kinds[usize::from(self.byte()) % kinds.len()].into()
    }

    fn addr(&mut self) -> SocketAddr {
        let ip = match self.byte() % 8 {
            0 => IpAddr::from([10, 0, 0, self.byte()]),
            1 => IpAddr::from([self.byte(), self.byte(), self.byte(), self.byte()]),
            2 => IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, u16::from(self.byte())]),
            3 => IpAddr::from([
                u16::from(self.byte()) << 8,
                0,
                0,
                0,
                0,
                0,
                0,
                u16::from(self.byte()),
            ]),
            _ => IpAddr::from([192, 0, 2, self.byte()]),
        };
        let port = match self.byte() % 4 {
            0 => u16::from(self.byte()),
            1 => 9_999,
            _ => 50_000 + u16::from(self.byte()),
        };
        SocketAddr::new(ip, port)
    }
}

/// A change that a network or an attacker might make, or none.
fn changed(bytes: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let place = usize::from(input.byte()) % bytes.len();
    match input.byte() % 6 {
        0 => changed[place] ^= 1 << (input.byte() % 8),
        1 => changed.truncate(place),
        2 => changed.insert(place, input.byte()),
        3 => drop(changed.remove(place)),
        4 => changed.extend(input.bytes()),
        _ => {
            let piece = input.bytes();
            let end = bytes.len().min(place + piece.len());
            changed[place..end].copy_from_slice(&piece[..end - place]);
        }
    }
    changed
}
