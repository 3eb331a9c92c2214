//! A server as its users run it: `Server::serve` in a thread, mostly on a real socket; and then by
//! the fast path and the portable one, over IPv4 and IPv6, with one worker and with several.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rejoinder::bot::zurich;
use rejoinder::codec::{Ctime, Raw, Tagged, Text};
use rejoinder::transport::{ErrorClass, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::udp::{UdpOptions, UdpTransport};
use rejoinder::{
    Codec, DropReason, Handler, ServeError, Server, ServerBuilder, ServerHandle, Stats, Transport,
    Wait,
};

use rejoinder_test_support::settings::{Setting, has_ipv6, in_every_setting};

/// Long enough for a machine under load; nothing waits so long when all is well.
const PATIENT: Duration = Duration::from_secs(30);

const FALLBACK: &str = "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~";
const FRAME: &str = "[b'Sun Jul  7 17:17:58 2019']你好吗？";
/// A continuation alone, a character cut short, an overlong one, a surrogate, one beyond Unicode,
/// and a byte that UTF-8 does not have.
const INVALID_UTF8: [&[u8]; 6] = [
    b"\x80",
    b"\xe4\xbd",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xff",
];

/// A server at work.
struct Running {
    addr: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<Result<Stats, ServeError>>,
}

impl Running {
    fn start<T, C, H>(server: Server<T, C>, handler: H) -> Self
    where
        T: Transport + Send + 'static,
        C: Codec + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        Self {
            addr: server.local_addr().unwrap(),
            handle: server.handle(),
            thread: thread::spawn(move || server.serve(handler)),
        }
    }

    /// 小Zurich on a port of its own.
    fn zurich(setting: Setting) -> Self {
        Self::start(bind(setting, Ctime::utc()), zurich())
    }

    fn asker(&self) -> UdpSocket {
        asker(self.addr)
    }

    /// Waits until the counters fulfil a condition, and returns them.
    fn wait_for(&self, condition: impl Fn(&Stats) -> bool) -> Stats {
        let begun = Instant::now();
        loop {
            let stats = self.handle.stats();
            assert!(stats.is_conserved(), "{stats}");
            if condition(&stats) {
                return stats;
            }
            assert!(begun.elapsed() < PATIENT, "{stats}");
            thread::yield_now();
        }
    }

    fn stop(self) -> Stats {
        self.handle.shutdown();
        let stats = self.thread.join().unwrap().unwrap();
        assert!(stats.is_conserved(), "{stats}");
        assert_eq!(stats.pending, 0);
        assert_eq!(stats, self.handle.stats(), "the handle knows the last word");
        stats
    }
}

fn options(setting: Setting) -> UdpOptions {
    if setting.portable {
        UdpOptions::new().portable()
    } else {
        UdpOptions::new()
    }
}

fn bind<C: Codec + Clone>(setting: Setting, codec: C) -> Server<UdpTransport, C> {
    bind_with(setting, Server::builder(codec))
}

fn bind_with<C: Codec + Clone>(
    setting: Setting,
    builder: ServerBuilder<C>,
) -> Server<UdpTransport, C> {
    builder
        .udp_options(options(setting))
        .workers(setting.workers)
        .bind(setting.addr())
        .unwrap()
}

/// A socket that talks to one address only.
fn asker(to: SocketAddr) -> UdpSocket {
    let local: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENT)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// Asks and checks the answer, without the time.
fn ask(socket: &UdpSocket, request: &[u8], expected: &str) {
    socket.send(request).unwrap();
    let answer = String::from_utf8(receive(socket)).unwrap();
    let (header, text) = answer.split_once("']").unwrap();
    assert!(header.starts_with("[b'"), "{header}");
    assert!(text == expected, "{text:.100}");
}

/// Panics where tests want it, without a word.
fn panic_on_purpose() -> ! {
    static QUIET: Once = Once::new();
    struct OnPurpose;
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<OnPurpose>() {
                loud(info);
            }
        }));
    });
    panic::panic_any(OnPurpose);
}

