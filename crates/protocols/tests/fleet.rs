//! Several name servers behind a balancer, which come and go while clients ask.
//!
//! The tests need outside programs, and are ignored unless asked for:
//! `cargo test -p rejoinder-protocols --test fleet -- --ignored`.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::{Class, Rtype};
use domain::base::{Header, Message, Name, ParsedName};
use domain::rdata::Txt;
use rejoinder::{Codec, Writer};
use rejoinder_protocols::dns::codec::{Dns, Query};
use rejoinder_test_support::fleet::{Clients, Tally};
use rejoinder_test_support::network::{Machine, at_home, in_own_net, sh};
use rejoinder_test_support::process::{PATIENCE, Program, example};
use rejoinder_test_support::scratch::Scratch;

/// Of each load.
const REQUESTS: u64 = 100_000;

/// Asks who asks.
fn whoami(number: u64) -> Vec<u8> {
    let name: Name<Vec<u8>> = Name::from_str("whoami.example.org").unwrap();
    let mut space = [0; 64];
    let mut out = Writer::new(&mut space);
    let query = Query {
        header: Header::new(),
        name: name.as_slice(),
        rtype: Rtype::TXT,
        class: Class::IN,
        edns: None,
    };
    Dns.encode_request(number, query, &mut out).unwrap();
    let len = out.finish().unwrap();
    space[..len].to_vec()
}

/// Whether it is the answer to that, and names the address that was asked from.
fn names_the_client(number: u64, client: SocketAddr, answer: &[u8]) -> bool {
    let Ok(message) = Message::from_octets(answer) else {
        return false;
    };
    let mut texts = message.answer().unwrap().limit_to::<Txt<_>>();
    let Some(Ok(record)) = texts.next() else {
        return false;
    };
    let _: &ParsedName<_> = record.owner();
    let text = record.data().text::<Vec<u8>>();
    u64::from(message.header().id()) == number & 0xffff && text == client.to_string().into_bytes()
}

