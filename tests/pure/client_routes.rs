//! From which socket and to which address the client's core has a request be sent, driven by hand.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::codec::{ResponseKind, Tagged, Text};
use rejoinder::sans_io::SocketEvent;
use rejoinder::sim::SimNet;
use rejoinder::transport::{LocalPort, Outbox, SendReport};
use rejoinder::{ClientBuilder, Codec, Correlation, RequestError, Retry, Timestamp, Writer};

use super::client_core::{
    Batch, Code, Driven, Kinds, SERVER, all_refused, all_sent, at, builder, secs,
};

const OTHER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)),
    8888,
);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A client whose requests share a socket, and that has a long time.
fn tagged() -> ClientBuilder<Tagged<Text>> {
    builder(Tagged(Text)).timeout(secs(60))
}

/// How long there is nothing to do.
fn until_timer<C: Codec>(client: &Driven<C>) -> Duration {
    let timer = client.core.next_timer().unwrap();
    timer.checked_sub(client.now).unwrap()
}

/// What was asked in each batch, without the ids.
fn texts(batches: &[Batch]) -> Vec<Vec<String>> {
    let text = |datagram: &Vec<u8>| String::from_utf8(datagram[9..].to_vec()).unwrap();
    let texts = |(_, sent): &Batch| sent.iter().map(text).collect();
    batches.iter().map(texts).collect()
}

/// The response to a datagram that was sent.
fn response_to(sent: &[u8]) -> Vec<u8> {
    [b"!", &sent[1..9], b"yes"].concat()
}

/// The report on a batch of which the last datagrams were refused.
fn refused_at_the_end(
    outbox: &Outbox,
    refused: usize,
    error: impl Fn() -> io::Error,
) -> SendReport {
    let mut report = SendReport::accepted(outbox.len() - refused);
    for _ in 0..refused {
        report.record_failure(error());
    }
    report
}

#[test]
fn a_datagram_that_is_too_long_among_others_is_not_repeated_at_once_and_a_refusal_is() {
    let too_long = || io::Error::from_raw_os_error(if cfg!(windows) { 10_040 } else { 90 });
    let cases: [(&dyn Fn() -> io::Error, usize); 2] =
        [(&too_long, 1), (&|| ErrorKind::ConnectionRefused.into(), 2)];
    for (error, batches) in cases {
        if error().raw_os_error().is_some() && !cfg!(any(target_os = "linux", windows)) {
            continue;
        }
        let mut client = Driven::new(tagged());
        client.submit("one").unwrap();
        client.submit("two").unwrap();
        let mut calls = 0;
        let sent = client.send_with(
            |outbox| {
                calls += 1;
                match calls {
                    1 => refused_at_the_end(outbox, 1, error),
                    _ => all_sent(outbox),
                }
            },
            || Ok(()),
        );
        assert_eq!(sent.len(), batches, "{:?}", error());
    }
}

#[test]
fn the_pause_for_want_of_buffers_doubles_up_to_64_milliseconds() {
    let mut client = Driven::new(tagged());
    client.submit("one").unwrap();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        client.send_with(
            |outbox| all_refused(outbox, ErrorKind::WouldBlock),
            || Ok(()),
        );
        let due = client.core.next_timer().unwrap();
        pauses.push(due.saturating_sub(client.now));
        client.now = due;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64].map(ms));
    // Once one is sent, the next want of buffers is a new one.
    client.send();
    client.submit("two").unwrap();
    client.send_with(
        |outbox| all_refused(outbox, ErrorKind::WouldBlock),
        || Ok(()),
    );
    assert_eq!(client.core.next_timer(), Some(client.now + ms(1)));
}

#[test]
fn a_request_moves_off_a_broken_old_socket_to_the_one_that_the_others_share() {
    let retry = Retry::new().initial(secs(350));
    let mut client = Driven::new(builder(Tagged(Text)).timeout(secs(2_000)).retry(retry));
    client.submit("one").unwrap();
    let old = client.send()[0].0;
    // Requests share a port for 300 s.
    client.now = secs(300);
    client.submit("two").unwrap();
    let new = client.send()[0].0;
    assert_ne!(new, old);
    client.now = secs(540);
    let mut refused = false;
    let sent = client.send_with(
        |outbox| {
            if std::mem::replace(&mut refused, true) {
                all_sent(outbox)
            } else {
                all_refused(outbox, ErrorKind::AddrNotAvailable)
            }
        },
        || Ok(()),
    );
    let sockets: Vec<_> = sent.iter().map(|batch| batch.0).collect();
    assert_eq!(sockets, [old, new]);
    assert_eq!(texts(&sent), [["one"], ["one"]]);
    client.submit("three").unwrap();
    assert_eq!(client.send()[0].0, new);
}

