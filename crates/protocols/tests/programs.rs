//! The examples against other people's clients, and `Client` against other people's servers.
//!
//! Tests that need such programs are ignored unless asked for: `cargo test --workspace -- --ignored`.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process, thread};

use chrono::{DateTime, Utc};
use coap_lite::{CoapOption, MessageClass, Packet, RequestType, ResponseType};
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{Header, Name};
use domain::rdata::A;
use rejoinder::codec::Raw;
use rejoinder::sans_io::ServerCore;
use rejoinder::udp::{UdpConnector, UdpOptions};
use rejoinder::{Client, RequestError, Timestamp, Wait};

use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::dns::codec::{Dns, Query};
use rejoinder_protocols::inetd::services::Service;
use rejoinder_protocols::memcached::codec::{Memcached, Request, Response};
use rejoinder_test_support::process::{
    Ended, PATIENCE, Program, example, python, start_server, words,
};

/// Runs a program to its end, in UTC.
fn run(program: &str, arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments).env("TZ", "UTC");
    Program::start_with_input(&mut command, input.as_bytes()).finish()
}

/// What a program prints that ends well and complains about nothing.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let ended = run(program, arguments, input);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "", "{ended:?}");
    ended.stdout
}

/// A server among the examples, on a free port.
fn server(name: &str) -> (Program, String) {
    let (program, addr) = start_server("127.0.0.1:0", &mut example(name));
    (program, addr.port().to_string())
}

/// The one service of inetd that an option names, on a free port.
fn inetd(service: &str) -> (Program, String) {
    let mut command = example("inetd");
    command
        .args([&format!("--{service}"), "127.0.0.1:0"])
        .env("TZ", "UTC");
    let mut program = Program::start(&mut command);
    let addr = program.wait_for_stderr(&format!("{service}: listening on "));
    let addr: SocketAddr = addr.parse().unwrap();
    (program, addr.port().to_string())
}

/// Runs something that prints the time, and checks that it was the time.
fn prints_the_time(format: &str, program: impl FnOnce() -> String) {
    let before = DateTime::<Utc>::from(SystemTime::now()).timestamp();
    let printed = program();
    let after = DateTime::<Utc>::from(SystemTime::now()).timestamp();
    let mut possible = (before..=after).map(|second| {
        DateTime::from_timestamp(second, 0)
            .unwrap()
            .format(format)
            .to_string()
    });
    assert!(possible.any(|time| time == printed), "{printed}");
}

#[test]
#[ignore = "needs rdate"]
fn rdate_reads_the_time_from_inetd() {
    let (_server, port) = inetd("time");
    prints_the_time("%a %b %e %H:%M:%S UTC %Y\n", || {
        output("rdate", &["-u", "-p", "-o", &port, "127.0.0.1"], "")
    });
}

#[test]
#[ignore = "needs nc (netcat-openbsd)"]
fn netcat_hears_its_own_echo() {
    let (_server, port) = inetd("echo");
    let echo = output("nc", &["-u", "-w", "1", "127.0.0.1", &port], "zürich\n");
    assert_eq!(echo, "zürich\n");
}

#[test]
#[ignore = "needs socat"]
fn socat_reads_the_date_and_the_quote_of_the_day() {
    let (_server, port) = inetd("daytime");
    let addr = format!("UDP:127.0.0.1:{port}");
    prints_the_time("%a %b %e %H:%M:%S %Y\r\n", || {
        output("socat", &["-t", "1", "-", &addr], "\n")
    });

    let (_server, port) = inetd("qotd");
    let addr = format!("UDP:127.0.0.1:{port}");
    let of_the_day = || {
        let mut core = ServerCore::new(Raw, Service::Quote);
        let (mut inbox, mut outbox) = (
            rejoinder::transport::Inbox::new(1, 9),
            rejoinder::transport::Outbox::new(16, 512),
        );
        inbox.push(
            b"",
            rejoinder::transport::Meta::new(([127, 0, 0, 1], 9999).into()),
        );
        core.handle(Timestamp::system(), &mut inbox, &mut outbox);
        String::from_utf8(outbox.iter().next().unwrap().bytes.to_vec()).unwrap()
    };
    let before = of_the_day();
    let quote = output("socat", &["-t", "1", "-", &addr], "\n");
    assert!([before, of_the_day()].contains(&quote), "{quote}");
}

/// Both addresses are the machine's own without further ado only on Linux.
#[test]
#[cfg(target_os = "linux")]
fn inetd_does_not_answer_its_own_services_and_their_like() {
    let mut command = example("inetd");
    command.args(["--echo", "127.0.0.1:0", "--daytime", "127.0.0.1:0"]);
    let mut program = Program::start(&mut command);
    let [echo, daytime] = ["echo", "daytime"].map(|service| {
        let addr = program.wait_for_stderr(&format!("{service}: listening on "));
        addr.parse::<SocketAddr>().unwrap()
    });

    // Where another inetd could be, with its ports the other way round.
    let like = UdpSocket::bind(("127.0.0.2", daytime.port())).unwrap();
    like.send_to(b"ping", echo).unwrap();
    like.send_to(b"ping", daytime).unwrap();
    // From the port of SSDP, above those that only the system may use.
    let reflector = UdpSocket::bind("127.0.0.3:1900").unwrap();
    reflector.send_to(b"ping", echo).unwrap();
    reflector.send_to(b"ping", daytime).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for server in [echo, daytime] {
        client.send_to(b"whatever", server).unwrap();
        client.recv_from(&mut [0; 64]).unwrap();
    }
    program.signal("INT");
    let ended = program.finish();
    let total = "received 3: replied 1, silent 0, dropped 2";
    assert_eq!(ended.stderr.matches(total).count(), 2, "{ended:?}");
    for reason in ["from a port of our own", "reflector port"] {
        assert_eq!(ended.stderr.matches(reason).count(), 2, "{ended:?}");
    }
    for name in ["echo", "daytime"] {
        let limit = format!(
            "{name}: giving each network prefix 100 answers, and 64 KiB, a second at most\n"
        );
        assert!(ended.stderr.contains(&limit), "{ended:?}");
    }
}

