mod prefix;
mod table;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::prefix::Prefixes;
use self::table::Table;
use super::{Gate, ResponseSize};
use crate::config_error::ConfigError;
use crate::drop_reason::DropReason;
use crate::prefix::{Prefix, mask};
use crate::timestamp::Timestamp;
use crate::transport::Datagram;

/// A table of 256 MiB: every IPv4 network of 24 bits.
const MAX_PREFIXES: usize = 1 << 24;

/// Limits how much is sent to each network prefix: answers and bytes per second, as the response rate
/// limiting of DNS servers does.
///
/// An attacker with a forged source can use an open server to flood a victim. This gate makes the
/// server useless for that. It also keeps one busy client from displacing the others.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::RateLimit;
/// use rejoinder::Server;
///
/// Server::builder(Text).gate(RateLimit::default());
///
/// let limit = RateLimit::builder()
///     .responses_per_second(1_000)
///     .exempt("10.0.0.0".parse()?, 8)
///     .build()?;
/// Server::builder(Text).gate(limit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is counted
///
/// What leaves: a datagram that gets no response costs its sender nothing. Each response
/// takes from the budget of its network whichever is the greater part, its share of the answers or
/// its share of the bytes ([on the wire](ResponseSize::wire_bytes)), so both limits hold. A request is
/// dropped, unread, while its network has spent the budget. The responses to the request before may
/// pass it by their own size; the time to earn that back comes on top.
///
/// A dropped request gets no response. DNS can send a truncated answer, which makes an honest
/// client return over TCP; there is no equivalent here. So an attacker who forges the addresses of
/// a network can use up its budget, and honest clients there get no response. That is the price of
/// not flooding it.
///
/// # The table
///
/// It has a fixed size of [`max_prefixes`](RateLimitBuilder::max_prefixes) × 16 bytes and never
/// grows. A keyed hash (SipHash-1-3) selects four places for a network, so an attacker cannot
/// choose addresses that share a place. If all four are taken, the entry that owes least is
/// evicted. Entries are compared by 64 bits of the hash, so no network is limited for another one
/// (but for a chance of about 2⁻⁶⁴ for each pair), however full the table is. The error is on the
/// other side: when more networks than the table holds spend their budgets at once, some get a
/// second budget.
///
/// # Identities
///
/// With [`per_identity`](RateLimitBuilder::per_identity), each authenticated peer has a budget, instead of
/// each network. Two limits, one of either kind, are a pair of gates.
///
/// # Several workers
///
/// Clones share the table, so the limit holds for all workers together. Each access locks one of up
/// to 64 parts of the table for some nanoseconds.
#[derive(Clone)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

/// What the clones have in common.
struct Shared {
    rates: Rates,
    subject: Subject,
    table: Table,
}

/// What has a budget.
enum Subject {
    Prefix(Prefixes),
    Identity,
}

impl RateLimit {
    /// The limits to be set one by one.
    ///
    /// ```
    /// use rejoinder::gate::RateLimit;
    ///
    /// let limit = RateLimit::builder().responses_per_second(10).build()?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn builder() -> RateLimitBuilder {
        RateLimitBuilder::default()
    }

    /// How many bytes the table takes. It does not change.
    ///
    /// ```
    /// use rejoinder::gate::RateLimit;
    ///
    /// assert_eq!(RateLimit::default().memory_bytes(), 65_536 * 16);
    /// ```
    pub fn memory_bytes(&self) -> usize {
        self.shared.table.memory_bytes()
    }
}

impl Default for RateLimit {
    /// The defaults of [`RateLimitBuilder`].
    fn default() -> Self {
        RateLimitBuilder::default()
            .build()
            .expect("the defaults are in range")
    }
}

impl Gate for RateLimit {
    fn accept(&mut self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        match self.shared.subject {
            Subject::Prefix(_) => self.shared.accept(now, datagram),
            Subject::Identity => Ok(()),
        }
    }

    fn accept_identified(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        match self.shared.subject {
            Subject::Prefix(_) => Ok(()),
            Subject::Identity => self.shared.accept(now, datagram),
        }
    }

    fn allow_responses(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        let shared = &*self.shared;
        if let Some(subject) = shared.subject_of(datagram) {
            let cost = shared.rates.cost(&responses, datagram);
            shared.table.charge(subject, nanos(now.monotonic), cost);
        }
        Ok(())
    }
}

