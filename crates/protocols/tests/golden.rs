//! What the examples answer, without a socket.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use coap_lite::Packet;
use domain::base::Name;
use domain::base::iana::{Class, Rtype};
use proptest::prelude::*;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Raw, ResponseKind};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::transport::{Datagram, Inbox, Meta, Outbox};
use rejoinder::{Client, Codec, DropReason, Handler, RequestError, Server, Timestamp, Writer};

use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::dns::codec::{Dns, Edns, Query};
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
    let (mut inbox, mut outbox) = (Inbox::new(1, 4096), Outbox::new(16, 65_507));
    inbox.push(request, Meta::new(PEER.parse().unwrap()));
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
fn dns_answers_a_resolver_that_asks_from_port_53() {
    let mut core = Server::builder(Dns)
        .blocked_ports(rejoinder_protocols::dns::codec::blocked_ports())
        .core(zone());
    let request = query("www.example.org", Rtype::A, None);
    let (mut inbox, mut outbox) = (Inbox::new(2, 512), Outbox::new(32, 512));
    inbox.push(&request, Meta::new(([192, 0, 2, 1], 53).into()));
    inbox.push(&request, Meta::new(([192, 0, 2, 1], 5353).into()));
    core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    let peers: Vec<u16> = outbox.iter().map(|it| it.peer.port()).collect();
    assert_eq!(peers, [53]);
    assert_eq!(core.stats().dropped(DropReason::SourceReflector), 1);
}

fn zone() -> Zone {
    Zone::example().unwrap()
}

/// A query with the id 0x1234 and recursion desired, in hexadecimal digits.
fn query(name: &str, rtype: Rtype, edns: Option<u16>) -> Vec<u8> {
    let name = Name::<Vec<u8>>::from_str(name).unwrap();
    let mut header = domain::base::Header::new();
    header.set_rd(true);
    let query = Query {
        header,
        name: name.as_slice(),
        rtype,
        class: Class::IN,
        edns: edns.map(|udp_bytes| Edns {
            udp_bytes,
            version: 0,
            dnssec_ok: false,
        }),
    };
    encoded(|out| Dns.encode_request(0x1234, query, out).unwrap())
}

#[test]
fn dns_answers_are_these_bytes() {
    let mut core = ServerCore::new(Dns, zone());
    let question = "03777777 076578616d706c65 036f7267 00 001c 0001";
    let record = "c00c 001c 0001 00000e10 0010 20010db8 00000000 00000000 00000080";
    assert_eq!(
        answer(&mut core, &query("www.example.org", Rtype::AAAA, None)),
        hex(&format!(
            "1234 8500 0001 0001 0000 0000 {question} {record}"
        ))
    );
    assert_eq!(
        answer(
            &mut core,
            &query("www.example.org", Rtype::AAAA, Some(4096))
        ),
        hex(&format!(
            "1234 8500 0001 0001 0000 0001 {question} {record} 00 0029 04d0 00000000 0000"
        ))
    );
    // RFC 1035 §4.2.1: nothing but the question, and TC.
    let question = "056c61726765 076578616d706c65 036f7267 00 0010 0001";
    assert_eq!(
        answer(&mut core, &query("large.example.org", Rtype::TXT, None)),
        hex(&format!("1234 8700 0001 0000 0000 0000 {question}"))
    );
    assert!(
        answer(
            &mut core,
            &query("large.example.org", Rtype::TXT, Some(1232))
        )
        .len()
            > 512
    );
    // REFUSED, and not authoritative.
    let question = "03636f6d 00 0001 0001";
    assert_eq!(
        answer(&mut core, &query("com", Rtype::A, None)),
        hex(&format!("1234 8105 0001 0000 0000 0000 {question}"))
    );
    // Zones are not transferred.
    for rtype in [Rtype::AXFR, Rtype::IXFR] {
        let refused = answer(&mut core, &query("example.org", rtype, None));
        assert_eq!(refused[2..8], hex("8105 0001 0000"));
    }
    // The asker's address and port, not to be cached.
    let question = "0677686f616d69 00 0010 0001";
    let text = "0f 3139322e302e322e313a3430303030";
    assert_eq!(
        answer(&mut core, &query("whoami", Rtype::TXT, None)),
        hex(&format!(
            "1234 8500 0001 0001 0000 0000 {question} c00c 0010 0001 00000000 0010 {text}"
        ))
    );
}

#[test]
fn dns_keeps_the_case_of_the_question_and_knows_names_in_any() {
    let mut core = ServerCore::new(Dns, zone());
    let upper = query("WWW.eXample.ORG", Rtype::A, None);
    let lower = query("www.example.org", Rtype::A, None);
    let response = answer(&mut core, &upper);
    assert_eq!(response[12..29], upper[12..29]);
    assert_eq!(response[29..], answer(&mut core, &lower)[29..]);
    assert!(Dns.response_matches(&lower, &response));
}

