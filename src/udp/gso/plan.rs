//! Which datagrams leave together: a pure function of what is queued.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::transport::Queued;

/// What the kernel takes as one segmented send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GsoLimits {
    /// The most segments. With 1, every datagram is a train of its own.
    pub(super) segments: usize,
    /// The longest segment, in bytes.
    pub(super) segment_bytes: usize,
    /// The most bytes in all.
    pub(super) total_bytes: usize,
}

/// Datagrams to one peer, from one address, that leave as one: all of the same length but the
/// last, which may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::udp) struct Train {
    /// The index of the first datagram. [`Plan::follows`] leads to the others.
    pub(in crate::udp) first: usize,
    pub(in crate::udp) datagrams: usize,
    /// The length of a segment, if there are several.
    pub(in crate::udp) segment_bytes: Option<u16>,
    /// Which of the plan's slices it consists of.
    pub(in crate::udp) slices: Range<usize>,
}

/// A batch of datagrams, grouped by peer, as trains.
///
/// The order among the datagrams of one peer, from one address of ours, is kept, unless it need not be.
#[derive(Debug, Default)]
pub(in crate::udp) struct Plan {
    pub(in crate::udp) trains: Vec<Train>,
    /// Ranges of the arena.
    pub(in crate::udp) slices: Vec<Range<usize>>,
    groups: Vec<Group>,
    /// For each datagram the next one of its group.
    next: Vec<u32>,
    /// An open hash table of groups. What does not have the current stamp is an empty slot.
    table: Vec<Slot>,
    stamp: u32,
    /// The datagrams of one group, while they are put in order.
    sorted: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    stamp: u32,
    group: u32,
}

impl Plan {
    /// Takes the memory for batches of so many datagrams.
    pub(super) fn reserve(&mut self, datagrams: usize) {
        let datagrams = datagrams.next_power_of_two();
        if self.table.len() >= 2 * datagrams {
            return;
        }
        self.trains.clear();
        self.slices.clear();
        self.groups.clear();
        self.next.clear();
        self.trains.reserve(datagrams);
        self.slices.reserve(datagrams);
        self.groups.reserve(datagrams);
        self.next.reserve(datagrams);
        self.sorted.reserve(datagrams);
        self.table = vec![Slot::default(); 2 * datagrams];
        self.stamp = 0;
    }

    /// Makes a new plan. In any order, the longest to each peer come first: as many trains as there
    /// are lengths will do then.
    pub(super) fn make(&mut self, queued: &[Queued], limits: GsoLimits, any_order: bool) {
        self.clear();
        if limits.segments < 2 {
            for index in 0..queued.len() {
                self.push_alone(queued, index);
            }
            return;
        }
        self.group(queued);
        for index in 0..self.groups.len() {
            if any_order {
                self.sort(queued, index);
            }
            let mut next = self.groups[index].first;
            while next != NONE {
                next = self.push_train(queued, next as usize, limits);
            }
        }
    }

    /// Appends a train of a single datagram.
    pub(super) fn push_alone(&mut self, queued: &[Queued], index: usize) {
        let datagram = &queued[index];
        self.slices
            .push(datagram.start..datagram.start + datagram.len);
        self.trains.push(Train {
            first: index,
            datagrams: 1,
            segment_bytes: None,
            slices: self.slices.len() - 1..self.slices.len(),
        });
    }

    /// Empties the plan.
    pub(super) fn clear(&mut self) {
        self.trains.clear();
        self.slices.clear();
        self.groups.clear();
        self.next.clear();
    }

    /// The datagram that comes after this one in its group.
    pub(super) fn follows(&self, index: usize) -> Option<usize> {
        let next = *self.next.get(index)?;
        (next != NONE).then_some(next as usize)
    }

