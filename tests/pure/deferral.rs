//! Requests that are deferred: invariant 1 holds at every moment, whatever becomes of them and in
//! whatever order.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use proptest::sample::Index;
use rejoinder::codec::{Tagged, Text};
use rejoinder::gate::{Gate, ResponseSize};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::{Deferred, ServerCore};
use rejoinder::transport::{Datagram, Delivery, Inbox, Meta, Outbox};
use rejoinder::{Codec, DropReason, IntoReply, Reply, ReplyError, Server, Timestamp};

use crate::server_core::Picky;

/// What the gate, the handler or the driver does next.
#[derive(Clone, Debug)]
enum Step {
    /// Datagrams arrive, if the inbox is empty.
    Receive(Vec<Arrival>),
    /// The driver takes the next request.
    Defer,
    /// One of the requests at work is answered.
    Answer(Index, Answer),
    /// One of them is dropped.
    Drop(Index, DropReason),
    /// The outbox leaves.
    Send,
}

#[derive(Clone, Copy, Debug)]
enum Arrival {
    Request,
    Malformed,
    Truncated,
    FromReflector,
    /// One that the gate refuses.
    Unwelcome,
    /// One that the gate panics at.
    Terrible,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Nothing,
    Replies(usize),
    /// The gate forbids it.
    Forbidden,
    TooLong,
    TooMany,
    Error,
    /// One reply, then an error.
    Half,
    Panic,
}

/// Decides by the bytes of the request and by the size of the reply.
struct Moody;

impl Gate for Moody {
    fn accept(&mut self, _: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        assert!(datagram.bytes != b"terrible", "as planned");
        match datagram.bytes {
            b"unwelcome" => Err(DropReason::Gate("mood")),
            _ => Ok(()),
        }
    }

    fn allow_responses(
        &mut self,
        _: Timestamp,
        _: &Datagram<'_>,
        replies: ResponseSize,
    ) -> Result<(), DropReason> {
        // The one that `Answer::Forbidden` sends.
        match replies.bytes {
            1 => Err(DropReason::Amplification),
            _ => Ok(()),
        }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        5 => Just(Arrival::Request),
        1 => Just(Arrival::Malformed),
        1 => Just(Arrival::Truncated),
        1 => Just(Arrival::FromReflector),
        1 => Just(Arrival::Unwelcome),
        1 => Just(Arrival::Terrible),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Nothing),
        (1..=MAX_RESPONSES).prop_map(Answer::Replies),
        Just(Answer::Forbidden),
        Just(Answer::TooLong),
        Just(Answer::TooMany),
        Just(Answer::Error),
        Just(Answer::Half),
        Just(Answer::Panic),
    ]
}

fn reason() -> impl Strategy<Value = DropReason> {
    prop::sample::select(vec![
        DropReason::HandlerTimedOut,
        DropReason::HandlerPanicked,
        DropReason::Cancelled,
        DropReason::Overloaded,
    ])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => prop::collection::vec(arrival(), 1..8).prop_map(Step::Receive),
        4 => Just(Step::Defer),
        3 => (any::<Index>(), answer()).prop_map(|(which, answer)| Step::Answer(which, answer)),
        1 => (any::<Index>(), reason()).prop_map(|(which, reason)| Step::Drop(which, reason)),
        1 => Just(Step::Send),
    ];
    prop::collection::vec(step, 0..64)
}

fn reply(answer: Answer, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
    match answer {
        Answer::Nothing => Ok(()),
        Answer::Replies(replies) => (0..replies).try_for_each(|_| reply.send(&"well")),
        Answer::Forbidden => reply.send(&"1"),
        Answer::TooLong => reply.send(&"x".repeat(MAX_BYTES + 1)),
        Answer::TooMany => (0..=MAX_RESPONSES).try_for_each(|_| reply.send(&"well")),
        Answer::Error => Err::<(), _>("no database").reply(reply),
        Answer::Half => {
            reply.send(&"half")?;
            Err::<(), _>("and no more").reply(reply)
        }
        Answer::Panic => {
            reply.send(&"half")?;
            panic!("as planned")
        }
    }
}

