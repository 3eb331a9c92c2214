//! What takes several machines: network namespaces with cables between them.
//!
//! Each test runs in a namespace of its own, in a process of its own, which makes others; all end with
//! it. To run them:
//!
//! ```text
//! cargo test --all-features --test net -- --ignored namespaces
//! ```

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
use rejoinder::aio;
use rejoinder::codec::{Raw, Text};
#[cfg(feature = "tokio")]
use rejoinder::transport::ErrorClass;
use rejoinder::transport::{Delivery, Inbox};
use rejoinder::udp::{UdpOptions, UdpTransport};
use rejoinder::{Client, Context, Handler, Reply, ReplyError, Server, Stats, Transport, Wait};
use rejoinder_test_support::network::{self, Machine, sh};

/// Long enough for a machine under load; nothing waits so long when all is well.
const PATIENT: Duration = Duration::from_secs(20);
#[cfg(feature = "tokio")]
const REQUESTS: u64 = 200;
/// How long to wait for what shall not come.
const SOON: Duration = Duration::from_millis(300);

/// Runs a test of this module in a process of its own that has a network of its own.
fn in_own_net(name: &str, test: impl FnOnce()) {
    network::in_own_net(&format!("namespaces::{name}"), test);
}

/// The index of an interface in the network of the calling thread.
fn interface(name: &str) -> u32 {
    let shown = Command::new("ip")
        .args(["-o", "link", "show", name])
        .output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    shown.split(':').next().unwrap().trim().parse().unwrap()
}

/// Serves in a thread while something is done, and returns the counters.
fn serving<C, H>(server: Server<UdpTransport, C>, handler: H, act: impl FnOnce()) -> Stats
where
    C: rejoinder::Codec + Send,
    H: Handler<C> + Send + Sync,
{
    let handle = server.handle();
    thread::scope(|scope| {
        let server = scope.spawn(move || server.serve(handler).unwrap());
        act();
        handle.shutdown();
        server.join().unwrap()
    })
}