/// A port that was free a moment ago, on one of the loopback addresses.
fn free(ip: &str) -> SocketAddr {
    let ip: IpAddr = ip.parse().unwrap();
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

fn node(addr: &str, args: &[&str]) -> Command {
    let mut command = example("dns");
    command.arg(addr).args(["--limit", "off"]).args(args);
    command
}

fn start(mut command: Command) -> Program {
    let mut node = Program::start(&mut command);
    node.wait_for_stderr("listening on ");
    node
}

fn ended_well(node: Program) {
    let ended = node.finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[expect(clippy::print_stderr, reason = "figures, for those who ask for them")]
fn report(what: &str, tally: &Tally) {
    eprintln!("{what}: {tally:?}");
}

// ---- dnsdist ----

#[test]
#[ignore = "needs dnsdist"]
fn dnsdist_in_front_of_two_nodes_one_of_which_is_replaced() {
    let (addr, nodes) = (free("127.0.0.1"), [free("127.0.0.11"), free("127.0.0.12")]);
    let config = include_str!("../../../contrib/dnsdist/dnsdist.conf");
    let mut config = config
        .replace("0.0.0.0:53\"", &format!("{addr}\""))
        .replace("addLocal", "-- addLocal");
    for (node, written) in nodes.iter().zip(["10.0.0.11:5300", "10.0.0.12:5300"]) {
        assert!(config.contains(&format!("\"{written}\"")));
        config = config.replace(&format!("\"{written}\""), &format!("\"{node}\""));
    }
    let scratch = Scratch::new();
    let path = scratch.file("dnsdist.conf", config);
    let behind = [
        "--proxied",
        "v2",
        "--proxies",
        "127.0.0.1",
        "--lame-duck",
        "5",
    ];
    let [first, second] = nodes
        .map(|node| self::node(&node.to_string(), &behind))
        .map(start);
    // It logs to standard output what becomes of the nodes.
    let line = "exec dnsdist --supervised --disable-syslog -C \"$0\" >&2";
    let mut dnsdist = Program::start(Command::new("sh").args(["-c", line, &path]));
    let mut marked = |node: SocketAddr, state: &str, nth| {
        dnsdist.wait_for_stderr_again(&format!("Marking downstream {node} as '{state}'"), nth)
    };
    marked(nodes[0], "up", 1);
    marked(nodes[1], "up", 1);

    let clients = |timeout| Clients {
        server: addr,
        from: (1..=8).map(|last| [127, 0, 2, last].into()).collect(),
        requests: REQUESTS,
        per_socket: 1_000,
        timeout,
        attempts: 20,
    };
    let mut again = None;
    let drained = clients(Duration::from_secs(5)).ask(whoami, names_the_client, |progress| {
        progress.wait_for(REQUESTS / 8);
        first.signal("TERM");
        marked(nodes[0], "down", 1);
        ended_well(first);
        again = Some(start(node(&nodes[0].to_string(), &behind)));
        marked(nodes[0], "up", 2);
        progress.wait_for(REQUESTS / 8);
    });
    report("dnsdist, a node is drained and replaced", &drained);
    assert_eq!((drained.wrong, drained.lost, drained.sent_again), (0, 0, 0));

    let mut back = None;
    let killed = clients(Duration::from_millis(500)).ask(whoami, names_the_client, |progress| {
        progress.wait_for(REQUESTS / 8);
        second.signal("KILL");
        marked(nodes[1], "down", 1);
        progress.wait_for(REQUESTS / 8);
        back = Some(start(node(&nodes[1].to_string(), &behind)));
        marked(nodes[1], "up", 2);
        progress.wait_for(REQUESTS / 8);
    });
    report("dnsdist, a node is killed and comes back", &killed);
    assert_eq!((killed.wrong, killed.lost), (0, 0));
}

#[test]
#[ignore = "needs kdig"]
fn kdig_speaks_for_any_client() {
    let behind = ["--proxied", "v2", "--proxies", "127.0.0.1"];
    let mut node = Program::start(&mut node("127.0.0.1:0", &behind));
    let addr = node.listening();
    let port = addr.port().to_string();
    let ask = |proxy: &[&str]| {
        let mut kdig = Command::new("kdig");
        kdig.args([
            "@127.0.0.1",
            "-p",
            &port,
            "+short",
            "+timeout=1",
            "+retry=0",
        ]);
        kdig.args(proxy).args(["whoami.example.org", "TXT"]);
        Program::start(&mut kdig).finish().stdout
    };
    for (proxy, client) in [
        ("192.0.2.7#5000-198.51.100.1#53", "\"192.0.2.7:5000\"\n"),
        (
            "2001:db8::7#5000-2001:db8::1#53",
            "\"[2001:db8::7]:5000\"\n",
        ),
    ] {
        assert_eq!(ask(&[&format!("+proxy={proxy}")]), client);
    }
    assert_eq!(ask(&[]), "");
    node.signal("TERM");
    let ended = node.finish();
    let counted = "received 3: replied 2, silent 0, dropped 1 (proxy header 1)";
    assert!(ended.stderr.contains(counted), "{}", ended.stderr);
}

// ---- DNAT, as kube-proxy does it ----

/// The rules of `contrib`, for other addresses.
fn for_these(rules: &str) -> String {
    let mut rules = rules.replace("192.0.2.1", VIP).replace("8888", "5300");
    for node in 1..=3 {
        let written = format!("10.0.0.1{node}");
        rules = rules.replace(&written, &format!("10.9.{node}.2"));
    }
    rules
}

/// The address of the service, which no machine has.
const VIP: &str = "10.96.0.1";

fn load_rules(rules: &str) {
    let ended = Program::start_with_input(Command::new("nft").args(["-f", "-"]), rules.as_bytes());
    let ended = ended.finish();
    assert_eq!(
        (ended.code(), ended.stderr.as_str()),
        (Some(0), ""),
        "{rules}"
    );
}

/// The rule that shares flows out among some of the three nodes.
fn share_out(nodes: &[u8]) {
    let mut map = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        map.push(format!("{index} : 10.9.{node}.2"));
    }
    let (count, map) = (nodes.len(), map.join(", "));
    load_rules(&format!(
        "flush chain ip rejoinder nodes\n\
         add rule ip rejoinder nodes dnat to numgen random mod {count} map {{ {map} }}\n"
    ));
}

/// Makes clients of a node that is gone move to others. Each retransmission would keep their flow there.
fn forget_flows_to(node: &str) {
    // One `conntrack -D` is not enough: it stops at the first entry that expired after it was listed.
    sh(&format!(
        "until [ -z \"$(conntrack -L -p udp --reply-src {node} 2>/dev/null)\" ]; do
             conntrack -D -p udp --reply-src {node} >/dev/null 2>&1 || :
         done"
    ));
}

#[test]
#[ignore = "needs nft and network namespaces"]
fn dnat_over_three_nodes_one_of_which_is_replaced() {
    let name = "dnat_over_three_nodes_one_of_which_is_replaced";
    in_own_net(name, || {
        // This is the gateway, with the clients on one cable and a node on each of three others.
        let clients = Machine::new("c0", "c1");
        sh("ip addr add 10.8.0.1/24 dev c0; sysctl -qw net.ipv4.ip_forward=1");
        clients.sh("ip addr add 10.8.0.2/24 dev c1; ip route add default via 10.8.0.1");
        let machines = [1, 2, 3].map(|node| {
            let machine = Machine::new(&format!("n{node}"), "eth0");
            sh(&format!("ip addr add 10.9.{node}.1/24 dev n{node}"));
            machine.sh(&format!(
                "ip addr add 10.9.{node}.2/24 dev eth0; ip route add default via 10.9.{node}.1"
            ));
            machine
        });
        load_rules(&for_these(include_str!(
            "../../../contrib/nftables/balancer.nft"
        )));
        // A flow without traffic is forgotten after a second, not after 30 or 120.
        for timeout in ["udp_timeout", "udp_timeout_stream"] {
            sh(&format!(
                "sysctl -qw net.netfilter.nf_conntrack_{timeout}=1"
            ));
        }
        let begin = |index: usize| {
            let addr = format!("10.9.{}.2:5300", index + 1);
            start(machines[index].command(&node(&addr, &["--lame-duck", "3"])))
        };
        let [first, second, _third] = [0, 1, 2].map(begin);

        let load = |timeout| Clients {
            server: format!("{VIP}:5300").parse().unwrap(),
            from: vec!["10.8.0.2".parse().unwrap(); 8],
            requests: REQUESTS,
            // Each flow is short, so none is left when a lame duck ends.
            per_socket: 50,
            timeout,
            attempts: 40,
        };
        let mut again = None;
        let drained = clients.run(|| {
            load(Duration::from_secs(5)).ask(whoami, names_the_client, |progress| {
                progress.wait_for(REQUESTS / 8);
                at_home(|| share_out(&[2, 3]));
                first.signal("TERM");
                ended_well(first);
                again = Some(begin(0));
                at_home(|| share_out(&[1, 2, 3]));
                progress.wait_for(REQUESTS / 8);
            })
        });
        report("DNAT, a node is drained and replaced", &drained);
        assert_eq!((drained.wrong, drained.lost, drained.sent_again), (0, 0, 0));

        // It outlives the clients: a flow that fell to it goes on there.
        let mut back = None;
        let killed = clients.run(|| {
            load(Duration::from_millis(500)).ask(whoami, names_the_client, |progress| {
                progress.wait_for(REQUESTS / 8);
                drop(second);
                at_home(|| share_out(&[1, 3]));
                at_home(|| forget_flows_to("10.9.2.2"));
                progress.wait_for(REQUESTS / 8);
                back = Some(begin(1));
                at_home(|| share_out(&[1, 2, 3]));
                progress.wait_for(REQUESTS / 8);
                at_home(|| share_out(&[1, 3]));
                progress.wait_for(REQUESTS / 8);
            })
        });
        report("DNAT, a node is killed and comes back", &killed);
        assert_eq!((killed.wrong, killed.lost), (0, 0));
    });
}

#[test]
#[ignore = "needs nft and network namespaces"]
fn nodes_do_without_connection_tracking() {
    in_own_net("nodes_do_without_connection_tracking", || {
        let client = Machine::new("c0", "c1");
        sh("ip addr add 10.9.1.1/24 dev c0");
        client.sh("ip addr add 10.9.1.2/24 dev c1");
        // Something must ask for it, or nothing is tracked.
        load_rules(
            "table ip tracked {\n\
             chain incoming { type filter hook prerouting priority 0; ct state new accept; }\n\
             }\n",
        );
        let _node = start(node("10.9.1.1:5300", &[]));
        let ask = || {
            client.run(|| {
                let socket = UdpSocket::bind("10.9.1.2:0").unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.connect("10.9.1.1:5300").unwrap();
                socket.send(&whoami(7)).unwrap();
                let mut buffer = [0; 200];
                let len = socket.recv(&mut buffer).unwrap();
                assert!(names_the_client(
                    7,
                    socket.local_addr().unwrap(),
                    &buffer[..len]
                ));
            });
        };
        let tracked = || {
            let shown = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
            shown.unwrap().trim().parse::<u32>().unwrap()
        };
        ask();
        let before = tracked();
        assert!(before > 0);
        load_rules(&for_these(include_str!(
            "../../../contrib/nftables/node.nft"
        )));
        ask();
        assert_eq!(tracked(), before);
    });
}
