use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::{Gate, ReplySize};
use crate::drop_reason::DropReason;
use crate::timestamp::Timestamp;
use crate::transport::Datagram;

/// Limits how much is sent to any one network: answers and bytes per second, as the response rate
/// limiting of DNS servers does.
///
/// A server that answers whoever asks can be used against others, by forging the sender. This makes
/// it useless for that, and keeps one busy client from taking the place of the others.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::RateLimit;
/// use rejoinder::Server;
///
/// Server::builder(Text).gate(RateLimit::default());
///
/// let limit = RateLimit::builder()
///     .answers_per_second(1_000)
///     .exempt("10.0.0.0".parse()?, 8)
///     .build()?;
/// Server::builder(Text).gate(limit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is counted
///
/// What leaves: a datagram that is dropped or met with silence costs its sender nothing. Each reply
/// takes from the budget of its network whichever is the greater part, its share of the answers or
/// its share of the bytes ([on the wire](ReplySize::wire_bytes)), so both limits hold. A request is
/// dropped, unread, while its network has spent the budget. The replies to the request before may
/// pass it by their own size; the time to earn that back comes on top.
///
/// A dropped request gets no sign: a truncated answer, with which DNS asks an honest client to come
/// back over TCP, has no like here. So somebody who forges a network's addresses can silence this
/// server towards that network. That is the price of not flooding it.
///
/// # The table
///
/// It has a fixed size of [`sources`](RateLimitBuilder::sources) × 16 bytes and never grows. A
/// network can be in any of four places, which a keyed hash (SipHash-1-3) chooses: without the key
/// nobody can pick addresses that share a place. If all four are taken, the newcomer takes the
/// place of the one that owes least. Networks are told apart by 64 bits of the hash, so no network
/// is ever limited for what another one did (but for a chance of about 2⁻⁶⁴ for each pair), however
/// full the table is. The error is on the other side: when more networks than the table holds spend
/// their budgets at once, some get another one.
///
/// # Several workers
///
/// Clones share the table, so the limit holds for all workers together. Each access locks one of up
/// to 64 parts of the table for some nanoseconds.
#[derive(Clone)]
pub struct RateLimit {
    table: Arc<Table>,
}

impl RateLimit {
    /// The limits to be set one by one.
    ///
    /// ```
    /// use rejoinder::gate::RateLimit;
    ///
    /// let limit = RateLimit::builder().answers_per_second(10).build()?;
    /// # Ok::<(), rejoinder::gate::RateLimitError>(())
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
        self.table.parts.len() * self.table.sets_per_part * size_of::<Set>()
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
        let Some(hash) = self.table.source(datagram.meta.peer.ip()) else {
            return Ok(());
        };
        let now = nanos(now.monotonic);
        let owes = self
            .table
            .with_set(hash, |set| set.free_at(hash))
            .saturating_sub(now);
        if owes < self.table.limits.burst {
            Ok(())
        } else {
            Err(DropReason::RateLimited)
        }
    }

    fn allow_replies(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        replies: ReplySize,
    ) -> Result<(), DropReason> {
        if let Some(hash) = self.table.source(datagram.meta.peer.ip()) {
            let cost = self.table.limits.cost(&replies, datagram);
            let now = nanos(now.monotonic);
            self.table.with_set(hash, |set| set.charge(hash, now, cost));
        }
        Ok(())
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key: it is a secret.
        f.debug_struct("RateLimit")
            .field("limits", &self.table.limits)
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
/// use rejoinder::{DropReason, Timestamp};
/// use std::time::{Duration, SystemTime};
///
/// let limit = RateLimit::builder()
///     .answers_per_second(2) // of which one second's worth can be had at once
///     .bytes_per_second(10_000)
///     .burst(Duration::from_secs(1))
///     .v4_prefix(24)
///     .v6_prefix(56)
///     .exempt("10.0.0.0".parse()?, 8)
///     .sources(1_024)
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
    answers_per_second: u32,
    bytes_per_second: u64,
    burst: Duration,
    v4_prefix_bits: u8,
    v6_prefix_bits: u8,
    exempt: Vec<(IpAddr, u8)>,
    sources: usize,
    key: Option<[u8; 16]>,
}

