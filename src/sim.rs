//! A network in memory, in virtual time.

mod clock;
mod conditions;
mod connect;
mod endpoint;
mod flight;
mod groups;
mod link;
mod node;
mod ports;
mod rng;
mod script;
mod state;
#[cfg(feature = "tokio")]
mod tasks;
mod trace;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::endpoint::SimTransport;
use self::flight::Kind;
pub use self::link::{AboveMtu, Link};
use self::node::Host;
pub use self::node::Node;
pub use self::script::{Fault, Script, ScriptError};
use self::state::{Endpoint, Queue, State};
pub use self::trace::{PacketFate, Trace, TraceEvent};
use crate::transport::{Inbox, MAX_DATAGRAM_BYTES, Outbox};

/// A network in memory, with any number of machines and endpoints, for tests without a socket, a
/// thread or a sleep.
///
/// Time is virtual: it passes only while an endpoint waits, and then at once. A blocking
/// [`recv`](crate::Transport::recv) advances the simulation, event by event: datagrams in flight
/// arrive and [hosted](Self::host) nodes answer. It returns when a datagram arrives for its
/// endpoint or its wait is over. A clone is another handle of the same network.
///
/// Memory: at most 1,048,576 datagrams are in flight, and 4,096 wait at each endpoint that does not
/// receive; further ones are lost, and the trace [records](PacketFate) them. Besides, each pair of
/// addresses between which something was sent is remembered for ever.
///
/// What has a loop of its own does not belong on a thread beside it: a
/// [`Server`](crate::Server) over an endpoint waits without end, so that it would drive the virtual
/// time on for ever. [Host](Self::host) its [`ServerCore`](crate::sans_io::ServerCore) instead.
///
/// A new network is perfect. [Links](Link) make it as bad as you like, by chance that follows from
/// a seed; a [script](Script) does something to single datagrams. The same seed, the same script
/// and the same calls give the same bytes at the same virtual times, and the same
/// [trace](Self::trace). (Calls from several threads come in no particular order: use one.)
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::{Link, SimNet};
/// use rejoinder::Client;
/// use std::time::Duration;
///
/// let net = SimNet::seeded(7);
/// net.set_link(Link::new().loss(0.3).latency(Duration::from_millis(20)))?;
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(
///     server,
///     ServerCore::new(Text, |text: &str| Some(text.to_uppercase())),
/// )?;
///
/// let mut client = Client::new(net.clone(), Text, server);
/// assert_eq!(client.request("quiet")?, "QUIET");
/// println!("{}", net.trace());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SimNet {
    state: Arc<Mutex<State>>,
    /// Where connections are opened from.
    home: Option<IpAddr>,
}

impl SimNet {
    /// An empty network. Its clock begins at 2000-01-01 00:00:00 UTC.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let now = SimNet::new().now();
    /// assert_eq!(now.monotonic, Duration::ZERO);
    /// assert_eq!(
    ///     now.wall,
    ///     SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800)
    /// );
    /// ```
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// An empty network whose chance follows from `seed`.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    ///
    /// // It shows itself as the code that makes it again.
    /// assert_eq!(format!("{:?}", SimNet::seeded(7)), "SimNet::seeded(0x7)");
    /// ```
    pub fn seeded(seed: u64) -> Self {
        Self::scripted(seed, Script::default())
    }

