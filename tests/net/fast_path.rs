//! The UDP transport: the same behaviour with every feature of the system and without.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rejoinder::transport::{Connect, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::udp::{UdpConnector, UdpFeature, UdpOptions, UdpTransport};
use rejoinder::{ConfigError, Transport, Wait};

const FEATURES: [UdpFeature; 6] = [
    UdpFeature::Recvmmsg,
    UdpFeature::Sendmmsg,
    UdpFeature::Gro,
    UdpFeature::Gso,
    UdpFeature::PacketInfo,
    UdpFeature::DropCount,
];

/// Everything, everything but one, one alone, and nothing.
fn all_options() -> impl Iterator<Item = UdpOptions> {
    let without = |left_out: &dyn Fn(UdpFeature) -> bool| {
        FEATURES
            .into_iter()
            .filter(|&feature| left_out(feature))
            .fold(UdpOptions::new(), UdpOptions::without)
    };
    let mut all = vec![UdpOptions::new(), UdpOptions::new().portable()];
    for feature in FEATURES {
        all.push(without(&|other| other == feature));
        all.push(without(&|other| other != feature));
    }
    all.into_iter()
}

/// A socket of the standard library that waits for at most ten seconds.
fn plain(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn outbox(datagrams: &[(SocketAddr, Option<IpAddr>, Vec<u8>)]) -> Outbox {
    let mut outbox = Outbox::new(datagrams.len(), MAX_DATAGRAM_BYTES + 10);
    for (peer, local, bytes) in datagrams {
        push(&mut outbox, *peer, *local, bytes);
    }
    outbox
}

fn push(outbox: &mut Outbox, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
    outbox.push(peer, local, bytes).unwrap();
}

/// All that arrives until `count` datagrams have.
fn receive(transport: &mut UdpTransport, inbox: &mut Inbox, count: usize) -> Vec<(Vec<u8>, Meta)> {
    let end = Instant::now() + LONG;
    let mut received = Vec::new();
    while received.len() < count {
        assert!(Instant::now() < end, "only {} came", received.len());
        transport.recv(inbox, Wait::For(LONG)).unwrap();
        while let Some(datagram) = inbox.pop() {
            received.push((datagram.bytes.to_vec(), datagram.meta));
        }
    }
    received
}

/// A datagram of `len` bytes that no other is like.
fn datagram(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), b'x');
    bytes.rotate_left(4);
    bytes.truncate(len);
    bytes
}

