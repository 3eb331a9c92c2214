//! The client on the simulated network with faults.
//!
//! `cargo bench -p rejoinder-benches --bench bad_network -- 100000` runs as many seeds as you like.
#![allow(clippy::cast_precision_loss, reason = "shares of a few thousand")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rejoinder::codec::{Ctime, Raw, Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{AboveMtu, Link, PacketFate, Script, SimNet, Trace};
use rejoinder::transport::{Datagram, Inbox, Outbox};
use rejoinder::{
    Client, ClientBuilder, Codec, Correlation, RequestError, Retry, Timestamp, Transport, Wait,
    Writer,
};
use rejoinder_test_support::{fates, storm};

#[test]
fn answers_reach_their_questions_whatever_the_weather() {
    let mut timed_out = 0;
    for seed in (0..500).step_by(if cfg!(miri) { 25 } else { 1 }) {
        timed_out += SimNet::seeded(seed)
            .run(|net| storm::survive(net, seed))
            .timed_out;
    }
    assert!(timed_out > 0, "the weather was bad indeed");
}

/// The benchmark `bad_network` does so for the first eight.
#[test]
#[cfg_attr(miri, ignore = "takes thousands of networks")]
fn four_exchanges_are_right_whatever_becomes_of_their_first_four_datagrams() {
    for kind in fates::KINDS {
        let mut answered = 0;
        for number in 0..fates::scripts(4) {
            let net = SimNet::scripted(number, fates::script(number, 4));
            answered += net.run(|net| fates::run(net, kind));
        }
        assert!(answered > 2_400, "{answered} of 2,500 {kind:?}");
    }
}

/// A network that were kind would show here: the chance of an answer under pure loss is known.
#[test]
#[cfg_attr(miri, ignore = "a rate needs many requests")]
fn under_pure_loss_requests_succeed_as_often_as_they_should() {
    const TRIALS: u32 = 10_000;
    for (seed, loss, sends) in [
        (1, 0.1, 1),
        (2, 0.3, 1),
        (3, 0.3, 2),
        (4, 0.3, 3),
        (5, 0.5, 3),
    ] {
        for with_ids in [false, true] {
            let net = SimNet::seeded(seed);
            net.set_link(Link::new().loss(loss).latency(ms(10)))
                .unwrap();
            let retry = Retry::new().max_sends(sends);
            let answered = if with_ids {
                echo(&net, Tagged(Text));
                count_answers(
                    Client::builder(Tagged(Text))
                        .retry(retry)
                        .with_connector(net, SERVER)
                        .unwrap(),
                    TRIALS,
                )
            } else {
                echo(&net, Text);
                count_answers(
                    Client::builder(Text)
                        .retry(retry)
                        .with_connector(net, SERVER)
                        .unwrap(),
                    TRIALS,
                )
            };
            let exchange: f64 = (1.0 - loss) * (1.0 - loss);
            let expected = 1.0 - (1.0 - exchange).powi(sends.try_into().unwrap());
            let deviation = (expected * (1.0 - expected) / f64::from(TRIALS)).sqrt();
            let rate = f64::from(answered) / f64::from(TRIALS);
            // Beyond 4.4 deviations lies one in a hundred thousand.
            assert!(
                (rate - expected).abs() < 4.4 * deviation,
                "loss {loss}, {sends} sends, ids {with_ids}: {rate}, not {expected}"
            );
        }
    }
}

fn count_answers<C>(mut client: Client<SimNet, C>, trials: u32) -> u32
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    (0..trials)
        .map(|_| u32::from(client.request("question").is_ok()))
        .sum()
}

#[test]
fn the_silence_of_a_server_is_met_with_the_documented_schedule() {
    for seed in 0..20 {
        let net = SimNet::seeded(seed);
        let times = record_times(&net);
        let mut client = Client::builder(Text)
            .timeout(Duration::from_secs(60))
            .with_connector(net.clone(), SERVER)
            .unwrap();
        let error = client.request("anybody?").unwrap_err();
        assert!(matches!(
            error,
            RequestError::TimedOut { peer, after, sends: 5, ignored: 0 }
                if peer == SERVER && after == Duration::from_secs(60)
        ));
        assert_eq!(net.now().monotonic, Duration::from_secs(60));

        let times = times.lock().unwrap().clone();
        let first = times[1];
        assert!((Duration::from_secs(1)..Duration::from_millis(1_500)).contains(&first));
        assert_eq!(times, [0, 1, 3, 7, 15].map(|timeouts| first * timeouts));
    }
}

#[test]
fn the_first_timeouts_differ_from_request_to_request() {
    let net = SimNet::seeded(3);
    let times = record_times(&net);
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::new().max_sends(2))
        .with_connector(net, SERVER)
        .unwrap();
    for _ in 0..100 {
        client.submit("anybody?").unwrap();
    }
    while client.collect(Wait::Forever).is_some() {}
    let mut times = times.lock().unwrap().split_off(100);
    times.dedup();
    assert_eq!(times.len(), 100);
    assert!(times[0] < ms(1_050) && times[99] > ms(1_450), "{times:?}");
}

