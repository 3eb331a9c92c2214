//! Two nodes and a real Redis, which is killed, started again, and stopped in the middle of its work.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rejoinder::aio;
use rejoinder::aio::store::{
    DedupMonitor, Exchange, SharedDedup, SharedSessions, Store, StoreError, WhenDown,
};
use rejoinder::codec::Text;
use rejoinder_redis::{RedisStore, redis};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Long enough for the slowest machine. Nothing waits so long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a test takes for no response: a reply over loopback, without work, takes a thousandth of it.
const QUIET: Duration = Duration::from_millis(200);

/// A Redis without persistence, on a socket in a directory of its own.
struct Redis {
    place: TempDir,
    running: Option<Child>,
}

impl Redis {
    fn start() -> Self {
        let mut redis = Self {
            place: TempDir::new().unwrap(),
            running: None,
        };
        redis.run();
        redis
    }

    fn run(&mut self) {
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.place.path().join("redis.sock"))
            .arg("--dir")
            .arg(self.place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed");
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready to accept connections") {
            line.clear();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "redis-server has ended"
            );
        }
        self.running = Some(child);
        // It goes on writing, and must not find the pipe closed.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.running.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    fn store(&self) -> RedisStore {
        let socket = self.place.path().join("redis.sock");
        let url = format!("redis+unix://{}", socket.display());
        RedisStore::builder(&url).prefix("test:").connect().unwrap()
    }

    /// Asks it by its own client, beside the store.
    async fn ask<T: redis::FromRedisValue>(&self, command: &[&[u8]]) -> T {
        let socket = self.place.path().join("redis.sock");
        let client = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut asked = redis::Cmd::new();
        for word in command {
            asked.arg(*word);
        }
        asked.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the handlers of all nodes share.
#[derive(Clone)]
struct Work {
    count: Arc<AtomicU32>,
    /// A request with `!` at its end is worked on until it has a permit.
    permits: Arc<Semaphore>,
}

impl Work {
    fn new() -> Self {
        Self {
            count: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A node of a service whose answers say how often it worked.
struct Node {
    addr: SocketAddr,
    monitor: DedupMonitor,
    handle: rejoinder::ServerHandle,
    serving: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(redis: &Redis, work: &Work, when_down: WhenDown) -> Self {
        let server = aio::Server::bind("127.0.0.1:0", Text).await.unwrap();
        let (addr, handle) = (server.local_addr().unwrap(), server.handle());
        let work = work.clone();
        let handler = async move |request: &str| {
            let number = work.count.fetch_add(1, Ordering::Relaxed) + 1;
            if request.ends_with('!') {
                work.permits.acquire().await.unwrap().forget();
            }
            format!("work {number}")
        };
        let once = SharedDedup::new(
            handler,
            |request: &&str| Some((*request).to_owned()),
            redis.store(),
        )
        .when_down(when_down)
        .cooldown(Duration::from_millis(200));
        let monitor = once.monitor();
        let serving = tokio::spawn(async move {
            assert!(server.serve(once).await.unwrap().is_conserved());
        });
        Self {
            addr,
            monitor,
            handle,
            serving,
        }
    }

    async fn end(self) {
        self.handle.shutdown();
        self.serving.await.unwrap();
    }
}

/// One peer, which asks any node from the same port.
struct Peer(UdpSocket);

impl Peer {
    async fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    async fn send(&self, node: &Node, request: &str) {
        self.0.send_to(request.as_bytes(), node.addr).await.unwrap();
    }

    async fn hear(&self) -> String {
        self.hear_within(PATIENCE).await.expect("a response")
    }

    async fn hear_within(&self, time: Duration) -> Option<String> {
        let mut buffer = [0; 1_500];
        let received = timeout(time, self.0.recv_from(&mut buffer)).await.ok()?;
        let (len, _) = received.unwrap();
        Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
    }

    async fn ask(&self, node: &Node, request: &str) -> String {
        self.send(node, request).await;
        self.hear().await
    }
}

/// Waits for a condition that becomes true by itself.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn it_is_a_store() {
    let redis = Redis::start();
    let store = redis.store();
    let a_minute = Duration::from_secs(60);
    let exchange = async |current: Option<&[u8]>, new: Option<&[u8]>| {
        let exchanged = store.compare_exchange(b"k\0\xff", current, new, a_minute);
        exchanged.await.unwrap()
    };
    let differs = |found: Option<&'static [u8]>| Exchange::Differs(found.map(Into::into));
    assert_eq!(store.get(b"k\0\xff").await.unwrap(), None);
    assert_eq!(exchange(Some(b"x"), Some(b"y")).await, differs(None));
    assert_eq!(exchange(Some(b""), Some(b"y")).await, differs(None));
    assert_eq!(exchange(None, Some(b"")).await, Exchange::Done);
    assert_eq!(exchange(None, Some(b"y")).await, differs(Some(b"")));
    assert_eq!(exchange(Some(b""), Some(b"\0\xff1")).await, Exchange::Done);
    assert_eq!(
        exchange(Some(b"\0\xff"), None).await,
        differs(Some(b"\0\xff1"))
    );
    assert_eq!(
        store.get(b"k\0\xff").await.unwrap().as_deref(),
        Some(&b"\0\xff1"[..])
    );
    // Every value expires, also one that is to be kept for ever.
    let left: i64 = redis.ask(&[b"PTTL", b"test:k\0\xff"]).await;
    assert!((1..=60_000).contains(&left), "{left}");
    let long = store.compare_exchange(b"long", None, Some(b"x"), Duration::MAX);
    assert_eq!(long.await.unwrap(), Exchange::Done);
    let left: i64 = redis.ask(&[b"TTL", b"test:long"]).await;
    assert!(left > 50 * 365 * 24 * 60 * 60, "{left}");
    assert_eq!(exchange(Some(b"\0\xff1"), None).await, Exchange::Done);
    assert_eq!(store.get(b"k\0\xff").await.unwrap(), None);
    // No lifetime: it is gone at once, and what was there too.
    let gone = store.compare_exchange(b"long", Some(b"x"), Some(b"y"), Duration::ZERO);
    assert_eq!(gone.await.unwrap(), Exchange::Done);
    assert_eq!(store.get(b"long").await.unwrap(), None);

    let brief = store.compare_exchange(b"brief", None, Some(b"x"), Duration::from_millis(30));
    assert_eq!(brief.await.unwrap(), Exchange::Done);
    until("it expires", async || {
        store.get(b"brief").await.unwrap().is_none()
    })
    .await;

    // A key of another kind is an error, and no panic.
    let _: i64 = redis.ask(&[b"LPUSH", b"test:list", b"x"]).await;
    let failed = store.get(b"list").await.unwrap_err();
    assert!(
        std::error::Error::source(&failed)
            .unwrap()
            .to_string()
            .contains("WRONGTYPE")
    );
    // The script is loaded again after Redis has forgotten it.
    let _: String = redis.ask(&[b"SCRIPT", b"FLUSH"]).await;
    assert_eq!(exchange(None, Some(b"z")).await, Exchange::Done);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn many_nodes_take_a_key_at_once_and_one_gets_it() {
    let redis = Redis::start();
    let stores: Vec<_> = (0..8).map(|_| redis.store()).collect();
    for round in 0..50_u8 {
        let tasks: Vec<_> = (0..8_u8)
            .map(|node| {
                let store = stores[node as usize].clone();
                tokio::spawn(async move {
                    let (key, value) = ([round], [node]);
                    let lifetime = Duration::from_secs(60);
                    let taken = store.compare_exchange(&key, None, Some(&value), lifetime);
                    taken.await.unwrap()
                })
            })
            .collect();
        let mut taken = 0;
        for task in tasks {
            taken += u32::from(task.await.unwrap() == Exchange::Done);
        }
        assert_eq!(taken, 1, "round {round}");
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_request_through_two_nodes_is_worked_on_once() {
    let redis = Redis::start();
    let work = Work::new();
    let one = Node::start(&redis, &work, WhenDown::Answer).await;
    let other = Node::start(&redis, &work, WhenDown::Answer).await;
    let peer = Peer::new().await;
    // At both nodes at once: which one is first is their race.
    let at_work = || one.monitor.stats().at_work + other.monitor.stats().at_work;
    for round in 1..=20 {
        let request = format!("r{round}!");
        peer.send(&one, &request).await;
        peer.send(&other, &request).await;
        until("the other one sees it", async || at_work() == round).await;
        work.permits.add_permits(1);
        let answer = peer.hear().await;
        assert_eq!(answer, format!("work {round}"));
        for node in [&one, &other] {
            assert_eq!(peer.ask(node, &request).await, answer);
        }
    }
    assert_eq!(work.count(), 20);
    let (one_did, other_did) = (one.monitor.stats(), other.monitor.stats());
    assert_eq!(one_did.first + other_did.first, 20);
    assert_eq!(one_did.alone + other_did.alone, 0);
    let keys: Vec<Vec<u8>> = redis.ask(&[b"KEYS", b"*"]).await;
    assert_eq!(keys.len(), 20);
    for key in keys {
        assert!(key.starts_with(b"test:d") && key.len() == 5 + 61, "{key:?}");
        let left: i64 = redis.ask(&[b"TTL", &key]).await;
        assert!((1..=247).contains(&left), "{left}");
    }
    one.end().await;
    other.end().await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_conversation_goes_on_at_another_node() {
    let redis = Redis::start();
    let nodes = [
        SharedSessions::new(redis.store()),
        SharedSessions::new(redis.store()),
    ];
    let mut said = String::new();
    for turn in 0..10_usize {
        let word = format!("{turn} ");
        said += &word;
        let heard = nodes[turn % 2].with(b"Ada", |session| {
            session.extend(word.as_bytes());
            String::from_utf8(session.clone()).unwrap()
        });
        assert_eq!(heard.await.unwrap(), said);
    }
    // Many changes at once: none is lost, and none waits for ever.
    let nodes = nodes.map(Arc::new);
    let mut changes = tokio::task::JoinSet::new();
    for change in 0..100_usize {
        let node = Arc::clone(&nodes[change % 2]);
        changes.spawn(async move {
            loop {
                match node.with(b"count", |session| session.push(b'x')).await {
                    Err(StoreError::Contended { .. }) => {}
                    done => return done.unwrap(),
                }
            }
        });
    }
    changes.join_all().await;
    let count = nodes[0].with(b"count", |session| session.len());
    assert_eq!(count.await.unwrap(), 100);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn without_redis_a_node_answers_by_itself_until_it_is_back() {
    let mut redis = Redis::start();
    let work = Work::new();
    let one = Node::start(&redis, &work, WhenDown::Answer).await;
    let other = Node::start(&redis, &work, WhenDown::Answer).await;
    let peer = Peer::new().await;
    assert_eq!(peer.ask(&one, "a").await, "work 1");
    assert_eq!(peer.ask(&other, "a").await, "work 1");
    // In the middle of the work.
    peer.send(&one, "b!").await;
    until("the work begins", async || work.count() == 2).await;
    redis.kill();
    work.permits.add_permits(2);
    assert_eq!(peer.hear().await, "work 2");
    assert_eq!(peer.ask(&one, "b!").await, "work 2");
    assert_eq!(one.monitor.stats().not_kept, 1);
    // A copy of it at the other node is worked on again, and so is what is new.
    assert_eq!(peer.ask(&other, "b!").await, "work 3");
    assert_eq!(peer.ask(&one, "c").await, "work 4");
    assert_eq!(peer.ask(&one, "c").await, "work 4");
    assert!(one.monitor.stats().alone >= 1);

    redis.run();
    let mut number = 4;
    for node in [&one, &other] {
        until("the node finds it back", async || {
            let before = node.monitor.stats().alone;
            number += 1;
            peer.ask(node, &format!("new {number}")).await;
            node.monitor.stats().alone == before
        })
        .await;
    }
    let answer = peer.ask(&one, "d").await;
    assert_eq!(peer.ask(&other, "d").await, answer);
    one.end().await;
    other.end().await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn or_it_drops_requests_until_redis_is_back() {
    let mut redis = Redis::start();
    let work = Work::new();
    let one = Node::start(&redis, &work, WhenDown::Drop).await;
    let peer = Peer::new().await;
    assert_eq!(peer.ask(&one, "a").await, "work 1");
    redis.kill();
    peer.send(&one, "b").await;
    until("it is dropped", async || one.monitor.stats().dropped == 1).await;
    // What it has answered before needs no Redis, and what is new is not worked on.
    assert_eq!(peer.ask(&one, "a").await, "work 1");
    assert_eq!(work.count(), 1);
    redis.run();
    let mut answer = None;
    until("it is answered", async || {
        peer.send(&one, "b").await;
        answer = peer.hear_within(QUIET).await;
        answer.is_some()
    })
    .await;
    assert_eq!(answer.as_deref(), Some("work 2"));
    one.end().await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_redis_that_hangs_holds_no_reply_up_for_longer_than_the_deadlines() {
    let redis = Redis::start();
    let work = Work::new();
    let one = Node::start(&redis, &work, WhenDown::Answer).await;
    let peer = Peer::new().await;
    assert_eq!(peer.ask(&one, "a").await, "work 1");
    redis.signal(Signal::STOP);
    // Without deadlines no response would ever come. It comes after two of them, of 250 ms: one for the lease
    // and one for the answer.
    let begun = Instant::now();
    assert_eq!(peer.ask(&one, "b").await, "work 2");
    assert!(begun.elapsed() >= Duration::from_millis(500));
    for number in 3..40 {
        let request = format!("r{number}");
        assert_eq!(peer.ask(&one, &request).await, format!("work {number}"));
    }
    let stats = one.monitor.stats();
    assert_eq!((stats.first, stats.alone), (39, 38));
    redis.signal(Signal::CONT);
    let mut number = 40;
    until("the node finds it back", async || {
        let before = one.monitor.stats().alone;
        peer.ask(&one, &format!("r{number}")).await;
        number += 1;
        one.monitor.stats().alone == before
    })
    .await;
    one.end().await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn sessions_report_a_redis_that_is_down_and_find_it_back() {
    let mut redis = Redis::start();
    let sessions = SharedSessions::new(redis.store()).cooldown(Duration::from_millis(50));
    let say = async || {
        let heard = sessions.with(b"Ada", |session| {
            session.push(b'x');
            session.len()
        });
        heard.await
    };
    assert_eq!(say().await.unwrap(), 1);
    redis.signal(Signal::STOP);
    assert!(matches!(say().await, Err(StoreError::TimedOut { .. })));
    redis.signal(Signal::CONT);
    until("it is back", async || say().await.is_ok()).await;
    redis.kill();
    assert!(matches!(
        say().await,
        Err(StoreError::Failed { .. } | StoreError::TimedOut { .. })
    ));
    until("it cools down", async || {
        matches!(say().await, Err(StoreError::CoolingDown))
    })
    .await;
    redis.run();
    // Redis had no persistence: the session begins anew.
    let mut heard = 0;
    until("it is back", async || {
        say().await.inspect(|&len| heard = len).is_ok()
    })
    .await;
    assert_eq!(heard, 1);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_connection_over_tcp_that_breaks_is_opened_again() {
    let redis = Redis::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/3", listener.local_addr().unwrap());
    let socket = redis.place.path().join("redis.sock");
    let (accepted, cut) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let relay = (Arc::clone(&accepted), Arc::clone(&cut));
    tokio::spawn(async move {
        loop {
            let (mut outside, _) = listener.accept().await.unwrap();
            relay.0.fetch_add(1, Ordering::Relaxed);
            let mut inside = UnixStream::connect(&socket).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
                () = relay.1.notified() => {}
            }
        }
    });
    let store = RedisStore::builder(&url).connect().unwrap();
    let (key, a_minute) = (b"key", Duration::from_secs(60));
    let taken = store.compare_exchange(key, None, Some(b"x"), a_minute);
    assert_eq!(taken.await.unwrap(), Exchange::Done);
    for connections in 1..=3 {
        // A clone uses the same connection.
        assert_eq!(
            store.clone().get(key).await.unwrap().as_deref(),
            Some(&b"x"[..])
        );
        assert_eq!(accepted.load(Ordering::Relaxed), connections);
        cut.notify_one();
        // What finds it broken fails. What comes later opens another.
        until("it connects again", async || {
            let _ = store.get(key).await;
            accepted.load(Ordering::Relaxed) == connections + 1
        })
        .await;
        until("it works again", async || store.get(key).await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_service_starts_while_redis_is_down() {
    let place = TempDir::new().unwrap();
    let url = format!("redis+unix://{}/nothing.sock", place.path().display());
    let store = RedisStore::builder(&url).connect().unwrap();
    store.get(b"key").await.unwrap_err();
    let settings = RedisStore::builder(&url).max_in_flight(0).connect();
    assert!(format!("{:?}", settings.unwrap_err()).contains("must be at least 1"));
}
