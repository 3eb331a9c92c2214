use super::driver::{Turn, Work};
use crate::codec::Codec;
use crate::gate::Gate;
use crate::handler::Handler;
use crate::sans_io::ServerCore;

/// The work of a handler that answers at once.
pub(super) struct Inline;

impl<C: Codec, H: Handler<C>, G: Gate> Work<C, H, G> for Inline {
    fn run(&mut self, core: &mut ServerCore<C, H, G>, turn: &mut Turn<'_, '_>) {
        if turn.inbox.is_empty() {
            return;
        }
        core.handle_with_clock(turn.received, turn.clock, turn.inbox, turn.outbox);
        turn.has_more = !turn.inbox.is_empty();
    }
}