#[test]
fn a_request_waits_on_its_socket_if_no_better_one_can_be_opened() {
    // Whether the only send was refused.
    for never_left in [false, true] {
        let mut client = Driven::new(builder(Tagged(Text)));
        client.submit("one").unwrap();
        let refuse = |outbox: &Outbox| all_refused(outbox, ErrorKind::AddrNotAvailable);
        let first = if never_left {
            client.send_with(refuse, || Ok(()))
        } else {
            client.send()
        };
        let (socket, sent) = first[0].clone();
        client.now = secs(2);
        let mut opened = 0;
        let mut once = !never_left;
        client.send_with(
            |outbox| {
                // The socket turns out to be broken.
                if std::mem::take(&mut once) {
                    refuse(outbox)
                } else {
                    all_sent(outbox)
                }
            },
            || {
                opened += 1;
                Err(ErrorKind::PermissionDenied.into())
            },
        );
        assert_eq!(opened, 1);
        // Nothing is left of the other.
        assert_eq!(client.core.stats().in_flight, 1);
        assert_eq!(client.core.stats().sockets, 1);
        if never_left {
            client.now = secs(5);
            assert!(client.send().is_empty());
            let error = client.error();
            assert!(matches!(error, RequestError::NotSent { .. }), "{error:?}");
        } else {
            client.receive(socket, &response_to(&sent[0]));
            assert!(client.core.poll_result().unwrap().1.is_ok());
        }
    }
}

#[test]
fn all_requests_of_a_socket_that_cannot_be_opened_move_to_the_next_address() {
    let mut client = Driven::new(tagged().other_peers([OTHER]));
    // More than fit into an outbox.
    for _ in 0..100 {
        client.submit("x").unwrap();
    }
    let mut opened = 0;
    let mut to_other = 0;
    client.send_with(
        |outbox| {
            to_other += outbox.iter().filter(|one| one.peer == OTHER).count();
            all_sent(outbox)
        },
        || {
            opened += 1;
            match opened {
                1 => Err(ErrorKind::PermissionDenied.into()),
                _ => Ok(()),
            }
        },
    );
    assert_eq!((opened, to_other), (2, 100));
    assert!(client.core.poll_result().is_none());
}

#[test]
fn a_request_fails_once_no_address_can_be_connected_to() {
    for with_ids in [false, true] {
        let attempts = if with_ids {
            attempts_to_connect(builder(Tagged(Text)))
        } else {
            attempts_to_connect(builder(Text))
        };
        assert_eq!(attempts, 2);
    }
}

fn attempts_to_connect<C>(builder: ClientBuilder<C>) -> usize
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let mut client = Driven::new(builder.other_peers([OTHER]));
    client.submit("one").unwrap();
    let mut attempts = 0;
    client.send_with(all_sent, || {
        attempts += 1;
        assert!(attempts < 10, "it goes on and on");
        Err(ErrorKind::PermissionDenied.into())
    });
    let error = client.error();
    assert!(matches!(error, RequestError::Connect { .. }), "{error:?}");
    attempts
}

#[test]
fn an_error_that_anyone_can_forge_does_not_take_the_only_address_its_socket() {
    let mut client = Driven::new(tagged());
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    client.fails(socket, ErrorKind::ConnectionRefused);
    client.submit("two").unwrap();
    assert_eq!(client.send()[0].0, socket);
    client.close();
    assert_eq!(client.sockets.len(), 1);
}

#[test]
fn requests_that_were_not_sent_yet_leave_for_the_next_address_when_theirs_refuses() {
    for fails in [false, true] {
        let client = tagged().other_peers([OTHER]).fail_when_unreachable(fails);
        let mut client = Driven::new(client);
        client.submit("one").unwrap();
        let socket = client.send()[0].0;
        client.submit("two").unwrap();
        client.fails(socket, ErrorKind::ConnectionRefused);
        let mut asked = Vec::new();
        client.send_with(
            |outbox| {
                let sent = outbox.iter();
                asked.extend(sent.map(|one| (one.peer, one.bytes[9..].to_vec())));
                all_sent(outbox)
            },
            || Ok(()),
        );
        asked.sort();
        assert_eq!(asked, [(OTHER, b"one".to_vec()), (OTHER, b"two".to_vec())]);
        assert!(client.core.poll_result().is_none());
    }
}