impl Shared {
    fn accept(&self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        let Some(subject) = self.subject_of(datagram) else {
            return Ok(());
        };
        let free_at = self.table.free_at(subject);
        let owes = free_at.saturating_sub(nanos(now.monotonic));
        if owes < self.rates.burst {
            Ok(())
        } else {
            Err(DropReason::RateLimited)
        }
    }

    /// The hash of what a datagram counts for, if it counts.
    fn subject_of(&self, datagram: &Datagram<'_>) -> Option<u64> {
        match &self.subject {
            Subject::Prefix(prefixes) => {
                let prefix = prefixes.of_datagram(datagram)?;
                Some(self.table.hash(&prefix.to_be_bytes()))
            }
            Subject::Identity => Some(self.table.hash(datagram.identity?.as_bytes())),
        }
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key: it is a secret.
        f.debug_struct("RateLimit")
            .field("rates", &self.shared.rates)
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

/// Options of a [`RateLimit`].
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::RateLimit;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::{DropReason, Server, Timestamp};
/// use std::time::{Duration, SystemTime};
///
/// let limit = RateLimit::builder()
///     .responses_per_second(2) // of which one second's worth can be had at once
///     .bytes_per_second(10_000)
///     .burst(Duration::from_secs(1))
///     .v4_prefix(24)
///     .v6_prefix(56)
///     .exempt("10.0.0.0".parse()?, 8)
///     .max_prefixes(1_024)
///     .key([7; 16]) // a test is to be the same each time
///     .build()?;
/// let mut core = Server::builder(Text).gate(limit).core(|text: &str| Some(text.to_owned()));
///
/// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
/// for peer in [
///     "192.0.2.1:7777",
///     "192.0.2.2:7777",
///     "192.0.2.3:7777",
///     "10.1.2.3:7777",
/// ] {
///     inbox.push(b"hello", Meta::new(peer.parse()?));
/// }
/// let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
/// core.handle(now, &mut inbox, &mut outbox);
/// // The first three are of one network, and the last is exempt.
/// assert_eq!(core.stats().replied, 3);
/// assert_eq!(core.stats().dropped(DropReason::RateLimited), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct RateLimitBuilder {
    responses_per_second: u32,
    bytes_per_second: u64,
    burst: Duration,
    v4_prefix_bits: u8,
    v6_prefix_bits: u8,
    exempt: Vec<(IpAddr, u8)>,
    max_prefixes: usize,
    per_identity: bool,
    key: Option<[u8; 16]>,
}

impl RateLimitBuilder {
    /// How many datagrams per second may go to one network, in the long run. Default: 100. Zero is
    /// an error.
    pub fn responses_per_second(mut self, answers: u32) -> Self {
        self.responses_per_second = answers;
        self
    }

    /// How many bytes per second may go to one network, in the long run, headers of IP and UDP
    /// included. Default: 65,536. Zero is an error.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// How much of the budget a network can save up: what the rates give in this time can be spent
    /// at once. Default: 1 second. Zero is an error.
    pub fn burst(mut self, burst: Duration) -> Self {
        self.burst = burst;
        self
    }

    /// The prefix length that identifies an IPv4 network, 0 to 32 bits. Default: 24. An IPv4-mapped
    /// IPv6 address (RFC 4291 §2.5.5.2) is one of IPv4.
    pub fn v4_prefix(mut self, bits: u8) -> Self {
        self.v4_prefix_bits = bits;
        self
    }

    /// The prefix length that identifies an IPv6 network, 0 to 128 bits. Default: 56, what many
    /// providers give a home (RFC 6177 §2 asks for more than one /64).
    ///
    /// Some prefixes hold hosts of many networks. An address of NAT64 (`64:ff9b::/96`) or Teredo
    /// (`2001::/32`) counts as the IPv4 address in it; one of NAT64 with a prefix of its own
    /// (`64:ff9b:1::/48`) and a link-local one (`fe80::/10`) count each for itself.
    pub fn v6_prefix(mut self, bits: u8) -> Self {
        self.v6_prefix_bits = bits;
        self
    }

    /// Exempts a network: the addresses of its family whose first `bits` bits are those of `network`.
    /// Default: none is exempt. Every datagram is compared with every exempt network, so a few are best.
    pub fn exempt(mut self, network: IpAddr, bits: u8) -> Self {
        self.exempt.push((network, bits));
        self
    }

