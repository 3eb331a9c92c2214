//! State that several nodes share: what is answered once, sessions, and a store that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rejoinder::aio::store::{
    DedupMonitor, Exchange, MemoryStore, MemoryStoreError, SharedDedup, SharedDedupStats,
    SharedSessions, Store, StoreError, StoredAnswer, WhenDown,
};
use rejoinder::aio::{self, AsyncHandler, AsyncSim};
use rejoinder::codec::{Codec as _, Tagged, Text, Writer};
use rejoinder::sim::{Link, SimNet, SimTransport};
use rejoinder::transport::Inbox;
use rejoinder::{DropReason, IntoReply, ServerHandle, Transport as _, Wait};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

const ONE: &str = "10.0.0.1:9999";
const OTHER: &str = "10.0.0.2:9999";
const PEER: &str = "10.0.0.9:4000";

fn addr(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A store whose network is cut, or slow, on demand.
#[derive(Clone)]
struct Faulty {
    store: MemoryStore,
    mode: Arc<AtomicU8>,
    asked: Arc<AtomicU32>,
}

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;
/// It does what it is asked for, and does not answer.
const MUTE: u8 = 3;

#[derive(Debug, thiserror::Error)]
#[error("as planned")]
struct Planned;

impl Faulty {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(1_024),
            mode: Arc::default(),
            asked: Arc::default(),
        }
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    async fn fault(&self) -> Result<(), Planned> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.mode.load(Ordering::Relaxed) {
            FAILS => Err(Planned),
            HANGS => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn muted(&self) {
        if self.mode.load(Ordering::Relaxed) == MUTE {
            std::future::pending::<()>().await;
        }
    }
}

impl Store for Faulty {
    type Error = Planned;

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Planned> {
        self.fault().await?;
        let got = self.store.get(key).await;
        self.muted().await;
        Ok(got.unwrap())
    }

    async fn compare_exchange(
        &self,
        key: &[u8],
        current: Option<&[u8]>,
        new: Option<&[u8]>,
        lifetime: Duration,
    ) -> Result<Exchange, Planned> {
        self.fault().await?;
        let exchanged = self.store.compare_exchange(key, current, new, lifetime);
        let exchanged = exchanged.await.unwrap();
        self.muted().await;
        Ok(exchanged)
    }
}

/// What the handlers of all nodes did.
#[derive(Clone, Default)]
struct Work(Arc<AtomicU32>);

impl Work {
    /// A handler that answers with the number of the work, after as many milliseconds as the request says
    /// behind its first space.
    fn handler(
        &self,
    ) -> impl for<'a> AsyncFn(&'a str) -> Result<Option<String>, &'static str> + use<> {
        let work = self.0.clone();
        async move |request: &str| {
            let number = work.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some((_, millis)) = request.split_once(' ') {
                sleep(ms(millis.parse().unwrap())).await;
            }
            match request.split(' ').next() {
                Some("fail") => Err("as planned"),
                Some("panic") => panic!("as planned"),
                Some("quiet") => Ok(None),
                Some("long") => Ok(Some("x".repeat(100))),
                what => Ok(Some(format!("{} is work {number}", what.unwrap_or("")))),
            }
        }
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the form that `SharedDedup` takes"
)]
fn whole(request: &&str) -> Option<String> {
    Some((*request).to_owned())
}

struct Node {
    handle: ServerHandle,
    serving: JoinHandle<()>,
}

impl Node {
    fn start(net: &SimNet, place: &str, handler: impl AsyncHandler<Text> + 'static) -> Self {
        let endpoint = AsyncSim::new(net.bind(addr(place)).unwrap());
        let server = aio::Server::builder(Text).with_transport(endpoint).unwrap();
        let handle = server.handle();
        let serving = tokio::task::spawn_local(async move {
            server.serve(handler).await.unwrap();
        });
        Self { handle, serving }
    }

    /// Ends it in the middle of what it does.
    async fn die(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.handle.stats().dropped(reason)
    }
}

/// A peer that sends to nodes, and hears what comes back.
struct Peer(SimNet, SimTransport);

impl Peer {
    fn new(net: &SimNet) -> Self {
        Self(net.clone(), net.bind(addr(PEER)).unwrap())
    }

    fn send(&self, node: &str, request: &str) {
        self.0.inject(addr(PEER), addr(node), request.as_bytes());
    }

