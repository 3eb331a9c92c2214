//! The server on tokio: handlers that wait, in virtual time.
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use rejoinder::aio::{AsyncHandler, AsyncSim, Server, SharedHandler, Tokio, WhenFull};
use rejoinder::codec::{Raw, Tagged, Text};
use rejoinder::gate::AmplificationLimit;
use rejoinder::handler::Dedup;
use rejoinder::sim::{PacketFate, SimNet};
use rejoinder::{Codec, Context, DropReason, IntoReply, Reply, ReplyError, ServerBuilder, Stats};
use tokio::task::{self, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::server_core::Picky;

const SERVER: &str = "10.0.0.1:9999";
const PEER: &str = "10.0.0.2:4000";

fn addr(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server on a network in memory.
fn on<C: Codec>(net: &SimNet, builder: ServerBuilder<C, (), Tokio>) -> Server<AsyncSim, C> {
    let endpoint = AsyncSim::new(net.bind(addr(SERVER)).unwrap());
    builder.with_transport(endpoint).unwrap()
}

/// The datagrams that reached a peer, in order. There is an endpoint at each peer's address.
struct Peer(rejoinder::sim::SimTransport);

impl Peer {
    fn at(net: &SimNet, place: &str) -> Self {
        Self(net.bind(addr(place)).unwrap())
    }

    fn ask(&self, net: &SimNet, request: &str) {
        let here = rejoinder::Transport::local_addr(&self.0).unwrap();
        net.inject(here, addr(SERVER), request.as_bytes());
    }

    fn heard(&mut self) -> Vec<String> {
        let mut inbox = rejoinder::transport::Inbox::new(128, 1_500);
        let mut heard = Vec::new();
        while rejoinder::Transport::recv(&mut self.0, &mut inbox, rejoinder::Wait::No).unwrap() > 0
        {
            while let Some(datagram) = inbox.pop() {
                heard.push(String::from_utf8(datagram.bytes.to_vec()).unwrap());
            }
        }
        heard
    }
}

/// `text`, after as many milliseconds as it says; or what else it says.
async fn on_demand(text: &str) -> Result<Option<String>, &'static str> {
    match text {
        "quiet" => Ok(None),
        "fail" => Err("as planned"),
        "panic" => panic!("as planned"),
        "panic later" => {
            sleep(ms(1)).await;
            panic!("as planned")
        }
        "never" => std::future::pending().await,
        _ => {
            if let Ok(millis) = text.parse() {
                sleep(ms(millis)).await;
            }
            Ok(Some(text.to_owned()))
        }
    }
}

fn count(stats: &Stats, reason: DropReason) -> u64 {
    stats.dropped(reason)
}

#[tokio::test(start_paused = true)]
async fn replies_leave_as_their_handlers_finish() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text));
    let mut peer = Peer::at(&net, PEER);
    for request in ["30", "10", "now", "20", "quiet"] {
        peer.ask(&net, request);
    }
    let stats = server.serve_until(on_demand, sleep(ms(100))).await.unwrap();
    assert_eq!(peer.heard(), ["now", "10", "20", "30"]);
    assert_eq!((stats.received, stats.replied, stats.silent), (5, 4, 1));
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn ordered_per_peer_means_one_request_of_a_peer_after_the_other() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).ordered_per_peer(true));
    let (mut one, mut other) = (Peer::at(&net, PEER), Peer::at(&net, "10.0.0.3:4000"));
    for request in ["30", "10", "now", "never", "late"] {
        one.ask(&net, request);
    }
    other.ask(&net, "20");
    let begun = Instant::now();
    let stats = server
        .serve_until(on_demand, sleep(ms(10_000)))
        .await
        .unwrap();
    assert_eq!(one.heard(), ["30", "10", "now"]);
    assert_eq!(other.heard(), ["20"]);
    // What waited behind the one that did not end was over its time too.
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 2);
    assert!(stats.is_conserved());
    assert!(begun.elapsed() < ms(10_010));
}