#[test]
fn services_for_everyone_are_limited() {
    for (addr, limited) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let mut program = Program::start(example("stun").arg(addr));
        program.wait_for_stderr("listening on ");
        program.signal("INT");
        let ended = program.finish();
        assert_eq!(
            ended
                .stderr
                .contains("giving each network prefix 100 answers, and 64 KiB, a second at most\n"),
            limited,
            "{ended:?}"
        );
    }
}

#[test]
#[ignore = "needs rdate"]
fn rdate_reads_the_time_by_sntp() {
    let (_server, port) = server("sntp");
    prints_the_time("%a %b %e %H:%M:%S UTC %Y\n", || {
        output("rdate", &["-n", "-p", "-o", &port, "127.0.0.1"], "")
    });
}

#[test]
#[ignore = "needs chronyd"]
fn chronyd_takes_sntp_for_a_source() {
    let (_server, port) = server("sntp");
    let source = format!("server 127.0.0.1 port {port} iburst maxsamples 1");
    let ended = run("/usr/sbin/chronyd", &["-Q", "-t", "30", &source], "");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let (_, offset) = ended.stderr.split_once("System clock wrong by ").unwrap();
    let (seconds, ignored) = offset.split_once(" seconds").unwrap();
    assert!(ignored.starts_with(" (ignored)"));
    // It is the same clock.
    assert!(seconds.parse::<f64>().unwrap().abs() < 1.0, "{seconds}");
}

/// What `dig` prints of a response: status and flags, and the sections without the additional one.
fn dig(port: &str, question: &str) -> String {
    let mut arguments = vec![
        "@127.0.0.1",
        "-p",
        port,
        "+ignore",
        "+tries=3",
        "+timeout=5",
    ];
    arguments.extend(["+nocmd", "+nostats", "+noadditional"]);
    arguments.extend(question.split(' '));
    let printed = output("dig", &arguments, "");
    let kept = printed
        .lines()
        .filter_map(|line| match line.split_once(", id: ") {
            Some((status, _)) => Some(status),
            // NSD leaves additional records out in other cases than Knot and we do.
            None if line.starts_with(";; flags") => {
                line.split_once(", ADDITIONAL").map(|(kept, _)| kept)
            }
            None if line.starts_with("; EDE: ") => None,
            None => Some(line),
        });
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs dig"]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn dig_prints_what_the_zone_says() {
    let (_server, port) = server("dns");
    let short = |question: &str| {
        let arguments = ["@127.0.0.1", "-p", &port, "+short", "+ignore"].into_iter();
        output(
            "dig",
            &arguments.chain(question.split(' ')).collect::<Vec<_>>(),
            "",
        )
    };
    assert_eq!(short("www.example.org A"), "192.0.2.80\n192.0.2.81\n");
    assert_eq!(short("www.example.org AAAA"), "2001:db8::80\n");
    assert_eq!(
        short("web.example.org A"),
        "www.example.org.\n192.0.2.80\n192.0.2.81\n"
    );
    assert_eq!(
        short("example.org MX"),
        "10 mail.example.org.\n20 mail.example.net.\n"
    );
    assert_eq!(
        short("text.example.org TXT"),
        "\"one string\" \"and another\" \"\\\"quoted\\\", \\\\ and \\228\\189\\160\"\n"
    );
    assert_eq!(short("whoami. A"), "127.0.0.1\n");
    assert_eq!(short("WhoAmI.example.com A"), "127.0.0.1\n");
    assert_eq!(short("whoami. AAAA"), "");
    assert_eq!(
        short("whoami. SOA"),
        "whoami. nobody.invalid. 1 3600 1200 604800 0\n"
    );
    let own = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        short(&format!("whoami. TXT -b 127.0.0.1#{own}")),
        format!("\"127.0.0.1:{own}\"\n")
    );

    for (question, status, flags) in [
        (
            "www.example.org A",
            "QUERY, status: NOERROR",
            "qr aa rd; QUERY: 1, ANSWER: 2, AUTHORITY: 0",
        ),
        (
            "www.example.org MX",
            "QUERY, status: NOERROR",
            "qr aa rd; QUERY: 1, ANSWER: 0, AUTHORITY: 1",
        ),
        (
            "no.example.org A",
            "QUERY, status: NXDOMAIN",
            "qr aa rd; QUERY: 1, ANSWER: 0, AUTHORITY: 1",
        ),
        (
            "whoami.example.org AAAA",
            "QUERY, status: NOERROR",
            "qr aa rd; QUERY: 1, ANSWER: 0, AUTHORITY: 1",
        ),
        (
            "x.whoami.example.com ANY +notcp",
            "QUERY, status: NXDOMAIN",
            "qr aa rd; QUERY: 1, ANSWER: 0, AUTHORITY: 1",
        ),
        (
            "example.org A +header-only",
            "QUERY, status: FORMERR",
            "qr rd; QUERY: 0, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "example.com A",
            "QUERY, status: REFUSED",
            "qr rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "version.bind TXT CH",
            "QUERY, status: REFUSED",
            "qr rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "example.org A +opcode=status",
            "STATUS, status: NOTIMP",
            "qr rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "example.org A +opcode=notify",
            "NOTIFY, status: NOTIMP",
            "qr rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "example.org A +edns=1 +noednsneg",
            "QUERY, status: BADVERS",
            "qr rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "large.example.org TXT +noedns",
            "QUERY, status: NOERROR",
            "qr aa tc rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "large.example.org TXT +bufsize=600",
            "QUERY, status: NOERROR",
            "qr aa tc rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "large.example.org TXT +bufsize=1232",
            "QUERY, status: NOERROR",
            "qr aa rd; QUERY: 1, ANSWER: 5, AUTHORITY: 0",
        ),
        (
            "many.example.org A +bufsize=4096",
            "QUERY, status: NOERROR",
            "qr aa tc rd; QUERY: 1, ANSWER: 0, AUTHORITY: 0",
        ),
        (
            "www.example.org A +norec",
            "QUERY, status: NOERROR",
            "qr aa; QUERY: 1, ANSWER: 2, AUTHORITY: 0",
        ),
    ] {
        let printed = dig(&port, question);
        assert!(
            printed.contains(&format!("->>HEADER<<- opcode: {status}\n")),
            "{question}: {printed}"
        );
        assert!(
            printed.contains(&format!(";; flags: {flags}\n")),
            "{question}: {printed}"
        );
    }
}

