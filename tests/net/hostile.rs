//! Attacks from outside on a server in a process of its own. After each, it is the same process and
//! answers the next request. Its counters moved by exactly what was sent. It has as many
//! descriptors and as much memory as before.
//!
//! Only where all of 127.0.0.0/8 is this machine, and `/proc` and signals work as on Linux.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::Codec;
use rejoinder::codec::Ctime;
use rejoinder::gate::REFLECTOR_PORTS;

use rejoinder_test_support::settings::in_every_setting;
use rejoinder_test_support::victim::{self, Failing, Victim, asker, receive};

/// What 小Zurich says to what it does not understand.
const PARDON: &str = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~";
const FRAME: &[u8] = b"[b'Sun Jul  7 17:17:58 2019']";

/// Not a test: the process that the tests start.
#[test]
#[ignore = "it is the server that the other tests start"]
fn victim_process() {
    victim::process();
}

/// Sends each, one after another.
fn send_all<B: AsRef<[u8]>>(to: SocketAddr, datagrams: impl IntoIterator<Item = B>) {
    let socket = asker(to);
    for bytes in datagrams {
        socket.send(bytes.as_ref()).unwrap();
    }
}

/// Asks, and expects the answer.
fn expect_answer(to: SocketAddr, request: &[u8], expected: &str) {
    let socket = asker(to);
    socket.send(request).unwrap();
    let reply = receive(&socket);
    assert_eq!(
        Ctime::local().decode_response(&reply).unwrap().text,
        expected
    );
}

#[test]
fn datagrams_of_every_size_and_kind_move_their_counters_and_nothing_else() {
    in_every_setting(|setting| {
        let mut victim = Victim::start_in(setting);

        victim.attack("nothing at all", &[("dropped_malformed", 3)], |to| {
            send_all(to, [[]; 3]);
        });
        victim.attack("the longest datagram", &[("replied", 1)], |to| {
            expect_answer(to, &vec![b'x'; 65_507], PARDON);
        });
        victim.attack(
            "the longest, of garbage",
            &[("dropped_malformed", 1)],
            |to| {
                send_all(to, [vec![0xff; 65_507]]);
            },
        );

        // Unicode 16, table 3-7: whatever is not in it.
        let invalid: &[&[u8]] = &[
            b"\x80",                                     // a continuation of nothing
            b"\xbf\xbf",                                 // two of them
            b"\xc0\xaf",                                 // two bytes for one
            b"\xc1\xbf",                                 // the same
            b"\xe0\x80\xaf",                             // three bytes for one
            b"\xf0\x80\x80\xaf",                         // four bytes for one
            b"\xf0\x8f\xbf\xbf",                         // four bytes for three
            b"\xed\xa0\x80",                             // a high surrogate
            b"\xed\xbf\xbf",                             // a low surrogate
            b"\xed\xa0\x80\xed\xb0\x80",                 // a pair of them
            b"\xf4\x90\x80\x80",                         // beyond U+10FFFF
            b"\xf5\x80\x80\x80",                         // far beyond
            b"\xfe",                                     // never a byte of UTF-8
            b"\xff",                                     // nor this
            b"\xe4\xbd",                                 // cut off
            "你好吗".as_bytes().split_last().unwrap().1, // cut off at the end of a request
            b"\xe4\xbd\xa0\xe5\xa5x",                    // cut off by another character
        ];
        victim.attack(
            "UTF-8 broken in every way",
            &[("dropped_malformed", invalid.len() as u64)],
            |to| send_all(to, invalid),
        );

        victim.attack("a character across byte 1024", &[("replied", 4)], |to| {
            for padding in 1_016..1_020 {
                let between = format!("{}好", "x".repeat(padding));
                let request = format!("你{between}吗？");
                assert_eq!(request.is_char_boundary(1_024), padding == 1_018);
                expect_answer(
                    to,
                    request.as_bytes(),
                    &format!("【机器人】小Zurich {between}!"),
                );
            }
        });
    });
}

