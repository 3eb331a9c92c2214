//! Requests per second through real UDP sockets on the loopback interface.
//!
//!     cargo bench -p rejoinder-benches --bench exchange
//!
//! Two measurements of about two seconds each, against one server thread: a blocking client that
//! opens a socket per request, and a bare socket that keeps 64 requests in flight. Every reply is
//! checked.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(clippy::print_stdout, reason = "its results")]

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::bot::zurich;
use rejoinder::codec::Ctime;
use rejoinder::{Client, Codec, Server};

const REQUEST: &str = "你觉得我是最帅最帅的吗？";
const ANSWER: &str = "【机器人】小Zurich 觉得自己是最帅最帅的!";
const IN_FLIGHT: usize = 64;

fn main() {
    // `cargo test --benches` runs this too, to see that it works.
    let measure = std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if measure { 2_000 } else { 20 });

    let server = Server::bind("127.0.0.1:0", Ctime::local()).unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = thread::spawn(move || server.serve(zurich()));

    report("one blocking client", one_by_one(addr, time));
    report("64 in flight", in_flight(addr, time));

    handle.shutdown();
    let stats = serving.join().unwrap().unwrap();
    println!("server: {stats}");
}

fn report(name: &str, (answered, elapsed): (usize, Duration)) {
    let each = elapsed.as_nanos() / answered as u128;
    let per_second = 1_000_000_000 / each;
    println!("{name:<22}{per_second:>9} requests per second, {each:>7} ns each");
}

fn one_by_one(addr: SocketAddr, time: Duration) -> (usize, Duration) {
    let mut client = Client::connect(addr, Ctime::local()).unwrap();
    let started = Instant::now();
    let mut answered = 0;
    while started.elapsed() < time {
        assert_eq!(client.request(REQUEST).unwrap().text, ANSWER);
        answered += 1;
    }
    (answered, started.elapsed())
}

fn in_flight(addr: SocketAddr, time: Duration) -> (usize, Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addr).unwrap();
    // 64 small datagrams fit into every system's buffers, so none is lost.
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let codec = Ctime::local();
    let send = || assert_eq!(socket.send(REQUEST.as_bytes()).unwrap(), REQUEST.len());
    let receive = || {
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).expect("a reply within 5 seconds");
        assert_eq!(codec.decode_response(&buffer[..len]).unwrap().text, ANSWER);
    };

    let started = Instant::now();
    let mut answered = 0;
    for _ in 0..IN_FLIGHT {
        send();
    }
    while started.elapsed() < time {
        receive();
        answered += 1;
        send();
    }
    for _ in 0..IN_FLIGHT {
        receive();
        answered += 1;
    }
    (answered, started.elapsed())
}