fn all_sent(sent: &SendReport, count: usize) {
    assert_eq!((sent.sent, sent.failed), (count, 0), "{sent:?}");
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn features_are_those_of_the_system_but_those_left_out() {
    let all = UdpTransport::bind("0.0.0.0:0").unwrap().features();
    for options in all_options() {
        let features = options.bind("0.0.0.0:0").unwrap().features();
        let mut used = FEATURES
            .into_iter()
            .filter(|&feature| features.contains(feature));
        assert!(used.all(|feature| all.contains(feature)));
    }
    for feature in FEATURES {
        let options = UdpOptions::new().without(feature);
        let features = options.bind("0.0.0.0:0").unwrap().features();
        assert!(!features.contains(feature));
        let others = FEATURES.into_iter().filter(|&other| other != feature);
        for other in others {
            assert_eq!(features.contains(other), all.contains(other));
        }
    }
    let portable = UdpOptions::new().portable().bind("0.0.0.0:0").unwrap();
    assert_eq!(portable.features().to_string(), "portable");
}

#[cfg(target_os = "linux")]
#[test]
fn linux_has_it_all() {
    let any = UdpTransport::bind("[::]:0").unwrap().features();
    assert_eq!(
        any.to_string(),
        "recvmmsg, sendmmsg, gro, gso, pktinfo, rxq_ovfl"
    );
    let one = UdpTransport::bind("127.0.0.1:0").unwrap().features();
    assert!(!one.contains(UdpFeature::PacketInfo));
}

#[test]
fn bursts_arrive_whole_and_in_order_whatever_the_two_sides_use() {
    // Equal ones, a shorter last one, empty ones among them, alternating ones, long ones, and more
    // than go into one message by number and by bytes.
    let mut lens = vec![40; 70];
    lens.extend([7, 0, 40, 0, 0, 40, 13, 40, 13, 40, 13, 1_200, 1_200, 1_000]);
    lens.extend([1; 140]);
    lens.extend([9_000; 9]);
    lens.extend([MAX_DATAGRAM_BYTES, 1, MAX_DATAGRAM_BYTES]);
    let sent: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(number, &len)| datagram(number, len))
        .collect();
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        for options in all_options() {
            for (from, to) in [
                (&options, &UdpOptions::new()),
                (&UdpOptions::new(), &options),
            ] {
                let mut from = from.bind(addr).unwrap();
                let mut to = to.bind(addr).unwrap();
                let peer = to.local_addr().unwrap();
                let mut inbox = Inbox::new(64, MAX_DATAGRAM_BYTES);
                let mut received = Vec::new();
                // In parts that fit into the smallest receive buffer.
                for part in sent.chunks(100) {
                    let part: Vec<_> = part
                        .iter()
                        .map(|bytes| (peer, None, bytes.clone()))
                        .collect();
                    all_sent(&from.send(&outbox(&part)), part.len());
                    received.extend(receive(&mut to, &mut inbox, part.len()));
                }
                let source = from.local_addr().unwrap();
                for ((bytes, meta), expected) in received.iter().zip(&sent) {
                    assert!(
                        bytes == expected,
                        "{} bytes for {}, {} to {}",
                        bytes.len(),
                        expected.len(),
                        from.features(),
                        to.features()
                    );
                    assert_eq!(meta.peer, source);
                    assert_eq!(meta.local, Some(peer.ip()));
                    assert!(!meta.truncated);
                }
                assert_eq!(received.len(), sent.len());
            }
        }
    }
}

#[test]
fn only_what_is_longer_than_the_limit_is_truncated_in_a_merged_burst_too() {
    for options in all_options() {
        let mut from = UdpTransport::bind("127.0.0.1:0").unwrap();
        let mut to = options.bind("127.0.0.1:0").unwrap();
        let peer = to.local_addr().unwrap();
        let lens = [
            100, 100, 100, 101, 101, 101, 99, 5_000, 5_000, 20, 60_000, 100,
        ];
        let datagrams: Vec<_> = lens
            .iter()
            .map(|&len| (peer, None, datagram(1, len)))
            .collect();
        all_sent(&from.send(&outbox(&datagrams)), lens.len());
        let received = receive(&mut to, &mut Inbox::new(3, 100), lens.len());
        for ((bytes, meta), len) in received.iter().zip(lens) {
            assert_eq!(meta.truncated, len > 100, "{len} bytes, {}", to.features());
            assert!(meta.truncated || bytes.len() == len);
        }
    }
}

