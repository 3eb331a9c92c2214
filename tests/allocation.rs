//! Invariant 7: no allocation per request on the server's path once it is warm.
//!
//! The allocator that counts is `allocation-counter`'s; it counts for each thread on its own, so
//! that neither the test harness nor the clients disturb what is measured.
//!
//! It is a program of its own since it replaces the allocator, which would count the memory of other
//! tests' processes differently.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fmt::Display;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime};

use allocation_counter::measure;
use rejoinder::bot::{Robot, Rule, zurich};
use rejoinder::codec::{Ctime, Raw, Text};
use rejoinder::gate::RateLimit;
use rejoinder::handler::{Dedup, MAX_RESPONSES};
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::udp::UdpTransport;
use rejoinder::{
    Codec, Context, Handler, Identity, Reply, ReplyError, Server, Timestamp, Transport, Wait,
    Writer,
};

/// What becomes of a request, in all the ways there are without a panic.
const REQUESTS: [&str; 7] = [
    "你好吗？",
    "你觉得我是最帅最帅的吗？",
    "你我我我我我我我我我我我我我我我我我我我吗？后来呢？",
    "hello",
    "",
    "[b'Sun Jul  7 17:17:58 2019']你好吗？",
    "你1吗？",
];

const INVALID: [&[u8]; 2] = [b"\xff", b"\xe4\xbd\xa0\xe5"];

/// Answers with what is formatted straight into the datagram, several times, or not at all.
struct Formatting;

impl<C> Handler<C> for Formatting
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn Display>,
{
    fn handle(
        &self,
        request: &str,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        for number in 0..request.len() % 4 {
            reply.send(&format_args!("{number}: {request} from {}", context.peer))?;
        }
        Ok(())
    }
}

fn at(seconds: u64) -> Timestamp {
    let time = Duration::from_secs(seconds);
    Timestamp::new(time, SystemTime::UNIX_EPOCH + time)
}

/// Counts the allocations of a warm core for so many rounds of all requests.
fn allocations_of_core<C: Codec, H: Handler<C>>(codec: C, handler: H) -> u64 {
    let mut core = ServerCore::new(codec, handler);
    let mut inbox = Inbox::new(16, 1_024);
    let mut outbox = Outbox::new(MAX_RESPONSES, 1_024);
    let peer = SocketAddr::from(([192, 0, 2, 1], 50_007));
    let mut round = |second| {
        for request in REQUESTS.iter().map(|text| text.as_bytes()).chain(INVALID) {
            inbox.push(request, Meta::new(peer));
        }
        // One that is too long for the inbox.
        inbox.push(&[b'x'; 1_025], Meta::new(peer));
        while !inbox.is_empty() {
            core.handle(at(second), &mut inbox, &mut outbox);
            let sent = SendReport::accepted(outbox.len());
            core.on_sent(&sent);
            outbox.clear();
        }
    };
    round(0);
    let info = measure(|| {
        for number in 0..1_000 {
            // A new header for the ctime protocol now and then.
            round(number / 100);
        }
    });
    assert_eq!(
        core.stats().received,
        1_001 * (REQUESTS.len() + INVALID.len() + 1) as u64
    );
    assert!(core.stats().replied + core.stats().silent > 1_000);
    info.count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(String::from("x"))).count_total, 1);
    let allocating = |text: &str| Some(text.to_uppercase());
    assert!(allocations_of_core(Text, allocating) >= 1_000);
}

#[test]
fn invariant_7_no_allocation_in_a_warm_core() {
    assert_eq!(allocations_of_core(Ctime::utc(), zurich()), 0);
    assert_eq!(allocations_of_core(Text, zurich()), 0);
    assert_eq!(allocations_of_core(Ctime::utc(), Formatting), 0);
    assert_eq!(allocations_of_core(Text, Formatting), 0);
    assert_eq!(
        allocations_of_core(Text, |_: &str| Some("always the same")),
        0
    );
    assert_eq!(allocations_of_core(Text, |_: &str| ()), 0);
    assert_eq!(allocations_of_core(Raw, |_: &[u8]| Some(&b"bytes"[..])), 0);
}

