//! tower's layers around handlers and clients.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rejoinder::aio::{AsyncSim, Client, Server, ServiceHandler};
use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::SimNet;
use rejoinder::{Context, DropReason, RequestError, Stats};
use tokio::task;
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SERVER: &str = "10.0.0.1:9999";

fn addr() -> SocketAddr {
    SERVER.parse().unwrap()
}

async fn slowly(text: String) -> Result<String, std::io::Error> {
    sleep(Duration::from_millis(text.parse().unwrap_or(0))).await;
    Ok(text)
}

/// Serves the service for a second, while ten requests come at once.
async fn serve<S>(service: S) -> Stats
where
    S: Service<String, Response = String> + Clone,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let net = SimNet::new();
    let endpoint = AsyncSim::new(net.bind(addr()).unwrap());
    let server = Server::builder(Text).with_transport(endpoint);
    for port in 4_000..4_010 {
        net.inject(([10, 0, 0, 2], port).into(), addr(), b"100");
    }
    let handler = ServiceHandler::new(service, |text: &str, _: &Context| text.to_owned());
    let second = sleep(Duration::from_secs(1));
    server.unwrap().serve_until(handler, second).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_a_service_fails_the_request() {
    let layers = || ServiceBuilder::new().timeout(Duration::from_millis(50));
    let stats = serve(layers().service_fn(slowly)).await;
    assert_eq!(stats.dropped(DropReason::HandlerFailed), 10);
    let patient = ServiceBuilder::new().timeout(Duration::from_millis(200));
    assert_eq!(serve(patient.service_fn(slowly)).await.replied, 10);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_makes_requests_wait_and_load_shed_fails_them() {
    let most = Arc::new(AtomicUsize::new(0));
    let (seen, at_work) = (Arc::clone(&most), Arc::new(AtomicUsize::new(0)));
    let counted = service_fn(move |text: String| {
        let (seen, at_work) = (Arc::clone(&seen), Arc::clone(&at_work));
        async move {
            seen.fetch_max(
                at_work.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            let answer = slowly(text).await;
            at_work.fetch_sub(1, Ordering::Relaxed);
            answer
        }
    });
    let limited = ServiceBuilder::new().concurrency_limit(2).service(counted);
    let stats = serve(limited.clone()).await;
    assert_eq!((stats.replied, most.load(Ordering::Relaxed)), (10, 2));

    let stats = serve(ServiceBuilder::new().load_shed().service(limited)).await;
    assert_eq!(stats.replied, 2);
    assert_eq!(stats.dropped(DropReason::HandlerFailed), 8);
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn a_client_is_a_service() {
    let net = SimNet::new();
    let endpoint = AsyncSim::new(net.bind(addr()).unwrap());
    let server = Server::builder(Tagged(Text)).with_transport(endpoint);
    task::spawn(server.unwrap().serve(async |text: &str| {
        sleep(Duration::from_millis(text.parse().unwrap_or(0))).await;
        text.to_uppercase()
    }));
    let client = Client::builder(Tagged(Text)).with_connector(net, addr());
    let client = client.unwrap();
    let response = client.clone().oneshot("hello".to_owned()).await.unwrap();
    assert_eq!(response.get(), "HELLO");

    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(50))
        .service(client.clone());
    let error = service.oneshot("100".to_owned()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    // The timeout has dropped the future, so the request is cancelled.
    assert_eq!(client.stats().in_flight, 0);

    let shedding = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(client);
    let both = [shedding.clone(), shedding].map(|one| one.oneshot("10".to_owned()));
    let [one, other] = both;
    let (one, other) = tokio::join!(one, other);
    assert_eq!(one.unwrap().get(), "10");
    let error = other.unwrap_err();
    assert!(!error.is::<RequestError>());
    assert!(error.is::<tower::load_shed::error::Overloaded>());
}
