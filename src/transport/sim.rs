//! A network in memory, in virtual time.

mod dice;
mod link;
mod script;
mod trace;

use std::any::Any;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::dice::Dice;
pub use self::link::{AboveMtu, Link};
pub use self::script::{Fault, Script, ScriptError};
pub use self::trace::{PacketFate, Trace, TraceEvent};
use super::batch::{Datagram, Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use super::{Connect, Sent, Transport, Wait};
use crate::clock::Now;

/// A network in memory, with any number of machines and endpoints, for tests without a socket, a
/// thread or a sleep.
///
/// Time is virtual: it passes only while an endpoint waits, and then at once. Whoever waits in
/// [`Transport::recv`] makes the network go on: datagrams in flight arrive, [hosted](Self::host)
/// nodes answer, until something arrives for the one who waits or its wait is over. A clone is
/// another handle of the same network.
///
/// Memory: at most 1,048,576 datagrams are in flight, and 4,096 wait at each endpoint that does not
/// receive; the trace [tells](PacketFate) which more were lost.
///
/// What has a loop of its own does not belong on a thread beside it: a
/// [`Server`](crate::Server) over an endpoint waits without end, so that it would drive the virtual
/// time on for ever. [Host](Self::host) its [`ServerCore`](crate::ServerCore) instead.
///
/// A new network is perfect. [Links](Link) make it as bad as you like, by chance that follows from
/// a seed; a [script](Script) does something to single datagrams. The same seed, the same script
/// and the same calls give the same bytes at the same virtual times, and the same
/// [trace](Self::trace). (Calls from several threads come in no particular order: use one.)
///
/// ```
/// use rejoinder::{Client, Link, ServerCore, SimNet, Text};
/// use std::time::Duration;
///
/// let net = SimNet::seeded(7);
/// net.set_link(Link::new().loss(0.3).latency(Duration::from_millis(20)));
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
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

/// Something that lives on the network without a thread of its own: it acts when datagrams arrive.
///
/// [`ServerCore`](crate::ServerCore) is one. So is an `Arc<Mutex<_>>` of one, for a test that looks
/// at its counters later, and so is a closure that takes a [`Now`], a [`Datagram`] and an
/// [`Outbox`] for what it sends.
pub trait Node {
    /// Takes what is in the inbox, and queues what it answers.
    ///
    /// It is called again with the same inbox for as long as anything is left in it, so a node may
    /// stop when the outbox is full, but not for ever.
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox);

    /// Learns what became of the outbox.
    fn sent(&mut self, sent: &Sent) {
        let _ = sent;
    }
}

impl<N: Node> Node for Arc<Mutex<N>> {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        lock(self).receive(now, inbox, outbox);
    }

    fn sent(&mut self, sent: &Sent) {
        lock(self).sent(sent);
    }
}

impl<F: FnMut(Now, Datagram<'_>, &mut Outbox)> Node for F {
    fn receive(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) {
        if let Some(datagram) = inbox.pop() {
            self(now, datagram, outbox);
        }
    }
}

