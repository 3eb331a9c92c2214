use crate::drop_reason::DropReason;

/// A counter for each reason, in a space of fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    built_in: [u64; DropReason::BUILT_IN],
    /// In the order in which the reasons appeared. A place is free while its count is zero.
    pub(super) gates: [(&'static str, u64); MAX_GATE_REASONS],
    /// For the reasons beyond.
    pub(super) other_gates: u64,
}

impl Dropped {
    pub(super) fn get(&self, reason: DropReason) -> u64 {
        self.iter()
            .find(|&(known, _)| known == reason)
            .map_or(0, |(_, datagrams)| datagrams)
    }

    pub(super) fn add(&mut self, reason: DropReason, datagrams: u64) {
        if datagrams > 0 {
            *self.counter(reason) += datagrams;
        }
    }

    fn counter(&mut self, reason: DropReason) -> &mut u64 {
        if let DropReason::Gate(name) = reason {
            if name == OTHER_GATES {
                return &mut self.other_gates;
            }
            let place = |(known, datagrams): &(&str, u64)| *datagrams == 0 || *known == name;
            return match self.gates.iter().position(place) {
                Some(at) => {
                    self.gates[at].0 = name;
                    &mut self.gates[at].1
                }
                None => &mut self.other_gates,
            };
        }
        let index = reason.index();
        &mut self.built_in[index.expect("all reasons but those of gates are listed")]
    }

    /// Those of gates only if they happened.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let built_in = DropReason::built_in().zip(self.built_in);
        let gates = self
            .gates
            .into_iter()
            .chain([(OTHER_GATES, self.other_gates)]);
        built_in.chain(
            gates
                .filter(|&(_, datagrams)| datagrams > 0)
                .map(|(name, datagrams)| (DropReason::Gate(name), datagrams)),
        )
    }
}

const OTHER_GATES: &str = "other gates";
/// How many reasons of gates have counters of their own.
pub(super) const MAX_GATE_REASONS: usize = 8;