#[tokio::test(start_paused = true)]
async fn a_late_wake_up_begins_no_request_before_its_turn() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).ordered_per_peer(true));
    let (mut one, mut other) = (Peer::at(&net, PEER), Peer::at(&net, "10.0.0.3:4000"));
    one.ask(&net, "100");
    other.ask(&net, "wakes itself as it ends");
    one.ask(&net, "now");
    one.ask(&net, "later");
    let handler = async |text: &str| {
        if text.starts_with("wakes") {
            // The slot of this request is that of another one when it is polled again.
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Ready(())
            })
            .await;
        }
        on_demand(text).await
    };
    let stats = server.serve_until(handler, sleep(ms(500))).await.unwrap();
    assert_eq!(one.heard(), ["100", "now", "later"]);
    assert_eq!(other.heard(), ["wakes itself as it ends"]);
    assert_eq!((stats.replied, stats.deferred), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_always_ready_stops_no_clock() {
    let net = SimNet::new();
    let builder = Server::builder(Text).handler_timeout(ms(200));
    let server = on(&net, builder.grace(ms(200)));
    let handle = server.handle();
    let peer = Peer::at(&net, PEER);
    for request in ["spin", "never", "now"] {
        peer.ask(&net, request);
    }
    let serving = task::spawn(server.serve(async |text: &str| {
        if text == "spin" {
            loop {
                task::consume_budget().await;
            }
        }
        on_demand(text).await
    }));
    // Time does not pass by itself while a task is busy.
    let pass = async |time| {
        task::yield_now().await;
        tokio::time::advance(time).await;
        for _ in 0..100 {
            task::yield_now().await;
        }
    };
    pass(ms(300)).await;
    let stats = handle.stats();
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 2, "{stats}");
    assert_eq!((stats.replied, stats.deferred), (1, 0));
    peer.ask(&net, "spin");
    pass(ms(1)).await;
    handle.shutdown();
    pass(ms(300)).await;
    assert!(serving.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_request_waits_for_room_counts_for_its_deadline() {
    let net = SimNet::new();
    let builder = Server::builder(Text).handler_timeout(ms(100));
    let server = on(&net, builder.max_in_flight(1));
    let mut peer = Peer::at(&net, PEER);
    for _ in 0..10 {
        peer.ask(&net, "40");
    }
    let begun = Instant::now();
    let last = Rc::new(Cell::new(begun));
    let seen = Rc::clone(&last);
    let handler = async move |text: &str| {
        seen.set(Instant::now());
        on_demand(text).await
    };
    let stats = server.serve_until(handler, sleep(ms(1_000))).await.unwrap();
    assert_eq!(peer.heard(), ["40", "40"]);
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 8);
    assert!(last.get() - begun < ms(100));
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_room_too_long_is_stale() {
    let net = SimNet::new();
    let builder = Server::builder(Text).max_age(ms(50)).max_in_flight(1);
    // The first one ends by its deadline, and so does not wake the worker.
    let server = on(&net, builder.handler_timeout(ms(100)));
    let mut peer = Peer::at(&net, PEER);
    for request in ["never", "now"] {
        peer.ask(&net, request);
    }
    let stats = server
        .serve_until(on_demand, sleep(ms(1_000)))
        .await
        .unwrap();
    assert!(peer.heard().is_empty());
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 1);
    assert_eq!(count(&stats, DropReason::Stale), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_fails_or_never_wakes_harms_no_other() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).handler_timeout(ms(50)));
    let handle = server.handle();
    let mut peer = Peer::at(&net, PEER);
    for request in ["never", "panic", "panic later", "fail", "49", "51", "now"] {
        peer.ask(&net, request);
    }
    let serving = task::spawn(server.serve(on_demand));
    sleep(ms(10)).await;
    let during = handle.stats();
    assert_eq!(during.deferred, 3, "{during}");
    assert!(during.is_conserved());
    sleep(ms(60)).await;
    handle.shutdown();
    let stats = serving.await.unwrap().unwrap();
    assert_eq!(peer.heard(), ["now", "49"]);
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 2);
    assert_eq!(count(&stats, DropReason::HandlerPanicked), 2);
    assert_eq!(count(&stats, DropReason::HandlerFailed), 1);
    assert_eq!((stats.received, stats.deferred), (7, 0));
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn a_full_worker_waits_or_drops_by_choice() {
    for (when_full, late) in [(WhenFull::Wait, 0), (WhenFull::Drop, 3)] {
        let net = SimNet::new();
        let builder = Server::builder(Text).max_in_flight(2).when_full(when_full);
        let server = on(&net, builder);
        let mut peer = Peer::at(&net, PEER);
        for _ in 0..5 {
            peer.ask(&net, "10");
        }
        let begun = Instant::now();
        let most = Arc::new(AtomicUsize::new(0));
        let (at_work, seen) = (AtomicUsize::new(0), Arc::clone(&most));
        let handler = async move |text: &str| {
            seen.fetch_max(
                at_work.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            let answer = on_demand(text).await;
            at_work.fetch_sub(1, Ordering::Relaxed);
            answer
        };
        let stats = server.serve_until(handler, sleep(ms(100))).await.unwrap();
        assert_eq!(count(&stats, DropReason::Overloaded), late);
        assert_eq!(stats.replied, 5 - late);
        assert_eq!(peer.heard().len() as u64, 5 - late);
        assert_eq!(most.load(Ordering::Relaxed), 2);
        assert!(stats.is_conserved());
        assert!(begun.elapsed() >= ms(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_handlers_as_long_as_the_grace_period() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).grace(ms(100)));
    let handle = server.handle();
    let mut peer = Peer::at(&net, PEER);
    for request in ["90", "150"] {
        peer.ask(&net, request);
    }
    let serving = task::spawn(server.serve(on_demand));
    sleep(ms(5)).await;
    // What has arrived is answered, what arrives later is not.
    peer.ask(&net, "now");
    handle.shutdown();
    let begun = Instant::now();
    sleep(ms(1)).await;
    peer.ask(&net, "too late");
    let stats = serving.await.unwrap().unwrap();
    assert!(begun.elapsed() >= ms(100) && begun.elapsed() < ms(103));
    assert_eq!(peer.heard(), ["now", "90"]);
    assert_eq!(count(&stats, DropReason::Cancelled), 1);
    assert_eq!((stats.received, stats.deferred, stats.pending), (3, 0, 0));
    assert!(stats.is_conserved() && handle.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_without_handlers_in_flight_takes_no_time() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text));
    let handle = server.handle();
    let serving = task::spawn(server.serve(on_demand));
    sleep(ms(5)).await;
    let begun = Instant::now();
    handle.shutdown();
    serving.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), ms(0));
}