#[test]
fn an_error_of_an_address_that_was_left_changes_nothing_for_the_next() {
    let mut client = Driven::new(tagged().other_peers([OTHER]));
    client.submit("one").unwrap();
    let first = client.send()[0].0;
    client.fails(first, ErrorKind::ConnectionRefused);
    let second = client.send()[0].0;
    assert_ne!(first, second);
    client.fails(first, ErrorKind::ConnectionRefused);
    client.submit("two").unwrap();
    assert_eq!(client.send()[0].0, second);
}

#[test]
fn the_address_that_refuses_is_not_asked_again_by_the_next_request() {
    let mut client = Driven::new(tagged().other_peers([OTHER]));
    client.submit("one").unwrap();
    let first = client.send()[0].0;
    client.fails(first, ErrorKind::ConnectionRefused);
    client.submit("two").unwrap();
    let sent = client.send();
    assert_eq!(texts(&sent), [["one", "two"]]);
    assert_ne!(sent[0].0, first);
    // The first socket has no request but the one that may still be answered on it.
    assert_eq!(client.core.stats().sockets, 2);
}

#[test]
fn a_send_without_a_report_counts_as_one() {
    let mut client = Driven::new(builder(Text));
    let ticket = client.submit("one").unwrap();
    let mut outbox = Outbox::new(1, 512);
    let socket = client.core.poll_send(at(secs(0)), &mut outbox).unwrap();
    assert!(client.core.cancel(at(secs(0)), ticket));
    // A response may come, so that its port is no other's for a while.
    let event = client.core.poll_socket(at(secs(0)));
    assert_eq!(event, Some(SocketEvent::Idle(socket)));
}

#[test]
fn a_request_that_was_never_sent_does_not_shorten_the_cooldown_of_its_socket() {
    let mut client = Driven::new(builder(Tagged(Text)).retry(Retry::never()));
    client.submit("one").unwrap();
    let (socket, sent) = client.send()[0].clone();
    client.receive(socket, &response_to(&sent[0]));
    let two = client.submit("two").unwrap();
    client.core.cancel(at(client.now), two);
    // It is replaced by age.
    client.now = secs(300);
    client.submit("three").unwrap();
    assert_ne!(client.send()[0].0, socket);
    client.close();
    assert_eq!(client.sockets.get(&socket), Some(&false), "it is idle");
}

/// Has a request on the shared socket be unanswered for its first timeout, and then lets something
/// come. Returns whether the next request that is unanswered for its own is sent again from there.
fn keeps_its_socket_after<C>(builder: ClientBuilder<C>, come: impl Fn(&[u8]) -> Vec<u8>) -> bool
where
    C: for<'a> Codec<Request<'a> = &'a str>,
{
    let retry = Retry::new().initial(secs(1));
    let mut client = Driven::new(builder.timeout(secs(60)).retry(retry));
    client.submit("one").unwrap();
    let (socket, sent) = client.send()[0].clone();
    client.now = secs(2);
    assert_eq!(client.send()[0].0, socket, "one unanswered send is none");
    client.receive(socket, &come(&sent[0]));
    client.now = secs(3);
    client.submit("two").unwrap();
    client.send();
    client.now = secs(5);
    let sent = client.send();
    let two = sent.iter().find(|(_, sent)| sent[0].ends_with(b"two"));
    two.expect("it is sent again").0 == socket
}

#[test]
fn a_response_shows_that_its_socket_works() {
    assert!(keeps_its_socket_after(tagged(), response_to));
    assert!(!keeps_its_socket_after(tagged(), |_| b"junk".to_vec()));
}

#[test]
fn an_acknowledgement_shows_that_its_socket_works() {
    let acknowledgement = |sent: &[u8]| vec![sent[0], b'a'];
    assert!(keeps_its_socket_after(builder(Numbered), acknowledgement));
    assert!(!keeps_its_socket_after(builder(Numbered), |_| Vec::new()));
}

/// [`Kinds`] after an id of one byte.
#[derive(Debug)]
struct Numbered;

impl Codec for Numbered {
    type Request<'a> = &'a str;
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = Code;

