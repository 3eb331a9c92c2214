//! Zone files, as people write them.

use domain::base::iana::Rtype;
use domain::base::{Message, UnknownRecordData};
use proptest::prelude::*;
use rejoinder::sans_io::ServerCore;
use rejoinder_protocols::dns::codec::Dns;
use rejoinder_protocols::dns::zone::Zone;

use super::dns::{query, records_of};
use super::{answer, hex};

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
        // In the form of RFC 3597 it is the same alias.
        (
            "a TYPE5 \\# 15 0161076578616d706c65036f726700",
            "the alias leads to itself",
        ),
        ("a TYPE41 \\# 0", "no record of a zone has the type OPT"),
        ("a TYPE255 \\# 0", "no record of a zone has the type ANY"),
        ("a TYPE0 \\# 0", "no record of a zone has the type TYPE0"),
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
        (
            "a CERT 1 2 3 AAAA",
            "line 6: the text form of this type is not known: write the data as `\\# LENGTH",
        ),
        ("a LOC 52 N 4 E", "line 6: not a location as in `LOC 52 "),
        (
            "a URI 10 \"x\"",
            "line 6: not a URI record as in `URI 10 1 ",
        ),
        ("a SPF", "line 6: "),
        ("a A \\# 3 010203", "line 6: "),
        ("a A \\# 5 0102030405", "line 6: data that are too long"),
        (
            "a MX \\# 4 000AC000",
            "line 6: data that are too long, or have a compressed name",
        ),
        ("a TYPE65280 \\# 2 01", "line 6: "),
        (
            "a TYPE65280 text",
            "line 6: the text form of this type is not known",
        ),
        ("a ü 192.0.2.1", "line 6: "),
        ("a", "line 6: a record without a type"),
    ] {
        let error = Zone::parse(format!("{start}{line}\n").as_bytes()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(problem), "{line}: {error}");
    }
    let long = format!("{start}a TXT \"{}\"\n", "x".repeat(256));
    let error = Zone::parse(long.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        error,
        "line 6: a string of more than 255 bytes: write it as several strings"
    );
    let error = Zone::parse(b"; no origin\n@ 60 SOA ns hm 1 2 3 4 5\n").unwrap_err();
    let problem = "line 2: a relative name without an origin: begin the file with `$ORIGIN`, the zone's name and a dot";
    assert_eq!(error.to_string(), problem);
}

/// The data of the records of one set, in the order of the file.
fn data_of(zone: Zone, name: &str, rtype: Rtype) -> Vec<Vec<u8>> {
    let response = answer(
        &mut ServerCore::new(Dns, zone),
        &query(name, rtype, Some(1232)),
    );
    let message = Message::from_octets(response.as_slice()).unwrap();
    let records = message.answer().unwrap().limit_to::<UnknownRecordData<_>>();
    records
        .map(|record| record.unwrap().data().data().to_vec())
        .collect()
}

/// RFC 1035 §5.1: each byte stands for itself. In which encoding is the affair of its readers.
#[test]
fn bytes_above_ascii_stand_for_themselves_in_a_zone_file() {
    let start = b"; M\xfcller\n$ORIGIN example.org.\n$TTL 60 ; \xe4\n@ SOA ns hm ( 1 ; \xf6\n 2 3 4 5 )\n@ NS ns\n";
    for (text, expected) in [
        // Latin-1, UTF-8, neither; escaped, and unquoted.
        (&b"\"M\xfcller\""[..], &b"\x06M\xfcller"[..]),
        ("\"Müller 你\"".as_bytes(), "\x0bMüller 你".as_bytes()),
        (b"\"\x80\xff\xfe\"", b"\x03\x80\xff\xfe"),
        (b"\"\\\xfc\\252\"", b"\x02\xfc\xfc"),
        (b"M\xfcller \xc3\xbc", b"\x06M\xfcller\x02\xc3\xbc"),
        // Bytes that are no text.
        (b"\"a\tb\0\x7f\\\x01\"", b"\x06a\tb\0\x7f\x01"),
        // A comment ends with its line, whatever it has.
        (b"( a ; \"\xff\\\n b )", b"\x01a\x01b"),
    ] {
        let file = [&start[..], b"x TXT ", text, b"\n"].concat();
        let zone = Zone::parse(&file).unwrap();
        assert_eq!(zone.warnings(), [""; 0]);
        // Types without names have the same data here as in the answer.
        assert_eq!(
            data_of(zone, "x.example.org", Rtype::TXT),
            [expected],
            "{text:x?}"
        );
    }
    // Names too (RFC 2181 §11).
    let file = [&start[..], b"m\xfcller A 192.0.2.1\n"].concat();
    let data = data_of(
        Zone::parse(&file).unwrap(),
        "m\\252ller.example.org",
        Rtype::A,
    );
    assert_eq!(data, [[192, 0, 2, 1]]);
}