#[tokio::test(start_paused = true)]
async fn without_grace_a_handler_that_does_not_wait_still_answers() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).grace(ms(0)).max_in_flight(1));
    let mut peer = Peer::at(&net, PEER);
    for request in ["one", "two", "5", "three"] {
        peer.ask(&net, request);
    }
    server.handle().shutdown();
    let stats = server.serve(on_demand).await.unwrap();
    assert_eq!(peer.heard(), ["one", "two"]);
    assert_eq!(count(&stats, DropReason::Cancelled), 2);
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn malformed_datagrams_are_rejected_where_the_protocol_demands_it() {
    for when_full in [WhenFull::Wait, WhenFull::Drop] {
        let net = SimNet::new();
        let builder = Server::builder(Picky).max_in_flight(1).when_full(when_full);
        let server = on(&net, builder);
        let mut peer = Peer::at(&net, PEER);
        for request in ["?", "3ab", "9", "1"] {
            peer.ask(&net, request);
        }
        let handler = async |()| {
            sleep(ms(5)).await;
            "!?"
        };
        let stats = server.serve_until(handler, sleep(ms(50))).await.unwrap();
        let heard = peer.heard();
        match when_full {
            // While the only slot is taken, nothing more is looked at.
            WhenFull::Wait => assert_eq!(heard, ["!?", "!!!", "!"]),
            _ => assert_eq!(heard, ["!!!", "!", "!?"]),
        }
        assert_eq!(
            (stats.replied, stats.rejected, stats.responses_sent),
            (1, 2, 3)
        );
        assert_eq!(count(&stats, DropReason::Malformed), 3);
        assert!(stats.is_conserved());
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_that_cannot_leave_any_more_count_as_failed() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Picky).max_in_flight(1));
    let handle = server.handle();
    let mut peer = Peer::at(&net, PEER);
    // The first keeps the only slot, so the others wait in the inbox until the server is dropped.
    for request in ["?", "1", "?", "2a"] {
        peer.ask(&net, request);
    }
    let serving = server.serve(async |()| std::future::pending::<()>().await);
    assert!(tokio::time::timeout(ms(10), serving).await.is_err());
    let stats = handle.stats();
    assert!(peer.heard().is_empty());
    assert_eq!(count(&stats, DropReason::Cancelled), 2);
    assert_eq!(
        (stats.received, stats.rejected, stats.responses_failed),
        (4, 2, 2)
    );
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_half_way_settles_what_is_in_flight() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text));
    let handle = server.handle();
    let peer = Peer::at(&net, PEER);
    for request in ["now", "never", "100"] {
        peer.ask(&net, request);
    }
    let serving = server.serve(on_demand);
    assert!(tokio::time::timeout(ms(10), serving).await.is_err());
    let stats = handle.stats();
    assert_eq!((stats.received, stats.replied, stats.deferred), (3, 1, 0));
    assert_eq!(count(&stats, DropReason::Cancelled), 2);
    assert!(stats.is_conserved() && handle.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_future_whose_drop_panics_is_survived() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "as planned");
        }
    }
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).handler_timeout(ms(10)));
    let mut peer = Peer::at(&net, PEER);
    for request in ["never", "never", "20"] {
        peer.ask(&net, request);
    }
    let handler = async |text: &str| {
        if text == "20" {
            sleep(ms(5)).await;
            return "well".to_owned();
        }
        let _bomb = Bomb;
        std::future::pending().await
    };
    let stats = server.serve_until(handler, sleep(ms(50))).await.unwrap();
    assert_eq!(peer.heard(), ["well"]);
    assert_eq!(count(&stats, DropReason::HandlerTimedOut), 2);
    assert!(stats.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn gates_decide_on_late_replies() {
    let net = SimNet::new();
    let endpoint = AsyncSim::new(net.bind(addr(SERVER)).unwrap());
    let server = Server::builder(Text)
        .gate(AmplificationLimit::default())
        .with_transport(endpoint)
        .unwrap();
    let mut peer = Peer::at(&net, PEER);
    peer.ask(&net, "?");
    let handler = async |_: &str| {
        sleep(ms(5)).await;
        "x".repeat(1_000)
    };
    let stats = server.serve_until(handler, sleep(ms(50))).await.unwrap();
    assert!(peer.heard().is_empty());
    assert_eq!(count(&stats, DropReason::Amplification), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sync_handler_serves_too() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text));
    let handle = server.handle();
    let mut peer = Peer::at(&net, PEER);
    peer.ask(&net, "quiet");
    let serving = task::spawn(server.serve_sync(|text: &str| Some(text.to_uppercase())));
    sleep(ms(5)).await;
    handle.shutdown();
    assert_eq!(serving.await.unwrap().unwrap().replied, 1);
    assert_eq!(peer.heard(), ["QUIET"]);
}

