//! A network in memory, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::batch::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use super::{Connect, Sent, Transport, Wait};
use crate::clock::Now;

/// A network in memory, with any number of endpoints, for tests without a socket, a thread or a
/// sleep.
///
/// Time is virtual: it passes only while an endpoint waits, and then at once. Whoever waits in
/// [`Transport::recv`] makes the network go on: datagrams in flight arrive, [hosted](Self::host)
/// nodes answer, until something arrives for the one who waits or its wait is over. A clone is
/// another handle of the same network.
///
/// No datagram is lost, and they arrive in the order in which they were sent.
///
/// ```
/// use rejoinder::{Client, ServerCore, SimNet, Text};
///
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
/// let mut client = Client::new(net, Text, server);
/// assert_eq!(client.request("quiet")?, "QUIET");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimNet {
    state: Arc<Mutex<State>>,
}

/// Something that lives on the network without a thread of its own: it acts when datagrams arrive.
///
/// [`ServerCore`](crate::ServerCore) is one. So is an `Arc<Mutex<_>>` of one, for a test that looks
/// at its counters later.
pub trait Node {
    /// Takes what is in the inbox, and queues what it answers.
    ///
    /// It is called again with the same inbox for as long as anything is left in it, so a node may
    /// stop when the outbox is full, but not for ever.
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox);

    /// Learns what became of the outbox.
    fn sent(&mut self, sent: &Sent);
}

impl<N: Node> Node for Arc<Mutex<N>> {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        lock(self).receive(now, inbox, outbox);
    }

    fn sent(&mut self, sent: &Sent) {
        lock(self).sent(sent);
    }
}

impl SimNet {
    /// An empty network. Its clock begins at 2000-01-01 00:00:00 UTC.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                elapsed: Duration::ZERO,
                in_flight: VecDeque::new(),
                endpoints: HashMap::new(),
                next_port: FIRST_EPHEMERAL_PORT,
            })),
        }
    }

    /// Opens an endpoint. Port 0 means any free port.
    ///
    /// Fails if the IP address is unspecified (there are no machines here that could have several)
    /// or the address is taken.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<SimTransport> {
        let addr = lock(&self.state).open(addr, Endpoint::Queue(VecDeque::new()))?;
        Ok(SimTransport {
            net: self.clone(),
            addr,
        })
    }

    /// Lets a node live at an address for as long as the network exists. Fails as [`bind`](Self::bind) does.
    pub fn host(&self, addr: SocketAddr, node: impl Node + Send + 'static) -> io::Result<()> {
        let host = Box::new(Host {
            node: Box::new(node),
            inbox: Inbox::new(1, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(64, MAX_DATAGRAM_BYTES),
        });
        lock(&self.state).open(addr, Endpoint::Host(Some(host)))?;
        Ok(())
    }

    /// The virtual time.
    pub fn now(&self) -> Now {
        lock(&self.state).now()
    }

    /// Lets the next datagram arrive. Returns whether there was one.
    fn step(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(flight) = state.in_flight.pop_front() else {
            return false;
        };
        let now = state.now();
        let mut host = match state.endpoints.get_mut(&flight.to) {
            // Nobody is there: it is lost.
            None => return true,
            Some(Endpoint::Queue(queue)) => {
                if queue.len() < QUEUE_DATAGRAMS {
                    queue.push_back(flight);
                }
                return true;
            }
            Some(Endpoint::Host(host)) => match host.take() {
                Some(host) => host,
                // The node itself waits for something, further up in this call.
                None => return true,
            },
        };
        // The node may use the network itself.
        drop(state);
        host.inbox.push(&flight.bytes, flight.meta());
        while !host.inbox.is_empty() {
            host.node.receive(now, &mut host.inbox, &mut host.outbox);
            let sent = lock(&self.state).send(flight.to, &host.outbox);
            host.node.sent(&sent);
            host.outbox.clear();
        }
        lock(&self.state)
            .endpoints
            .insert(flight.to, Endpoint::Host(Some(host)));
        true
    }
}

impl Default for SimNet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("SimNet")
            .field("elapsed", &state.elapsed)
            .field("endpoints", &state.endpoints.len())
            .field("in_flight", &state.in_flight.len())
            .finish()
    }
}

impl Connect for SimNet {
    type Transport = SimTransport;

