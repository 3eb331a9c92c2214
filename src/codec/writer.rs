use std::fmt;

/// Where a codec writes: the space of one datagram, directly in the outgoing batch.
///
/// The size limit is enforced while writing. What goes beyond it is counted and thrown away, so a
/// codec needs no checks of its own; the caller that passed the writer in reports [`TooLong`].
///
/// ```
/// use rejoinder::codec::TooLong;
/// use rejoinder::Writer;
///
/// let mut space = [0; 5];
/// let mut out = Writer::new(&mut space);
/// out.put(b"four");
/// assert_eq!(out.finish(), Ok(4));
///
/// let mut out = Writer::new(&mut space);
/// out.put(b"four");
/// out.put(b"four");
/// assert_eq!(out.finish(), Err(TooLong { bytes: 8, limit: 5 }));
/// ```
///
/// It is a [`BufMut`](bytes::BufMut), so `put_u16` and its like, and everything that encodes into a
/// `BufMut` (`prost::Message::encode`), write into the datagram. There, too, bytes beyond the limit are
/// counted, and a writer's own methods do not panic. What `bytes` provides around it checks for itself and
/// panics where there is no space: `put` and `put_bytes` through `&mut impl BufMut`, and adapters such as
/// `limit`. [`remaining_mut`](bytes::BufMut::remaining_mut) is the space that is left, which lets an
/// encoder refuse by itself.
///
/// ```
/// use bytes::BufMut;
/// use rejoinder::codec::TooLong;
/// use rejoinder::Writer;
///
/// let mut space = [0; 5];
/// let mut out = Writer::new(&mut space);
/// out.put_u8(7);
/// out.put_u16(0x0102);
/// assert_eq!(out.remaining_mut(), 2);
/// out.put_u32_le(1);
/// assert_eq!(out.finish(), Err(TooLong { bytes: 7, limit: 5 }));
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    pub(super) space: &'a mut [u8],
    /// Bytes put so far; more than `space` holds once the limit was passed.
    pub(super) written: usize,
}

impl<'a> Writer<'a> {
    /// A writer into `space`, whose length is the limit in bytes.
    pub fn new(space: &'a mut [u8]) -> Self {
        Self { space, written: 0 }
    }

    /// Appends `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.written.saturating_add(bytes.len());
        if let Some(space) = self.space.get_mut(self.written..end) {
            space.copy_from_slice(bytes);
        }
        self.written = end;
    }

    /// What was put so far: for a checksum or a proof that covers it. `None` once the limit was passed.
    ///
    /// ```
    /// use rejoinder::Writer;
    ///
    /// let mut space = [0; 5];
    /// let mut out = Writer::new(&mut space);
    /// out.put(b"four");
    /// assert_eq!(out.written(), Some(&b"four"[..]));
    /// out.put(b"four");
    /// assert_eq!(out.written(), None);
    /// ```
    pub fn written(&self) -> Option<&[u8]> {
        self.space.get(..self.written)
    }

    /// How many bytes were written, or by how much they are too many.
    pub fn finish(self) -> Result<usize, TooLong> {
        if self.written <= self.space.len() {
            Ok(self.written)
        } else {
            Err(TooLong {
                bytes: self.written,
                limit: self.space.len(),
            })
        }
    }
}

impl fmt::Write for Writer<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// A datagram would be longer than its limit.
///
/// ```
/// use rejoinder::codec::TooLong;
///
/// let error = TooLong {
///     bytes: 70_000,
///     limit: 65_507,
/// };
/// assert_eq!(
///     error.to_string(),
///     "70000 bytes do not fit into a datagram of at most 65507"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes do not fit into a datagram of at most {limit}")]
pub struct TooLong {
    /// How many bytes the datagram would have.
    pub bytes: usize,
    /// How many it may have.
    pub limit: usize,
}