// What single datagrams do.

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn requests_of_up_to_65507_bytes_are_answered() {
    in_every_setting(|setting| {
        let server = Running::zurich(setting);
        let asker = server.asker();
        // 3 + 3 × n + 6 bytes, and one or two more in front of the question mark.
        let praise = "好".repeat((MAX_DATAGRAM_BYTES - 9) / 3);
        let question = format!("你{praise}吗？");
        assert!(MAX_DATAGRAM_BYTES - question.len() < 3);
        // The header makes the answer longer than the question: too long for a datagram.
        ask(&asker, question.as_bytes(), FALLBACK);

        let praise = &praise[..praise.len() - 300];
        let question = format!("你{praise}吗？{}", "后".repeat(99));
        ask(
            &asker,
            question.as_bytes(),
            &format!("【机器人】小Zurich {praise}!"),
        );
        ask(&asker, &vec![b'x'; MAX_DATAGRAM_BYTES], FALLBACK);
        ask(&asker, &vec![b'\0'; MAX_DATAGRAM_BYTES], FALLBACK);

        let stats = server.stop();
        assert_eq!(
            (stats.received, stats.replied, stats.responses_sent),
            (4, 4, 4)
        );
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn replies_with_ids_come_in_some_order_but_those_to_one_request_in_theirs() {
    in_every_setting(|setting| {
        // A machine under load may let replies go before the batch is done: then it is tried again.
        let longest_first = || {
            let server = bind(setting, Tagged(Text));
            let asker = asker(server.local_addr().unwrap());
            // They wait before the server begins, so they are one batch.
            for id in 0..4 {
                let text = "x".repeat(id);
                let request = format!("?0000000{id}{text}");
                asker.send(request.as_bytes()).unwrap();
            }
            let server = Running::start(server, |text: &str| Some(format!("one{text}")));
            let mut answers = [(); 4].map(|()| receive(&asker));
            let is_sorted = answers.is_sorted_by_key(|answer| Reverse(answer.len()));
            answers.sort_unstable();
            assert_eq!(
                answers.map(|answer| String::from_utf8(answer).unwrap()),
                [
                    "!00000000one",
                    "!00000001onex",
                    "!00000002onexx",
                    "!00000003onexxx"
                ]
            );
            server.stop();
            is_sorted
        };
        let is_fast = cfg!(target_os = "linux") && !setting.portable;
        assert!(longest_first() || !is_fast || (0..20).any(|_| longest_first()));

        let server = bind(setting, Tagged(Text));
        let server = Running::start(server, |text: &str| {
            [1, 2, 3].map(|times| text.repeat(times))
        });
        let asker = server.asker();
        for id in 0..4 {
            asker.send(format!("?0000000{id}z").as_bytes()).unwrap();
        }
        let answers: Vec<Vec<u8>> = [(); 12].map(|()| receive(&asker)).to_vec();
        for id in "0123".bytes() {
            let own = answers.iter().filter(|answer| answer[8] == id);
            let lens: Vec<usize> = own.map(|answer| answer.len() - 9).collect();
            assert_eq!(lens, [1, 2, 3]);
        }
        server.stop();
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_5_each_kind_of_datagram_moves_its_counter_only_and_the_next_request_is_answered() {
    in_every_setting(|setting| {
        let server = Running::zurich(setting);
        let asker = server.asker();
        let mut expected = Stats::default();
        let mut answered = 0;
        let mut malformed = 0;
        let mut responses = 0;
        for malformed_one in [&b""[..]].into_iter().chain(INVALID_UTF8) {
            asker.send(malformed_one).unwrap();
            malformed += 1;
            ask(&asker, "你好吗？".as_bytes(), "【机器人】小Zurich 好!");
            answered += 1;
        }
        for text in [FRAME.as_bytes(), &FRAME.as_bytes()[..FRAME.len() - 1]] {
            asker.send(text).unwrap();
            responses += 1;
            ask(&asker, "hello".as_bytes(), FALLBACK);
            answered += 1;
        }
        let stats = server.stop();
        expected.received = answered + malformed + responses;
        expected.replied = answered;
        expected.responses_sent = answered;
        for (name, count) in stats.counters() {
            let expected = match name {
                "dropped_malformed" => malformed,
                "dropped_response" => responses,
                _ => expected.counters().find(|known| known.0 == name).unwrap().1,
            };
            assert_eq!(count, expected, "{name}");
        }
        // Nothing but the answers was sent: the one to ask last has its answer, and no more came.
        asker.set_nonblocking(true).unwrap();
        let nothing = asker.recv(&mut [0; 1]).unwrap_err();
        assert_ne!(nothing.kind(), ErrorKind::TimedOut);
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_4_a_request_over_the_servers_limit_is_counted_and_dropped() {
    in_every_setting(|setting| {
        let builder = Server::builder(Ctime::utc()).max_request_bytes(15);
        let server = Running::start(bind_with(setting, builder), zurich());
        let asker = server.asker();
        // A prefix of it would be a fine question.
        asker.send("你好吗？...".as_bytes()).unwrap();
        asker.send("你好吗？....".as_bytes()).unwrap();
        asker.send(&vec![b'x'; 60_000]).unwrap();
        ask(&asker, "你好吗？".as_bytes(), "【机器人】小Zurich 好!");
        ask(&asker, "你好吗？".as_bytes(), "【机器人】小Zurich 好!");
        let stats = server.stop();
        assert_eq!(stats.dropped(DropReason::Truncated), 2);
        assert_eq!((stats.received, stats.replied), (5, 3));
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_3_a_panicking_handler_is_survived() {
    in_every_setting(|setting| {
        let handler = |text: &str| match text {
            "panic" => panic_on_purpose(),
            "silence" => None,
            other => Some(other.to_owned()),
        };
        let server = Running::start(bind(setting, Text), handler);
        let asker = server.asker();
        for _ in 0..3 {
            for request in ["panic", "silence", "next"] {
                asker.send(request.as_bytes()).unwrap();
            }
            assert_eq!(receive(&asker), b"next");
        }
        let stats = server.stop();
        assert_eq!(stats.dropped(DropReason::HandlerPanicked), 3);
        assert_eq!((stats.received, stats.replied, stats.silent), (9, 3, 3));
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_2_two_servers_facing_each_other_go_quiet_after_one_datagram() {
    in_every_setting(|setting| {
        let first = Running::zurich(setting);
        // The second server's own socket sends the question, as if it were the second server.
        let socket = UdpSocket::bind(setting.addr()).unwrap();
        let forger = socket.try_clone().unwrap();
        let transport = options(setting).adopt(socket).unwrap();
        let second = Running::start(
            Server::builder(Ctime::utc())
                .with_transport(transport)
                .unwrap(),
            zurich(),
        );
        forger.send_to("你好吗？".as_bytes(), first.addr).unwrap();

        second.wait_for(|stats| stats.received > 0);
        // Each answers what has arrived before it ends: were there a datagram, it would be counted.
        // The second one first: it is the one who might go on.
        let second = second.stop();
        let first = first.stop();
        assert_eq!(
            (first.received, first.replied, first.responses_sent),
            (1, 1, 1)
        );
        assert_eq!(
            (second.received, second.replied, second.responses_sent),
            (1, 0, 0)
        );
        assert_eq!(second.dropped(DropReason::Response), 1);
    });
}

// Servers on all addresses.

/// Asks a server on `bind` at the same port of `at`; the answer must come from there.
fn is_answered_from(setting: Setting, bind: &str, at: impl Into<IpAddr>) {
    let server = Server::builder(Raw)
        .udp_options(options(setting))
        .workers(setting.workers)
        .bind(bind)
        .unwrap();
    let server = Running::start(server, |bytes: &[u8]| Some(bytes.to_vec()));
    // The asker is connected: what came from elsewhere would not arrive.
    let asker = asker(SocketAddr::new(at.into(), server.addr.port()));
    for burst in [1, 20] {
        for number in 0..burst {
            asker.send(&[number; 10]).unwrap();
        }
        for number in 0..burst {
            assert_eq!(receive(&asker), [number; 10]);
        }
    }
    assert_eq!(server.stop().responses_sent, 21);
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn clients_of_both_families_are_answered_by_a_dual_stack_server() {
    if has_ipv6() {
        in_every_setting(|setting| {
            let asked: SocketAddr = setting.addr().parse().unwrap();
            is_answered_from(setting, "[::]:0", asked.ip());
        });
    }
}

/// The portable path leaves the choice of the address to the system.
#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn the_answer_comes_from_the_address_that_was_asked_among_several() {
    in_every_setting(|setting| {
        let asked = Ipv4Addr::new(127, 0, 0, 2);
        match (setting.portable, setting.v6) {
            (true, _) => {}
            (false, false) => is_answered_from(setting, "0.0.0.0:0", asked),
            (false, true) => is_answered_from(setting, "[::]:0", asked),
        }
    });
}

// Stopping.

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn stop_answers_everything_that_had_arrived() {
    in_every_setting(|setting| {
        let (entered, at_work) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let handler = move |text: &str| {
            if text == "block" {
                entered.send(()).unwrap();
                let _ = wait.lock().unwrap().recv();
            }
            Some(text.to_owned())
        };
        let server = Running::start(bind(setting, Text), handler);
        let asker = server.asker();
        asker.send(b"block").unwrap();
        at_work.recv_timeout(PATIENT).unwrap();
        // The server is busy: these wait in the system's queue.
        for number in 0..100 {
            asker.send(format!("{number}").as_bytes()).unwrap();
        }
        server.handle.shutdown();
        drop(go_on);
        let stats = server.stop();
        assert_eq!((stats.received, stats.replied), (101, 101));
        assert_eq!(receive(&asker), b"block");
        for number in 0..100 {
            assert_eq!(receive(&asker), format!("{number}").as_bytes());
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_server_that_was_stopped_before_it_began_answers_what_is_there_and_ends() {
    in_every_setting(|setting| {
        let server = bind(setting, Text);
        let asker = asker(server.local_addr().unwrap());
        asker.send(b"x").unwrap();
        server.handle().shutdown();
        let stats = server.serve(|text: &str| Some(text.to_owned())).unwrap();
        assert_eq!((stats.received, stats.replied), (1, 1));
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn an_idle_server_ends_when_it_is_asked_to() {
    in_every_setting(|setting| {
        let server = Running::zurich(setting);
        assert_eq!(server.stop(), Stats::default());
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn invariant_1_conservation_under_load_while_running_and_when_stopped() {
    in_every_setting(|setting| {
        let server = Running::zurich(setting);
        let done = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let socket = server.asker();
                socket.set_nonblocking(true).unwrap();
                let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
                let handle = server.handle.clone();
                thread::spawn(move || {
                    let requests = ["你好吗？".as_bytes(), b"hello", b"\xff", FRAME.as_bytes()];
                    let mut buffer = [0; 1_024];
                    let mut received = 0_u64;
                    let mut requests = requests.iter().cycle().skip(client);
                    while !done.load(Ordering::Relaxed) {
                        // As many wait at any time as fit into the smallest receive buffer.
                        let room = sent.load(Ordering::Relaxed) < handle.stats().received + 200;
                        // Once the server is gone, the system refuses some.
                        if room && socket.send(requests.next().unwrap()).is_ok() {
                            sent.fetch_add(1, Ordering::Relaxed);
                        } else {
                            thread::yield_now();
                        }
                        while socket.recv(&mut buffer).is_ok() {
                            received += 1;
                        }
                    }
                    loop {
                        match socket.recv(&mut buffer) {
                            Ok(_) => received += 1,
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break received,
                            // A refused datagram; there may be answers behind it.
                            Err(_) => {}
                        }
                    }
                })
            })
            .collect();

        // Every look at the counters on the way checks that they add up, and they never go back.
        let mut looks = 0_u32;
        let mut last = Stats::default();
        while last.received < 1_000 || looks < 2 {
            let stats = server.wait_for(|stats| stats.received > last.received);
            for (now, before) in stats.counters().zip(last.counters()) {
                assert!(now.0 == "pending" || now.1 >= before.1, "{}", now.0);
            }
            last = stats;
            looks += 1;
        }
        let stats = server.stop();
        done.store(true, Ordering::Relaxed);
        let answers: u64 = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();

        assert!(stats.received >= 1_000 && stats.received <= sent.load(Ordering::Relaxed));
        // One reply to each of those answered, and none else.
        assert_eq!(stats.replied, stats.responses_sent + stats.responses_failed);
        assert!(answers <= stats.responses_sent, "{answers} came, {stats}");
        assert!(answers > 0);
        let [malformed, response] =
            [DropReason::Malformed, DropReason::Response].map(|reason| stats.dropped(reason));
        assert_eq!(stats.dropped_total(), malformed + response);
        assert!(malformed > 0 && response > 0 && stats.silent == 0);
    });
}

// Errors of the transport.

/// What a scripted transport does when it is asked to receive.
enum Event {
    Datagram(&'static [u8]),
    /// So many at once, as far as the inbox has space.
    Batch(usize),
    Error(ErrorKind),
    /// As many datagrams are promised, and none is there.
    Promise(usize),
    /// A shutdown comes earlier than that.
    Stop,
}

/// A transport that does as planned, then asks the server to end and has nothing to receive.
struct Scripted {
    events: VecDeque<Event>,
    /// Whether it has asked the server to end.
    stopped: bool,
    handle: Arc<std::sync::OnceLock<ServerHandle>>,
    refuse: &'static [u8],
    /// The most datagrams that any look at the counters has seen pending.
    most_pending: Arc<AtomicU64>,
    sent: mpsc::Sender<Vec<u8>>,
}

impl Transport for Scripted {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        if self.stopped {
            assert_eq!(wait, Wait::No, "what has arrived is there");
        }
        match self.events.pop_front() {
            Some(Event::Datagram(bytes)) => {
                inbox.push(bytes, Meta::new(ASKER));
                Ok(1)
            }
            Some(Event::Batch(datagrams)) => {
                let mut received = 0;
                while received < datagrams && inbox.has_space() {
                    inbox.push(b"x", Meta::new(ASKER));
                    received += 1;
                }
                Ok(received)
            }
            Some(Event::Error(kind)) => Err(kind.into()),
            Some(Event::Promise(datagrams)) => Ok(datagrams),
            Some(Event::Stop) | None => {
                self.handle.get().unwrap().shutdown();
                self.stopped = true;
                Ok(0)
            }
        }
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        let stats = self.handle.get().unwrap().stats();
        assert!(stats.is_conserved(), "{stats}");
        self.most_pending
            .fetch_max(stats.pending, Ordering::Relaxed);
        let mut sent = SendReport::default();
        for datagram in outbox.iter() {
            if datagram.bytes == self.refuse {
                sent.failed += 1;
                sent.last_error = Some(ErrorKind::PermissionDenied.into());
            } else {
                sent.sent += 1;
                self.sent.send(datagram.bytes.to_vec()).unwrap();
            }
        }
        sent
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([192, 0, 2, 1], 7)))
    }
}

/// Who sends all of the script's datagrams.
const ASKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 50_000);

/// Serves a script; returns the result, the last counters and what was sent.
fn serve(events: Vec<Event>) -> (Result<Stats, ServeError>, Stats, Vec<Vec<u8>>) {
    serve_and_look(events, &Arc::default(), 1)
}

/// The same, and looks at the counters whenever something is sent.
fn serve_and_look(
    events: Vec<Event>,
    most_pending: &Arc<AtomicU64>,
    times: usize,
) -> (Result<Stats, ServeError>, Stats, Vec<Vec<u8>>) {
    let (sender, sent) = mpsc::channel();
    let handle = Arc::default();
    let transport = Scripted {
        events: events.into(),
        stopped: false,
        handle: Arc::clone(&handle),
        refuse: b"refused",
        most_pending: Arc::clone(most_pending),
        sent: sender,
    };
    let server = Server::builder(Text).with_transport(transport).unwrap();
    handle.get_or_init(|| server.handle());
    let last = server.handle();
    let result = server.serve(move |text: &str| Some(text.repeat(times)));
    (result, last.stats(), sent.iter().collect())
}

#[test]
fn invariant_3_errors_of_receiving_are_counted_and_survived() {
    let mut events = Vec::new();
    let kinds = [
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionRefused,
        ErrorKind::HostUnreachable,
        ErrorKind::PermissionDenied,
        ErrorKind::OutOfMemory,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
        ErrorKind::Other,
    ];
    // Singly, and in a row.
    for kind in kinds {
        events.extend([Event::Error(kind), Event::Datagram(b"x")]);
    }
    events.extend(kinds.map(Event::Error));
    events.extend([Event::Datagram(b"last")]);
    let (result, stats, sent) = serve(events);
    assert_eq!(result.unwrap(), stats);
    assert_eq!((stats.receive_errors, stats.received), (16, 9));
    assert_eq!(sent.len(), 9);
    assert_eq!(sent[8], b"last");
}

#[test]
fn invariant_1_conservation_holds_while_a_part_of_a_batch_is_pending() {
    let most_pending = Arc::default();
    // Replies of which no more than some dozens leave at once.
    let events = vec![
        Event::Batch(60),
        Event::Batch(64),
        Event::Batch(1),
        Event::Stop,
    ];
    let (result, stats, sent) = serve_and_look(events, &most_pending, 30_000);
    assert_eq!(result.unwrap(), stats);
    assert_eq!(
        (stats.received, stats.replied, stats.pending),
        (125, 125, 0)
    );
    assert_eq!(sent.len(), 125);
    assert!(
        most_pending.load(Ordering::Relaxed) > 0,
        "batches were too small to show"
    );
}

#[test]
fn a_signal_is_no_error() {
    let (result, stats, sent) = serve(vec![
        Event::Error(ErrorKind::Interrupted),
        Event::Error(ErrorKind::Interrupted),
        Event::Datagram(b"x"),
    ]);
    assert!(result.is_ok());
    assert_eq!(stats.receive_errors, 0);
    assert_eq!(sent, [b"x"]);
}

#[test]
fn invariant_3_errors_of_sending_are_counted_and_survived() {
    let (result, stats, sent) = serve(vec![
        Event::Datagram(b"refused"),
        Event::Datagram(b"x"),
        Event::Datagram(b"refused"),
    ]);
    assert!(result.is_ok());
    assert_eq!(
        (stats.replied, stats.responses_sent, stats.responses_failed),
        (3, 1, 2)
    );
    assert!(stats.is_conserved());
    assert_eq!(sent, [b"x"]);
}

#[test]
fn a_transport_that_is_gone_ends_the_server_with_the_cause_and_true_counters() {
    let (result, stats, sent) = serve(vec![
        Event::Datagram(b"x"),
        Event::Error(ErrorKind::NotConnected),
        Event::Datagram(b"never"),
    ]);
    let ServeError::TransportGone {
        source,
        stats: told,
    } = result.unwrap_err()
    else {
        unreachable!("the only error there is");
    };
    assert_eq!(source.kind(), ErrorKind::NotConnected);
    assert_eq!(*told, stats);
    assert_eq!((stats.received, stats.receive_errors), (1, 1));
    assert!(stats.is_conserved());
    assert_eq!(sent, [b"x"]);
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_limit_that_no_datagram_can_reach_is_an_error() {
    type Set = fn(ServerBuilder<Text>, usize) -> ServerBuilder<Text>;
    let limits: [(&str, Set); 2] = [
        ("max_request_bytes", ServerBuilder::max_request_bytes),
        ("max_response_bytes", ServerBuilder::max_response_bytes),
    ];
    for (name, set) in limits {
        for bytes in [65_528, usize::MAX] {
            let told = format!("{name} is {bytes}, must be 0 to 65527");
            let builder = set(Server::builder(Text), bytes);
            let error = builder.clone().bind("127.0.0.1:0").unwrap_err();
            assert_eq!(error.to_string(), told);
            assert_eq!(io::Error::from(error).kind(), ErrorKind::InvalidInput);

            let transport = UdpTransport::bind("127.0.0.1:0").unwrap();
            let error = builder.clone().with_transport(transport).unwrap_err();
            assert_eq!(error.to_string(), told);
            let transports = [UdpTransport::bind("127.0.0.1:0").unwrap()];
            let error = builder.with_transports(transports).unwrap_err();
            assert_eq!(error.to_string(), told);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn the_least_and_the_greatest_limits_hold() {
    in_every_setting(|setting| {
        // Linux sends no more than that over IPv4.
        let greatest = if setting.v6 {
            65_527
        } else {
            MAX_DATAGRAM_BYTES
        };
        for limit in [0, greatest] {
            let builder = Server::builder(Raw)
                .max_request_bytes(limit)
                .max_response_bytes(limit);
            let echo = |bytes: &[u8]| Some(bytes.to_vec());
            let server = Running::start(bind_with(setting, builder), echo);
            let asker = server.asker();
            asker.send(&vec![b'x'; limit]).unwrap();
            assert_eq!(receive(&asker).len(), limit);
            if limit == 0 {
                asker.send(b"x").unwrap();
                server.wait_for(|stats| stats.dropped(DropReason::Truncated) == 1);
            }
            server.stop();
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn a_server_that_polls_answers_and_ends() {
    in_every_setting(|setting| {
        let builder = Server::builder(Text).busy_poll(true);
        let echo = |text: &str| Some(text.to_owned());
        let server = Running::start(bind_with(setting, builder), echo);
        let asker = server.asker();
        for burst in [1, 20] {
            for number in 0..burst {
                asker.send(format!("{number}").as_bytes()).unwrap();
            }
            for number in 0..burst {
                assert_eq!(receive(&asker), format!("{number}").as_bytes());
            }
        }
        assert_eq!(server.stop().responses_sent, 21);
    });
}

#[test]
fn an_error_while_stopping_does_not_lose_what_had_arrived() {
    let (result, stats, sent) = serve(vec![
        Event::Stop,
        Event::Error(ErrorKind::ConnectionReset),
        Event::Datagram(b"1"),
        Event::Error(ErrorKind::Interrupted),
        Event::Error(ErrorKind::ConnectionRefused),
        Event::Datagram(b"2"),
    ]);
    assert_eq!(result.unwrap(), stats);
    assert_eq!(stats.receive_errors, 2);
    assert_eq!(sent, [b"1", b"2"]);
}

#[test]
fn errors_between_what_had_arrived_do_not_end_a_server_that_was_stopped_before_its_time() {
    let mut events = vec![Event::Stop];
    for _ in 0..100 {
        events.extend([Event::Error(ErrorKind::Other), Event::Datagram(b"x")]);
    }
    let (result, stats, sent) = serve(events);
    assert_eq!(result.unwrap(), stats);
    assert_eq!((stats.receive_errors, sent.len()), (100, 100));
}

#[test]
fn a_transport_that_only_fails_cannot_keep_a_server_that_was_stopped() {
    let mut events = vec![Event::Stop];
    events.extend((0..200).map(|_| Event::Error(ErrorKind::Other)));
    let (result, stats, _) = serve(events);
    assert!(result.is_ok());
    assert!(stats.receive_errors < 100, "{stats}");
}

#[test]
fn a_transport_that_is_interrupted_for_ever_cannot_keep_a_server_that_was_stopped() {
    let mut events = vec![Event::Stop];
    events.extend((0..1_000).map(|_| Event::Error(ErrorKind::Interrupted)));
    let (result, stats, _) = serve(events);
    assert!(result.is_ok());
    let interruptions = stats.receive_errors_of(ErrorClass::Interrupted);
    assert!((1..100).contains(&interruptions), "{interruptions}");
}

#[test]
fn a_transport_that_returns_at_once_cannot_keep_a_server_that_was_stopped() {
    for promised in [1_000, usize::MAX] {
        let mut events = vec![Event::Stop];
        events.extend((0..1_000).map(|_| Event::Promise(promised)));
        let (result, stats, _) = serve(events);
        assert_eq!(result.unwrap(), Stats::default());
        assert_eq!(stats, Stats::default());
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes 65,536 datagrams")]
fn a_flood_cannot_keep_a_server_that_was_stopped() {
    let mut events = vec![Event::Stop];
    events.extend((0..100_000).map(|_| Event::Datagram(b"x")));
    let (result, stats, _) = serve(events);
    assert!(result.is_ok());
    assert_eq!(stats.received, 65_536, "as many as are documented");
}
