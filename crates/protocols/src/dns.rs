//! DNS: an authoritative name server for one small zone (RFC 1035, RFC 6891).
//!
//! It knows no TCP, so what is truncated stays so, and no zones are transferred. It says FORMERR to a query
//! that it cannot interpret and NOTIMP to another operation. Responses, and datagrams that are shorter than a
//! header, get nothing.

pub mod codec;
mod master_file;
mod text_forms;
mod whoami;
pub mod zone;

use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use rejoinder::{Context, Handler, Reply, ReplyError};

use self::codec::{Answer, Dns, Query};
use self::whoami::whoami;
use self::zone::Zone;

impl Handler<Dns> for Zone {
    fn handle(
        &self,
        query: Query<'_>,
        context: &Context,
        reply: &mut Reply<'_, Dns>,
    ) -> Result<(), ReplyError> {
        let mut space = [0; 96];
        let (rcode, records) = if query.header.opcode() != Opcode::QUERY {
            (OptRcode::NOTIMP, None)
        } else if query.edns.is_some_and(|edns| edns.version != 0) {
            (OptRcode::BADVERS, None)
        } else if query.class != Class::IN || matches!(query.rtype, Rtype::AXFR | Rtype::IXFR) {
            (OptRcode::REFUSED, None)
        } else if let Some((rcode, records)) =
            whoami(self, query.name, query.rtype, context.peer, &mut space)
        {
            (rcode, Some(records))
        } else {
            self.answer(query.name, query.rtype)
        };
        reply.send(Answer {
            query,
            rcode,
            records,
        })
    }
}
