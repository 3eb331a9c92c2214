//! Errors of the system that loopback never shows, injected between a server and its socket.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::codec::Text;
use rejoinder::testing::{Faults, FaultyTransport};
use rejoinder::transport::ErrorClass;
use rejoinder::udp::UdpTransport;
use rejoinder::{ServeError, Server, ServerHandle, Stats, Transport};

struct Running {
    handle: ServerHandle,
    faults: Faults,
    client: UdpSocket,
    thread: thread::JoinHandle<Result<Stats, ServeError>>,
}

impl Running {
    fn start() -> Self {
        let transport = UdpTransport::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(transport.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let faults = Faults::new();
        let transport = FaultyTransport::new(transport, &faults);
        let server = Server::builder(Text).with_transport(transport).unwrap();
        let handle = server.handle();
        let thread = thread::spawn(|| server.serve(|text: &str| Some(text.to_uppercase())));
        Self {
            handle,
            faults,
            client,
            thread,
        }
    }

    /// Asks, and expects an answer.
    fn ask(&self) {
        let before = self.handle.stats().received;
        self.client.send(b"x").unwrap();
        let mut reply = [0; 8];
        let len = self.client.recv(&mut reply).unwrap();
        assert_eq!(reply[..len], *b"X");
        self.wait_for(|stats| stats.received > before);
    }

    fn wait_for(&self, condition: impl Fn(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stats = self.handle.stats();
            assert!(stats.is_conserved(), "{stats}");
            if condition(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "the counters stay at: {stats}");
            thread::yield_now();
        }
    }

    fn stop(self) -> Stats {
        self.handle.shutdown();
        self.thread.join().unwrap().unwrap()
    }
}

/// The errors that a socket can meet, by name, with their class.
fn errors() -> Vec<(&'static str, io::Error, ErrorClass)> {
    let mut errors: Vec<(_, io::Error, _)> = vec![
        (
            "refused",
            ErrorKind::ConnectionRefused.into(),
            ErrorClass::Peer,
        ),
        ("reset", ErrorKind::ConnectionReset.into(), ErrorClass::Peer),
        (
            "no way",
            ErrorKind::NetworkUnreachable.into(),
            ErrorClass::Peer,
        ),
        (
            "no host",
            ErrorKind::HostUnreachable.into(),
            ErrorClass::Peer,
        ),
        (
            "signal",
            ErrorKind::Interrupted.into(),
            ErrorClass::Interrupted,
        ),
        (
            "no memory",
            ErrorKind::OutOfMemory.into(),
            ErrorClass::Resources,
        ),
        (
            "forbidden",
            ErrorKind::PermissionDenied.into(),
            ErrorClass::Configuration,
        ),
        ("anything", io::Error::other("anything"), ErrorClass::Other),
    ];
    if cfg!(target_os = "linux") {
        errors.extend([
            (
                "ECONNREFUSED",
                io::Error::from_raw_os_error(111),
                ErrorClass::Peer,
            ),
            (
                "ECONNRESET",
                io::Error::from_raw_os_error(104),
                ErrorClass::Peer,
            ),
            (
                "EINTR",
                io::Error::from_raw_os_error(4),
                ErrorClass::Interrupted,
            ),
            (
                "ENOMEM",
                io::Error::from_raw_os_error(12),
                ErrorClass::Resources,
            ),
            (
                "EMSGSIZE",
                io::Error::from_raw_os_error(90),
                ErrorClass::Peer,
            ),
            (
                "ENOBUFS",
                io::Error::from_raw_os_error(105),
                ErrorClass::Resources,
            ),
            (
                "EPERM",
                io::Error::from_raw_os_error(1),
                ErrorClass::Configuration,
            ),
            (
                "ENETUNREACH",
                io::Error::from_raw_os_error(101),
                ErrorClass::Peer,
            ),
        ]);
    }
    errors
}

#[test]
fn every_error_of_receiving_is_classified_counted_and_survived() {
    let server = Running::start();
    let mut expected = None;
    for (name, error, class) in errors() {
        let before = server.handle.stats();
        server.faults.on_receive(3, &error);
        // The first may be received while the server still waits; the second comes after the faults.
        server.ask();
        server.ask();
        let stats = server.handle.stats();
        let failures = if class == ErrorClass::Interrupted {
            0
        } else {
            3
        };
        assert_eq!(stats.received - before.received, 2, "{name}");
        assert_eq!(stats.replied - before.replied, 2, "{name}");
        assert_eq!(stats.responses_failed, 0, "{name}");
        assert_eq!(
            stats.receive_errors - before.receive_errors,
            failures,
            "{name}"
        );
        let of_class = stats.receive_errors_of(class) - before.receive_errors_of(class);
        assert_eq!(of_class, 3, "{name}");
        let last = server.handle.last_receive_error().unwrap();
        let [error, last] = [&error, &last].map(|error| (error.kind(), error.raw_os_error()));
        // A signal is no error, so the one before is the latest.
        if class != ErrorClass::Interrupted {
            expected = Some(error);
        }
        assert_eq!(Some(last), expected, "{name}");
    }
    assert!(server.handle.last_send_error().is_none());
    server.stop();
}

#[test]
fn every_error_of_sending_costs_its_reply_only_and_is_classified_and_counted() {
    let server = Running::start();
    for (name, error, class) in errors() {
        let before = server.handle.stats();
        server.faults.on_send(3, &error);
        for lost in 1..=3 {
            server.client.send(b"lost").unwrap();
            server.wait_for(|stats| stats.responses_failed - before.responses_failed == lost);
        }
        server.ask();
        let stats = server.handle.stats();
        assert_eq!(stats.received - before.received, 4, "{name}");
        assert_eq!(stats.replied - before.replied, 4, "{name}");
        assert_eq!(stats.responses_sent - before.responses_sent, 1, "{name}");
        let of_class = stats.send_errors_of(class) - before.send_errors_of(class);
        assert_eq!(of_class, 3, "{name}");
        let last = server.handle.last_send_error().unwrap();
        let [expected, last] = [&error, &last].map(|error| (error.kind(), error.raw_os_error()));
        assert_eq!(last, expected, "{name}");
    }
    assert_eq!(server.stop().receive_errors, 0);
}

#[test]
fn errors_that_anybody_can_cause_do_not_keep_a_request_waiting() {
    let server = Running::start();
    server
        .faults
        .on_receive(50, &ErrorKind::ConnectionRefused.into());
    server.ask();
    let stats = server.wait_for(|stats| stats.receive_errors == 50);
    assert_eq!(stats.receive_errors_of(ErrorClass::Peer), 50);
    server.stop();
}

#[test]
fn a_socket_that_is_gone_ends_the_server_with_the_error() {
    let server = Running::start();
    server.ask();
    server.faults.on_receive(1, &ErrorKind::NotConnected.into());
    // It may be waiting for a datagram just now.
    server.client.send(b"x").unwrap();
    let error = server.thread.join().unwrap().unwrap_err();
    let ServeError::TransportGone { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), ErrorKind::NotConnected);
    let stats = server.handle.stats();
    assert!(stats.is_conserved());
    assert_eq!(stats.receive_errors_of(ErrorClass::Gone), 1);
}

