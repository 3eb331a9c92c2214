//! What the examples answer, without a socket.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod coap;
mod dns;
mod zone_files;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use coap_lite::Packet;
use domain::base::iana::Rtype;
use proptest::prelude::*;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Raw, ResponseKind};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::transport::{Datagram, Inbox, Meta, Outbox};
use rejoinder::{Client, Codec, DropReason, Handler, RequestError, Server, Timestamp, Writer};

use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::dns::codec::Dns;
use rejoinder_protocols::dns::zone::Zone;
use rejoinder_protocols::inetd::services::Service;
use rejoinder_protocols::memcached::codec::{Memcached, Part, Request};
use rejoinder_protocols::sntp::codec::{Answer, Clock, LOCAL_CLOCK, Sntp, SntpError};
use rejoinder_protocols::stun::Mirror;
use rejoinder_protocols::stun::codec::Stun;

const PEER: &str = "192.0.2.1:40000";
/// 2026-11-22 00:00:00.25 UTC.
const TIME: Duration = Duration::from_millis(1_795_305_600_250);

/// The datagrams that one is answered with.
fn ask<C: Codec, H: Handler<C>>(core: &mut ServerCore<C, H>, request: &[u8]) -> Vec<Vec<u8>> {
    ask_as(core, Meta::new(PEER.parse().unwrap()), request)
}

/// The same from another peer, or to another address.
fn ask_as<C: Codec, H: Handler<C>>(
    core: &mut ServerCore<C, H>,
    meta: Meta,
    request: &[u8],
) -> Vec<Vec<u8>> {
    let (mut inbox, mut outbox) = (Inbox::new(1, 4096), Outbox::new(16, 65_507));
    inbox.push(request, meta);
    core.handle(
        Timestamp::new(TIME, SystemTime::UNIX_EPOCH + TIME),
        &mut inbox,
        &mut outbox,
    );
    assert!(core.stats().is_conserved());
    outbox
        .iter()
        .map(|datagram| datagram.bytes.to_vec())
        .collect()
}

/// The one datagram that one is answered with.
fn answer<C: Codec, H: Handler<C>>(core: &mut ServerCore<C, H>, request: &[u8]) -> Vec<u8> {
    let [answer] = ask(core, request).try_into().unwrap();
    answer
}