    /// An empty network that does to single datagrams what the script says.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// let net = SimNet::scripted(0, "1 lose".parse()?);
    /// let server = "10.0.0.1:9999".parse()?;
    /// net.host(
    ///     server,
    ///     ServerCore::new(Text, |text: &str| Some(text.to_owned())),
    /// )?;
    /// assert_eq!(
    ///     Client::new(net.clone(), Text, server).request("again")?,
    ///     "again"
    /// );
    /// // The request that was lost, the one that was not, and the answer.
    /// assert_eq!(net.trace().total(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scripted(seed: u64, script: Script) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(seed, script))),
            home: None,
        }
    }

    /// Runs a test on this network. If it panics, so does this, with the latest part of the trace
    /// and the line that makes the same network again. A test that returns an error has not
    /// panicked, and its error is returned as it is: `unwrap` it within, or assert there with
    /// `assert!` rather than with what returns (as proptest's `prop_assert!` does).
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    ///
    /// for seed in 0..100 {
    ///     SimNet::seeded(seed).run(|net| {
    ///         assert_eq!(net.trace().total(), 0);
    ///     });
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// If the test does.
    pub fn run<R>(&self, test: impl FnOnce(&Self) -> R) -> R {
        // The network is shown once more, and the rest is the test's own affair.
        panic::catch_unwind(AssertUnwindSafe(|| test(self))).unwrap_or_else(|panic| {
            let trace = self.trace();
            let shown = trace.events().len().min(SHOWN_EVENTS);
            let events: Vec<_> = trace
                .events()
                .skip(trace.events().len() - shown)
                .map(TraceEvent::to_string)
                .collect();
            panic!(
                "{}\nthe last {shown} of {} events:\n{}\ntrace {:#018x}\n\
                 the same network again: let net = {self:?};",
                message(&*panic),
                trace.total(),
                events.join("\n"),
                trace.hash(),
            )
        })
    }

    /// Another handle of this network, whose [connections](crate::transport::Connect::connect) leave from the machine
    /// with this address. Without it they leave from 10.255.255.254, or from `fd00::fffe` for an
    /// IPv6 peer.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::transport::Connect;
    /// use rejoinder::Transport;
    ///
    /// let net = SimNet::new();
    /// let home = "10.0.0.2".parse()?;
    /// let endpoint = net.from_host(home).connect("10.0.0.1:9999".parse()?)?;
    /// assert_eq!(endpoint.local_addr()?.ip(), home);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn from_host(&self, host: IpAddr) -> Self {
        Self {
            state: Arc::clone(&self.state),
            home: Some(host),
        }
    }

    /// Opens an endpoint. Port 0 means any free port.
    ///
    /// Fails if the IP address is unspecified (an endpoint lives on one machine here) or the
    /// address is taken.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    ///
    /// let net = SimNet::new();
    /// let addr = "10.0.0.1:9999".parse()?;
    /// let endpoint = net.bind(addr)?;
    /// assert!(net.bind(addr).is_err());
    /// drop(endpoint);
    /// assert!(net.bind(addr).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind(&self, addr: SocketAddr) -> io::Result<SimTransport> {
        self.open(addr, None)
    }

    /// Lets a node live at an address for as long as the network exists. Fails as
    /// [`bind`](Self::bind) does.
    ///
    /// A node that owns a handle of the network would keep it for ever, and the network the node: let it
    /// have a [`Weak`](std::sync::Weak) of an `Arc<SimNet>`.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let server = "10.0.0.1:9999".parse()?;
    /// let core = ServerCore::new(Text, |text: &str| Some(text.to_owned()));
    /// let core = Arc::new(Mutex::new(core)); // to look at its counters afterwards
    /// net.host(server, Arc::clone(&core))?;
    ///
    /// net.inject("10.0.0.2:40000".parse()?, server, b"hello");
    /// net.advance(Duration::from_secs(1));
    /// assert_eq!(core.lock().map(|core| core.stats().replied).ok(), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn host(&self, addr: SocketAddr, node: impl Node + Send + 'static) -> io::Result<()> {
        let host = Box::new(Host {
            node: Box::new(node),
            inbox: Inbox::new(1, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(64, MAX_DATAGRAM_BYTES),
        });
        lock(&self.state).open(addr, Endpoint::Host(Some(host)))?;
        Ok(())
    }

    /// Sends a datagram with a forged source.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::transport::Inbox;
    /// use rejoinder::{Transport, Wait};
    ///
    /// let net = SimNet::new();
    /// let mut victim = net.bind("10.0.0.1:9999".parse()?)?;
    /// let forged = "192.0.2.66:53".parse()?;
    /// net.inject(forged, victim.local_addr()?, b"from me, honestly");
    ///
    /// let mut inbox = Inbox::new(1, 512);
    /// victim.recv(&mut inbox, Wait::Forever)?;
    /// assert_eq!(inbox.pop().map(|datagram| datagram.meta.peer), Some(forged));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        // A forged source receives no errors.
        let mut state = lock(&self.state);
        let _ = state.launch(from, to, bytes, Kind::Datagram);
        #[cfg(feature = "tokio")]
        state.wake_all();
    }

    /// What became of the datagrams so far.
    pub fn trace(&self) -> Trace {
        lock(&self.state).trace.clone()
    }

    fn open(&self, addr: SocketAddr, peer: Option<SocketAddr>) -> io::Result<SimTransport> {
        let queue = Endpoint::Queue(Queue {
            peer,
            refused: false,
            flights: VecDeque::new(),
        });
        let addr = lock(&self.state).open(addr, queue)?;
        Ok(SimTransport {
            net: self.clone(),
            addr,
        })
    }
}

impl Default for SimNet {
    fn default() -> Self {
        Self::new()
    }
}

/// As the expression that makes such a network.
impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        let (seed, script) = (state.seed, &state.script);
        if script.faults().is_empty() {
            write!(f, "SimNet::seeded({seed:#x})")
        } else {
            write!(f, "SimNet::scripted({seed:#x}, {script:?})")
        }
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}

/// A panic in a node leaves the network in order: the lock is never held while one runs.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many events are shown when a test fails.
const SHOWN_EVENTS: usize = 64;