#[test]
fn after_k_lost_sends_the_next_one_succeeds() {
    for k in 0..5_u32 {
        let lose: Vec<_> = (1..=k).map(|number| format!("{number} lose")).collect();
        let script: Script = lose.join(", ").parse().unwrap();

        let net = SimNet::scripted(7, script.clone());
        echo(&net, Text);
        let mut client = patient(Text).with_connector(net.clone(), SERVER).unwrap();
        assert_eq!(client.request("there?").unwrap(), "there?");
        assert_eq!(net.trace().total(), u64::from(k) + 2);

        let net = SimNet::scripted(7, script);
        echo(&net, Tagged(Text));
        let mut client = patient(Tagged(Text))
            .with_connector(net.clone(), SERVER)
            .unwrap();
        assert_eq!(client.request("there?").unwrap(), "there?");
        assert_eq!(net.trace().total(), u64::from(k) + 2);
    }
}

#[test]
fn a_retransmission_repeats_the_same_bytes_and_with_ids_the_last_one_tries_another_port() {
    let net = SimNet::seeded(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    net.host(
        SERVER,
        move |_: Timestamp, datagram: Datagram<'_>, _: &mut Outbox| {
            log.lock()
                .unwrap()
                .push((datagram.meta.peer, datagram.bytes.to_vec()));
        },
    )
    .unwrap();
    for _ in 0..2 {
        Client::new(net.clone(), Tagged(Text), SERVER)
            .request("once")
            .unwrap_err();
        Client::new(net.clone(), Text, SERVER)
            .request("once")
            .unwrap_err();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 12);
    for (index, client) in seen.chunks(3).enumerate() {
        let [first, second, last] = client else {
            panic!("each is sent three times");
        };
        assert_eq!(first, second);
        assert_eq!(first.1, last.1);
        // With ids, requests share a socket, and that one may be to blame.
        let has_ids = index % 2 == 0;
        assert_eq!(first.0 != last.0, has_ids, "{first:?} {last:?}");
    }
}

#[test]
fn forged_answers_are_ignored_and_the_real_one_is_returned() {
    forgeries(Text);
    forgeries(Tagged(Text));
}

fn forgeries<C>(codec: C)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str, Answer<'a> = Display<'a>>
        + Copy
        + Send
        + 'static,
{
    let net = Arc::new(SimNet::new());
    // A server that had a handle of its own would keep the network, and the network the server.
    let wire = Arc::downgrade(&net);
    net.host(
        SERVER,
        move |now: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            let wire = wire.upgrade().unwrap();
            let peer = question.meta.peer;
            let wrong_address = SocketAddr::new(IpAddr::from([10, 0, 0, 66]), SERVER.port());
            let wrong_port = SocketAddr::new(SERVER.ip(), 66);
            for forger in [wrong_address, wrong_port] {
                wire.inject(forger, peer, &encode(&codec, now, question.bytes, "forged"));
            }
            push(outbox, peer, &encode(&codec, now, question.bytes, "real"));
        },
    )
    .unwrap();
    let mut client = Client::new(SimNet::clone(&net), codec, SERVER);
    assert_eq!(client.request("who are you?").unwrap(), "real");
    assert_eq!(client.ignored(), 2);
}

#[test]
fn an_answer_with_a_guessed_id_is_ignored() {
    let net = Arc::new(SimNet::seeded(5));
    let wire = Arc::downgrade(&net);
    net.host(
        SERVER,
        move |now: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            let mut guess = question.bytes.to_vec();
            guess[8] ^= 1;
            let codec = Tagged(Text);
            wire.upgrade().unwrap().inject(
                SERVER,
                question.meta.peer,
                &encode(&codec, now, &guess, "guessed"),
            );
            push(
                outbox,
                question.meta.peer,
                &encode(&codec, now, question.bytes, "real"),
            );
        },
    )
    .unwrap();
    let mut client = Client::new(SimNet::clone(&net), Tagged(Text), SERVER);
    assert_eq!(client.request("who are you?").unwrap(), "real");
    assert_eq!(client.ignored(), 1);
}

#[test]
fn ten_thousand_junk_datagrams_neither_stop_nor_prolong_a_request() {
    let error = junk_floods(&Tagged(Text), str::to_owned);
    assert!(matches!(
        error,
        RequestError::TimedOut { after, sends: 3, ignored, .. }
            if after == Duration::from_secs(5) && ignored == u64::from(JUNK)
    ));
    let error = junk_floods(&Ctime::utc(), |frame| frame.text.to_owned());
    assert!(matches!(
        error,
        RequestError::Malformed { after, .. } if after == Duration::from_secs(5)
    ));
}