/// What the core should have counted: the counters that a step changes, by name.
#[derive(Default)]
struct Model {
    pending: Vec<Arrival>,
    deferred: u64,
    replied: u64,
    silent: u64,
    dropped: BTreeMap<String, u64>,
    queued: usize,
}

impl Model {
    fn drop_as(&mut self, reason: DropReason) {
        *self.dropped.entry(reason.to_string()).or_default() += 1;
    }

    fn defer(&mut self) -> bool {
        while !self.pending.is_empty() && self.queued < MAX_QUEUED {
            match self.pending.remove(0) {
                Arrival::Request => {
                    self.deferred += 1;
                    return true;
                }
                Arrival::Malformed => self.drop_as(DropReason::Malformed),
                Arrival::Truncated => self.drop_as(DropReason::Truncated),
                Arrival::FromReflector => self.drop_as(DropReason::SourceReflector),
                Arrival::Unwelcome => self.drop_as(DropReason::Gate("mood")),
                Arrival::Terrible => self.drop_as(DropReason::HandlerPanicked),
            }
        }
        false
    }

    fn answer(&mut self, answer: Answer) {
        self.deferred -= 1;
        match answer {
            Answer::Nothing => self.silent += 1,
            Answer::Replies(replies) => {
                self.replied += 1;
                self.queued += replies;
            }
            Answer::Forbidden => self.drop_as(DropReason::Amplification),
            Answer::TooLong | Answer::TooMany => self.drop_as(DropReason::ReplyFailed),
            Answer::Error | Answer::Half => self.drop_as(DropReason::HandlerFailed),
            Answer::Panic => self.drop_as(DropReason::HandlerPanicked),
        }
    }

    fn check<G>(&self, core: &ServerCore<Text, (), G>, outbox: &Outbox) {
        let stats = core.stats();
        assert!(stats.is_conserved(), "invariant 1: {stats}");
        let dropped: BTreeMap<_, _> = stats
            .drops()
            .filter(|&(_, datagrams)| datagrams > 0)
            .map(|(reason, datagrams)| (reason.to_string(), datagrams))
            .collect();
        assert_eq!(dropped, self.dropped);
        assert_eq!(
            (stats.deferred, stats.replied, stats.silent),
            (self.deferred, self.replied, self.silent)
        );
        // Nothing of an answer that failed is left, and nothing of one that did not is missing.
        assert_eq!(outbox.len(), self.queued);
        assert!(outbox.iter().all(|response| response.bytes == b"well"));
    }
}

/// A driver of its own: it keeps requests and their bytes for as long as it likes.
#[derive(Default)]
struct Driver {
    at_work: Vec<(Deferred, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_datagram_is_accounted_for_after_every_step(steps in steps()) {
        let mut core = Server::builder(Text).gate(Moody).core(());
        let mut inbox = Inbox::new(8, MAX_BYTES);
        let mut outbox = Outbox::new(MAX_QUEUED, MAX_BYTES);
        let (mut model, mut driver) = (Model::default(), Driver::default());
        let now = Timestamp::new(Duration::from_secs(1), SystemTime::UNIX_EPOCH);
        for step in steps {
            match step {
                Step::Receive(arrivals) => {
                    if inbox.is_empty() {
                        for &one in &arrivals {
                            arrive(one, &mut inbox);
                        }
                        model.pending = arrivals;
                        // What was received counts once the core has looked at the inbox.
                        continue;
                    }
                }
                Step::Defer => {
                    let mut keep = driver.spare.pop().unwrap_or_default();
                    let deferred = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep);
                    prop_assert_eq!(deferred.is_some(), model.defer());
                    if let Some(deferred) = deferred {
                        prop_assert_eq!(&keep, b"request");
                        driver.at_work.push((deferred, keep));
                    }
                }
                Step::Answer(which, answer) => {
                    if driver.at_work.is_empty() || !outbox.has_room_for(MAX_RESPONSES) {
                        continue;
                    }
                    let index = which.index(driver.at_work.len());
                    let (deferred, bytes) = driver.at_work.swap_remove(index);
                    core.answer_deferred(now, deferred, &bytes, &mut outbox, |out| {
                        reply(answer, out)
                    });
                    driver.spare.push(bytes);
                    model.answer(answer);
                }
                Step::Drop(which, reason) => {
                    if driver.at_work.is_empty() {
                        continue;
                    }
                    let index = which.index(driver.at_work.len());
                    let (deferred, bytes) = driver.at_work.swap_remove(index);
                    core.drop_deferred(now, deferred, reason);
                    driver.spare.push(bytes);
                    model.deferred -= 1;
                    model.drop_as(reason);
                }
                Step::Send => {
                    outbox.clear();
                    model.queued = 0;
                }
            }
            model.check(&core, &outbox);
        }
    }
}

