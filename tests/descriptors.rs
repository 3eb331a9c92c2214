//! What happens when there are no file descriptors left. A process of its own, because the limit
//! is the whole process's.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use rejoinder::codec::Text;
use rejoinder::{Client, RequestError, Retry, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn too_few_descriptors_are_an_error_and_not_the_end() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            ..limits
        },
    )
    .unwrap();
    let mut client = Client::builder(Text)
        .timeout(Duration::from_millis(50))
        // Or those that were asked in vain would keep their sockets.
        .cooldown(Duration::ZERO)
        .connect(silent.local_addr().unwrap())
        .unwrap();
    for _ in 0..3 {
        for _ in 0..100 {
            client.submit("a socket, please").unwrap();
        }
        let (mut timed_out, mut refused) = (0, 0);
        while let Some((_, result)) = client.collect(Wait::Forever) {
            match result.unwrap_err() {
                // Those without wait for one until their deadline.
                RequestError::NotSent { source: error, .. } => {
                    assert_eq!(
                        error.raw_os_error(),
                        Some(rustix::io::Errno::MFILE.raw_os_error())
                    );
                    refused += 1;
                }
                // Those that got a socket are not concerned, and give it back.
                RequestError::TimedOut { sends: 1, .. } => timed_out += 1,
                error => panic!("{error}"),
            }
        }
        assert!((1..64).contains(&timed_out), "{timed_out}");
        assert_eq!(timed_out + refused, 100);
    }
    drop(client);

    // Where the others are answered, they get one in time.
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = echo.local_addr().unwrap();
    let answers = thread::spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..REQUESTS {
            let (bytes, peer) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..bytes], peer).unwrap();
        }
    });
    let mut client = Client::builder(Text)
        .timeout(Duration::from_secs(60))
        .retry(Retry::never())
        .window(REQUESTS)
        .connect(server)
        .unwrap();
    for _ in 0..REQUESTS {
        client.submit("a socket, please").unwrap();
    }
    let mut answered = 0;
    while let Some((_, result)) = client.collect(Wait::Forever) {
        assert_eq!(result.unwrap(), "a socket, please");
        answered += 1;
    }
    assert_eq!(answered, REQUESTS);
    answers.join().unwrap();
}

/// Far more than there are descriptors.
const REQUESTS: usize = 400;
