//! Servers and clients on tokio, over sockets.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use rejoinder::aio::{self, SharedHandler};
use rejoinder::codec::{Tagged, Text};
use rejoinder::udp::UdpOptions;
use rejoinder::{Client, DropReason, ServeError, Server, Wait};
use tokio::runtime;
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
            stats.replied >= 4_000 && stats.replies_failed == 0,
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

/// A thread that asks as fast as it is answered, and stops when the server does.
fn asking(addr: std::net::SocketAddr, requests: usize, in_flight: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut client = Client::builder(Tagged(Text)).window(in_flight);
        client = client.timeout(Duration::from_secs(30));
        let mut client = client.connect(addr).unwrap();
        let mut asked = 0;
        while asked < requests || client.in_flight() > 0 {
            while asked < requests && client.submit("wait").is_ok() {
                asked += 1;
            }
            while let Some((_, answer)) = client.collect(Wait::For(ms(10))) {
                answer.unwrap();
            }
        }
    })
}

#[test]
fn invariant_7_no_allocation_for_a_request_whose_handler_waits() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap();
    let handler = async |_: &str| {
        task::yield_now().await;
        sleep(ms(1)).await;
        "always the same"
    };
    runtime.block_on(async {
        let builder = Server::builder(Tagged(Text)).max_in_flight(256);
        let server = builder.bind_async("127.0.0.1:0").await.unwrap();
        let (addr, handle) = (server.local_addr().unwrap(), server.handle());
        let mut serving = std::pin::pin!(server.serve(handler));
        // Some rounds to grow whatever grows, then more in which nothing may.
        for (is_warm, requests) in [(false, 4_000), (true, 10_000)] {
            let asking = asking(addr, requests, 200);
            let mut allocations = 0;
            while !asking.is_finished() {
                std::future::poll_fn(|cx| {
                    let polled = measure(|| assert!(serving.as_mut().poll(cx).is_pending()));
                    allocations += polled.count_total;
                    std::task::Poll::Ready(())
                })
                .await;
                // The reactor and the timers have their turn.
                task::yield_now().await;
            }
            asking.join().unwrap();
            if is_warm {
                assert_eq!(allocations, 0);
            }
        }
        assert!(handle.stats().replied >= 14_000);
        handle.shutdown();
        serving.await.unwrap();
    });
}

#[tokio::test]
async fn names_are_resolved_and_errors_are_reported() {
    let server = aio::Server::bind("localhost:0", Text).await.unwrap();
    assert!(server.local_addr().unwrap().ip().is_loopback());
    let taken = aio::Server::bind(server.local_addr().unwrap(), Text).await;
    assert!(taken.is_err());
}
