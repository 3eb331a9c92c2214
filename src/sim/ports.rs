use std::collections::BTreeSet;

/// The ephemeral ports of a machine.
#[derive(Default)]
pub(super) struct Ports {
    /// How many were given out at least once.
    used: u16,
    /// Those of them that were given back.
    free: BTreeSet<u16>,
}

impl Ports {
    /// The lowest port that is free and was never bound by number.
    pub(super) fn next(&mut self) -> Option<u16> {
        self.free.pop_first().or_else(|| {
            let port = FIRST_EPHEMERAL_PORT.checked_add(self.used)?;
            self.used += 1;
            Some(port)
        })
    }

    pub(super) fn give_back(&mut self, port: u16) {
        if port
            .checked_sub(FIRST_EPHEMERAL_PORT)
            .is_some_and(|index| index < self.used)
        {
            self.free.insert(port);
        }
    }
}

/// RFC 6335 §6: the dynamic ports.
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
