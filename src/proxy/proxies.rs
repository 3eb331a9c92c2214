use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::flows::Flows;
use super::header::{Header, HeaderError, MAX_V2_REST_BYTES};
use crate::config_error::ConfigError;
use crate::drop_reason::DropReason;
use crate::prefix::Prefix;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Proxied};

/// About 180 MB per worker.
const MAX_FLOWS: usize = 1 << 20;

/// The proxies in front of a server, and how their headers come, for
/// [`ServerBuilder::behind`](crate::ServerBuilder::behind).
///
/// A datagram from any other address is dropped as [`NotProxied`](DropReason::NotProxied), with a
/// header or without: a sender that bypasses the proxy could forge every client. One from a proxy
/// without a valid header is dropped as [`ProxyHeader`](DropReason::ProxyHeader). Nothing is
/// guessed.
///
/// A health check of the proxy itself (the command `LOCAL`, or `UNKNOWN` of version 1) is answered like a
/// request of the proxy, without a [`RateLimit`](crate::gate::RateLimit). In the mode
/// [`FirstOfFlow`](ProxyMode::FirstOfFlow) it has the limit of the proxy's address.
///
/// ```
/// use rejoinder::Server;
/// use rejoinder::codec::Text;
/// use rejoinder::proxy::{Proxies, ProxyMode};
///
/// let proxies = Proxies::builder(ProxyMode::V2)
///     .trust("10.0.0.0".parse()?, 8)
///     .trust("2001:db8::".parse()?, 32)
///     .build()?;
/// let server = Server::builder(Text).behind(proxies).bind("127.0.0.1:0")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Proxies {
    mode: ProxyMode,
    trusted: Vec<Prefix>,
    /// Only where headers come with the first datagram of a flow.
    flows: Option<Flows>,
}

/// Which datagrams have a header, and of which version.
///
/// ```
/// use rejoinder::proxy::{Proxies, ProxyMode};
///
/// let nginx = Proxies::builder(ProxyMode::FirstOfFlow)
///     .trust("192.0.2.7".parse()?, 32)
///     .max_flows(10_000)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyMode {
    /// Each datagram has a header of version 2, which is binary: dnsdist does so, and the
    /// specification demands it since April 2026 ("header and payload share a datagram").
    V2,
    /// Each datagram has a header of version 1, which is text: nginx before 1.31.4 with
    /// `proxy_requests 1`.
    V1,
    /// The first datagram of a flow has a header of either version, and the later ones have none:
    /// nginx and sozu by default. A flow is the proxy's address and port, and its
    /// [association](crate::transport::Meta::association) if the transport has some.
    ///
    /// This is the weaker mode. Flows are remembered in a table of bounded size; a datagram without a
    /// header of a flow that is not remembered is dropped. So where the first datagram is lost or
    /// overtaken, the following ones are dropped too; and where the proxy uses a port for another
    /// client before its header arrives, that client is taken for the one before.
    ///
    /// **A client can name any address.** The later datagrams are the client's own bytes, also where they
    /// begin with a header. Such a header cannot be distinguished from that of a port which the proxy uses
    /// again, so it replaces the flow's client. Limits by client and identities by address are advisory
    /// here. With [`V2`](Self::V2) or [`V1`](Self::V1) there is no such hole: there the proxy's header
    /// always comes first, and what follows it is payload.
    ///
    /// A header that names no client (`LOCAL`, `UNKNOWN`) is no [health check] here, so it lifts no limit. For
    /// a flow that has a client it is dropped as [`ProxyHeader`](DropReason::ProxyHeader), and the flow keeps
    /// its client. A proxy whose own check reuses such a port within the [lifetime] gets no response to that
    /// check.
    ///
    /// [health check]: crate::transport::Proxied::is_health_check
    /// [lifetime]: ProxiesBuilder::flow_lifetime
    FirstOfFlow,
}

/// Builds [`Proxies`].
///
/// ```
/// use rejoinder::proxy::{Proxies, ProxyMode};
///
/// let loopback = Proxies::builder(ProxyMode::V1)
///     .trust("127.0.0.0".parse()?, 8)
///     .trust("::1".parse()?, 128);
/// assert!(loopback.build().is_ok());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ProxiesBuilder {
    mode: ProxyMode,
    trusted: Vec<(IpAddr, u8)>,
    max_flows: usize,
    flow_lifetime: Duration,
}

impl Proxies {
    /// A builder without trusted proxies.
    ///
    /// ```
    /// use rejoinder::proxy::{Proxies, ProxyMode};
    ///
    /// assert!(Proxies::builder(ProxyMode::V2).build().is_err()); // no proxy is trusted
    /// ```
    pub fn builder(mode: ProxyMode) -> ProxiesBuilder {
        ProxiesBuilder {
            mode,
            trusted: Vec::new(),
            max_flows: 65_536,
            flow_lifetime: Duration::from_secs(30),
        }
    }

