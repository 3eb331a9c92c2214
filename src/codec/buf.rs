//! `bytes::BufMut` for [`Writer`]: what is written for a buffer of bytes writes into a datagram.
#![expect(
    unsafe_code,
    reason = "`BufMut` is an unsafe trait, because its callers may write into memory that is not \
              initialised; a writer's is"
)]

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut};

use super::Writer;

// SAFETY: the trait asks that `chunk_mut` returns the memory into which `advance_mut` advances, and that
// `remaining_mut` never promises more than there is. Both come from one slice, `space`, and one position in
// it, `written`; all of the slice is initialised memory that the writer borrows exclusively.
unsafe impl BufMut for Writer<'_> {
    #[inline]
    fn remaining_mut(&self) -> usize {
        self.space.len().saturating_sub(self.written)
    }

    #[inline]
    unsafe fn advance_mut(&mut self, bytes: usize) {
        // Nothing here relies on the caller: the position is only ever used within the bounds of `space`.
        self.written = self.written.saturating_add(bytes);
    }

    /// Empty once the limit was passed.
    #[inline]
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        let left = self.space.get_mut(self.written..).unwrap_or_default();
        UninitSlice::new(left)
    }

    // The provided methods panic where there is not enough space. These count, as `Writer::put` does; all
    // other `put_*` come down to them.

    #[inline]
    fn put<T: Buf>(&mut self, mut source: T)
    where
        Self: Sized,
    {
        while source.has_remaining() {
            let chunk = source.chunk();
            let bytes = chunk.len();
            Writer::put(self, chunk);
            source.advance(bytes);
        }
    }

    #[inline]
    fn put_slice(&mut self, source: &[u8]) {
        Writer::put(self, source);
    }

    #[inline]
    fn put_bytes(&mut self, byte: u8, count: usize) {
        let end = self.written.saturating_add(count);
        if let Some(space) = self.space.get_mut(self.written..end) {
            space.fill(byte);
        }
        self.written = end;
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};

    use super::Writer;
    use crate::codec::TooLong;

    /// What an encoder made for `BufMut` does with any buffer.
    fn encode(out: &mut impl BufMut) {
        out.put_u8(1);
        out.put_u16(0x0203);
        out.put_u32_le(0x0706_0504);
        out.put_bytes(8, 2);
        out.put_slice(b"slice");
        out.put(Bytes::from_static(b"bytes").chain_twice());
        out.put_f64(0.5);
        out.put_int(-2, 3);
    }

    trait ChainTwice: bytes::Buf + Clone + Sized {
        /// A source of two chunks.
        fn chain_twice(self) -> bytes::buf::Chain<Self, Self> {
            self.clone().chain(self)
        }
    }
    impl ChainTwice for Bytes {}

    #[test]
    fn what_writes_into_a_buffer_writes_the_same_into_a_datagram() {
        let mut expected = Vec::new();
        encode(&mut expected);
        let mut space = [0xff; 64];
        let mut out = Writer::new(&mut space);
        assert_eq!(out.remaining_mut(), 64);
        encode(&mut out);
        assert_eq!(out.remaining_mut(), 64 - expected.len());
        assert_eq!(out.finish(), Ok(expected.len()));
        assert_eq!(space[..expected.len()], expected);
        assert!(space[expected.len()..].iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_no_panic() {
        let mut expected = Vec::new();
        encode(&mut expected);
        let bytes = expected.len();
        for limit in 0..bytes {
            let mut space = vec![0xff; limit];
            let mut out = Writer::new(&mut space);
            encode(&mut out);
            assert_eq!(out.remaining_mut(), 0, "{limit}");
            assert_eq!(out.chunk_mut().len(), 0, "{limit}");
            assert_eq!(out.finish(), Err(TooLong { bytes, limit }));
            // Nothing is written behind the first part that does not fit.
            let same = space
                .iter()
                .zip(&expected)
                .take_while(|(one, other)| one == other);
            let same = same.count();
            assert!(space[same..].iter().all(|byte| *byte == 0xff), "{limit}");
        }
    }

    #[test]
    fn what_fills_chunks_by_itself_writes_into_the_datagram() {
        let mut space = [0; 4];
        let mut out = Writer::new(&mut space);
        Writer::put(&mut out, b"a");
        let chunk = out.chunk_mut();
        assert_eq!(chunk.len(), 3);
        chunk[..2].copy_from_slice(b"bc");
        // SAFETY: two bytes of the chunk were written.
        unsafe { out.advance_mut(2) };
        assert_eq!(out.remaining_mut(), 1);
        assert_eq!(out.finish(), Ok(3));
        assert_eq!(&space, b"abc\0");
    }

    #[test]
    fn counting_does_not_overflow() {
        let mut space = [0; 4];
        let mut out = Writer::new(&mut space);
        out.put_bytes(0, usize::MAX);
        out.put_bytes(0, usize::MAX);
        out.put_u8(1);
        let bytes = usize::MAX;
        assert_eq!(out.finish(), Err(TooLong { bytes, limit: 4 }));
    }
}
