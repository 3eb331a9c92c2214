use std::net::IpAddr;
use std::time::Duration;

use crate::config_error::ConfigError;

/// What happens to datagrams in one direction between two machines of a
/// [`SimNet`](crate::sim::SimNet).
///
/// A new link is perfect: nothing is lost, and everything arrives at the moment it was sent.
///
/// ```
/// use rejoinder::sim::{AboveMtu, Link, SimNet};
/// use std::time::Duration;
///
/// let net = SimNet::seeded(1);
/// let ms = Duration::from_millis;
/// net.set_link(
///     Link::new()
///         .loss(0.3)
///         .duplication(0.2)
///         .latency(ms(20))
///         .jitter(ms(5)),
/// )?;
///
/// // As a bad mobile connection: 64 kbit/s with a long queue, and things overtake each other.
/// let mobile = Link::new()
///     .rate(8_000, 100)
///     .latency(ms(150))
///     .reordering(0.05, ms(300))
///     .corruption(0.001)
///     .mtu(1_280, AboveMtu::Fragment)
///     .port_unreachable(true);
/// net.set_link_between("10.0.0.1".parse()?, "10.0.0.2".parse()?, mobile)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Chances are numbers from 0 (never, the default) to 1 (always). They are drawn for each datagram
/// on its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) reordering: f64,
    pub(super) hold_up: Duration,
    pub(super) corruption: f64,
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) mtu: Option<(usize, AboveMtu)>,
    pub(super) rate: Option<Rate>,
    pub(super) port_unreachable: bool,
}

/// What a [`Link`] does with a datagram that its MTU has no room for.
///
/// ```
/// use rejoinder::sim::{AboveMtu, Link, PacketFate, SimNet};
/// use std::time::Duration;
///
/// let net = SimNet::new();
/// net.set_link(Link::new().mtu(1_500, AboveMtu::Lose))?;
/// let (one, other) = ("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?);
/// let _endpoint = net.bind(other)?;
/// for (bytes, fate) in [
///     (1_472, PacketFate::Delivered),
///     (1_473, PacketFate::AboveMtu),
/// ] {
///     net.inject(one, other, &vec![0; bytes]);
///     net.advance(Duration::from_secs(1));
///     assert_eq!(
///         net.trace().events().last().map(|event| event.fate),
///         Some(fate)
///     );
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AboveMtu {
    /// It is lost without a word, as behind a router whose messages are filtered (a "black hole",
    /// RFC 2923 §2.1).
    Lose,
    /// The sender gets an error at once, as from its own network card.
    Refuse,
    /// It is cut into fragments, each of which can get lost: the datagram arrives if all do.
    Fragment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) bytes_per_second: u64,
    pub(super) queue: usize,
}

impl Link {
    /// A perfect link.
    pub const fn new() -> Self {
        Self {
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            hold_up: Duration::ZERO,
            corruption: 0.0,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            mtu: None,
            rate: None,
            port_unreachable: false,
        }
    }

    /// The chance that a datagram is lost, 0 to 1. Default: 0, as for the other chances.
    #[must_use]
    pub fn loss(mut self, chance: f64) -> Self {
        self.loss = chance;
        self
    }

    /// The chance that a second copy of a datagram arrives, with a delay of its own.
    #[must_use]
    pub fn duplication(mut self, chance: f64) -> Self {
        self.duplication = chance;
        self
    }

    /// The chance that a datagram is held up, for a random time of at most `hold_up`, so that
    /// later ones overtake it.
    #[must_use]
    pub fn reordering(mut self, chance: f64, hold_up: Duration) -> Self {
        self.reordering = chance;
        self.hold_up = hold_up;
        self
    }

    /// The chance that one bit of a datagram arrives changed. (UDP's checksum finds most of what
    /// really happens to bits; what arrives changed was changed before or behind it.)
    #[must_use]
    pub fn corruption(mut self, chance: f64) -> Self {
        self.corruption = chance;
        self
    }