    /// Opens an endpoint on a free port of 10.255.255.254, or of `fd00::fffe` for an IPv6 peer.
    fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
        self.bind(match peer {
            SocketAddr::V4(_) => SocketAddr::from(([10, 255, 255, 254], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 0xfffe], 0)),
        })
    }

    fn now(&self) -> Now {
        self.now()
    }
}

/// An endpoint of a [`SimNet`]. Dropping it frees its address.
#[derive(Debug)]
pub struct SimTransport {
    net: SimNet,
    addr: SocketAddr,
}

impl Transport for SimTransport {
    /// Waiting [for ever](Wait::Forever) while nothing is in flight would never end: it is an
    /// error of the kind [`ErrorKind::Deadlock`].
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        loop {
            let mut received = 0;
            let mut state = lock(&self.net.state);
            if let Some(Endpoint::Queue(queue)) = state.endpoints.get_mut(&self.addr) {
                while inbox.has_space()
                    && let Some(flight) = queue.pop_front()
                {
                    inbox.push(&flight.bytes, flight.meta());
                    received += 1;
                }
            }
            drop(state);
            if received > 0 {
                return Ok(received);
            }
            if !self.net.step() {
                return match wait {
                    Wait::No => Ok(0),
                    Wait::For(time) | Wait::Spin(time) => {
                        lock(&self.net.state).elapsed += time;
                        Ok(0)
                    }
                    Wait::Forever => Err(io::Error::new(
                        ErrorKind::Deadlock,
                        "nothing is in flight, so this wait would never end",
                    )),
                };
            }
        }
    }

    fn send(&mut self, outbox: &Outbox) -> Sent {
        lock(&self.net.state).send(self.addr, outbox)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn now(&self) -> Now {
        self.net.now()
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        lock(&self.net.state).endpoints.remove(&self.addr);
    }
}

struct State {
    /// Since the network began.
    elapsed: Duration,
    in_flight: VecDeque<Flight>,
    endpoints: HashMap<SocketAddr, Endpoint>,
    next_port: u16,
}

enum Endpoint {
    Queue(VecDeque<Flight>),
    /// `None` while the node is at work.
    Host(Option<Box<Host>>),
}

struct Host {
    node: Box<dyn Node + Send>,
    inbox: Inbox,
    outbox: Outbox,
}

/// A datagram on its way.
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Box<[u8]>,
}

impl Flight {
    fn meta(&self) -> Meta {
        Meta::new(self.from).to(self.to.ip())
    }
}

impl State {
    fn now(&self) -> Now {
        Now::new(
            self.elapsed,
            SystemTime::UNIX_EPOCH + YEAR_2000 + self.elapsed,
        )
    }

    fn open(&mut self, mut addr: SocketAddr, endpoint: Endpoint) -> io::Result<SocketAddr> {
        if addr.ip().is_unspecified() {
            return Err(io::Error::new(
                ErrorKind::AddrNotAvailable,
                "a simulated endpoint needs an IP address of its own",
            ));
        }
        if addr.port() == 0 {
            for _ in FIRST_EPHEMERAL_PORT..=u16::MAX {
                addr.set_port(self.next_port);
                self.next_port = self
                    .next_port
                    .checked_add(1)
                    .unwrap_or(FIRST_EPHEMERAL_PORT);
                if !self.endpoints.contains_key(&addr) {
                    break;
                }
            }
        }
        if self.endpoints.contains_key(&addr) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.endpoints.insert(addr, endpoint);
        Ok(addr)
    }

    fn send(&mut self, from: SocketAddr, outbox: &Outbox) -> Sent {
        self.in_flight.extend(outbox.iter().map(|datagram| Flight {
            from,
            to: datagram.peer,
            bytes: datagram.bytes.into(),
        }));
        Sent {
            datagrams: outbox.len(),
            ..Sent::default()
        }
    }
}

/// A panic in a node leaves the network in order: the lock is never held while one runs.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 6335 §6: the dynamic ports.
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
/// How many datagrams an endpoint holds that nobody receives; more are lost.
const QUEUE_DATAGRAMS: usize = 4_096;
/// 2000-01-01 00:00:00 UTC, since 1970.
const YEAR_2000: Duration = Duration::from_secs(946_684_800);
