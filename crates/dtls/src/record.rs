//! The record layer, as far as it is plain: RFC 6347 §4.1.

/// `change_cipher_spec`.
pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
/// `alert`.
pub(crate) const ALERT: u8 = 21;
/// `handshake`.
pub(crate) const HANDSHAKE: u8 = 22;
/// `application_data`.
pub(crate) const APPLICATION_DATA: u8 = 23;

/// Type, version, epoch, sequence number, length: RFC 6347 §4.1.
pub(crate) const HEADER_BYTES: usize = 13;
/// The greatest plaintext of a record: 2^14 bytes, RFC 6347 §4.1 and RFC 5246 §6.2.1.
pub(crate) const MAX_PLAINTEXT_BYTES: usize = 16_384;
/// The most records of one datagram: as many as the implementation takes.
pub(crate) const MAX_RECORDS: usize = 8;
/// The greatest fragment on the wire: RFC 5246 §6.2.3 allows 2,048 bytes of protection.
const MAX_FRAGMENT_BYTES: usize = MAX_PLAINTEXT_BYTES + 2_048;

/// One record of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) content_type: u8,
    /// The bytes of the version, as they came.
    pub(crate) version: [u8; 2],
    pub(crate) epoch: u16,
    /// 48 bits.
    pub(crate) sequence: u64,
    pub(crate) fragment: &'a [u8],
    /// All of it, header included.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record, and what follows it. `None` if it is malformed, of another protocol, or of
    /// a type that its epoch does not have.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let &[
            content_type,
            major,
            minor,
            e0,
            e1,
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            l0,
            l1,
        ] = header;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let fragment = rest.get(..len)?;
        let epoch = u16::from_be_bytes([e0, e1]);
        // DTLS 1.0 in the record layer is what many send until the version is agreed on: RFC 6347 §4.1.
        let version = [major, minor];
        let is_known = matches!(version, [0xfe, 0xff | 0xfd])
            && (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&content_type)
            && len <= MAX_FRAGMENT_BYTES
            // There is one epoch in the clear, for the handshake, and one protected: no renegotiation.
            && epoch <= 1
            && (epoch == 1 || content_type != APPLICATION_DATA);
        let record = Self {
            content_type,
            version,
            epoch,
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            fragment,
            bytes: &bytes[..HEADER_BYTES + len],
        };
        is_known.then_some((record, &rest[len..]))
    }

    /// The records of a datagram, up to the first that is malformed.
    pub(crate) fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (record, rest) = Self::parse(bytes)?;
            bytes = rest;
            Some(record)
        })
    }
}

/// A record in the clear.
pub(crate) fn plain(content_type: u8, version: [u8; 2], sequence: u64, fragment: &[u8]) -> Vec<u8> {
    let len = u16::try_from(fragment.len()).expect("a fragment is shorter than 2^16 bytes");
    let mut record = Vec::with_capacity(HEADER_BYTES + fragment.len());
    record.push(content_type);
    record.extend_from_slice(&version);
    record.extend_from_slice(&[0, 0]);
    record.extend_from_slice(&sequence.to_be_bytes()[2..]);
    record.extend_from_slice(&len.to_be_bytes());
    record.extend_from_slice(fragment);
    record
}

/// Adds to the sequence numbers of the records of epoch 0 in a datagram, and returns the greatest of
/// them.
pub(crate) fn shift_sequences(datagram: &mut [u8], offset: u64) -> Option<u64> {
    let (mut at, mut last) = (0, None);
    while let Some((record, _)) = Record::parse(&datagram[at..]) {
        let (len, epoch) = (record.bytes.len(), record.epoch);
        let sequence = (record.sequence + offset) & 0xffff_ffff_ffff;
        if epoch == 0 {
            datagram[at + 5..at + 11].copy_from_slice(&sequence.to_be_bytes()[2..]);
            last = last.max(Some(sequence));
        }
        at += len;
    }
    last
}

/// The version of DTLS 1.2 in a record.
pub(crate) const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];
/// The version of DTLS 1.0, which a `HelloVerifyRequest` has: RFC 6347 §4.2.1.
pub(crate) const DTLS_1_0: [u8; 2] = [0xfe, 0xff];

#[cfg(test)]
mod tests {
    use super::{
        ALERT, APPLICATION_DATA, DTLS_1_2, HANDSHAKE, HEADER_BYTES, MAX_FRAGMENT_BYTES, Record,
        plain, shift_sequences,
    };

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut datagram = plain(HANDSHAKE, DTLS_1_2, 0x0102_0304_0506, b"one");
        datagram.extend(plain(ALERT, DTLS_1_2, 7, b""));
        let records: Vec<_> = Record::all(&datagram).collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].fragment, b"one");
        assert_eq!(records[0].sequence, 0x0102_0304_0506);
        assert_eq!(records[1].bytes.len(), HEADER_BYTES);
        assert_eq!((records[1].content_type, records[1].epoch), (ALERT, 0));
    }

    #[test]
    fn application_data_in_the_clear_is_no_record() {
        let mut datagram = plain(APPLICATION_DATA, DTLS_1_2, 0, b"plain");
        assert_eq!(Record::parse(&datagram), None);
        datagram[4] = 1;
        assert!(Record::parse(&datagram).is_some());
        datagram[4] = 2;
        assert_eq!(Record::parse(&datagram), None);
    }

    #[test]
    fn what_is_cut_off_or_of_another_protocol_is_no_record() {
        let whole = plain(HANDSHAKE, DTLS_1_2, 0, b"abc");
        for len in 0..whole.len() {
            assert_eq!(Record::parse(&whole[..len]), None, "{len}");
        }
        for (at, byte) in [(0, 19), (0, 24), (1, 3), (2, 0xfc)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(Record::parse(&other), None, "{at}");
        }
        let long = plain(HANDSHAKE, DTLS_1_2, 0, &vec![0; MAX_FRAGMENT_BYTES + 1]);
        assert_eq!(Record::parse(&long), None);
    }

    #[test]
    fn only_the_sequence_numbers_of_epoch_0_are_shifted() {
        let mut datagram = plain(HANDSHAKE, DTLS_1_2, 1, b"a");
        datagram.extend(plain(HANDSHAKE, DTLS_1_2, 2, b"b"));
        let mut protected = plain(HANDSHAKE, DTLS_1_2, 9, b"c");
        protected[4] = 1;
        datagram.extend(protected);
        assert_eq!(shift_sequences(&mut datagram, 4), Some(6));
        let sequences: Vec<_> = Record::all(&datagram).map(|one| one.sequence).collect();
        assert_eq!(sequences, [5, 6, 9]);
    }
}
