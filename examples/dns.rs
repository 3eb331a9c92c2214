//! An authoritative name server for one small zone:
//!
//! ```text
//! cargo run --example dns -- --zone examples/dns/example.zone
//! dig @127.0.0.1 -p 5300 www.example.org
//! dig @127.0.0.1 -p 5300 whoami. TXT
//! ```
//!
//! It knows no TCP, so what is truncated stays truncated, and zones are not transferred. Where other
//! servers say FORMERR it is silent on purpose: what is no query deserves no packet to an address
//! that may be forged.

#[path = "dns/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;
#[path = "dns/zone.rs"]
pub(crate) mod zone;

use std::fs;
use std::net::IpAddr;
use std::process::ExitCode;

use codec::{Answer, Dns, MAX_BYTES, Query, Records};
use domain::base::iana::{Class, Opcode, OptRcode, Rtype};
use rejoinder::{Context, Handler, Reply, ReplyError, ServerBuilder, Writer};
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
        let mut answer = Answer {
            query,
            rcode: OptRcode::NOERROR,
            authoritative: false,
            records: Records::default(),
        };
        if query.header.opcode() != Opcode::QUERY {
            answer.rcode = OptRcode::NOTIMP;
        } else if query.edns.is_some_and(|edns| edns.version != 0) {
            answer.rcode = OptRcode::BADVERS;
        } else if query.class != Class::IN || matches!(query.rtype, Rtype::AXFR | Rtype::IXFR) {
            answer.rcode = OptRcode::REFUSED;
        } else if begins_with_whoami(query.name) {
            answer.authoritative = true;
            answer.records = whoami(query.rtype, context, &mut space);
        } else if let Some((rcode, records)) = self.answer(query.name, query.rtype) {
            answer = Answer {
                rcode,
                authoritative: true,
                records,
                ..answer
            };
        } else {
            answer.rcode = OptRcode::REFUSED;
        }
        reply.send(answer)
    }
}

fn begins_with_whoami(name: &[u8]) -> bool {
    name.get(..7)
        .is_some_and(|label| label.eq_ignore_ascii_case(b"\x06whoami"))
}

/// One record, if there is one of this type, not to be kept by anybody.
fn whoami<'a>(rtype: Rtype, context: &Context, space: &'a mut [u8; 96]) -> Records<'a> {
    use std::fmt::Write as _;

    let mut text = [0; 64];
    let mut out = Writer::new(&mut text);
    match (rtype, context.peer.ip()) {
        (Rtype::A, IpAddr::V4(ip)) => out.put(&ip.octets()),
        (Rtype::AAAA, IpAddr::V6(ip)) => out.put(&ip.octets()),
        (Rtype::TXT, _) => {
            // A character string begins with its length.
            let _ = write!(out, "\0{}", context.peer);
        }
        _ => return Records::default(),
    }
    let len = out.finish().expect("an address has at most 58 characters");
    let bytes = u8::try_from(len).expect("64 at most");
    if rtype == Rtype::TXT {
        text[0] = bytes - 1;
    }
    let mut out = Writer::new(space);
    out.put(&[0xC0, 12]); // the question's name
    out.put(&rtype.to_int().to_be_bytes());
    out.put(&[0, 1, 0, 0, 0, 0, 0, bytes]); // class IN, TTL 0
    out.put(&text[..len]);
    let len = out.finish().expect("twelve bytes more");
    Records {
        answers: 1,
        bytes: &space[..len],
        ..Records::default()
    }
}

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS", "zone"], |arguments| {
        let zone = match arguments.get("zone") {
            Some(path) => {
                let text = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
                Zone::parse(&text).map_err(|error| format!("{path}: {error}"))?
            }
            None => Zone::parse(include_bytes!("dns/example.zone"))?,
        };
        let server = ServerBuilder::new(Dns)
            .max_request_bytes(MAX_BYTES.into())
            .max_reply_bytes(MAX_BYTES.into());
        Ok(vec![arguments.service(
            "ADDRESS",
            "127.0.0.1:5300",
            server,
            zone,
        )?])
    })
}
