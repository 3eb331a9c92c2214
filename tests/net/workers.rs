//! Servers with several workers: one address, one handler, one set of counters.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rejoinder::codec::{Raw, Text};
use rejoinder::udp::{UdpOptions, UdpTransport};
use rejoinder::{DropReason, Server, ServerBuilder, ServerHandle};

const LONG: Duration = Duration::from_secs(10);

fn client(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "it does not happen");
        thread::yield_now();
    }
}

/// Stops the server even if the test fails.
struct Stop(ServerHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

fn every_request_is_answered_once(builder: ServerBuilder<Text>, workers: usize) {
    let server = builder.workers(workers).bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let handle = server.handle();
    let threads: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
    let seen = Arc::clone(&threads);
    thread::scope(|scope| {
        let stop = Stop(handle.clone());
        let serving = scope.spawn(move || {
            server.serve(move |text: &str| {
                seen.lock().unwrap().insert(thread::current().id());
                Some(text.to_uppercase())
            })
        });
        let clients: Vec<_> = (0..100).map(|_| client(addr)).collect();
        for (number, client) in clients.iter().enumerate() {
            for letter in ["a", "b", "c"] {
                client.send(format!("{letter}{number}").as_bytes()).unwrap();
            }
        }
        for (number, client) in clients.iter().enumerate() {
            for letter in ["A", "B", "C"] {
                let mut buffer = [0; 100];
                let len = client.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..len], *format!("{letter}{number}").as_bytes());
            }
        }
        until(|| handle.stats().replied == 300);
        assert!(handle.stats().is_conserved());
        drop(stop);
        let stats = serving.join().unwrap().unwrap();
        assert_eq!(stats, handle.stats());
        assert_eq!((stats.received, stats.responses_sent), (300, 300));
        assert!(stats.is_conserved());
    });
    assert_eq!(threads.lock().unwrap().len(), workers);
}

#[test]
fn several_workers_answer_every_request_once() {
    for workers in [1, 2, 5] {
        every_request_is_answered_once(Server::builder(Text), workers);
    }
}

#[test]
fn workers_need_nothing_of_the_fast_path() {
    let builder = Server::builder(Text).udp_options(UdpOptions::new().portable());
    every_request_is_answered_once(builder, 3);
}

#[test]
fn workers_that_poll_answer_and_end() {
    for portable in [false, true] {
        let options = UdpOptions::new();
        let options = if portable {
            options.portable()
        } else {
            options
        };
        let builder = Server::builder(Text).udp_options(options).busy_poll(true);
        every_request_is_answered_once(builder, 2);
    }
}

#[test]
fn all_that_arrived_before_the_end_is_answered_by_whichever_worker_has_it() {
    let server = Server::builder(Raw).workers(4).bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let handle = server.handle();
    let clients: Vec<_> = (0..100).map(|_| client(addr)).collect();
    for client in &clients {
        for _ in 0..5 {
            client.send(b"x").unwrap();
        }
    }
    handle.shutdown();
    let stats = server.serve(|_: &[u8]| Some(&b"y"[..])).unwrap();
    assert_eq!((stats.received, stats.replied), (500, 500));
    assert!(stats.is_conserved());
    for client in &clients {
        for _ in 0..5 {
            assert_eq!(client.recv(&mut [0; 2]).unwrap(), 1);
        }
    }
}

#[test]
fn the_handler_is_one_for_all_workers() {
    let server = Server::builder(Raw).workers(3).bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let handle = server.handle();
    let clients: Vec<_> = (0..60).map(|_| client(addr)).collect();
    for client in &clients {
        client.send(b"x").unwrap();
    }
    handle.shutdown();
    let count = AtomicU64::new(0);
    server
        .serve(move |_: &[u8]| Some(count.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec()))
        .unwrap();
    let numbers: HashSet<_> = clients
        .iter()
        .map(|client| {
            let mut number = [0; 8];
            client.recv(&mut number).unwrap();
            u64::from_be_bytes(number)
        })
        .collect();
    assert_eq!(numbers, (0..60).collect());
}

#[test]
fn a_panic_of_a_handler_ends_no_worker() {
    let server = Server::builder(Text)
        .workers(2)
        .bind("127.0.0.1:0")
        .unwrap();
    let addr = server.local_addr().unwrap();
    let handle = server.handle();
    let clients: Vec<_> = (0..20).map(|_| client(addr)).collect();
    for client in &clients {
        for text in ["panic", "hello"] {
            client.send(text.as_bytes()).unwrap();
        }
    }
    handle.shutdown();
    let stats = server
        .serve(|text: &str| {
            assert_ne!(text, "panic");
            Some(text.to_uppercase())
        })
        .unwrap();
    assert_eq!((stats.received, stats.replied), (40, 20));
    for client in &clients {
        assert_eq!(client.recv(&mut [0; 10]).unwrap(), 5);
    }
}