/// Returns why there was no answer where there was none.
fn junk_floods<C>(codec: &C, text: impl Fn(C::Response<'_>) -> String) -> RequestError
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = Display<'a>> + Clone + Send + 'static,
{
    let mut failure = None;
    for answered in [true, false] {
        let net = Arc::new(SimNet::seeded(2));
        let wire = Arc::downgrade(&net);
        net.set_link_between(
            SERVER.ip(),
            CLIENT,
            Link::new().latency(ms(10)).jitter(ms(4_000)),
        )
        .unwrap();
        let server = codec.clone();
        let mut first = true;
        net.host(
            SERVER,
            move |_: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
                if std::mem::take(&mut first) {
                    let wire = wire.upgrade().unwrap();
                    for number in 0..JUNK {
                        wire.inject(SERVER, question.meta.peer, &number.to_be_bytes());
                    }
                    if answered {
                        push(
                            outbox,
                            question.meta.peer,
                            &encode(&server, Timestamp::system(), question.bytes, "at last"),
                        );
                    }
                }
            },
        )
        .unwrap();
        let mut client = Client::builder(codec.clone())
            .with_connector(SimNet::clone(&net), SERVER)
            .unwrap();
        let result = client.request("hard to hear?").map(&text);
        if answered {
            assert_eq!(result.unwrap(), "at last");
            assert!(
                client.ignored() > u64::from(JUNK) / 100,
                "the junk came first"
            );
        } else {
            assert_eq!(net.now().monotonic, Duration::from_secs(5));
            assert_eq!(client.ignored(), u64::from(JUNK));
            failure = result.err();
        }
    }
    failure.unwrap()
}

#[test]
fn junk_that_does_not_decode_is_named_at_the_deadline() {
    let net = SimNet::new();
    net.host(
        SERVER,
        |_: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            push(outbox, question.meta.peer, b"not a frame");
        },
    )
    .unwrap();
    let mut client = Client::new(net.clone(), Ctime::utc(), SERVER);
    assert!(matches!(
        client.request("hm?"),
        Err(RequestError::Malformed { after, .. }) if after == Duration::from_secs(5)
    ));
}

#[test]
fn a_late_answer_is_never_returned_for_the_next_question() {
    // Both answers come while the second question waits.
    let script: Script = "2 delay 6s, 4 delay 2s".parse().unwrap();
    for with_ids in [false, true] {
        let net = SimNet::scripted(0, script.clone());
        let (one, two, at) = if with_ids {
            echo(&net, Tagged(Text));
            let client = Client::builder(Tagged(Text)).retry(Retry::never());
            two_questions(client.with_connector(net.clone(), SERVER).unwrap(), &net)
        } else {
            echo(&net, Text);
            let client = Client::builder(Text).retry(Retry::never());
            two_questions(client.with_connector(net.clone(), SERVER).unwrap(), &net)
        };
        assert!(matches!(one, Err(RequestError::TimedOut { .. })));
        assert_eq!(two.unwrap(), "second");
        assert_eq!(at, Duration::from_secs(7));
    }
}

type Answered = Result<String, RequestError>;

fn two_questions<C>(mut client: Client<SimNet, C>, net: &SimNet) -> (Answered, Answered, Duration)
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let one = client.request("first").map(str::to_owned);
    let two = client.request("second").map(str::to_owned);
    (one, two, net.now().monotonic)
}

/// Or the system could give it to the next request, just in time for the late answer.
#[test]
fn the_port_of_a_request_that_may_still_be_answered_rests() {
    let net = SimNet::scripted(0, "2 lose".parse().unwrap());
    echo(&net, Text);
    let mut client = Client::builder(Text)
        .retry(Retry::never())
        .cooldown(Duration::from_secs(30))
        .with_connector(net.clone(), SERVER)
        .unwrap();
    client.request("in vain").unwrap_err();
    client.request("answered").unwrap();
    let port = |number| SocketAddr::new(CLIENT, number);
    let trace = net.trace();
    let ports: Vec<_> = trace.events().map(|event| event.from.port()).collect();
    let (in_vain, answered) = (ports[0], ports[2]);
    assert!(net.bind(port(answered)).is_err());
    assert!(net.bind(port(in_vain)).is_err());
    net.advance(Duration::from_secs(30));
    client.request("another").unwrap();
    // Both are free again, and this one was the lowest.
    assert!(net.bind(port(answered)).is_ok());
    let trace = net.trace();
    assert_eq!(
        trace.events().last().map(|event| event.to),
        Some(port(in_vain))
    );
}

/// The network may hold back a copy of what was answered long ago.
#[test]
fn a_late_copy_of_an_answer_is_never_returned_for_a_later_question() {
    let net = SimNet::scripted(0, "2 duplicate".parse().unwrap());
    echo(&net, Text);
    let late = Link::new().latency(ms(1)).jitter(Duration::from_secs(10));
    net.set_link_between(SERVER.ip(), CLIENT, late).unwrap();
    let mut client = Client::builder(Text)
        .timeout(Duration::from_secs(30))
        .retry(Retry::never())
        .with_connector(net.clone(), SERVER)
        .unwrap();
    client.request("first").unwrap();
    net.set_link_between(
        SERVER.ip(),
        CLIENT,
        Link::new().latency(Duration::from_secs(15)),
    )
    .unwrap();
    for question in ["second", "third"] {
        assert_eq!(client.request(question).unwrap(), question);
    }
}

