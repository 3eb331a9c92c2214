//! An authoritative name server for one small zone:
//!
//! ```text
//! cargo run --example dns -- --zone examples/dns/example.zone
//! dig @127.0.0.1 -p 5300 +ignore www.example.org
//! ```
//!
//! It knows no TCP, so what is truncated stays so, and no zones are transferred. Where others say
//! FORMERR it is silent: what is no query deserves no packet to an address that may be forged.

#[path = "dns/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;
#[path = "dns/whoami.rs"]
mod whoami;
#[path = "dns/zone.rs"]
pub(crate) mod zone;

use std::process::ExitCode;

use codec::{Answer, Dns, MAX_BYTES, Query, blocked_ports};
use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use rejoinder::{Context, Handler, Reply, ReplyError, Server};
use whoami::{is_whoami, whoami};
use zone::Zone;

const HELP: &str = "\
A name server for one small zone (DNS on UDP: RFC 1035, RFC 6891).

Usage: dns [ADDRESS] [--zone FILE] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:5300
  --zone FILE    a master file. Default: a zone example.org with a bit of everything
  -q, --quiet    print nothing
  -h, --help     this text

A name that begins with the label whoami is answered with the address of the asker (A or AAAA), or
with address and port (TXT). Ctrl-C ends it.
";

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
        } else if is_whoami(query.name) {
            let records = whoami(query.rtype, context.peer, &mut space);
            (OptRcode::NOERROR, Some(records))
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

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS", "zone"], |arguments| {
        let zone = arguments.file("zone", Zone::parse)?;
        let zone = zone.map_or_else(Zone::example, Ok)?;
        let server = Server::builder(Dns)
            .blocked_ports(blocked_ports())
            .max_request_bytes(MAX_BYTES.into())
            .max_reply_bytes(MAX_BYTES.into());
        let service = arguments.service("ADDRESS", "127.0.0.1:5300", server, zone)?;
        Ok(vec![service])
    })
}
