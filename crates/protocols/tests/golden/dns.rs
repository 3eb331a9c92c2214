//! DNS: queries, and what is none.

use std::str::FromStr;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message::RecordSection;
use domain::base::{Message, Name};
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, Meta, Outbox};
use rejoinder::{Codec, DropReason, Server, Timestamp, Writer};
use rejoinder_protocols::dns::codec::{Dns, DnsError, Edns, Query};
use rejoinder_protocols::dns::zone::Zone;

use super::{PEER, answer, ask, ask_as, encoded, hex};

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

pub(crate) fn zone() -> Zone {
    Zone::example().unwrap()
}

/// A query with the id 0x1234 and recursion desired, in hexadecimal digits.
pub(crate) fn query(name: &str, rtype: Rtype, edns: Option<u16>) -> Vec<u8> {
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

/// What a response says: its code, and owner, type and TTL of the records in two sections.
pub(crate) fn records_of(response: &[u8]) -> (Rcode, [Vec<String>; 2]) {
    let message = Message::from_octets(response).unwrap();
    assert!(Dns.decode_response(response).is_ok());
    let section = |section: RecordSection<'_, &[u8]>| {
        let records = section.map(|record| {
            let record = record.unwrap();
            let (owner, ttl) = (record.owner(), record.ttl().as_secs());
            format!("{owner} {} {ttl}", record.rtype())
        });
        records.collect()
    };
    let sections = [message.answer().unwrap(), message.authority().unwrap()].map(section);
    (message.header().rcode(), sections)
}

/// RFC 2308 §2.1 and §3.
#[test]
fn a_name_of_the_peer_denies_with_an_soa_record() {
    let mut core = ServerCore::new(Dns, zone());
    let long = format!("{}.whoami.example.com", vec!["x".repeat(63); 3].join("."));
    let long = format!("v6 {long} ANY");
    for (question, expected) in [
        // In the zone, with its SOA record. What varies with the peer must not be cached.
        ("v4 whoami.example.org AAAA", "NOERROR; ; example.org SOA 0"),
        ("v6 whoami.example.org A", "NOERROR; ; example.org SOA 0"),
        ("v4 WhoAmI.Example.org MX", "NOERROR; ; example.org SOA 300"),
        (
            "v4 whoami.in.example.org SOA",
            "NOERROR; ; example.org SOA 300",
        ),
        (
            "v6 whoami.example.org AAAA",
            "NOERROR; whoami.example.org AAAA 0; ",
        ),
        // Each other name is a zone of its own.
        ("v4 whoami AAAA", "NOERROR; ; whoami SOA 0"),
        (
            "v4 WHOAMI.example.com NS",
            "NOERROR; ; WHOAMI.example.com SOA 0",
        ),
        (
            "v4 whoami.example.com SOA",
            "NOERROR; whoami.example.com SOA 0; ",
        ),
        // RFC 8482.
        (
            "v4 whoami.example.org ANY",
            "NOERROR; whoami.example.org TXT 0; ",
        ),
        (
            "v6 whoami.example.com ANY",
            "NOERROR; whoami.example.com TXT 0; ",
        ),
        // Nothing is below such a name, nor below a name that does not exist (RFC 8020).
        (
            "v4 x.whoami.example.org A",
            "NXDOMAIN; ; example.org SOA 300",
        ),
        (
            "v4 whoami.whoami.example.org A",
            "NXDOMAIN; ; example.org SOA 300",
        ),
        (
            "v4 whoami.no.example.org A",
            "NXDOMAIN; ; example.org SOA 300",
        ),
        (
            "v4 x.whoami.no.example.org A",
            "NXDOMAIN; ; example.org SOA 300",
        ),
        (
            "v4 x.y.WhoAmI.example.com A",
            "NXDOMAIN; ; WhoAmI.example.com SOA 0",
        ),
        (&long, "NXDOMAIN; ; whoami.example.com SOA 0"),
        ("v4 xwhoami.example.com A", "REFUSED; ; "),
    ] {
        let words: Vec<&str> = question.split(' ').collect();
        let peer = if words[0] == "v6" {
            "[2001:db8::1]:40000"
        } else {
            PEER
        };
        let request = query(words[1], Rtype::from_str(words[2]).unwrap(), None);
        let responses = ask_as(&mut core, Meta::new(peer.parse().unwrap()), &request);
        let [response] = responses.try_into().unwrap();
        let (rcode, [answers, authorities]) = records_of(&response);
        let got = format!(
            "{rcode}; {}; {}",
            answers.join(", "),
            authorities.join(", ")
        );
        assert_eq!(got, expected, "{question}");
    }
    // MNAME, RNAME as in RFC 6303 §3, and a minimum of zero.
    let question = "0677686f616d69 00 001c 0001";
    let data =
        "c00c 066e6f626f6479 07696e76616c6964 00 00000001 00000e10 000004b0 00093a80 00000000";
    assert_eq!(
        answer(&mut core, &query("whoami", Rtype::AAAA, None)),
        hex(&format!(
            "1234 8500 0001 0000 0001 0000 {question} c00c 0006 0001 00000000 0026 {data}"
        ))
    );
}

