//! Servers and clients on tokio, over sockets.

use std::net::UdpSocket;
use std::time::Duration;

use rejoinder::aio::{self, SharedHandler};
use rejoinder::codec::{Tagged, Text};
use rejoinder::udp::UdpOptions;
use rejoinder::{Client, Codec, DropReason, RequestError, Retry, ServeError, Wait};
use tokio::task::{self, JoinSet};
use tokio::time::{sleep, timeout};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn slowly(text: &str) -> String {
    task::yield_now().await;
    if text == "wait" {
        sleep(ms(1)).await;
    }
    text.to_uppercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_serve_blocking_clients_over_sockets() {
    for options in [UdpOptions::new(), UdpOptions::new().portable()] {
        let workers = if cfg!(target_os = "linux") { 2 } else { 1 };
        let builder = aio::Server::builder(Tagged(Text)).udp_options(options);
        let server = builder.workers(workers).bind("127.0.0.1:0").await;
        let server = server.unwrap();
        let (addr, handle) = (server.local_addr().unwrap(), server.handle());
        let mut serving = JoinSet::new();
        for worker in server.into_workers() {
            serving.spawn(worker.serve(SharedHandler::new(slowly)));
        }
        let asking = (0..4).map(|_| {
            task::spawn_blocking(move || {
                let mut client = Client::connect(addr, Tagged(Text)).unwrap();
                for _ in 0..20 {
                    for word in ["now", "wait"].into_iter().cycle().take(50) {
                        client.submit(word).unwrap();
                    }
                    while let Some((_, answer)) = client.collect(Wait::Forever) {
                        assert!(["NOW", "WAIT"].contains(&answer.unwrap()));
                    }
                }
            })
        });
        for asking in asking.collect::<Vec<_>>() {
            asking.await.unwrap();
        }
        handle.shutdown();
        let ended = serving.join_all().await;
        let stats = handle.stats();
        assert!(ended.iter().all(|one| one.as_ref().unwrap().is_conserved()));
        assert!(
            stats.replied >= 4_000 && stats.responses_failed == 0,
            "{stats}"
        );
        assert!(stats.is_conserved() && handle.is_finished());
    }
}

#[tokio::test]
async fn a_sync_handler_serves_over_sockets() {
    let server = aio::Server::bind("127.0.0.1:0", Text).await.unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = task::spawn(server.serve_sync(|text: &str| Some(text.to_uppercase())));
    let asking = task::spawn_blocking(move || {
        let mut client = Client::connect(addr, Text).unwrap();
        client.request("quiet").unwrap().to_owned()
    });
    assert_eq!(asking.await.unwrap(), "QUIET");
    handle.shutdown();
    assert_eq!(serving.await.unwrap().unwrap().replied, 1);
}

#[tokio::test]
async fn what_is_in_the_kernels_queue_at_a_shutdown_is_answered() {
    let server = aio::Server::bind("127.0.0.1:0", Text).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    for _ in 0..100 {
        client.send(b"?").unwrap();
    }
    server.handle().shutdown();
    let stats = server.serve(slowly).await.unwrap();
    assert_eq!((stats.received, stats.replied), (100, 100));
    assert_eq!(stats.dropped(DropReason::Cancelled), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_that_is_shut_down_ends_the_server() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closer = socket2::Socket::from(socket.try_clone().unwrap());
    let transport = UdpOptions::new().adopt(socket).unwrap();
    let transport = aio::AsyncUdp::new(transport).unwrap();
    let server = aio::Server::builder(Text).with_transport(transport);
    let serving = task::spawn(server.unwrap().serve(slowly));
    task::yield_now().await;
    // It is not connected, so the system reports an error, and shuts it down all the same.
    let _ = closer.shutdown(std::net::Shutdown::Both);
    let ended = serving.await.unwrap();
    assert!(matches!(ended, Err(ServeError::TransportGone { .. })));
}

#[tokio::test]
async fn names_are_resolved_and_errors_are_reported() {
    let server = aio::Server::bind("localhost:0", Text).await.unwrap();
    assert!(server.local_addr().unwrap().ip().is_loopback());
    let taken = aio::Server::bind(server.local_addr().unwrap(), Text).await;
    assert!(taken.is_err());
}

/// The kernel reports such an error as nothing but `EPOLLERR`.
#[tokio::test]
async fn a_closed_port_is_noticed_while_nothing_can_be_received() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr();
    let client = aio::Client::builder(Tagged(Text)).fail_when_unreachable(true);
    // No retransmission can be what notices it.
    let client = client.retry(Retry::new().initial(Duration::from_secs(60)));
    let client = client.timeout(Duration::from_secs(120));
    let client = client.connect(closed.unwrap()).await.unwrap();
    let asked = timeout(Duration::from_secs(30), client.request("anybody?")).await;
    let error = asked.expect("it is noticed").unwrap_err();
    assert!(
        matches!(error, RequestError::NobodyListening { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_asked_from_several_threads_with_ids_and_without() {
    async fn check<C>(codec: C)
    where
        C: for<'a> Codec<
                Request<'a> = &'a str,
                Response<'a> = &'a str,
                Answer<'a> = &'a dyn std::fmt::Display,
            > + Clone
            + Send
            + Sync
            + 'static,
    {
        let server = aio::Server::bind("127.0.0.1:0", codec.clone()).await;
        let server = server.unwrap();
        let (addr, handle) = (server.local_addr().unwrap(), server.handle());
        let serving = task::spawn(server.serve_sync(|text: &str| Some(text.to_uppercase())));
        // Fewer than there are callers, so that they wait for room.
        let client = aio::Client::builder(codec).window(16).connect(addr).await;
        let client = client.unwrap();
        let mut asking = JoinSet::new();
        for number in 0..64_u32 {
            let client = client.clone();
            asking.spawn(async move {
                for turn in 0..20 {
                    let asked = format!("caller {number}, turn {turn}");
                    let response = client.request(&asked).await.unwrap();
                    assert_eq!(response.get(), asked.to_uppercase());
                    if number % 8 == 0 {
                        // One that gives up at once.
                        let _ = timeout(Duration::ZERO, client.request("never mind")).await;
                    }
                }
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        assert_eq!(client.stats().in_flight, 0);
        handle.shutdown();
        assert!(serving.await.unwrap().unwrap().is_conserved());
    }
    check(Tagged(Text)).await;
    check(Text).await;
}
