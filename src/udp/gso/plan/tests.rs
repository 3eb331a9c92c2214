use proptest::prelude::*;

use super::*;

const LIMITS: GsoLimits = GsoLimits {
    segments: 64,
    segment_bytes: 65_507,
    total_bytes: 65_507,
};

/// Every datagram is looked at from every other. Miri is some thousand times slower.
const MANY: usize = if cfg!(miri) { 40 } else { 200 };

/// Datagrams next to each other, as `(peer, local, length)`.
fn queue(datagrams: impl IntoIterator<Item = (u8, Option<u8>, usize)>) -> Vec<Queued> {
    let mut start = 0;
    datagrams
        .into_iter()
        .map(|(peer, local, len)| {
            let ip: IpAddr = if peer % 2 == 0 {
                [192, 0, 2, peer].into()
            } else {
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(peer)].into()
            };
            let queued = Queued {
                start,
                len,
                peer: SocketAddr::new(ip, 7),
                egress: local.map(|local| [127, 0, 0, local].into()).into(),
            };
            start += len;
            queued
        })
        .collect()
}

fn to_one_peer(lens: impl IntoIterator<Item = usize>) -> Vec<Queued> {
    queue(lens.into_iter().map(|len| (0, None, len)))
}

/// The lengths of the datagrams in each train.
fn trains(plan: &Plan, queued: &[Queued]) -> Vec<Vec<usize>> {
    let lens = |train: &Train| {
        members(plan, train)
            .map(|index| queued[index].len)
            .collect()
    };
    plan.trains.iter().map(lens).collect()
}

fn members<'a>(plan: &'a Plan, train: &Train) -> impl Iterator<Item = usize> + 'a {
    std::iter::successors(Some(train.first), |&index| plan.follows(index)).take(train.datagrams)
}

fn planned(lens: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    let queued = to_one_peer(lens);
    let mut plan = Plan::default();
    plan.make(&queued, LIMITS, false);
    trains(&plan, &queued)
}

#[test]
fn in_any_order_there_are_as_many_trains_as_lengths_at_most() {
    let queued = to_one_peer([7, 40, 7, 41, 0, 40, 7, 7]);
    let mut plan = Plan::default();
    plan.make(&queued, LIMITS, true);
    assert_eq!(
        trains(&plan, &queued),
        [vec![41, 40], vec![40, 7], vec![7, 7, 7], vec![0]]
    );
    // Of equal ones the first is still the first.
    assert_eq!(
        plan.slices,
        [54..95, 7..47, 95..135, 0..7, 47..54, 135..149, 95..95]
    );
}

#[test]
fn equal_datagrams_and_a_shorter_last_one_leave_as_one() {
    assert_eq!(planned([40, 40, 40, 7]), [vec![40, 40, 40, 7]]);
    assert_eq!(planned([40, 7, 40, 7]), [vec![40, 7], vec![40, 7]]);
    assert_eq!(planned([7, 40, 7]), [vec![7], vec![40, 7]]);
}

#[test]
fn an_empty_datagram_leaves_alone() {
    assert_eq!(
        planned([40, 0, 40, 0, 0]),
        [vec![40], vec![0], vec![40], vec![0], vec![0]]
    );
}

#[test]
fn a_train_has_no_more_segments_and_bytes_than_the_limit() {
    let lens = |plan: Vec<Vec<usize>>| plan.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lens(planned([1; 129])), [64, 64, 1]);
    assert_eq!(lens(planned([20_000; 7])), [3, 3, 1]);
    assert_eq!(lens(planned([65_507, 1])), [1, 1]);
}

#[test]
fn neighbours_in_the_arena_are_one_slice() {
    let queued = queue([(0, None, 8), (2, None, 8), (0, None, 8), (0, None, 8)]);
    let mut plan = Plan::default();
    plan.make(&queued, LIMITS, false);
    assert_eq!(plan.slices, [0..8, 16..32, 8..16]);
}

proptest! {
    #[test]
    fn every_datagram_leaves_once_in_order_for_its_peer_within_the_limits(
        batches in prop::collection::vec(
            prop::collection::vec(
                (0..6_u8, prop::option::of(1..3_u8), prop_oneof![0..3_usize, 40..42_usize, 0..70_000_usize]),
                0..MANY,
            ),
            1..4,
        ),
        segments in 1..70_usize,
        segment_bytes in prop_oneof![30..50_usize, Just(65_507)],
        total_bytes in prop_oneof![100..1_000_usize, Just(65_507)],
        any_order: bool,
    ) {
        let limits = GsoLimits { segments, segment_bytes, total_bytes };
        let mut plan = Plan::default();
        // The same plan again and again: nothing of the last batch may remain.
        for batch in batches {
            let queued = queue(batch);
            plan.make(&queued, limits, any_order);
            let mut order = Vec::new();
            for train in &plan.trains {
                let members: Vec<_> = members(&plan, train).collect();
                prop_assert_eq!(members.len(), train.datagrams);
                prop_assert!(members.len() <= segments);
                let first = &queued[train.first];
                let lens: Vec<_> = members.iter().map(|&index| queued[index].len).collect();
                let (last, equal) = lens.split_last().expect("a train has a datagram");
                prop_assert!(members.iter().all(|&index| same_way(first, &queued[index])));
                prop_assert!(equal.iter().all(|len| *len == first.len) && *last <= first.len);
                prop_assert_eq!(train.segment_bytes.is_some(), members.len() > 1);
                if let Some(bytes) = train.segment_bytes {
                    prop_assert_eq!(usize::from(bytes), first.len);
                    prop_assert!(*last > 0 && first.len <= segment_bytes);
                    prop_assert!(lens.iter().sum::<usize>() <= total_bytes);
                }
                // The slices are the datagrams, one after the other.
                let mut slices = plan.slices[train.slices.clone()].iter().cloned();
                let mut slice = slices.next().expect("a train has a slice");
                for &index in &members {
                    if slice.is_empty() && index != train.first {
                        slice = slices.next().expect("the slices hold all datagrams");
                    }
                    prop_assert_eq!(slice.start, queued[index].start);
                    slice.start += queued[index].len;
                    prop_assert!(slice.start <= slice.end);
                }
                prop_assert!(slice.is_empty() && slices.next().is_none());
                order.extend(members);
            }
            for (index, datagram) in queued.iter().enumerate() {
                let same: Vec<_> = order
                    .iter()
                    .filter(|&&other| same_way(&queued[other], datagram))
                    .collect();
                prop_assert!(any_order || same.is_sorted());
                prop_assert_eq!(order.iter().filter(|&&other| other == index).count(), 1);
            }
            prop_assert_eq!(order.len(), queued.len());
        }
    }
}
