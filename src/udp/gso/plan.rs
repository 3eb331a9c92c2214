//! Which datagrams leave together: a pure function of what is queued.

#[cfg(test)]
mod tests;

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
    // A product's low bits do not depend on the high ones of the key, where the host is in an address of
    // IPv6. So the halves are folded, and multiplied again.
    let product = key.wrapping_mul(GOLDEN_RATIO);
    ((product ^ (product >> 32)).wrapping_mul(GOLDEN_RATIO) >> 32) as usize
}

const NONE: u32 = u32::MAX;
/// Knuth, The Art of Computer Programming, vol. 3, §6.4.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