    fn heard(&mut self) -> Vec<String> {
        let mut inbox = Inbox::new(256, 1_500);
        let mut heard = Vec::new();
        while self.1.recv(&mut inbox, Wait::No).unwrap() > 0 {
            while let Some(datagram) = inbox.pop() {
                heard.push(String::from_utf8(datagram.bytes.to_vec()).unwrap());
            }
        }
        heard
    }

    /// Sends, and returns what has come after so long.
    async fn ask(&mut self, node: &str, request: &str, time: Duration) -> Vec<String> {
        self.send(node, request);
        sleep(time).await;
        self.heard()
    }
}

/// Two nodes that share a store, with what the test changes about each.
fn two<S, H, F>(
    net: &SimNet,
    make: impl Fn() -> SharedDedup<H, F, S>,
) -> (Node, Node, [DedupMonitor; 2])
where
    S: Store + 'static,
    SharedDedup<H, F, S>: AsyncHandler<Text> + 'static,
{
    let (one, other) = (make(), make());
    let monitors = [one.monitor(), other.monitor()];
    let one = Node::start(net, ONE, one);
    (one, Node::start(net, OTHER, other), monitors)
}

/// Runs a test in virtual time, on one thread.
fn test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_request_through_two_nodes_is_worked_on_once() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (_one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone())
        });
        let mut peer = Peer::new(&net);
        peer.send(ONE, "a 50");
        sleep(ms(10)).await;
        // While it is at work, at both nodes.
        peer.send(OTHER, "a 50");
        peer.send(ONE, "a 50");
        sleep(ms(100)).await;
        assert_eq!(peer.heard(), ["a is work 1"]);
        // And later.
        for node in [OTHER, ONE, OTHER] {
            assert_eq!(peer.ask(node, "a 50", ms(10)).await, ["a is work 1"]);
        }
        assert_eq!(peer.ask(OTHER, "b 0", ms(10)).await, ["b is work 2"]);
        assert_eq!(peer.ask(ONE, "b 0", ms(10)).await, ["b is work 2"]);
        let [one, other] = monitors.map(|monitor| monitor.stats());
        assert_eq!((one.first, one.at_work, one.again), (1, 1, 2));
        assert_eq!((other.first, other.at_work, other.again), (1, 1, 2));
        assert_eq!(store.count(), 2);
    });
}

#[test]
fn a_request_of_another_peer_or_with_another_id_is_another_one() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        for node in [ONE, OTHER] {
            let constant = |_: &&str| Some("always the same");
            let once = SharedDedup::new(work.handler(), constant, store.clone());
            let endpoint = AsyncSim::new(net.bind(addr(node)).unwrap());
            let server = aio::Server::builder(Tagged(Text)).with_transport(endpoint);
            tokio::task::spawn_local(server.unwrap().serve(once));
        }
        for (peer, id, node) in [
            (PEER, 1, ONE),
            (PEER, 1, OTHER),
            (PEER, 2, OTHER),
            ("10.0.0.9:4001", 1, ONE),
            ("10.0.0.8:4000", 1, OTHER),
        ] {
            let mut request = [0; 64];
            let mut out = Writer::new(&mut request);
            Tagged(Text).encode_request(id, "a", &mut out).unwrap();
            let len = out.finish().unwrap();
            net.inject(addr(peer), addr(node), &request[..len]);
            sleep(ms(10)).await;
        }
        assert_eq!(work.count(), 4);
    });
}

#[test]
fn what_has_no_key_goes_to_the_handler_without_a_look() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let no_key = |_: &&str| None::<String>;
        let (_one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), no_key, store.clone())
        });
        let mut peer = Peer::new(&net);
        assert_eq!(peer.ask(ONE, "a", ms(10)).await, ["a is work 1"]);
        assert_eq!(peer.ask(ONE, "a", ms(10)).await, ["a is work 2"]);
        assert_eq!(monitors[0].stats(), SharedDedupStats::default());
        assert_eq!(store.count(), 0);
    });
}

