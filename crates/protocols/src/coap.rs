//! `CoAP`: 小Zurich as a resource of the constrained web (RFC 7252).

pub mod codec;
pub mod zurich;

use coap_lite::{MessageType, Packet};
use rejoinder::Handler;
use rejoinder::handler::Dedup;

use self::codec::Coap;

type Id = (bool, u16, Vec<u8>);

/// What makes a request the same as another of the same peer. The message id would do (§4.2); with
/// the token, a forger has to guess more. A duplicate is answered again only if it is confirmable.
#[expect(clippy::unnecessary_wraps, reason = "the form that `Dedup` takes")]
fn id(request: &Packet) -> Option<Id> {
    let confirmable = request.header.get_type() == MessageType::Confirmable;
    let token = request.get_token().to_vec();
    Some((confirmable, request.header.message_id, token))
}

/// Handles a request once. Duplicates get the answer again, or no response if they were not
/// confirmable: no client waits for that (§4.3).
pub fn once<H: Handler<Coap>>(handler: H) -> impl Handler<Coap> {
    Dedup::new(handler, id).silent_for(|(confirmable, ..): &Id| !confirmable)
}
