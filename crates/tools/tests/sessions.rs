//! The example with state per peer: bounded, with a lifetime, and counting each request once.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use allocation_counter::measure;
#[cfg(unix)]
use std::process::Command;

use proptest::prelude::*;
use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, Script, SimNet};
use rejoinder::transport::{Inbox, LocalPort, Meta, Outbox};
use rejoinder::{Client, Codec, Timestamp, Writer};
use rejoinder_test_support::process::{Program, start_server};
use rejoinder_tools::sessions::Acquaintance;
use rejoinder_tools::sessions::codec::{Conversation, Turn};
use rejoinder_tools::sessions::table::Sessions;

/// The program with one of its commands.
fn tool(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rejoinder"));
    program.arg(command);
    program
}

const LIFETIME: Duration = Duration::from_secs(600);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 8889);

type Peer = Client<SimNet, Tagged<Text>>;

/// A network with the robot on it.
fn network(net: SimNet, peers: usize) -> (SimNet, Acquaintance) {
    let robot = Acquaintance::new(peers, LIFETIME);
    let core = ServerCore::new(Conversation, robot.clone().once(peers));
    net.host(SERVER, core).unwrap();
    (net, robot)
}

fn peer(net: &SimNet) -> Peer {
    // A session is known by its port.
    Client::builder(Tagged(Text))
        .local_port(LocalPort::Kept)
        .with_connector(net.clone(), SERVER)
        .unwrap()
}

fn say(peer: &mut Peer, text: &str) -> String {
    peer.request(text).unwrap().to_owned()
}

#[test]
fn each_peer_is_known_by_its_own_name_and_count() {
    let (net, robot) = network(SimNet::new(), 10);
    let (mut ming, mut hong) = (peer(&net), peer(&net));
    assert_eq!(say(&mut ming, "我是谁？"), "我还不知道。你叫什么？");
    assert_eq!(say(&mut ming, "我叫小明。"), "你好，小明！很高兴认识你。");
    assert_eq!(say(&mut hong, "我叫小红"), "你好，小红！很高兴认识你。");
    assert_eq!(say(&mut ming, "我是谁？"), "你是小明，我记得。");
    assert_eq!(say(&mut ming, "天气真好"), "小明，这是你说的第 4 句话。");
    assert_eq!(say(&mut hong, "天气真好"), "小红，这是你说的第 2 句话。");
    assert_eq!(say(&mut ming, "我叫明明"), "原来你不叫小明，叫明明。");
    assert_eq!(say(&mut ming, "我叫明明"), "你是明明，我记得。");
    assert_eq!(say(&mut ming, "忘了我！"), "好，我什么都不记得了。");
    assert_eq!(say(&mut ming, "喂"), "这是你说的第 1 句话。你叫什么？");
    assert_eq!(say(&mut hong, "我叫什么？"), "你是小红，我记得。");
    assert_eq!(robot.count(), 2);
}

#[test]
fn a_name_is_never_longer_than_a_session_has_room_for() {
    let (net, _) = network(SimNet::new(), 10);
    let mut peer = peer(&net);
    let refusal = "名字要有 1 到 20 个字，我才记得住。";
    for name in ["", "  ", &"长".repeat(21), &"x".repeat(60_000)] {
        assert_eq!(say(&mut peer, &format!("我叫{name}")), refusal);
    }
    assert_eq!(say(&mut peer, "我是谁"), "我还不知道。你叫什么？");
    let longest = "长".repeat(20);
    let met = format!("你好，{longest}！很高兴认识你。");
    assert_eq!(say(&mut peer, &format!("我叫{longest}")), met);
}

#[test]
fn a_session_ends_when_its_lifetime_has_passed_in_silence() {
    let (net, robot) = network(SimNet::new(), 10);
    let mut peer = peer(&net);
    say(&mut peer, "我叫小明");
    // Whatever is said makes it last.
    for _ in 0..5 {
        net.advance(LIFETIME * 9 / 10);
        assert_eq!(say(&mut peer, "我是谁"), "你是小明，我记得。");
    }
    net.advance(LIFETIME);
    assert_eq!(say(&mut peer, "我是谁"), "我还不知道。你叫什么？");

    // Expired sessions are found when the next peer is looked up.
    let mut others: Vec<_> = (0..5).map(|_| self::peer(&net)).collect();
    for other in &mut others {
        say(other, "我叫小红");
    }
    assert_eq!(robot.count(), 6);
    net.advance(LIFETIME);
    say(&mut peer, "喂");
    assert_eq!(robot.count(), 1);
}

