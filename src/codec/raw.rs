use std::convert::Infallible;

use super::{Codec, Writer};
use crate::timestamp::Timestamp;

/// Bytes as they are: every datagram is a request, every datagram is a response.
///
/// The format does not mark responses, so the codec cannot keep two servers from answering each
/// other.
///
/// ```
/// use rejoinder::codec::Raw;
/// use rejoinder::Codec;
///
/// assert_eq!(Raw.decode_request(b"\xff\0")?, b"\xff\0");
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Request<'a> = &'a [u8];
    type Response<'a> = &'a [u8];
    type Answer<'a> = &'a [u8];
    type Error = Infallible;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Infallible> {
        Ok(datagram)
    }

    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Infallible> {
        out.put(answer);
        Ok(())
    }

    fn encode_request(
        &self,
        _: u64,
        request: &[u8],
        out: &mut Writer<'_>,
    ) -> Result<(), Infallible> {
        out.put(request);
        Ok(())
    }

    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], Infallible> {
        Ok(datagram)
    }

    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}