#[test]
fn near_frames_are_requests_and_frames_are_never_answered() {
    in_every_setting(|setting| {
        let mut victim = Victim::start_in(setting);
        let near = [
            "[b'",
            "[b'']",
            "[b'Sat Feb 30 17:17:58 2019']x",
            "[b'Mon Jul  7 17:17:58 2019']x",
            "[b'Sun Jul 07 17:17:58 2019']x",
            "[b'Sun Jul  7 24:00:00 2019']x",
            "[b'Sun Jul  7 17:17:58 2019'",
            " [b'Sun Jul  7 17:17:58 2019']x",
        ];
        victim.attack("near-frames", &[("replied", near.len() as u64)], |to| {
            for text in near {
                expect_answer(to, text.as_bytes(), PARDON);
            }
        });
        victim.attack("64 KiB of brackets", &[("replied", 1)], |to| {
            expect_answer(to, &vec![b'['; 65_507], PARDON);
        });
        victim.attack("frames", &[("dropped_response", 3)], |to| {
            let mut long = FRAME.to_vec();
            long.resize(65_507, b'x');
            send_all(to, [FRAME, &long, &[FRAME, b"\xff"].concat()]);
        });
    });
}

#[test]
fn what_means_something_elsewhere_is_taken_literally() {
    let mut victim = Victim::start(&[]);
    let literal = [
        "%s %n {} {:?} $(x) ${x} `x` ; | & \\ \\n \"'",
        "\u{1b}[m\u{7}\r\n\t\u{1b}]P;title\u{7}",
        "\u{202e}\u{2066}\u{200f}\u{2028}\0\u{9b}J",
        "我{name}我",
    ];
    victim.attack("text with a meaning", &[("replied", 4)], |to| {
        for text in literal {
            let expected = format!("【机器人】小Zurich {}!", text.replace('我', "自己"));
            expect_answer(to, format!("你{text}吗？").as_bytes(), &expected);
        }
    });
    victim.attack("text with digits", &[("replied", 2)], |to| {
        expect_answer(to, "你${1}吗？".as_bytes(), PARDON);
        expect_answer(to, "{1} ${1} $1 \\1".as_bytes(), PARDON);
    });
}

#[test]
fn reflector_ports_are_not_answered_and_their_neighbours_are() {
    let mut victim = Victim::start(&[]);
    // Where one runs as an ordinary user, the system does not give the first of them away.
    let sockets: Vec<_> = REFLECTOR_PORTS
        .into_iter()
        .filter_map(|port| UdpSocket::bind(("127.77.0.1", port)).ok())
        .collect();
    let reached = sockets.len() as u64;
    assert!(reached > 0, "none of the ports could be bound");
    victim.attack(
        "requests from reflector ports",
        &[("dropped_source_reflector", reached)],
        |to| {
            for socket in &sockets {
                socket.send_to("你好吗？".as_bytes(), to).unwrap();
            }
        },
    );
    victim.attack("a request from beside one", &[("replied", 1)], |to| {
        let socket = UdpSocket::bind("127.77.0.1:11212").unwrap();
        socket.send_to(b"?", to).unwrap();
        receive(&socket);
    });
}

#[test]
fn what_a_server_on_every_address_seems_to_have_sent_itself_is_not_answered() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let mut victim = Victim::start(&[("bind", bind), ("poke", "itself")]);
        victim.settle(&[("received", 1), ("dropped_source_own", 1)]);
        victim.expect_recovery();
    }
}

