//! 小Zurich as a resource of the constrained web, over DTLS (RFC 7252 §9):
//!
//! ```text
//! printf 'lamp-7:%s\n' "$(openssl rand -hex 16)" >psk.txt; chmod 600 psk.txt
//! cargo run --manifest-path crates/dtls/Cargo.toml --example coaps -- --psk-file psk.txt
//! cargo run --manifest-path crates/dtls/Cargo.toml --example ask_coaps -- \
//!     --psk-file psk.txt 127.0.0.1:5684 你好吗？
//! ```
//!
//! With certificates: `--certificate server.pem --key server.key`, and `--client-authorities ca.pem` to ask
//! clients for theirs.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use coap_lite::Packet;
use lexopt::{Arg, Parser, ValueExt};
use rejoinder::udp::UdpTransport;
use rejoinder::{Context, Handler, Reply, ReplyError, Server, Transport};
use rejoinder_dtls::{Authorities, CertifiedKey, Dtls, PskFile};
use rejoinder_protocols::coap::codec::Coap;
use rejoinder_protocols::coap::once;
use rejoinder_protocols::coap::zurich::answer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut address = "127.0.0.1:5684".to_owned();
    let mut builder = Dtls::builder();
    let (mut certificate, mut key) = (None, None);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("psk-file") => {
                builder = builder.psk(PskFile::read(path(&mut arguments)?)?);
            }
            Arg::Long("certificate") => certificate = Some(path(&mut arguments)?),
            Arg::Long("key") => key = Some(path(&mut arguments)?),
            Arg::Long("client-authorities") => {
                let authorities = Authorities::from_pem_file(path(&mut arguments)?)?;
                builder = builder.client_authorities(authorities);
            }
            Arg::Value(value) => address = value.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    if let (Some(certificate), Some(key)) = (certificate, key) {
        builder = builder.certificate(CertifiedKey::from_pem_files(certificate, key)?);
    }
    let transport = builder.wrap(UdpTransport::bind(&address)?)?;
    writeln!(io::stderr(), "listening on {}", transport.local_addr()?)?;

    let robot = rejoinder::bot::zurich();
    let handler = once(Named(move |request: Packet| answer(&robot, &request)));
    let server = Server::builder(Coap)
        .max_request_bytes(1_152)
        .max_response_bytes(1_152)
        .with_transport(transport)?;
    server.serve(handler)?;
    Ok(())
}

fn path(arguments: &mut Parser) -> Result<PathBuf, lexopt::Error> {
    Ok(arguments.value()?.into())
}

/// Says who asks.
struct Named<H>(H);

impl<H: Handler<Coap>> Handler<Coap> for Named<H> {
    fn handle(
        &self,
        request: Packet,
        context: &Context,
        reply: &mut Reply<'_, Coap>,
    ) -> Result<(), ReplyError> {
        let stderr = &mut io::stderr();
        // A terminal that is gone is no reason not to answer.
        let _ = match context.identity() {
            Some(identity) => writeln!(stderr, "{} is {identity}", context.peer),
            None => writeln!(stderr, "{} has no name", context.peer),
        };
        self.0.handle(request, context, reply)
    }
}
