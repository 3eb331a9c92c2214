//! Where a service's sockets come from: it opens them, or a service manager has.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::net::UdpSocket;
use std::sync::{Mutex, PoisonError};

#[cfg(unix)]
use listenfd::ListenFd;
use rejoinder::Transport;
use rejoinder::udp::{UdpOptions, UdpTransport};

use super::address::{resolve, why_not_bound};
use super::{Failure, warn};

/// The sockets that a service manager has opened, as systemd passes them (`sd_listen_fds(3)`): at
/// most `most` of those that are not in use yet, in order. The first call adopts all of them, with its
/// options. Their buffers are not made smaller.
pub(crate) fn passed(most: usize, options: &UdpOptions) -> Result<Vec<UdpTransport>, Failure> {
    // A descriptor must not be adopted twice.
    static PASSED: Mutex<Option<VecDeque<UdpTransport>>> = Mutex::new(None);

    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let left = match &mut *passed {
        Some(left) => left,
        none => none.insert(all_passed(options)?.into()),
    };
    let taken = most.min(left.len());
    let taken: Vec<_> = left.drain(..taken).collect();
    report_buffer(&taken);
    Ok(taken)
}

#[cfg(unix)]
fn all_passed(options: &UdpOptions) -> Result<Vec<UdpTransport>, Failure> {
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    (0..count)
        .map(|index| {
            let socket = passed.take_udp_socket(index).ok().flatten();
            let usable = socket.ok_or_else(|| NO_UDP.to_owned()).and_then(usable);
            let socket = usable.map_err(|problem| {
                let number = index + 1;
                Failure::RunTime(format!(
                    "socket {number} of {count} that the service manager passed {problem}"
                ))
            })?;
            Ok(options.adopt(socket).map_err(io::Error::from)?)
        })
        .collect()
}

/// A socket that requests can come to, or what is wrong with it.
#[cfg(unix)]
fn usable(socket: UdpSocket) -> Result<UdpSocket, String> {
    if let Ok(peer) = socket.peer_addr() {
        return Err(format!(
            "is connected to {peer} and receives from no other peer: pass one that is only bound"
        ));
    }
    match socket.local_addr() {
        Ok(addr) if addr.port() == 0 => {
            Err("is not bound: bind it before it is passed, as ListenDatagram= does".to_owned())
        }
        Ok(_) => Ok(socket),
        // A descriptor of another kind than it seems.
        Err(error) => Err(format!("has no address: {error}")),
    }
}

#[cfg(unix)]
const NO_UDP: &str = "is no UDP socket: a socket unit needs ListenDatagram=, systemd-socket-activate \
                      needs --datagram";

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn all_passed(_: &UdpOptions) -> Result<Vec<UdpTransport>, Failure> {
    Ok(Vec::new())
}

/// Binds a socket for each worker to the first of the addresses that can be had. A receive buffer
/// smaller than the one asked for is reported.
pub(crate) fn bind(
    text: &str,
    port: u16,
    workers: usize,
    options: UdpOptions,
) -> Result<Vec<UdpTransport>, Failure> {
    let addresses = resolve(text, port)?;
    let transports = options
        .receive_buffer_bytes(RECEIVE_BUFFER_BYTES)
        .bind_group(&addresses[..], workers)
        .map_err(|error| Failure::RunTime(why_not_bound(text, &addresses, &error.into())))?;
    report_buffer(&transports);
    Ok(transports)
}

/// Once for all of them: they are treated alike.
fn report_buffer(transports: &[UdpTransport]) {
    if let Some(Ok(granted)) = transports.first().map(UdpTransport::receive_buffer_bytes)
        // Linux counts its own bookkeeping, and doubles the number for it (socket(7)).
        && let granted = if cfg!(target_os = "linux") { granted / 2 } else { granted }
        && granted < RECEIVE_BUFFER_BYTES
    {
        warn(format_args!(
            "the kernel grants {} of receive buffer, not {}: bursts are lost earlier; raise \
             net.core.rmem_max",
            kib(granted),
            kib(RECEIVE_BUFFER_BYTES)
        ));
    }
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / 1_024)
}

/// Where sockets listen.
pub(crate) fn addresses_of(transports: &[UdpTransport]) -> io::Result<Vec<SocketAddr>> {
    transports.iter().map(Transport::local_addr).collect()
}

/// What the library asks for by default.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