/// Passes rounds of requests through a warm core, each of them with an identity, or at once or deferred.
#[test]
fn invariant_7_no_allocation_for_identities() {
    let identity = Identity::from("a sensor");
    let limit = RateLimit::builder().per_identity().build().unwrap();
    let handler = |_: &str| Some("always the same");
    let mut core = Server::builder(Text).gate(limit).core(handler);
    let (mut inbox, mut outbox) = (Inbox::new(16, 1_024), Outbox::new(256, 1_024));
    let peer = Meta::new(SocketAddr::from(([192, 0, 2, 1], 50_007)));
    let mut keep = Vec::new();
    let mut round = |number: u64| {
        for request in 0..16 {
            match request % 3 {
                0 => inbox.push(b"from a stranger", peer),
                _ => inbox.push_identified(b"from a sensor", peer, &identity),
            }
        }
        let now = at(number);
        while number.is_multiple_of(2)
            && let Some(deferred) = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep)
        {
            let name = deferred.context().identity().cloned();
            core.answer_deferred(now, deferred, &keep, &mut outbox, |reply| {
                reply.send(
                    &name
                        .as_ref()
                        .map_or("a stranger", |name| name.as_str().unwrap_or("")),
                )
            });
        }
        core.handle(now, &mut inbox, &mut outbox);
        assert_eq!(outbox.len(), 16);
        outbox.clear();
    };
    round(0);
    round(1);
    assert_eq!(measure(|| (2..1_000).for_each(&mut round)).count_total, 0);
}

/// New requests and copies of old ones, once the memory is full and its table has reached its size.
#[test]
fn invariant_7_no_allocation_in_a_dedup_that_is_full() {
    let handler = |_: &str| Some("always the same");
    let key = |text: &&str| text.parse::<u32>().ok();
    let mut core = ServerCore::new(Text, Dedup::new(handler, key).capacity(64));
    let (mut inbox, mut outbox) = (Inbox::new(2, 1_024), Outbox::new(64, 1_024));
    let peer = Meta::new(SocketAddr::from(([192, 0, 2, 1], 50_007)));
    let mut text = [b'1'; 9];
    let mut round = |number: u32| {
        for (digit, place) in text[1..].iter_mut().rev().zip(0..) {
            *digit = b'0' + u8::try_from(number / 10_u32.pow(place) % 10).unwrap();
        }
        inbox.push(&text, peer);
        inbox.push(&text, peer);
        core.handle(at(number.into()), &mut inbox, &mut outbox);
        assert_eq!(outbox.len(), 2);
        outbox.clear();
    };
    (0..2_000).for_each(&mut round);
    let info = measure(|| (2_000..20_000).for_each(&mut round));
    assert_eq!(info.count_total, 0);
}

/// A request costs no allocation to sign, verify, answer and believe, however full the table is.
#[cfg(feature = "signed")]
#[test]
fn invariant_7_no_allocation_for_signatures() {
    use rejoinder::codec::{Signed, SigningKey, Tagged};

    let key = SigningKey::new(1, [1; 32]).identity(Identity::from("a sensor"));
    let codec = Signed::builder(Tagged(Text)).key(key).replay_capacity(64);
    let codec = codec.build(at(0)).unwrap();
    let handler = |_: &str| Some("always the same");
    let mut core = ServerCore::new(codec.clone(), handler);
    let (mut inbox, mut outbox) = (Inbox::new(4, 1_024), Outbox::new(64, 1_024));
    let peer = Meta::new(SocketAddr::from(([192, 0, 2, 1], 50_007)));
    let mut space = [0; 256];
    let mut round = |number: u64| {
        let now = at(number);
        let mut out = Writer::new(&mut space);
        codec
            .encode_request(number, "a question", &mut out)
            .unwrap();
        let len = out.finish().unwrap();
        let request = &mut space[..len];
        codec.stamp_request(now, request);
        inbox.push(request, peer);
        // A replay, and a retransmission.
        inbox.push(request, peer);
        codec.stamp_request(now, request);
        inbox.push(request, peer);
        inbox.push(b"no signature", peer);
        core.handle(now, &mut inbox, &mut outbox);
        assert_eq!(outbox.len(), 2);
        for response in outbox.iter() {
            assert!(codec.is_authentic_response(request, response.bytes));
            assert!(codec.decode_response(response.bytes).is_ok());
        }
        outbox.clear();
    };
    (1..1_000).for_each(&mut round);
    assert_eq!(
        measure(|| (1_000..2_000).for_each(&mut round)).count_total,
        0
    );
}

/// All that rules can do, in a robot with so many that an index is used, and in one without.
#[test]
fn invariant_7_no_allocation_in_a_warm_robot() {
    let rules = |count: u32| {
        let builder = Robot::builder()
            .rules((0..count).map(|number| Rule::new(format!("never {number}"), "")))
            .rules([
                Rule::new("(.*)我(?<rest>(.)*)吗", "甲{~1}{~rest}{3}乙")
                    .or_template("{~rest}丙")
                    .or_template("{~0}丁"),
                Rule::new("(?i)HELL(.)", "{~0} {1} {0}").anywhere(),
                Rule::new(r"\b.*\b好\B", "{0}").anywhere(),
            ])
            .fallback("甲")
            .fallback("乙")
            .reflect("我", "你")
            .reflect("你", "我")
            .reflect("hello", "bye");
        [
            builder.clone(),
            builder.clone().substitute("甲", "乙"),
            builder.substitute("甲你", "乙").substitute("丙", ""),
        ]
    };
    for count in [0, 200] {
        for builder in rules(count) {
            let robot = builder.build().unwrap();
            assert_eq!(robot.answer("你我吗").rule(), Some(count as usize + 1));
            assert_eq!(robot.answer("hello").rule(), Some(count as usize + 2));
            assert_eq!(allocations_of_core(Text, robot), 0, "{count} more rules");
        }
    }
    #[cfg(feature = "rules")]
    {
        let listener = Robot::from_toml(include_str!("../rules/eliza.toml")).unwrap();
        assert_eq!(allocations_of_core(Text, listener), 0);
    }
}

