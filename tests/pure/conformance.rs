//! The laws, on everything that ships, and on what breaks them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Ctime, Raw, Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::testing::{
    Pair, codec_conformance, handler_conformance, scripts, transport_conformance,
};
use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
use rejoinder::udp::{UdpOptions, UdpTransport};
use rejoinder::{
    Client, Codec, Context, Correlation, Handler, Reply, ReplyError, Retry, Timestamp, Transport,
    Wait, Writer,
};
use rejoinder_test_support::robot;

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn udp_over_ipv4_keeps_the_laws() {
    transport_conformance(|| {
        Pair::new(
            UdpTransport::bind("127.0.0.1:0")?,
            UdpTransport::bind("127.0.0.1:0")?,
        )
    })
    .unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn udp_by_the_portable_path_keeps_the_laws() {
    let portable = UdpOptions::new().portable();
    transport_conformance(|| {
        Pair::new(portable.bind("127.0.0.1:0")?, portable.bind("127.0.0.1:0")?)
    })
    .unwrap();
    transport_conformance(|| {
        let pair = Pair::new(portable.bind("127.0.0.1:0")?, portable.bind("[::]:0")?)?;
        Ok(pair.other_at(Ipv4Addr::LOCALHOST.into()))
    })
    .unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn udp_over_ipv6_keeps_the_laws() {
    transport_conformance(|| {
        let v6 = UdpOptions::new().only_v6(true);
        Pair::new(v6.bind("[::1]:0")?, v6.bind("[::1]:0")?)
    })
    .unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn udp_over_a_dual_stack_socket_keeps_the_laws() {
    transport_conformance(|| {
        let dual = UdpTransport::bind("[::]:0")?;
        let pair = Pair::new(UdpTransport::bind("127.0.0.1:0")?, dual)?;
        Ok(pair.other_at(Ipv4Addr::LOCALHOST.into()))
    })
    .unwrap();
}

#[test]
fn the_simulated_network_keeps_the_laws() {
    for latency in [0, 10] {
        transport_conformance(|| {
            let net = SimNet::new();
            net.set_link(Link::new().latency(Duration::from_millis(latency)))
                .unwrap();
            sim_pair(&net)
        })
        .unwrap();
    }
}

fn sim_pair(
    net: &SimNet,
) -> io::Result<Pair<rejoinder::sim::SimTransport, rejoinder::sim::SimTransport>> {
    Pair::new(
        net.bind("10.0.0.1:0".parse().unwrap())?,
        net.bind("[fd00::1]:0".parse().unwrap())?,
    )
}

#[test]
fn a_bad_network_breaks_the_laws() {
    let broken = |link: Link| {
        transport_conformance(|| {
            let net = SimNet::seeded(1);
            net.set_link(link).unwrap();
            sim_pair(&net)
        })
        .unwrap_err()
        .requirement
    };
    let ms = Duration::from_millis;
    assert_eq!(
        broken(Link::new().loss(1.0)),
        "a datagram arrives as it was sent"
    );
    assert_eq!(
        broken(Link::new().corruption(1.0)),
        "a datagram arrives as it was sent"
    );
    assert_eq!(
        broken(Link::new().jitter(ms(50))),
        "datagrams to a peer are sent in order"
    );
}

/// Every law is there because something can break it.
#[test]
fn each_law_catches_the_transport_that_breaks_it() {
    for (fault, law) in [
        (Broken::AddsAByte, "a datagram arrives as it was sent"),
        (
            Broken::HidesTruncation,
            "a longer datagram is marked as truncated",
        ),
        (Broken::MarksAll, "a datagram arrives as it was sent"),
        (Broken::MapsAddresses, "the peer has its canonical address"),
        (Broken::WrongLocal, "the local address is reported"),
        (
            Broken::Miscounts,
            "recv returns how many datagrams there are",
        ),
        (Broken::DeliversTwice, "nothing is received twice"),
        (
            Broken::StopsAtTheFirstError,
            "every datagram of an outbox is tried",
        ),
        (
            Broken::ForgetsFailures,
            "every datagram of an outbox is tried",
        ),
        (Broken::Reverses, "datagrams to a peer are sent in order"),
        (Broken::Oversleeps, "recv waits no longer than it should"),
        (
            Broken::InventsDatagrams,
            "recv waits no longer than it should",
        ),
        (Broken::Fails, "recv fails only if something failed"),
        (Broken::TurnsBackTheClock, "the clock never goes back"),
    ] {
        let error = transport_conformance(|| {
            let net = SimNet::new();
            let addr = "10.0.0.1:0".parse().unwrap();
            let other = "10.0.0.2:0".parse().unwrap();
            Pair::new(
                Wrong::new(&net, addr, fault)?,
                Wrong::new(&net, other, fault)?,
            )
        })
        .unwrap_err();
        assert_eq!(error.requirement, law, "{fault:?}: {error}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    AddsAByte,
    HidesTruncation,
    MarksAll,
    MapsAddresses,
    WrongLocal,
    Miscounts,
    DeliversTwice,
    StopsAtTheFirstError,
    ForgetsFailures,
    Reverses,
    Oversleeps,
    InventsDatagrams,
    Fails,
    TurnsBackTheClock,
}

struct Wrong {
    net: SimNet,
    inner: rejoinder::sim::SimTransport,
    fault: Broken,
    latest: Option<(Vec<u8>, Meta)>,
    readings: std::cell::Cell<u32>,
}

impl Wrong {
    fn new(net: &SimNet, addr: SocketAddr, fault: Broken) -> io::Result<Self> {
        Ok(Self {
            net: net.clone(),
            inner: net.bind(addr)?,
            fault,
            latest: None,
            readings: std::cell::Cell::new(0),
        })
    }
}

impl Transport for Wrong {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        // One at a time, with room to see what would not fit.
        let mut own = Inbox::new(1, 60_000);
        if self.fault == Broken::Fails {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.inner.recv(&mut own, wait)? == 0 {
            match self.fault {
                Broken::Oversleeps => self.net.advance(Duration::from_secs(10)),
                Broken::InventsDatagrams if wait != Wait::No => {
                    inbox.push(b"", Meta::new(self.inner.local_addr()?));
                    return Ok(1);
                }
                Broken::DeliversTwice => {
                    if let Some((bytes, meta)) = self.latest.take() {
                        inbox.push(&bytes, meta);
                        return Ok(1);
                    }
                }
                _ => {}
            }
            return Ok(0);
        }
        let datagram = own.pop().unwrap();
        let (mut bytes, mut meta) = (datagram.bytes.to_vec(), datagram.meta);
        match self.fault {
            Broken::AddsAByte => bytes.push(0),
            Broken::HidesTruncation => bytes.truncate(inbox.max_datagram_bytes()),
            Broken::MarksAll => meta.truncated = true,
            Broken::MapsAddresses => {
                if let IpAddr::V4(ip) = meta.peer.ip() {
                    meta.peer.set_ip(ip.to_ipv6_mapped().into());
                }
            }
            Broken::WrongLocal => meta.local = Some(Ipv4Addr::LOCALHOST.into()),
            _ => {}
        }
        inbox.push(&bytes, meta);
        self.latest = Some((bytes, meta));
        Ok(1 + usize::from(self.fault == Broken::Miscounts))
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let mut datagrams: Vec<_> = outbox.iter().collect();
        if self.fault == Broken::Reverses {
            datagrams.reverse();
        }
        let mut sent = SendReport::default();
        for datagram in datagrams {
            let mut one = Outbox::new(1, 65_507);
            one.push(datagram.peer, datagram.egress, datagram.bytes)
                .unwrap();
            let result = self.inner.send(&one);
            sent.sent += result.sent;
            if result.last_error.is_some() && self.fault != Broken::ForgetsFailures {
                sent.failed += 1;
                sent.last_error = result.last_error;
                if self.fault == Broken::StopsAtTheFirstError {
                    break;
                }
            }
        }
        sent
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn now(&self) -> Timestamp {
        let now = self.inner.now();
        if self.fault != Broken::TurnsBackTheClock {
            return now;
        }
        let readings = self.readings.get() + 1;
        self.readings.set(readings);
        let back =
            Duration::from_secs(1_000).saturating_sub(Duration::from_millis(readings.into()));
        Timestamp::new(now.monotonic + back, now.wall)
    }
}

#[test]
fn all_codecs_keep_the_laws() {
    let texts: [&[u8]; 3] = [b"?", "你好吗？".as_bytes(), b"upper case \x1b\n"];
    let now = Timestamp::new(Duration::ZERO, std::time::SystemTime::UNIX_EPOCH);
    codec_conformance(&Text, &texts, |request, out| {
        Text.encode_response(now, request, &"an answer", out)
    })
    .unwrap();
    codec_conformance(&Raw, &[b"", b"\xff\0", b"bytes"], |request, out| {
        Raw.encode_response(now, request, b"\0\xfe", out)
    })
    .unwrap();
    let ctime = Ctime::utc();
    codec_conformance(&ctime, &texts, |request, out| {
        ctime.encode_response(now, request, &"好", out)
    })
    .unwrap();
    let tagged = Tagged(Ctime::utc());
    let requests: Vec<_> = texts
        .iter()
        .map(|text| [b"?01234567", *text].concat())
        .collect();
    let requests: Vec<_> = requests.iter().map(Vec::as_slice).collect();
    codec_conformance(&tagged, &requests, |request, out| {
        tagged.encode_response(now, request, &"好", out)
    })
    .unwrap();
}

#[cfg(feature = "signed")]
#[test]
fn a_codec_that_signs_keeps_the_laws() {
    use rejoinder::Writer;
    use rejoinder::codec::{Signed, SigningKey};

    let now = Timestamp::new(Duration::ZERO, std::time::SystemTime::UNIX_EPOCH);
    let keys = Signed::builder(Tagged(Text)).key(SigningKey::new(7, [7; 32]));
    let codec = keys.build(now).unwrap();
    let requests = ["?", "你好吗？", ""].map(|text| {
        let mut space = [0; 128];
        let mut out = Writer::new(&mut space);
        codec.encode_request(1, text, &mut out).unwrap();
        let len = out.finish().unwrap();
        codec.stamp_request(now, &mut space[..len]);
        space[..len].to_vec()
    });
    let requests: Vec<_> = requests.iter().map(Vec::as_slice).collect();
    codec_conformance(&codec, &requests, |request, out| {
        codec.encode_response(now, request, &"an answer", out)
    })
    .unwrap();
}

#[test]
fn a_codec_that_breaks_a_law_is_named() {
    for (fault, law) in [
        (0, None),
        (1, Some("decoding never panics")),
        (2, Some("what decodes encodes to the same bytes")),
        (3, Some("a response repeats the id of its request")),
        (4, Some("a response is a response")),
        (5, Some("a response answers its request")),
        (6, Some("a response decodes")),
        (7, Some("a sample is a request")),
        (8, Some("ids have 1 to 64 bits")),
        (9, Some("ids have 1 to 64 bits")),
    ] {
        let codec = WrongCodec(fault);
        let kept = codec_conformance(&codec, &[b"?a", b"?abc"], |request, out| {
            codec.encode_response(Timestamp::system(), request, b"answer", out)
        });
        assert_eq!(kept.err().map(|error| error.requirement), law, "{fault}");
    }
}

/// One byte of mark, one of id, and bytes: right with the number 0, wrong in another way with each
/// other.
struct WrongCodec(u8);

#[derive(Debug, thiserror::Error)]
#[error("wrong")]
struct WrongError;

impl Codec for WrongCodec {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = WrongError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], WrongError> {
        if self.0 == 1 && datagram.len() == 1 {
            return Ok(&datagram[2..]);
        }
        match datagram {
            [b'?', _, rest @ ..] if self.0 == 2 && rest.len() > 2 => Ok(&rest[..2]),
            [b'?', _, rest @ ..] => Ok(rest),
            _ => Err(WrongError),
        }
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), WrongError> {
        let id = if self.0 == 3 { 9 } else { request[1] };
        out.put(&[if self.0 == 6 { b'x' } else { b'!' }, id]);
        if self.0 == 4 {
            out.put(request);
        }
        out.put(answer);
        Ok(())
    }

    fn encode_request(
        &self,
        id: u64,
        request: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), WrongError> {
        out.put(&[b'?', u8::try_from(id).map_err(|_| WrongError)?]);
        out.put(request);
        if self.0 == 2 {
            out.put(b"!");
        }
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], WrongError> {
        match datagram {
            [b'!', _, rest @ ..] => Ok(rest),
            _ => Err(WrongError),
        }
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        match self.0 {
            4 => datagram.len() == 10,
            7 => datagram.first() == Some(&b'?'),
            _ => datagram.first() == Some(&b'!'),
        }
    }

    fn correlation(&self) -> Correlation {
        let bits = match self.0 {
            8 => 0,
            9 => 65,
            _ => 8,
        };
        Correlation::Id { bits }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        match response {
            [b'!', id, ..] => Some((*id).into()),
            _ => None,
        }
    }

    fn response_matches(&self, _: &[u8], _: &[u8]) -> bool {
        self.0 != 5
    }
}

#[test]
fn all_handlers_keep_the_laws() {
    let questions: [&[u8]; 3] = [
        "你好吗？".as_bytes(),
        "你觉得我是最帅的吗？".as_bytes(),
        b"?",
    ];
    handler_conformance(&Ctime::utc(), zurich(), &questions).unwrap();
    handler_conformance(&Text, zurich(), &questions).unwrap();
    let tagged: Vec<_> = questions
        .iter()
        .map(|text| [b"?01234567", *text].concat())
        .collect();
    let tagged: Vec<_> = tagged.iter().map(Vec::as_slice).collect();
    handler_conformance(&Tagged(Ctime::utc()), zurich(), &tagged).unwrap();
    let robot = Robot::builder().fallback("hm").build().unwrap();
    handler_conformance(&Text, robot, &questions).unwrap();
    handler_conformance(&Text, |text: &str| Some(text.to_uppercase()), &questions).unwrap();
    handler_conformance(&Raw, |bytes: &[u8]| Some(bytes.to_vec()), &[b"\xff"]).unwrap();
}

#[test]
fn a_handler_that_breaks_a_law_is_named() {
    let law = |kept: Result<(), rejoinder::testing::Violation>| kept.unwrap_err().requirement;
    let panics = |text: &str| assert!(text.len() != 1, "as planned");
    assert_eq!(
        law(handler_conformance(&Text, panics, &[b"ab"])),
        "no request makes a handler panic"
    );
    assert_eq!(
        law(handler_conformance(&Text, Endless, &[b"ab"])),
        "every response can be sent"
    );
    let silent = |_: &str| {};
    assert_eq!(
        law(handler_conformance(&Text, silent, &[b"\xff"])),
        "the samples are requests"
    );
}

struct Endless;

impl Handler<Text> for Endless {
    fn handle(&self, _: &str, _: &Context, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
        loop {
            reply.send(&"more")?;
        }
    }
}

/// The bug: a client that never sends again. Any script with a loss of one of the first two
/// datagrams shows it, whatever else is in it.
#[test]
fn a_planted_bug_shrinks_to_one_fault() {
    let config = Config {
        failure_persistence: None,
        // As many as it takes, whatever the environment says: it ends with the first that shows it.
        ..Config::with_cases(256)
    };
    // Drawn the same way each time: of some failures, one in thirty, proptest cannot take the second fault away.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&scripts(10, 8), |script| {
        let net = SimNet::scripted(0, script);
        let server = "10.0.0.1:7".parse().unwrap();
        net.host(
            server,
            ServerCore::new(Tagged(Raw), |bytes: &[u8]| Some(bytes.to_vec())),
        )
        .unwrap();
        let builder = Client::builder(Tagged(Raw)).timeout(Duration::from_secs(60));
        let mut client = builder
            .retry(Retry::never())
            .with_connector(net, server)
            .unwrap();
        for _ in 0..3 {
            client
                .request(b"")
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        Ok(())
    });
    let Err(TestError::Fail(_, script)) = result else {
        panic!("not found: {result:?}");
    };
    // What proptest prints is the script that reproduces it.
    assert_eq!(script.faults().len(), 1, "{script:?}");
    assert_eq!(script.faults()[0].0, 1, "{script:?}");
}

/// And without the bug: four faults cannot spoil five sends.
#[test]
fn a_patient_client_survives_any_four_faults() {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let networks = scripts(12, 4).prop_map(|script| SimNet::scripted(0, script));
    let result = runner.run(&networks, |net| {
        let server = "10.0.0.1:7".parse().unwrap();
        net.host(server, robot::core()).unwrap();
        let builder = Client::builder(Ctime::utc()).timeout(Duration::from_secs(60));
        builder
            .with_connector(net, server)
            .unwrap()
            .request("你好吗？")
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        Ok(())
    });
    result.unwrap();
}