    /// How long a datagram travels at least. Default: no time.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// A random time of at most so much is added to the latency of each datagram, all lengths
    /// equally likely. Default: none. Datagrams sent closer together than that can overtake each other.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// The longest packet in bytes, IP and UDP headers included (28 bytes over IPv4, 48 over IPv6),
    /// and what happens to longer ones. At least 68, as IPv4 demands (RFC 791 §3.2). Default: every
    /// datagram passes.
    #[must_use]
    pub fn mtu(mut self, bytes: usize, above: AboveMtu) -> Self {
        self.mtu = Some((bytes, above));
        self
    }

    /// How many bytes per second pass, headers included, and how many datagrams may wait for their
    /// turn; one more is lost. The rate is at least 1. Default: no limit, so nothing ever waits.
    #[must_use]
    pub fn rate(mut self, bytes_per_second: u64, queue: usize) -> Self {
        self.rate = Some(Rate {
            bytes_per_second,
            queue,
        });
        self
    }

    /// Whether a datagram to a closed port causes an ICMP "port unreachable", which may be lost in
    /// its turn. A connected endpoint receives it as an error of the kind
    /// [`ConnectionRefused`](std::io::ErrorKind::ConnectionRefused). Default: `false`, no ICMP
    /// message.
    #[must_use]
    pub fn port_unreachable(mut self, told: bool) -> Self {
        self.port_unreachable = told;
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (setting, chance) in [
            ("loss", self.loss),
            ("duplication", self.duplication),
            ("reordering", self.reordering),
            ("corruption", self.corruption),
        ] {
            if !(0.0..=1.0).contains(&chance) {
                return Err(ConfigError::out_of_range(setting, chance, "0 to 1"));
            }
        }
        match (self.mtu, self.rate) {
            (Some((bytes, _)), _) if bytes < MIN_MTU => {
                let range = format!("at least {MIN_MTU}");
                Err(ConfigError::out_of_range("mtu", bytes, range))
            }
            (_, Some(rate)) if rate.bytes_per_second == 0 => {
                Err(ConfigError::out_of_range("rate", 0, "at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// Into how many packets a datagram of `bytes` bytes would be cut.
    pub(super) fn fragments(self, to: IpAddr, bytes: usize) -> usize {
        let Some((mtu, _)) = self.mtu else { return 1 };
        let (ip_header, fragment_header) = match to {
            IpAddr::V4(_) => (20, 20),
            // RFC 8200 §4.5.
            IpAddr::V6(_) => (40, 48),
        };
        let udp = UDP_HEADER_BYTES + bytes;
        if ip_header + udp <= mtu {
            return 1;
        }
        // All but the last fragment carry a multiple of eight bytes.
        let each = (mtu - fragment_header) / 8 * 8;
        udp.div_ceil(each)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Rate {
    /// How long a datagram of `bytes` bytes occupies the link.
    pub(super) fn time(self, to: IpAddr, bytes: usize) -> Duration {
        let headers = if to.is_ipv4() { 20 } else { 40 } + UDP_HEADER_BYTES;
        let nanos = ((bytes + headers) as u64)
            .saturating_mul(1_000_000_000)
            .div_ceil(self.bytes_per_second);
        Duration::from_nanos(nanos)
    }
}

/// RFC 791 §3.2.
const MIN_MTU: usize = 68;
const UDP_HEADER_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{AboveMtu, Link};

    #[test]
    fn a_datagram_is_cut_where_ip_cuts_it() {
        let ethernet = Link::new().mtu(1500, AboveMtu::Fragment);
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(ethernet.fragments(v4, 1472), 1);
        assert_eq!(ethernet.fragments(v4, 1473), 2);
        assert_eq!(ethernet.fragments(v6, 1452), 1);
        assert_eq!(ethernet.fragments(v6, 1453), 2);
        // 65,515 bytes of UDP in pieces of 1,480.
        assert_eq!(ethernet.fragments(v4, 65_507), 45);
    }
}