#[test]
fn dns_rejects_what_the_standards_name_and_is_silent_to_what_is_no_query() {
    let mut core = ServerCore::new(Dns, zone());
    let good = query("www.example.org", Rtype::A, Some(1232));
    assert_eq!(ask(&mut core, &good).len(), 1);
    let plain = query("www.example.org", Rtype::A, None);
    for good in [&good, &plain] {
        for cut in 0..good.len() {
            assert!(ask(&mut core, &good[..cut]).is_empty(), "{cut}");
        }
    }
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let malformed = core.stats().dropped(DropReason::Malformed);
    for bad in [
        // A byte too many; a record that is not there; a name that points to itself.
        changed(&|bad| bad.push(0)),
        [&plain[..], &[0]].concat(),
        changed(&|bad| bad[7] = 1),
        changed(&|bad| bad[12..14].copy_from_slice(&[0xC0, 12])),
    ] {
        assert!(ask(&mut core, &bad).is_empty());
    }
    assert_eq!(core.stats().rejected, 0);

    // FORMERR to no question, two, and two OPT records; NOTIMP to a header with another operation.
    let formerr = hex("1234 8101 0000 0000 0000 0000");
    for bad in [
        changed(&|bad| bad[5] = 0),
        changed(&|bad| bad[5] = 2),
        changed(&|bad| {
            bad[11] = 2;
            let opt = bad[bad.len() - 11..].to_vec();
            bad.extend(opt);
        }),
    ] {
        assert_eq!(answer(&mut core, &bad), formerr);
    }
    assert_eq!(
        answer(&mut core, &hex("1234 7900 0000 0000 0000 0000")),
        hex("1234 f904 0000 0000 0000 0000")
    );
    assert_eq!(core.stats().rejected, 4);
    assert_eq!(core.stats().dropped(DropReason::Malformed), malformed + 8);

    assert!(ask(&mut core, &changed(&|bad| bad[2] |= 0x80)).is_empty());
    assert_eq!(core.stats().dropped(DropReason::Response), 1);
}

#[test]
fn a_zone_that_could_not_be_served_right_is_refused() {
    let soa = "$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\n";
    for (records, problem) in [
        ("sub NS ns.sub", "delegations are not supported"),
        ("* A 192.0.2.1", "wildcards are not supported"),
        ("sub DNAME example.com.", "DNAME is not supported"),
        (
            "a CNAME b\na A 192.0.2.1",
            "CNAME stands beside other records",
        ),
        ("a CNAME b\nb CNAME a", "the alias leads to itself"),
        ("a.example.com. A 192.0.2.1", "not in the zone"),
        (
            "a 60 A 192.0.2.1\na 61 A 192.0.2.2",
            "one set, several TTLs",
        ),
        ("WhoAmI A 192.0.2.1", "a name of the asker"),
        ("a CH TXT x", "class"),
        ("@ DNSKEY 256 3 13 AAAA", "DNSSEC is not supported"),
        ("a NSEC b A NSEC", "DNSSEC is not supported"),
        (
            "a RRSIG A 13 3 60 20261222000000 20261122000000 1 @ AAAA",
            "DNSSEC is not supported",
        ),
    ] {
        let text = format!("$ORIGIN example.org.\n{soa}{records}\n");
        let error = Zone::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(problem), "{records}: {error}");
    }
    for (text, problem) in [
        ("example.org. 60 A 192.0.2.1\n", "no SOA record"),
        (
            "example.org. 60 SOA ns. hm. 1 2 3 4 5\nns.example.org. 60 NS ns.\n",
            "example.org: no NS record beside the SOA record",
        ),
    ] {
        let error = Zone::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), problem);
    }
}