#[test]
fn a_reply_without_room_in_the_outbox_is_dropped_and_counted() {
    let mut core = Server::builder(Text).core(());
    let (mut inbox, mut outbox) = (Inbox::new(1, MAX_BYTES), Outbox::new(1, MAX_BYTES));
    arrive(Arrival::Request, &mut inbox);
    let (now, mut keep) = (Timestamp::system(), Vec::new());
    let deferred = core
        .defer_next(now, now, &mut inbox, &mut outbox, &mut keep)
        .unwrap();
    core.answer_deferred(now, deferred, &keep, &mut outbox, |reply| {
        reply.send(&"one")?;
        reply.send(&"two")
    });
    assert!(outbox.is_empty());
    assert_eq!(core.stats().dropped(DropReason::ReplyFailed), 1);
    assert!(core.stats().is_conserved());
}

#[test]
fn an_answer_carries_the_time_at_which_it_was_given_and_the_id_of_its_request() {
    let codec = Tagged(Text);
    let mut core = Server::builder(codec).core(());
    let (mut inbox, mut outbox) = (Inbox::new(1, MAX_BYTES), Outbox::new(16, MAX_BYTES));
    let mut request = Outbox::new(1, MAX_BYTES);
    let peer = "192.0.2.1:7777".parse().unwrap();
    request
        .push_with(peer, None, |space| {
            let mut out = rejoinder::Writer::new(space);
            codec.encode_request(7, "when?", &mut out).unwrap();
            out.finish()
        })
        .unwrap();
    inbox.push(request.iter().next().unwrap().bytes, Meta::new(peer));
    let received = Timestamp::new(Duration::from_secs(1), SystemTime::UNIX_EPOCH);
    let answered = Timestamp::new(Duration::from_secs(4), SystemTime::UNIX_EPOCH);
    let mut keep = Vec::new();
    let deferred = core
        .defer_next(received, received, &mut inbox, &mut outbox, &mut keep)
        .unwrap();
    assert_eq!(deferred.context().now, received);
    assert_eq!(deferred.context().request_id, Some(7));
    core.answer_deferred(answered, deferred, &keep, &mut outbox, |reply| {
        reply.send(&"now")
    });
    let response = outbox.iter().next().unwrap();
    assert_eq!(codec.response_id(response.bytes), Some(7));
    assert!(outbox.is_unordered());
}

/// Lets no response out that has two bytes.
#[derive(Clone)]
struct NoPairs;

impl Gate for NoPairs {
    fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
        Ok(())
    }

    fn allow_responses(
        &mut self,
        _: Timestamp,
        _: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        let is_pair = responses.bytes == 2;
        (!is_pair).then_some(()).ok_or(DropReason::Gate("a pair"))
    }
}

