//! `CoAP`: 小Zurich as a resource of the constrained web (RFC 7252).

pub mod codec;
pub mod zurich;

use coap_lite::{MessageClass, MessageType, Packet};
use rejoinder::handler::Dedup;
use rejoinder::transport::Delivery;
use rejoinder::{Context, Handler, IntoReply, Reply, ReplyError};

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

/// A handler that leaves requests to a group without a response where one is of no use. A request to a group must
/// not be confirmable (§8.1), so one that is gets no response, not even a reset. Neither does one whose answer is
/// an error: all members of the group would send it (§8.2).
pub fn quiet_in_groups<F>(answer: F) -> impl Handler<Coap>
where
    F: Fn(Packet) -> Option<Packet>,
{
    Groups(answer)
}

struct Groups<F>(F);

impl<F: Fn(Packet) -> Option<Packet>> Handler<Coap> for Groups<F> {
    fn handle(
        &self,
        request: Packet,
        context: &Context,
        reply: &mut Reply<'_, Coap>,
    ) -> Result<(), ReplyError> {
        let is_for_a_group = context.delivery != Delivery::Unicast;
        if is_for_a_group && request.header.get_type() == MessageType::Confirmable {
            return Ok(());
        }
        let answer = self.0(request);
        let is_of_use = |answer: &Packet| match answer.header.code {
            MessageClass::Response(code) => !code.is_error(),
            _ => false,
        };
        match answer {
            Some(answer) if !is_for_a_group || is_of_use(&answer) => answer.reply(reply),
            _ => Ok(()),
        }
    }
}