#[test]
fn late_answers_to_hundreds_of_questions_are_never_returned_for_another() {
    let net = SimNet::new();
    echo(&net, Text);
    let seconds = Duration::from_secs;
    let slow = Link::new().latency(seconds(20)).jitter(ms(1_000));
    net.set_link_between(SERVER.ip(), CLIENT, slow).unwrap();
    let mut client = Client::builder(Text)
        .max_cooling_sockets(1_000)
        .timeout(ms(10))
        .retry(Retry::never())
        .with_connector(net.clone(), SERVER)
        .unwrap();
    for number in 0..MANY / 2 {
        client.request(&format!("old {number}")).unwrap_err();
    }
    net.advance(seconds(20).saturating_sub(net.now().monotonic));
    for _ in 0..MANY * 45 / 100 {
        // All the time old answers come.
        let error = client.request("new").unwrap_err();
        assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
    }
}

#[test]
fn sockets_whose_requests_are_answered_are_the_first_to_make_room() {
    let net = SimNet::new();
    echo(&net, Text);
    let mut client = Client::builder(Text)
        .timeout(Duration::from_secs(1))
        .max_cooling_sockets(3)
        .retry(Retry::never())
        .cooldown(Duration::from_secs(60))
        .with_connector(net.clone(), SERVER)
        .unwrap();
    let rests = |port| net.bind(SocketAddr::new(CLIENT, port)).is_err();
    let resting = || {
        (FIRST_PORT..FIRST_PORT + 10)
            .filter(|&port| rests(port))
            .count()
    };
    for _ in 0..10 {
        client.request("answered").unwrap();
    }
    assert_eq!(resting(), 3);

    net.set_link(Link::new().loss(1.0)).unwrap();
    for _ in 0..3 {
        assert!(matches!(
            client.request("in vain"),
            Err(RequestError::TimedOut { .. })
        ));
        assert_eq!(resting(), 3);
    }
    assert!(matches!(
        client.request("one too many"),
        Err(RequestError::WindowFull {
            in_flight: 0,
            uncollected: 0,
            cooling: 3
        })
    ));
    // The first of them has cooled down for a tenth of the time: that is enough for a probe.
    net.set_link(Link::new()).unwrap();
    net.advance(Duration::from_secs(4));
    assert_eq!(client.request("again").unwrap(), "again");
}

/// When a machine has no port left, those that only rest in case of a duplicate are given up.
#[test]
#[cfg_attr(miri, ignore = "takes 16,384 ports")]
fn a_client_that_can_open_no_socket_gives_up_what_rests_only_to_be_safe() {
    let net = SimNet::new();
    echo(&net, Text);
    let mut client = Client::builder(Text)
        .retry(Retry::never())
        .with_connector(net.clone(), SERVER)
        .unwrap();
    client.request("answered").unwrap();
    let mut taken = Vec::new();
    while let Ok(endpoint) = net.bind(SocketAddr::new(CLIENT, 0)) {
        taken.push(endpoint);
    }
    assert_eq!(client.request("answered").unwrap(), "answered");
    net.set_link(Link::new().loss(1.0)).unwrap();
    assert!(matches!(
        client.request("in vain"),
        Err(RequestError::TimedOut { .. })
    ));
    assert!(matches!(
        client.request("no port left"),
        Err(RequestError::Connect { peer: SERVER, .. })
    ));
}

#[test]
fn the_lowest_free_port_is_given_out() {
    let net = SimNet::new();
    let open = || net.bind(SocketAddr::new(CLIENT, 0)).unwrap();
    let port = |endpoint: &rejoinder::sim::SimTransport| endpoint.local_addr().unwrap().port();
    let (one, two) = (open(), open());
    assert_eq!((port(&one), port(&two)), (FIRST_PORT, FIRST_PORT + 1));
    drop(one);
    // A port that is bound by number is exclusive, and free again afterwards.
    let asked_for = [FIRST_PORT, FIRST_PORT + 2].map(|port| SocketAddr::new(CLIENT, port));
    let asked_for = asked_for.map(|addr| net.bind(addr).unwrap());
    let three = open();
    assert_eq!(port(&three), FIRST_PORT + 3);
    drop(asked_for);
    let (again, another) = (open(), open());
    assert_eq!((port(&again), port(&another)), (FIRST_PORT, FIRST_PORT + 2));
}

/// Which of a batch it is shows when each is sent again alone.
#[test]
fn a_request_that_the_system_refuses_in_a_batch_is_told_from_those_it_takes() {
    let net = SimNet::new();
    echo(&net, Tagged(Text));
    net.set_link(Link::new().mtu(500, AboveMtu::Refuse))
        .unwrap();
    let mut client = Client::new(net.clone(), Tagged(Text), SERVER);
    let big = client.submit(&"x".repeat(1_000)).unwrap();
    let small = client.submit("small").unwrap();
    let (ticket, result) = client.collect(Wait::Forever).unwrap();
    assert_eq!((ticket, result.unwrap()), (small, "small"));
    let (ticket, result) = client.collect(Wait::Forever).unwrap();
    assert_eq!(ticket, big);
    let error = result.unwrap_err();
    assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");

    // What is sent in vain is not refused.
    net.set_link(Link::new().mtu(500, AboveMtu::Refuse).loss(1.0))
        .unwrap();
    let big = client.submit(&"x".repeat(1_000)).unwrap();
    client.submit("small").unwrap();
    while let Some((ticket, result)) = client.collect(Wait::Forever) {
        match result.unwrap_err() {
            RequestError::NotSent { .. } => assert_eq!(ticket, big),
            RequestError::TimedOut { .. } => assert_ne!(ticket, big),
            error => panic!("{error:?}"),
        }
    }
}

