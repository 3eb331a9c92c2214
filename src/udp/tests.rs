#![expect(clippy::unwrap_used, reason = "a test fails by it")]
//! What other owners of a socket, and those who run the process, may do to a transport.
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::family::{Endpoint, Family};
use super::features::UdpFeatures;
use super::linux::BatchedSocket;
use super::syscall::{self, Call};
use super::transport::UdpTransport;
use super::{UdpConnector, UdpOptions, fallback};
use crate::transport::{Connect, ErrorClass, Inbox, Meta, Outbox, Transport, Wait};

const V4: &str = "127.0.0.1:0";
/// Long enough for a machine under load; nothing waits so long when all is well.
const PATIENT: Duration = Duration::from_secs(30);

fn both_paths() -> [UdpOptions; 2] {
    [UdpOptions::new(), UdpOptions::new().portable()]
}

/// An adopted socket, another owner of it, and a client.
fn adopted(options: &UdpOptions) -> (UdpTransport, UdpSocket, UdpSocket) {
    let socket = UdpSocket::bind(V4).unwrap();
    let other = socket.try_clone().unwrap();
    let client = UdpSocket::bind(V4).unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENT)).unwrap();
    (options.adopt(socket).unwrap(), other, client)
}

fn outbox(datagrams: impl IntoIterator<Item = (SocketAddr, Vec<u8>)>) -> Outbox {
    let mut outbox = Outbox::new(300, 4_096);
    for (peer, bytes) in datagrams {
        outbox.push(peer, None, &bytes).unwrap();
    }
    outbox
}

fn receive(transport: &mut UdpTransport, count: usize) -> Vec<(Vec<u8>, Meta)> {
    let mut inbox = Inbox::new(64, 4_096);
    let mut received = Vec::new();
    while received.len() < count {
        assert!(transport.recv(&mut inbox, Wait::For(PATIENT)).unwrap() > 0);
        while let Some(datagram) = inbox.pop() {
            received.push((datagram.bytes.to_vec(), datagram.meta));
        }
    }
    received
}