#[test]
fn an_ipv4_client_is_answered_by_a_dual_stack_server() {
    let mut victim = Victim::start(&[("bind", "[::]:0")]);
    let port = victim.addr().port();
    victim.attack("IPv4 and IPv6", &[("replied", 2)], |_| {
        for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
            let socket = UdpSocket::bind(from).unwrap();
            let to: SocketAddr = format!("{to}:{port}").parse().unwrap();
            socket.send_to(b"?", to).unwrap();
            assert_eq!(socket_receive_from(&socket), to);
        }
    });
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    for bind in ["0.0.0.0:0", "[::]:0"] {
        let mut victim = Victim::start(&[("bind", bind)]);
        let to = SocketAddr::from(([127, 0, 0, 2], victim.addr().port()));
        victim.attack("a request to 127.0.0.2", &[("replied", 1)], |_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"?", to).unwrap();
            assert_eq!(socket_receive_from(&socket), to);
        });
    }
}

fn socket_receive_from(socket: &UdpSocket) -> SocketAddr {
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.recv_from(&mut [0; 1_024]).unwrap().1
}

#[test]
fn ten_thousand_clients_that_do_not_wait_for_the_answer() {
    let mut victim = Victim::start(&[]);
    for _ in 0..100 {
        victim.attack("clients that went away", &[("replied", 100)], |to| {
            for _ in 0..100 {
                asker(to).send(b"?").unwrap();
            }
        });
    }
}

#[test]
fn a_server_that_was_stopped_by_a_signal_goes_on_where_it_was() {
    let mut victim = Victim::start(&[]);
    victim.expect_interruptions();
    victim.attack("a pause of seconds", &[("replied", 50)], |to| {
        victim_signal(to, "STOP");
        let sockets: Vec<_> = (0..50).map(|_| asker(to)).collect();
        for socket in &sockets {
            socket.send("你好吗？".as_bytes()).unwrap();
        }
        // The attack: it is the time itself that might do harm.
        thread::sleep(Duration::from_secs(2));
        victim_signal(to, "CONT");
        for socket in &sockets {
            receive(socket);
        }
    });

    // The same in a flood that no queue holds.
    let stop = AtomicBool::new(false);
    let to = victim.addr();
    thread::scope(|scope| {
        scope.spawn(|| {
            let socket = asker(to);
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send(b"?");
            }
        });
        for _ in 0..5 {
            victim_signal(to, "STOP");
            thread::sleep(Duration::from_millis(200));
            victim_signal(to, "CONT");
        }
        stop.store(true, Ordering::Relaxed);
    });
    victim.expect_recovery();
    victim.end();
}

#[test]
fn requests_that_waited_too_long_while_a_server_was_stopped_are_not_read() {
    let max_age = Duration::from_millis(250);
    let mut victim = Victim::start(&[("max_age", &max_age.as_millis().to_string())]);
    victim.expect_interruptions();
    let attack = |to, requests| {
        victim_signal(to, "STOP");
        send_all(to, (0..requests).map(|_| "你好吗？"));
        // The attack: it is the time itself that does harm.
        thread::sleep(max_age + max_age / 10);
        victim_signal(to, "CONT");
    };
    // The system begins to note the time of arrival at some time after it was asked to.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut probes = 0;
    loop {
        attack(victim.addr(), 1);
        probes += 1;
        let stats = victim.wait_for(|stats| stats["received"] == probes && stats["pending"] == 0);
        if stats["dropped_stale"] > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
    }
    victim.attack("a pause", &[("dropped_stale", 50)], |to| attack(to, 50));
}

/// Signals the process behind an address.
fn victim_signal(to: SocketAddr, signal: &str) {
    victim::signal(to, signal);
}

