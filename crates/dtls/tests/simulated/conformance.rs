//! What the library asks of every transport, of both ends of an association.

use rejoinder::codec::{Tagged, Text};
use rejoinder::sim::SimNet;
use rejoinder::testing::{Pair, transport_conformance};
use rejoinder::transport::{Connect, Inbox, Outbox};
use rejoinder::{Transport, Wait};

use crate::support::{builder, config, server_addr};

#[test]
fn both_ends_of_an_association_are_transports() {
    transport_conformance(|| {
        let net = SimNet::seeded(1);
        let mut server = builder(1)
            .max_request_bytes(16_384)
            .wrap(net.bind(server_addr())?)?;
        let connector = config().connector(net.clone(), &Tagged(Text))?;
        let mut client = connector.connect(server_addr())?;

        let mut first = Outbox::new(1, 16);
        first.push(server_addr(), None, b"first").unwrap();
        assert_eq!(client.send(&first).sent, 1);
        let mut inbox = Inbox::new(1, 16);
        // What one sends the other answers, until the handshake is over.
        while server.recv(&mut inbox, Wait::No)? == 0 {
            client.recv(&mut Inbox::new(1, 16), Wait::No)?;
        }
        assert_eq!(inbox.pop().map(|one| one.bytes), Some(&b"first"[..]));
        Pair::new(client, server)
    })
    .unwrap();
}

#[test]
fn a_client_sends_to_its_server_and_to_no_other() {
    let net = SimNet::seeded(2);
    let connector = config().connector(net, &Tagged(Text)).unwrap();
    let mut client = connector.connect(server_addr()).unwrap();
    let mut outbox = Outbox::new(1, 16);
    let other = "10.0.0.9:5684".parse().unwrap();
    outbox.push(other, None, b"?").unwrap();
    let report = client.send(&outbox);
    assert_eq!((report.sent, report.failed), (0, 1));
}
