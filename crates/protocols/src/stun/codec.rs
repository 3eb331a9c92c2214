//! STUN's binding method (RFC 8489), for the server and the client.

use std::net::SocketAddr;

use rejoinder::codec::ResponseKind;
use rejoinder::{Codec, Correlation, Timestamp, Writer};
use stun_types::attribute::{
    AttributeStaticType, AttributeType, ErrorCode, Fingerprint, MessageIntegrity,
    MessageIntegritySha256, Nonce, Realm, Userhash, Username, XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    StunParseError, StunWriteError,
};

use super::classic;

/// STUN without authentication. A request asks for nothing in particular, and the answer is where it
/// came from: in XOR-MAPPED-ADDRESS, or in MAPPED-ADDRESS for a client of RFC 3489, whose requests have no
/// magic cookie (RFC 8489 §11).
#[derive(Clone, Copy, Debug)]
pub struct Stun;

/// Why a datagram is no binding request, or no success, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StunError {
    /// What the parser says.
    #[error(transparent)]
    Parse(#[from] StunParseError),
    /// Could not be written.
    #[error("could not be written")]
    Write(#[source] StunWriteError),
    /// The server could not do it: its ERROR-CODE (RFC 8489 §14.8).
    #[error("error {code}: {}", .reason.escape_debug())]
    Refused {
        /// 300 to 699.
        code: u16,
        /// A few words for people.
        reason: String,
    },
    /// Not a message of this class and method, and nothing else.
    #[error("not a Binding message of the expected class, or more bytes follow it")]
    Kind,
}

impl Codec for Stun {
    type Request<'a> = ();
    type Response<'a> = SocketAddr;
    type Answer<'a> = SocketAddr;
    type Error = StunError;

    fn decode_request(&self, datagram: &[u8]) -> Result<(), StunError> {
        match classic::Request::read(datagram) {
            Some(request) => request.map(|_| ()),
            None => binding(MessageClass::Request, datagram).map(|_| ()),
        }
    }

    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        peer: SocketAddr,
        out: &mut Writer<'_>,
    ) -> Result<(), StunError> {
        if let Some(request) = classic::Request::read(request) {
            request?.answer(peer, out);
            return Ok(());
        }
        let request = binding(MessageClass::Request, request)?;
        let new = MessageWriteVec::new;
        let unknown = Message::check_attribute_types(&request, &IGNORED, &[], new());
        let mut answer = if let Some(error) = unknown {
            // RFC 8489 §6.3.1: what must be understood and is not, is named.
            error
        } else {
            let mut success = Message::builder_success(&request, new());
            let address = XorMappedAddress::new(peer, request.transaction_id());
            success.add_attribute(&address).map_err(StunError::Write)?;
            success
        };
        if request.has_attribute(Fingerprint::TYPE) {
            answer.add_fingerprint().map_err(StunError::Write)?;
        }
        out.put(&answer.finish());
        Ok(())
    }

    /// RFC 8489 §5 asks for 96 unpredictable bits. These are 64 of them, and 32 zeros.
    fn encode_request(&self, id: u64, (): (), out: &mut Writer<'_>) -> Result<(), StunError> {
        let class = MessageType::from_class_method(MessageClass::Request, BINDING);
        let request = Message::builder(class, u128::from(id).into(), MessageWriteVec::new());
        out.put(&request.finish());
        Ok(())
    }

    fn decode_response(&self, datagram: &[u8]) -> Result<SocketAddr, StunError> {
        if let Ok(message) = binding(MessageClass::Error, datagram) {
            let error = message.attribute::<ErrorCode>()?;
            return Err(StunError::Refused {
                code: error.code(),
                reason: error.reason().to_owned(),
            });
        }
        let message = binding(MessageClass::Success, datagram)?;
        let address = message.attribute::<XorMappedAddress>()?;
        Ok(address.addr(message.transaction_id()))
    }

    /// Whatever is no request: the two bits of the class are never both 0 (RFC 8489 §5).
    fn is_response(&self, datagram: &[u8]) -> bool {
        matches!(datagram, [first, second, ..] if first & 1 != 0 || second & 1 << 4 != 0)
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 64 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let id = Message::from_bytes(response).ok()?.transaction_id();
        u64::try_from(u128::from(id)).ok()
    }

    /// An error response ends the transaction (RFC 8489 §6.3.4).
    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match datagram {
            [0x01, 0x11, ..] => ResponseKind::Refused,
            _ => ResponseKind::Whole,
        }
    }
}

/// A whole datagram with the one method that there is.
fn binding(class: MessageClass, datagram: &[u8]) -> Result<Message<'_>, StunError> {
    let message = Message::from_bytes(datagram)?;
    let whole = usize::from(u16::from_be_bytes([datagram[2], datagram[3]])) + 20 == datagram.len();
    if whole && message.has_class(class) && message.has_method(BINDING) {
        Ok(message)
    } else {
        Err(StunError::Kind)
    }
}

/// No authentication is required, and credentials are ignored.
const IGNORED: [AttributeType; 6] = [
    Username::TYPE,
    Userhash::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
];