fn encoded(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut space = [0; 2000];
    let mut out = Writer::new(&mut space);
    write(&mut out);
    let len = out.finish().unwrap();
    space[..len].to_vec()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn inetd_answers_as_the_rfcs_say() {
    let mut echo = ServerCore::new(Raw, Service::Echo);
    assert_eq!(answer(&mut echo, b"\xff any bytes"), b"\xff any bytes");
    assert_eq!(answer(&mut echo, b""), b"");

    // RFC 868: 2,208,988,800 corresponds to 00:00 1 Jan 1970 GMT.
    let mut time = ServerCore::new(Raw, Service::Time);
    let seconds = u32::try_from(TIME.as_secs() + 2_208_988_800).unwrap();
    assert_eq!(answer(&mut time, b""), seconds.to_be_bytes());
    assert_eq!(answer(&mut time, b"whatever it is"), seconds.to_be_bytes());

    let mut daytime = ServerCore::new(Raw, Service::Daytime);
    let text = String::from_utf8(answer(&mut daytime, b"\r\n")).unwrap();
    assert!(text.ends_with(" 2026\r\n") && text.len() == 26, "{text}");

    // RFC 865: less than 512 characters.
    let mut quote = ServerCore::new(Raw, Service::Quote);
    let text = String::from_utf8(answer(&mut quote, b"")).unwrap();
    assert!(text.len() < 512 && text.ends_with("\r\n"));
}

#[test]
fn sntp_copies_version_poll_and_the_clients_time() {
    let mut core = ServerCore::new(Sntp, |()| LOCAL_CLOCK);
    let mut request = [0; 48];
    request[0] = 3 << 3 | 3;
    request[2] = 6;
    request[40..].copy_from_slice(b"any time");
    let got = answer(&mut core, &request);
    // Version 3, mode 4; stratum 10; the poll; 2⁻²⁰ s; no root delay; 10 ms; the local clock.
    assert_eq!(got[..16], hex("1c0a06ec 00000000 0000028f 7f7f0100"));
    assert_eq!(got[24..32], *b"any time");
    let seconds = u32::try_from(TIME.as_secs() + 2_208_988_800).unwrap();
    for at in [16, 32, 40] {
        assert_eq!(got[at..at + 4], seconds.to_be_bytes());
        assert_eq!(got[at + 4..at + 8], [0x40, 0, 0, 0]);
    }

    let transmitted = u64::from(seconds) << 32 | 0x4000_0000;
    let clock = Clock {
        stratum: 10,
        reference: [127, 127, 1, 0],
    };
    let decoded = Sntp.decode_response(&got).unwrap();
    assert_eq!(
        decoded,
        Answer {
            clock,
            received: transmitted,
            transmitted
        }
    );
    assert_eq!(
        Sntp.response_id(&got),
        Some(u64::from_be_bytes(*b"any time"))
    );
}

#[test]
fn an_sntp_client_takes_no_time_from_a_clock_that_is_not_set() {
    let mut core = ServerCore::new(Sntp, |()| LOCAL_CLOCK);
    let mut request = vec![0; 48];
    request[0] = 4 << 3 | 3;
    let good = answer(&mut core, &request);
    assert!(Sntp.decode_response(&good).is_ok());
    for (at, value) in [(0, 0b11_100_100), (1, 16), (4, 0x80), (5, 1), (9, 1)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Sntp.decode_response(&bad), Err(SntpError::Unsynchronized));
    }
    let mut bad = good.clone();
    bad[40..].fill(0);
    assert_eq!(Sntp.decode_response(&bad), Err(SntpError::Unsynchronized));

    // Of another mode, or of no version; and the response to another request.
    for first in [4 << 3 | 3, 4 << 3 | 5, 4, 5 << 3 | 4] {
        let mut bad = good.clone();
        bad[0] = first;
        assert_eq!(Sntp.decode_response(&bad), Err(SntpError::Form));
        assert_eq!(Sntp.response_id(&bad), None);
    }
    let mut other = good.clone();
    other[31] ^= 1;
    assert_ne!(Sntp.response_id(&other), Sntp.response_id(&good));

    let mut kiss = good;
    kiss[1] = 0;
    kiss[12..16].copy_from_slice(b"RATE");
    assert_eq!(Sntp.response_kind(&request, &kiss), ResponseKind::Refused);
    let error = Sntp.decode_response(&kiss).unwrap_err();
    assert_eq!(error.to_string(), "kiss of death: RATE");
}

#[test]
fn sntp_is_silent_to_everything_but_clients() {
    let mut core = ServerCore::new(Sntp, |()| LOCAL_CLOCK);
    for first in 0..=u8::MAX {
        let mut datagram = [0; 48];
        datagram[0] = first;
        let answered = first & 7 == 3 && (1..=4).contains(&(first >> 3 & 7));
        assert_eq!(
            ask(&mut core, &datagram).len(),
            usize::from(answered),
            "{first}"
        );
    }
    assert!(ask(&mut core, &[4 << 3 | 3; 47]).is_empty());
    assert!(ask(&mut core, &[4 << 3 | 3; 49]).is_empty());
    // Modes 2, 4 and 5, whatever the rest.
    assert_eq!(core.stats().dropped(DropReason::Response), 3 * 32);
}

#[test]
fn sntp_answers_a_daemon_that_asks_from_its_own_port() {
    let ports = rejoinder_protocols::sntp::blocked_ports();
    let mut core = Server::builder(Sntp)
        .blocked_ports(ports)
        .core(|()| LOCAL_CLOCK);
    let mut request = [0; 48];
    request[0] = 4 << 3 | 3;
    let (mut inbox, mut outbox) = (Inbox::new(2, 48), Outbox::new(32, 48));
    inbox.push(&request, Meta::new(([192, 0, 2, 1], 123).into()));
    inbox.push(&request, Meta::new(([192, 0, 2, 1], 53).into()));
    core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    let peers: Vec<u16> = outbox.iter().map(|it| it.peer.port()).collect();
    assert_eq!(peers, [123]);
    assert_eq!(core.stats().dropped(DropReason::SourceReflector), 1);
}

