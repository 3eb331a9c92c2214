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

#[test]
fn datagrams_of_the_longest_segment_leave_as_one_and_longer_ones_alone() {
    let limits = GsoLimits {
        segments: 64,
        segment_bytes: 100,
        total_bytes: 1_000_000,
    };
    let lens = |len, limits| {
        let queued = to_one_peer([len; 3]);
        let mut plan = Plan::default();
        plan.make(&queued, limits, false);
        plan.trains
            .iter()
            .map(|train| train.datagrams)
            .collect::<Vec<_>>()
    };
    assert_eq!(lens(100, limits), [3]);
    assert_eq!(lens(101, limits), [1, 1, 1]);
    // The length of a segment has 16 bits.
    let limits = GsoLimits {
        segment_bytes: usize::MAX,
        ..limits
    };
    assert_eq!(lens(65_535, limits), [3]);
    assert_eq!(lens(65_536, limits), [1, 1, 1]);
}

#[test]
fn two_segments_are_a_train_and_without_segmentation_the_order_is_that_of_the_queue() {
    let queued = queue([(0, None, 8), (2, None, 8), (0, None, 8)]);
    let firsts = |segments| {
        let mut plan = Plan::default();
        plan.make(&queued, GsoLimits { segments, ..LIMITS }, false);
        let trains = plan.trains.iter();
        trains
            .map(|train| (train.first, train.datagrams))
            .collect::<Vec<_>>()
    };
    assert_eq!(firsts(2), [(0, 2), (1, 1)]);
    assert_eq!(firsts(1), [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn without_segmentation_each_datagram_is_a_slice_of_its_own() {
    let queued = queue([(0, None, 8), (0, None, 3), (0, None, 0), (2, None, 8)]);
    let mut plan = Plan::default();
    plan.make(
        &queued,
        GsoLimits {
            segments: 1,
            ..LIMITS
        },
        false,
    );
    assert_eq!(plan.slices, [0..8, 8..11, 11..11, 11..19]);
    let slices: Vec<_> = plan
        .trains
        .iter()
        .map(|train| train.slices.clone())
        .collect();
    assert_eq!(slices, [0..1, 1..2, 2..3, 3..4]);
}

#[test]
fn peers_that_share_a_place_in_the_table_are_grouped_all_the_same() {
    let mut queued = queue([(0, None, 8); 8]);
    let mask = 2 * queued.len() - 1;
    let ports_at = |place| {
        let ip = queued[0].peer.ip();
        (1..u16::MAX).filter(move |&port| hash(SocketAddr::new(ip, port), None) & mask == place)
    };
    // Two at the end of the table and two at its beginning, where those that find no place go on.
    let ports: Vec<_> = ports_at(mask).take(2).chain(ports_at(0).take(2)).collect();
    assert_eq!(ports.len(), 4);
    for (datagram, port) in queued.iter_mut().zip(ports.iter().cycle()) {
        datagram.peer.set_port(*port);
    }
    let mut plan = Plan::default();
    plan.make(&queued, LIMITS, false);
    let firsts: Vec<_> = plan
        .trains
        .iter()
        .map(|train| (train.first, train.datagrams))
        .collect();
    assert_eq!(firsts, [(0, 2), (1, 2), (2, 2), (3, 2)]);
}

#[test]
fn a_batch_of_the_same_size_takes_no_memory_again() {
    for datagrams in [1, 2, 64] {
        let mut plan = Plan::default();
        plan.reserve(datagrams);
        plan.stamp = 7;
        plan.reserve(datagrams);
        assert_eq!(plan.stamp, 7, "{datagrams}: the table is another");
    }
}

#[test]
fn the_table_is_cleared_when_its_stamps_have_run_out() {
    let queued = queue([(0, None, 8), (2, None, 8), (0, None, 8)]);
    let mut plan = Plan::default();
    plan.reserve(queued.len());
    plan.stamp = u32::MAX;
    // What an early batch left in the table.
    plan.table.fill(Slot { stamp: 1, group: 9 });
    for _ in 0..3 {
        plan.make(&queued, LIMITS, false);
        assert_eq!(trains(&plan, &queued), [vec![8, 8], vec![8]]);
    }
}

/// What a datagram is grouped by: the peer's address and port, and the local address.
type Key<'a> = &'a dyn Fn(u8) -> (IpAddr, u16, Option<IpAddr>);

/// With as many keys as half the places, they take four of ten places on average if they are spread at
/// random.
#[test]
fn peers_are_spread_over_the_table() {
    let v4 = |last: u8| IpAddr::from([192, 0, 2, last]);
    let v6 = |prefix: u8, host: u8| {
        let network = 0x2001_0db8_ffff_ff00 | u128::from(prefix);
        IpAddr::from(std::net::Ipv6Addr::from(network << 64 | u128::from(host)))
    };
    let server = Some(IpAddr::from([192, 168, 0, 1]));
    let families: [(&str, Key); 6] = [
        ("neighbours", &|n| (v4(n), 7, None)),
        ("neighbours over IPv6", &|n| (v6(0, n), 7, None)),
        ("networks over IPv6", &|n| (v6(n, 1), 7, None)),
        ("ports", &|n| (v4(1), 40_000 + u16::from(n), None)),
        ("ports, of a known address", &|n| {
            (v4(1), 40_000 + u16::from(n), server)
        }),
        ("local addresses", &|n| (v4(1), 7, Some(v4(n)))),
    ];
    for (name, key) in families {
        let place = |n| {
            let (ip, port, local) = key(n);
            hash(SocketAddr::new(ip, port), local) & 511
        };
        let places: std::collections::BTreeSet<_> = (0..=255).map(place).collect();
        assert!(places.len() > 150, "{name}: {}", places.len());
    }
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