#[test]
fn a_request_that_is_sent_again_is_heard_once() {
    // The client's first datagram arrives, and the answer to it does not.
    let script: Script = "2 lose".parse().unwrap();
    let (net, _) = network(SimNet::scripted(0, script), 10);
    let mut peer = peer(&net);
    assert_eq!(say(&mut peer, "喂"), "这是你说的第 1 句话。你叫什么？");
    // It was sent twice: two requests, one answer that was lost and one that was not.
    assert!(net.trace().total() >= 4);
    assert_eq!(say(&mut peer, "喂"), "这是你说的第 2 句话。你叫什么？");
}

#[test]
fn on_a_bad_network_everything_is_counted_once_all_the_same() {
    for seed in 0..20 {
        SimNet::seeded(seed).run(|net| {
            net.set_link(
                Link::new()
                    .loss(0.2)
                    .duplication(0.5)
                    .latency(Duration::from_millis(20))
                    .jitter(Duration::from_millis(30)),
            )
            .unwrap();
            let (net, _) = network(net.clone(), 10);
            let mut heard = 0;
            let mut peer = peer(&net);
            for _ in 0..30 {
                let Ok(answer) = peer.request("喂") else {
                    // Whether it arrived cannot be known: let it count anew.
                    while peer.request("忘了我").is_err() {}
                    heard = 0;
                    continue;
                };
                heard += 1;
                assert_eq!(answer, format!("这是你说的第 {heard} 句话。你叫什么？"));
            }
        });
    }
}

/// Sends a datagram into a core as if it came from `peer`, and returns the answer.
fn ask_as<H: rejoinder::Handler<Conversation>>(
    core: &mut ServerCore<Conversation, H>,
    batch: (&mut Inbox, &mut Outbox),
    peer: SocketAddr,
    turn: (u64, &str),
) -> String {
    let (inbox, outbox) = batch;
    let mut space = [0; 1_200];
    let mut datagram = Writer::new(&mut space);
    let (id, text) = turn;
    let request = Turn { id: [0; 8], text };
    Conversation
        .encode_request(id, request, &mut datagram)
        .unwrap();
    let len = datagram.finish().unwrap();
    inbox.push(&space[..len], Meta::new(peer));
    outbox.clear();
    core.handle(at(1), inbox, outbox);
    let answer = outbox.iter().next().unwrap().bytes;
    Conversation.decode_response(answer).unwrap().to_owned()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH)
}

#[test]
fn a_flood_of_forged_peers_neither_grows_the_table_nor_ends_the_service() {
    const CAPACITY: usize = 1_000;
    let robot = Acquaintance::new(CAPACITY, LIFETIME);
    let mut core = ServerCore::new(Conversation, robot.clone().once(CAPACITY));
    let (mut inbox, mut outbox) = (Inbox::new(1, 1_200), Outbox::new(16, 1_200));
    let mut ask = |peer, turn| ask_as(&mut core, (&mut inbox, &mut outbox), peer, turn);

    let honest = SocketAddr::from(([192, 0, 2, 1], 50_000));
    let mut flood = |from: u32, to: u32| {
        for forged in from..to {
            let ip = Ipv4Addr::from_bits(0x0a00_0000 | (forged / 1_000));
            let port = 10_000 + u16::try_from(forged % 1_000).unwrap();
            let answer = ask(
                SocketAddr::from((ip, port)),
                (u64::from(forged), "我叫黑客"),
            );
            assert_eq!(answer, "你好，黑客！很高兴认识你。");
            assert!(robot.count() <= CAPACITY);
            // An active peer is not evicted first.
            if forged % 500 == 0 {
                let turn = (u64::from(forged), "我叫小明");
                let answer = ask(honest, turn);
                assert!(answer.contains("小明"), "{answer}");
                assert_eq!(answer.contains("你好"), forged == 0, "{forged}: {answer}");
            }
        }
    };
    flood(0, 20_000);
    assert_eq!(robot.count(), CAPACITY);
    // By now everything has the size that it ever has.
    let grown = measure(|| flood(20_000, 100_001)).bytes_current;
    assert!(grown < 4_096, "{grown} bytes");
    assert_eq!(robot.count(), CAPACITY);
    // An evicted peer starts a new session.
    flood(100_001, 102_000);
    let first = SocketAddr::from(([10, 0, 0, 0], 10_001));
    assert_eq!(ask(first, (7, "我是谁")), "我还不知道。你叫什么？");
}

