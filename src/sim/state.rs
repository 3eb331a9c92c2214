use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::flight::{Flight, Kind, flip_bit};
use super::link::{AboveMtu, Link};
use super::node::Host;
use super::ports::Ports;
use super::rng::{Rng, mix};
use super::script::{Fault, Script};
use super::trace::{PacketFate, Trace};
use crate::timestamp::Timestamp;
use crate::transport::{Delivery, Inbox, Outbox, SendReport, Wait, canonical};

/// All that a network is, behind its lock.
pub(super) struct State {
    pub(super) seed: u64,
    pub(super) script: Script,
    pub(super) entropy: Rng,
    /// Since the network began.
    pub(super) elapsed: Duration,
    /// What the wall clock was set to, and when.
    pub(super) wall: SystemTime,
    pub(super) wall_set: Duration,
    pub(super) in_flight: BinaryHeap<Reverse<Flight>>,
    /// Copies put in flight so far.
    launched: u64,
    /// Datagrams sent so far.
    numbered: u64,
    /// Datagrams and errors that reached an endpoint so far.
    pub(super) arrived: u64,
    pub(super) link: Link,
    directions: HashMap<(IpAddr, IpAddr), Direction>,
    pub(super) endpoints: HashMap<SocketAddr, Endpoint>,
    /// The machines that joined each group, in the order of joining.
    pub(super) groups: HashMap<IpAddr, Vec<IpAddr>>,
    /// The ephemeral ports of each machine.
    pub(super) ports: HashMap<IpAddr, Ports>,
    /// Buffers for datagrams to come.
    spare: Vec<Vec<u8>>,
    pub(super) trace: Trace,
    #[cfg(feature = "tokio")]
    pub(super) tasks: super::tasks::Tasks,
}

impl State {
    pub(super) fn new(seed: u64, script: Script) -> Self {
        Self {
            seed,
            script,
            entropy: Rng::new(mix(!seed)),
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
            groups: HashMap::new(),
            ports: HashMap::new(),
            spare: Vec::new(),
            trace: Trace::default(),
            #[cfg(feature = "tokio")]
            tasks: super::tasks::Tasks::default(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        let passed = self.elapsed.saturating_sub(self.wall_set);
        // At the end of time, where the longest wait leads, the wall clock stands still.
        let wall = self.wall.checked_add(passed).unwrap_or(self.wall);
        Timestamp::new(self.elapsed, wall)
    }

    /// Time never goes back: a node may have let it pass meanwhile.
    pub(super) fn pass_until(&mut self, time: Duration) {
        self.elapsed = self.elapsed.max(time);
    }

    pub(super) fn end_of(&self, wait: Wait) -> Duration {
        wait.deadline(self.elapsed)
    }

    pub(super) fn direction(&mut self, from: IpAddr, to: IpAddr) -> &mut Direction {
        let key = (from.to_canonical(), to.to_canonical());
        self.directions.entry(key).or_default()
    }

    pub(super) fn open(&mut self, addr: SocketAddr, endpoint: Endpoint) -> io::Result<SocketAddr> {
        let mut addr = canonical(addr);
        if addr.ip().is_unspecified() {
            return Err(io::Error::new(
                ErrorKind::AddrNotAvailable,
                "a simulated endpoint needs an IP address of its own",
            ));
        }
        if addr.port() == 0 {
            // The lowest free port, so that a test that relies on a released port fails at once.
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

    pub(super) fn send(&mut self, from: SocketAddr, outbox: &Outbox) -> SendReport {
        let mut sent = SendReport::default();
        for datagram in outbox.iter() {
            match self.launch(from, datagram.peer, datagram.bytes, Kind::Datagram) {
                Ok(()) => sent.sent += 1,
                Err(error) => {
                    sent.failed += 1;
                    sent.last_error = Some(error);
                }
            }
        }
        sent
    }

    /// Sends a datagram on its way, to a group on as many ways as it has members.
    pub(super) fn launch(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        kind: Kind,
    ) -> io::Result<()> {
        let (from, to) = (canonical(from), canonical(to));
        let is_multicast = to.ip().is_multicast();
        let Some(members) = self.groups.get(&to.ip()).cloned() else {
            // A group without members receives nothing.
            let delivery = if is_multicast {
                Delivery::Multicast
            } else {
                Delivery::Unicast
            };
            return self.launch_one(from, to, bytes, kind, delivery);
        };
        let delivery = if is_multicast {
            Delivery::Multicast
        } else {
            Delivery::Broadcast
        };
        for member in members {
            let to = SocketAddr::new(member, to.port());
            self.launch_one(from, to, bytes, kind, delivery)?;
        }
        Ok(())
    }

    /// Decides what becomes of a datagram to one machine.
    fn launch_one(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        kind: Kind,
        delivery: Delivery,
    ) -> io::Result<()> {
        if to.port() == 0 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "port is 0, must be 1 to 65535",
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
        let mut dice = Rng::of_datagram(seed, from.ip(), to.ip(), direction.sent);
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
            delivery,
            corrupted,
        };
        flight.bytes.extend_from_slice(bytes);
        let mut copies = 1 + usize::from(duplicated);
        for fault in self.script.faults_for(flight.number) {
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

    /// Delivers a datagram to its destination: to an endpoint at once, to a node if the caller
    /// passes it on.
    pub(super) fn arrive(&mut self, flight: Flight) -> Option<(Box<Host>, Flight)> {
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
        // RFC 1122 §3.2.2: no error for a datagram to a group.
        let may_report = flight.kind == Kind::Datagram && flight.delivery == Delivery::Unicast;
        if fate == PacketFate::NobodyThere && may_report {
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

    pub(super) fn is_ready(&self, addr: SocketAddr) -> bool {
        match self.endpoints.get(&addr) {
            Some(Endpoint::Queue(queue)) => queue.refused || !queue.flights.is_empty(),
            _ => false,
        }
    }

    /// Moves what has arrived for an endpoint into an inbox. The error of a connected one comes
    /// first, but not into the middle of a batch.
    pub(super) fn receive(
        &mut self,
        at: SocketAddr,
        inbox: &mut Inbox,
        begun: bool,
    ) -> io::Result<usize> {
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

    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[derive(Default)]
pub(super) struct Direction {
    pub(super) link: Option<Link>,
    pub(super) partitioned: bool,
    /// Datagrams sent in this direction so far.
    sent: u64,
    /// When the datagrams that the link is busy with, or will be, have left.
    departures: VecDeque<Duration>,
}

pub(super) enum Endpoint {
    Queue(Queue),
    /// `None` while the node is at work.
    Host(Option<Box<Host>>),
}

pub(super) struct Queue {
    /// The one peer of a connected endpoint.
    pub(super) peer: Option<SocketAddr>,
    /// Whether the peer turned out not to be there.
    pub(super) refused: bool,
    pub(super) flights: VecDeque<Flight>,
}

/// How many datagrams wait at an endpoint; more are lost.
const QUEUE_DATAGRAMS: usize = 4_096;
/// How many datagrams are under way on a network; more are lost.
const MAX_IN_FLIGHT: usize = 1 << 20;
const SPARE_BUFFERS: usize = 1_024;
/// 2000-01-01 00:00:00 UTC, since 1970.
const YEAR_2000: Duration = Duration::from_secs(946_684_800);