    /// Determines the client of a datagram, and removes the header.
    #[inline]
    pub(crate) fn unwrap<'d>(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'d>,
    ) -> Result<Unwrapped<'d>, DropReason> {
        let proxy = datagram.meta.peer;
        if !self.trusted.iter().any(|one| one.contains(proxy.ip())) {
            return Err(DropReason::NotProxied);
        }
        let parsed = match self.mode {
            ProxyMode::V2 => Header::parse_v2(datagram.bytes),
            ProxyMode::V1 => Header::parse_v1(datagram.bytes),
            ProxyMode::FirstOfFlow => match Header::parse_v2(datagram.bytes) {
                Err(HeaderError::Missing) => Header::parse_v1(datagram.bytes),
                parsed => parsed,
            },
        };
        let (client, bytes) = match (parsed, &mut self.flows) {
            (Ok((header, bytes)), None) => (header.client, bytes),
            (Ok((header, bytes)), Some(flows)) => {
                let flow = (proxy, datagram.meta.association);
                // These may be a client's own bytes, and must not make it the proxy.
                if header.client.is_none() && flows.has_client(now.monotonic, flow) {
                    return Err(DropReason::ProxyHeader);
                }
                flows.begin(now.monotonic, flow, header.client);
                (header.client, bytes)
            }
            (Err(HeaderError::Missing), Some(flows)) => {
                let flow = flows.find(now.monotonic, (proxy, datagram.meta.association));
                (flow.ok_or(DropReason::ProxyHeader)?.client, 0)
            }
            (Err(_), _) => return Err(DropReason::ProxyHeader),
        };
        let (header, payload) = datagram.bytes.split_at(bytes);
        Ok(Unwrapped {
            client: client.unwrap_or(proxy),
            payload,
            // Where later datagrams are a client's own bytes, only the absence of a client is known.
            proxied: Proxied::new(proxy, client.is_none() && self.flows.is_none()),
            header,
        })
    }
}

impl ProxiesBuilder {
    /// Trusts the proxies of a prefix, 0 to 32 bits for IPv4 and 0 to 128 for IPv6.
    ///
    /// ```
    /// use rejoinder::proxy::{Proxies, ProxyMode};
    ///
    /// let error = Proxies::builder(ProxyMode::V2).trust("10.0.0.0".parse()?, 33).build().unwrap_err();
    /// assert_eq!(error.to_string(), "trust is 33, must be 0 to 32 bits");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn trust(mut self, network: IpAddr, bits: u8) -> Self {
        self.trusted.push((network, bits));
        self
    }

    /// How many flows are remembered in the mode [`FirstOfFlow`](ProxyMode::FirstOfFlow), 1 to 1,048,576.
    /// The oldest one goes first. Default: 65,536. Each takes about 170 bytes, per worker.
    ///
    /// ```
    /// use rejoinder::proxy::{Proxies, ProxyMode};
    ///
    /// let none = Proxies::builder(ProxyMode::FirstOfFlow).trust("::1".parse()?, 128).max_flows(0);
    /// assert_eq!(none.build().unwrap_err().to_string(), "max_flows is 0, must be 1 to 1048576");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn max_flows(mut self, flows: usize) -> Self {
        self.max_flows = flows;
        self
    }

    /// How long a flow is remembered after its latest datagram. Default: 30 seconds. Zero is an error.
    ///
    /// Set it above the proxy's own time (nginx's `proxy_timeout`, 10 minutes by default), or that below
    /// this one. Where the server forgets first, a client that goes on sending keeps the proxy's session
    /// alive, and each of its datagrams is dropped. Where the proxy forgets first, its port may belong
    /// to another client, whose first datagram has a header. If that one is lost, the next ones count for
    /// the client before.
    ///
    /// ```
    /// use rejoinder::proxy::{Proxies, ProxyMode};
    /// use std::time::Duration;
    ///
    /// let proxies = Proxies::builder(ProxyMode::FirstOfFlow)
    ///     .trust("192.0.2.7".parse()?, 32)
    ///     .flow_lifetime(Duration::from_secs(8))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flow_lifetime(mut self, lifetime: Duration) -> Self {
        self.flow_lifetime = lifetime;
        self
    }

    /// Checks the settings. At least one prefix must be trusted.
    pub fn build(self) -> Result<Proxies, ConfigError> {
        if self.trusted.is_empty() {
            return Err(ConfigError::out_of_range("trust", 0, "at least 1"));
        }
        ConfigError::check("max_flows", self.max_flows, 1..=MAX_FLOWS)?;
        if self.flow_lifetime.is_zero() {
            return Err(ConfigError::out_of_range("flow_lifetime", 0, "more than 0"));
        }
        let trusted = self.trusted.iter();
        let trusted = trusted.map(|&(network, bits)| Prefix::new("trust", network, bits));
        Ok(Proxies {
            mode: self.mode,
            trusted: trusted.collect::<Result<_, _>>()?,
            flows: matches!(self.mode, ProxyMode::FirstOfFlow)
                .then(|| Flows::new(self.max_flows, self.flow_lifetime)),
        })
    }
}

/// A datagram without its header.
pub(crate) struct Unwrapped<'d> {
    pub(crate) client: SocketAddr,
    pub(crate) payload: &'d [u8],
    pub(crate) proxied: Proxied,
    pub(crate) header: &'d [u8],
}

/// The longest header that is accepted.
pub(crate) const MAX_HEADER_BYTES: usize = 16 + MAX_V2_REST_BYTES;