#[tokio::test(start_paused = true)]
async fn two_servers_that_face_each_other_go_quiet() {
    let net = SimNet::new();
    let one = on(&net, Server::builder(Tagged(Text)));
    let other = AsyncSim::new(net.bind(addr(PEER)).unwrap());
    let other = Server::builder(Tagged(Text)).with_transport(other).unwrap();
    let handles = [one.handle(), other.handle()];
    let both = [
        task::spawn(one.serve(on_demand)),
        task::spawn(other.serve(on_demand)),
    ];
    net.inject(addr(PEER), addr(SERVER), b"?12345678hello");
    sleep(ms(100)).await;
    handles.iter().for_each(rejoinder::ServerHandle::shutdown);
    for serving in both {
        serving.await.unwrap().unwrap();
    }
    assert_eq!(net.trace().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_always_busy_lets_other_tasks_have_a_turn() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text));
    let handle = server.handle();
    let peer = Peer::at(&net, PEER);
    peer.ask(&net, "spin");
    let spinning = async |_: &str| {
        loop {
            task::yield_now().await;
        }
    };
    let serving: JoinHandle<_> =
        task::spawn(server.serve(async move |text: &str| -> () { spinning(text).await }));
    for _ in 0..100 {
        task::yield_now().await;
    }
    handle.shutdown();
    task::yield_now().await;
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert_eq!(handle.stats().dropped(DropReason::Cancelled), 1);
}

