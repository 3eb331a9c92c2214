//! What the tests have in common.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rejoinder::codec::{Tagged, Text};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Node, SimNet};
use rejoinder::transport::{Connect, Inbox, Outbox, SendReport};
use rejoinder::{Client, Timestamp, Transport, Wait};
use rejoinder_dtls::{ClientConfig, Connector, Dtls, DtlsBuilder, DtlsNode, DtlsStats, Engine};

pub(crate) const KEY: [u8; 16] = *b"0123456789abcdef";
pub(crate) const IDENTITY: &str = "lamp-7";

pub(crate) fn server_addr() -> SocketAddr {
    "10.0.0.1:5684".parse().unwrap()
}

/// A builder that knows one key, and lets every hello in.
pub(crate) fn builder(seed: u64) -> DtlsBuilder<()> {
    Dtls::builder()
        .psk(|identity: &[u8]| (identity == IDENTITY.as_bytes()).then(|| KEY.to_vec()))
        .gate(())
        .insecure_seed(seed)
}

/// A hosted server, to look at afterwards.
pub(crate) struct Hosted<N>(pub(crate) Arc<Mutex<DtlsNode<N>>>);

impl<N: Node + Send + 'static> Hosted<N> {
    pub(crate) fn new(net: &SimNet, engine: Engine, node: N) -> Self {
        let node = Arc::new(Mutex::new(DtlsNode::new(engine, node)));
        net.host(server_addr(), Arc::clone(&node)).unwrap();
        Self(node)
    }

    pub(crate) fn stats(&self) -> DtlsStats {
        self.with(|node| node.stats().clone())
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&DtlsNode<N>) -> R) -> R {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A server that answers `shout` with `SHOUT`.
pub(crate) fn shout(net: &SimNet, engine: Engine) -> Hosted<impl Node + Send + 'static> {
    let core = ServerCore::new(Tagged(Text), |text: &str| Some(text.to_uppercase()));
    Hosted::new(net, engine, core)
}

pub(crate) fn config() -> ClientConfig {
    ClientConfig::psk(IDENTITY, KEY).insecure_seeds()
}

pub(crate) type SimClient = Client<Connector<Tap>, Tagged<Text>>;

pub(crate) fn client(net: &SimNet, config: ClientConfig) -> SimClient {
    client_over(Tap::new(net.clone()), config)
}

pub(crate) fn client_over(tap: Tap, config: ClientConfig) -> SimClient {
    let connector = config.connector(tap, &Tagged(Text)).unwrap();
    Client::new(connector, Tagged(Text), server_addr())
}

/// A network on which every client has one address.
#[derive(Clone, Debug)]
pub(crate) struct OneAddress {
    pub(crate) net: SimNet,
    pub(crate) addr: SocketAddr,
}

impl Connect for OneAddress {
    type Transport = <SimNet as Connect>::Transport;

    fn connect(&self, _: SocketAddr) -> io::Result<Self::Transport> {
        self.net.bind(self.addr)
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        Connect::entropy(&self.net, bytes)
    }

    fn wait_any(
        &self,
        all: &[&Self::Transport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        self.net.wait_any(all, wait, ready)
    }
}

/// A network that remembers what a client sends and receives.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    net: SimNet,
    wire: Wire,
}

pub(crate) type Wire = Arc<Mutex<Vec<Passed>>>;

/// One datagram.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) is_sent: bool,
    pub(crate) client: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Tap {
    pub(crate) fn new(net: SimNet) -> Self {
        Self {
            net,
            wire: Wire::default(),
        }
    }

    pub(crate) fn passed(&self) -> Vec<Passed> {
        self.wire.lock().unwrap().clone()
    }
}

impl Connect for Tap {
    type Transport = Tapped;

    fn connect(&self, peer: SocketAddr) -> io::Result<Tapped> {
        Ok(Tapped {
            inner: self.net.connect(peer)?,
            wire: Arc::clone(&self.wire),
        })
    }

    fn now(&self) -> Timestamp {
        self.net.now()
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        Connect::entropy(&self.net, bytes)
    }

    fn wait_any(&self, all: &[&Tapped], wait: Wait, ready: &mut Vec<usize>) -> io::Result<()> {
        let inner: Vec<_> = all.iter().map(|one| &one.inner).collect();
        self.net.wait_any(&inner, wait, ready)
    }
}

#[derive(Debug)]
pub(crate) struct Tapped {
    inner: <SimNet as Connect>::Transport,
    wire: Wire,
}

impl Transport for Tapped {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let mut all = Inbox::new(64, 65_507);
        let received = self.inner.recv(&mut all, wait)?;
        while let Some(datagram) = all.pop() {
            self.wire.lock().unwrap().push(Passed {
                is_sent: false,
                client: self.inner.local_addr()?,
                bytes: datagram.bytes.to_vec(),
            });
            inbox.push(datagram.bytes, datagram.meta);
        }
        Ok(received)
    }

    fn send(&mut self, outbox: &Outbox) -> SendReport {
        for datagram in outbox.iter() {
            self.wire.lock().unwrap().push(Passed {
                is_sent: true,
                client: self.inner.local_addr().unwrap(),
                bytes: datagram.bytes.to_vec(),
            });
        }
        self.inner.send(outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

/// Whether a datagram has these bytes in it anywhere.
pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