    /// How many networks are remembered, rounded up to a power of two, at least 4. Each takes 16
    /// bytes. Default: 65,536, 1 to 16,777,216.
    pub fn max_prefixes(mut self, prefixes: usize) -> Self {
        self.max_prefixes = prefixes;
        self
    }

    /// Gives each authenticated peer a budget, by its [identity](crate::Identity), instead of each network.
    /// Default: off. Datagrams without an identity pass, so a limit of this kind stands beside one of the
    /// other. The settings of prefixes have no effect then, except that
    /// [`max_prefixes`](Self::max_prefixes) is how many identities are remembered.
    ///
    /// The server asks it once the identity is known: after the codec has checked the datagram's proof.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::RateLimit;
    /// use rejoinder::Server;
    ///
    /// let per_peer = RateLimit::builder().responses_per_second(10).per_identity().build()?;
    /// Server::builder(Text).gate((RateLimit::default(), per_peer));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn per_identity(mut self) -> Self {
        self.per_identity = true;
        self
    }

    /// The key of the table's hash, a secret. Default: a random one, from the operating system. A
    /// fixed one makes a simulation repeatable, and is for nothing else.
    pub fn key(mut self, key: [u8; 16]) -> Self {
        self.key = Some(key);
        self
    }

    /// Allocates the table.
    pub fn build(self) -> Result<RateLimit, ConfigError> {
        for (setting, is_zero) in [
            ("responses_per_second", self.responses_per_second == 0),
            ("bytes_per_second", self.bytes_per_second == 0),
            ("burst", self.burst.is_zero()),
        ] {
            if is_zero {
                return Err(ConfigError::out_of_range(setting, 0, "more than 0"));
            }
        }
        ConfigError::check("max_prefixes", self.max_prefixes, 1..=MAX_PREFIXES)?;
        let v4_mask = mask("v4_prefix", self.v4_prefix_bits, 32)?;
        let v6_mask = mask("v6_prefix", self.v6_prefix_bits, 128)?;
        let exempt = self.exempt.iter();
        let exempt = exempt.map(|&(network, bits)| Prefix::new("exempt", network, bits));
        let exempt = exempt.collect::<Result<_, ConfigError>>()?;
        Ok(RateLimit {
            shared: Arc::new(Shared {
                rates: Rates {
                    responses_per_second: self.responses_per_second.into(),
                    bytes_per_second: self.bytes_per_second,
                    burst: nanos(self.burst),
                },
                subject: if self.per_identity {
                    Subject::Identity
                } else {
                    Subject::Prefix(Prefixes {
                        v4_mask,
                        v6_mask,
                        exempt,
                    })
                },
                table: Table::new(self.max_prefixes, self.key),
            }),
        })
    }
}

impl Default for RateLimitBuilder {
    fn default() -> Self {
        Self {
            responses_per_second: 100,
            bytes_per_second: 65_536,
            burst: Duration::from_secs(1),
            v4_prefix_bits: 24,
            v6_prefix_bits: 56,
            exempt: Vec::new(),
            max_prefixes: 65_536,
            per_identity: false,
            key: None,
        }
    }
}

impl fmt::Debug for RateLimitBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBuilder")
            .field("responses_per_second", &self.responses_per_second)
            .field("bytes_per_second", &self.bytes_per_second)
            .field("burst", &self.burst)
            .field("v4_prefix_bits", &self.v4_prefix_bits)
            .field("v6_prefix_bits", &self.v6_prefix_bits)
            .field("exempt", &self.exempt)
            .field("max_prefixes", &self.max_prefixes)
            .field("per_identity", &self.per_identity)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Rates {
    responses_per_second: u64,
    bytes_per_second: u64,
    /// In nanoseconds.
    burst: u64,
}

impl Rates {
    /// The time, in nanoseconds, that it takes to earn the responses.
    fn cost(&self, responses: &ResponseSize, datagram: &Datagram<'_>) -> u64 {
        let bytes = responses.wire_bytes(&datagram.meta) as u64;
        let nanos = |amount: u64, per_second| amount.saturating_mul(NANOS).div_ceil(per_second);
        let count = nanos(responses.datagrams as u64, self.responses_per_second);
        count.max(nanos(bytes, self.bytes_per_second))
    }
}

/// Saturates after 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests;
