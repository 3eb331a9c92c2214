use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

/// Miri is some thousand times slower.
const MANY: usize = if cfg!(miri) { 40 } else { 150 };

/// A kernel that takes some trains and refuses others, and remembers.
#[derive(Debug)]
struct Fake {
    lens: Vec<usize>,
    peers: Vec<SocketAddr>,
    /// The most segments and their greatest length; `None`: it cannot segment at all.
    gso: Option<(usize, usize)>,
    /// How it calls a segment too long.
    too_long: i32,
    /// Longer datagrams are refused.
    max_bytes: usize,
    /// How many trains it takes at once.
    at_once: usize,
    /// How many trains fit into the send buffer before it is full.
    room: usize,
    delivered: Vec<usize>,
    refused: Vec<usize>,
    calls: usize,
}

impl Fake {
    fn members<'a>(plan: &'a Plan, train: &Train) -> impl Iterator<Item = usize> + 'a {
        std::iter::successors(Some(train.first), |&index| plan.follows(index)).take(train.datagrams)
    }

    fn verdict(&self, train: &Train) -> io::Result<()> {
        let len = self.lens[train.first];
        let code = match (train.segment_bytes, self.gso) {
            (None, _) if len > self.max_bytes => libc::EMSGSIZE,
            (Some(_), None) => libc::EIO,
            (Some(_), Some((segments, _))) if train.datagrams > segments => libc::EINVAL,
            (Some(bytes), Some((_, most))) if usize::from(bytes) > most.min(self.max_bytes) => {
                self.too_long
            }
            _ => return Ok(()),
        };
        Err(io::Error::from_raw_os_error(code))
    }
}

impl SendTrains for Fake {
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize> {
        self.calls += 1;
        let mut sent = 0;
        for train in plan.trains[index..].iter().take(self.at_once) {
            if self.room == 0 {
                return match sent {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => Ok(sent),
                };
            }
            match self.verdict(train) {
                Ok(()) => {
                    self.room -= 1;
                    self.delivered.extend(Self::members(plan, train));
                }
                Err(_) if sent > 0 => break,
                Err(error) => {
                    if train.segment_bytes.is_none() {
                        self.refused.push(train.first);
                    }
                    return Err(error);
                }
            }
            sent += 1;
        }
        Ok(sent)
    }
}

fn outbox(datagrams: &[(u8, usize)]) -> Outbox {
    let mut outbox = Outbox::new(datagrams.len().max(1), 2_000);
    for &(peer, len) in datagrams {
        let peer = ([192, 0, 2, peer], 7).into();
        let pushed = outbox.push_with(peer, None, |_| Ok(len));
        pushed.expect("there is room");
    }
    outbox
}

fn fake(datagrams: &[(u8, usize)], gso: Option<(usize, usize)>) -> Fake {
    Fake {
        lens: datagrams.iter().map(|datagram| datagram.1).collect(),
        peers: outbox(datagrams).iter().map(|one| one.peer).collect(),
        gso,
        too_long: libc::EMSGSIZE,
        max_bytes: 1_900,
        at_once: 64,
        room: usize::MAX,
        delivered: Vec::new(),
        refused: Vec::new(),
        calls: 0,
    }
}

/// Batches of datagrams: the number of a peer, and a length.
fn batches() -> impl Strategy<Value = Vec<Vec<(u8, usize)>>> {
    let bytes = prop_oneof![0..3_usize, Just(100), 1..2_000_usize];
    prop::collection::vec(prop::collection::vec((0..4_u8, bytes), 0..MANY), 1..4)
}

proptest! {
    #[test]
    fn whatever_is_refused_every_datagram_is_tried_once_and_in_order(
        batches in batches(),
        gso in prop::option::of((1..130_usize, 1..2_000_usize)),
        at_once in 1..65_usize,
        too_long in prop_oneof![Just(libc::EMSGSIZE), Just(libc::EINVAL)],
    ) {
        let mut sender = GsoSender::new();
        let mut segmenting = true;
        for datagrams in batches {
            let outbox = outbox(&datagrams);
            let mut fake = Fake { too_long, at_once, ..fake(&datagrams, gso) };
            let (sent, still) = sender.send(&outbox, segmenting, &mut fake);
            segmenting = still;
            let too_long = datagrams.iter().filter(|one| one.1 > fake.max_bytes).count();
            prop_assert_eq!(sent.failed, too_long);
            prop_assert_eq!(sent.sent + sent.failed, datagrams.len());
            prop_assert_eq!(sent.last_error.is_some(), too_long > 0);
            let mut tried = fake.delivered.clone();
            tried.extend(&fake.refused);
            tried.sort_unstable();
            prop_assert!(tried.into_iter().eq(0..datagrams.len()));
            for peer in &fake.peers {
                let same = fake.delivered.iter().filter(|&&one| fake.peers[one] == *peer);
                prop_assert!(same.is_sorted());
            }
        }
    }
}