#[test]
fn one_worker_whose_socket_is_gone_ends_all_of_them() {
    let (none, faults) = (Faults::new(), Faults::new());
    faults.on_receive(1, &ErrorKind::NotConnected.into());
    let transports = [&none, &faults]
        .map(|faults| FaultyTransport::new(UdpTransport::bind("127.0.0.1:0").unwrap(), faults));
    let server = Server::builder(Text).with_transports(transports).unwrap();
    let handle = server.handle();
    // There is no shutdown, and no request to the other worker.
    let (done, ended) = mpsc::channel();
    let serving = thread::spawn(move || {
        let result = server.serve(|text: &str| Some(text.to_owned()));
        done.send(()).unwrap();
        result
    });
    let in_time = ended.recv_timeout(Duration::from_secs(20)).is_ok();
    handle.shutdown();
    let result = serving.join().unwrap();
    assert!(in_time && matches!(result, Err(ServeError::TransportGone { .. })));
}

#[test]
fn a_socket_that_is_gone_for_sending_only_does_not_end_the_server() {
    let server = Running::start();
    server.faults.on_send(1, &ErrorKind::NotConnected.into());
    server.client.send(b"lost").unwrap();
    server.wait_for(|stats| stats.responses_failed == 1);
    server.ask();
    assert_eq!(server.stop().send_errors_of(ErrorClass::Gone), 1);
}

#[test]
fn an_error_that_stays_is_met_with_pauses() {
    let server = Running::start();
    let begun = Instant::now();
    server.faults.on_receive(9, &ErrorKind::OutOfMemory.into());
    // The first may be received while the server still waits; the second comes after the faults.
    server.ask();
    server.ask();
    let elapsed = begun.elapsed();
    assert_eq!(server.stop().receive_errors, 9);
    // 0, 1, 2, 4, … 64 and 100 ms, one after each. No machine is too slow for that.
    assert!(elapsed >= Duration::from_millis(227), "{elapsed:?}");
}