#[test]
fn a_zone_below_a_name_of_the_peer_is_a_zone_like_others() {
    let text = "$ORIGIN a.whoami.example.com.\n$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\n";
    let mut core = ServerCore::new(Dns, Zone::parse(text.as_bytes()).unwrap());
    for (name, rcode, authority) in [
        (
            "a.whoami.example.com",
            Rcode::NOERROR,
            "a.whoami.example.com SOA 5",
        ),
        (
            "b.a.whoami.example.com",
            Rcode::NXDOMAIN,
            "a.whoami.example.com SOA 5",
        ),
        (
            "b.whoami.example.com",
            Rcode::NXDOMAIN,
            "whoami.example.com SOA 0",
        ),
        (
            "whoami.example.com",
            Rcode::NOERROR,
            "whoami.example.com SOA 0",
        ),
        (
            "whoami.a.whoami.example.com",
            Rcode::NOERROR,
            "a.whoami.example.com SOA 5",
        ),
    ] {
        let response = answer(&mut core, &query(name, Rtype::MX, None));
        let expected = [vec![], vec![authority.to_owned()]];
        assert_eq!(records_of(&response), (rcode, expected), "{name}");
    }
}

#[test]
fn an_alias_to_a_name_of_the_peer_leaves_the_rest_to_the_peer() {
    let text = "$ORIGIN example.org.\n$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\na CNAME whoami\nx.whoami A 192.0.2.1\n";
    let mut core = ServerCore::new(Dns, Zone::parse(text.as_bytes()).unwrap());
    let response = answer(&mut core, &query("a.example.org", Rtype::A, None));
    let alias = vec!["a.example.org CNAME 60".to_owned()];
    assert_eq!(records_of(&response), (Rcode::NOERROR, [alias, vec![]]));
}