/// Every form that a handler can have, on its own and spawned.
#[tokio::test(start_paused = true)]
async fn handlers_come_in_many_forms() {
    struct Db;
    impl Db {
        async fn get(&self, key: &str) -> Option<String> {
            task::yield_now().await;
            Some(format!("{key}!"))
        }
    }

    struct Seen;
    impl AsyncHandler<Text> for Seen {
        type Reply = String;

        async fn handle(&self, text: &str, context: &Context) -> String {
            task::yield_now().await;
            format!("{text} from {}", context.peer)
        }
    }

    /// Generic over the codec.
    struct Twice<H>(H);
    impl<C: Codec, H: AsyncHandler<C>> AsyncHandler<C> for Twice<H> {
        type Reply = Option<H::Reply>;

        async fn handle<'a>(
            &'a self,
            request: C::Request<'a>,
            context: &'a Context,
        ) -> Option<H::Reply> {
            Some(self.0.handle(request, context).await)
        }
    }

    struct Greeting(String);
    impl IntoReply<Text> for Greeting {
        fn reply(self, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
            reply.send(&format_args!("hello, {}", self.0))
        }
    }

    async fn item(text: &str) -> String {
        task::yield_now().await;
        text.to_owned()
    }

    async fn answers<H>(spawned: bool, handler: H) -> Vec<String>
    where
        H: AsyncHandler<Text> + 'static,
    {
        assert!(!spawned);
        answers_of(handler).await
    }

    async fn answers_of<H: AsyncHandler<Text>>(handler: H) -> Vec<String> {
        let net = SimNet::new();
        let server = on(&net, Server::builder(Text));
        let mut peer = Peer::at(&net, PEER);
        peer.ask(&net, "Ada");
        server.serve_until(handler, sleep(ms(10))).await.unwrap();
        peer.heard()
    }

    macro_rules! check {
        ($handler:expr, $expected:expr) => {{
            assert_eq!(answers_of($handler).await, $expected);
            assert_eq!(task::spawn(answers_of($handler)).await.unwrap(), $expected);
        }};
    }

    let db = Arc::new(Db);
    let get = |db: &Arc<Db>| {
        let db = Arc::clone(db);
        async move |key: &str| db.get(key).await
    };
    check!(get(&db), ["Ada!"]);
    check!(item, ["Ada"]);
    check!(Seen, ["Ada from 10.0.0.2:4000"]);
    check!(Twice(Seen), ["Ada from 10.0.0.2:4000"]);
    check!(Twice(get(&db)), ["Ada!"]);
    check!(SharedHandler::new(item), ["Ada"]);
    check!(async |_: &str| (), [""; 0]);
    check!(
        async |text: &str| [text.to_owned(), "bye".to_owned()],
        ["Ada", "bye"]
    );
    check!(
        async |text: &str| Ok::<_, Infallible>(Greeting(text.to_owned())),
        ["hello, Ada"]
    );
    check!(
        |text: &str| {
            let text = text.to_owned();
            async move { text }
        },
        ["Ada"]
    );
    // On one thread, a handler may borrow what is around it, and what cannot be sent.
    let (local, asked) = (Rc::new(Db), Cell::new(0));
    let borrowing = async |key: &str| {
        asked.set(asked.get() + 1);
        local.get(key).await
    };
    assert_eq!(answers_of(borrowing).await, ["Ada!"]);
    assert_eq!(asked.get(), 1);
    let owned = Rc::clone(&local);
    assert_eq!(
        answers(false, async move |key: &str| owned.get(key).await).await,
        ["Ada!"]
    );
}

#[tokio::test(start_paused = true)]
async fn other_codecs_spawned() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Raw));
    let handle = server.handle();
    let serving = task::spawn(server.serve(async |bytes: &[u8]| bytes.to_vec()));
    net.inject(addr(PEER), addr(SERVER), b"\xff");
    sleep(ms(1)).await;
    handle.shutdown();
    assert_eq!(serving.await.unwrap().unwrap().replied, 1);

    let net = SimNet::new();
    let server = on(&net, Server::builder(Tagged(Text)));
    let handle = server.handle();
    let serving = task::spawn(server.serve(on_demand));
    net.inject(addr(PEER), addr(SERVER), b"?12345678hello");
    sleep(ms(1)).await;
    handle.shutdown();
    assert_eq!(serving.await.unwrap().unwrap().replied, 1);
}