#[test]
fn invariant_7_local_time_costs_allocations_per_second_at_most() {
    // The time zone is looked up when the second changes: ten times here, in 10,000 requests.
    let allocations = allocations_of_core(Ctime::local(), zurich());
    assert!(allocations <= 10 * 20, "{allocations}");
}

/// Counts the allocations of a server's thread from its start to its end, with so many rounds of
/// requests over UDP in between.
fn allocations_of_server<C, H>(codec: C, handler: H, rounds: usize) -> u64
where
    C: Codec + Send + 'static,
    H: Handler<C> + Send + Sync + 'static,
{
    let server = Server::bind("127.0.0.1:0", codec).unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let thread = thread::spawn(move || {
        let mut stats = None;
        let info = measure(|| stats = Some(server.serve(handler).unwrap()));
        (info.count_total, stats.unwrap())
    });
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.connect(addr).unwrap();
    asker
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut buffer = [0; 2_048];
    for _ in 0..rounds {
        for request in REQUESTS.iter().map(|text| text.as_bytes()).chain(INVALID) {
            asker.send(request).unwrap();
        }
        // The last of them is answered: by then all are.
        asker.send(b"x").unwrap();
        while {
            let len = asker.recv(&mut buffer).unwrap();
            !buffer[..len].ends_with(b"last")
        } {}
    }
    handle.shutdown();
    let (allocations, stats) = thread.join().unwrap();
    assert_eq!(
        stats.received,
        (rounds * (REQUESTS.len() + INVALID.len() + 1)) as u64,
        "{stats}"
    );
    allocations
}

/// Does what another handler does, and marks the answer to `x`.
struct Marking<H>(H);

impl<C, H> Handler<C> for Marking<H>
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn Display>,
    H: Handler<C>,
{
    fn handle(
        &self,
        request: &str,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        match request {
            "x" => reply.send(&"last"),
            _ => self.0.handle(request, context, reply),
        }
    }
}

#[test]
fn invariant_7_no_allocation_per_request_in_a_server_over_udp() {
    // Starting a server takes some allocations; serving ten times as much takes no more.
    let zurich = |rounds| allocations_of_server(Ctime::utc(), Marking(zurich()), rounds);
    assert_eq!(zurich(1_000), zurich(100));
    let formatting = |rounds| allocations_of_server(Text, Marking(Formatting), rounds);
    assert_eq!(formatting(1_000), formatting(100));

    let allocating = |text: &str| (text == "x").then(|| format!("{} last", text.to_uppercase()));
    assert!(
        allocations_of_server(Text, allocating, 100) >= 100,
        "the counter counts here too"
    );
}

