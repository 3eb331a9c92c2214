//! Drives the core of a client over `std::net::UdpSocket`, as a driver of your own would:
//!
//! ```text
//! cargo run --example drive_client
//! ```
//!
//! The core decides what is sent when, from which socket, and what is a response. The loop below
//! opens sockets, sends, waits, and reports.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::{ClientCore, SocketEvent, SocketId};
use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
use rejoinder::{Client, Server, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::bind("127.0.0.1:0", Tagged(Text))?;
    let (peer, handle) = (server.local_addr()?, server.handle());
    let serving = thread::spawn(move || server.serve(|text: &str| Some(text.to_uppercase())));

    let mut core = Client::builder(Tagged(Text)).core(peer)?;
    for text in ["one", "two", "three"] {
        // The standard library's maps have random keys, and so has a hash of nothing under one.
        let mut random = || Ok(RandomState::new().build_hasher().finish());
        core.submit(Timestamp::system(), text, &mut random)?;
    }
    let mut sockets = HashMap::new();
    while core.stats().in_flight > 0 {
        send(&mut core, &mut sockets);
        receive(&mut core, &sockets)?;
        while let Some((ticket, result)) = core.poll_result() {
            println!("{ticket:?}: {}", result?.decode()?);
        }
    }
    handle.shutdown();
    serving.join().expect("the server does not panic")?;
    Ok(())
}

/// Sends what is due, from the sockets that the core names.
fn send(core: &mut ClientCore<Tagged<Text>>, sockets: &mut HashMap<SocketId, UdpSocket>) {
    let now = Timestamp::system();
    while let Some(event) = core.poll_socket(now) {
        if let SocketEvent::Close(id) = event {
            sockets.remove(&id);
        }
    }
    let mut outbox = Outbox::new(16, 65_507);
    while let Some(id) = core.poll_send(now, &mut outbox) {
        match socket(id, sockets, &outbox) {
            Ok(socket) => {
                let mut report = SendReport::default();
                for datagram in outbox.iter() {
                    match socket.send(datagram.bytes) {
                        Ok(_) => report.sent += 1,
                        Err(error) => report.record_failure(error),
                    }
                }
                core.on_sent(now, &report);
            }
            Err(error) => core.on_connect_error(now, id, &error),
        }
        outbox.clear();
    }
}

/// Finds a socket, or opens it for what is to be sent.
fn socket<'a>(
    id: SocketId,
    sockets: &'a mut HashMap<SocketId, UdpSocket>,
    outbox: &Outbox,
) -> io::Result<&'a UdpSocket> {
    if let Some(outgoing) = outbox.iter().next().filter(|_| !sockets.contains_key(&id)) {
        let socket = UdpSocket::bind("0.0.0.0:0")?; // the server here has an IPv4 address
        socket.connect(outgoing.peer)?;
        sockets.insert(id, socket);
    }
    Ok(&sockets[&id])
}

/// Waits for datagrams until something is due. Requests with ids share a socket, so there is one to
/// wait for, or two for the short time in which one replaces the other.
fn receive(
    core: &mut ClientCore<Tagged<Text>>,
    sockets: &HashMap<SocketId, UdpSocket>,
) -> io::Result<()> {
    let mut inbox = Inbox::new(1, 65_527);
    for (&id, socket) in sockets {
        let timer = core.next_timer().unwrap_or_default();
        let wait = timer.saturating_sub(Timestamp::system().monotonic);
        let wait = if sockets.len() == 1 {
            wait
        } else {
            wait.min(Duration::from_millis(10))
        };
        socket.set_read_timeout(Some(wait.max(Duration::from_micros(1))))?;
        let received = socket.recv_from(inbox.spare().next().expect("it is empty"));
        match received {
            Ok((len, peer)) => inbox.fill(len, Meta::new(peer)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => thread::sleep(core.on_receive_error(Timestamp::system(), id, &error)),
        }
        core.on_receive(Timestamp::system(), id, &mut inbox);
    }
    Ok(())
}