fn socket(addr: &str, patience: Duration) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// Asks, and returns the response with its source.
fn ask(socket: &UdpSocket, to: &str, request: &[u8]) -> Option<(Vec<u8>, SocketAddr)> {
    socket.send_to(request, to).unwrap();
    let mut buffer = [0; 2_048];
    match socket.recv_from(&mut buffer) {
        Ok((len, from)) => Some((buffer[..len].to_vec(), from)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
#[ignore = "needs network namespaces"]
fn neighbours_that_are_absent_stall_no_one() {
    in_own_net("neighbours_that_are_absent_stall_no_one", || {
        let machine = Machine::new("va", "vb");
        sh("ip addr add 10.9.0.1/24 dev va");
        // It takes any address, and answers for none when it is asked who has it (ARP).
        let addresses = "for i in $(seq 100 249); do ip addr add 10.9.0.$i/24 dev vb; done";
        machine.sh(&format!(
            "{addresses}; sysctl -qw net.ipv4.conf.vb.arp_ignore=8"
        ));
        machine.sh("ip addr add 10.9.0.2/24 dev vb; ip neigh replace 10.9.0.1 lladdr 02:00:00:00:00:01 dev vb");
        sh("ip link set va address 02:00:00:00:00:01");
        machine.sh("ip link set vb address 02:00:00:00:00:02");
        sh("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev va");

        // As a service manager passes it, with the buffers that the kernel gives.
        let passed = UdpSocket::bind("10.9.0.1:9999").unwrap();
        let transport = UdpOptions::new().adopt(passed).unwrap();
        let server = Server::builder(Text).with_transport(transport).unwrap();
        let echo = |text: &str| Some(text.to_owned());
        let (mut waits, mut unanswered) = (Vec::new(), 0);
        let stats = serving(server, echo, || {
            thread::scope(|scope| {
                let forged = scope.spawn(|| {
                    machine.run(|| {
                        let forgers: Vec<_> = (100..250)
                            .map(|host| {
                                UdpSocket::bind(SocketAddr::from(([10, 9, 0, host], 0))).unwrap()
                            })
                            .collect();
                        let begun = Instant::now();
                        for (number, forger) in (0_u32..900).zip(forgers.iter().cycle()) {
                            let due = begun + number * Duration::from_secs(1) / 150;
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                            forger.send_to(b"?", "10.9.0.1:9999").unwrap();
                        }
                    });
                });
                machine.run(|| {
                    let honest = socket("10.9.0.2:0", Duration::from_secs(1));
                    honest.connect("10.9.0.1:9999").unwrap();
                    for _ in 0..500 {
                        let begun = Instant::now();
                        honest.send(b"hello").unwrap();
                        match honest.recv(&mut [0; 64]) {
                            Ok(_) => waits.push(begun.elapsed()),
                            Err(_) => unanswered += 1,
                        }
                        thread::sleep(Duration::from_millis(10));
                    }
                });
                forged.join().unwrap();
            });
        });
        waits.sort_unstable();
        let p99 = waits[waits.len() * 99 / 100];
        eprintln!("unanswered: {unanswered} of 500, 99th percentile: {p99:?}\n{stats}");
        assert!(unanswered <= 5, "{unanswered} of 500");
        assert!(p99 < Duration::from_millis(20), "{p99:?}");
    });
}

#[test]
#[cfg(feature = "tokio")]
#[ignore = "needs network namespaces"]
fn a_server_on_tokio_does_not_wait_for_room_in_the_send_buffer() {
    in_own_net(
        "a_server_on_tokio_does_not_wait_for_room_in_the_send_buffer",
        || {
            // A neighbour that is absent: what is sent to it waits for seconds, in the send buffer.
            let machine = Machine::new("va", "vb");
            sh("ip link set va address 02:00:00:00:00:01; ip addr add 10.9.0.1/24 dev va");
            machine.sh("ip addr add 10.9.0.2/24 dev vb; sysctl -qw net.ipv4.conf.vb.arp_ignore=8");
            machine.sh("ip neigh replace 10.9.0.1 lladdr 02:00:00:00:00:01 dev vb");

            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let stats = runtime.unwrap().block_on(async {
                let bound = UdpSocket::bind("10.9.0.1:9999").unwrap();
                let other = socket2::Socket::from(bound.try_clone().unwrap());
                let transport = UdpOptions::new().adopt(bound).unwrap();
                other.set_send_buffer_size(16 << 10).unwrap();
                let transport = aio::AsyncUdp::new(transport).unwrap();
                let server = aio::Server::builder(Text).with_transport(transport);
                let server = server.unwrap();
                let handle = server.handle();
                let serving = server.serve_until(async |text: &str| text.to_owned(), async {
                    machine.run(|| {
                        // A port for each, so that the responses leave one by one.
                        let peers = (0..REQUESTS).map(|_| UdpSocket::bind("10.9.0.2:0").unwrap());
                        for peer in &peers.collect::<Vec<_>>() {
                            peer.send_to(b"?", "10.9.0.1:9999").unwrap();
                        }
                    });
                    while handle.stats().received < REQUESTS {
                        tokio::task::yield_now().await;
                    }
                });
                tokio::time::timeout(PATIENT, serving).await.unwrap()
            });
            let stats = stats.unwrap();
            let refused = stats.send_errors_of(ErrorClass::Resources);
            // Had it waited, every response would have left.
            assert!(refused > 0, "the buffer was never full: {stats}");
            assert_eq!(stats.responses_sent + stats.responses_failed, REQUESTS);
        },
    );
}

#[test]
#[ignore = "needs network namespaces"]
fn a_peer_on_another_machine_may_have_the_servers_port() {
    in_own_net(
        "a_peer_on_another_machine_may_have_the_servers_port",
        || {
            let machine = Machine::new("va", "vb");
            sh("ip addr add 10.9.0.1/24 dev va; ip addr add fd09::1/64 dev va nodad");
            machine.sh("ip addr add 10.9.0.2/24 dev vb; ip addr add fd09::2/64 dev vb nodad");
            // The kernel does not give out reserved addresses unless they are asked for by number.
            machine.sh("ip addr add 240.1.2.3/32 dev vb");
            sh("ip route add 240.1.2.3/32 dev va");
            let server = Server::builder(Text).bind("[::]:9999").unwrap();
            let stats = serving(
                server,
                |text: &str| Some(text.to_owned()),
                || {
                    for from in ["10.9.0.2:9999", "[fd09::2]:9999", "240.1.2.3:50000"] {
                        let to = if from.starts_with('[') {
                            "[fd09::1]:9999"
                        } else {
                            "10.9.0.1:9999"
                        };
                        let answered = machine.run(|| ask(&socket(from, PATIENT), to, b"hello"));
                        assert_eq!(answered.map(|one| one.0), Some(b"hello".to_vec()), "{from}");
                    }
                },
            );
            assert_eq!(stats.replied, 3);
        },
    );
}

/// Answers with how the request came.
#[derive(Default)]
struct HowItCame(Mutex<Vec<Context>>);

impl Handler<Raw> for HowItCame {
    fn handle(
        &self,
        _: &[u8],
        context: &Context,
        reply: &mut Reply<'_, Raw>,
    ) -> Result<(), ReplyError> {
        self.0.lock().unwrap().push(context.clone());
        reply.send(b"here")
    }
}

#[test]
#[ignore = "needs network namespaces"]
fn requests_to_groups_are_known_and_answered_by_the_interface_they_came_in_by() {
    in_own_net(
        "requests_to_groups_are_known_and_answered_by_the_interface_they_came_in_by",
        || {
            // Two links with the same addresses: only the interface distinguishes them.
            let machines = [Machine::new("va", "vb"), Machine::new("wa", "wb")];
            for (machine, (here, there)) in machines.iter().zip([("va", "vb"), ("wa", "wb")]) {
                sh(&format!(
                    "ip addr add 10.9.0.1/24 dev {here}; ip addr add fe80::1/64 dev {here} nodad"
                ));
                sh(&format!(
                    "sysctl -qw net.ipv4.conf.{here}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"
                ));
                machine.sh(&format!("ip addr add 10.9.0.2/24 dev {there}"));
                machine.sh(&format!("ip addr add fe80::2/64 dev {there} nodad"));
                machine.sh(&format!("ip route add 224.0.0.0/4 dev {there}"));
            }
            let interfaces = ["va", "wa"].map(interface);
            let mut options = UdpOptions::new();
            for interface in interfaces {
                options = options
                    .multicast_group("239.1.2.3".parse().unwrap(), interface)
                    .multicast_group("ff02::1234".parse().unwrap(), interface);
            }
            let server = Server::builder(Raw)
                .udp_options(options)
                .bind("[::]:9999")
                .unwrap();
            let seen = std::sync::Arc::new(HowItCame::default());
            let handler = std::sync::Arc::clone(&seen);
            serving(server, handler, || {
                for (machine, there) in machines.iter().zip(["vb", "wb"]) {
                    for (from, to, answered_from) in [
                        ("10.9.0.2:0", "239.1.2.3:9999".to_owned(), "10.9.0.1:9999"),
                        ("10.9.0.2:0", "10.9.0.255:9999".to_owned(), "10.9.0.1:9999"),
                        (
                            "[::]:0",
                            format!("[ff02::1234%{there}]:9999"),
                            "[fe80::1]:9999",
                        ),
                        (
                            "[::]:0",
                            format!("[fe80::1%{there}]:9999"),
                            "[fe80::1]:9999",
                        ),
                    ] {
                        let from_there = machine.run(|| {
                            let to =
                                to.replace(&format!("%{there}"), &format!("%{}", interface(there)));
                            let socket = socket(from, PATIENT);
                            socket.set_broadcast(true).unwrap();
                            ask(&socket, &to, b"who?")
                                .expect("it is answered by the same link")
                                .1
                        });
                        let answered_from: SocketAddr = answered_from.parse().unwrap();
                        assert_eq!(from_there.ip(), answered_from.ip(), "{to}");
                        assert_eq!(from_there.port(), 9999);
                    }
                }
                // A group without members, or another socket's.
                let other = socket("0.0.0.0:0", SOON);
                let group = "239.9.9.9".parse().unwrap();
                other
                    .join_multicast_v4(&group, &[10, 9, 0, 1].into())
                    .unwrap();
                let silence =
                    machines[0].run(|| ask(&socket("10.9.0.2:0", SOON), "239.9.9.9:9999", b"?"));
                assert_eq!(silence, None);
            });
            let seen = seen.0.lock().unwrap();
            let deliveries: Vec<_> = seen
                .iter()
                .map(|one| (one.delivery, one.interface))
                .collect();
            let expected = interfaces.map(|interface| {
                [
                    Delivery::Multicast,
                    Delivery::Broadcast,
                    Delivery::Multicast,
                    Delivery::Unicast,
                ]
                .map(|delivery| (delivery, interface))
            });
            assert_eq!(deliveries, expected.concat());
            let local: IpAddr = [10, 9, 0, 1].into();
            for context in &seen[..2] {
                assert_eq!(context.local_addr(), Some(SocketAddr::new(local, 9999)));
            }
            let addr = seen[3].local_addr().unwrap().to_string();
            assert_eq!(addr, format!("[fe80::1%{}]:9999", interfaces[0]));
        },
    );
}

/// A switch with a client and two servers, which have a second cable each: a reply leaves by the one that the
/// request came by.
#[test]
#[ignore = "needs network namespaces"]
fn a_discovery_finds_both_servers_on_a_link() {
    in_own_net("a_discovery_finds_both_servers_on_a_link", || {
        sh("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
        sh("ip addr add 10.9.0.9/24 dev br0; ip addr add fe80::9/64 dev br0 nodad");
        sh("ip route add 224.0.0.0/4 dev br0");
        let machines = [
            (Machine::new("va", "vb"), "va", "vb", 1),
            (Machine::new("wa", "wb"), "wa", "wb", 2),
        ];
        let servers = machines.each_ref().map(|(machine, here, there, host)| {
            sh(&format!("ip link set {here} master br0"));
            // Its other link has the same network, and comes first.
            machine.sh("ip link add other type veth peer name end; ip link set other up; ip link set end up");
            machine.sh(&format!(
                "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{there}.rp_filter=0"
            ));
            for link in ["other", there] {
                machine.sh(&format!("ip addr add 10.9.0.{host}/24 dev {link}"));
                machine.sh(&format!("ip addr add fe80::{host}/64 dev {link} nodad"));
            }
            machine.run(|| {
                let options = UdpOptions::new()
                    .multicast_group("239.1.2.3".parse().unwrap(), interface(there))
                    .multicast_group("ff02::1234".parse().unwrap(), interface(there));
                let builder = Server::builder(Text).udp_options(options);
                builder.bind("[::]:9999").unwrap()
            })
        });
        let handles = servers.each_ref().map(Server::handle);
        let bridge = interface("br0");
        let stats = thread::scope(|scope| {
            let threads = servers.map(|server| {
                scope.spawn(move || {
                    let respond = |question: &str| Some(format!("{question} I."));
                    server.serve(respond).unwrap()
                })
            });
            for (group, expected) in [
                (
                    "239.1.2.3:9999".to_owned(),
                    ["10.9.0.1:9999", "10.9.0.2:9999"].map(String::from),
                ),
                (
                    format!("[ff02::1234%{bridge}]:9999"),
                    [1, 2].map(|host| format!("[fe80::{host}%{bridge}]:9999")),
                ),
            ] {
                let group: SocketAddr = group.parse().unwrap();
                let mut client = Client::builder(Text)
                    .max_responders(2)
                    .connect(group)
                    .unwrap();
                let mut discovery = client.discover("Who?", PATIENT).unwrap();
                let mut found = Vec::new();
                // It waits until its time is over, unless it has all that it takes.
                while found.len() < 2
                    && let Some((peer, response)) = discovery.next_response()
                {
                    assert_eq!(response.unwrap(), "Who? I.");
                    found.push(peer.to_string());
                }
                found.sort();
                assert_eq!(found, expected, "{group}");
            }
            handles.iter().for_each(rejoinder::ServerHandle::shutdown);
            threads.map(|thread| thread.join().unwrap())
        });
        for stats in stats {
            assert!(stats.replied >= 2, "{stats}");
            assert_eq!(stats.responses_failed, 0, "{stats}");
        }
    });
}

#[test]
#[ignore = "needs network namespaces"]
fn a_group_that_is_left_is_not_received_any_more() {
    in_own_net("a_group_that_is_left_is_not_received_any_more", || {
        let machine = Machine::new("va", "vb");
        sh("ip addr add 10.9.0.1/24 dev va");
        machine.sh("ip addr add 10.9.0.2/24 dev vb; ip route add 224.0.0.0/4 dev vb");
        let mut transport = UdpTransport::bind("0.0.0.0:9999").unwrap();
        let arrives = |transport: &mut UdpTransport| {
            machine.run(|| {
                let socket = socket("10.9.0.2:0", SOON);
                socket.send_to(b"?", "239.1.2.3:9999").unwrap();
            });
            let mut inbox = Inbox::new(8, 64);
            transport.recv(&mut inbox, Wait::For(SOON)).unwrap() > 0
        };
        let group = "239.1.2.3".parse().unwrap();
        assert!(!arrives(&mut transport));
        transport.join_multicast(group, interface("va")).unwrap();
        assert!(arrives(&mut transport));
        transport.leave_multicast(group, interface("va")).unwrap();
        assert!(!arrives(&mut transport));
    });
}

/// How many fragments this machine has made.
fn fragments() -> u64 {
    let told = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = told.lines().filter(|line| line.starts_with("Ip:"));
    let names = lines.next().unwrap().split(' ');
    let mut values = names.zip(lines.next().unwrap().split(' '));
    let created = values.find(|value| value.0 == "FragCreates").unwrap();
    created.1.parse().unwrap()
}

#[test]
#[ignore = "needs network namespaces"]
fn a_path_mtu_that_is_ignored_makes_no_fragments() {
    in_own_net("a_path_mtu_that_is_ignored_makes_no_fragments", || {
        let machine = Machine::new("va", "vb");
        sh("ip addr add 10.9.0.1/24 dev va; ip addr add fd09::1/64 dev va nodad");
        machine.sh("ip addr add 10.9.0.2/24 dev vb; ip addr add fd09::2/64 dev vb nodad");
        // As a message of ICMP would have it.
        sh("ip route add 10.9.0.2/32 dev va mtu 552");
        for (options, in_fragments) in [
            (UdpOptions::new(), true),
            (UdpOptions::new().ignore_path_mtu(true), false),
            (UdpOptions::new().ignore_path_mtu(true).portable(), false),
        ] {
            let before = fragments();
            let builder = Server::builder(Raw).udp_options(options);
            let server = builder.bind("10.9.0.1:9999").unwrap();
            serving(
                server,
                |_: &[u8]| Some(vec![7; 1_200]),
                || {
                    let answer =
                        machine.run(|| ask(&socket("10.9.0.2:0", PATIENT), "10.9.0.1:9999", b"?"));
                    assert_eq!(answer.unwrap().0.len(), 1_200);
                },
            );
            assert_eq!(fragments() > before, in_fragments);
        }
    });
}
