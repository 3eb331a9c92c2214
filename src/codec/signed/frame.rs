//! How a signed message is laid out.

use super::keys::MAC_BYTES;
use super::replay::Nonce;

/// The parts of a request.
pub(super) struct SignedRequest<'a> {
    pub(super) key: u32,
    pub(super) time: u64,
    pub(super) nonce: &'a Nonce,
    pub(super) inner: &'a [u8],
    /// All but the MAC.
    pub(super) covered: &'a [u8],
    pub(super) mac: &'a [u8; MAC_BYTES],
}

impl<'a> SignedRequest<'a> {
    #[inline]
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (covered, mac) = datagram.split_last_chunk()?;
        let (&mark, rest) = covered.split_first()?;
        let (&key, rest) = rest.split_first_chunk()?;
        let (&time, rest) = rest.split_first_chunk()?;
        let (nonce, inner) = rest.split_first_chunk()?;
        (mark == REQUEST).then_some(Self {
            key: u32::from_be_bytes(key),
            time: u64::from_be_bytes(time),
            nonce,
            inner,
            covered,
            mac,
        })
    }
}

/// The parts of a response.
pub(super) struct SignedResponse<'a> {
    pub(super) key: u32,
    pub(super) nonce: &'a Nonce,
    /// All before the inner response.
    pub(super) header: &'a [u8],
    pub(super) inner: &'a [u8],
    pub(super) mac: &'a [u8; MAC_BYTES],
}

impl<'a> SignedResponse<'a> {
    #[inline]
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (covered, mac) = datagram.split_last_chunk()?;
        let (header, inner) = covered.split_at_checked(RESPONSE_HEADER_BYTES)?;
        let (&mark, rest) = header.split_first()?;
        let (&key, nonce) = rest.split_first_chunk()?;
        (mark == RESPONSE).then_some(Self {
            key: u32::from_be_bytes(key),
            nonce: nonce.try_into().ok()?,
            header,
            inner,
            mac,
        })
    }
}

pub(super) fn id_of(nonce: &Nonce) -> u64 {
    let (_, id) = nonce.split_last_chunk().expect("a nonce has 16 bytes");
    u64::from_be_bytes(*id)
}

/// The length of an inner request, which says where the inner response begins in what a MAC covers.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a datagram has fewer than 2^32 bytes"
)]
pub(super) fn inner_len(request: &[u8]) -> [u8; 4] {
    (request.len() as u32).to_be_bytes()
}

pub(super) const REQUEST: u8 = b'q';
pub(super) const RESPONSE: u8 = b'r';
pub(super) const TIME_AT: usize = 5;
pub(super) const TIME_BYTES: usize = 8;
pub(super) const NONCE_AT: usize = TIME_AT + TIME_BYTES;
pub(super) const RESPONSE_HEADER_BYTES: usize = 1 + 4 + 16;