#[test]
fn replies_to_many_peers_keep_the_order_of_each() {
    for options in all_options() {
        let mut from = options.bind("127.0.0.1:0").unwrap();
        let peers: Vec<_> = (0..20).map(|_| plain("127.0.0.1:0")).collect();
        let datagrams: Vec<_> = (0..200)
            .map(|number| {
                let peer = peers[number * 7 % peers.len()].local_addr().unwrap();
                (peer, None, datagram(number, [40, 40, 40, 24][number % 4]))
            })
            .collect();
        all_sent(&from.send(&outbox(&datagrams)), datagrams.len());
        for peer in &peers {
            let addr = peer.local_addr().unwrap();
            for (_, _, expected) in datagrams.iter().filter(|datagram| datagram.0 == addr) {
                let mut buffer = [0; 100];
                let len = peer.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..len], expected[..]);
            }
        }
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_holds_up_no_other() {
    for options in all_options() {
        let mut from = options.bind("127.0.0.1:0").unwrap();
        let to = plain("127.0.0.1:0");
        let peer = to.local_addr().unwrap();
        // An IPv4 socket cannot reach IPv6; nothing is as long as that.
        let unreachable = "[2001:db8::1]:7".parse().unwrap();
        let too_long = vec![0; MAX_DATAGRAM_BYTES + 1];
        let mut datagrams = vec![(unreachable, None, vec![0; 10])];
        for number in 0..10 {
            datagrams.push((peer, None, datagram(number, 40)));
            datagrams.push((unreachable, None, vec![0; 40]));
            if number == 5 {
                datagrams.push((peer, None, too_long.clone()));
            }
        }
        let sent = from.send(&outbox(&datagrams));
        assert_eq!((sent.sent, sent.failed), (10, 12));
        assert!(sent.last_error.is_some());
        for number in 0..10 {
            let mut buffer = [0; 100];
            let len = to.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], datagram(number, 40));
        }
    }
}

#[test]
fn a_connected_transport_sends_to_its_peer_alone() {
    for options in all_options() {
        let to = plain("127.0.0.1:0");
        let peer = to.local_addr().unwrap();
        let stranger = plain("127.0.0.1:0").local_addr().unwrap();
        let mut from = UdpConnector::from(options).connect(peer).unwrap();
        let datagrams = [
            (peer, None, vec![1; 8]),
            (stranger, None, vec![2; 8]),
            (peer, None, vec![3; 8]),
            (peer, None, vec![4; 8]),
            (stranger, None, vec![5; 8]),
        ];
        let sent = from.send(&outbox(&datagrams));
        assert_eq!((sent.sent, sent.failed), (3, 2));
        assert_eq!(
            sent.last_error.map(|error| error.kind()),
            Some(ErrorKind::InvalidInput)
        );
        for first in [1, 3, 4] {
            let mut buffer = [0; 9];
            assert_eq!(to.recv(&mut buffer).unwrap(), 8);
            assert_eq!(buffer[0], first);
        }
    }
}

