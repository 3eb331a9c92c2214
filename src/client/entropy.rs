use std::fmt;
use std::io;

use crate::transport::Connect;

/// Unpredictable numbers, fetched in batches.
pub(crate) struct Entropy {
    bytes: [u8; 512],
    used: usize,
}

impl Entropy {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; 512],
            used: 512,
        }
    }

    pub(super) fn next(&mut self, connector: &impl Connect) -> io::Result<u64> {
        self.next_from(|bytes| connector.entropy(bytes))
    }

    /// `fill` fills bytes with unpredictable values.
    pub(crate) fn next_from(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        if self.used == self.bytes.len() {
            fill(&mut self.bytes)?;
            self.used = 0;
        }
        let number = self.bytes[self.used..]
            .first_chunk()
            .expect("the bytes are used by eights");
        self.used += number.len();
        Ok(u64::from_ne_bytes(*number))
    }
}

/// A log must not reveal the next ids.
impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Entropy;

    #[test]
    fn the_numbers_to_come_are_not_shown() {
        assert_eq!(format!("{:?}", Entropy::new()), "Entropy { .. }");
    }
}