impl RateLimitBuilder {
    /// How many datagrams per second may go to one network, in the long run. Default: 100. Zero is
    /// an error.
    pub fn answers_per_second(mut self, answers: u32) -> Self {
        self.answers_per_second = answers;
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

    /// How many bits of an IPv4 address tell one network from another, 0 to 32. Default: 24. An
    /// IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is one of IPv4.
    pub fn v4_prefix(mut self, bits: u8) -> Self {
        self.v4_prefix_bits = bits;
        self
    }

    /// How many bits of an IPv6 address tell one network from another, 0 to 128. Default: 56, what
    /// many providers give a home (RFC 6177 §2 asks for more than one /64).
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
    /// bytes. Default: 65,536. Zero is an error.
    pub fn sources(mut self, sources: usize) -> Self {
        self.sources = sources;
        self
    }

    /// The key of the table's hash, a secret. Default: a random one, from the operating system. A
    /// fixed one makes a simulation repeatable, and is for nothing else.
    pub fn key(mut self, key: [u8; 16]) -> Self {
        self.key = Some(key);
        self
    }

    /// Allocates the table.
    ///
    /// # Panics
    ///
    /// If so much memory cannot be addressed.
    pub fn build(self) -> Result<RateLimit, RateLimitError> {
        for (option, is_zero) in [
            ("answers_per_second", self.answers_per_second == 0),
            ("bytes_per_second", self.bytes_per_second == 0),
            ("burst", self.burst.is_zero()),
            ("sources", self.sources == 0),
        ] {
            if is_zero {
                return Err(RateLimitError::Zero { option });
            }
        }
        let v4_mask = mask(self.v4_prefix_bits, 32)?;
        let v6_mask = mask(self.v6_prefix_bits, 128)?;
        let exempt = self
            .exempt
            .iter()
            .map(|&(network, bits)| {
                let mask = mask(bits, if network.is_ipv4() { 32 } else { 128 })?;
                Ok(Exempt {
                    is_v4: network.to_canonical().is_ipv4(),
                    network: mapped(network) & mask,
                    mask,
                })
            })
            .collect::<Result<_, _>>()?;

        let sets = self.sources.div_ceil(WAYS).next_power_of_two();
        let parts = sets.min(MAX_PARTS);
        let sets_per_part = sets / parts;
        let part = || Mutex::new(vec![Set::default(); sets_per_part].into_boxed_slice());
        Ok(RateLimit {
            table: Arc::new(Table {
                limits: Limits {
                    answers_per_second: self.answers_per_second.into(),
                    bytes_per_second: self.bytes_per_second,
                    burst: nanos(self.burst),
                },
                v4_mask,
                v6_mask,
                exempt,
                hasher: SipHasher13::new_with_key(&self.key.unwrap_or_else(random_key)),
                parts: std::iter::repeat_with(part).take(parts).collect(),
                sets_per_part,
            }),
        })
    }
}

impl Default for RateLimitBuilder {
    fn default() -> Self {
        Self {
            answers_per_second: 100,
            bytes_per_second: 65_536,
            burst: Duration::from_secs(1),
            v4_prefix_bits: 24,
            v6_prefix_bits: 56,
            exempt: Vec::new(),
            sources: 65_536,
            key: None,
        }
    }
}

impl fmt::Debug for RateLimitBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBuilder")
            .field("answers_per_second", &self.answers_per_second)
            .field("bytes_per_second", &self.bytes_per_second)
            .field("burst", &self.burst)
            .field("v4_prefix_bits", &self.v4_prefix_bits)
            .field("v6_prefix_bits", &self.v6_prefix_bits)
            .field("exempt", &self.exempt)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// Why a rate limit could not be built.
///
/// ```
/// use rejoinder::gate::{RateLimit, RateLimitError};
///
/// let error = RateLimit::builder().v4_prefix(33).build().unwrap_err();
/// assert_eq!(error, RateLimitError::PrefixTooLong { bits: 33, max: 32 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateLimitError {
    /// Something that must be more than zero is not.
    #[error("`{option}` may not be zero")]
    Zero {
        /// The name of the option.
        option: &'static str,
    },
    /// An address does not have so many bits.
    #[error("a prefix of {bits} bits is longer than the address, which has {max}")]
    PrefixTooLong {
        /// What was asked for.
        bits: u8,
        /// The most that there can be.
        max: u8,
    },
}

struct Table {
    limits: Limits,
    v4_mask: u128,
    v6_mask: u128,
    exempt: Vec<Exempt>,
    hasher: SipHasher13,
    parts: Box<[Mutex<Box<[Set]>>]>,
    sets_per_part: usize,
}

/// A network that has no limit.
struct Exempt {
    is_v4: bool,
    network: u128,
    mask: u128,
}