#[test]
fn stun_reads_the_response_of_rfc_5769() {
    // §2.2, IPv4.
    let response = hex(
        "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220 \
         00200008 0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 \
         80280004 c07d4c96",
    );
    let mapped: SocketAddr = "192.0.2.1:32853".parse().unwrap();
    assert_eq!(Stun.decode_response(&response).unwrap(), mapped);
    assert!(Stun.is_response(&response));
}

#[test]
fn stun_answers_with_the_peer_or_with_what_it_does_not_know() {
    let mut core = ServerCore::new(Stun, Mirror);
    let request = encoded(|out| Stun.encode_request(7, (), out).unwrap());
    assert_eq!(request, hex("00010000 2112a442 00000000 00000000 00000007"));
    let response = answer(&mut core, &request);
    assert_eq!(
        Stun.decode_response(&response).unwrap(),
        PEER.parse().unwrap()
    );
    assert_eq!(Stun.response_id(&response), Some(7));

    // CHANGE-REQUEST (RFC 5780), which must be understood.
    let request = hex("00010008 2112a442 00000000 00000000 00000007 00030004 00000000");
    let response = answer(&mut core, &request);
    assert_eq!(response[..2], [0x01, 0x11]);
    // UNKNOWN-ATTRIBUTES with it.
    assert!(
        response
            .windows(6)
            .any(|window| window == hex("000a0002 0003"))
    );

    // Indications, responses, other methods and half messages are nothing to answer.
    for kind in ["0011", "0101", "0111", "0003"] {
        let datagram = hex(&format!("{kind}0000 2112a442 00000000 00000000 00000007"));
        assert!(ask(&mut core, &datagram).is_empty());
    }
}

#[test]
fn a_stun_client_ends_at_an_error_response() {
    let net = SimNet::new();
    let server = "10.0.0.1:3478".parse().unwrap();
    // 420 with a reason that would act on a terminal, and with the request's id.
    net.host(server, |_, datagram: Datagram<'_>, outbox: &mut Outbox| {
        let error = [
            &hex("0111000c")[..],
            &datagram.bytes[4..20],
            &hex("00090006 00000414"),
            b"\x1b!\0\0",
        ];
        outbox
            .push(datagram.meta.peer, None, &error.concat())
            .unwrap();
    })
    .unwrap();
    let error = Client::new(net.clone(), Stun, server)
        .request(())
        .unwrap_err();
    let RequestError::Refused { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.to_string(), "error 420: \\u{1b}!");
    assert_eq!(net.now().monotonic, Duration::ZERO, "at once");
}

/// RFC 8489 §11: what has no magic cookie is of RFC 3489, whose clients know only MAPPED-ADDRESS.
#[test]
fn stun_answers_a_client_of_rfc_3489_as_it_expects() {
    let mut core = ServerCore::new(Stun, Mirror);
    let id = "0102030405060708090a0b0c0d0e0f10";
    // Nothing; CHANGE-REQUEST without a change; USERNAME; a type that may be ignored.
    for attributes in [
        "",
        "00030004 00000000",
        "00060004 61626364",
        "80220003 616263 00",
    ] {
        let attributes = hex(attributes);
        let head = hex(&format!("0001 {:04x} {id}", attributes.len()));
        let response = answer(&mut core, &[head, attributes].concat());
        // 192.0.2.1:40000.
        assert_eq!(
            response,
            hex(&format!("0101000c {id} 00010008 0001 9c40 c0000201"))
        );
        assert!(Stun.is_response(&response));
    }
    // A change of port; and RESPONSE-ADDRESS, which would have others answered.
    for (attributes, listed) in [
        ("00030004 00000002", "0003 0003"),
        ("00020008 00010007 c0000207 00030004 00000002", "0002 0003"),
    ] {
        let attributes = hex(attributes);
        let head = hex(&format!("0001 {:04x} {id}", attributes.len()));
        let response = answer(&mut core, &[head, attributes].concat());
        let reason = "556e6b6e6f776e20417474726962757465202020";
        let expected = format!("01110024 {id} 00090018 00000414 {reason} 000a0004 {listed}");
        assert_eq!(response, hex(&expected));
    }
    // Other kinds, and what is not whole.
    for bad in [
        format!("0101 0000 {id}"),
        format!("0002 0000 {id}"),
        format!("0001 0004 {id}"),
        format!("0001 0000 {id} 00"),
        format!("0001 0004 {id} 00060004"),
        format!("0001 0003 {id} 000600"),
        format!("0001 0007 {id} 00060003 616263"),
    ] {
        assert!(ask(&mut core, &hex(&bad)).is_empty(), "{bad}");
    }
    // IPv6.
    let mut out = [0; 64];
    let mut out = Writer::new(&mut out);
    let request = hex(&format!("0001 0000 {id}"));
    let peer = "[2001:db8::1]:7".parse().unwrap();
    Stun.encode_response(Timestamp::system(), &request, peer, &mut out)
        .unwrap();
    assert_eq!(out.finish(), Ok(44));
}

