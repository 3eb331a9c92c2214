//! The UDP transport on the loopback interface.
//!
//! Tests over IPv6 fail, and say why, on a machine without an IPv6 loopback address. To leave them
//! out there on purpose, set the environment variable `REJOINDER_TESTS_WITHOUT_IPV6`.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use socket2::SockRef;

use rejoinder::transport::{Connect, Inbox, MAX_DATAGRAM_BYTES, Outbox};
use rejoinder::udp::{UdpConnector, UdpOptions, UdpTransport};
use rejoinder::{ConfigError, Transport, Wait};

/// Long enough for a machine under load; nothing waits so long when all is well.
const PATIENT: Duration = Duration::from_secs(30);

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";
const ANY_V6: &str = "[::]:0";

/// Whether tests over IPv6 are to run.
fn ipv6() -> bool {
    if let Err(error) = UdpSocket::bind(V6) {
        assert!(
            std::env::var_os("REJOINDER_TESTS_WITHOUT_IPV6").is_some(),
            "no IPv6 loopback on this machine ({error}); \
             set REJOINDER_TESTS_WITHOUT_IPV6 to leave out the tests that need it"
        );
        return false;
    }
    true
}

/// A plain socket: what the transport under test is compared with.
fn plain(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    socket
}

fn loopback(port: u16, ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Receives one datagram from a transport: its bytes, its sender and whether it was truncated.
fn receive(transport: &mut UdpTransport, inbox: &mut Inbox) -> (Vec<u8>, SocketAddr, bool) {
    assert_eq!(transport.recv(inbox, Wait::For(PATIENT)).unwrap(), 1);
    let datagram = inbox.pop().unwrap();
    let meta = datagram.meta;
    (datagram.bytes.to_vec(), meta.peer, meta.truncated)
}

fn kind(result: Result<UdpTransport, ConfigError>) -> ErrorKind {
    io::Error::from(result.unwrap_err()).kind()
}

fn receive_plain(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, peer) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(len);
    (buffer, peer)
}

fn outbox(datagrams: &[(SocketAddr, &[u8])]) -> Outbox {
    let mut outbox = Outbox::new(datagrams.len(), MAX_DATAGRAM_BYTES);
    for (peer, bytes) in datagrams {
        let pushed = outbox.push(*peer, None, bytes);
        pushed.unwrap();
    }
    outbox
}

/// A question to a transport and its answer back, through a plain socket.
fn round_trip(transport: &mut UdpTransport, asker: &UdpSocket, ip: IpAddr) {
    let port = transport.local_addr().unwrap().port();
    asker.send_to(b"question", loopback(port, ip)).unwrap();
    let mut inbox = Inbox::new(1, 64);
    let (bytes, peer, truncated) = receive(transport, &mut inbox);
    assert_eq!((&bytes[..], truncated), (&b"question"[..], false));
    assert_eq!(peer, asker.local_addr().unwrap());

    let sent = transport.send(&outbox(&[(peer, b"answer")]));
    assert_eq!((sent.sent, sent.failed), (1, 0), "{:?}", sent.last_error);
    assert_eq!(
        receive_plain(asker),
        (b"answer".to_vec(), loopback(port, ip))
    );
}

#[test]
fn ipv4() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    round_trip(&mut transport, &plain(V4), Ipv4Addr::LOCALHOST.into());
}

#[test]
fn ipv6_only_and_not() {
    if !ipv6() {
        return;
    }
    for only in [true, false] {
        for addr in [V6, ANY_V6] {
            let mut transport = UdpOptions::new().only_v6(only).bind(addr).unwrap();
            round_trip(&mut transport, &plain(V6), Ipv6Addr::LOCALHOST.into());
        }
    }
}

#[test]
fn a_dual_stack_socket_tells_an_ipv4_peer_as_such_and_can_answer_it() {
    if !ipv6() {
        return;
    }
    let mut transport = UdpTransport::bind(ANY_V6).unwrap();
    // The round trip compares the peer with what the IPv4 socket calls itself.
    round_trip(&mut transport, &plain(V4), Ipv4Addr::LOCALHOST.into());
    round_trip(&mut transport, &plain(V6), Ipv6Addr::LOCALHOST.into());
}