/// RFC 1035 §4.1.1, RFC 6891 §6.1.1 and §7, RFC 8945 §5.1, RFC 9619 §4.
#[test]
fn dns_says_formerr_to_a_query_that_it_cannot_interpret() {
    let mut core = ServerCore::new(Dns, zone());
    let header = |counts: &str| hex(&format!("1234 0100 {counts}"));
    let www = hex("03777777 076578616d706c65 036f7267 00 0001 0001");
    let good_opt = "00 0029 04d0 00000000 0000";
    let formerr = hex("1234 8101 0000 0000 0000 0000");
    let one = "0001 0000 0000 0000";
    let one_and_opt = "0001 0000 0000 0001";
    let with = |counts: &str, records: &str| [header(counts), www.clone(), hex(records)].concat();
    assert!(answer(&mut core, &with(one_and_opt, good_opt)).len() > 12);

    let label = |len: usize| [vec![u8::try_from(len).unwrap()], vec![b'a'; len]].concat();
    let mut bad = vec![
        // The question: a label of 64 bytes, reserved kinds of labels, pointers to itself, ahead and into the
        // header, a name of 257 bytes.
        [header(one), label(64), hex("00 0001 0001")].concat(),
        [header(one), hex("80 00 0001 0001")].concat(),
        [header(one), hex("41 00 00 0001 0001")].concat(),
        [header(one), hex("c00c 0001 0001")].concat(),
        [header(one), hex("c020 0001 0001"), vec![0; 20]].concat(),
        [header(one), hex("c000 0001 0001")].concat(),
        [header(one), label(63).repeat(4), hex("00 0001 0001")].concat(),
        // Another number of questions than one.
        header("0000 0000 0000 0000"),
        with("0002 0000 0000 0000", ""),
        [with("0002 0000 0000 0000", ""), www.clone()].concat(),
        // More records than there are.
        with("0001 0001 0000 0000", ""),
        with("0001 0000 0001 0000", ""),
        with("0001 0000 0000 0001", ""),
        with("0001 ffff ffff ffff", good_opt),
        // A name that points to itself, an address of 3 bytes, and of 4 bytes of which 3 are there.
        with(one_and_opt, "c021 0001 0001 00000000 0004 01020304"),
        with(one_and_opt, "00 0001 0001 00000000 0003 010203"),
        with(one_and_opt, "00 0001 0001 00000000 0004 010203"),
        // Bytes after the last record.
        with(one, "00"),
        with(one_and_opt, &format!("{good_opt} 00")),
        // Two OPT records; one with a name; one in the answer section; one in the authority section.
        with("0001 0000 0000 0002", &format!("{good_opt} {good_opt}")),
        with(one_and_opt, "0178 00 0029 04d0 00000000 0000"),
        with("0001 0001 0000 0000", good_opt),
        with("0001 0000 0001 0000", good_opt),
        // An option that is longer than the record, half a header of one, and a record that is longer than the
        // message; the first also with a version that is not known.
        with(one_and_opt, "00 0029 04d0 00000000 0004 000a 00ff"),
        with(one_and_opt, "00 0029 04d0 00000000 0003 000a 00"),
        with(one_and_opt, "00 0029 04d0 00000000 0009"),
        with(one_and_opt, "00 0029 04d0 00010000 0004 000a 00ff"),
        // A record behind TSIG.
        with(
            "0001 0000 0000 0002",
            &format!(
                "00 00fa 00ff 00000000 0010 00 000000000000 0000 0000 0000 0000 00 {good_opt}"
            ),
        ),
    ];
    for good in [with(one, ""), with(one_and_opt, good_opt)] {
        bad.extend((12..good.len()).map(|cut| good[..cut].to_vec()));
        // Less than a header gets nothing.
        for cut in 0..12 {
            assert!(ask(&mut core, &good[..cut]).is_empty(), "{cut}");
        }
    }
    let (rejected, malformed) = (
        core.stats().rejected,
        core.stats().dropped(DropReason::Malformed),
    );
    assert_eq!((rejected, malformed), (0, 24));
    for bad in &bad {
        assert_eq!(answer(&mut core, bad), formerr, "{bad:02x?}");
        // Recursion is desired only if it was; other flags are not repeated.
        let mut other = bad.clone();
        other[2] = 0x06;
        other[3] = 0x7f;
        assert_eq!(
            answer(&mut core, &other)[..4],
            hex("1234 8001"),
            "{bad:02x?}"
        );
        // NOTIMP to another operation, with its code (RFC 8906 §3.1.4).
        other[2] = 0x79;
        assert_eq!(
            answer(&mut core, &other),
            hex("1234 f904 0000 0000 0000 0000")
        );
        // A response gets nothing, whatever it is.
        let mut response = bad.clone();
        response[2] |= 0x80;
        assert!(ask(&mut core, &response).is_empty());
    }
    let count = u64::try_from(bad.len()).unwrap();
    assert_eq!(core.stats().rejected, 3 * count);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 24 + 3 * count);
    assert_eq!(core.stats().dropped(DropReason::Response), count);
    // Nor does a codec without a server before it answer a response.
    let mut space = [0; 64];
    let mut out = Writer::new(&mut space);
    Dns.encode_rejection(&formerr, &DnsError::Direction, &mut out);
    assert_eq!(out.finish(), Ok(0));

    // Records that are in place and well-formed are read past, and a compressed name of the root is one.
    for good in [
        with(one_and_opt, "00 0001 0001 00000000 0004 01020304"),
        with(
            "0001 0001 0000 0001",
            &format!("c00c 0001 0001 00000000 0004 01020304 {good_opt}"),
        ),
        with(one_and_opt, "c01c 0029 04d0 00000000 0004 000a 0000"),
    ] {
        assert_eq!(answer(&mut core, &good)[2..4], hex("8500"), "{good:02x?}");
    }
}