#[test]
fn no_response_is_an_answer_and_an_error_is_none() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (one, other, _) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).max_answer_bytes(99)
        });
        let mut peer = Peer::new(&net);
        for node in [ONE, OTHER, ONE] {
            assert!(peer.ask(node, "quiet", ms(10)).await.is_empty());
        }
        assert_eq!(work.count(), 1);
        // One byte more than is kept.
        assert_eq!(peer.ask(ONE, "long", ms(10)).await.len(), 1);
        for node in [OTHER, ONE] {
            assert!(peer.ask(node, "long", ms(10)).await.is_empty());
        }
        assert_eq!(work.count(), 2);
        for node in [ONE, OTHER, ONE] {
            assert!(peer.ask(node, "fail", ms(10)).await.is_empty());
        }
        assert_eq!(work.count(), 5);
        assert_eq!(one.dropped(DropReason::HandlerFailed), 2);
        assert_eq!(other.dropped(DropReason::HandlerFailed), 1);
    });
}

#[test]
fn a_node_that_dies_at_work_is_replaced_when_its_lease_is_over() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).lease(ms(2_000))
        });
        let mut peer = Peer::new(&net);
        let begun = Instant::now();
        peer.send(ONE, "a 500");
        sleep(ms(100)).await;
        one.die().await;
        sleep_until(begun + ms(1_999)).await;
        assert!(peer.ask(OTHER, "a 500", ms(0)).await.is_empty());
        sleep_until(begun + ms(2_010)).await;
        assert_eq!(peer.ask(OTHER, "a 500", ms(600)).await, ["a is work 2"]);
        assert_eq!(monitors[1].stats().at_work, 1);
    });
}

#[test]
fn a_handler_that_panics_leaves_its_lease_and_no_more() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (one, other, _) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).lease(ms(1_000))
        });
        let mut peer = Peer::new(&net);
        peer.ask(ONE, "panic", ms(10)).await;
        peer.ask(OTHER, "panic", ms(10)).await;
        assert_eq!(
            (one.dropped(DropReason::HandlerPanicked), work.count()),
            (1, 1)
        );
        sleep(ms(1_000)).await;
        peer.ask(ONE, "panic", ms(10)).await;
        assert_eq!(
            (one.dropped(DropReason::HandlerPanicked), work.count()),
            (2, 2)
        );
        assert_eq!(other.handle.stats().silent, 1);
    });
}

#[test]
fn work_that_outlasts_its_lease_is_still_kept() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (_one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).lease(ms(100))
        });
        let mut peer = Peer::new(&net);
        assert_eq!(peer.ask(ONE, "a 200", ms(300)).await, ["a is work 1"]);
        assert_eq!(peer.ask(OTHER, "a 200", ms(10)).await, ["a is work 1"]);
        // Here the other one begins too: the first answer that is kept stays.
        peer.send(ONE, "b 200");
        sleep(ms(150)).await;
        peer.send(OTHER, "b 200");
        sleep(ms(500)).await;
        assert_eq!(peer.heard(), ["b is work 2", "b is work 3"]);
        let [one, other] = monitors.map(|monitor| monitor.stats());
        assert_eq!((one.not_kept, other.not_kept), (1, 0));
    });
}

#[test]
fn answers_are_forgotten_after_their_lifetime() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let (_one, _other, _) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).lifetime(ms(1_000))
        });
        let mut peer = Peer::new(&net);
        assert_eq!(peer.ask(ONE, "a", ms(900)).await, ["a is work 1"]);
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["a is work 1"]);
        assert_eq!(peer.ask(OTHER, "a", ms(110)).await, ["a is work 1"]);
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["a is work 2"]);
    });
}

#[test]
fn without_the_store_each_node_answers_by_itself() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), Faulty::new());
        let (_one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone())
        });
        let mut peer = Peer::new(&net);
        store.set(FAILS);
        for (node, answer) in [
            (ONE, "a is work 1"),
            (ONE, "a is work 1"),
            (OTHER, "a is work 2"),
            (OTHER, "a is work 2"),
        ] {
            assert_eq!(peer.ask(node, "a", ms(1)).await, [answer]);
        }
        let [one, other] = monitors.clone().map(|monitor| monitor.stats());
        assert_eq!(
            (one.first, one.alone, one.not_kept, one.again),
            (1, 1, 1, 1)
        );
        assert_eq!(one, other);
        // When it is back, what is new is shared; and each node still knows what it has answered.
        store.set(WORKS);
        sleep(ms(1_001)).await;
        assert_eq!(peer.ask(ONE, "b", ms(1)).await, ["b is work 3"]);
        assert_eq!(peer.ask(OTHER, "b", ms(1)).await, ["b is work 3"]);
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["a is work 1"]);
        assert_eq!(monitors[0].stats().alone, 1);
    });
}

