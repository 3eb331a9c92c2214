//! `rejoinder serve --psk-file`.

use std::path::Path;

use rejoinder::codec::{Ctime, Tagged};
use rejoinder::gate::{Gate, RateLimit};
use rejoinder::udp::UdpTransport;
use rejoinder::{ConfigError, Server};
use rejoinder_dtls::{Dtls, PskFile};

use super::Start;
use crate::program::{Failure, chain};
use crate::service::Service;

pub(super) fn keys(path: &Path) -> Result<PskFile, Failure> {
    let keys = PskFile::read(path).map_err(|error| Failure::RunTime(chain(&error)))?;
    if keys.is_empty() {
        let path = path.display();
        return Err(Failure::RunTime(format!(
            "the key file {path} has no key: write a line IDENTITY:HEXADECIMAL-KEY"
        )));
    }
    Ok(keys)
}

/// The server for clients with keys. Each worker has associations of its own.
pub(super) fn start<G: Gate + Clone + Send + 'static>(
    keys: &PskFile,
    codec: Ctime,
    max_request: usize,
    gate: G,
    transports: Vec<UdpTransport>,
) -> Result<Start, Failure> {
    let hellos = RateLimit::default();
    let wrap = |transport| {
        let builder = Dtls::builder().psk(keys.clone()).gate(hellos.clone());
        let builder = builder.max_request_bytes(max_request.clamp(1, MAX_RECORD_BYTES));
        builder.wrap(transport)
    };
    let transports: Result<Vec<_>, ConfigError> = transports.into_iter().map(wrap).collect();
    let server = Server::builder(Tagged(codec))
        .max_request_bytes(max_request)
        .gate(gate)
        .with_transports(transports?)?;
    Ok(Box::new(|addresses, robot| {
        Service::new(server, addresses, robot)
    }))
}

/// A record has no more (RFC 6347 §4.1), however long a request may be.
const MAX_RECORD_BYTES: usize = 16_384;
