//! How much work one request may cause.

/// What is left of the work that one request may cause.
///
/// A step is a byte that a table-driven automaton reads: about a nanosecond, and up to four where every
/// table comes from main memory. All other work is counted in steps that take as long. The count depends
/// on the rules and the request alone, not on what was searched before, so that the same request meets the
/// bound always or never.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

/// The budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Budget {
    /// The budget of a request of so many bytes.
    #[inline]
    pub(super) fn for_request(bytes: usize) -> Self {
        let by_length = STEPS_PER_BYTE.saturating_mul(bytes as u64);
        Self {
            left: by_length.max(MIN_STEPS),
        }
    }

    /// For work that is known to fit into a budget.
    pub(super) fn unlimited() -> Self {
        Self { left: u64::MAX }
    }

    #[inline]
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Exhausted> {
        let Some(left) = self.left.checked_sub(steps) else {
            self.left = 0;
            return Err(Exhausted);
        };
        self.left = left;
        Ok(())
    }

    #[inline]
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

/// A millisecond at four nanoseconds a step: what a short request may take.
const MIN_STEPS: u64 = 250_000;
/// 50 ms for the longest request, which has 65,507 bytes.
pub(super) const STEPS_PER_BYTE: u64 = 190;
