//! `CoAP`'s messages over UDP (RFC 7252 §3 and §4), for the server and the client.

use coap_lite::error::MessageError;
use coap_lite::{MessageClass, MessageType, Packet, ResponseType};
use rejoinder::codec::ResponseKind;
use rejoinder::{Codec, Correlation, IntoReply, Reply, ReplyError, Timestamp, Writer};

/// `CoAP` with the answer in the acknowledgement.
///
/// An answer needs its code, its options and its payload. Type, message id and token follow from the
/// request: an acknowledgement if it was confirmable, or a reset if the answer is empty. The answer
/// to a message that was not confirmable repeats its message id: for one peer it is as unique as the
/// request's (RFC 7252 §4.4).
///
/// A client takes an answer that comes on its own, after an empty acknowledgement (§5.2.2), but does
/// not acknowledge it in turn: a codec has no say in what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Coap;

/// Why a datagram is no request, or no response.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum CoapError {
    /// Not a CoAP message.
    #[error("not a CoAP message: {0}")]
    Message(MessageError),
    /// Not version 1, or not in canonical form.
    #[error("not version 1, or not in canonical form")]
    Form,
    /// Not of a type and code that fit each other and the direction.
    #[error("the type and the code do not fit each other, or the direction")]
    Kind,
    /// A reset: the peer does not process the message (§4.2).
    #[error("a reset: the peer does not process the message")]
    Reset,
}

impl Codec for Coap {
    type Request<'a> = Packet;
    type Response<'a> = Packet;
    type Answer<'a> = Packet;
    type Error = CoapError;

    fn decode_request(&self, datagram: &[u8]) -> Result<Packet, CoapError> {
        let packet = decode(datagram)?;
        match packet.header.get_type() {
            // Anything but a request, or a message without anything: a ping (§4.3).
            MessageType::Confirmable if datagram[1] >> 5 == 0 => Ok(packet),
            MessageType::NonConfirmable if datagram[1] >> 5 == 0 && datagram[1] != 0 => Ok(packet),
            _ => Err(CoapError::Kind),
        }
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        mut answer: Packet,
        out: &mut Writer<'_>,
    ) -> Result<(), CoapError> {
        let request = decode(request)?;
        answer.header.message_id = request.header.message_id;
        answer
            .header
            .set_type(match (answer.header.code, request.header.get_type()) {
                (MessageClass::Empty, _) => MessageType::Reset,
                (_, MessageType::Confirmable) => MessageType::Acknowledgement,
                _ => MessageType::NonConfirmable,
            });
        if answer.header.code != MessageClass::Empty {
            answer.set_token(request.get_token().to_vec());
        }
        out.put(&answer.to_bytes_unlimited().map_err(CoapError::Message)?);
        Ok(())
    }

    fn encode_request(
        &self,
        id: u64,
        mut request: Packet,
        out: &mut Writer<'_>,
    ) -> Result<(), CoapError> {
        let id = id16(id);
        request.header.message_id = id;
        request.set_token(id.to_be_bytes().to_vec());
        out.put(&request.to_bytes_unlimited().map_err(CoapError::Message)?);
        Ok(())
    }

    fn decode_response(&self, datagram: &[u8]) -> Result<Packet, CoapError> {
        let packet = decode(datagram)?;
        match packet.header.code {
            MessageClass::Response(_) => Ok(packet),
            MessageClass::Empty if packet.header.get_type() == MessageType::Reset => {
                Err(CoapError::Reset)
            }
            _ => Err(CoapError::Kind),
        }
    }

    /// Acknowledgements, resets, and what is not confirmable and has the code of a response. A confirmable
    /// message with such a code must be reset (§4.2), and a reset is never answered.
    fn is_response(&self, datagram: &[u8]) -> bool {
        match datagram {
            [first, code, ..] => match first >> 4 & 0b11 {
                0 => false,
                1 => (2..=5).contains(&(code >> 5)),
                _ => true,
            },
            _ => false,
        }
    }

    /// A reset for a confirmable message of version 1 (§4.2): malformed, or with a code that is no request's.
    /// Messages of other versions are ignored (§3), and so are messages that are not confirmable (§4.3).
    fn encode_rejection(&self, datagram: &[u8], _: &CoapError, out: &mut Writer<'_>) {
        if let [first, _, id @ ..] = datagram
            && first >> 4 == 0b0100
            && let Some(id) = id.first_chunk::<2>()
        {
            out.put(&[0b0111_0000, 0]);
            out.put(id);
        }
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 16 }
    }

    /// The token, which also a response that comes on its own carries (§5.3.2). An empty message has
    /// none, but the message id, which is the same number.
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        if let [first, 0, id @ ..] = response
            && first >> 5 == 0b011
        {
            let id: [u8; 2] = id.try_into().ok()?;
            return Some(u16::from_be_bytes(id).into());
        }
        let packet = self.decode_response(response).ok()?;
        Some(u16::from_be_bytes(packet.get_token().try_into().ok()?).into())
    }

    /// An acknowledgement, and a reset, has the message id of what it is for.
    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        response[0] >> 5 & 1 == 0 || request[2..4] == response[2..4]
    }

    /// An empty acknowledgement announces a response that comes on its own (§5.2.2), and a reset says that
    /// there will be none (§4.2).
    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match datagram {
            [0x60, 0, _, _] => ResponseKind::Acknowledged,
            [0x70, 0, _, _] => ResponseKind::Refused,
            _ => ResponseKind::Whole,
        }
    }
}

/// There is no block-wise transfer (RFC 7959), so a request that needs it gets an error.
impl IntoReply<Coap> for Packet {
    fn reply(self, reply: &mut Reply<'_, Coap>) -> Result<(), ReplyError> {
        match reply.send(self) {
            Err(ReplyError::TooLong(_)) => {
                let mut answer = Packet::new();
                answer.header.code = MessageClass::Response(ResponseType::InternalServerError);
                answer.payload = b"the answer is too long".to_vec();
                reply.send(answer)
            }
            sent => sent,
        }
    }
}

/// Only what encodes to the same bytes: an empty payload behind its marker, say, is none (§3).
fn decode(datagram: &[u8]) -> Result<Packet, CoapError> {
    let packet = Packet::from_bytes(datagram).map_err(CoapError::Message)?;
    let encoded = packet.to_bytes_unlimited().map_err(CoapError::Message)?;
    // An empty message has nothing behind its id (§4.1).
    let fits = packet.header.code != MessageClass::Empty || datagram.len() == 4;
    if packet.header.get_version() == 1 && fits && encoded == datagram {
        Ok(packet)
    } else {
        Err(CoapError::Form)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an id has 16 bits")]
fn id16(id: u64) -> u16 {
    id as u16
}