#[test]
fn the_longest_delays_there_are_do_not_overflow() {
    let net = SimNet::new();
    let longest = Duration::MAX;
    net.set_link(
        Link::new()
            .latency(longest)
            .jitter(longest)
            .reordering(1.0, longest),
    )
    .unwrap();
    echo(&net, Text);
    let mut client = Client::new(net.clone(), Text, SERVER);
    client.request("anybody?").unwrap_err();
    net.advance(longest);
    assert_eq!(net.now().monotonic, longest);
}

#[test]
#[cfg_attr(miri, ignore = "takes a million datagrams")]
fn a_network_that_is_full_loses_what_comes_then() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(1))).unwrap();
    for _ in 0..(1 << 20) + 2 {
        net.inject(from("10.0.0.9:9"), SERVER, b"");
    }
    let trace = net.trace();
    assert_eq!(trace.total(), 2);
    assert!(
        trace
            .events()
            .rev()
            .all(|event| event.fate == PacketFate::Overflow)
    );
}

#[test]
fn an_answer_at_the_deadline_is_too_late() {
    for (delay, in_time) in [("4999999999ns", true), ("5s", false)] {
        let script = format!("2 delay {delay}").parse().unwrap();
        let net = SimNet::scripted(0, script);
        echo(&net, Tagged(Text));
        let builder = Client::builder(Tagged(Text)).retry(Retry::never());
        let result = builder
            .with_connector(net, SERVER)
            .unwrap()
            .request("just?")
            .map(str::to_owned);
        assert_eq!(result.is_ok(), in_time);
    }
}

#[test]
fn a_triple_answer_is_one_result() {
    let net = SimNet::new();
    net.host(
        SERVER,
        |now: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            for _ in 0..3 {
                let answer = encode(&Tagged(Text), now, question.bytes, "yes");
                push(outbox, question.meta.peer, &answer);
            }
        },
    )
    .unwrap();
    let mut client = Client::new(net, Tagged(Text), SERVER);
    let ticket = client.submit("once?").unwrap();
    let (other, result) = client.collect(Wait::Forever).unwrap();
    assert_eq!((other, result.unwrap()), (ticket, "yes"));
    assert!(client.collect(Wait::Forever).is_none());
    assert_eq!(client.request("again?").unwrap(), "yes");
    assert_eq!(client.ignored(), 4);
}

#[test]
fn a_thousand_at_once_in_any_order_get_each_their_own() {
    let net = SimNet::seeded(11);
    net.set_link(Link::new().reordering(1.0, ms(450)).duplication(0.2))
        .unwrap();
    echo(&net, Tagged(Text));
    thousand(Client::new(net, Tagged(Text), SERVER));

    let net = SimNet::seeded(11);
    net.set_link(Link::new().reordering(1.0, ms(450)).duplication(0.2))
        .unwrap();
    net.host(
        SERVER,
        ServerCore::new(Ctime::utc(), |text: &str| Some(text.to_owned())),
    )
    .unwrap();
    let mut client = Client::new(net, Ctime::utc(), SERVER);
    let mut questions = HashMap::new();
    for number in 0..MANY {
        questions.insert(
            client.submit(&number.to_string()).unwrap(),
            number.to_string(),
        );
    }
    while let Some((ticket, frame)) = client.collect(Wait::Forever) {
        assert_eq!(questions.remove(&ticket).unwrap(), frame.unwrap().text);
    }
    assert!(questions.is_empty());
}

fn thousand(mut client: Client<SimNet, Tagged<Text>>) {
    let mut questions = HashMap::new();
    for number in 0..MANY {
        questions.insert(
            client.submit(&number.to_string()).unwrap(),
            number.to_string(),
        );
    }
    assert_eq!(client.in_flight(), MANY);
    let mut order = Vec::new();
    while let Some((ticket, text)) = client.collect(Wait::Forever) {
        assert_eq!(questions.remove(&ticket).unwrap(), text.unwrap());
        order.push(ticket);
    }
    assert!(questions.is_empty());
    assert!(!order.is_sorted(), "the answers overtook each other");
}

#[test]
fn a_request_leaves_the_results_of_others_to_be_collected() {
    let net = SimNet::new();
    echo(&net, Tagged(Text));
    let mut client = Client::new(net, Tagged(Text), SERVER);
    let first = client.submit("first").unwrap();
    assert_eq!(client.request("second").unwrap(), "second");
    let (ticket, result) = client.collect(Wait::No).unwrap();
    assert_eq!((ticket, result.unwrap()), (first, "first"));
}

#[test]
fn a_full_window_is_an_error_until_a_result_is_collected() {
    let net = SimNet::new();
    echo(&net, Text);
    let mut client = Client::builder(Text)
        .window(2)
        .with_connector(net, SERVER)
        .unwrap();
    client.submit("one").unwrap();
    client.submit("two").unwrap();
    assert!(matches!(
        client.submit("three"),
        Err(RequestError::WindowFull {
            in_flight: 2,
            uncollected: 0,
            ..
        })
    ));
    client.collect(Wait::Forever).unwrap().1.unwrap();
    client.submit("three").unwrap();
}