#[test]
fn a_handler_that_panics_leaves_the_table_in_order() {
    let sessions = Sessions::<u32>::new(2, LIFETIME);
    let peers = [1, 2, 3].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
    let panicked = std::panic::catch_unwind(|| {
        sessions.with(peers[0], at(0), |_| panic!("as a handler may"));
    });
    assert!(panicked.is_err());
    for peer in peers {
        sessions.with(peer, at(1), |count| *count += 1);
    }
    assert_eq!(sessions.count(), 2);
    assert_eq!(sessions.with(peers[2], at(2), |count| *count), 1);
}

proptest! {
    /// Against the same rules without an index.
    #[test]
    fn the_table_does_what_a_plain_list_would(
        capacity in 1_usize..6,
        steps in prop::collection::vec((0_u16..9, 0_u64..40), 1..200),
    ) {
        let lifetime = Duration::from_millis(100);
        let table = Sessions::<u32>::new(capacity, lifetime);
        // The one who was silent for longest comes first.
        let mut list: Vec<(SocketAddr, u32, Duration)> = Vec::new();
        let mut now = 0;
        for (peer, later) in steps {
            now += later;
            let peer = SocketAddr::from(([192, 0, 2, 1], 50_000 + peer));
            let time = Duration::from_millis(now);
            list.retain(|&(_, _, used)| time < used + lifetime);
            let at_peer = list.iter().position(|&(known, ..)| known == peer);
            let count = at_peer.map_or(0, |index| list.remove(index).1) + 1;
            list.push((peer, count, time));
            if list.len() > capacity {
                list.remove(0);
            }
            let counted = table.with(peer, at(now), |session| {
                *session += 1;
                *session
            });
            prop_assert_eq!(counted, count);
            prop_assert_eq!(table.count(), list.len());
        }
    }
}

#[test]
#[cfg(unix)]
fn a_conversation_that_cannot_be_says_why() {
    for (arguments, code, problem) in [
        (
            &["--talk", "nobody.invalid"][..],
            1,
            "no address for `nobody.invalid`: ",
        ),
        (&["--talk", ":1"], 2, "bad address `:1`: no host; write "),
        (&["--talk"], 2, "a value is required for '--talk <ADDRESS>'"),
        (
            &["--talk", "127.0.0.1", "--peers", "1"],
            2,
            "the argument '--talk <ADDRESS>' cannot be used with",
        ),
        (
            &["--peers", "1000001"],
            2,
            "--peers `1000001`: not a number from 1 to 1000000; see --help",
        ),
        (
            &["--lifetime", "0"],
            2,
            "--lifetime `0`: not a number from 1 to 31536000; see --help",
        ),
    ] {
        let ended = Program::start(tool("sessions").args(arguments)).finish();
        assert_eq!(ended.code(), Some(code), "{}", ended.stderr);
        let line = ended.stderr.strip_prefix("error: ").unwrap();
        assert!(line.starts_with(problem), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    // What is no text is not sent, and the conversation goes on.
    let (_server, address) = start_server("127.0.0.1:0", &mut tool("sessions"));
    let mut client = tool("sessions");
    client.args(["--talk", &address.to_string()]);
    let ended = Program::start_with_input(&mut client, b"\xff\nhello\n").finish();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.stdout, "这是你说的第 1 句话。你叫什么？\n");
    assert_eq!(
        ended.stderr,
        "error: not sent: line 1, column 1: not UTF-8\n"
    );
}

#[test]
#[cfg(unix)]
fn a_conversation_with_the_program() {
    let (server, address) = start_server("127.0.0.1:0", &mut tool("sessions"));
    let talk = |text: &str| {
        let mut client = tool("sessions");
        let client = client.args(["--talk", &address.to_string()]);
        let ended = Program::start_with_input(client, text.as_bytes()).finish();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        ended.stdout
    };
    assert_eq!(
        talk("我叫小明\n我是谁？\n再见\n"),
        "你好，小明！很高兴认识你。\n你是小明，我记得。\n小明，这是你说的第 3 句话。\n"
    );
    // Another socket is another peer.
    assert_eq!(talk("我是谁？"), "我还不知道。你叫什么？\n");
    server.signal("INT");
    let ended = server.finish();
    assert_eq!(ended.code(), Some(0));
    assert!(
        ended.stderr.contains("received 4: replied 4"),
        "{}",
        ended.stderr
    );
}