    fn group(&mut self, queued: &[Queued]) {
        self.reserve(queued.len());
        if self.stamp == u32::MAX {
            self.table.fill(Slot::default());
            self.stamp = 0;
        }
        self.stamp += 1;

        let mut group = NONE;
        let mut previous: Option<&Queued> = None;
        for (datagram, index) in queued.iter().zip(0..) {
            // What was received merged is answered in a row.
            if !previous.is_some_and(|previous| same_way(previous, datagram)) {
                group = self.find(queued, datagram, index);
            }
            previous = Some(datagram);
            self.next.push(NONE);
            let group = &mut self.groups[group as usize];
            if group.last != index {
                self.next[group.last as usize] = index;
                group.last = index;
            }
        }
    }

    /// The group of a datagram: a new one, if need be.
    fn find(&mut self, queued: &[Queued], datagram: &Queued, index: u32) -> u32 {
        let mask = self.table.len() - 1;
        let mut at = hash(datagram.peer, datagram.egress.ip) & mask;
        loop {
            let slot = &mut self.table[at];
            if slot.stamp != self.stamp {
                let group = u32::try_from(self.groups.len()).expect("as many as datagrams at most");
                *slot = Slot {
                    stamp: self.stamp,
                    group,
                };
                self.groups.push(Group {
                    first: index,
                    last: index,
                });
                return group;
            }
            let first = self.groups[slot.group as usize].first as usize;
            if same_way(&queued[first], datagram) {
                return slot.group;
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts the longest datagrams of a group first.
    fn sort(&mut self, queued: &[Queued], group: usize) {
        let Group { first, last } = self.groups[group];
        if first == last {
            return;
        }
        self.sorted.clear();
        let mut index = first;
        while index != NONE {
            self.sorted.push(index);
            index = self.next[index as usize];
        }
        self.sorted
            .sort_unstable_by_key(|&index| (Reverse(queued[index as usize].len), index));
        self.groups[group].first = self.sorted[0];
        let after = self.sorted[1..].iter().copied().chain([NONE]);
        for (&index, after) in self.sorted.iter().zip(after) {
            self.next[index as usize] = after;
        }
    }

    /// Appends a train of this datagram and as many of its group as can leave with it, and
    /// returns the one after them.
    ///
    /// Taking all that fit is not always the least number of trains, but order leaves no better
    /// choice: a shorter datagram ends a train, wherever that begins.
    fn push_train(&mut self, queued: &[Queued], first: usize, limits: GsoLimits) -> u32 {
        let segment_bytes = queued[first].len;
        let slices = self.slices.len();
        let mut total = 0;
        let mut datagrams = 0;
        let mut slice = queued[first].start..queued[first].start;
        let mut index = first;
        let next = loop {
            let Queued { start, len, .. } = queued[index];
            if slice.end != start {
                self.slices.push(slice);
                slice = start..start;
            }
            slice.end += len;
            total += len;
            datagrams += 1;
            let next = self.next[index];
            let full = len < segment_bytes
                || datagrams == limits.segments
                || segment_bytes > limits.segment_bytes
                || segment_bytes > usize::from(u16::MAX);
            // An empty datagram would vanish as a segment.
            let fits = |next: &Queued| {
                (1..=segment_bytes).contains(&next.len) && total + next.len <= limits.total_bytes
            };
            if full || next == NONE || !fits(&queued[next as usize]) {
                break next;
            }
            index = next as usize;
        };
        self.slices.push(slice);
        self.trains.push(Train {
            first,
            datagrams,
            segment_bytes: (datagrams > 1)
                .then(|| u16::try_from(segment_bytes).expect("longer ones leave alone")),
            slices: slices..self.slices.len(),
        });
        next
    }
}

#[inline]
fn same_way(one: &Queued, other: &Queued) -> bool {
    one.peer == other.peer && one.egress == other.egress
}

/// Spreads the addresses of a batch. Collisions that a peer provokes slow down one batch of bounded
/// size.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "any of the hash's bits will do"
)]
fn hash(peer: SocketAddr, local: Option<IpAddr>) -> usize {
    let fold = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(23)
        }
    };
    let local = local.map_or(0, fold);
    let key = (fold(peer.ip()) << 16) ^ u64::from(peer.port()) ^ local.rotate_left(40);
    // The golden ratio: Knuth, The Art of Computer Programming, vol. 3, §6.4.
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
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
}
