//! What moving datagrams costs: the batches in memory, and the way over a UDP socket on loopback.
//!
//!     cargo bench -p rejoinder-benches --bench batch
//!
//! The times are for 64 datagrams of 64 bytes. How an outbox is grouped by peer is a part of sending;
//! it shows in the difference between the orders of peers.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(
    clippy::wildcard_imports,
    reason = "the modules are the groups of the report"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rejoinder::transport::{Connect, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::udp::{UdpConnector, UdpOptions, UdpTransport};
use rejoinder::{Transport, Wait};

fn main() {
    divan::main();
}

const BATCH: usize = 64;
const DATAGRAM: [u8; 64] = [7; 64];

fn inbox() -> Inbox {
    Inbox::new(BATCH, MAX_DATAGRAM_BYTES)
}

fn outbox() -> Outbox {
    Outbox::new(BATCH, MAX_DATAGRAM_BYTES)
}

fn peer() -> SocketAddr {
    "192.0.2.1:9999".parse().unwrap()
}

fn push(outbox: &mut Outbox, peer: SocketAddr) {
    outbox.push(peer, None, black_box(&DATAGRAM)).unwrap();
}

fn pop_all(inbox: &mut Inbox) {
    while let Some(datagram) = inbox.pop() {
        black_box(datagram);
    }
}

mod memory {
    use super::*;

    /// As the system delivers datagrams of many peers.
    #[divan::bench(sample_size = 20)]
    fn fill_one_by_one_and_pop(bencher: Bencher<'_, '_>) {
        let (mut inbox, meta) = (inbox(), Meta::new(peer()));
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                inbox.fill(DATAGRAM.len(), black_box(meta));
            }
            pop_all(&mut inbox);
            inbox.has_space()
        });
    }

    /// As the system delivers what it merged.
    #[divan::bench(sample_size = 20)]
    fn fill_merged_and_pop(bencher: Bencher<'_, '_>) {
        let (mut inbox, meta) = (inbox(), Meta::new(peer()));
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            inbox.fill_segments(BATCH * DATAGRAM.len(), DATAGRAM.len(), black_box(meta));
            pop_all(&mut inbox);
            inbox.has_space()
        });
    }

    #[divan::bench(sample_size = 20)]
    fn push_into_an_outbox(bencher: Bencher<'_, '_>) {
        let (mut outbox, peer) = (outbox(), peer());
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            outbox.clear();
            for _ in 0..BATCH {
                push(&mut outbox, black_box(peer));
            }
        });
    }
}

mod udp {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Path {
        Fast,
        Portable,
    }

    const PATHS: [Path; 2] = [Path::Fast, Path::Portable];

    fn options(path: Path) -> UdpOptions {
        match path {
            Path::Fast => UdpOptions::new(),
            Path::Portable => UdpOptions::new().portable(),
        }
    }

    /// To one peer and back to us; what is received is counted.
    #[divan::bench(args = PATHS, sample_size = 10)]
    fn send_and_receive(bencher: Bencher<'_, '_>, path: Path) {
        let mut receiver = options(path).bind("127.0.0.1:0").unwrap();
        let peer = receiver.local_addr().unwrap();
        let mut sender = UdpConnector::from(options(path)).connect(peer).unwrap();
        let (mut inbox, mut outbox) = (inbox(), outbox());
        for _ in 0..BATCH {
            push(&mut outbox, peer);
        }
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            assert_eq!(sender.send(&outbox).sent, BATCH);
            let mut count = 0;
            while count < BATCH {
                let more = receive(&mut receiver, &mut inbox);
                assert!(more > 0, "loopback loses nothing that fits into the buffer");
                count += more;
            }
        });
    }

    fn receive(receiver: &mut UdpTransport, inbox: &mut Inbox) -> usize {
        let count = receiver
            .recv(inbox, Wait::For(Duration::from_secs(2)))
            .unwrap();
        pop_all(inbox);
        count
    }

    /// To this many peers that take turns. They never look, so the system drops most: that costs
    /// less than a reception, and the same on both paths.
    #[divan::bench(args = [1, 4, 32], sample_size = 10)]
    fn send_to_peers_in_turn(bencher: Bencher<'_, '_>, peers: usize) {
        let mut sender = UdpOptions::new().bind("127.0.0.1:0").unwrap();
        let peers: Vec<_> = (0..peers)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut outbox = outbox();
        for peer in peers.iter().cycle().take(BATCH) {
            push(&mut outbox, peer.local_addr().unwrap());
        }
        bencher
            .counter(ItemsCount::new(BATCH))
            .bench_local(|| assert_eq!(sender.send(&outbox).sent, BATCH));
    }
}
