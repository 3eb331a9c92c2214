use std::ops::{Range, RangeInclusive};

/// The datagrams of a response that has several, as far as they came. Their payloads lie in the buffer
/// of the response, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// By number: where in the buffer each lies.
    places: Vec<Option<Range<usize>>>,
    received: usize,
}

/// What a part of a response does to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assembly {
    /// It came before, or has an impossible number.
    Useless,
    /// There would be more parts, or more bytes, than there may be.
    TooLarge,
    /// More are missing.
    Incomplete,
    /// The buffer holds the whole response.
    Complete,
}

impl Parts {
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.received = 0;
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.places.capacity()
    }

    /// How many parts came, and how many there are. `None` before the first.
    pub(super) fn progress(&self) -> Option<(usize, usize)> {
        (self.received > 0).then_some((self.received, self.places.len()))
    }

    /// The numbers of those that did not come, run by run.
    pub(super) fn missing(&self) -> Vec<RangeInclusive<usize>> {
        let mut missing: Vec<RangeInclusive<usize>> = Vec::new();
        let numbers = self.places.iter().enumerate();
        for (number, _) in numbers.filter(|(_, place)| place.is_none()) {
            match missing.last_mut() {
                Some(run) if run.end() + 1 == number => *run = *run.start()..=number,
                _ => missing.push(number..=number),
            }
        }
        missing
    }

    /// Adds the part with number `index` of `total` to `buffer`. The first part decides how many there
    /// are; another number is that of another response, which begins anew.
    pub(super) fn add(
        &mut self,
        buffer: &mut Vec<u8>,
        (index, total): (usize, usize),
        payload: &[u8],
        (max_parts, max_bytes): (usize, usize),
    ) -> Assembly {
        if index >= total {
            return Assembly::Useless;
        }
        if total > max_parts {
            return Assembly::TooLarge;
        }
        if total != self.places.len() {
            self.clear();
            self.places.resize(total, None);
            buffer.clear();
        }
        if self.places[index].is_some() {
            return Assembly::Useless;
        }
        let start = buffer.len();
        if payload.len() > max_bytes - start.min(max_bytes) {
            return Assembly::TooLarge;
        }
        buffer.extend_from_slice(payload);
        self.places[index] = Some(start..buffer.len());
        self.received += 1;
        if self.received < total {
            return Assembly::Incomplete;
        }
        let places = || self.places.iter().flatten();
        if !places().is_sorted_by_key(|place| place.start) {
            let ordered = places().flat_map(|place| &buffer[place.clone()]);
            *buffer = ordered.copied().collect();
        }
        Assembly::Complete
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Assembly, Parts};

    const LIMITS: (usize, usize) = (100, 1_000);

    proptest! {
        #[test]
        fn parts_are_put_together_in_order_however_they_come(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
        ) {
            let total = parts.len();
            let mut assembled = Parts::default();
            let mut buffer = Vec::new();
            let mut missing: std::collections::BTreeSet<_> = (0..total).collect();
            let runs = |parts: &Parts| parts.missing().into_iter().flatten().collect::<Vec<_>>();
            let order = order.into_iter().map(|index| index.index(total));
            for index in order.chain((0..total).rev()) {
                let is_new = missing.remove(&index);
                let expected = match (is_new, missing.len()) {
                    (false, _) => Assembly::Useless,
                    (true, 0) => Assembly::Complete,
                    (true, _) => Assembly::Incomplete,
                };
                let added = assembled.add(&mut buffer, (index, total), &parts[index], LIMITS);
                prop_assert_eq!(added, expected);
                prop_assert!(runs(&assembled).iter().eq(&missing));
                prop_assert!(assembled.missing().is_sorted_by(|one, next| one.end() + 1 < *next.start()));
                if expected == Assembly::Complete {
                    prop_assert_eq!(&buffer, &parts.concat());
                    prop_assert_eq!(assembled.progress(), Some((total, total)));
                    break;
                }
            }
            prop_assert!(missing.is_empty());
        }
    }

    #[test]
    fn numbers_and_bytes_have_bounds() {
        let mut parts = Parts::default();
        let mut buffer = Vec::new();
        let mut add = |part, payload: &[u8]| parts.add(&mut buffer, part, payload, LIMITS);
        assert_eq!(add((0, 0), b""), Assembly::Useless);
        assert_eq!(add((5, 5), b""), Assembly::Useless);
        assert_eq!(add((0, 101), b""), Assembly::TooLarge);
        assert_eq!(add((0, usize::MAX), b""), Assembly::TooLarge);
        assert_eq!(add((0, 3), &[1; 600]), Assembly::Incomplete);
        assert_eq!(add((1, 3), &[1; 401]), Assembly::TooLarge);
        assert_eq!(add((1, 3), &[1; 400]), Assembly::Incomplete);
        // Another response.
        assert_eq!(add((1, 2), b"b"), Assembly::Incomplete);
        assert_eq!(add((0, 2), b"a"), Assembly::Complete);
        assert_eq!(buffer, b"ab");
    }
}
