use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::rng::mix;

/// What became of the datagrams of a [`SimNet`](crate::sim::SimNet).
///
/// It displays as one line per [`TraceEvent`], and one for the [hash](Self::hash). That covers every
/// event since the network began and the bytes of every datagram; of the events themselves the
/// latest [`EVENTS`](Self::EVENTS) are kept.
///
/// ```
/// use rejoinder::sim::SimNet;
/// use std::time::Duration;
///
/// let net = SimNet::new();
/// net.inject("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, b"hello");
/// net.advance(Duration::from_secs(1));
/// let trace = net.trace();
/// assert_eq!((trace.total(), trace.events().len()), (1, 1));
/// assert_eq!(
///     trace.to_string(),
///     "   0.000000000 s  #1 10.0.0.1:1 > 10.0.0.2:2, 5 bytes sent at 0.000000000 s: lost, nobody was there
/// trace 0xe52590006c68b1ec",
/// );
/// // The whole run in one number: the same in every run, on every machine.
/// assert_eq!(trace.hash(), 0xe525_9000_6c68_b1ec);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    events: VecDeque<TraceEvent>,
    total: u64,
    hash: u64,
}

impl Trace {
    /// How many events are kept.
    pub const EVENTS: usize = 4_096;

    /// The latest events, in order.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &TraceEvent> + ExactSizeIterator {
        self.events.iter()
    }

    /// How many events there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A hash of everything that happened. Two runs in which the same happened have the same, on
    /// every machine; it is the same function in every version of this crate with the same major
    /// number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(&mut self, event: TraceEvent, bytes: &[u8]) {
        if self.events.len() == Self::EVENTS {
            self.events.pop_front();
        }
        self.total += 1;
        let mut hash = Hash(self.hash);
        hash.number(event.number);
        hash.time(event.sent);
        hash.time(event.ended);
        hash.addr(event.from);
        hash.addr(event.to);
        hash.number(event.fate as u64);
        hash.bytes(bytes);
        self.hash = hash.0;
        self.events.push_back(event);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forgotten = self.total - self.events.len() as u64;
        if forgotten > 0 {
            writeln!(f, "({forgotten} earlier events are not shown)")?;
        }
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        write!(f, "trace {:#018x}", self.hash)
    }
}

/// The end of one copy of a datagram.
///
/// ```
/// use rejoinder::sim::{Link, SimNet};
/// use std::time::Duration;
///
/// let net = SimNet::new();
/// net.set_link(Link::new().latency(Duration::from_millis(20)))?;
/// net.inject("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, b"hello");
/// net.advance(Duration::from_secs(1));
/// let trace = net.trace();
/// let event = trace.events().next().expect("one datagram was sent");
/// assert_eq!((event.number, event.bytes), (1, 5));
/// assert_eq!(event.ended - event.sent, Duration::from_millis(20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// Which datagram of the network, in the order of sending, from 1.
    pub number: u64,
    /// When it was sent, since the network began.
    pub sent: Duration,
    /// When it arrived, or was lost.
    pub ended: Duration,
    /// Its source address.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: SocketAddr,
    /// The length of its payload in bytes.
    pub bytes: usize,
    /// What became of it.
    pub fate: PacketFate,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            sent,
            ended,
            from,
            to,
            bytes,
            fate,
        } = self;
        let (sent, ended) = (sent.as_secs_f64(), ended.as_secs_f64());
        write!(
            f,
            "{ended:>14.9} s  #{number} {from} > {to}, {bytes} bytes sent at {sent:.9} s: {fate}"
        )
    }
}

/// What became of a copy of a datagram on a [`SimNet`](crate::sim::SimNet).
///
/// ```
/// use rejoinder::sim::{PacketFate, SimNet};
/// use std::time::Duration;
///
/// let net = SimNet::new();
/// net.inject("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, b"hello");
/// net.advance(Duration::from_secs(1));
/// let fates: Vec<_> = net.trace().events().map(|event| event.fate).collect();
/// assert_eq!(fates, [PacketFate::NobodyThere]);
/// assert_eq!(
///     PacketFate::NobodyThere.to_string(),
///     "lost, nobody was there"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PacketFate {
    /// It arrived as it was sent.
    Delivered,
    /// It arrived with a bit changed.
    DeliveredCorrupted,
    /// It was lost by chance, or as the script says.
    Lost,
    /// The machines were cut off from each other.
    Partitioned,
    /// It was longer than the link allows.
    AboveMtu,
    /// The link's queue was full.
    QueueFull,
    /// The receiver did not receive for so long that its buffer was full.
    ReceiverFull,
    /// No endpoint and no node has the address.
    NobodyThere,
    /// The sender received an ICMP "port unreachable" for it.
    Unreachable,
    /// The network had so many in flight that it could hold no more.
    Overflow,
}

impl fmt::Display for PacketFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "delivered",
            Self::DeliveredCorrupted => "delivered, corrupted",
            Self::Lost => "lost",
            Self::Partitioned => "lost, partitioned",
            Self::AboveMtu => "lost, above the MTU",
            Self::QueueFull => "lost, the queue was full",
            Self::ReceiverFull => "lost, the receiver was full",
            Self::NobodyThere => "lost, nobody was there",
            Self::Unreachable => "delivered, port unreachable",
            Self::Overflow => "lost, the network was full",
        })
    }
}

struct Hash(u64);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ number);
    }

    fn time(&mut self, time: Duration) {
        self.number(time.as_secs());
        self.number(time.subsec_nanos().into());
    }

    fn addr(&mut self, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => self.number(ip.to_bits().into()),
            IpAddr::V6(ip) => {
                for part in ip.octets().chunks_exact(8) {
                    self.bytes(part);
                }
            }
        }
        self.number(addr.port().into());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.number(u64::from_le_bytes(word));
        }
    }
}