#[test]
fn errors_of_the_system_cost_the_replies_that_they_hit_and_nothing_else() {
    let mut victim = Victim::start(&[("faults", "yes")]);
    for (name, code, class) in [
        ("EPERM", 1, "configuration"),
        ("EINTR", 4, "interrupted"),
        ("ENOMEM", 12, "resources"),
        ("EMSGSIZE", 90, "peer"),
        ("ENETUNREACH", 101, "peer"),
        ("ECONNRESET", 104, "peer"),
        ("ENOBUFS", 105, "resources"),
        ("ECONNREFUSED", 111, "peer"),
    ] {
        // That a signal came is no failure, but is counted as what it is.
        let failures = if name == "EINTR" { 0 } else { 3 };
        let of_class = format!("receive_errors_{class}");
        let moved = [("receive_errors", failures), (&of_class, 3)];
        victim.attack_and_count(name, &moved, |victim| {
            victim.fail(Failing::Receive, 3, code);
        });

        let of_class = format!("send_errors_{class}");
        let moved = [
            ("received", 3),
            ("replied", 3),
            ("responses_failed", 3),
            (&of_class, 3),
        ];
        victim.attack_and_count(name, &moved, |victim| {
            victim.fail(Failing::Send, 3, code);
            send_all(victim.addr(), ["?"; 3]);
        });
    }
    victim.end();
}

#[test]
fn two_servers_that_are_pointed_at_each_other_exchange_one_answer() {
    let mut first = Victim::start(&[]);
    let poke = first.addr().to_string();
    let mut second = Victim::start(&[("poke", &poke)]);
    first.settle(&[("received", 1), ("replied", 1), ("responses_sent", 1)]);
    second.settle(&[("received", 1), ("dropped_response", 1)]);
    first.expect_recovery();
    second.expect_recovery();
    // Nothing went on behind that.
    first.settle(&[("received", 2), ("replied", 2), ("responses_sent", 2)]);
    let answered = [
        ("received", 2),
        ("dropped_response", 1),
        ("replied", 1),
        ("responses_sent", 1),
    ];
    second.settle(&answered);
}

#[test]
fn an_echo_service_gets_one_answer() {
    in_every_setting(|setting| {
        let mut victim = Victim::start_in(setting);
        victim.attack(
            "an echo service",
            &[("replied", 1), ("dropped_response", 1)],
            |to| {
                let echo = asker(to);
                echo.send(b"?").unwrap();
                let mut buffer = [0; 1_024];
                let len = echo.recv(&mut buffer).unwrap();
                echo.send(&buffer[..len]).unwrap();
            },
        );
    });
}

#[test]
fn a_rate_limited_server_says_no_to_a_flood_and_yes_to_everybody_else() {
    let mut victim = Victim::start(&[("answers", "10")]);
    let answered = victim.flood_from("127.1.1.1:0", 200);
    // What the rate gives while the test runs comes on top of the burst.
    assert!((10..200).contains(&answered), "{answered} answers");
    victim.expect_recovery();
    let stats = victim.end();
    assert_eq!(stats["replied"], answered + 1);
    assert_eq!(stats["dropped_rate_limited"], 200 - answered);
}

#[test]
fn a_server_that_ends_under_load_has_counted_everything() {
    let mut victim = Victim::start(&[("answers", "1000")]);
    let stop = AtomicBool::new(false);
    let to = victim.addr();
    let (stats, sent) = thread::scope(|scope| {
        let senders: Vec<_> = (1..=4)
            .map(|host| {
                let stop = &stop;
                scope.spawn(move || {
                    let socket = UdpSocket::bind(("127.2.0.1", 0)).unwrap();
                    let payloads: [&[u8]; 4] = [b"?", b"\xff", FRAME, b""];
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let payload = payloads[(sent + host) % payloads.len()];
                        sent += usize::from(socket.send_to(payload, to).is_ok());
                    }
                    sent
                })
            })
            .collect();
        victim.wait_for(|stats| stats["received"] > 10_000);
        let stats = victim.end();
        stop.store(true, Ordering::Relaxed);
        let sent: usize = senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum();
        (stats, sent as u64)
    });
    // `end` has checked that the counters add up.
    assert!(stats["received"] <= sent);
    assert_eq!(
        stats["responses_sent"] + stats["responses_failed"],
        stats["replied"]
    );
    for counter in [
        "replied",
        "dropped_malformed",
        "dropped_response",
        "dropped_rate_limited",
    ] {
        assert!(stats[counter] > 0, "{counter}");
    }
}