// Other owners.

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn another_owner_may_change_the_mode_and_the_timeout_at_any_time() {
    for options in both_paths() {
        let (mut transport, other, client) = adopted(&options);
        let mut inbox = Inbox::new(8, 64);
        let wait = Duration::from_millis(20);
        let changes: [&dyn Fn(); 5] = [
            &|| other.set_nonblocking(true).unwrap(),
            &|| other.set_nonblocking(false).unwrap(),
            &|| other.set_read_timeout(None).unwrap(),
            &|| {
                other
                    .set_read_timeout(Some(Duration::from_micros(1)))
                    .unwrap();
            },
            &|| other.set_read_timeout(Some(PATIENT)).unwrap(),
        ];
        for change in changes {
            change();
            let begun = Instant::now();
            assert_eq!(transport.recv(&mut inbox, Wait::For(wait)).unwrap(), 0);
            assert!(begun.elapsed() >= wait * 9 / 10, "it waited");
            client.send(b"?").unwrap();
            let wait = Wait::For(PATIENT);
            assert_eq!(transport.recv(&mut inbox, wait).unwrap(), 1);
            inbox.pop();
        }
        // And it finds the socket as it left it.
        assert_eq!(other.read_timeout().unwrap(), Some(PATIENT));
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn an_adopted_socket_receives_bursts_and_single_datagrams_in_order() {
    for options in both_paths() {
        let (mut transport, _other, client) = adopted(&options);
        for burst in [1, 1, 9, 1, 100, 1, 1] {
            for number in 0..burst {
                client.send(&[number]).unwrap();
            }
            let received = receive(&mut transport, burst.into());
            assert!(received.iter().map(|one| one.0[0]).eq(0..burst));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_borrower_who_changes_the_mode_of_an_own_socket_costs_no_busy_loop() {
    for options in both_paths() {
        let mut transport = options.bind(V4).unwrap();
        let mut inbox = Inbox::new(8, 64);
        let wait = Duration::from_millis(20);
        let borrower = transport.socket().try_clone().unwrap();
        let mut early = 0;
        for _ in 0..4 {
            borrower.set_nonblocking(true).unwrap();
            for _ in 0..2 {
                let begun = Instant::now();
                assert_eq!(transport.recv(&mut inbox, Wait::For(wait)).unwrap(), 0);
                early += u32::from(begun.elapsed() < wait * 9 / 10);
            }
        }
        // One that was changed returns early once.
        assert!(early <= 4, "{early} of 8");
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn no_buffer_of_an_adopted_socket_becomes_smaller() {
    for options in both_paths() {
        let socket = UdpSocket::bind(V4).unwrap();
        // It takes a privilege to pass the administrator's limit.
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
            let _ = syscall::set_option(&socket, (libc::SOL_SOCKET, option), 32 << 20);
        }
        let sizes = |socket: &UdpSocket| {
            let socket = SockRef::from(socket);
            let receive = socket.recv_buffer_size().unwrap();
            (receive, socket.send_buffer_size().unwrap())
        };
        let before = sizes(&socket);
        let small = UdpSocket::bind(V4).unwrap();
        let transport = options.adopt(socket).unwrap();
        let after = sizes(transport.socket());
        assert!(
            after.0 >= before.0 && after.1 >= before.1,
            "{before:?} became {after:?}"
        );
        // Where there is less than what is to be had, more is asked for.
        SockRef::from(&small).set_recv_buffer_size(4_096).unwrap();
        SockRef::from(&small).set_send_buffer_size(8_192).unwrap();
        let transport = options.adopt(small).unwrap();
        let own = UdpTransport::bind(V4).unwrap();
        assert_eq!(sizes(transport.socket()), sizes(own.socket()));
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn extended_errors_make_an_adopted_socket_neither_deaf_nor_busy() {
    let recverr = (libc::IPPROTO_IP, libc::IP_RECVERR);
    for options in both_paths() {
        let socket = UdpSocket::bind(V4).unwrap();
        let other = socket.try_clone().unwrap();
        let client = UdpSocket::bind(V4).unwrap();
        syscall::set_option(&socket, recverr, 1).unwrap();
        SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
        let options = options.receive_buffer_bytes(0);
        let mut transport = options.adopt(socket).unwrap();
        let addr = transport.local_addr().unwrap();
        let gone = UdpSocket::bind(V4).unwrap().local_addr().unwrap();
        for again in [false, true] {
            // Another owner may turn it on later.
            if again {
                syscall::set_option(&other, recverr, 1).unwrap();
            }
            for _ in 0..100 {
                transport.send(&outbox([(gone, vec![0; 40])]));
            }
            let mut inbox = Inbox::new(8, 64);
            let wait = Duration::from_millis(20);
            let begun = Instant::now();
            let mut calls = 0;
            while begun.elapsed() < wait {
                match transport.recv(&mut inbox, Wait::For(wait)) {
                    Ok(received) => assert_eq!(received, 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
                }
                calls += 1;
            }
            assert!(calls < 10, "{calls} calls in {wait:?}");
            client.send_to(b"?", addr).unwrap();
            assert_eq!(receive(&mut transport, 1)[0].0, b"?");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn what_another_owner_corked_or_cut_up_leaves_whole_and_at_once() {
    let corked = UdpSocket::bind(V4).unwrap();
    syscall::set_option(&corked, (libc::SOL_UDP, libc::UDP_CORK), 1).unwrap();
    let cut_up = UdpSocket::bind(V4).unwrap();
    syscall::set_option(&cut_up, (libc::SOL_UDP, libc::UDP_SEGMENT), 10).unwrap();
    for socket in [corked, cut_up] {
        let client = UdpSocket::bind(V4).unwrap();
        client.set_read_timeout(Some(PATIENT)).unwrap();
        let mut transport = UdpOptions::new().adopt(socket).unwrap();
        let sent = transport.send(&outbox([(client.local_addr().unwrap(), vec![7; 30])]));
        assert_eq!(sent.sent, 1);
        assert_eq!(client.recv(&mut [0; 64]).unwrap(), 30);
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn transports_that_share_a_socket_count_its_drops_once() {
    let socket = UdpSocket::bind(V4).unwrap();
    let addr = socket.local_addr().unwrap();
    SockRef::from(&socket).set_recv_buffer_size(4_096).unwrap();
    let options = UdpOptions::new().receive_buffer_bytes(0);
    let mut transports =
        [socket.try_clone().unwrap(), socket].map(|one| options.adopt(one).unwrap());
    let client = UdpSocket::bind(V4).unwrap();
    let mut inbox = Inbox::new(64, 100);
    let (mut sent, mut received) = (0, 0);
    for _ in 0..3 {
        for _ in 0..100 {
            client.send_to(&[0; 40], addr).unwrap();
        }
        sent += 100;
        // A datagram that arrived after the last drop reports it: one to each.
        for transport in &mut transports {
            for _ in 0..2 {
                while transport.recv(&mut inbox, Wait::No).unwrap() > 0 {
                    received += std::iter::from_fn(|| inbox.pop().map(|_| ())).count() as u64;
                }
                client.send_to(&[0; 40], addr).unwrap();
                sent += 1;
            }
        }
        while transports[0].recv(&mut inbox, Wait::No).unwrap() > 0 {
            received += std::iter::from_fn(|| inbox.pop().map(|_| ())).count() as u64;
        }
        let drops: u64 = transports.iter().map(Transport::kernel_drops).sum();
        assert!(received < sent);
        assert_eq!(drops, sent - received);
    }
}

// A full send buffer.

/// A socket whose send buffer holds only a few datagrams, because nothing takes them out.
fn blocked() -> (UdpSocket, UnixDatagram, Endpoint) {
    let (here, there) = UnixDatagram::pair().unwrap();
    let endpoint = Endpoint::connected(Family::V4, "192.0.2.1:7".parse().unwrap());
    (UdpSocket::from(OwnedFd::from(here)), there, endpoint)
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn no_send_waits_for_room_and_what_is_refused_is_counted() {
    let peer = "192.0.2.1:7".parse().unwrap();
    for (len, count) in [(40, 200), (40, 1), (2_000, 200)] {
        for batched in [true, false] {
            let (socket, _there, endpoint) = blocked();
            let one = outbox([(peer, vec![1; len])]);
            while fallback::send(&socket, &endpoint, &one).failed == 0 {}
            let full = outbox((0..count).map(|_| (peer, vec![1; len])));
            let sent = if batched {
                let features = UdpFeatures::DEFAULT;
                let mut batched = BatchedSocket::new(&socket, &endpoint, features, false).unwrap();
                batched.send(&socket, &endpoint, &full)
            } else {
                fallback::send(&socket, &endpoint, &full)
            };
            assert_eq!((sent.sent, sent.failed), (0, count));
            let errors = sent.errors_by_class();
            assert_eq!(errors.get(ErrorClass::Resources), count as u64);
            assert_eq!(sent.last_error.unwrap().kind(), ErrorKind::WouldBlock);
        }
    }
}

// Filters of system calls.

/// Runs in a thread of its own, for the rest of whose life the calls are forbidden.
fn in_a_thread(test: impl FnOnce() + Send + 'static) {
    thread::spawn(test).join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_transport_goes_on_by_what_a_filter_leaves() {
    use Call::{Recvmmsg, Recvmsg, Sendmmsg, Sendmsg};

    let filters: [&[Call]; 6] = [
        &[Recvmmsg],
        &[Sendmmsg],
        &[Recvmsg, Sendmsg],
        &[Recvmmsg, Sendmmsg],
        &[Recvmmsg, Recvmsg],
        &[Recvmmsg, Recvmsg, Sendmmsg, Sendmsg],
    ];
    for filter in filters {
        for code in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
            for before in [false, true] {
                in_a_thread(move || {
                    // What the system has is looked up once in the life of the process.
                    let mut server = UdpTransport::bind(V4).unwrap();
                    syscall::forbid(filter, code);
                    if before {
                        server = UdpTransport::bind(V4).unwrap();
                    }
                    // A server is receiving all the time.
                    assert_eq!(server.recv(&mut Inbox::new(8, 64), Wait::No).unwrap(), 0);
                    let clients = [(); 2].map(|()| UdpSocket::bind(V4).unwrap());
                    for client in &clients {
                        client.set_read_timeout(Some(PATIENT)).unwrap();
                        client.connect(server.local_addr().unwrap()).unwrap();
                    }
                    for burst in [1_u8, 20, 1, 5] {
                        for number in 0..burst {
                            clients[0].send(&[number; 20]).unwrap();
                        }
                        let received = receive(&mut server, burst.into());
                        assert!(received.iter().map(|one| one.0[0]).eq(0..burst));
                        assert!(received.iter().all(|one| !one.1.truncated));
                        let peers = clients.each_ref().map(|one| one.local_addr().unwrap());
                        let replies = received
                            .into_iter()
                            .flat_map(|(bytes, _)| peers.map(|peer| (peer, bytes.clone())));
                        let sent = server.send(&outbox(replies));
                        assert_eq!((sent.sent, sent.failed), (2 * usize::from(burst), 0));
                        for client in &clients {
                            for number in 0..burst {
                                let mut buffer = [0; 64];
                                assert_eq!(client.recv(&mut buffer).unwrap(), 20);
                                assert_eq!(buffer[0], number);
                            }
                        }
                    }
                    let features = server.features().to_string();
                    for (call, name) in [(Recvmmsg, "recvmmsg"), (Sendmmsg, "sendmmsg")] {
                        assert_eq!(
                            features.contains(name),
                            !filter.contains(&call),
                            "{features}"
                        );
                    }
                });
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn what_was_merged_before_receiving_was_forbidden_is_never_read_as_one() {
    in_a_thread(|| {
        let mut server = UdpTransport::bind(V4).unwrap();
        let peer = server.local_addr().unwrap();
        let mut client = UdpTransport::bind(V4).unwrap();
        // They leave as one, and arrive as one.
        let burst = || outbox((0..10).map(|_| (peer, vec![7; 30])));
        assert_eq!(client.send(&burst()).sent, 10);
        syscall::forbid(&[Call::Recvmmsg, Call::Recvmsg], libc::EPERM);
        let received = receive(&mut server, 1);
        assert!(received[0].1.truncated);
        let mut inbox = Inbox::new(8, 64);
        while server.recv(&mut inbox, Wait::No).unwrap() > 0 {
            assert!(inbox.pop().unwrap().meta.truncated);
        }
        // What arrives from now on is whole.
        assert_eq!(client.send(&burst()).sent, 10);
        for (bytes, meta) in receive(&mut server, 10) {
            assert_eq!((bytes.len(), meta.truncated), (30, false));
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn where_ipv6_only_cannot_be_set_it_matters_for_all_addresses_only() {
    in_a_thread(|| {
        // As on a system that has no dual-stack sockets; Linux's own default is to have them.
        let only_v6 = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        syscall::forbid_option(only_v6, libc::EINVAL);
        let options = UdpOptions::new();
        let server = options.bind("[::1]:0").unwrap();
        let connector = UdpConnector::from(options.clone());
        connector.connect(server.local_addr().unwrap()).unwrap();
        let is_dual = SockRef::from(UdpTransport::bind("[::]:0").unwrap().socket())
            .only_v6()
            .is_ok_and(|only| !only);
        assert!(is_dual);
        // What was asked for cannot be had.
        assert!(options.only_v6(true).bind("[::]:0").is_err());
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_firewall_that_refuses_a_datagram_is_no_filter_of_system_calls() {
    let mut server = UdpTransport::bind("0.0.0.0:0").unwrap();
    // Without SO_BROADCAST, the kernel refuses it with EACCES.
    let forbidden = (SocketAddr::from(([255, 255, 255, 255], 9)), vec![0; 40]);
    let client = UdpSocket::bind(V4).unwrap();
    let allowed = (client.local_addr().unwrap(), vec![0; 40]);
    let mixed = [&forbidden, &allowed, &forbidden, &allowed, &allowed];
    let sent = server.send(&outbox(mixed.into_iter().cloned()));
    assert_eq!((sent.sent, sent.failed), (3, 2));
    assert_eq!(sent.errors_by_class().get(ErrorClass::Configuration), 2);
    assert!(server.features().to_string().contains("sendmmsg"));
}