impl Table {
    /// What stands for the network of an address, unless it is exempt.
    fn source(&self, ip: IpAddr) -> Option<u64> {
        let ip = ip.to_canonical();
        let addr = mapped(ip);
        if self
            .exempt
            .iter()
            .any(|one| one.is_v4 == ip.is_ipv4() && addr & one.mask == one.network)
        {
            return None;
        }
        let mask = if ip.is_ipv4() {
            self.v4_mask
        } else {
            self.v6_mask
        };
        // Zero marks an unused place.
        Some(self.hasher.hash(&(addr & mask).to_be_bytes()).max(1))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    fn with_set<R>(&self, hash: u64, f: impl FnOnce(&mut Set) -> R) -> R {
        // Both numbers are powers of two.
        let part = hash as usize & (self.parts.len() - 1);
        let set = (hash >> 32) as usize & (self.sets_per_part - 1);
        let mut part = self.parts[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        f(&mut part[set])
    }
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    answers_per_second: u64,
    bytes_per_second: u64,
    /// In nanoseconds.
    burst: u64,
}

impl Limits {
    /// The time, in nanoseconds, that it takes to earn the replies.
    fn cost(&self, replies: &ReplySize, datagram: &Datagram<'_>) -> u64 {
        let bytes = replies.wire_bytes(&datagram.meta) as u64;
        let nanos = |amount: u64, per_second| amount.saturating_mul(NANOS).div_ceil(per_second);
        let answers = nanos(replies.datagrams as u64, self.answers_per_second);
        answers.max(nanos(bytes, self.bytes_per_second))
    }
}

/// The places that one hash can have: a cache line.
///
/// What a network owes is kept as one moment, the one at which it will owe nothing any more (the
/// "theoretical arrival time" of the generic cell rate algorithm, ITU-T I.371). There is nothing to
/// refill, and an entry whose moment has passed is as good as none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    source: u64,
    /// In nanoseconds of the monotonic clock.
    free_at: u64,
}

impl Set {
    fn free_at(&self, source: u64) -> u64 {
        let entry = self.0.iter().find(|entry| entry.source == source);
        entry.map_or(0, |entry| entry.free_at)
    }