#[test]
fn a_dead_server_is_not_hammered() {
    let net = SimNet::seeded(4);
    let times = record_times(&net);
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::new().max_in_flight(10))
        .with_connector(net, SERVER)
        .unwrap();
    for _ in 0..MANY / 2 {
        client.submit("anybody?").unwrap();
    }
    let mut failed = 0;
    while let Some((_, result)) = client.collect(Wait::Forever) {
        assert!(matches!(result, Err(RequestError::TimedOut { .. })));
        failed += 1;
    }
    assert_eq!(failed, MANY / 2);
    // One is in flight for two seconds at least, and the first leave after one.
    let again = times.lock().unwrap().split_off(MANY / 2);
    assert!((10..=20).contains(&again.len()), "{again:?}");
    for window in again.windows(11) {
        assert!(
            window[10] >= window[0] + Duration::from_secs(2),
            "{window:?}"
        );
    }
}

#[test]
fn requests_that_wait_for_a_place_get_it_when_answers_come() {
    // Every first send is lost; all others arrive.
    let lose: Vec<_> = (1..=100).map(|number| format!("{number} lose")).collect();
    let net = SimNet::scripted(0, lose.join(", ").parse().unwrap());
    net.set_link(Link::new().latency(ms(5))).unwrap();
    echo(&net, Tagged(Text));
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::new().max_in_flight(1))
        .with_connector(net, SERVER)
        .unwrap();
    for _ in 0..100 {
        client.submit("now?").unwrap();
    }
    while let Some((_, result)) = client.collect(Wait::Forever) {
        result.unwrap();
    }
}

