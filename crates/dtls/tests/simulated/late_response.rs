//! A response goes to the association that asked, also when another peer has the address meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rejoinder::codec::{Tagged, Text};
use rejoinder::handler::Dedup;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::transport::{Connect, Egress, ErrorClass, Inbox, Outbox};
use rejoinder::{Client, Context, Handler, Reply, ReplyError, Timestamp, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Dtls, DtlsBuilder, SendError};

use crate::pipe::Server;
use crate::support::{Hosted, KEY, OneAddress, server_addr};

const ADDR: &str = "192.0.2.1:7000";

/// A server that knows two lamps.
fn builder(seed: u64) -> DtlsBuilder<()> {
    Dtls::builder()
        .psk(|identity: &[u8]| identity.starts_with(b"lamp-").then(|| KEY.to_vec()))
        .gate(())
        .insecure_seed(seed)
}

fn config(identity: &str) -> ClientConfig {
    ClientConfig::psk(identity, KEY).insecure_seeds()
}

fn addr() -> SocketAddr {
    ADDR.parse().unwrap()
}

#[test]
fn a_late_response_is_refused_once_another_association_has_the_address() {
    for second in ["lamp-2", "lamp-1"] {
        let server = Server::start(builder(1).engine().unwrap());
        let (mut one, _) = server.client(ADDR, config("lamp-1"));
        one.request("a question").unwrap();
        let asked = server.lock().metas[0];
        assert_ne!(asked.association, 0);
        let on_time = server.lock().send(addr(), asked.egress(), b"in time");
        assert_eq!(on_time.unwrap().len(), 1);

        // Another peer gets the address, and proves an identity: another, or the same.
        let (mut other, _) = server.client(ADDR, config(second));
        other.request("another question").unwrap();
        let identity = server.lock().engine.identity(addr()).cloned();
        assert_eq!(identity, Some(second.into()));
        let (sent, unsent) = (server.stats().sent, server.stats().unsent);
        let error = server.lock().send(addr(), asked.egress(), b"a secret");
        let error = error.unwrap_err();
        assert_eq!(error, SendError::Superseded(addr()));
        assert_eq!(ErrorClass::classify(&error.into()), ErrorClass::Peer);
        let stats = server.stats();
        assert_eq!((stats.sent, stats.unsent), (sent, unsent + 1));
        assert_eq!((stats.superseded, stats.associations), (1, 1));

        // The present association is as good as before, and is that of payloads that answer nothing.
        let asked = server.lock().metas.last().copied().unwrap();
        for egress in [asked.egress(), Egress::default()] {
            let sent = server.lock().send(addr(), egress, b"in time");
            assert_eq!(sent.unwrap().len(), 1);
        }
    }
}

#[test]
fn while_another_peer_shakes_hands_the_association_is_answered() {
    let server = Server::start(builder(2).engine().unwrap());
    let (mut one, _) = server.client(ADDR, config("lamp-1"));
    one.request("a question").unwrap();
    let asked = server.lock().metas[0];
    let (mut other, pipe) = server.client("192.0.2.2:7000", config("lamp-2"));
    other.request("hello").unwrap();
    // Its first two datagrams, as if from the address of the first: the second has no valid cookie there.
    let sent = pipe.state().sent.clone();
    for datagram in &sent[..2] {
        server.lock().receive(addr(), datagram);
    }
    assert!(
        server
            .lock()
            .send(addr(), asked.egress(), b"in time")
            .is_ok()
    );
    // An association of another address has another number, and is none of this address.
    let elsewhere = server.lock().metas[1];
    assert_ne!(asked.association, elsewhere.association);
    let error = server.lock().send(addr(), elsewhere.egress(), b"!");
    assert_eq!(error.unwrap_err(), SendError::Superseded(addr()));
    assert_eq!(server.stats().superseded, 1);
}