/// Asks `server` at `asked`, and checks where the answers come from.
fn answers_leave_from(mut server: UdpTransport, client: &str, asked: &str) {
    let asked: IpAddr = asked.parse().unwrap();
    let addr = SocketAddr::new(asked, server.local_addr().unwrap().port());
    let client = plain(client);
    client.connect(addr).unwrap();
    for number in 0..3 {
        client.send(&[number; 20]).unwrap();
    }
    let received = receive(&mut server, &mut Inbox::new(8, 100), 3);
    let answers: Vec<_> = received
        .into_iter()
        .map(|(bytes, meta)| {
            assert_eq!(meta.local, Some(asked));
            assert_eq!(meta.peer, client.local_addr().unwrap());
            (meta.peer, meta.local, bytes)
        })
        .collect();
    all_sent(&server.send(&outbox(&answers)), 3);
    all_sent(&server.send(&outbox(&answers[..1])), 1);
    // The client is connected: what came from elsewhere would not arrive.
    for number in [0, 1, 2, 0] {
        let mut buffer = [0; 100];
        assert_eq!(client.recv(&mut buffer).unwrap(), 20);
        assert_eq!(buffer[0], number);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_answer_leaves_from_the_address_that_was_asked() {
    for options in all_options() {
        let any_v4 = options.bind("0.0.0.0:0").unwrap();
        if !any_v4.features().contains(UdpFeature::PacketInfo) {
            continue;
        }
        answers_leave_from(any_v4, "127.0.0.1:0", "127.0.0.2");
        let both = options.bind("[::]:0").unwrap();
        answers_leave_from(both, "127.0.0.1:0", "127.0.0.3");
        let both = options.bind("[::]:0").unwrap();
        answers_leave_from(both, "[::1]:0", "::1");
        let only_v6 = options.only_v6(true).bind("[::]:0").unwrap();
        answers_leave_from(only_v6, "[::1]:0", "::1");
    }
}

#[test]
fn a_transport_on_one_address_knows_it_without_packet_information() {
    for options in all_options() {
        answers_leave_from(
            options.bind("127.0.0.1:0").unwrap(),
            "127.0.0.1:0",
            "127.0.0.1",
        );
        answers_leave_from(options.bind("[::1]:0").unwrap(), "[::1]:0", "::1");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_kernel_drops_is_counted() {
    let options = UdpOptions::new().receive_buffer_bytes(1);
    let mut server = options.bind("127.0.0.1:0").unwrap();
    let peer = server.local_addr().unwrap();
    assert!(server.receive_buffer_bytes().unwrap() < 10_000);
    assert_eq!(server.kernel_drops(), 0);
    let client = plain("127.0.0.1:0");
    let mut inbox = Inbox::new(64, 100);
    for _ in 0..100 {
        client.send_to(&[0; 40], peer).unwrap();
    }
    // Datagrams that arrived before the first drop do not report it; one after it does.
    let mut arrived = 0;
    for _ in 0..3 {
        while server.recv(&mut inbox, Wait::No).unwrap() > 0 {
            arrived += std::iter::from_fn(|| inbox.pop().map(|_| ())).count() as u64;
        }
        client.send_to(&[0; 40], peer).unwrap();
    }
    assert!(arrived < 100);
    assert_eq!(server.kernel_drops(), 102 - arrived);
}

#[test]
fn a_larger_receive_buffer_is_asked_for() {
    let size = |options: UdpOptions| {
        let transport = options.bind("127.0.0.1:0").unwrap();
        transport.receive_buffer_bytes().unwrap()
    };
    let usual = size(UdpOptions::new().receive_buffer_bytes(0));
    assert!(size(UdpOptions::new()) >= usual);
    assert!(size(UdpOptions::new().receive_buffer_bytes(20_000)) < usual);
}

#[test]
fn waiting_ends_in_every_way() {
    for options in all_options() {
        let mut transport = options.bind("127.0.0.1:0").unwrap();
        let mut inbox = Inbox::new(4, 100);
        let client = plain("127.0.0.1:0");
        let peer = transport.local_addr().unwrap();
        let short = Duration::from_millis(5);
        for wait in [
            Wait::No,
            Wait::For(Duration::ZERO),
            Wait::For(short),
            Wait::Spin(short),
            Wait::Spin(Duration::ZERO),
            Wait::No,
        ] {
            assert_eq!(transport.recv(&mut inbox, wait).unwrap(), 0);
        }
        for wait in [
            Wait::No,
            Wait::For(LONG),
            Wait::For(LONG / 2),
            Wait::For(LONG / 5),
            Wait::Spin(LONG),
            Wait::Forever,
        ] {
            client.send_to(b"!", peer).unwrap();
            assert_eq!(transport.recv(&mut inbox, wait).unwrap(), 1, "{wait:?}");
            assert_eq!(inbox.pop().unwrap().bytes, b"!");
        }
    }
}

#[test]
fn an_adopted_socket_behaves_the_same_whatever_its_mode_was() {
    for options in all_options() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let peer = socket.local_addr().unwrap();
        let mut transport = options.adopt(socket).unwrap();
        let client = plain("127.0.0.1:0");
        let waiting = std::thread::spawn(move || {
            let mut inbox = Inbox::new(1, 10);
            // Not before something came: the wait is long.
            assert_eq!(transport.recv(&mut inbox, Wait::Forever).unwrap(), 1);
        });
        client.send_to(b"!", peer).unwrap();
        waiting.join().unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_group_shares_its_address_among_its_sockets_and_with_nobody_else() {
    for addr in ["127.0.0.1:0", "[::]:0"] {
        let mut group = UdpOptions::new().bind_group(addr, 3).unwrap();
        let addr = group[0].local_addr().unwrap();
        assert!(
            group
                .iter()
                .all(|socket| socket.local_addr().unwrap() == addr)
        );
        for others in [1, 2] {
            let error = UdpOptions::new().bind_group(addr, others).unwrap_err();
            assert_eq!(io::Error::from(error).kind(), ErrorKind::AddrInUse);
        }

        let asked = SocketAddr::new("127.0.0.1".parse().unwrap(), addr.port());
        let asked = if addr.is_ipv4() {
            addr
        } else {
            SocketAddr::new("::1".parse().unwrap(), asked.port())
        };
        let local = if addr.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let clients: Vec<_> = (0..200).map(|_| plain(local)).collect();
        for client in &clients {
            for _ in 0..2 {
                client.send_to(b"!", asked).unwrap();
            }
        }
        let mut inbox = Inbox::new(64, 10);
        let mut by_socket = Vec::new();
        for socket in &mut group {
            let mut peers = Vec::new();
            while socket.recv(&mut inbox, Wait::No).unwrap() > 0 {
                while let Some(datagram) = inbox.pop() {
                    peers.push(datagram.meta.peer);
                }
            }
            by_socket.push(peers);
        }
        assert_eq!(by_socket.iter().map(Vec::len).sum::<usize>(), 400);
        for peers in &by_socket {
            assert!(!peers.is_empty(), "{addr}: one got nothing");
            for peer in peers {
                let twice = peers.iter().filter(|other| *other == peer).count();
                assert_eq!(twice, 2, "a peer has one socket");
            }
        }
    }
}

#[test]
fn a_setting_out_of_range_is_an_error_that_names_it() {
    let options = UdpOptions::new();
    let error = options.bind_group("127.0.0.1:0", 0).unwrap_err();
    assert_eq!(error.to_string(), "sockets is 0, must be at least 1");
    let most = 2_147_483_647;
    for (options, name) in [
        (
            options.clone().receive_buffer_bytes(most + 1),
            "receive_buffer_bytes",
        ),
        (
            options.clone().send_buffer_bytes(most + 1),
            "send_buffer_bytes",
        ),
    ] {
        let said = format!("{name} is 2147483648, must be 0 to 2147483647");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let errors = [
            options.bind("127.0.0.1:0").unwrap_err(),
            options.bind_group("127.0.0.1:0", 1).unwrap_err(),
            options.adopt(socket).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.to_string(), said);
            assert!(matches!(error, ConfigError::OutOfRange { .. }));
        }
        let error = UdpConnector::from(options).connect("127.0.0.1:9".parse().unwrap());
        assert_eq!(error.unwrap_err().to_string(), said);
    }
    assert!(
        options
            .receive_buffer_bytes(most)
            .bind("127.0.0.1:0")
            .is_ok()
    );
}

/// Whatever does not fit the way as a segment leaves unsegmented, and arrives. To run it:
///
/// ```text
/// unshare -rn sh -c 'ip link set lo mtu 1500 up && cargo test --all-features --test net -- --ignored fast_path'
/// ```
#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs a network whose packets have at most 1,500 bytes"]
fn segments_longer_than_the_way_takes_arrive_all_the_same() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let mut from = UdpTransport::bind(addr).unwrap();
        let mut to = UdpTransport::bind(addr).unwrap();
        let peer = to.local_addr().unwrap();
        let mut inbox = Inbox::new(64, MAX_DATAGRAM_BYTES);
        for len in [1_400, 3_000, 1_400, 3_000, 60_000] {
            let datagrams: Vec<_> = (0..10)
                .map(|number| (peer, None, datagram(number, len)))
                .collect();
            all_sent(&from.send(&outbox(&datagrams)), 10);
            let received = receive(&mut to, &mut inbox, 10);
            assert!(
                received
                    .iter()
                    .map(|one| &one.0)
                    .eq(datagrams.iter().map(|one| &one.2))
            );
            assert!(from.features().contains(UdpFeature::Gso));
        }
    }
}
