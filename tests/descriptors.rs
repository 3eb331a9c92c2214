//! What happens when there are no file descriptors left. A process of its own, because the limit
//! is the whole process's.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::UdpSocket;
use std::time::Duration;

use rejoinder::codec::Text;
use rejoinder::{Client, RequestError, Wait};
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
        .quarantine(Duration::ZERO)
        .connect(silent.local_addr().unwrap())
        .unwrap();
    for _ in 0..3 {
        let mut submitted = 0;
        let error = loop {
            match client.submit("a socket, please") {
                Ok(_) => submitted += 1,
                Err(error) => break error,
            }
        };
        assert!((1..64).contains(&submitted), "{submitted}");
        match error {
            RequestError::Connect { source: error, .. } => {
                assert_eq!(
                    error.raw_os_error(),
                    Some(rustix::io::Errno::MFILE.raw_os_error())
                );
            }
            error => panic!("{error}"),
        }
        // Those that got a socket are not concerned, and give it back.
        for _ in 0..submitted {
            let (_, result) = client.collect(Wait::Forever).unwrap();
            assert!(matches!(
                result,
                Err(RequestError::TimedOut { sends: 1, .. })
            ));
        }
        assert!(client.collect(Wait::Forever).is_none());
    }
}