#[test]
fn or_each_node_drops_what_it_would_work_on_without_the_store() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), Faulty::new());
        let (one, _other, monitors) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone()).when_down(WhenDown::Drop)
        });
        let mut peer = Peer::new(&net);
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["a is work 1"]);
        store.set(FAILS);
        assert!(peer.ask(ONE, "b", ms(1)).await.is_empty());
        assert!(peer.ask(OTHER, "a", ms(1)).await.is_empty());
        // This one needs no store.
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["a is work 1"]);
        assert_eq!(one.dropped(DropReason::HandlerFailed), 1);
        assert_eq!(monitors[0].stats().dropped, 1);
        store.set(WORKS);
        assert_eq!(peer.ask(OTHER, "a", ms(1)).await, ["a is work 1"]);
        assert_eq!(peer.ask(OTHER, "b", ms(1)).await, ["b is work 2"]);
        assert_eq!(work.count(), 2);
    });
}

#[test]
fn a_store_that_fails_during_the_work_does_not_hold_the_reply_up() {
    test(async {
        for mode in [FAILS, HANGS, MUTE] {
            for when_down in [WhenDown::Answer, WhenDown::Drop] {
                let net = SimNet::new();
                let (work, store) = (Work::default(), Faulty::new());
                let (_one, _other, monitors) = two(&net, || {
                    let once = SharedDedup::new(work.handler(), whole, store.clone());
                    once.when_down(when_down)
                });
                let mut peer = Peer::new(&net);
                peer.send(ONE, "a 50");
                sleep(ms(10)).await;
                store.set(mode);
                sleep(ms(300)).await;
                assert_eq!(peer.heard(), ["a is work 1"], "{mode} {when_down:?}");
                assert_eq!(peer.ask(ONE, "a 50", ms(1)).await, ["a is work 1"]);
                let stats = monitors[0].stats();
                assert_eq!((stats.first, stats.alone, stats.not_kept), (1, 0, 1));
            }
        }
    });
}

#[test]
fn a_lease_that_was_taken_after_all_becomes_the_answer() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), Faulty::new());
        let (_one, _other, _) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone())
        });
        let mut peer = Peer::new(&net);
        store.set(MUTE);
        peer.send(ONE, "a 50");
        sleep(ms(260)).await;
        store.set(WORKS);
        sleep(ms(100)).await;
        assert_eq!(peer.heard(), ["a is work 1"]);
        assert_eq!(peer.ask(OTHER, "a 50", ms(1)).await, ["a is work 1"]);
    });
}

#[test]
fn deadlines_hold_and_a_store_that_hangs_is_asked_once_in_a_while() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), Faulty::new());
        let (_one, _other, _) = two(&net, || {
            SharedDedup::new(work.handler(), whole, store.clone())
                .store_timeout(ms(100))
                .cooldown(ms(1_000))
        });
        let mut peer = Peer::new(&net);
        store.set(HANGS);
        // One deadline before the work, and one after it.
        peer.send(ONE, "a");
        sleep(ms(199)).await;
        assert!(peer.heard().is_empty());
        sleep(ms(2)).await;
        assert_eq!(peer.heard(), ["a is work 1"]);
        // The third failure begins the cooldown.
        assert!(peer.ask(ONE, "b", ms(99)).await.is_empty());
        sleep(ms(2)).await;
        assert_eq!(peer.heard(), ["b is work 2"]);
        assert_eq!(store.asked(), 3);
        for request in ["c", "d", "e"] {
            assert_eq!(peer.ask(ONE, request, ms(1)).await.len(), 1);
        }
        assert_eq!(store.asked(), 3);
        // After it, one request of many asks.
        sleep(ms(1_000)).await;
        for request in ["f", "g", "h", "i"] {
            peer.send(ONE, request);
        }
        sleep(ms(1)).await;
        assert_eq!(peer.heard().len(), 3);
        assert_eq!(store.asked(), 4);
        sleep(ms(100)).await;
        assert_eq!(peer.heard().len(), 1);
        // The one that asks finds it back: from then on all do.
        store.set(WORKS);
        sleep(ms(1_000)).await;
        for request in ["j", "k", "l"] {
            assert_eq!(peer.ask(ONE, request, ms(1)).await.len(), 1);
        }
        assert_eq!(store.asked(), 4 + 3 * 2);
    });
}