#[tokio::test(start_paused = true)]
async fn workers_are_tasks_of_their_own() {
    let net = SimNet::new();
    let ends = ["10.0.0.1:9999", "10.0.0.1:9998"];
    let ends = ends.map(|end| AsyncSim::new(net.bind(addr(end)).unwrap()));
    let server = Server::builder(Text).with_transports(ends).unwrap();
    let handle = server.handle();
    let mut serving = JoinSet::new();
    for worker in server.into_workers() {
        serving.spawn(worker.serve(on_demand));
    }
    for port in [9_999, 9_998] {
        net.inject(addr(PEER), ([10, 0, 0, 1], port).into(), b"5");
    }
    sleep(ms(10)).await;
    assert_eq!(handle.stats().replied, 2);
    assert!(!handle.is_finished());
    handle.shutdown();
    while let Some(ended) = serving.join_next().await {
        assert_eq!(ended.unwrap().unwrap().replied, 1);
    }
    assert!(handle.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_trace() {
    let run = async |seed| {
        let net = SimNet::seeded(seed);
        let link = rejoinder::sim::Link::new()
            .latency(ms(20))
            .jitter(ms(7))
            .loss(0.1)
            .duplication(0.1);
        net.set_link(link).unwrap();
        let server = on(&net, Server::builder(Text).max_in_flight(8));
        let _peer = Peer::at(&net, PEER);
        let feed = net.clone();
        task::spawn(async move {
            for wait in 0..200_u64 {
                let request = (wait % 23).to_string();
                feed.inject(addr(PEER), addr(SERVER), request.as_bytes());
                sleep(ms(wait % 3)).await;
            }
        });
        let begun = Instant::now();
        let stats = server
            .serve_until(on_demand, sleep(ms(2_000)))
            .await
            .unwrap();
        assert!(stats.is_conserved() && stats.replied > 100);
        let trace = net.trace();
        assert!(trace.events().any(|event| event.fate == PacketFate::Lost));
        (trace.hash(), stats, begun.elapsed())
    };
    for seed in 0..10 {
        assert_eq!(run(seed).await, run(seed).await);
    }
}

#[tokio::test(start_paused = true)]
async fn dedup_drops_a_copy_of_a_request_at_work_and_answers_a_later_one_from_memory() {
    let net = SimNet::new();
    let server = on(&net, Server::builder(Text).handler_timeout(ms(50)));
    let handle = server.handle();
    let mut peer = Peer::at(&net, PEER);
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let buy = async move |text: &str| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        match text {
            "1 slow" => sleep(ms(20)).await,
            "2 never" => std::future::pending().await,
            _ => {}
        }
        format!("bought {number}")
    };
    let id = |text: &&str| text.split_once(' ')?.0.parse::<u32>().ok();
    let serving = task::spawn(server.serve(Dedup::new(buy, id)));
    for request in ["1 slow", "1 slow", "2 never", "2 never", "no id", "no id"] {
        peer.ask(&net, request);
    }
    sleep(ms(10)).await;
    assert_eq!(peer.heard(), ["bought 3", "bought 4"]);
    assert_eq!(handle.stats().silent, 2);
    sleep(ms(20)).await;
    assert_eq!(peer.heard(), ["bought 1"]);
    // From memory.
    peer.ask(&net, "1 slow");
    sleep(ms(1)).await;
    assert_eq!(peer.heard(), ["bought 1"]);
    assert_eq!(handled.load(Ordering::Relaxed), 4);
    // One that was given up is a first one again.
    sleep(ms(50)).await;
    peer.ask(&net, "2 never");
    sleep(ms(1)).await;
    assert_eq!(handled.load(Ordering::Relaxed), 5);
    handle.shutdown();
    let stats = serving.await.unwrap().unwrap();
    assert!(stats.is_conserved());
}
