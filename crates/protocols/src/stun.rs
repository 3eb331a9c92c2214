//! STUN's binding method (RFC 8489), also for clients of RFC 3489.

mod classic;
pub mod codec;

use rejoinder::{Context, Handler, Reply, ReplyError};

use self::codec::Stun;

/// What a mirror does.
#[derive(Clone, Copy, Debug)]
pub struct Mirror;

impl Handler<Stun> for Mirror {
    fn handle(
        &self,
        (): (),
        context: &Context,
        reply: &mut Reply<'_, Stun>,
    ) -> Result<(), ReplyError> {
        reply.send(context.peer)
    }
}