/// A node whose handlers have less time than the store.
fn hasty(net: &SimNet, time: Duration, handler: impl AsyncHandler<Text> + 'static) -> ServerHandle {
    let endpoint = AsyncSim::new(net.bind(addr(ONE)).unwrap());
    let server = aio::Server::builder(Text).handler_timeout(time);
    let server = server.with_transport(endpoint).unwrap();
    let handle = server.handle();
    tokio::task::spawn_local(async move { server.serve(handler).await.unwrap() });
    handle
}

#[test]
fn a_store_that_hangs_longer_than_handlers_may_is_left_alone_too() {
    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), Faulty::new());
        let once = SharedDedup::new(work.handler(), whole, store.clone())
            .store_timeout(ms(250))
            .cooldown(ms(60_000));
        hasty(&net, ms(200), once);
        let mut peer = Peer::new(&net);
        store.set(HANGS);
        let mut answered = Vec::new();
        for number in 0..20 {
            let heard = peer.ask(ONE, &format!("r{number}"), ms(201)).await;
            answered.push(heard.len());
        }
        // The first three are abandoned, then the cooldown begins.
        assert_eq!(answered, [[0; 3].as_slice(), &[1; 17]].concat());
        assert_eq!(store.asked(), 3);
    });
}

#[test]
fn a_reply_waits_for_the_store_within_the_handlers_time_only() {
    test(async {
        for (time, replies) in [(ms(200), 0), (ms(400), 1)] {
            let net = SimNet::new();
            let (work, store) = (Work::default(), Faulty::new());
            let once = SharedDedup::new(work.handler(), whole, store.clone());
            hasty(&net, time, once.store_timeout(ms(250)));
            let mut peer = Peer::new(&net);
            peer.send(ONE, "a 50");
            sleep(ms(10)).await;
            store.set(HANGS);
            sleep(ms(500)).await;
            assert_eq!(peer.heard().len(), replies, "{time:?}");
            assert_eq!(work.count(), 1);
            // The work is remembered in either case, so a copy gets the answer.
            assert_eq!(peer.ask(ONE, "a 50", ms(1)).await, ["a is work 1"]);
        }
    });
}

#[test]
fn a_probe_whose_request_is_given_up_is_followed_by_another() {
    test(async {
        let store = Faulty::new();
        let sessions = SharedSessions::new(store.clone())
            .store_timeout(ms(100))
            .cooldown(ms(1_000));
        let read = || sessions.with(b"k", |session| session.push(1));
        store.set(FAILS);
        for _ in 0..3 {
            assert!(matches!(read().await, Err(StoreError::Failed { .. })));
        }
        assert!(matches!(read().await, Err(StoreError::CoolingDown)));
        store.set(HANGS);
        sleep(ms(1_000)).await;
        let given_up = tokio::time::timeout(ms(1), read()).await;
        assert!(given_up.is_err());
        assert!(matches!(read().await, Err(StoreError::CoolingDown)));
        store.set(WORKS);
        sleep(ms(1_000)).await;
        read().await.unwrap();
        assert_eq!(store.asked(), 6);
    });
}

#[test]
fn what_is_kept_in_a_form_of_another_version_gets_no_response() {
    /// What a newer version of the program answers, and this one cannot load.
    struct Newer;

    impl StoredAnswer for Newer {
        fn save(&self, out: &mut Vec<u8>) -> bool {
            out.extend(b"\x02");
            true
        }

        fn load(_: &[u8]) -> Option<Self> {
            Some(Self)
        }
    }

    impl IntoReply<Text> for Newer {
        fn reply(
            self,
            reply: &mut rejoinder::Reply<'_, Text>,
        ) -> Result<(), rejoinder::ReplyError> {
            reply.send(&"from the newer one")
        }
    }

    test(async {
        let net = SimNet::new();
        let (work, store) = (Work::default(), MemoryStore::new(64));
        let newer = SharedDedup::new(async |_: &str| Newer, whole, store.clone());
        let older = SharedDedup::new(work.handler(), whole, store);
        let monitor = older.monitor();
        let _newer = Node::start(&net, ONE, newer);
        let _older = Node::start(&net, OTHER, older);
        let mut peer = Peer::new(&net);
        assert_eq!(peer.ask(ONE, "a", ms(1)).await, ["from the newer one"]);
        assert!(peer.ask(OTHER, "a", ms(1)).await.is_empty());
        assert_eq!((monitor.stats().unreadable, work.count()), (1, 0));
    });
}