#[test]
#[ignore = "needs kdig"]
fn kdig_prints_what_the_zone_says() {
    let (_server, port) = server("dns");
    let short = |question: &str| {
        let arguments = ["@127.0.0.1", "-p", &port, "+short", "+ignore"].into_iter();
        output(
            "kdig",
            &arguments.chain(question.split(' ')).collect::<Vec<_>>(),
            "",
        )
    };
    assert_eq!(short("www.example.org A"), "192.0.2.80\n192.0.2.81\n");
    assert_eq!(
        short("web.example.org AAAA"),
        "www.example.org.\n2001:db8::80\n"
    );
    assert_eq!(
        short("example.org NS"),
        "ns1.example.org.\nns2.example.org.\n"
    );
    assert_eq!(short("whoami. A"), "127.0.0.1\n");
    assert_eq!(short("many.example.org A +bufsize=4096"), "");
}

#[test]
#[ignore = "needs dnsperf"]
fn dnsperf_loses_nothing() {
    let (_server, port) = server("dns");
    let directory = Directory::new("dnsperf");
    let queries = directory.write(
        "queries",
        "www.example.org A\nno.example.org A\ntext.example.org TXT\nwww.example.com A\n",
    );
    let arguments = [
        "-s",
        "127.0.0.1",
        "-p",
        &port,
        "-n",
        "100",
        "-c",
        "8",
        "-d",
        &queries,
    ];
    let printed = output("dnsperf", &arguments, "");
    for line in [
        "  Queries sent:         400\n",
        "  Queries completed:    400 (100.00%)\n",
        "  Response codes:       NOERROR 200 (50.00%), NXDOMAIN 100 (25.00%), REFUSED 100 (25.00%)\n",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
}

/// A directory that is gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("rejoinder-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago, for a program that cannot say which it took.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A name server that serves a zone example.org, and answers.
struct NameServer {
    program: Program,
    port: u16,
    _directory: Directory,
}

impl NameServer {
    /// Starts one with the configuration that the race uses. It must answer before it is used, and
    /// another port is tried if this one was taken meanwhile.
    fn start(name: &str, program: &str, arguments: &[&str], zone: &[u8]) -> Self {
        for attempt in 0..3 {
            let port = free_port();
            let directory = Directory::new(&format!("{name}-{attempt}-{port}"));
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
            directory.write("example.org.zone", zone);
            let template = manifest.join(format!("../../benches/dns_race/{name}.conf"));
            let config = fs::read_to_string(template)
                .unwrap()
                .replace("@DIR@", directory.0.to_str().unwrap())
                .replace("@PORT@", &port.to_string());
            let config = directory.write("config", &config);
            let mut command = Command::new(program);
            command.args(arguments).arg("-c").arg(config);
            let server = Self {
                program: Program::start(&mut command),
                port,
                _directory: directory,
            };
            if server.answers() {
                return server;
            }
        }
        panic!("{program} did not begin to answer");
    }

    fn knot(zone: &[u8]) -> Self {
        Self::start("knot", "/usr/sbin/knotd", &[], zone)
    }

    fn nsd(zone: &[u8]) -> Self {
        Self::start("nsd", "/usr/sbin/nsd", &["-d"], zone)
    }

    fn answers(&self) -> bool {
        let started = Instant::now();
        let peer = SocketAddr::from(([127, 0, 0, 1], self.port));
        let name = Name::<Vec<u8>>::from_str("example.org").unwrap();
        while started.elapsed() < PATIENCE / 6 {
            let builder = Client::builder(Dns).timeout(Duration::from_millis(200));
            let mut client = builder
                .with_connector(UdpConnector::default(), peer)
                .unwrap();
            let query = question(name.as_slice(), Rtype::SOA);
            if client
                .request(query)
                .is_ok_and(|response| response.header().aa())
            {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // NSD has children, which end by a signal of their own and not when their parent is killed.
        self.program.signal("TERM");
        self.program.wait_until_ended();
    }
}

/// The zone that the example serves.
const EXAMPLE: &[u8] = include_bytes!("../src/dns/example.zone");

fn question(name: &[u8], rtype: Rtype) -> Query<'_> {
    Query {
        header: Header::new(),
        name,
        rtype,
        class: Class::IN,
        edns: None,
    }
}

#[test]
#[ignore = "needs dig, knotd and nsd"]
fn dig_prints_the_same_from_knot_nsd_and_us() {
    let (_server, port) = server("dns");
    let (knot, nsd) = (NameServer::knot(EXAMPLE), NameServer::nsd(EXAMPLE));
    let names = "example.org ns1.example.org ns2.example.org mail.example.org www.example.org \
                 web.example.org away.example.org text.example.org deep.down.in.example.org \
                 down.in.example.org in.example.org large.example.org many.example.org \
                 no.example.org a.b.example.org WWW.example.ORG example.com";
    let mut questions = String::new();
    for name in names.split_whitespace() {
        for rtype in ["A", "AAAA", "TXT", "CNAME", "NS", "SOA", "MX"] {
            for options in ["", "+noedns", "+bufsize=512", "+norec"] {
                writeln!(questions, "{name} {rtype} {options}").unwrap();
            }
        }
    }
    let directory = Directory::new("dig");
    let batch = format!("-f {}", directory.write("questions", &questions));
    let ours = dig(&port, &batch);
    assert_eq!(
        ours.matches("->>HEADER<<-").count(),
        questions.lines().count()
    );
    let theirs = [knot.port, nsd.port].map(|port| dig(&port.to_string(), &batch));
    assert_eq!(ours, theirs[0], "Knot");
    assert_eq!(ours, theirs[1], "NSD");
}

/// BIND writes the file in its own form, which Knot reads too: it takes no bytes above ASCII. NSD and the example
/// read the file as it is.
#[test]
#[ignore = "needs dig, knotd, named-compilezone (bind9-utils) and nsd"]
fn a_zone_as_people_write_it_is_the_same_to_bind_knot_nsd_and_us() {
    let written = include_bytes!("golden/written.zone");
    let directory = Directory::new("written");
    let path = directory.write("written", written);
    let compiled = directory.write("compiled", "");
    let arguments = ["-q", "-k", "ignore", "-i", "none", "-o", &compiled];
    let arguments = [&arguments[..], &["example.org", &path]].concat();
    output("named-compilezone", &arguments, "");
    let [ours, ours_of_bind] = [&path, &compiled].map(|zone| {
        let mut command = example("dns");
        start_server("127.0.0.1:0", command.args(["--zone", zone.as_str()]))
    });
    let knot = NameServer::knot(&fs::read(&compiled).unwrap());
    let nsd = NameServer::nsd(written);

    let mut questions = String::new();
    let rtypes = "SOA NS A TXT LOC SPF URI AFSDB KX RT LP SMIMEA DHCID TYPE65280 TYPE65281 TYPE65282 MX CNAME";
    let names = "latin utf8 control loc loc2 loc3 loc4 loc5 loc6 loc7 spf uri afsdb kx rt lp smimea dhcid unknown \
                 empty number address known class alias ns1";
    for name in names.split_whitespace() {
        for rtype in rtypes.split(' ') {
            writeln!(questions, "{name}.example.org {rtype} +unknownformat").unwrap();
        }
    }
    let batch = format!("-f {}", directory.write("questions", &questions));
    let asked = |port: u16| dig(&port.to_string(), &batch);
    let expected = asked(nsd.port);
    let answers = questions.lines().count();
    assert_eq!(expected.matches("status: NOERROR").count(), answers);
    // One answer for each name, and for the alias what it is an alias to, whatever the type is.
    let records = expected.matches("CLASS1\t").count();
    assert!(records > names.split_whitespace().count(), "{expected}");
    assert_eq!(asked(knot.port), expected, "Knot");
    assert_eq!(asked(ours.1.port()), expected, "NSD");
    assert_eq!(asked(ours_of_bind.1.port()), expected, "BIND");
}

/// Sends bytes, and waits for the response.
fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(request, ("127.0.0.1", port)).unwrap();
    let mut response = [0; 2_048];
    let len = socket.recv(&mut response).unwrap();
    response[..len].to_vec()
}

#[test]
#[ignore = "needs nsd"]
fn nsd_rejects_the_same_queries_with_the_same_bytes() {
    let (_server, port) = server("dns");
    let nsd = NameServer::nsd(EXAMPLE);
    let question = b"\x03www\x07example\x03org\0\0\x01\0\x01";
    let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0";
    let bytes = |counts: [u8; 4], parts: &[&[u8]]| {
        let counts = counts.map(|count| [0, count]).concat();
        [&b"\x12\x34\x01\0"[..], &counts, &parts.concat()].concat()
    };
    let (one, one_and_opt) = ([1, 0, 0, 0], [1, 0, 0, 1]);
    for bad in [
        // No question, half of one, a label of 64 bytes, a reserved kind of label, a pointer to itself.
        bytes([0; 4], &[]),
        bytes(one, &[&question[..9]]),
        bytes(one, &[b"\x40", &[b'a'; 64], b"\0\0\x01\0\x01"]),
        bytes(one, &[b"\x80\0\0\x01\0\x01"]),
        bytes(one, &[b"\xc0\x0c\0\x01\0\x01"]),
        // More records than there are; an address of 3 bytes.
        bytes([1, 1, 0, 0], &[question]),
        bytes(one_and_opt, &[question]),
        bytes(one_and_opt, &[question, b"\0\0\x01\0\x01\0\0\0\0\0\x03abc"]),
        // OPT: two, with a name, in the answer section, with an option that is longer than the record.
        bytes([1, 0, 0, 2], &[question, opt, b"\0", opt, b"\0"]),
        bytes(one_and_opt, &[question, b"\x01x", opt, b"\0"]),
        bytes([1, 1, 0, 0], &[question, opt, b"\0"]),
        bytes(one_and_opt, &[question, opt, b"\x04\0\x0a\0\xff"]),
    ] {
        let response = exchange(port.parse().unwrap(), &bad);
        assert_eq!(response, b"\x12\x34\x81\x01\0\0\0\0\0\0\0\0", "{bad:02x?}");
        assert_eq!(response, exchange(nsd.port, &bad), "{bad:02x?}");
    }
}

/// Asks for names that are there and names that are not, many at a time.
fn asks_many_at_once(server: &NameServer) {
    let peer = SocketAddr::from(([127, 0, 0, 1], server.port));
    let builder = Client::builder(Dns).window(256).timeout(PATIENCE);
    let mut client = builder
        .with_connector(UdpConnector::default(), peer)
        .unwrap();
    let name = |text: &str| Name::<Vec<u8>>::from_str(text).unwrap();
    let there = [
        ("ns1", [192, 0, 2, 53]),
        ("ns2", [198, 51, 100, 53]),
        ("mail", [192, 0, 2, 25]),
    ];

    let mut expected = HashMap::new();
    let (mut submitted, mut answered) = (0, 0);
    while answered < 5000 {
        // A result takes a place in the window until it is collected.
        while submitted < 5000 && expected.len() < 256 {
            let (text, address) = match there.get(submitted % 4) {
                Some((label, address)) => (format!("{label}.example.org"), Some(*address)),
                None => (format!("no{submitted}.example.org"), None),
            };
            let name = name(&text);
            let ticket = client.submit(question(name.as_slice(), Rtype::A)).unwrap();
            expected.insert(ticket, (name, address));
            submitted += 1;
        }
        let (ticket, response) = client.collect(Wait::Forever).unwrap();
        let response = response.unwrap();
        let (name, address) = expected.remove(&ticket).unwrap();
        assert_eq!(*response.sole_question().unwrap().qname(), name);
        let addresses: Vec<[u8; 4]> = response
            .answer()
            .unwrap()
            .limit_to::<A>()
            .map(|record| record.unwrap().data().addr().octets())
            .collect();
        assert_eq!(addresses, Vec::from_iter(address));
        let rcode = if address.is_some() {
            Rcode::NOERROR
        } else {
            Rcode::NXDOMAIN
        };
        assert_eq!(response.header().rcode(), rcode);
        answered += 1;
    }
    assert_eq!((client.in_flight(), expected.len()), (0, 0));
}

#[test]
#[ignore = "needs knotd"]
fn client_asks_knot_many_things_at_once() {
    asks_many_at_once(&NameServer::knot(EXAMPLE));
}

#[test]
#[ignore = "needs nsd"]
fn client_asks_nsd_many_things_at_once() {
    asks_many_at_once(&NameServer::nsd(EXAMPLE));
}

/// Runs libcoap's client against the example.
fn coap_client(arguments: &[&str], port: &str, path: &str) -> Ended {
    let url = format!("coap://127.0.0.1:{port}{path}");
    let arguments: Vec<&str> = arguments
        .iter()
        .copied()
        .chain(["-B", "30", &url])
        .collect();
    run("coap-client-notls", &arguments, "")
}

#[test]
#[ignore = "needs coap-client-notls (libcoap3-bin)"]
fn coap_client_asks_the_robot() {
    let (server, port) = server("coap");
    let good = "【机器人】小Zurich 好!\n";
    let too_much = format!("你{}吗？", "我".repeat(304));
    let known = "</zurich>;ct=0;title=\"POST a text, or GET ?q=TEXT\"\n";
    for (arguments, path, stdout, stderr) in [
        (&["-m", "post", "-e", "你好吗？"][..], "/zurich", good, ""),
        (&["-N", "-m", "post", "-e", "你好吗？"], "/zurich", good, ""),
        (
            &["-m", "post", "-t", "0", "-A", "0", "-e", "你好吗？"],
            "/zurich",
            good,
            "",
        ),
        (&[], "/zurich?q=你好吗？", good, ""),
        (&[], "/.well-known/core", known, ""),
        // The first datagram is lost, and sent again.
        (
            &["-l", "1", "-m", "post", "-e", "你好吗？"],
            "/zurich",
            good,
            "",
        ),
        (
            &["-m", "post", "-e", &too_much],
            "/zurich",
            "",
            "5.00 the answer is too long\n",
        ),
        (&[], "/zurich", "", "4.00 ask with ?q=TEXT\n"),
        (&["-O", "9,x"], "/zurich", "", "4.02 option 9\n"),
        (&[], "/elsewhere", "", "4.04\n"),
        (&["-m", "delete"], "/zurich", "", "4.05\n"),
        (&["-A", "60"], "/zurich?q=x", "", "4.06\n"),
        (
            &["-m", "post", "-t", "60", "-e", "x"],
            "/zurich",
            "",
            "4.15\n",
        ),
    ] {
        let ended = coap_client(arguments, &port, path);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(
            (ended.stdout.trim_end(), ended.stderr.trim_end()),
            (stdout.trim_end(), stderr.trim_end()),
            "{arguments:?} {path}"
        );
    }
    server.signal("INT");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(
        ended
            .stderr
            .contains("received 13: replied 13, silent 0, dropped 0"),
        "{ended:?}"
    );
}

/// Stands between a client and a server, and keeps the first answer to itself. Returns all answers.
fn loses_the_first_answer(server: SocketAddr) -> (SocketAddr, thread::JoinHandle<Vec<Vec<u8>>>) {
    let [front, back] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for socket in [&front, &back] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    back.connect(server).unwrap();
    let addr = front.local_addr().unwrap();
    let between = thread::spawn(move || {
        let mut buffer = [0; 2_048];
        let mut answers = Vec::new();
        for is_lost in [true, false] {
            let (len, client) = front.recv_from(&mut buffer).unwrap();
            back.send(&buffer[..len]).unwrap();
            let len = back.recv(&mut buffer).unwrap();
            answers.push(buffer[..len].to_vec());
            if !is_lost {
                front.send_to(&buffer[..len], client).unwrap();
            }
        }
        answers
    });
    (addr, between)
}

#[test]
#[ignore = "needs coap-client-notls (libcoap3-bin)"]
fn a_retransmission_of_coap_client_gets_the_stored_answer() {
    let (server, port) = server("coap");
    let (between, answers) = loses_the_first_answer(format!("127.0.0.1:{port}").parse().unwrap());
    let arguments = ["-m", "post", "-e", "你好吗？"];
    let ended = coap_client(&arguments, &between.port().to_string(), "/zurich");
    assert_eq!(ended.stdout, "【机器人】小Zurich 好!\n", "{ended:?}");
    let answers = answers.join().unwrap();
    assert_eq!(answers[0], answers[1]);
    server.signal("INT");
    let ended = server.finish();
    assert!(ended.stderr.contains("received 2: replied 2"), "{ended:?}");
}

#[test]
#[ignore = "needs coap-server-notls (libcoap3-bin)"]
fn client_asks_a_coap_server_many_things_at_once() {
    let port = free_port().to_string();
    // Every tenth of its datagrams is lost.
    let mut command = Command::new("coap-server-notls");
    command.args(["-A", "127.0.0.1", "-p", &port, "-l", "10%"]);
    let _server = Program::start(&mut command);

    let peer: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let mut client: Client<UdpConnector, Coap> = Client::builder(Coap)
        .timeout(PATIENCE)
        .with_connector(UdpConnector::default(), peer)
        .unwrap();
    let get = |path: &str| {
        let mut request = Packet::new();
        request.header.code = MessageClass::Request(RequestType::Get);
        request.add_option(CoapOption::UriPath, path.as_bytes().to_vec());
        request
    };
    let mut expected = HashMap::new();
    for number in 0..32 {
        let (path, code) = match number % 2 {
            0 => ("time", ResponseType::Content),
            _ => ("nowhere", ResponseType::NotFound),
        };
        expected.insert(client.submit(get(path)).unwrap(), code);
    }
    while let Some((ticket, response)) = client.collect(Wait::Forever) {
        let code = expected.remove(&ticket).unwrap();
        assert_eq!(response.unwrap().header.code, MessageClass::Response(code));
    }
    assert!(expected.is_empty());
}

#[test]
#[ignore = "needs turnutils_stunclient (coturn)"]
fn stunclient_learns_its_address() {
    let (server, port) = server("stun");
    let printed = output("turnutils_stunclient", &["-p", &port, "127.0.0.1"], "");
    let prefix = "UDP reflexive addr: 127.0.0.1:";
    let ports: Vec<u16> = printed
        .lines()
        .filter_map(|line| line.split_once(prefix)?.1.parse().ok())
        .collect();
    assert!(
        !ports.is_empty() && ports.iter().all(|port| *port == ports[0] && *port != 0),
        "{printed}"
    );
    server.signal("INT");
    let ended = server.finish();
    assert!(ended.stderr.contains("silent 0, dropped 0"), "{ended:?}");
}

/// memcached on a free port, with UDP and a value of 1 MB.
struct Cache {
    program: Program,
    addr: SocketAddr,
    value: Vec<u8>,
}

impl Cache {
    fn start() -> Self {
        let value: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
        let port = free_port();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let port = port.to_string();
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-p", &port, "-U", &port]);
        // It serves no values of more than 1 MiB, header included, unless it is allowed; and does not run as root.
        command.args(["-I", "2m", "-u", "nobody"]);
        let program = Program::start(&mut command);
        let begun = Instant::now();
        let mut tcp = loop {
            match TcpStream::connect(addr) {
                Ok(tcp) => break tcp,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        // No request by UDP has so many bytes.
        write!(tcp, "set big 7 0 {}\r\n", value.len()).unwrap();
        tcp.write_all(&value).unwrap();
        tcp.write_all(b"\r\n").unwrap();
        let mut stored = [0; 8];
        tcp.read_exact(&mut stored).unwrap();
        assert_eq!(&stored, b"STORED\r\n");
        Self {
            program,
            addr,
            value,
        }
    }
}

#[test]
#[ignore = "needs memcached"]
fn client_reads_a_megabyte_from_memcached() {
    let cache = Cache::start();
    let big = Request::Get { key: b"big" };
    let expected = Response::Value {
        key: b"big",
        flags: 7,
        data: &cache.value,
    };
    let mut client = Client::connect(cache.addr, Memcached).unwrap();
    for _ in 0..20 {
        let response = client.request(big).unwrap();
        assert!(response == expected, "another value");
    }

    // 754 datagrams; the kernel drops most of them where there is no room.
    let builder = Client::builder(Memcached)
        .timeout(Duration::from_secs(2))
        .udp_options(UdpOptions::new().receive_buffer_bytes(4_096));
    match builder.connect(cache.addr).unwrap().request(big) {
        Ok(response) => assert!(response == expected, "another value"),
        Err(RequestError::Incomplete {
            received,
            total,
            missing,
            ..
        }) => {
            assert_eq!(total, 754);
            assert_eq!(received + missing.into_iter().flatten().count(), total);
        }
        Err(error) => panic!("{error}"),
    }

    // Not so many as it has.
    let builder = Client::builder(Memcached)
        .timeout(Duration::from_millis(500))
        .max_response(700, 2 << 20);
    let mut client = builder.connect(cache.addr).unwrap();
    let error = client.request(big);
    assert!(
        matches!(error, Err(RequestError::Malformed { .. })),
        "{error:?}"
    );
    cache.program.signal("TERM");
}

#[test]
#[ignore = "needs memcached"]
fn memcached_stores_what_the_client_sends_and_says_what_it_refuses() {
    let cache = Cache::start();
    let mut client = Client::connect(cache.addr, Memcached).unwrap();
    let key = b"greeting";
    assert_eq!(
        client.request(Request::Get { key }).unwrap(),
        Response::NotFound
    );
    let data = "你好\r\nEND\r\n".as_bytes();
    for (flags, expires, data) in [(0, 0, data), (u32::MAX, 3_600, &cache.value[..1_200])] {
        let set = Request::Set {
            key,
            flags,
            expires,
            data,
        };
        assert_eq!(client.request(set).unwrap(), Response::Stored);
        let value = Response::Value { key, flags, data };
        assert_eq!(client.request(Request::Get { key }).unwrap(), value);
    }
    // The program for people.
    let addr = cache.addr.to_string();
    let ask = |arguments: &[&str]| {
        let mut command = example("ask_memcached");
        Program::start(command.arg(&addr).args(arguments)).finish()
    };
    assert_eq!(ask(&["set", "name", "Zürich"]).stdout, "stored\n");
    assert_eq!(ask(&["get", "name"]).stdout, "Zürich");
    let none = ask(&["get", "none"]);
    assert_eq!((none.code(), none.stdout.as_str()), (Some(1), ""));
    assert!(none.stderr.contains("the key has no value"), "{none:?}");
    cache.program.signal("TERM");
}

#[test]
fn every_program_says_what_it_wants_and_what_it_got() {
    for name in ["inetd", "sntp", "dns", "coap", "stun"] {
        let ended = Program::start(example(name).arg("--help")).finish();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains(&format!("Usage: {name} [")));

        let ended = Program::start(example(name).arg("--no-such-option")).finish();
        assert_eq!(ended.code(), Some(2));
        assert_eq!(
            ended.stderr,
            "error: unexpected argument '--no-such-option' found; see --help\n"
        );

        let option = if name == "inetd" {
            vec!["--echo"]
        } else {
            vec![]
        };
        let ended = Program::start(example(name).args(&option).arg("127.0.0.1:x")).finish();
        assert_eq!(
            (ended.code(), ended.stderr.lines().count()),
            (Some(2), 1),
            "{ended:?}"
        );
        assert!(ended.stderr.starts_with("error: bad address `127.0.0.1:x`"));

        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let ended = Program::start(example(name).args(&option).arg(&addr)).finish();
        assert_eq!(
            (ended.code(), ended.stderr.lines().count()),
            (Some(1), 1),
            "{ended:?}"
        );
        assert!(
            ended
                .stderr
                .starts_with(&format!("error: cannot listen on {addr}: "))
        );
    }
    // A device has no end, and a directory no bytes.
    for (file, problem) in [
        ("/no/such/file", "No such file"),
        ("/dev/zero", "it is no regular file"),
        ("/", "it is no regular file"),
    ] {
        let ended = Program::start(example("dns").args(["--zone", file])).finish();
        assert_eq!(ended.code(), Some(1));
        let line = format!("error: --zone {file}: {problem}");
        assert!(ended.stderr.starts_with(&line), "{ended:?}");
    }
}

#[test]
fn quiet_programs_print_nothing_and_end_on_a_signal() {
    for name in ["sntp", "dns", "coap", "stun"] {
        let port = free_port();
        let program = Program::start(example(name).args([&format!("127.0.0.1:{port}"), "--quiet"]));
        // It has begun once it holds the port.
        let started = Instant::now();
        while UdpSocket::bind(("127.0.0.1", port)).is_ok() && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        program.signal("TERM");
        let ended = program.finish();
        assert_eq!(
            (ended.code(), ended.stdout.as_str(), ended.stderr.as_str()),
            (Some(0), "", "")
        );
    }
}

#[test]
fn our_clients_ask_our_servers() {
    let asked = |name: &str, arguments: &[&str]| {
        let (_server, port) = server(name);
        let mut client = example(&format!("ask_{name}"));
        client.arg(format!("127.0.0.1:{port}")).args(arguments);
        let ended = Program::start(&mut client).finish();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        ended.stdout
    };
    let dns = asked("dns", &["www.example.org", "A"]);
    assert!(
        dns.starts_with("NOERROR\n") && dns.contains(" IN A "),
        "{dns}"
    );
    assert_eq!(
        asked("coap", &["你好吗？"]),
        "2.04 【机器人】小Zurich 好!\n"
    );
    assert!(asked("stun", &[]).starts_with("127.0.0.1:"));
    let sntp = asked("sntp", &[]);
    assert!(sntp.starts_with("stratum 10\n"), "{sntp}");
    assert!(
        ["0 s", "1 s"]
            .iter()
            .any(|apart| sntp.contains(&format!(", {apart} from the time here"))),
        "{sntp}"
    );
}

/// What a service manager opens is served, and a hangup ends no service.
#[test]
fn services_take_sockets_and_heed_signals() {
    for (name, sockets) in [
        ("dns", &["udp:127.0.0.1"][..]),
        ("coap", &["udp:127.0.0.1", "udp:127.0.0.1"]),
        ("stun", &["udp:127.0.0.1"]),
        ("sntp", &["udp:127.0.0.1"]),
        (
            "inetd",
            &[
                "udp:127.0.0.1",
                "udp:127.0.0.2",
                "udp:127.0.0.3",
                "udp:127.0.0.4",
            ],
        ),
    ] {
        let mut command = python("activate.py");
        command.args(sockets).arg("--").args(words(&example(name)));
        let mut program = Program::start(&mut command);
        let prefix = if name == "inetd" { "qotd: " } else { "" };
        let line = program.wait_for_stderr(&format!("{prefix}listening on "));
        // A socket each for the services of inetd, and all of them for one service.
        let expected = if name == "inetd" {
            "127.0.0.4:"
        } else {
            "127.0.0.1:"
        };
        assert_eq!(
            line.matches(expected).count(),
            if name == "coap" { 2 } else { 1 },
            "{line}"
        );
        program.signal("HUP");
        program.wait_for_stderr("nothing to read again");
        program.signal("USR1");
        program.wait_for_stderr(&format!("{prefix}received 0: "));
        program.signal("TERM");
        assert_eq!(program.finish().code(), Some(0));
    }
}

#[test]
fn a_hangup_has_the_zone_read_again_and_a_bad_one_changes_nothing() {
    let directory = Directory::new(&format!("reload-{}", process::id()));
    let zone = |address: &str| {
        let text = format!(
            "\u{feff}$TTL 1h\r\nexample.org. SOA ns.example.org. root.example.org. 1 3H 1H 1W 1H\r\nexample.org. NS ns.example.org.\r\n\
             www.example.org. 1d A {address}"
        );
        directory.write("example.org.zone", &text)
    };
    let path = zone("192.0.2.1");
    let mut command = example("dns");
    command.arg("--zone").arg(&path);
    let (mut server, addr) = start_server("127.0.0.1:0", &mut command);
    let asked = || {
        let mut client = example("ask_dns");
        client.args([&addr.to_string(), "www.example.org", "A"]);
        Program::start(&mut client).finish().stdout
    };
    assert!(asked().contains("192.0.2.1"), "{}", asked());
    zone("192.0.2.2\nwww.example.org. 2d A 192.0.2.3 ; Müller");
    server.signal("HUP");
    let warning = server.wait_for_stderr("warning: --zone ");
    let expected = "line 5: www.example.org A: TTLs of 86400 and 172800, of which the whole set gets the lowest";
    assert!(warning.contains(expected), "{warning}");
    server.wait_for_stderr("answering from ");
    assert!(asked().contains("192.0.2.2"), "{}", asked());
    zone("no address");
    server.signal("HUP");
    server.wait_for_stderr("answering from the zone of before");
    assert!(asked().contains("192.0.2.2"), "{}", asked());
}