#[test]
fn a_socket_for_ipv6_only_leaves_the_ipv4_port_to_others() {
    if !ipv6() {
        return;
    }
    let alone = UdpOptions::new().only_v6(true).bind(ANY_V6).unwrap();
    let port = alone.local_addr().unwrap().port();
    // Another process may have that port; then nothing is checked.
    if let Ok(other) = UdpTransport::bind(("0.0.0.0", port)) {
        assert_eq!(other.local_addr().unwrap().port(), port);
        let both = UdpTransport::bind(("::", port));
        assert_eq!(kind(both), ErrorKind::AddrInUse);
    }
}

#[test]
fn the_local_address_of_a_datagram_is_told_where_the_socket_has_only_one() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    plain(V4).send_to(b"x", addr).unwrap();
    let mut inbox = Inbox::new(1, 64);
    transport.recv(&mut inbox, Wait::For(PATIENT)).unwrap();
    assert_eq!(inbox.pop().unwrap().meta.local, Some(addr.ip()));
}

#[test]
fn the_first_address_that_can_be_had_is_taken_and_the_last_error_told() {
    let keeper = UdpTransport::bind(V4).unwrap();
    let taken = keeper.local_addr().unwrap();
    let free = loopback(0, Ipv4Addr::LOCALHOST);
    let transport = UdpTransport::bind(&[taken, free][..]).unwrap();
    assert_ne!(transport.local_addr().unwrap(), taken);
    assert_eq!(
        kind(UdpTransport::bind(&[taken, taken][..])),
        ErrorKind::AddrInUse
    );
    assert_eq!(kind(UdpTransport::bind(&[][..])), ErrorKind::InvalidInput);
}

// Adopted sockets.

#[test]
fn an_existing_socket_is_adopted_in_whatever_mode_it_is() {
    for nonblocking in [false, true] {
        let socket = UdpSocket::bind(V4).unwrap();
        socket.set_nonblocking(nonblocking).unwrap();
        // A timeout that was set from outside must not cut a wait short.
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let addr = socket.local_addr().unwrap();
        let mut transport = UdpOptions::new().adopt(socket).unwrap();
        assert_eq!(transport.local_addr().unwrap(), addr);

        let wait = Duration::from_millis(50);
        let begun = Instant::now();
        let mut inbox = Inbox::new(1, 64);
        assert_eq!(transport.recv(&mut inbox, Wait::For(wait)).unwrap(), 0);
        assert!(begun.elapsed() >= wait * 9 / 10, "it waited");
        round_trip(&mut transport, &plain(V4), Ipv4Addr::LOCALHOST.into());
    }
}

#[test]
fn a_connected_socket_is_adopted_and_talks_to_its_peer_only() {
    let peer = plain(V4);
    let stranger = plain(V4);
    let socket = UdpSocket::bind(V4).unwrap();
    let addr = socket.local_addr().unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let mut transport = UdpOptions::new().adopt(socket).unwrap();
    round_trip(&mut transport, &peer, Ipv4Addr::LOCALHOST.into());

    let sent = transport.send(&outbox(&[
        (stranger.local_addr().unwrap(), b"no"),
        (peer.local_addr().unwrap(), b"yes"),
    ]));
    assert_eq!((sent.sent, sent.failed), (1, 1));
    assert_eq!(sent.last_error.unwrap().kind(), ErrorKind::InvalidInput);
    assert_eq!(receive_plain(&peer).0, b"yes");

    // What a stranger sends is filtered out by the system: the next that arrives is the peer's.
    stranger.send_to(b"stranger", addr).unwrap();
    peer.send_to(b"peer", addr).unwrap();
    let (bytes, ..) = receive(&mut transport, &mut Inbox::new(1, 64));
    assert_eq!(bytes, b"peer");
}

// On these systems an IPv6 socket of the standard library is dual-stack by default.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn a_connected_dual_stack_socket_knows_its_ipv4_peer_by_both_names() {
    if !ipv6() {
        return;
    }
    let peer = plain(V4);
    let port = peer.local_addr().unwrap().port();
    let mapped = loopback(port, Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let socket = UdpSocket::bind(ANY_V6).unwrap();
    socket.connect(mapped).unwrap();
    let mut transport = UdpOptions::new().adopt(socket).unwrap();
    let sent = transport.send(&outbox(&[
        (mapped, b"mapped"),
        (peer.local_addr().unwrap(), b"canonical"),
    ]));
    assert_eq!((sent.sent, sent.failed), (2, 0), "{:?}", sent.last_error);
    assert_eq!(receive_plain(&peer).0, b"mapped");
    assert_eq!(receive_plain(&peer).0, b"canonical");
}