/// Copies through three nodes in any order, over a network that loses and duplicates.
#[test]
fn whatever_the_network_does_a_request_is_worked_on_once() {
    for seed in 0..20_usize {
        test(async {
            let net = SimNet::seeded(seed as u64);
            let link = Link::new().latency(ms(5)).jitter(ms(20));
            net.set_link(link.loss(0.2).duplication(0.2)).unwrap();
            let (work, store) = (Work::default(), MemoryStore::new(1_024));
            let nodes = [ONE, OTHER, "10.0.0.3:9999"];
            let _running = nodes.map(|node| {
                let once = SharedDedup::new(work.handler(), whole, store.clone());
                Node::start(&net, node, once)
            });
            let mut peer = Peer::new(&net);
            for round in 0..12 {
                for request in 0..10_usize {
                    let node = nodes[(seed + round * 7 + request * 5) % 3];
                    peer.send(node, &format!("r{request} {}", request * 3));
                }
                sleep(ms(11)).await;
            }
            sleep(ms(200)).await;
            let mut answers = BTreeMap::<String, BTreeSet<String>>::new();
            for answer in peer.heard() {
                let request = answer.split(' ').next().unwrap().to_owned();
                answers.entry(request).or_default().insert(answer);
            }
            assert_eq!((work.count(), answers.len()), (10, 10), "seed {seed}");
            assert!(
                answers.values().all(|of_one| of_one.len() == 1),
                "seed {seed}: {answers:?}"
            );
        });
    }
}

#[test]
fn a_session_moves_between_nodes_and_no_change_is_lost() {
    test(async {
        let store = MemoryStore::new(64);
        let (one, other) = (
            SharedSessions::new(store.clone()),
            SharedSessions::new(store.clone()),
        );
        let say = async |sessions: &SharedSessions<MemoryStore>, word: &str| {
            let heard = sessions.with(b"Ada", |session| {
                session.extend(word.as_bytes());
                String::from_utf8(session.clone()).unwrap()
            });
            heard.await.unwrap()
        };
        assert_eq!(say(&one, "a").await, "a");
        assert_eq!(say(&other, "b").await, "ab");
        assert_eq!(say(&one, "c").await, "abc");
        // Left empty, it is gone.
        one.with(b"Ada", Vec::clear).await.unwrap();
        assert_eq!(store.count(), 0);
        other
            .with(b"Ada", |session| assert!(session.is_empty()))
            .await
            .unwrap();
        assert_eq!(store.count(), 0);
    });
}

#[test]
fn a_session_that_another_node_changes_meanwhile_is_changed_again() {
    test(async {
        let store = MemoryStore::new(64);
        let sessions = SharedSessions::new(store.clone());
        let change = |value: &'static [u8]| {
            // A store of this process answers at once.
            let store = store.clone();
            move || {
                let mut changed = std::pin::pin!(async {
                    let before = store.get(b"sAda").await.unwrap();
                    let a_minute = ms(60_000);
                    store
                        .compare_exchange(b"sAda", before.as_deref(), Some(value), a_minute)
                        .await
                        .unwrap()
                });
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(changed.as_mut().poll(&mut cx).is_ready());
            }
        };
        let (mut runs, other) = (0, change(b"x"));
        let run = sessions.with(b"Ada", |session| {
            runs += 1;
            if runs == 1 {
                other();
            }
            session.push(b'y');
        });
        run.await.unwrap();
        assert_eq!(runs, 2);
        assert_eq!(
            store.get(b"sAda").await.unwrap().as_deref(),
            Some(&b"xy"[..])
        );

        let mut runs = 0;
        let others = [change(b"1"), change(b"2")];
        let run = sessions.with(b"Ada", |session| {
            runs += 1;
            others[runs % 2]();
            session.push(b'y');
        });
        assert!(matches!(
            run.await,
            Err(StoreError::Contended { attempts: 16 })
        ));
        assert_eq!(runs, 16);
    });
}

