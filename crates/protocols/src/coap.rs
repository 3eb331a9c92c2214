//! `CoAP`: 小Zurich as a resource of the constrained web (RFC 7252).

pub mod codec;
pub mod zurich;

use coap_lite::{MessageType, Packet};
use rejoinder::Handler;
use rejoinder::handler::Dedup;

use self::codec::Coap;

type Id = (bool, u16, Vec<u8>);

/// What makes a request the same as another of the same peer. The message id would do (§4.2); whoever
/// forges requests has to guess the token too. Whether it is confirmable tells whether a copy is
/// answered again.
#[expect(clippy::unnecessary_wraps, reason = "the form that `Dedup` takes")]
fn id(request: &Packet) -> Option<Id> {
    let confirmable = request.header.get_type() == MessageType::Confirmable;
    let token = request.get_token().to_vec();
    Some((confirmable, request.header.message_id, token))
}

/// Handles a request once. Copies get the answer again, or silence if they were not confirmable:
/// nobody waits for that answer (§4.3).
pub fn once<H: Handler<Coap>>(handler: H) -> impl Handler<Coap> {
    Dedup::new(handler, id).silent_for(|(confirmable, ..): &Id| !confirmable)
}