#[test]
fn connecting_gives_each_transport_a_port_of_its_own() {
    let peer = plain(V4);
    let peer_addr = peer.local_addr().unwrap();
    let mut transports = [(); 2].map(|()| UdpConnector::default().connect(peer_addr).unwrap());
    let mut ports = Vec::new();
    for transport in &mut transports {
        transport.send(&outbox(&[(peer_addr, b"x")]));
        ports.push(receive_plain(&peer).1.port());
    }
    assert_ne!(ports[0], ports[1]);
    for mut transport in transports {
        let port = transport.local_addr().unwrap().port();
        peer.send_to(b"answer", loopback(port, Ipv4Addr::LOCALHOST))
            .unwrap();
        let (bytes, from, _) = receive(&mut transport, &mut Inbox::new(1, 64));
        assert_eq!((&bytes[..], from), (&b"answer"[..], peer_addr));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_for_a_group_is_not_connected_and_one_for_broadcast_must_be_asked_for() {
    let connector = |broadcast| UdpConnector::from(UdpOptions::new().broadcast(broadcast));
    let everyone = "255.255.255.255:9".parse().unwrap();
    let error = connector(false).connect(everyone).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for peer in [
        everyone,
        "239.1.2.3:9".parse().unwrap(),
        "[ff02::1234]:9".parse().unwrap(),
    ] {
        if peer.is_ipv6() && !ipv6() {
            continue;
        }
        let mut transport = connector(true).connect(peer).unwrap();
        // One who answers has an address of its own.
        let ip: IpAddr = if peer.is_ipv6() {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        let responder = plain(if peer.is_ipv6() { V6 } else { V4 });
        let port = transport.local_addr().unwrap().port();
        responder.send_to(b"here", loopback(port, ip)).unwrap();
        let (bytes, from, _) = receive(&mut transport, &mut Inbox::new(1, 64));
        assert_eq!(
            (&bytes[..], from),
            (&b"here"[..], responder.local_addr().unwrap())
        );
    }
}

// Waiting.

#[test]
fn not_waiting_and_waiting_for_no_time_return_at_once() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    let sender = plain(V4);
    let mut inbox = Inbox::new(1, 64);
    // In any order: each call must undo the mode of the one before.
    let waits = [
        Wait::No,
        Wait::For(Duration::ZERO),
        Wait::For(Duration::from_nanos(1)),
        Wait::No,
        Wait::For(Duration::from_millis(1)),
        Wait::For(Duration::ZERO),
    ];
    for wait in waits {
        assert_eq!(transport.recv(&mut inbox, wait).unwrap(), 0, "{wait:?}");
    }
    for wait in waits.into_iter().chain([Wait::Forever, Wait::No]) {
        sender.send_to(b"x", addr).unwrap();
        // Loopback delivers before the sending call returns, but no standard says so.
        let begun = Instant::now();
        while transport.recv(&mut inbox, wait).unwrap() == 0 {
            assert!(begun.elapsed() < PATIENT, "{wait:?}");
        }
        assert_eq!(inbox.pop().unwrap().bytes, b"x", "{wait:?}");
    }
}

#[test]
fn the_longest_wait_there_is_is_one() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    let mut inbox = Inbox::new(1, 64);
    plain(V4).send_to(b"x", addr).unwrap();
    let received = transport.recv(&mut inbox, Wait::For(Duration::MAX));
    assert_eq!(received.unwrap(), 1);
}

#[test]
fn a_full_inbox_takes_nothing_and_loses_nothing() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    let sender = plain(V4);
    let mut inbox = Inbox::new(1, 64);
    for bytes in [b"1", b"2"] {
        sender.send_to(bytes, addr).unwrap();
    }
    assert_eq!(transport.recv(&mut inbox, Wait::For(PATIENT)).unwrap(), 1);
    assert_eq!(transport.recv(&mut inbox, Wait::For(PATIENT)).unwrap(), 0);
    assert_eq!(inbox.pop().unwrap().bytes, b"1");
    assert_eq!(receive(&mut transport, &mut inbox).0, b"2");
}

// Sending.