#[test]
fn a_server_without_workers_is_an_error() {
    let error = Server::builder(Text)
        .workers(0)
        .bind("127.0.0.1:0")
        .unwrap_err();
    assert_eq!(io::Error::from(error).kind(), ErrorKind::InvalidInput);
}

#[test]
fn settings_that_open_transports_cannot_follow_are_errors() {
    let open = || UdpTransport::bind("127.0.0.1:0").unwrap();
    let options = || Server::builder(Text).udp_options(UdpOptions::new());
    let messages = [
        options().with_transport(open()).unwrap_err().to_string(),
        options().with_transports([open()]).unwrap_err().to_string(),
        Server::builder(Text)
            .workers(2)
            .with_transport(open())
            .unwrap_err()
            .to_string(),
        Server::builder(Text)
            .with_transports([] as [UdpTransport; 0])
            .unwrap_err()
            .to_string(),
    ];
    let set = "udp_options is set, must be unset for transports that are open: use them to open the \
               transports";
    assert_eq!(
        messages,
        [
            set,
            set,
            "workers is 2, must be 1, one for each transport, or unset",
            "transports is 0, must be at least 1",
        ]
    );
    let two = Server::builder(Text)
        .workers(2)
        .with_transports([open(), open()]);
    assert!(two.is_ok());
}

#[test]
fn a_second_server_on_the_same_address_is_an_error() {
    let first = Server::builder(Text)
        .workers(2)
        .bind("127.0.0.1:0")
        .unwrap();
    let addr = first.local_addr().unwrap();
    for workers in [1, 2] {
        let error = Server::builder(Text)
            .workers(workers)
            .bind(addr)
            .unwrap_err();
        assert_eq!(io::Error::from(error).kind(), ErrorKind::AddrInUse);
    }
}

#[test]
fn what_the_system_drops_is_among_the_counters() {
    let options = UdpOptions::new().receive_buffer_bytes(1);
    let server = Server::builder(Raw)
        .udp_options(options)
        .bind("127.0.0.1:0")
        .unwrap();
    let client = client(server.local_addr().unwrap());
    let handle = server.handle();
    for _ in 0..100 {
        client.send(b"x").unwrap();
    }
    let (entered, is_in) = mpsc::channel();
    thread::scope(|scope| {
        let stop = Stop(handle.clone());
        let serving = scope.spawn(move || {
            server.serve(move |_: &[u8]| {
                entered.send(()).unwrap();
                Some(&b"y"[..])
            })
        });
        is_in.recv_timeout(LONG).unwrap();
        // The next datagram reports a drop.
        until(|| {
            client.send(b"x").unwrap();
            handle.stats().kernel_drops > 0
        });
        drop(stop);
        let stats = serving.join().unwrap().unwrap();
        assert!(stats.kernel_drops > 50);
        assert!(stats.is_conserved());
    });
}

#[test]
fn sockets_that_were_open_already_have_a_worker_each_and_do_not_answer_each_other() {
    let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|addr| UdpSocket::bind(addr).unwrap());
    let addrs = sockets
        .each_ref()
        .map(|socket| socket.local_addr().unwrap());
    let as_if_it_were_the_server = sockets.each_ref().map(|socket| socket.try_clone().unwrap());
    let transports = sockets.map(|socket| UdpOptions::new().adopt(socket).unwrap());
    let server = Server::builder(Text).with_transports(transports).unwrap();
    assert_eq!(server.local_addr().unwrap(), addrs[0]);
    let handle = server.handle();
    let threads: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
    let seen = Arc::clone(&threads);
    thread::scope(|scope| {
        let stop = Stop(handle.clone());
        let serving = scope.spawn(move || {
            server.serve(move |text: &str| {
                seen.lock().unwrap().insert(thread::current().id());
                Some(text.to_uppercase())
            })
        });
        for addr in addrs {
            let client = client(addr);
            client.send(b"a").unwrap();
            let mut buffer = [0; 10];
            let len = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"A");
        }
        // One answer to either of these, and neither of the two workers would ever be quiet again.
        for (from, to) in as_if_it_were_the_server.iter().zip([addrs[1], addrs[0]]) {
            from.send_to(b"a", to).unwrap();
        }
        until(|| handle.stats().received == 4);
        drop(stop);
        let stats = serving.join().unwrap().unwrap();
        assert_eq!((stats.received, stats.replied), (4, 2));
        assert_eq!(stats.dropped(DropReason::SourceOwn), 2);
    });
    assert_eq!(threads.lock().unwrap().len(), 2);
}

#[test]
fn a_server_on_nothing_is_an_error() {
    let none: [UdpTransport; 0] = [];
    let error = Server::builder(Text).with_transports(none).unwrap_err();
    assert_eq!(io::Error::from(error).kind(), ErrorKind::InvalidInput);
}