/// Has a client ask, and vanish without a word once its request is on its way.
fn ask_and_vanish(net: &SimNet, identity: &str) {
    let net_of = OneAddress {
        net: net.clone(),
        addr: addr(),
    };
    let connector = config(identity).connector(net_of, &Tagged(Text)).unwrap();
    let mut transport = connector.connect(server_addr()).unwrap();
    let mut outbox = Outbox::new(1, 64);
    outbox
        .push(server_addr(), None, b"?12345678secret")
        .unwrap();
    assert_eq!(transport.send(&outbox).sent, 1);
    let mut inbox = Inbox::new(1, 64);
    // The handshake, and no response to the request.
    transport.recv(&mut inbox, Wait::For(SECOND)).unwrap();
    net.set_link(Link::new().loss(1.0)).unwrap();
    drop(transport);
    net.set_link(Link::new()).unwrap();
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_blocking_server_does_not_send_one_peer_the_response_to_another() {
    let net = SimNet::seeded(3);
    let mut transport = builder(3).wrap(net.bind(server_addr()).unwrap()).unwrap();
    let mut core = ServerCore::new(Tagged(Text), |text: &str| {
        [text.to_uppercase(), "and more".to_owned()]
    });
    // The transport's own loop, while the clients of this thread wait for it.
    let serve = |transport: &mut Dtls<_, ()>, inbox: &mut Inbox| {
        transport.recv(inbox, Wait::No).unwrap();
    };
    let shake_hands = |transport: &mut Dtls<_, ()>, identity: &str| {
        let net_of = OneAddress {
            net: net.clone(),
            addr: addr(),
        };
        let connector = config(identity).connector(net_of, &Tagged(Text)).unwrap();
        let mut client = connector.connect(server_addr()).unwrap();
        let mut outbox = Outbox::new(1, 64);
        outbox
            .push(server_addr(), None, b"?12345678secret")
            .unwrap();
        assert_eq!(client.send(&outbox).sent, 1);
        let mut inbox = Inbox::new(8, 512);
        while inbox.is_empty() {
            serve(transport, &mut inbox);
            client.recv(&mut Inbox::new(8, 512), Wait::No).unwrap();
        }
        net.set_link(Link::new().loss(1.0)).unwrap();
        drop(client);
        net.set_link(Link::new()).unwrap();
        inbox
    };
    let mut asked = shake_hands(&mut transport, "lamp-1");
    // The handler is at work, and its batch with it; another peer gets the address.
    shake_hands(&mut transport, "lamp-2");
    let mut outbox = Outbox::new(16, 512);
    core.handle(net.now(), &mut asked, &mut outbox);
    assert_eq!(outbox.len(), 2);
    let report = transport.send(&outbox);
    assert_eq!((report.sent, report.failed), (0, 2));
    core.on_sent(&report);
    assert_eq!(core.stats().responses_failed, 2);
    let stats = transport.stats();
    assert_eq!(
        (stats.superseded, stats.sent, stats.associations),
        (2, 0, 1)
    );
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn an_async_server_does_not_send_one_peer_the_deferred_response_to_another() {
    use rejoinder::aio::{AsyncSim, Server};
    use rejoinder::transport::Meta;
    use tokio::time::sleep;

    let net = SimNet::seeded(4);
    let endpoint = AsyncSim::new(net.bind(server_addr()).unwrap());
    let transport = builder(4).wrap_async(endpoint).unwrap();
    let server = Server::builder(Tagged(Text)).with_transport(transport);
    let server = server.unwrap();
    let handle = server.handle();
    let serving = server.serve(async |text: &str| {
        if text == "secret" {
            sleep(5 * SECOND).await;
        }
        [text.to_uppercase(), "and more".to_owned()]
    });
    let asking = async {
        let transport_of = |identity: &str| {
            let endpoint = OneAddress {
                net: net.clone(),
                addr: addr(),
            };
            config(identity)
                .connector(endpoint, &Tagged(Text))
                .unwrap()
                .connect(server_addr())
                .unwrap()
        };
        let mut outbox = Outbox::new(1, 64);
        outbox
            .push(server_addr(), None, b"?12345678secret")
            .unwrap();
        let mut one = transport_of("lamp-1");
        assert_eq!(one.send(&outbox).sent, 1);
        let mut inbox = Inbox::new(8, 512);
        for _ in 0..10 {
            one.recv(&mut inbox, Wait::No).unwrap();
            sleep(Duration::from_millis(10)).await;
        }
        assert!(inbox.is_empty());
        assert_eq!(handle.stats().deferred, 1);
        net.set_link(Link::new().loss(1.0)).unwrap();
        drop(one);
        net.set_link(Link::new()).unwrap();

        let mut other = transport_of("lamp-2");
        outbox.clear();
        outbox.push(server_addr(), None, b"?12345678plain").unwrap();
        assert_eq!(other.send(&outbox).sent, 1);
        let mut received = Vec::new();
        for _ in 0..800 {
            other.recv(&mut inbox, Wait::No).unwrap();
            while let Some(datagram) = inbox.pop() {
                let Meta { peer, .. } = datagram.meta;
                assert_eq!(peer, server_addr());
                received.push(String::from_utf8(datagram.bytes.to_vec()).unwrap());
            }
            sleep(Duration::from_millis(10)).await;
        }
        handle.shutdown();
        received
    };
    let (stats, received) = tokio::join!(serving, asking);
    assert_eq!(received, ["!12345678PLAIN", "!12345678and more"]);
    let stats = stats.unwrap();
    assert_eq!((stats.received, stats.replied, stats.deferred), (2, 2, 0));
    assert_eq!((stats.responses_sent, stats.responses_failed), (2, 2));
}

/// Counts how often it is asked, and answers with the count.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl Handler<Tagged<Text>> for Counting {
    fn handle(
        &self,
        _: &str,
        context: &Context,
        reply: &mut Reply<'_, Tagged<Text>>,
    ) -> Result<(), ReplyError> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let identity = context.identity().cloned();
        reply.send(&format_args!("{count} {identity:?}"))
    }
}