#[test]
fn sessions_end_after_their_lifetime_without_use_and_have_limits() {
    test(async {
        let sessions = SharedSessions::new(MemoryStore::new(64))
            .lifetime(ms(1_000))
            .max_session_bytes(3);
        let say = || async {
            let len = sessions.with(b"Ada", |session| {
                session.push(b'x');
                session.len()
            });
            len.await
        };
        assert_eq!(say().await.unwrap(), 1);
        sleep(ms(999)).await;
        assert_eq!(say().await.unwrap(), 2);
        sleep(ms(999)).await;
        assert_eq!(say().await.unwrap(), 3);
        assert!(matches!(
            say().await,
            Err(StoreError::TooLong { bytes: 4, limit: 3 })
        ));
        let read = sessions.with(b"Ada", |session| session.len());
        assert_eq!(read.await.unwrap(), 3);
        sleep(ms(1_000)).await;
        assert_eq!(say().await.unwrap(), 1);
        let long = sessions.with(&[0; 257], |_| ());
        assert!(matches!(
            long.await,
            Err(StoreError::TooLong {
                bytes: 257,
                limit: 256
            })
        ));
        sessions.with(&[0; 256], |_| ()).await.unwrap();
    });
}

#[test]
fn a_memory_store_has_bounds() {
    test(async {
        let store = MemoryStore::new(3).max_value_bytes(4);
        let put = |key: u8, lifetime| {
            let store = store.clone();
            async move {
                let before = store.get(&[key]).await.unwrap();
                store
                    .compare_exchange(&[key], before.as_deref(), Some(b"v"), lifetime)
                    .await
            }
        };
        let has = |key: u8| {
            let store = store.clone();
            async move { store.get(&[key]).await.unwrap().is_some() }
        };
        for key in 0..5 {
            put(key, ms(1_000)).await.unwrap();
            put(2, ms(1_000)).await.unwrap();
        }
        // The one that was written last stays longest.
        assert_eq!(
            (has(2).await, has(3).await, has(4).await),
            (true, true, true)
        );
        assert_eq!(
            (has(0).await, has(1).await, store.count()),
            (false, false, 3)
        );
        sleep(ms(1_000)).await;
        assert!(!has(2).await);
        // Expired values go as others come.
        put(9, ms(1_000)).await.unwrap();
        assert_eq!(store.count(), 2);
        // One that never expires.
        put(9, Duration::MAX).await.unwrap();
        sleep(ms(100_000)).await;
        assert!(has(9).await);

        let long = store
            .compare_exchange(b"k", None, Some(b"12345"), ms(1))
            .await;
        assert!(matches!(
            long,
            Err(MemoryStoreError::ValueTooLong { bytes: 5, limit: 4 })
        ));
        let none = MemoryStore::new(0);
        let kept = none
            .compare_exchange(b"k", None, Some(b"v"), ms(1_000))
            .await;
        assert_eq!((kept.unwrap(), none.count()), (Exchange::Done, 0));
    });
}

proptest! {
    /// As a map whose values expire, if it has room.
    #[test]
    fn a_memory_store_is_a_map(
        steps in proptest::collection::vec((0_u8..4, any::<Option<bool>>(), any::<Option<bool>>(), 0_u64..50), 0..60),
    ) {
        test(async {
            let store = MemoryStore::new(4);
            let mut model = BTreeMap::<u8, (u8, Instant)>::new();
            let value = |one: Option<bool>| one.map(u8::from);
            for (key, current, new, millis) in steps {
                let (current, new) = (value(current), value(new));
                sleep(ms(7)).await;
                let now = Instant::now();
                model.retain(|_, (_, until)| now < *until);
                let found = model.get(&key).map(|(value, _)| *value);
                let (of_current, of_new) = (current.map(|one| [one]), new.map(|one| [one]));
                let exchanged = store
                    .compare_exchange(
                        &[key],
                        of_current.as_ref().map(|one| &one[..]),
                        of_new.as_ref().map(|one| &one[..]),
                        ms(millis),
                    )
                    .await
                    .unwrap();
                if found == current {
                    assert_eq!(exchanged, Exchange::Done);
                    match new {
                        Some(new) => model.insert(key, (new, now + ms(millis))),
                        None => model.remove(&key),
                    };
                } else {
                    let found = found.map(|one| Bytes::copy_from_slice(&[one]));
                    assert_eq!(exchanged, Exchange::Differs(found));
                }
            }
        });
    }
}
