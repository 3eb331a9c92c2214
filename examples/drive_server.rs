//! A server's core driven over a plain `std::net::UdpSocket`, with public names only: where a driver
//! of your own begins. `rejoinder::Server` is such a loop too, with many datagrams per system call.
//!
//! Run it with `cargo run --example drive_server -- 127.0.0.1:9999`, and ask it:
//! `echo hello | socat - UDP:127.0.0.1:9999`.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use rejoinder::codec::Text;
use rejoinder::gate::{AmplificationLimit, Gate};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::{ReceiveBackoff, ServerCore};
use rejoinder::transport::{ErrorClass, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport};
use rejoinder::{Codec, Handler, Server, Stats, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1);
    let socket = UdpSocket::bind(addr.as_deref().unwrap_or("127.0.0.1:9999"))?;
    eprintln!("listening on {}", socket.local_addr()?);
    let core = Server::builder(Text)
        .local_addr(socket.local_addr()?)
        .gate(AmplificationLimit::default())
        .core(|text: &str| Some(text.to_uppercase()));
    let stats = drive(&socket, core, || false)?;
    eprintln!("{stats}");
    Ok(())
}

/// Serves until `is_done`, which is asked at least four times a second, or until the socket is gone.
pub fn drive<C: Codec, H: Handler<C>, G: Gate>(
    socket: &UdpSocket,
    mut core: ServerCore<C, H, G>,
    is_done: impl Fn() -> bool,
) -> io::Result<Stats> {
    socket.set_read_timeout(Some(Duration::from_millis(250)))?;
    let mut inbox = Inbox::new(1, MAX_DATAGRAM_BYTES);
    let mut outbox = Outbox::new(MAX_RESPONSES, MAX_DATAGRAM_BYTES);
    let mut backoff = ReceiveBackoff::new();
    while !is_done() {
        let now = match receive(socket, &mut inbox) {
            Ok(()) => Timestamp::system(),
            Err(error) => {
                core.on_receive_error(Timestamp::system(), &error);
                let class = ErrorClass::classify_receive(&error);
                if class == ErrorClass::Gone {
                    return Err(error);
                }
                thread::sleep(backoff.pause_after(class));
                continue;
            }
        };
        backoff.reset();
        while !inbox.is_empty() {
            core.handle(now, &mut inbox, &mut outbox);
            let mut report = SendReport::default();
            for response in outbox.iter() {
                match socket.send_to(response.bytes, response.peer) {
                    Ok(_) => report.sent += 1,
                    Err(error) => report.record_failure(error),
                }
            }
            core.on_sent(&report);
            outbox.clear();
        }
    }
    Ok(core.stats())
}

/// Receives one datagram, if one comes in time.
fn receive(socket: &UdpSocket, inbox: &mut Inbox) -> io::Result<()> {
    let buffer = inbox.spare().next().expect("the inbox is empty");
    match socket.recv_from(buffer) {
        Ok((bytes, peer)) => inbox.fill(bytes, Meta::new(peer)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rejoinder::Client;
    use rejoinder::codec::Tagged;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn it_answers_requests_and_counts_what_it_drops() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addr = socket.local_addr().expect("its address");
        let core = Server::builder(Tagged(Text)).core(|text: &str| Some(text.to_uppercase()));
        let done = AtomicBool::new(false);
        let stats = thread::scope(|scope| {
            let serving = scope.spawn(|| drive(&socket, core, || done.load(Ordering::Relaxed)));
            let junk = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            junk.send_to(b"junk", addr).expect("it is sent");
            let mut client = Client::connect(addr, Tagged(Text)).expect("a client");
            for _ in 0..100 {
                assert_eq!(client.request("hello").expect("a response"), "HELLO");
            }
            done.store(true, Ordering::Relaxed);
            serving
                .join()
                .expect("nothing panics")
                .expect("the socket stays")
        });
        assert!(stats.is_conserved());
        assert_eq!((stats.replied, stats.dropped_total()), (100, 1));
    }
}
