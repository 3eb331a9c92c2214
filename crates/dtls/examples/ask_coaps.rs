//! Posts a text to 小Zurich over CoAP and DTLS, with a pre-shared key:
//!
//! ```text
//! cargo run --manifest-path crates/dtls/Cargo.toml --example ask_coaps -- \
//!     --psk-file psk.txt 127.0.0.1:5684 你好吗？
//! ```
//!
//! or with certificates:
//!
//! ```text
//! … --example ask_coaps -- --authorities ca.pem --name server.example 127.0.0.1:5684 你好吗？
//! ```
//!
//! and `--certificate client.pem --key client.key` for a server that asks for one.

use std::error::Error;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;

use coap_lite::{CoapOption, MessageClass, Packet, RequestType};
use lexopt::{Arg, Parser, ValueExt};
use rejoinder::Client;
use rejoinder::escape::Escaped;
use rejoinder::udp::UdpConnector;
use rejoinder_dtls::{Authorities, CertifiedKey, ClientConfig, PskFile};
use rejoinder_protocols::coap::codec::Coap;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut keys, mut authorities, mut name) = (None, None, None);
    let (mut certificate, mut key, mut resource) = (None, None, "zurich".to_owned());
    let mut values = Vec::new();
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("psk-file") => keys = Some(PskFile::read(path(&mut arguments)?)?),
            Arg::Long("authorities") => {
                authorities = Some(Authorities::from_pem_file(path(&mut arguments)?)?);
            }
            Arg::Long("name") => name = Some(arguments.value()?.string()?),
            Arg::Long("certificate") => certificate = Some(path(&mut arguments)?),
            Arg::Long("key") => key = Some(path(&mut arguments)?),
            Arg::Long("resource") => resource = arguments.value()?.string()?,
            Arg::Value(value) => values.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let [server, text] = values.as_slice() else {
        return Err("usage: ask_coaps [OPTIONS] HOST:PORT TEXT".into());
    };
    let mut config = match (keys, authorities) {
        (Some(keys), _) => ClientConfig::psk_file(&keys),
        (None, Some(authorities)) => {
            let host = server.rsplit_once(':').map_or(&**server, |(host, _)| host);
            ClientConfig::certificates(authorities, name.as_deref().unwrap_or(host))?
        }
        (None, None) => return Err("give --psk-file or --authorities".into()),
    };
    if let (Some(certificate), Some(key)) = (certificate, key) {
        config = config.certificate(CertifiedKey::from_pem_files(certificate, key)?);
    }

    let mut request = Packet::new();
    request.header.code = MessageClass::Request(match text.as_str() {
        "" => RequestType::Get,
        _ => RequestType::Post,
    });
    for part in resource.split('/') {
        request.add_option(CoapOption::UriPath, part.as_bytes().to_vec());
    }
    request.payload = text.as_bytes().to_vec();
    let mut peers = server.to_socket_addrs()?;
    let peer = peers.next().ok_or("no such host")?;
    let connector = config.connector(UdpConnector::default(), &Coap)?;
    let mut client = Client::builder(Coap)
        .fail_when_unreachable(true)
        .other_peers(peers)
        .with_connector(connector, peer)?;
    let answer = client.request(request)?;
    let text = String::from_utf8_lossy(&answer.payload);
    let code = answer.header.get_code();
    writeln!(io::stdout(), "{code} {}", Escaped(&text))?;
    Ok(())
}

fn path(arguments: &mut Parser) -> Result<PathBuf, lexopt::Error> {
    Ok(arguments.value()?.into())
}