#[test]
fn a_remembered_response_is_not_sent_to_another_identity_and_is_to_the_same() {
    let net = SimNet::seeded(5);
    let counting = Counting::default();
    let once = Dedup::new(counting.clone(), |text: &&str| Some((*text).to_owned()));
    let core = ServerCore::new(Tagged(Text), once);
    let server = Hosted::new(&net, builder(5).engine().unwrap(), core);
    for (identity, count) in [("lamp-1", 1), ("lamp-2", 2), ("lamp-1", 2), ("lamp-2", 2)] {
        ask_and_vanish(&net, identity);
        assert_eq!(counting.0.load(Ordering::Relaxed), count, "{identity}");
    }
    let stats = server.stats();
    // Each was answered by the association that asked.
    assert_eq!((stats.payloads, stats.sent, stats.superseded), (4, 4, 0));
    assert_eq!((stats.established, stats.replaced), (4, 3));
}

#[test]
fn a_client_takes_no_response_from_a_former_association() {
    let net = SimNet::seeded(6);
    let core = ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase()));
    let server = Hosted::new(&net, builder(6).engine().unwrap(), core);
    let tap = crate::support::Tap::new(net.clone());
    let connector = config("lamp-1").connector(tap.clone(), &Tagged(Text));
    let mut client = Client::new(connector.unwrap(), Tagged(Text), server_addr());
    assert_eq!(client.request("one").unwrap(), "ONE");
    let response = tap.passed().into_iter().rfind(|one| !one.is_sent).unwrap();
    // The server forgets it, and the client shakes hands again.
    let now: Timestamp = net.now();
    let mut node = server.0.lock().unwrap();
    let mut outbox = node.engine().outbox();
    node.engine_mut().close_all(now, &mut outbox);
    drop(node);
    for closing in outbox.iter() {
        net.inject(server_addr(), closing.peer, closing.bytes);
    }
    net.inject(server_addr(), response.client, &response.bytes);
    assert_eq!(client.request("two").unwrap(), "TWO");
    net.inject(server_addr(), response.client, &response.bytes);
    assert_eq!(client.request("three").unwrap(), "THREE");
    assert_eq!(server.stats().established, 2);
}