static ZONE: LazyLock<Arc<Zone>> = LazyLock::new(|| Arc::new(dns::zone()));
const STORED: Part<'_> = Part {
    number: 0,
    total: 1,
    payload: b"STORED\r\n",
};
static ROBOT: LazyLock<Robot> = LazyLock::new(zurich);

/// Requests that decode, one of each protocol.
fn samples() -> Vec<Vec<u8>> {
    let mut sntp = vec![0; 48];
    sntp[0] = 4 << 3 | 3;
    vec![
        sntp,
        dns::query("www.example.org", Rtype::A, Some(1232)),
        [&[0x41, 2, 0x12, 0x34, 0x55, 0xb6], &b"zurich\xffabc"[..]].concat(),
        hex("00010008 2112a442 00000000 00000000 00000007 00030004 00000000"),
        hex("00010008 01020304 05060708 090a0b0c 0d0e0f10 00030004 00000000"),
        b"\x12\x34\0\0\0\x01\0\0set k 0 0 5\r\nvalue\r\n".to_vec(),
    ]
}

proptest! {
    /// Whatever happened to a datagram on its way: a server says nothing, or what is a response,
    /// and no codec panics.
    #[test]
    fn no_bytes_make_a_codec_panic(
        sample in prop::sample::select(samples()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let mut datagram = sample;
        for (index, byte) in changes {
            let index = index.index(datagram.len());
            datagram[index] = byte;
        }
        if let Some(cut) = cut {
            datagram.truncate(cut.index(datagram.len()));
        }
        datagram.extend(tail);

        check(Sntp, Arc::new(|()| LOCAL_CLOCK), &datagram)?;
        check(Dns, Arc::clone(&ZONE), &datagram)?;
        check(Coap, Arc::new(|request: Packet| rejoinder_protocols::coap::zurich::answer(&ROBOT, &request)), &datagram)?;
        check(Stun, Arc::new(Mirror), &datagram)?;
        check(Memcached, Arc::new(|_: Request<'_>| STORED), &datagram)?;
    }
}

fn check<C: Codec + Copy, H: Handler<C>>(
    codec: C,
    handler: Arc<H>,
    datagram: &[u8],
) -> Result<(), TestCaseError> {
    let mut core = ServerCore::new(codec, handler);
    for response in ask(&mut core, datagram) {
        prop_assert!(codec.is_response(&response));
        // The one response without content is CoAP's reset.
        prop_assert!(
            codec.decode_response(&response).is_ok()
                || response.len() == 4
                || response[..2] == [1, 0x11]
                // STUN's for clients that know no magic cookie.
                || response[..2] == [1, 1] && datagram[4..8] != [0x21, 0x12, 0xa4, 0x42]
        );
        prop_assert!(ask(&mut core, &response).is_empty());
    }
    prop_assert_eq!(core.stats().dropped(DropReason::HandlerPanicked), 0);
    prop_assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 0);
    let _ = (
        codec.decode_response(datagram).is_ok(),
        codec.response_id(datagram),
    );
    Ok(())
}
