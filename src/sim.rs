//! A network in memory, in virtual time.

mod endpoint;
mod flight;
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
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use self::endpoint::SimTransport;
use self::flight::Kind;
pub use self::link::{AboveMtu, Link};
use self::node::Host;
pub use self::node::Node;
pub use self::script::{Fault, Script, ScriptError};
use self::state::{Endpoint, Queue, State};
pub use self::trace::{PacketFate, Trace, TraceEvent};
use crate::config_error::ConfigError;
use crate::timestamp::Timestamp;
use crate::transport::{Connect, Wait, canonical};
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

    /// Another handle of this network, whose [connections](Connect::connect) leave from the machine
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

    /// Lets a machine join a group: what is sent to the address of the group, at any port, reaches the
    /// endpoints of all its members at that port, with [`Meta::delivery`] set to
    /// [`Multicast`](crate::transport::Delivery::Multicast), or to
    /// [`Broadcast`](crate::transport::Delivery::Broadcast) if it is no multicast address. The members'
    /// own address is the [local](crate::transport::Meta::local) one.
    ///
    /// Each member is sent a datagram of its own, over its own link, in the order of joining: scripts and
    /// traces count them all. A sender that is a member receives what it sends, as on real machines. To
    /// join twice changes nothing.
    ///
    /// [`Meta::delivery`]: crate::transport::Meta::delivery
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::transport::{Delivery, Inbox, Outbox};
    /// use rejoinder::{Transport, Wait};
    ///
    /// let net = SimNet::new();
    /// let group = "239.1.2.3".parse()?;
    /// let mut members = [net.bind("10.0.0.1:9999".parse()?)?, net.bind("10.0.0.2:9999".parse()?)?];
    /// for member in &members {
    ///     net.join_group(group, member.local_addr()?.ip());
    /// }
    /// net.inject("10.0.0.3:40000".parse()?, (group, 9999).into(), b"who is there?");
    /// for member in &mut members {
    ///     let mut inbox = Inbox::new(1, 512);
    ///     member.recv(&mut inbox, Wait::Forever)?;
    ///     let received = inbox.pop().expect("a datagram arrived");
    ///     assert_eq!(received.meta.delivery, Delivery::Multicast);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_group(&self, group: IpAddr, member: IpAddr) {
        let (group, member) = (group.to_canonical(), member.to_canonical());
        let mut state = lock(&self.state);
        let members = state.groups.entry(group).or_default();
        if !members.contains(&member) {
            members.push(member);
        }
    }

    /// Lets a machine leave a group. What is in flight still arrives.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    ///
    /// let net = SimNet::new();
    /// let (group, member) = ("239.1.2.3".parse()?, "10.0.0.1".parse()?);
    /// net.join_group(group, member);
    /// net.leave_group(group, member);
    /// net.inject("10.0.0.3:40000".parse()?, (group, 9999).into(), b"who is there?");
    /// assert_eq!(net.trace().total(), 0);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn leave_group(&self, group: IpAddr, member: IpAddr) {
        let mut state = lock(&self.state);
        if let Some(members) = state.groups.get_mut(&group.to_canonical()) {
            members.retain(|one| *one != member.to_canonical());
        }
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

    /// Makes every direction between two machines such a link, but for those with a
    /// [link of their own](Self::set_link_between). What is in flight already is not changed. A setting
    /// of the link out of range is an error.
    ///
    /// ```
    /// use rejoinder::sim::{Link, PacketFate, SimNet};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.set_link(Link::new().loss(1.0))?;
    /// net.inject("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, b"farewell");
    /// net.advance(Duration::from_secs(1));
    /// assert!(
    ///     net.trace()
    ///         .events()
    ///         .all(|event| event.fate == PacketFate::Lost)
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_link(&self, link: Link) -> Result<(), ConfigError> {
        link.check()?;
        lock(&self.state).link = link;
        Ok(())
    }

    /// Gives one direction between two machines a link of its own. A setting of the link out of range
    /// is an error.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::{Link, SimNet};
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let (home, server) = (
    ///     "10.0.0.2".parse()?,
    ///     "10.0.0.1:9999".parse::<std::net::SocketAddr>()?,
    /// );
    /// net.host(
    ///     server,
    ///     ServerCore::new(Text, |text: &str| Some(text.to_owned())),
    /// )?;
    /// // Requests take the long way, answers the short one.
    /// let slow = Link::new().latency(Duration::from_millis(250));
    /// net.set_link_between(home, server.ip(), slow)?;
    /// Client::new(net.from_host(home), Text, server).request("hello?")?;
    /// assert_eq!(net.now().monotonic, Duration::from_millis(250));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_link_between(
        &self,
        from: IpAddr,
        to: IpAddr,
        link: Link,
    ) -> Result<(), ConfigError> {
        link.check()?;
        lock(&self.state).direction(from, to).link = Some(link);
        Ok(())
    }

    /// Cuts two machines off from each other, in both directions. What is in flight still arrives.
    ///
    /// ```
    /// use rejoinder::sim::{PacketFate, SimNet};
    /// use std::net::IpAddr;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse()?, "10.0.0.2".parse()?);
    /// let _endpoint = net.bind((other, 7).into())?;
    /// let fate = || {
    ///     net.inject((one, 7).into(), (other, 7).into(), b"are you there?");
    ///     net.advance(Duration::from_secs(1));
    ///     net.trace().events().last().map(|event| event.fate)
    /// };
    /// net.partition(one, other);
    /// assert_eq!(fate(), Some(PacketFate::Partitioned));
    /// net.heal(one, other);
    /// assert_eq!(fate(), Some(PacketFate::Delivered));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn partition(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, true);
    }

    /// Ends a [partition](Self::partition).
    pub fn heal(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, false);
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        lock(&self.state).now()
    }

    /// Lets time pass: whatever is due meanwhile arrives.
    ///
    /// # Panics
    ///
    /// If 250,000 datagrams arrive at one moment, because nodes answer each other without end
    /// and without latency.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.advance(Duration::from_secs(86_400)); // takes no time
    /// assert_eq!(net.now().monotonic, Duration::from_secs(86_400));
    /// ```
    pub fn advance(&self, time: Duration) {
        let end = lock(&self.state).elapsed.saturating_add(time);
        let mut storm = Storm::default();
        while self.step(end) {
            storm.watch(self);
        }
        lock(&self.state).pass_until(end);
    }

    /// Sets the wall clock, forwards or back, as an administrator or NTP does. It goes on from
    /// there; the monotonic clock does not notice.
    ///
    /// ```
    /// use rejoinder::sim::SimNet;
    /// use std::time::{Duration, SystemTime};
    ///
    /// let net = SimNet::new();
    /// net.set_wall_clock(SystemTime::UNIX_EPOCH);
    /// net.advance(Duration::from_secs(1));
    /// assert_eq!(
    ///     net.now().wall,
    ///     SystemTime::UNIX_EPOCH + Duration::from_secs(1)
    /// );
    /// ```
    pub fn set_wall_clock(&self, wall: SystemTime) {
        let mut state = lock(&self.state);
        state.wall = wall;
        state.wall_set = state.elapsed;
    }

    /// What became of the datagrams so far.
    pub fn trace(&self) -> Trace {
        lock(&self.state).trace.clone()
    }

    fn set_partitioned(&self, one: IpAddr, other: IpAddr, partitioned: bool) {
        let mut state = lock(&self.state);
        state.direction(one, other).partitioned = partitioned;
        state.direction(other, one).partitioned = partitioned;
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

    /// Lets the next datagram arrive, if it does so by `end`. Returns whether one did.
    fn step(&self, end: Duration) -> bool {
        let mut state = lock(&self.state);
        if state
            .in_flight
            .peek()
            .is_none_or(|Reverse(next)| next.due > end)
        {
            return false;
        }
        let Some(Reverse(flight)) = state.in_flight.pop() else {
            return false;
        };
        state.pass_until(flight.due);
        let now = state.now();
        let Some((mut host, flight)) = state.arrive(flight) else {
            return true;
        };
        // The node may use the network itself.
        drop(state);
        host.inbox.push(&flight.bytes, flight.meta());
        while !host.inbox.is_empty() {
            host.node.receive(now, &mut host.inbox, &mut host.outbox);
            let sent = lock(&self.state).send(flight.to, &host.outbox);
            host.node.on_sent(&sent);
            host.outbox.clear();
        }
        let mut state = lock(&self.state);
        state.recycle(flight.bytes);
        state
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

impl Connect for SimNet {
    type Transport = SimTransport;

    /// Opens an endpoint on a free port of [the machine](SimNet::from_host) that this handle stands for.
    /// Datagrams from others than the peer are delivered to it too, so that clients are seen to
    /// check.
    fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
        let peer = canonical(peer);
        let home = self.home.unwrap_or(match peer {
            SocketAddr::V4(_) => IpAddr::from([10, 255, 255, 254]),
            SocketAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xfffe]),
        });
        self.open(SocketAddr::new(home, 0), Some(peer))
    }

    fn now(&self) -> Timestamp {
        self.now()
    }

    /// Bytes that follow from the seed.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        for part in bytes.chunks_mut(8) {
            let word = state.entropy.next().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        Ok(())
    }

    fn wait_any(
        &self,
        transports: &[&SimTransport],
        wait: Wait,
        ready: &mut Vec<usize>,
    ) -> io::Result<()> {
        let end = lock(&self.state).end_of(wait);
        let mut storm = Storm::default();
        loop {
            let state = lock(&self.state);
            let arrived = state.arrived;
            ready.extend(
                (0..transports.len()).filter(|&index| state.is_ready(transports[index].addr)),
            );
            drop(state);
            if !ready.is_empty() {
                return Ok(());
            }
            // What arrives at one moment is found together.
            let mut end_of_moment = end;
            while self.step(end_of_moment) {
                storm.watch(self);
                let state = lock(&self.state);
                if state.arrived != arrived {
                    end_of_moment = state.elapsed;
                }
            }
            if lock(&self.state).arrived == arrived {
                return self.wait_in_vain(wait, end);
            }
        }
    }
}

impl SimNet {
    /// Ends a wait in which nothing came.
    fn wait_in_vain(&self, wait: Wait, end: Duration) -> io::Result<()> {
        match wait {
            Wait::Forever => Err(io::Error::new(
                ErrorKind::Deadlock,
                "nothing is in flight, so this wait would never end",
            )),
            Wait::No | Wait::For(_) | Wait::Spin(_) => {
                lock(&self.state).pass_until(end);
                Ok(())
            }
        }
    }
}

/// Watches for nodes that answer each other without end, at one moment of time.
#[derive(Default)]
struct Storm {
    moment: Duration,
    steps: u32,
}

impl Storm {
    fn watch(&mut self, net: &SimNet) {
        let elapsed = lock(&net.state).elapsed;
        if elapsed != self.moment {
            self.moment = elapsed;
            self.steps = 0;
        }
        self.steps += 1;
        assert!(
            self.steps < STORM_DATAGRAMS,
            "250,000 datagrams arrived at one moment: do nodes answer each other without end?"
        );
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

/// How many datagrams may arrive at one moment during one wait.
const STORM_DATAGRAMS: u32 = 250_000;
/// How many events are shown when a test fails.
const SHOWN_EVENTS: usize = 64;