#[test]
fn one_destination_that_is_impossible_holds_up_no_other() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let [first, second] = [plain(V4), plain(V4)];
    let [a, b] = [&first, &second].map(|socket| socket.local_addr().unwrap());
    let impossible: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
    let sent = transport.send(&outbox(&[
        (impossible, b"lost"),
        (a, b"1"),
        (b, b"2"),
        (impossible, b"lost"),
        (a, b"3"),
        (b, b"4"),
        (a, b""),
    ]));
    assert_eq!((sent.sent, sent.failed), (5, 2));
    assert!(sent.last_error.is_some());
    for expected in [&b"1"[..], b"3", b""] {
        assert_eq!(receive_plain(&first).0, expected);
    }
    for expected in [b"2", b"4"] {
        assert_eq!(receive_plain(&second).0, expected);
    }
}

#[test]
fn an_empty_outbox_sends_nothing() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let sent = transport.send(&Outbox::new(1, 64));
    assert_eq!((sent.sent, sent.failed), (0, 0));
    assert!(sent.last_error.is_none());
}

// Sizes.

#[test]
fn invariant_4_truncation_is_told_exactly() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    let sender = plain(V4);
    for limit in [0, 1, 16, 1_200] {
        let mut inbox = Inbox::new(2, limit);
        for (len, truncated) in [
            (0, false),
            (limit, false),
            (limit + 1, true),
            (limit + 2, true),
            (limit + 1_000, true),
            (limit, false),
        ] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            sender.send_to(&bytes, addr).unwrap();
            let (received, _, told) = receive(&mut transport, &mut inbox);
            assert_eq!(told, truncated, "{len} bytes, limit {limit}");
            if !truncated {
                assert_eq!(received, bytes);
            }
        }
    }
}

#[test]
fn datagrams_of_no_bytes_and_of_65507_pass_both_ways() {
    let mut transport = UdpTransport::bind(V4).unwrap();
    let addr = transport.local_addr().unwrap();
    let other = plain(V4);
    let peer = other.local_addr().unwrap();
    let mut inbox = Inbox::new(1, MAX_DATAGRAM_BYTES);
    for len in [0, 1, MAX_DATAGRAM_BYTES - 1, MAX_DATAGRAM_BYTES] {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        other.send_to(&bytes, addr).unwrap();
        assert!(receive(&mut transport, &mut inbox) == (bytes.clone(), peer, false));
        let sent = transport.send(&outbox(&[(peer, &bytes)]));
        assert_eq!((sent.sent, sent.failed), (1, 0), "{:?}", sent.last_error);
        assert!(receive_plain(&other) == (bytes, addr));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_that_was_shut_down_is_gone() {
    for addr in [V4, V6] {
        if addr == V6 && !ipv6() {
            continue;
        }
        for options in [UdpOptions::new(), UdpOptions::new().portable()] {
            let socket = plain(addr);
            let other = socket.try_clone().unwrap();
            let asker = plain(addr);
            let mut transport = options.adopt(socket).unwrap();
            asker.send_to(b"", transport.local_addr().unwrap()).unwrap();
            let mut inbox = Inbox::new(8, 512);
            // An empty datagram is a datagram.
            let (bytes, peer, _) = receive(&mut transport, &mut inbox);
            assert_eq!((bytes.len(), peer), (0, asker.local_addr().unwrap()));
            // It says that it is not connected, and does it.
            let shut = SockRef::from(&other).shutdown(std::net::Shutdown::Read);
            assert_eq!(shut.unwrap_err().kind(), ErrorKind::NotConnected);
            for _ in 0..2 {
                let gone = transport.recv(&mut inbox, Wait::For(PATIENT)).unwrap_err();
                assert_eq!(gone.kind(), ErrorKind::NotConnected, "{addr} {options:?}");
                assert!(inbox.is_empty());
            }
        }
    }
}

#[test]
fn over_ipv6_a_datagram_can_pass_even_the_greatest_limit_and_is_told_to_be_truncated() {
    if !ipv6() {
        return;
    }
    let mut transport = UdpTransport::bind(V6).unwrap();
    let addr = transport.local_addr().unwrap();
    let sender = plain(V6);
    let mut inbox = Inbox::new(1, MAX_DATAGRAM_BYTES);
    // Over IPv6 the limit is 65,535 less the UDP header only (RFC 8200 §3).
    for (len, truncated) in [
        (MAX_DATAGRAM_BYTES, false),
        (MAX_DATAGRAM_BYTES + 1, true),
        (65_527, true),
    ] {
        sender.send_to(&vec![b'x'; len], addr).unwrap();
        let (bytes, _, told) = receive(&mut transport, &mut inbox);
        assert_eq!(told, truncated, "{len}");
        assert!(truncated || bytes.len() == len);
    }
}