    fn decode_request<'a>(&self, _: &'a [u8]) -> Result<&'a str, Code> {
        Err(Code(0))
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Code> {
        out.put(answer);
        Ok(())
    }
    fn encode_request(&self, id: u64, request: &str, out: &mut Writer<'_>) -> Result<(), Code> {
        out.put(&[u8::try_from(id).expect("it has 8 bits")]);
        out.put(request.as_bytes());
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Code> {
        Kinds.decode_response(datagram.get(1..).unwrap_or_default())
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 8 }
    }
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        response.first().map(|&id| id.into())
    }
    fn response_kind<'a>(&self, request: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        Kinds.response_kind(request, datagram.get(1..).unwrap_or_default())
    }
}

#[test]
fn what_was_sent_no_later_than_the_latest_response_says_nothing_about_its_socket() {
    let mut client = Driven::new(tagged().retry(Retry::new().initial(secs(1))));
    client.submit("one").unwrap();
    client.submit("two").unwrap();
    let (socket, sent) = client.send()[0].clone();
    // A response to the one comes at the time at which the other is sent.
    client.receive(socket, &response_to(&sent[0]));
    client.now = secs(2);
    assert_eq!(client.send()[0].0, socket);
    // So this is its first unanswered send, and not yet the second.
    client.now = secs(5);
    assert_eq!(client.send()[0].0, socket);
}

#[test]
fn the_last_send_leaves_from_another_socket_if_the_one_before_was_unanswered() {
    let retry = Retry::new().initial(secs(1)).max_sends(2);
    // Whether another request on the socket is answered meanwhile.
    for works in [false, true] {
        let mut client = Driven::new(tagged().retry(retry));
        client.submit("one").unwrap();
        client.submit("two").unwrap();
        let (socket, sent) = client.send()[0].clone();
        client.now = ms(500);
        if works {
            client.receive(socket, &response_to(&sent[1]));
        } else {
            let ticket = client.submit("three").unwrap();
            client.core.cancel(at(client.now), ticket);
        }
        // The first is due before the second.
        client.now = client.core.next_timer().unwrap();
        let sent = client.send();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0 == socket, works);
    }
}

