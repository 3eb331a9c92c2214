//! Servers and clients on tokio, over sockets.

use std::net::UdpSocket;
use std::time::Duration;

use rejoinder::aio::{self, SharedHandler};
use rejoinder::codec::{Tagged, Text};
use rejoinder::udp::UdpOptions;
use rejoinder::{Client, DropReason, ServeError, Server, Wait};
use tokio::task::{self, JoinSet};
use tokio::time::sleep;

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
        let builder = Server::builder(Tagged(Text)).udp_options(options);
        let server = builder.workers(workers).bind_async("127.0.0.1:0").await;
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
    let server = Server::builder(Text).with_async_transport(transport);
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
