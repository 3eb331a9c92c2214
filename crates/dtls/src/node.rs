//! A DTLS server on a simulated network.

use std::fmt;

use rejoinder::Timestamp;
use rejoinder::gate::Gate;
use rejoinder::sim::Node;
use rejoinder::transport::{Inbox, MAX_DATAGRAM_BYTES, Outbox, SendReport};

use crate::driver::push;
use crate::engine::Engine;
use crate::stats::DtlsStats;

/// A node of a [`SimNet`](rejoinder::sim::SimNet) behind DTLS: what [`Dtls`](crate::Dtls) is for
/// transports.
///
/// A hosted node has no timers. It repeats what a peer repeats, and forgets what is too old when the next
/// datagram arrives.
///
/// ```
/// use rejoinder::Client;
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder_dtls::{ClientConfig, Dtls, DtlsNode};
///
/// let net = SimNet::seeded(7);
/// let server = "10.0.0.1:5684".parse()?;
/// let engine = Dtls::builder().psk(|_: &[u8]| Some(vec![7; 16])).insecure_seed(7).engine()?;
/// let core = ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase()));
/// net.host(server, DtlsNode::new(engine, core))?;
///
/// let connector = ClientConfig::psk("me", [7; 16]).insecure_seeds().connector(net, &Tagged(Text))?;
/// let mut client = Client::new(connector, Tagged(Text), server);
/// assert_eq!(client.request("quiet")?, "QUIET");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DtlsNode<N, G: Gate = ()> {
    node: N,
    engine: Engine<G>,
    inbox: Inbox,
    outbox: Outbox,
}

impl<N: Node, G: Gate> DtlsNode<N, G> {
    /// A node behind an engine.
    pub fn new(engine: Engine<G>, node: N) -> Self {
        Self {
            engine,
            node,
            inbox: Inbox::new(1, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(64, MAX_DATAGRAM_BYTES),
        }
    }

    /// What the engine has counted.
    pub fn stats(&self) -> &DtlsStats {
        self.engine.stats()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<G> {
        &self.engine
    }

    /// The engine, to [close](Engine::close) associations, say.
    pub fn engine_mut(&mut self) -> &mut Engine<G> {
        &mut self.engine
    }

    /// The node inside.
    pub fn node(&self) -> &N {
        &self.node
    }
}

impl<N: Node, G: Gate> Node for DtlsNode<N, G> {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        let Self {
            node,
            engine,
            inbox: payloads,
            outbox: responses,
        } = self;
        engine.on_timer(now, outbox);
        while let Some(datagram) = inbox.pop() {
            let mut deliver = |payload: crate::Delivered<'_>| {
                push(payloads, payload.bytes, payload.meta, payload.identity);
                while !payloads.is_empty() {
                    node.receive(now, payloads, responses);
                }
            };
            engine.receive(now, &datagram, outbox, &mut deliver);
            let mut report = SendReport::default();
            for response in responses.iter() {
                let (peer, egress) = (response.peer, response.egress);
                let sent = engine.send(now, peer, egress, response.bytes, outbox);
                match sent {
                    Ok(()) => report.sent += 1,
                    Err(error) => report.record_failure(error.into()),
                }
            }
            responses.clear();
            node.on_sent(&report);
        }
    }
}

impl<N, G: Gate> fmt::Debug for DtlsNode<N, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsNode")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
