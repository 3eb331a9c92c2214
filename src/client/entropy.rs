use std::io;

use crate::transport::Connect;

/// Numbers that nobody can predict, fetched some at a time.
#[derive(Debug)]
pub(super) struct Entropy {
    bytes: [u8; 512],
    used: usize,
}

impl Entropy {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; 512],
            used: 512,
        }
    }

    pub(super) fn next(&mut self, connector: &impl Connect) -> io::Result<u64> {
        if self.used == self.bytes.len() {
            connector.entropy(&mut self.bytes)?;
            self.used = 0;
        }
        let number = self.bytes[self.used..]
            .first_chunk()
            .expect("the bytes are used by eights");
        self.used += number.len();
        Ok(u64::from_ne_bytes(*number))
    }
}