#[test]
fn invariant_7_no_allocation_in_the_udp_transport() {
    let mut transport = UdpTransport::bind("127.0.0.1:0").unwrap();
    let addr = transport.local_addr().unwrap();
    let mut inbox = Inbox::new(4, MAX_DATAGRAM_BYTES);
    let mut outbox = Outbox::new(4, MAX_DATAGRAM_BYTES);
    for _ in 0..3 {
        let pushed = outbox.push_with(addr, None, |space| {
            space.fill(b'x');
            Ok(900)
        });
        pushed.unwrap();
    }
    // The first batches take the memory that all others get along with: where datagrams are not merged,
    // each asks for twice as many as the last one brought.
    for _ in 0..10 {
        assert_eq!(transport.send(&outbox).sent, 3);
        let mut warm = 0;
        while warm < 3 {
            warm += transport.recv(&mut inbox, Wait::Forever).unwrap();
            while inbox.pop().is_some() {}
        }
    }
    let info = measure(|| {
        for round in 0..1_000_u64 {
            assert_eq!(transport.send(&outbox).sent, 3);
            let mut received = 0;
            while received < 3 {
                // All kinds of waits, so that the mode of the socket changes as well.
                let wait = match round % 3 {
                    0 => Wait::No,
                    1 => Wait::Forever,
                    _ => Wait::For(Duration::from_secs(1 + round)),
                };
                received += transport.recv(&mut inbox, wait).unwrap();
                while inbox.pop().is_some() {}
            }
            assert_eq!(transport.recv(&mut inbox, Wait::No).unwrap(), 0);
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn invariant_9_a_core_holds_no_more_memory_after_more_requests() {
    // As many networks as fill the table many times over.
    let limit = RateLimit::builder().max_prefixes(256).build().unwrap();
    let mut core = Server::builder(Ctime::utc()).gate(limit).core(zurich());
    let mut inbox = Inbox::new(8, 1_024);
    let mut outbox = Outbox::new(64, 1_024);
    let mut asked = 0_u32;
    let mut held = |peers: u32| {
        let info = measure(|| {
            for _ in 0..peers {
                asked += 1;
                let peer = SocketAddr::from(((0x0a00_0001 + (asked << 8)).to_be_bytes(), 50_000));
                inbox.push("你好吗？".as_bytes(), Meta::new(peer));
                core.handle(at(0), &mut inbox, &mut outbox);
                outbox.clear();
            }
        });
        assert_eq!(core.stats().replied, u64::from(asked));
        info.bytes_current
    };
    held(10);
    assert_eq!(held(10_000), 0, "each request came from somebody else");
}

#[test]
fn invariant_9_a_robot_holds_no_more_memory_than_stated_whatever_it_is_asked() {
    // A state for each way in which the last 16 letters can be: more than any table has room for.
    let patterns = (0..20).map(|number| format!("(?:[ab{number}]*a[ab]{{16}})+c"));
    let one_rule = Robot::builder().rules(
        patterns
            .clone()
            .take(1)
            .map(|pattern| Rule::new(pattern, "")),
    );
    let twenty_rules = Robot::builder().rules(patterns.map(|pattern| Rule::new(pattern, "")));
    for robot in [one_rule, twenty_rules] {
        let robot = robot.build().unwrap();
        let mut random = 1_u64;
        let mut letter = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(2) { 'a' } else { 'b' }
        };
        let mut ask = |requests| {
            let mut held = 0;
            for _ in 0..requests {
                let request: String = (0..8_000).map(|_| letter()).collect();
                let info = measure(|| assert_eq!(robot.answer(&request).rule(), None));
                held += info.bytes_current;
            }
            held
        };
        let first = ask(1);
        assert!(first <= 100_000, "in proportion to one automaton: {first}");
        assert_eq!(ask(40), 0);
    }
}

/// Handlers that wait, on tokio.
#[cfg(feature = "tokio")]
mod aio {
    use std::future::poll_fn;
    use std::net::SocketAddr;
    use std::pin::pin;
    use std::task::Poll;
    use std::thread;
    use std::time::Duration;

    use allocation_counter::measure;
    use rejoinder::aio::Server;
    use rejoinder::codec::{Tagged, Text};
    use rejoinder::{Client, Wait};
    use tokio::{runtime, task, time};

    /// A thread that asks as fast as it is answered.
    fn asking(addr: SocketAddr, requests: usize, in_flight: usize) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let client = Client::builder(Tagged(Text)).window(in_flight);
            let client = client.timeout(Duration::from_secs(30)).connect(addr);
            let mut client = client.expect("the settings are in range");
            let mut asked = 0;
            while asked < requests || client.in_flight() > 0 {
                while asked < requests && client.submit("wait").is_ok() {
                    asked += 1;
                }
                while let Some((_, answer)) = client.collect(Wait::For(Duration::from_millis(10))) {
                    answer.expect("it is answered in time");
                }
            }
        })
    }

    #[test]
    fn invariant_7_no_allocation_for_a_request_whose_handler_waits() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let handler = async |_: &str| {
            task::yield_now().await;
            time::sleep(Duration::from_millis(1)).await;
            "always the same"
        };
        runtime
            .expect("there are descriptors left")
            .block_on(async {
                let builder = Server::builder(Tagged(Text)).max_in_flight(256);
                let server = builder.bind("127.0.0.1:0").await;
                let server = server.expect("a port is free");
                let (addr, handle) = (server.local_addr().expect("it is bound"), server.handle());
                let mut serving = pin!(server.serve(handler));
                // Some rounds to grow whatever grows, then more in which nothing may.
                for (is_warm, requests) in [(false, 4_000), (true, 10_000)] {
                    let asking = asking(addr, requests, 200);
                    let mut allocations = 0;
                    while !asking.is_finished() {
                        poll_fn(|cx| {
                            let polled =
                                measure(|| assert!(serving.as_mut().poll(cx).is_pending()));
                            allocations += polled.count_total;
                            Poll::Ready(())
                        })
                        .await;
                        // The reactor and the timers have their turn.
                        task::yield_now().await;
                    }
                    asking.join().expect("it does not panic");
                    assert!(!is_warm || allocations == 0, "{allocations} allocations");
                }
                assert!(handle.stats().replied >= 14_000);
                handle.shutdown();
                serving.await.expect("the socket is there");
            });
    }
}