    fn charge(&mut self, source: u64, now: u64, cost: u64) {
        let known = self.0.iter().position(|entry| entry.source == source);
        let at = known.unwrap_or_else(|| {
            let who_owes_least = (0..WAYS).min_by_key(|&at| self.0[at].free_at);
            let at = who_owes_least.expect("a set has places");
            self.0[at] = Entry { source, free_at: 0 };
            at
        });
        let entry = &mut self.0[at];
        entry.free_at = entry.free_at.max(now).saturating_add(cost);
    }
}

/// An address as one of IPv6: both families in one space. No address is in both, but a short prefix of
/// IPv6 may hold those of IPv4.
fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The mask of a prefix of an address with `max` bits, in the space of [`mapped`].
fn mask(bits: u8, max: u8) -> Result<u128, RateLimitError> {
    match max.checked_sub(bits) {
        Some(host_bits) => Ok(u128::MAX.checked_shl(host_bits.into()).unwrap_or(0)),
        None => Err(RateLimitError::PrefixTooLong { bits, max }),
    }
}

fn random_key() -> [u8; 16] {
    // The standard library's random keys, by way of its hash. That cannot fail, and what is hashed
    // here need not be more than unknown to those who send.
    let random = RandomState::new();
    let (low, high) = (random.hash_one(0), random.hash_one(1));
    (u128::from(low) | u128::from(high) << 64).to_ne_bytes()
}

/// Saturates after 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS: u64 = 1_000_000_000;
/// Places for each hash.
const WAYS: usize = 4;
/// Parts of the table that are locked separately. A power of two.
const MAX_PARTS: usize = 64;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, SystemTime};

    use super::{Gate, RateLimit, RateLimitBuilder, RateLimitError, ReplySize};
    use crate::timestamp::Timestamp;
    use crate::transport::{Datagram, Meta};

    /// Many more than there is room for; under Miri, which is slow, some more.
    const NETWORKS: u32 = if cfg!(miri) { 300 } else { 100_000 };

    fn builder() -> RateLimitBuilder {
        RateLimit::builder().key([7; 16]).sources(256)
    }

    /// Asks once at a time, and takes one answer of `bytes` if it may.
    fn ask_for(limit: &mut RateLimit, millis: u64, peer: &str, bytes: usize) -> bool {
        let now = Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH);
        let peer: IpAddr = peer.parse().unwrap();
        let datagram = Datagram {
            bytes: b"?",
            meta: Meta::new((peer, 50_000).into()),
        };
        let admitted = limit.accept(now, &datagram).is_ok();
        if admitted {
            limit
                .allow_replies(now, &datagram, ReplySize::new(1, bytes))
                .unwrap();
        }
        admitted
    }

    fn ask(limit: &mut RateLimit, millis: u64, peer: &str) -> bool {
        ask_for(limit, millis, peer, 1)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limit = builder().answers_per_second(10).build().unwrap();
        for second in 0..5 {
            let answered = (0..100)
                .filter(|step| ask(&mut limit, second * 1_000 + step * 10, "192.0.2.1"))
                .count();
            assert_eq!(answered, if second == 0 { 20 } else { 10 });
        }
        // After a pause there is one burst again, and no more.
        let answered = (0..100)
            .filter(|_| ask(&mut limit, 60_000, "192.0.2.1"))
            .count();
        assert_eq!(answered, 10);
    }

    #[test]
    fn bytes_on_the_wire_count_as_well_as_answers() {
        let mut limit = builder().bytes_per_second(10_000).build().unwrap();
        let answered = (0..100)
            .filter(|_| ask_for(&mut limit, 0, "192.0.2.1", 972))
            .count();
        assert_eq!(answered, 10);
        let answered = (0..100)
            .filter(|_| ask_for(&mut limit, 0, "2001:db8::1", 952))
            .count();
        assert_eq!(answered, 10);
    }

    #[test]
    fn one_long_answer_is_paid_for_in_full() {
        let mut limit = builder().bytes_per_second(1_000).build().unwrap();
        assert!(ask_for(&mut limit, 0, "192.0.2.1", 9_972));
        assert!(!ask(&mut limit, 8_999, "192.0.2.1"));
        assert!(ask(&mut limit, 9_001, "192.0.2.1"));
    }

    #[test]
    fn silence_costs_nothing() {
        let mut limit = builder().answers_per_second(1).build().unwrap();
        let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
        let datagram = Datagram {
            bytes: b"?",
            meta: Meta::new("192.0.2.1:50000".parse().unwrap()),
        };
        assert!((0..1_000).all(|_| limit.accept(now, &datagram).is_ok()));
    }

    #[test]
    fn a_network_has_one_budget_and_others_have_their_own() {
        let mut limit = builder().answers_per_second(1).build().unwrap();
        assert!(ask(&mut limit, 0, "192.0.2.1"));
        assert!(!ask(&mut limit, 0, "192.0.2.200"));
        assert!(!ask(&mut limit, 0, "::ffff:192.0.2.9"));
        assert!(ask(&mut limit, 0, "192.0.3.1"));
        assert!(ask(&mut limit, 0, "2001:db8:0:100::1"));
        assert!(!ask(&mut limit, 0, "2001:db8:0:1ff::1"));
        assert!(ask(&mut limit, 0, "2001:db8:0:200::1"));
    }

    #[test]
    fn prefixes_can_be_set_to_their_ends() {
        let mut all = builder()
            .answers_per_second(1)
            .v4_prefix(0)
            .v6_prefix(128)
            .build()
            .unwrap();
        assert!(ask(&mut all, 0, "192.0.2.1"));
        assert!(!ask(&mut all, 0, "198.51.100.1"));
        assert!(ask(&mut all, 0, "2001:db8::1"));
        assert!(ask(&mut all, 0, "2001:db8::2"));
    }

    #[test]
    fn exempt_networks_are_not_limited() {
        let mut limit = builder()
            .answers_per_second(1)
            .exempt("10.1.2.3".parse().unwrap(), 8)
            .exempt("fd00::".parse().unwrap(), 8)
            .build()
            .unwrap();
        for peer in ["10.200.0.1", "::ffff:10.0.0.1", "fd12::1"] {
            assert!((0..100).all(|_| ask(&mut limit, 0, peer)), "{peer}");
        }
        assert!(ask(&mut limit, 0, "11.0.0.1"));
        assert!(!ask(&mut limit, 0, "11.0.0.1"));
    }

    #[test]
    fn a_short_exempt_prefix_of_ipv6_holds_nothing_of_ipv4() {
        for (network, bits) in [("::", 0), ("::", 64), ("::1", 80)] {
            let mut limit = builder()
                .answers_per_second(1)
                .exempt(network.parse().unwrap(), bits)
                .build()
                .unwrap();
            assert!((0..100).all(|_| ask(&mut limit, 0, "::1")));
            for peer in ["192.0.2.1", "::ffff:198.51.100.1"] {
                assert!(ask(&mut limit, 0, peer) && !ask(&mut limit, 0, peer));
            }
        }
        // What is written as a mapped address is one of IPv4.
        let mut limit = builder()
            .answers_per_second(1)
            .exempt("::ffff:10.0.0.0".parse().unwrap(), 104)
            .build()
            .unwrap();
        assert!((0..100).all(|_| ask(&mut limit, 0, "10.1.2.3")));
    }

    #[test]
    fn no_rate_is_so_high_that_it_is_none() {
        let mut limit = builder()
            .answers_per_second(u32::MAX)
            .bytes_per_second(u64::MAX)
            .burst(Duration::from_nanos(10))
            .build()
            .unwrap();
        let answered = (0..100).filter(|_| ask(&mut limit, 0, "192.0.2.1")).count();
        assert!((10..=11).contains(&answered), "{answered}");
    }

    #[test]
    fn a_bad_value_is_an_error() {
        let zero = |option| Some(RateLimitError::Zero { option });
        assert_eq!(
            builder().answers_per_second(0).build().err(),
            zero("answers_per_second")
        );
        assert_eq!(
            builder().bytes_per_second(0).build().err(),
            zero("bytes_per_second")
        );
        assert_eq!(builder().burst(Duration::ZERO).build().err(), zero("burst"));
        assert_eq!(builder().sources(0).build().err(), zero("sources"));
        let too_long = |bits, max| Some(RateLimitError::PrefixTooLong { bits, max });
        assert_eq!(builder().v4_prefix(33).build().err(), too_long(33, 32));
        assert_eq!(builder().v6_prefix(129).build().err(), too_long(129, 128));
        let v4 = "10.0.0.0".parse().unwrap();
        assert_eq!(builder().exempt(v4, 33).build().err(), too_long(33, 32));
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let mut limit = builder()
            .answers_per_second(1)
            .bytes_per_second(1)
            .burst(Duration::MAX)
            .build()
            .unwrap();
        for millis in [0, u64::MAX, 1, u64::MAX] {
            ask_for(&mut limit, millis, "192.0.2.1", usize::MAX / 2);
        }
    }

    #[test]
    fn a_flood_of_networks_neither_grows_the_table_nor_limits_a_newcomer() {
        let mut limit = builder().answers_per_second(1).build().unwrap();
        let memory = limit.memory_bytes();
        assert_eq!(memory, 256 * 16);
        for network in 0..NETWORKS {
            let [_, a, b, c] = network.to_be_bytes();
            let peer = format!("{}.{b}.{c}.1", 1 + a);
            assert!(
                ask(&mut limit, 0, &peer),
                "{peer} is limited for what others did"
            );
        }
        assert_eq!(limit.memory_bytes(), memory);
    }

    #[test]
    fn who_owes_much_is_not_forgotten_in_a_flood_of_those_who_owe_little() {
        let mut limit = builder()
            .answers_per_second(100)
            .burst(Duration::from_secs(1))
            .build()
            .unwrap();
        while ask(&mut limit, 0, "192.0.2.1") {}
        for network in 0..NETWORKS {
            let [_, a, b, c] = network.to_be_bytes();
            ask(&mut limit, 0, &format!("{}.{b}.{c}.1", 1 + a));
        }
        assert!(!ask(&mut limit, 0, "192.0.2.1"));
    }

    #[test]
    fn clones_share_the_budget() {
        let mut limit = builder().answers_per_second(1).build().unwrap();
        let mut clone = limit.clone();
        assert!(ask(&mut limit, 0, "192.0.2.1"));
        assert!(!ask(&mut clone, 0, "192.0.2.1"));
    }

    #[test]
    fn the_key_is_not_shown_and_random_by_default() {
        let secret = builder().key([123; 16]);
        assert!(!format!("{secret:?}{:?}", secret.clone().build().unwrap()).contains("123"));
        let [one, two] = [RateLimit::default(), RateLimit::default()];
        let ip = "192.0.2.1".parse().unwrap();
        assert_ne!(one.table.source(ip), two.table.source(ip));
    }

    #[test]
    fn networks_are_spread_over_the_whole_table() {
        // A quarter of the places: in sets of four, few have no room.
        let (places, networks) = (1 << 14, 1_u32 << 12);
        let limit = RateLimit::builder().key([7; 16]).sources(places);
        let mut limit = limit.answers_per_second(1).build().unwrap();
        let mut answered = || {
            (0..networks)
                .filter(|network| {
                    let [_, _, b, c] = network.to_be_bytes();
                    ask(&mut limit, 0, &format!("10.{b}.{c}.1"))
                })
                .count()
        };
        assert_eq!(answered(), 4_096);
        let forgotten = answered();
        assert!(forgotten < 100, "{forgotten} of {networks}");
    }
}