#[test]
fn malformed_datagrams_are_rejected_as_by_a_handler_that_answers_at_once() {
    let core = Server::builder(Picky).gate(NoPairs);
    let mut at_once = core.clone().core(|()| Some("!"));
    let mut deferring = core.core(());
    let received = || {
        let mut inbox = Inbox::new(16, MAX_BYTES);
        let long = [b'x'; MAX_BYTES];
        // Well-formed; rejected; forbidden by the gate; too long, of no length, no response, longer
        // than any may be, a panic, none at all.
        for bytes in [
            &b"?"[..],
            b"1",
            b"3ab",
            b"2ab",
            b"2",
            b"0abc",
            b"l",
            &long,
            b"p",
            b"a",
            b"?",
            b"4abc",
        ] {
            inbox.push(bytes, Meta::new("192.0.2.1:7777".parse().unwrap()));
        }
        let mut group = Meta::new("192.0.2.1:7777".parse().unwrap());
        group.delivery = Delivery::Multicast;
        inbox.push(b"1", group);
        inbox
    };
    let now = Timestamp::new(Duration::from_secs(1), SystemTime::UNIX_EPOCH);
    let (mut one, mut other) = (Outbox::new(32, MAX_BYTES), Outbox::new(32, MAX_BYTES));
    at_once.handle(now, &mut received(), &mut one);
    let (mut inbox, mut keep) = (received(), Vec::new());
    while let Some(deferred) = deferring.defer_next(now, now, &mut inbox, &mut other, &mut keep) {
        deferring.answer_deferred(now, deferred, &keep, &mut other, |reply| reply.send(&"!"));
    }
    let bytes = |outbox: &Outbox| {
        outbox
            .iter()
            .map(|one| one.bytes.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(bytes(&one), [&b"!"[..], b"!", b"!!!", b"!", b"!!!!"]);
    assert_eq!(bytes(&one), bytes(&other));
    assert_eq!(at_once.stats(), deferring.stats());
    assert_eq!(deferring.stats().rejected, 3);
    assert!(deferring.stats().is_conserved());
}

#[test]
fn rejections_that_fill_the_outbox_leave_the_rest_in_the_inbox() {
    let mut core = Server::builder(Picky).core(());
    let (mut inbox, mut outbox) = (Inbox::new(8, MAX_BYTES), Outbox::new(2, MAX_BYTES));
    for bytes in [b"1", b"1", b"1", b"?"] {
        inbox.push(bytes, Meta::new("192.0.2.1:7777".parse().unwrap()));
    }
    let (now, mut keep) = (Timestamp::system(), Vec::new());
    let none = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep);
    assert!(none.is_none());
    let stats = core.stats();
    assert_eq!((outbox.len(), stats.rejected, stats.pending), (2, 2, 2));
    assert!(stats.is_conserved());

    outbox.clear();
    let deferred = core.defer_next(now, now, &mut inbox, &mut outbox, &mut keep);
    core.drop_deferred(now, deferred.unwrap(), DropReason::Cancelled);
    assert_eq!((outbox.len(), core.stats().rejected), (1, 3));
    assert!(inbox.is_empty() && core.stats().is_conserved());
}

fn arrive(arrival: Arrival, inbox: &mut Inbox) {
    let mut meta = Meta::new("192.0.2.1:7777".parse().unwrap());
    let bytes: &[u8] = match arrival {
        Arrival::Request => b"request",
        Arrival::Malformed => b"\xff",
        Arrival::Truncated => {
            meta.truncated = true;
            b"request"
        }
        Arrival::FromReflector => {
            meta.peer.set_port(53);
            b"request"
        }
        Arrival::Unwelcome => b"unwelcome",
        Arrival::Terrible => b"terrible",
    };
    inbox.push(bytes, meta);
}

const MAX_BYTES: usize = 64;
const MAX_QUEUED: usize = MAX_RESPONSES * 2;