#[test]
fn all_requests_of_a_silent_socket_move_to_the_one_that_replaces_it() {
    let mut client = Driven::new(tagged().retry(Retry::new().initial(secs(1))));
    for text in ["one", "two", "three"] {
        client.submit(text).unwrap();
    }
    let old = client.send()[0].0;
    client.now = secs(2);
    let sent = client.send();
    // The first unanswered send is none, the second is one too many, and the third follows the second.
    assert_eq!(
        sent.iter().map(|(_, sent)| sent.len()).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(sent[0].0, old);
    assert_ne!(sent[1].0, old);
}

#[test]
fn a_discovery_stays_on_its_socket_also_where_each_send_has_a_port_of_its_own() {
    let mut client = Driven::new(builder(Text).local_port(LocalPort::PerSend));
    let random = &mut || Ok(1);
    let ticket = client.core.discover(at(secs(0)), "who?", secs(5), random);
    ticket.unwrap();
    let socket = client.send()[0].0;
    client.now = secs(2);
    assert_eq!(client.send()[0].0, socket);
    assert_eq!(client.sockets.len(), 1);
}

#[test]
fn a_discovery_that_is_dropped_gives_its_room_back() {
    let net = SimNet::new();
    let group = "239.1.2.3:9999".parse().unwrap();
    let client = builder(Text).window(1).with_connector(net, group);
    let mut client = client.unwrap();
    for _ in 0..2 {
        let mut discovery = client.discover("who?", secs(1)).unwrap();
        assert!(discovery.next_response().is_none());
    }
    // Also before its time is over.
    drop(client.discover("who?", secs(1)).unwrap());
    assert_eq!(client.in_flight(), 0);
}

#[test]
fn invariant_9_no_socket_is_opened_beyond_the_limit_in_place_of_a_broken_one() {
    let mut client = Driven::new(tagged().max_cooling_sockets(1));
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    // A discovery has a socket of its own, which cools down.
    let random = &mut || Ok(1);
    let ticket = client.core.discover(at(secs(0)), "who?", secs(1), random);
    client.send();
    assert!(client.core.cancel(at(secs(0)), ticket.unwrap()));
    assert_eq!(client.core.stats().cooling_sockets, 1);
    client.now = secs(2);
    let mut attempts = 0;
    let sent = client.send_with(
        |outbox| {
            attempts += 1;
            assert!(attempts < 10, "it goes on and on");
            all_refused(outbox, ErrorKind::AddrNotAvailable)
        },
        || Ok(()),
    );
    assert!(!sent.is_empty());
    assert!(sent.iter().all(|batch| batch.0 == socket), "{sent:?}");
    // Once that is over, there is room for another.
    client.now = secs(30);
    assert_ne!(client.send()[0].0, socket);
}

#[test]
fn each_first_send_leaves_the_places_for_retransmissions_free() {
    let retry = Retry::new().initial(secs(1)).max_in_flight(1);
    let mut client = Driven::new(tagged().retry(retry));
    client.submit("one").unwrap();
    client.send();
    client.now = ms(900);
    client.submit("two").unwrap();
    client.send();
    client.now = client.core.next_timer().unwrap();
    assert!(client.now < ms(1_900));
    assert_eq!(texts(&client.send()), [["one"]]);
}

#[test]
fn a_request_that_waited_for_a_place_until_its_deadline_is_not_sent_then() {
    let retry = Retry::new().initial(secs(1)).max_in_flight(1);
    let mut client = Driven::new(builder(Tagged(Text)).retry(retry));
    let tickets = ["one", "two"].map(|text| client.submit(text).unwrap());
    client.send();
    client.now = secs(2);
    let sent = client.send();
    let place = usize::from(texts(&sent) == [["two"]]);
    client.now = secs(5);
    // The place is free at the very time of the deadline.
    client.core.cancel(at(client.now), tickets[place]);
    assert!(client.send().is_empty());
    let error = client.error();
    assert!(
        matches!(error, RequestError::TimedOut { sends: 1, .. }),
        "{error:?}"
    );
}

#[test]
fn a_response_to_an_earlier_send_is_no_measure_of_the_round_trip() {
    let mut client = Driven::new(tagged());
    // Five round trips of 800 ms.
    for _ in 0..5 {
        client.submit("one").unwrap();
        let (socket, sent) = client.send()[0].clone();
        client.now += ms(800);
        client.receive(socket, &response_to(&sent[0]));
        assert!(client.core.poll_result().unwrap().1.is_ok());
    }
    // The next takes longer, so that its response comes just after it was sent again.
    client.submit("two").unwrap();
    let (socket, sent) = client.send()[0].clone();
    let timeout = until_timer(&client);
    client.now += timeout;
    client.send();
    client.now += ms(10);
    client.receive(socket, &response_to(&sent[0]));
    assert!(client.core.poll_result().unwrap().1.is_ok());
    // Karn's algorithm, RFC 6298 §3 and §5.5.
    client.submit("three").unwrap();
    client.send();
    assert!(until_timer(&client) >= timeout * 2);
}

#[test]
fn results_that_wait_take_up_room_beside_the_requests_in_flight() {
    let mut client = Driven::new(tagged().window(4));
    for text in ["one", "two", "three"] {
        client.submit(text).unwrap();
    }
    let (socket, sent) = client.send()[0].clone();
    client.receive(socket, &response_to(&sent[0]));
    client.receive(socket, &response_to(&sent[1]));
    let stats = client.core.stats();
    assert_eq!((stats.in_flight, stats.uncollected, stats.room), (1, 2, 1));
    client.submit("four").unwrap();
    let error = client.submit("five").unwrap_err();
    assert!(
        matches!(error, RequestError::WindowFull { .. }),
        "{error:?}"
    );
}

#[test]
fn a_response_of_as_many_datagrams_and_bytes_as_the_limits_is_taken_and_names_its_peer() {
    let mut client = Driven::new(builder(Kinds).max_response(2, 4));
    let of_one = &[&b"p\x00\x01abcd"[..]][..];
    let of_two = &[&b"p\x00\x02ab"[..], b"p\x01\x02cd"];
    for datagrams in [of_one, of_two] {
        client.submit(b"?").unwrap();
        let socket = client.send()[0].0;
        for datagram in datagrams {
            client.receive(socket, datagram);
        }
        let response = client.core.poll_result().unwrap().1.unwrap();
        assert_eq!((response.peer(), response.bytes()), (SERVER, &b"abcd"[..]));
    }
}

#[test]
fn an_address_that_stays_keeps_its_socket_when_others_are_added() {
    let mut client = Driven::new(tagged());
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    client.core.set_peers(at(client.now), OTHER, &[SERVER]);
    client.submit("two").unwrap();
    assert_eq!(client.send()[0].0, socket);
}

#[test]
fn other_addresses_change_nothing_for_results_and_discoveries() {
    let mut client = Driven::new(builder(Text));
    client.submit("one").unwrap();
    let socket = client.send()[0].0;
    client.receive(socket, b"yes");
    client.core.set_peers(at(client.now), OTHER, &[]);
    assert_eq!(client.core.next_timer(), None);

    // A group is asked for as long as was said, and not in turn with other addresses.
    client.core.set_peers(at(client.now), OTHER, &[SERVER]);
    let random = &mut || Ok(0);
    let ticket = client.core.discover(at(secs(0)), "who?", secs(1), random);
    ticket.unwrap();
    client.send();
    assert_eq!(client.core.next_timer(), Some(secs(1)));
    client.core.set_peers(at(client.now), SERVER, &[]);
    assert_eq!(client.core.next_timer(), Some(secs(1)));
}

#[test]
fn another_timeout_is_that_of_the_next_request() {
    let mut client = Driven::new(tagged().retry(Retry::never()));
    client.core.set_timeout(ms(7));
    client.submit("one").unwrap();
    client.send();
    assert_eq!(client.core.next_timer(), Some(ms(7)));
}

#[test]
fn a_request_that_was_acknowledged_says_nothing_against_its_address() {
    let client = builder(Numbered).retry(Retry::never().initial(secs(1)));
    let mut client = Driven::new(client.other_peers([OTHER]));
    client.submit("one").unwrap();
    let (socket, sent) = client.send()[0].clone();
    client.now = secs(1);
    client.receive(socket, &[sent[0][0], b'a']);
    client.now = secs(2);
    client.submit("two").unwrap();
    client.send();
    // The second is unanswered in its time, and the first at its deadline.
    client.now = secs(4);
    client.send();
    client.now = secs(5);
    client.send();
    assert_eq!(client.core.stats().uncollected, 1);
    assert_eq!(client.core.peer(), SERVER);
    // The deadline of the second is another matter.
    client.now = secs(7);
    client.send();
    assert_eq!(client.core.peer(), OTHER);
}

#[test]
fn a_silent_address_is_left_only_if_another_socket_can_be_opened() {
    for is_full in [false, true] {
        let client = builder(Tagged(Text))
            .retry(Retry::never())
            .other_peers([OTHER]);
        let mut client = Driven::new(client.max_cooling_sockets(if is_full { 1 } else { 2 }));
        client.submit("one").unwrap();
        client.send();
        let random = &mut || Ok(1);
        let ticket = client.core.discover(at(secs(0)), "who?", secs(1), random);
        client.send();
        assert!(client.core.cancel(at(secs(0)), ticket.unwrap()));
        client.now = secs(5);
        client.send();
        assert_eq!(client.core.stats().uncollected, 1);
        assert_eq!(client.core.peer() == SERVER, is_full);
    }
}

/// Whether the second send of a request to one of so many addresses leaves for the same as the first. The
/// first timeout is a second.
fn stays_at_its_address(addresses: u8, timeout: Duration) -> bool {
    let others = (2..=addresses).map(|last| SocketAddr::from(([192, 0, 2, last], 8888)));
    let retry = Retry::new().initial(secs(1)).max_sends(20);
    let client = builder(Tagged(Text)).timeout(timeout).retry(retry);
    let mut client = Driven::new(client.other_peers(others));
    let ticket = client.core.submit(at(secs(0)), "one", &mut || Ok(0));
    ticket.unwrap();
    let first = client.send()[0].0;
    client.now = client.core.next_timer().unwrap();
    assert_eq!(client.now, secs(1));
    client.send()[0].0 == first
}

#[test]
fn an_address_is_asked_twice_if_the_others_have_as_much_time_left() {
    assert!(stays_at_its_address(2, secs(60)));
    // After a second, three addresses have a second each, which is as long as the first waited for; or less.
    assert!(stays_at_its_address(3, secs(4)));
    assert!(!stays_at_its_address(3, ms(3_500)));
}

#[test]
fn a_silent_server_with_one_address_costs_one_socket_in_two_seconds() {
    let mut client = Driven::new(tagged().retry(Retry::new().initial(ms(100)).max_sends(20)));
    client.submit("one").unwrap();
    let mut sockets = vec![client.send()[0].0];
    for _ in 0..4 {
        client.now = client.core.next_timer().unwrap();
        sockets.push(client.send()[0].0);
    }
    sockets.dedup();
    assert_eq!(sockets.len(), 2, "{sockets:?}");
}

#[test]
fn a_client_takes_another_timeout_too() {
    let client = builder(Text).with_connector(SimNet::new(), SERVER);
    let mut client = client.unwrap();
    client.set_timeout(ms(300));
    let error = client.request("anyone?").unwrap_err();
    assert!(
        matches!(error, RequestError::TimedOut { after, .. } if after == ms(300)),
        "{error:?}"
    );
}