/// RFC 2181 §5.2.
#[test]
fn a_set_with_several_ttls_gets_the_lowest_and_a_warning() {
    let start = "$ORIGIN example.org.\n$TTL 60\n@ SOA ns hm 1 2 3 4 5\n@ NS ns\n";
    for (records, lowest) in [
        (
            "a 70 A 192.0.2.1\na 80 A 192.0.2.2\nb 90 A 192.0.2.1\na 60 A 192.0.2.3\n",
            60,
        ),
        (
            "a 70 A 192.0.2.1\na 80 A 192.0.2.2\nb 60 A 192.0.2.1\na 90 A 192.0.2.3\n",
            70,
        ),
        // The same record with another TTL.
        ("a 70 A 192.0.2.1\nA 80 A 192.0.2.1\na 50 A 192.0.2.1\n", 50),
    ] {
        let zone = Zone::parse(format!("{start}{records}").as_bytes()).unwrap();
        let warning =
            "line 6: a.example.org A: TTLs of 70 and 80, of which the whole set gets the lowest";
        assert_eq!(zone.warnings(), [warning]);
        let response = answer(
            &mut ServerCore::new(Dns, zone),
            &query("a.example.org", Rtype::A, None),
        );
        let (_, [answers, _]) = records_of(&response);
        let expected = format!("a.example.org A {lowest}");
        assert!(
            answers.iter().all(|answer| *answer == expected),
            "{answers:?}"
        );
        assert_eq!(answers.len(), if lowest == 50 { 1 } else { 3 });
    }
    // The SOA record, and types of one name, are sets of their own.
    let text = format!("{start}@ 70 MX 10 a\na 60 A 192.0.2.1\na 70 AAAA ::1\n");
    assert_eq!(Zone::parse(text.as_bytes()).unwrap().warnings(), [""; 0]);
}

/// The file that other name servers read, too: see the test against them.
#[test]
fn a_zone_has_records_of_any_type() {
    let zone = || {
        let zone = Zone::parse(include_bytes!("written.zone")).unwrap();
        assert_eq!(zone.warnings(), [""; 0]);
        zone
    };
    for (name, rtype, expected) in [
        ("spf", 99, &b"\x02\xc3\xbc"[..]),
        ("spf", 99, b"\x0bv=spf1 -all\x06second"),
        ("loc", 29, &hex("00331613 89172dd0 70be15f0 00988d20")),
        ("uri", 256, b"\0\x0a\0\x01ftp://example.org/p"),
        ("afsdb", 18, b"\0\x01\x03ns1\x07example\x03org\0"),
        ("unknown", 65_280, b"\x0a\0\0\x01"),
        ("empty", 65_281, b""),
        ("number", 99, b"\x0cv=spf1 ?all "),
        // In the form of RFC 3597 the name is not compressed, in the answer it is.
        ("known", 15, b"\0\x0a\x03ns1\xc0\x12"),
    ] {
        let data = data_of(
            zone(),
            &format!("{name}.example.org"),
            Rtype::from_int(rtype),
        );
        assert!(
            data.iter().any(|data| data == expected),
            "{name}: {data:x?}"
        );
    }
    assert_eq!(
        data_of(zone(), "uri.example.org", Rtype::URI)[1].len(),
        4 + 300
    );
    let response = answer(
        &mut ServerCore::new(Dns, zone()),
        &query("alias.example.org", Rtype::A, None),
    );
    let (_, [answers, _]) = records_of(&response);
    assert_eq!(
        answers,
        ["alias.example.org CNAME 3600", "ns1.example.org A 3600"]
    );
}

proptest! {
    /// Whatever a file has in it: it is a zone, or an error in one line.
    #[test]
    fn no_bytes_make_the_reader_of_zone_files_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        moved in prop::collection::vec(any::<[prop::sample::Index; 3]>(), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = include_bytes!("written.zone").to_vec();
        for (index, byte) in changes {
            let index = index.index(file.len());
            file[index] = byte;
        }
        // Words and line ends get into places where nothing writes them.
        for [from, len, to] in moved {
            let from = from.index(file.len());
            let part = file[from..(from + len.index(40)).min(file.len())].to_vec();
            let to = to.index(file.len());
            file.splice(to..to, part);
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Err(error) = Zone::parse(&file) {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