impl SimNet {
    /// An empty network. Its clock begins at 2000-01-01 00:00:00 UTC.
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// An empty network whose chance follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self::scripted(seed, Script::default())
    }

    /// An empty network that does to single datagrams what the script says.
    pub fn scripted(seed: u64, script: Script) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                seed,
                script,
                entropy: Dice::new(dice::mix(!seed)),
                elapsed: Duration::ZERO,
                wall: SystemTime::UNIX_EPOCH + YEAR_2000,
                wall_set: Duration::ZERO,
                in_flight: BinaryHeap::new(),
                launched: 0,
                numbered: 0,
                arrived: 0,
                link: Link::new(),
                directions: HashMap::new(),
                endpoints: HashMap::new(),
                ports: HashMap::new(),
                spare: Vec::new(),
                trace: Trace::default(),
            })),
            home: None,
        }
    }

    /// Runs a test on this network. If it panics, so does this, with the latest part of the trace
    /// and the line that makes the same network again. A test that returns an error has not
    /// panicked, and its error is returned as it is: `unwrap` it within, or assert there with
    /// `assert!` rather than with what returns (as proptest's `prop_assert!` does).
    ///
    /// ```
    /// use rejoinder::SimNet;
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
    #[must_use]
    pub fn at(&self, home: IpAddr) -> Self {
        Self {
            state: Arc::clone(&self.state),
            home: Some(home),
        }
    }

    /// Opens an endpoint. Port 0 means any free port.
    ///
    /// Fails if the IP address is unspecified (an endpoint lives on one machine here) or the
    /// address is taken.
    pub fn bind(&self, addr: SocketAddr) -> io::Result<SimTransport> {
        self.open(addr, None)
    }

    /// Lets a node live at an address for as long as the network exists. Fails as [`bind`](Self::bind) does.
    ///
    /// A node that owns a handle of the network would keep it for ever, and the network the node: let it
    /// have a [`Weak`](std::sync::Weak) of an `Arc<SimNet>`.
    pub fn host(&self, addr: SocketAddr, node: impl Node + Send + 'static) -> io::Result<()> {
        let host = Box::new(Host {
            node: Box::new(node),
            inbox: Inbox::new(1, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(64, MAX_DATAGRAM_BYTES),
        });
        lock(&self.state).open(addr, Endpoint::Host(Some(host)))?;
        Ok(())
    }

    /// Puts a datagram on the way that names whomever you like as its sender, as anybody on the
    /// Internet can.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        // Whoever forges does not listen for errors.
        let _ = lock(&self.state).launch(from, to, bytes, Kind::Datagram);
    }

    /// Makes every direction between two machines such a link, but for those with a
    /// [link of their own](Self::set_link_between). What is in flight already is not changed.
    pub fn set_link(&self, link: Link) {
        lock(&self.state).link = link;
    }

    /// Gives one direction between two machines a link of its own.
    pub fn set_link_between(&self, from: IpAddr, to: IpAddr, link: Link) {
        lock(&self.state).direction(from, to).link = Some(link);
    }

    /// Cuts two machines off from each other, in both directions. What is in flight still arrives.
    pub fn partition(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, true);
    }

    /// Ends a [partition](Self::partition).
    pub fn heal(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, false);
    }

    /// The virtual time.
    pub fn now(&self) -> Now {
        lock(&self.state).now()
    }

    /// Lets time pass: whatever is due meanwhile arrives.
    ///
    /// # Panics
    ///
    /// If 250,000 datagrams arrive at one moment, because nodes answer each other without end
    /// and without latency.
    pub fn advance(&self, time: Duration) {
        let end = lock(&self.state).elapsed.saturating_add(time);
        let mut storm = Storm::default();
        while self.step(end) {
            storm.watch(self);
        }
        lock(&self.state).pass_until(end);
    }

    /// Sets the civil clock, forwards or back, as an administrator or NTP does. It goes on from
    /// there; the monotonic clock does not notice.
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
            host.node.sent(&sent);
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

    /// Opens an endpoint on a free port of [the machine](SimNet::at) that this handle stands for.
    /// Datagrams from others than the peer are delivered to it too, so that clients are seen to
    /// check.
    fn connect(&self, peer: SocketAddr) -> io::Result<SimTransport> {
        let home = self.home.unwrap_or(match peer {
            SocketAddr::V4(_) => IpAddr::from([10, 255, 255, 254]),
            SocketAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xfffe]),
        });
        self.open(SocketAddr::new(home, 0), Some(peer))
    }

    fn now(&self) -> Now {
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

/// An endpoint of a [`SimNet`]. Dropping it frees its address.
#[derive(Debug)]
pub struct SimTransport {
    net: SimNet,
    addr: SocketAddr,
}

impl Transport for SimTransport {
    /// Waiting [for ever](Wait::Forever) while nothing is in flight would never end: it is an
    /// error of the kind [`ErrorKind::Deadlock`].
    ///
    /// # Panics
    ///
    /// As [`SimNet::advance`] does.
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        let end = lock(&self.net.state).end_of(wait);
        let mut received = 0;
        let mut storm = Storm::default();
        loop {
            let mut state = lock(&self.net.state);
            received += state.receive(self.addr, inbox, received > 0)?;
            // What arrives at the same moment still belongs to the batch.
            let end = if received > 0 { state.elapsed } else { end };
            drop(state);
            if received > 0 && !inbox.has_space() {
                return Ok(received);
            }
            if !self.net.step(end) {
                if received == 0 {
                    self.net.wait_in_vain(wait, end)?;
                }
                return Ok(received);
            }
            storm.watch(&self.net);
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
        let mut state = lock(&self.net.state);
        state.endpoints.remove(&self.addr);
        state
            .ports
            .entry(self.addr.ip())
            .or_default()
            .give_back(self.addr.port());
    }
}

struct State {
    seed: u64,
    script: Script,
    entropy: Dice,
    /// Since the network began.
    elapsed: Duration,
    /// What the civil clock was set to, and when.
    wall: SystemTime,
    wall_set: Duration,
    in_flight: BinaryHeap<Reverse<Flight>>,
    /// Copies put in flight so far.
    launched: u64,
    /// Datagrams sent so far.
    numbered: u64,
    /// Datagrams and errors that reached an endpoint so far.
    arrived: u64,
    link: Link,
    directions: HashMap<(IpAddr, IpAddr), Direction>,
    endpoints: HashMap<SocketAddr, Endpoint>,
    /// The ephemeral ports of each machine.
    ports: HashMap<IpAddr, Ports>,
    /// Buffers for datagrams to come.
    spare: Vec<Vec<u8>>,
    trace: Trace,
}

/// The ephemeral ports of a machine.
#[derive(Default)]
struct Ports {
    /// How many were given out at least once.
    used: u16,
    /// Those of them that were given back.
    free: BTreeSet<u16>,
}

impl Ports {
    /// The lowest that is not given out, unless somebody asked for it by its number.
    fn next(&mut self) -> Option<u16> {
        self.free.pop_first().or_else(|| {
            let port = FIRST_EPHEMERAL_PORT.checked_add(self.used)?;
            self.used += 1;
            Some(port)
        })
    }

    fn give_back(&mut self, port: u16) {
        if port
            .checked_sub(FIRST_EPHEMERAL_PORT)
            .is_some_and(|index| index < self.used)
        {
            self.free.insert(port);
        }
    }
}

#[derive(Default)]
struct Direction {
    link: Option<Link>,
    partitioned: bool,
    /// Datagrams sent in this direction so far.
    sent: u64,
    /// When the datagrams that the link is busy with, or will be, have left.
    departures: VecDeque<Duration>,
}

enum Endpoint {
    Queue(Queue),
    /// `None` while the node is at work.
    Host(Option<Box<Host>>),
}

struct Queue {
    /// The one peer of a connected endpoint.
    peer: Option<SocketAddr>,
    /// Whether the peer turned out not to be there.
    refused: bool,
    flights: VecDeque<Flight>,
}

struct Host {
    node: Box<dyn Node + Send>,
    inbox: Inbox,
    outbox: Outbox,
}

/// A copy of a datagram on its way.
struct Flight {
    due: Duration,
    /// Which copy of all, so that what is due at the same time arrives in the order of sending.
    copy: u64,
    number: u64,
    sent: Duration,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
    kind: Kind,
    corrupted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Datagram,
    PortUnreachable,
}

impl Flight {
    fn meta(&self) -> Meta {
        Meta::new(self.from).to(self.to.ip())
    }

    fn event(&self, ended: Duration, fate: PacketFate) -> TraceEvent {
        TraceEvent {
            number: self.number,
            sent: self.sent,
            ended,
            from: self.from,
            to: self.to,
            bytes: self.bytes.len(),
            fate,
        }
    }

    fn key(&self) -> (Duration, u64) {
        (self.due, self.copy)
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl State {
    fn now(&self) -> Now {
        let passed = self.elapsed.saturating_sub(self.wall_set);
        // At the end of time, where the longest wait leads, the civil clock has stopped.
        let wall = self.wall.checked_add(passed).unwrap_or(self.wall);
        Now::new(self.elapsed, wall)
    }

    /// Time never goes back: a node may have let it pass meanwhile.
    fn pass_until(&mut self, time: Duration) {
        self.elapsed = self.elapsed.max(time);
    }

    fn end_of(&self, wait: Wait) -> Duration {
        match wait {
            Wait::No => self.elapsed,
            Wait::For(time) | Wait::Spin(time) => self.elapsed.saturating_add(time),
            Wait::Forever => Duration::MAX,
        }
    }

    fn direction(&mut self, from: IpAddr, to: IpAddr) -> &mut Direction {
        self.directions.entry((from, to)).or_default()
    }

    fn open(&mut self, mut addr: SocketAddr, endpoint: Endpoint) -> io::Result<SocketAddr> {
        if addr.ip().is_unspecified() {
            return Err(io::Error::new(
                ErrorKind::AddrNotAvailable,
                "a simulated endpoint needs an IP address of its own",
            ));
        }
        if addr.port() == 0 {
            // The lowest that is free, so that whoever relies on a port that he gave back is found
            // out at once.
            let ports = self.ports.entry(addr.ip()).or_default();
            while let Some(port) = ports.next() {
                addr.set_port(port);
                if !self.endpoints.contains_key(&addr) {
                    break;
                }
            }
            if addr.port() == 0 {
                return Err(ErrorKind::AddrInUse.into());
            }
        }
        if self.endpoints.contains_key(&addr) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.endpoints.insert(addr, endpoint);
        Ok(addr)
    }

    fn send(&mut self, from: SocketAddr, outbox: &Outbox) -> Sent {
        let mut sent = Sent::default();
        for datagram in outbox.iter() {
            match self.launch(from, datagram.peer, datagram.bytes, Kind::Datagram) {
                Ok(()) => sent.datagrams += 1,
                Err(error) => {
                    sent.failed += 1;
                    sent.error = Some(error);
                }
            }
        }
        sent
    }

    /// Decides what becomes of a datagram.
    fn launch(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        kind: Kind,
    ) -> io::Result<()> {
        if to.port() == 0 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "nobody can have port 0",
            ));
        }
        let (now, seed, default) = (self.elapsed, self.seed, self.link);
        let direction = self.direction(from.ip(), to.ip());
        let link = direction.link.unwrap_or(default);
        let fragments = link.fragments(to.ip(), bytes.len());
        let above = link.mtu.filter(|_| fragments > 1).map(|(_, above)| above);
        if above == Some(AboveMtu::Refuse) {
            return Err(io::Error::other("the datagram is longer than the MTU"));
        }

        // Always the same throws, so that a change of the link's numbers moves no others.
        let mut dice = Dice::of_datagram(seed, from.ip(), to.ip(), direction.sent);
        direction.sent += 1;
        let all_fragments = i32::try_from(fragments).unwrap_or(i32::MAX);
        let lost = dice.happens(1.0 - (1.0 - link.loss).powi(all_fragments));
        let duplicated = dice.happens(link.duplication);
        let corrupted = dice.happens(link.corruption);
        let which_bit = dice.unit();
        let mut delays = [Duration::ZERO; 2].map(|_| {
            let overtaken = dice.happens(link.reordering);
            let hold_up = dice.part_of(link.hold_up);
            let jitter = dice.part_of(link.jitter);
            let hold_up = if overtaken { hold_up } else { Duration::ZERO };
            link.latency.saturating_add(jitter).saturating_add(hold_up)
        });

        let mut fate = lost.then_some(PacketFate::Lost);
        let mut departure = now;
        if direction.partitioned {
            fate = Some(PacketFate::Partitioned);
        } else if above == Some(AboveMtu::Lose) {
            fate = Some(PacketFate::AboveMtu);
        } else if let Some(rate) = link.rate {
            while direction.departures.front().is_some_and(|&at| at <= now) {
                direction.departures.pop_front();
            }
            if direction.departures.len() > rate.queue {
                fate = Some(PacketFate::QueueFull);
            } else {
                let free = direction.departures.back().copied().unwrap_or(now);
                departure = free.saturating_add(rate.time(to.ip(), bytes.len()));
                direction.departures.push_back(departure);
            }
        }

        self.numbered += 1;
        let mut flight = Flight {
            due: Duration::ZERO,
            copy: 0,
            number: self.numbered,
            sent: now,
            from,
            to,
            bytes: self.spare.pop().unwrap_or_default(),
            kind,
            corrupted,
        };
        flight.bytes.extend_from_slice(bytes);
        let mut copies = 1 + usize::from(duplicated);
        for fault in self.script.of(flight.number) {
            match fault {
                Fault::Lose => fate = Some(fate.unwrap_or(PacketFate::Lost)),
                Fault::Duplicate => copies = 2,
                Fault::Corrupt => flight.corrupted = true,
                Fault::Delay(time) => {
                    delays = delays.map(|delay| delay.saturating_add(time));
                }
            }
        }
        if let Some(fate) = fate {
            self.trace.note(flight.event(now, fate), &flight.bytes);
            self.recycle(flight.bytes);
            return Ok(());
        }
        if flight.corrupted {
            flip_bit(&mut flight.bytes, which_bit);
        }
        for &delay in &delays[1..copies] {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.extend_from_slice(&flight.bytes);
            self.put_in_flight(Flight { bytes, ..flight }, departure, delay);
        }
        self.put_in_flight(flight, departure, delays[0]);
        Ok(())
    }

    fn put_in_flight(&mut self, mut flight: Flight, departure: Duration, delay: Duration) {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            let lost = flight.event(self.elapsed, PacketFate::Overflow);
            self.trace.note(lost, &flight.bytes);
            self.recycle(flight.bytes);
            return;
        }
        flight.due = departure.saturating_add(delay);
        flight.copy = self.launched;
        self.launched += 1;
        self.in_flight.push(Reverse(flight));
    }

    /// Gives a datagram to whoever lives where it goes to: to an endpoint at once, to a node if
    /// the caller takes it there.
    fn arrive(&mut self, flight: Flight) -> Option<(Box<Host>, Flight)> {
        let now = self.elapsed;
        let mut to_node = None;
        let fate = match (self.endpoints.get_mut(&flight.to), flight.kind) {
            (Some(Endpoint::Queue(queue)), Kind::PortUnreachable) => {
                queue.refused |= queue.peer == Some(flight.from);
                self.arrived += 1;
                PacketFate::Unreachable
            }
            (_, Kind::PortUnreachable) | (None, Kind::Datagram) => PacketFate::NobodyThere,
            (Some(Endpoint::Queue(queue)), Kind::Datagram) => {
                if queue.flights.len() < QUEUE_DATAGRAMS {
                    self.arrived += 1;
                    let fate = flight.delivered();
                    self.trace.note(flight.event(now, fate), &flight.bytes);
                    queue.flights.push_back(flight);
                    return None;
                }
                PacketFate::ReceiverFull
            }
            (Some(Endpoint::Host(host)), Kind::Datagram) => {
                to_node = host.take();
                // A node that is at work waits for something, further up in the stack.
                match to_node {
                    Some(_) => flight.delivered(),
                    None => PacketFate::ReceiverFull,
                }
            }
        };
        self.trace.note(flight.event(now, fate), &flight.bytes);
        if let Some(host) = to_node {
            return Some((host, flight));
        }
        if fate == PacketFate::NobodyThere && flight.kind == Kind::Datagram {
            let default = self.link;
            let direction = self.direction(flight.from.ip(), flight.to.ip());
            if direction.link.unwrap_or(default).port_unreachable {
                // Fails only for a sender that cannot exist.
                let _ = self.launch(flight.to, flight.from, &[], Kind::PortUnreachable);
            }
        }
        self.recycle(flight.bytes);
        None
    }

    fn is_ready(&self, addr: SocketAddr) -> bool {
        match self.endpoints.get(&addr) {
            Some(Endpoint::Queue(queue)) => queue.refused || !queue.flights.is_empty(),
            _ => false,
        }
    }

    /// Moves what has arrived for an endpoint into an inbox. The error of a connected one comes
    /// first, but not into the middle of a batch.
    fn receive(&mut self, at: SocketAddr, inbox: &mut Inbox, begun: bool) -> io::Result<usize> {
        let Some(Endpoint::Queue(queue)) = self.endpoints.get_mut(&at) else {
            return Ok(0);
        };
        if queue.refused && !begun {
            queue.refused = false;
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let mut received = 0;
        while inbox.has_space()
            && let Some(flight) = queue.flights.pop_front()
        {
            inbox.push(&flight.bytes, flight.meta());
            received += 1;
            if self.spare.len() < SPARE_BUFFERS {
                let mut bytes = flight.bytes;
                bytes.clear();
                self.spare.push(bytes);
            }
        }
        Ok(received)
    }

    fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

impl Flight {
    fn delivered(&self) -> PacketFate {
        if self.corrupted {
            PacketFate::DeliveredCorrupted
        } else {
            PacketFate::Delivered
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a datagram has fewer bits than an f64 counts exactly"
)]
fn flip_bit(bytes: &mut [u8], which: f64) {
    let bit = ((bytes.len() * 8) as f64 * which) as usize;
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
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

/// RFC 6335 §6: the dynamic ports.
const FIRST_EPHEMERAL_PORT: u16 = 49_152;
/// How many datagrams an endpoint holds that nobody receives; more are lost.
const QUEUE_DATAGRAMS: usize = 4_096;
/// How many datagrams are under way on a network; more are lost.
const MAX_IN_FLIGHT: usize = 1 << 20;
const SPARE_BUFFERS: usize = 1_024;
/// How many datagrams may arrive at one moment during one wait.
const STORM_DATAGRAMS: u32 = 250_000;
/// How many events are shown when a test fails.
const SHOWN_EVENTS: usize = 64;
/// 2000-01-01 00:00:00 UTC, since 1970.
const YEAR_2000: Duration = Duration::from_secs(946_684_800);