/// The same zone, written in the ways that people write it.
#[test]
fn a_zone_file_may_be_written_as_people_write_it() {
    let expected: Vec<Vec<u8>> = {
        let text = "$ORIGIN example.org.\n$TTL 3600\n\
            example.org. 3600 IN SOA ns.example.org. root.example.org. 1 7200 3600 604800 300\n\
            example.org. 3600 IN NS ns.example.org.\n\
            example.org. 3600 IN MX 10 mail.example.org.\n\
            ns.example.org. 3600 IN A 192.0.2.53\n\
            mail.example.org. 300 IN A 192.0.2.25\n\
            txt.example.org. 3600 IN TXT \"v=spf1; a ( b\" \"second\"\n";
        answers_of(text)
    };
    let header = "$ORIGIN example.org. ; the zone\n$TTL 1h\n";
    let soa = "@ IN SOA ns root ( 1 ; serial\n 2h ; refresh\n\t1H\n 1w\n 5m ; negative\n )\n";
    let rest = "\tNS ns\n\tMX 10 mail\nns A 192.0.2.53\nmail 5m IN A 192.0.2.25\n\
                txt TXT \"v=spf1; a ( b\" \"second\"\n";
    let variants = [
        format!("{header}{soa}{rest}"),
        // Class and TTL the other way round, in lower case, as numbers; every line with its owner.
        format!("{header}{soa}{rest}").replace("5m IN A", "in 300 a"),
        format!("{header}{soa}{rest}").replace("5m IN A", "CLASS1 5M A"),
        format!("{header}{soa}{rest}")
            .replace("\tNS", "@ NS")
            .replace("\tMX", "@ 1h MX"),
        // All in one line; parentheses without spaces; blank lines and comments between.
        format!("{header}@ SOA ns root(1 2h 1h 1w 5m)\n; NS\n\n   \n{rest}"),
        // Several origins, one of them relative; names beside the origin.
        String::from(
            "$TTL 1h\n$ORIGIN org.\nexample SOA ns.example root.example 1 2h 1h 1w 5m\n\
             $ORIGIN example\n@ NS ns\n MX 10 mail.example.org.\nns A 192.0.2.53\n\
             $ORIGIN mail.example.org.\n@ 300 A 192.0.2.25\n$ORIGIN example.org.\n\
             txt TXT ( \"v=spf1; a ( b\"\n  second )\n",
        ),
        // Without $TTL: the last one that was stated (RFC 1035 §5.1).
        format!(
            "$ORIGIN example.org.\n{}{rest}",
            soa.replace("@ IN", "@ 1h IN")
        )
        .replace("txt TXT", "txt 1h TXT"),
        // As some editors leave it.
        format!("\u{feff}{header}{soa}{rest}").replace('\n', "\r\n"),
        format!("{header}{soa}{rest}").trim_end().to_owned(),
        // Escapes (RFC 1035 §5.1).
        format!("{header}{soa}{rest}")
            .replace("second", "s\\101cond")
            .replace("\nns A", "\n\\110s A"),
        // RFC 3597 §5: data without a meaning.
        format!("{header}{soa}{rest}").replace("ns A 192.0.2.53", "ns TYPE1 \\# 4 C0000235"),
    ];
    for text in variants {
        assert_eq!(answers_of(&text), expected, "{text}");
    }
}

/// What a zone says of the names in the test above.
fn answers_of(text: &str) -> Vec<Vec<u8>> {
    let zone = Zone::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut core = ServerCore::new(Dns, zone);
    [
        ("example.org", Rtype::SOA),
        ("example.org", Rtype::NS),
        ("example.org", Rtype::MX),
        ("ns.example.org", Rtype::A),
        ("mail.example.org", Rtype::A),
        ("txt.example.org", Rtype::TXT),
        ("nothing.example.org", Rtype::A),
    ]
    .map(|(name, rtype)| answer(&mut core, &query(name, rtype, None)))
    .to_vec()
}

#[test]
fn a_mistake_in_a_zone_file_is_named_with_its_line() {
    let start = "$ORIGIN example.org.\n$TTL 60\n@ SOA ns hm (1\n 2 3 4 5)\n@ NS ns\n";
    for (line, problem) in [
        ("a A 192.0.2.256", "line 6: "),
        ("a NOSUCHTYPE x", "line 6: "),
        ("a MX mail", "line 6: "),
        ("a A 192.0.2.1 192.0.2.2", "line 6: "),
        ("a TXT \"b", "line 6: a quote is not closed"),
        ("a TXT ( b", "line 6: a parenthesis is not closed"),
        ("$INCLUDE other.zone", "line 6: $INCLUDE is not supported"),
        (
            "$GENERATE 1-3 a$ A 192.0.2.$",
            "line 6: $GENERATE is not supported",
        ),
        ("$UNKNOWN 1", "line 6: "),
        ("@ 61 NS ns2", "line 6: example.org: one set, several TTLs"),
    ] {
        let error = Zone::parse(format!("{start}{line}\n").as_bytes()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(problem), "{line}: {error}");
    }
}

/// The example's handler, and how often it was asked.
fn coap() -> (ServerCore<Coap, impl Handler<Coap>>, Arc<AtomicU32>) {
    let robot = zurich();
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let handler = move |request: Packet| {
        counter.fetch_add(1, Ordering::Relaxed);
        rejoinder_protocols::coap::zurich::answer(&robot, &request)
    };
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
    // Acknowledgement, reset, a response of its own.
    for response in [[0x60, 0x45, 0, 1], [0x70, 0, 0, 1], [0x50, 0x45, 0, 1]] {
        assert!(ask(&mut core, &response).is_empty());
    }
    assert_eq!(core.stats().dropped(DropReason::Response), 3);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 8);
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

static ZONE: LazyLock<Arc<Zone>> = LazyLock::new(|| Arc::new(zone()));
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
        query("www.example.org", Rtype::A, Some(1232)),
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