proptest! {
    #[test]
    fn a_send_that_stops_goes_on_where_it_stopped(
        batches in batches(),
        gso in prop::option::of((1..130_usize, 1..2_000_usize)),
        at_once in 1..65_usize,
        too_long in prop_oneof![Just(libc::EMSGSIZE), Just(libc::EINVAL)],
        rooms in prop::collection::vec(0..6_usize, 0..40),
    ) {
        let (mut sender, mut at_one_go) = (GsoSender::new(), GsoSender::new());
        let mut segmenting = true;
        let mut rooms = rooms.into_iter();
        for datagrams in batches {
            let outbox = outbox(&datagrams);
            let mut whole = Fake { too_long, at_once, ..fake(&datagrams, gso) };
            let (expected, still) = at_one_go.send(&outbox, segmenting, &mut whole);

            let mut fake = Fake { too_long, at_once, ..fake(&datagrams, gso) };
            let mut sent = SendReport::default();
            loop {
                fake.room = rooms.next().unwrap_or(usize::MAX);
                let tried = fake.delivered.len() + fake.refused.len();
                let is_done =
                    sender.try_send(&outbox, &mut segmenting, &mut fake, &mut sent);
                prop_assert_eq!(sent.sent, fake.delivered.len());
                prop_assert_eq!(sent.failed, fake.refused.len());
                if is_done {
                    break;
                }
                // It stops only where the buffer is full.
                prop_assert!(fake.room == 0 || tried == sent.sent + sent.failed);
            }
            prop_assert_eq!(segmenting, still);
            prop_assert_eq!((sent.sent, sent.failed), (expected.sent, expected.failed));
            // The same datagrams in the same order, none lost and none twice.
            prop_assert_eq!(fake.delivered, whole.delivered);
            prop_assert_eq!(fake.refused, whole.refused);
        }
    }
}

#[test]
fn a_system_that_cannot_segment_is_asked_once() {
    let datagrams = [(1, 100); 10];
    let outbox = outbox(&datagrams);
    let mut fake = fake(&datagrams, None);
    let mut sender = GsoSender::new();
    let (_, gso) = sender.send(&outbox, true, &mut fake);
    assert!(!gso);
    assert_eq!(fake.calls, 2);
}

#[test]
fn an_older_limit_of_segments_is_learnt() {
    let datagrams = [(1, 100); 128];
    let outbox = outbox(&datagrams);
    let mut fake = fake(&datagrams, Some((64, 1_472)));
    let mut sender = GsoSender::new();
    assert!(sender.send(&outbox, true, &mut fake).1);
    fake.calls = 0;
    assert!(sender.send(&outbox, true, &mut fake).1);
    assert_eq!(fake.calls, 1);
}

#[test]
fn segments_too_long_for_the_way_are_left_alone_for_a_while() {
    let long = [(1, 1_500); 10];
    let short = [(1, 1_400); 10];
    let (mut long_fake, mut short_fake) = (
        fake(&long, Some((64, 1_472))),
        fake(&short, Some((64, 1_472))),
    );
    let mut sender = GsoSender::new();
    assert!(sender.send(&outbox(&long), true, &mut long_fake).1);
    assert_eq!(sender.max_segment_bytes, 1_499);
    long_fake.calls = 0;
    sender.send(&outbox(&long), true, &mut long_fake);
    sender.send(&outbox(&short), true, &mut short_fake);
    assert_eq!((long_fake.calls, short_fake.calls), (1, 1));
    assert_eq!(sender.short_segments, SHORT_SEGMENT_BATCHES - 2);
    // The rest would take Miri a minute.
    if cfg!(miri) {
        sender.short_segments = 2;
    }
    for _ in 0..sender.short_segments {
        sender.send(&outbox(&short), true, &mut short_fake);
    }
    assert_eq!(sender.max_segment_bytes, MAX_DATAGRAM_BYTES);
}

#[test]
fn an_older_system_that_finds_segments_too_long_segments_shorter_ones() {
    let long = [(1, 1_500); 10];
    let short = [(1, 1_400); 10];
    let mut old = Fake {
        too_long: libc::EINVAL,
        ..fake(&long, Some((64, 1_472)))
    };
    let mut sender = GsoSender::new();
    assert!(sender.send(&outbox(&long), true, &mut old).1);
    assert_eq!(old.delivered.len(), 10);
    let mut old = Fake {
        too_long: libc::EINVAL,
        ..fake(&short, Some((64, 1_472)))
    };
    assert!(sender.send(&outbox(&short), true, &mut old).1);
    assert_eq!(old.calls, 1);
}

/// What a sender learns from a kernel that refuses trains with this error.
fn learnt(datagrams: &[(u8, usize)], code: i32, max_bytes: usize) -> (GsoSender, bool) {
    let mut old = Fake {
        too_long: code,
        max_bytes,
        // It takes none that has several segments.
        ..fake(datagrams, Some((usize::MAX, 0)))
    };
    let mut sender = GsoSender::new();
    let (_, gso) = sender.send(&outbox(datagrams), true, &mut old);
    (sender, gso)
}

#[test]
fn einval_means_one_thing_after_another() {
    let limits =
        |(sender, gso): (GsoSender, bool)| (sender.max_segments, sender.max_segment_bytes, gso);
    let learnt = |datagrams: usize, len, max_bytes| {
        limits(learnt(&vec![(1, len); datagrams], libc::EINVAL, max_bytes))
    };
    let unchanged = (MAX_SEGMENTS, MAX_DATAGRAM_BYTES, true);
    // More segments than Linux takes before 6.9.
    assert_eq!(
        learnt(65, 100, 1_900),
        (OLD_MAX_SEGMENTS, MAX_DATAGRAM_BYTES, true)
    );
    // No more than that, but longer than every path takes: shorter ones may do.
    assert_eq!(learnt(40, 1_400, 1_900), (MAX_SEGMENTS, 1_399, true));
    assert_eq!(learnt(40, 1_233, 1_900), (MAX_SEGMENTS, 1_232, true));
    // Neither: the kernel cannot segment.
    for (datagrams, len) in [(40, 1_232), (64, 100), (2, 1)] {
        let (segments, bytes, gso) = learnt(datagrams, len, 1_900);
        assert_eq!(
            (segments, bytes, gso),
            (MAX_SEGMENTS, MAX_DATAGRAM_BYTES, false)
        );
    }
    // The datagrams are refused one by one too: it is not the segmentation.
    assert_eq!(learnt(40, 1_400, 1_000), unchanged);
    assert_eq!(learnt(40, 1_000, 900), unchanged);
}