#[test]
fn no_id_is_used_twice_on_one_socket() {
    let net = SimNet::seeded(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    net.host(
        SERVER,
        move |_: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            let peer = question.meta.peer;
            log.lock().unwrap().push((peer.port(), question.bytes[1]));
            push(outbox, peer, &[b'!', question.bytes[1]]);
        },
    )
    .unwrap();
    let mut client = Client::builder(Narrow)
        .cooldown(Duration::from_secs(30))
        .with_connector(net.clone(), SERVER)
        .unwrap();
    // There are four ids, so there are ten ports.
    for _ in 0..40 {
        client.request(b"x").unwrap();
    }
    let mut exchanges = seen.lock().unwrap().clone();
    let ports = |exchanges: &[(u16, u8)]| {
        let ports = exchanges.iter().map(|&(port, _)| port);
        ports.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(ports(&exchanges), 10);
    exchanges.sort_unstable();
    exchanges.dedup();
    assert_eq!(exchanges.len(), 40);
    assert_eq!(client.stats().cooling_sockets, 9);
    // Their cooldown is over, but for the one that is in use; so the lowest port is free again.
    net.advance(Duration::from_secs(30));
    client.request(b"x").unwrap();
    assert_eq!(client.stats().cooling_sockets, 1);
    assert_eq!(seen.lock().unwrap().last().unwrap().0, FIRST_PORT);
}

#[test]
fn a_partition_is_survived_once_it_heals() {
    let net = SimNet::new();
    echo(&net, Text);
    let mut client = Client::new(net.clone(), Text, SERVER);
    net.partition(CLIENT, SERVER.ip());
    assert!(matches!(
        client.request("lost?"),
        Err(RequestError::TimedOut { sends: 3, .. })
    ));
    let cut = |event: &&rejoinder::sim::TraceEvent| event.fate == PacketFate::Partitioned;
    assert_eq!(net.trace().events().filter(cut).count(), 3);
    net.heal(CLIENT, SERVER.ip());
    assert_eq!(client.request("found?").unwrap(), "found?");
}

#[test]
fn an_unreachable_port_speeds_the_failure_up_only_if_that_is_wanted() {
    let net = SimNet::new();
    net.set_link(Link::new().latency(ms(10)).port_unreachable(true))
        .unwrap();
    let listening =
        |error| matches!(error, Err(RequestError::NobodyListening { peer }) if peer == SERVER);

    let mut patient = Client::new(net.clone(), Text, SERVER);
    assert!(listening(patient.request("anybody?").map(str::to_owned)));
    assert_eq!(net.now().monotonic, Duration::from_secs(5));

    let mut hasty = Client::builder(Tagged(Text))
        .fail_when_unreachable(true)
        .with_connector(net.clone(), SERVER)
        .unwrap();
    assert!(listening(hasty.request("anybody?").map(str::to_owned)));
    assert_eq!(net.now().monotonic, Duration::from_millis(5_020));

    // A server that starts meanwhile is found by the patient.
    let wire = net.clone();
    let mut delayed = Client::new(net.clone(), Text, SERVER);
    delayed.submit("anybody?").unwrap();
    assert!(delayed.collect(Wait::For(ms(500))).is_none());
    echo(&wire, Text);
    assert_eq!(
        delayed.collect(Wait::Forever).unwrap().1.unwrap(),
        "anybody?"
    );
}

#[test]
fn a_request_above_the_mtu_is_an_error_that_says_so() {
    let net = SimNet::new();
    net.set_link(Link::new().mtu(1_500, AboveMtu::Refuse))
        .unwrap();
    echo(&net, Raw);
    let mut client = Client::new(net.clone(), Raw, SERVER);
    assert_eq!(client.request(&[7; 1_472]).unwrap().len(), 1_472);
    assert!(matches!(
        client.request(&[7; 1_473]),
        Err(RequestError::NotSent { peer: SERVER, .. })
    ));
    net.set_link(Link::new().mtu(1_500, AboveMtu::Lose))
        .unwrap();
    assert!(matches!(
        client.request(&[7; 1_473]),
        Err(RequestError::TimedOut { .. })
    ));
    net.set_link(Link::new().mtu(1_500, AboveMtu::Fragment))
        .unwrap();
    assert_eq!(client.request(&vec![7; 65_507]).unwrap().len(), 65_507);
}

#[test]
#[cfg_attr(miri, ignore = "a rate needs many datagrams")]
fn fragments_make_loss_worse() {
    let lost_of = |bytes: usize| {
        let net = SimNet::seeded(9);
        net.set_link(Link::new().loss(0.1).mtu(1_500, AboveMtu::Fragment))
            .unwrap();
        for _ in 0..Trace::EVENTS {
            net.inject(from("10.0.0.9:9"), SERVER, &vec![0; bytes]);
        }
        let trace = net.trace();
        let lost = trace
            .events()
            .filter(|event| event.fate == PacketFate::Lost)
            .count();
        lost as f64 / Trace::EVENTS as f64
    };
    assert!((lost_of(1_472) - 0.1).abs() < 0.02);
    // Three fragments: 1 - 0.9^3.
    assert!((lost_of(4_000) - 0.271).abs() < 0.03);
}

#[test]
fn a_full_queue_loses_and_a_narrow_link_delays() {
    let net = SimNet::new();
    // A datagram of 72 bytes takes 100 bytes with its headers, 100 ms.
    net.set_link(Link::new().rate(1_000, 2)).unwrap();
    let mut receiver = net.bind(SERVER).unwrap();
    for _ in 0..5 {
        net.inject(from("10.0.0.9:9"), SERVER, &[0; 72]);
    }
    let mut inbox = Inbox::new(8, 100);
    let mut times = Vec::new();
    while receiver
        .recv(&mut inbox, Wait::For(Duration::from_secs(1)))
        .unwrap()
        > 0
    {
        times.push(net.now().monotonic);
        while inbox.pop().is_some() {}
    }
    // One is on its way, two wait, two are lost.
    assert_eq!(times, [ms(100), ms(200), ms(300)]);
}

#[test]
fn a_jump_of_the_civil_clock_moves_no_deadline() {
    let net = SimNet::new();
    net.host(
        SERVER,
        ServerCore::new(Ctime::utc(), |text: &str| Some(text.to_owned())),
    )
    .unwrap();
    let mut client = Client::new(net.clone(), Ctime::utc(), SERVER);
    let earlier = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    net.partition(CLIENT, SERVER.ip());
    client.submit("when?").unwrap();
    assert!(client.collect(Wait::For(Duration::from_secs(1))).is_none());
    net.set_wall_clock(earlier);
    client.collect(Wait::Forever).unwrap().1.unwrap_err();
    assert_eq!(net.now().monotonic, Duration::from_secs(5));
    net.heal(CLIENT, SERVER.ip());
    let frame = client.request("when?").unwrap();
    assert_eq!(frame.to_string(), "[b'Fri Jan  2 00:00:04 1970']when?");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_gives_another() {
    let trace = |seed| {
        let net = SimNet::seeded(seed);
        storm::survive(&net, 0b11_11_11 | seed << 6);
        net.trace()
    };
    let (one, again, other) = (trace(1), trace(1), trace(2));
    assert_eq!(one.to_string(), again.to_string());
    assert_eq!(one.hash(), again.hash());
    assert_ne!(one.hash(), other.hash());
}

/// What follows from a seed is a promise: a change here is a breaking one.
#[test]
fn the_trace_of_a_seed_is_what_it_was() {
    let net = SimNet::seeded(1);
    net.set_link(
        Link::new()
            .loss(0.3)
            .duplication(0.2)
            .latency(ms(10))
            .jitter(ms(10)),
    )
    .unwrap();
    echo(&net, Text);
    Client::new(net.clone(), Text, SERVER)
        .request("still the same?")
        .unwrap();
    let trace = net.trace();
    assert_eq!(
        trace.to_string(),
        "   0.000000000 s  #1 10.255.255.254:49152 > 10.0.0.1:7, 15 bytes sent at 0.000000000 s: lost\n\
         \x20  1.290691763 s  #2 10.255.255.254:49152 > 10.0.0.1:7, 15 bytes sent at 1.290691763 s: lost\n\
         \x20  3.885465716 s  #3 10.255.255.254:49152 > 10.0.0.1:7, 15 bytes sent at 3.872075289 s: delivered\n\
         \x20  3.898464910 s  #4 10.0.0.1:7 > 10.255.255.254:49152, 15 bytes sent at 3.885465716 s: delivered\n\
         trace 0x3d8e1137baf27b3e"
    );
}

#[test]
fn the_fate_of_a_datagram_depends_on_no_other_link() {
    let fates = |disturbed: bool| {
        let net = SimNet::seeded(6);
        net.set_link(Link::new().loss(0.5)).unwrap();
        for number in 0..100_u8 {
            net.inject(from("10.0.0.9:9"), SERVER, &[number]);
            if disturbed {
                net.inject(from("10.0.0.8:8"), SERVER, &[number]);
            }
        }
        net.advance(Duration::from_secs(1));
        let trace = net.trace();
        let mut fates: Vec<_> = trace
            .events()
            .filter(|event| event.from == from("10.0.0.9:9"))
            .map(|event| (event.number, event.fate))
            .collect();
        fates.sort_by_key(|&(number, _)| number);
        fates.into_iter().map(|(_, fate)| fate).collect::<Vec<_>>()
    };
    assert_eq!(fates(false), fates(true));
}

#[test]
fn a_failing_run_names_the_network_that_reproduces_it() {
    let script: Script = "1 lose, 2 delay 40ms".parse().unwrap();
    let net = SimNet::scripted(0x2a, script);
    let panic = std::panic::catch_unwind(|| {
        net.run(|net| {
            net.inject(from("10.0.0.9:9"), SERVER, b"x");
            panic!("as planned");
        });
    })
    .unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.starts_with("as planned\n"), "{message}");
    assert!(
        message.contains("#1 10.0.0.9:9 > 10.0.0.1:7, 1 bytes"),
        "{message}"
    );
    let line = "let net = SimNet::scripted(0x2a, \"1 lose, 2 delay 40ms\".parse()?);";
    assert!(message.ends_with(line), "{message}");
}

#[test]
#[cfg_attr(miri, ignore = "takes a million datagrams")]
fn nodes_that_answer_each_other_without_end_do_not_hang_a_test() {
    let net = SimNet::new();
    let echo = |_: Timestamp, datagram: Datagram<'_>, outbox: &mut Outbox| {
        push(outbox, datagram.meta.peer, datagram.bytes);
    };
    net.host(SERVER, echo).unwrap();
    net.host(from("10.0.0.2:7"), echo).unwrap();
    net.inject(from("10.0.0.2:7"), SERVER, b"ping");
    let storm = std::panic::catch_unwind(|| net.advance(ms(1)));
    assert!(storm.is_err());
}

/// A request is `?`, a response is `!`, with two bits of id and whatever follows.
#[derive(Clone, Copy)]
struct Narrow;

impl Codec for Narrow {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = Infallible;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Infallible> {
        Ok(datagram.get(2..).unwrap_or_default())
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Infallible> {
        out.put(&[b'!', request[1]]);
        out.put(answer);
        Ok(())
    }

    fn encode_request(
        &self,
        id: u64,
        request: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Infallible> {
        out.put(&[b'?', u8::try_from(id).unwrap()]);
        out.put(request);
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Infallible> {
        self.decode_request(datagram)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first() == Some(&b'!')
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 2 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        response.get(1).map(|&id| id.into())
    }
}

type Display<'a> = &'a dyn std::fmt::Display;

/// A server that answers every request with the request.
fn echo<C: Codec + Clone + Send + 'static>(net: &SimNet, codec: C) {
    // What is echoed is encoded again, so any codec will do whose responses repeat requests.
    net.host(
        SERVER,
        move |_: Timestamp, question: Datagram<'_>, outbox: &mut Outbox| {
            let mut bytes = question.bytes.to_vec();
            if codec.correlation() != Correlation::Socket {
                bytes[0] = b'!';
            }
            push(outbox, question.meta.peer, &bytes);
        },
    )
    .unwrap();
}

/// A server that says nothing, and the times at which it was asked.
fn record_times(net: &SimNet) -> Arc<Mutex<Vec<Duration>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&times);
    net.host(
        SERVER,
        move |now: Timestamp, _: Datagram<'_>, _: &mut Outbox| {
            log.lock().unwrap().push(now.monotonic);
        },
    )
    .unwrap();
    times
}

fn patient<C: Codec>(codec: C) -> ClientBuilder<C> {
    Client::builder(codec).timeout(Duration::from_secs(60))
}

fn encode<C>(codec: &C, now: Timestamp, request: &[u8], answer: &str) -> Vec<u8>
where
    C: for<'a> Codec<Answer<'a> = Display<'a>>,
{
    let mut space = [0; 1_000];
    let mut out = Writer::new(&mut space);
    codec
        .encode_response(now, request, &answer, &mut out)
        .unwrap();
    let len = out.finish().unwrap();
    space[..len].to_vec()
}

fn push(outbox: &mut Outbox, peer: SocketAddr, bytes: &[u8]) {
    outbox.push(peer, None, bytes).unwrap();
}

fn from(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SERVER: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::new(10, 0, 0, 1),
    7,
));
/// How many requests are many. Miri is some thousand times slower.
const MANY: usize = if cfg!(miri) { 20 } else { 1_000 };
/// An upper bound of the datagrams sent during one request.
const JUNK: u16 = if cfg!(miri) { 200 } else { 10_000 };
/// The first that is given out.
const FIRST_PORT: u16 = 49_152;
/// Where a client lives that says nothing else.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 255, 255, 254));
