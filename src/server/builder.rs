use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::time::Duration;

use super::Server;
use super::config::WorkerConfig;
use super::core::{Behind, ServerCore};
use super::source::SourceCheck;
use crate::codec::Codec;
use crate::config_error::ConfigError;
use crate::gate::{Gate, REFLECTOR_PORTS};
use crate::proxy::{MAX_HEADER_BYTES, Proxies};
use crate::transport::Transport;
#[cfg(feature = "udp")]
use crate::udp::{UdpOptions, UdpTransport};

/// Options of a server. Every one has a default that is right for most.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::RateLimit;
/// use rejoinder::Server;
/// use std::time::Duration;
///
/// let server = Server::builder(Text)
///     .max_request_bytes(1_200)
///     .max_response_bytes(1_200)
///     .max_age(Duration::from_secs(5)) // when its clients give up
///     .gate(RateLimit::default())
///     .bind("127.0.0.1:0")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerBuilder<C, G = ()> {
    codec: C,
    gate: G,
    blocked_ports: Vec<u16>,
    local_addrs: Vec<SocketAddr>,
    max_age: Option<Duration>,
    proxies: Option<Proxies>,
    #[cfg(feature = "udp")]
    udp: UdpOptions,
    #[cfg(feature = "udp")]
    workers: usize,
    pub(crate) config: WorkerConfig,
}

impl<C: Codec> ServerBuilder<C> {
    /// The defaults.
    pub(super) fn new(codec: C) -> Self {
        Self {
            codec,
            gate: (),
            blocked_ports: REFLECTOR_PORTS.to_vec(),
            #[cfg(feature = "udp")]
            udp: UdpOptions::new(),
            local_addrs: Vec::new(),
            max_age: None,
            proxies: None,
            config: WorkerConfig::DEFAULT,
            #[cfg(feature = "udp")]
            workers: 1,
        }
    }
}

impl<C: Codec, G: Gate> ServerBuilder<C, G> {
    /// Adds a [gate](Gate), after those that are there. Default: none, beside what is
    /// [always on](crate::DropReason).
    ///
    /// A server on a public address should have a [`RateLimit`](crate::gate::RateLimit).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::{AmplificationLimit, RateLimit};
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Text)
    ///     .gate(AmplificationLimit::default())
    ///     .gate(RateLimit::default())
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn gate<G2: Gate>(self, gate: G2) -> ServerBuilder<C, (G, G2)> {
        ServerBuilder {
            codec: self.codec,
            gate: (self.gate, gate),
            blocked_ports: self.blocked_ports,
            local_addrs: self.local_addrs,
            max_age: self.max_age,
            proxies: self.proxies,
            #[cfg(feature = "udp")]
            udp: self.udp,
            config: self.config,
            #[cfg(feature = "udp")]
            workers: self.workers,
        }
    }

    /// The source ports that are never answered, instead of [`REFLECTOR_PORTS`]. None at all means
    /// that only port 0 is not.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::REFLECTOR_PORTS;
    /// use rejoinder::Server;
    ///
    /// // NTP's peers ask from port 123 (RFC 5905 §9.1).
    /// let others = REFLECTOR_PORTS.iter().copied().filter(|&port| port != 123);
    /// let server = Server::builder(Text)
    ///     .blocked_ports(others)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn blocked_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.blocked_ports = ports.into_iter().collect();
        self
    }

    /// How old a request may be when its turn comes; an older one is dropped unread, as
    /// [`Stale`](crate::DropReason::Stale). Set it to the time after which clients have given up. Default:
    /// no limit. Zero drops whatever waited at all.
    ///
    /// Its age is the time that it waited in the kernel's queue, if the transport knows
    /// ([`Meta::waited`](crate::transport::Meta::waited); over UDP on Linux it does, unless the
    /// socket is [portable](UdpOptions::portable): [`bind`](Self::bind) then asks for
    /// [timestamps](UdpOptions::timestamps)), and the time since it was received. The clock is then
    /// read for each request, by the system and by the server.
    ///
    /// The kernel stamps arrivals by the wall clock. If the clock is set while datagrams wait, they
    /// seem older or younger by as much. A time of arrival in the future, or over an hour ago, is
    /// ignored.
    ///
    /// Linux stamps arrivals only while a socket of the machine asks for it, and takes a moment to
    /// begin. Until then, a datagram seems to arrive when it is received.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    /// use std::time::Duration;
    ///
    /// let server = Server::builder(Text)
    ///     .max_age(Duration::from_secs(5))
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// The longest request that is read, in bytes; longer ones are dropped as
    /// [`Truncated`](crate::DropReason::Truncated). Default: 65,507, all that a datagram can carry over
    /// IPv4. Up to 65,527, which is all over IPv6 (RFC 8200 §3); more is an error of
    /// [`bind`](Self::bind), or of [`serve`](Server::serve) after [`with_transport`](Self::with_transport). Zero reads
    /// empty requests only.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// assert!(
    ///     Server::builder(Text)
    ///         .max_request_bytes(65_527)
    ///         .bind("127.0.0.1:0")
    ///         .is_ok()
    /// );
    /// let error = Server::builder(Text)
    ///     .max_request_bytes(65_528)
    ///     .bind("127.0.0.1:0")
    ///     .unwrap_err();
    /// assert_eq!(error.to_string(), "max_request_bytes is 65528, must be 0 to 65527");
    /// ```
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.config.max_request_bytes = bytes;
        self
    }

    /// The longest reply that is sent, in bytes; a handler that tries a longer one gets
    /// [`TooLong`](crate::ReplyError::TooLong). Default: 65,507. Up to 65,527, as for
    /// [requests](Self::max_request_bytes). With zero, only empty replies are.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// // What the way to anybody carries in one piece (RFC 8200 §5): 1,280 bytes less the headers.
    /// let server = Server::builder(Text).max_response_bytes(1_280 - 40 - 8).bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.config.max_response_bytes = bytes;
        self
    }

    /// How the sockets of [`bind`](Self::bind) are opened. Default: [`UdpOptions::new`]. It says
    /// nothing to [`with_transport`](Self::with_transport), whose transport is open already.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Server;
    ///
    /// let large = UdpOptions::new().receive_buffer_bytes(16 << 20);
    /// let server = Server::builder(Text).udp_options(large).bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.udp = options;
        self
    }

    /// The number of threads. Each has a socket of its own on the same address, and a clone of the
    /// codec and of the gates. They share the handler. The kernel spreads peers among the sockets,
    /// so the requests of one peer are answered by one worker, in order unless replies carry
    /// [ids](crate::Correlation::Id). Default: 1.
    ///
    /// It is for [`bind`](Self::bind), and more than one needs Linux: there and elsewhere see
    /// [`UdpOptions::bind_group`]. Zero is an error.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// # #[cfg(target_os = "linux")]
    /// let server = Server::builder(Text).workers(2).bind("127.0.0.1:0")?;
    /// assert!(
    ///     Server::builder(Text)
    ///         .workers(0)
    ///         .bind("127.0.0.1:0")
    ///         .is_err()
    /// );
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Whether the server waits for requests without ever giving up the processor. It saves the
    /// time to wake up, several microseconds per request at low load. It costs all of one core per
    /// worker, idle or not. Default: `false`.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Text)
    ///     .busy_poll(true)
    ///     .bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn busy_poll(mut self, busy_poll: bool) -> Self {
        self.config.busy_poll = busy_poll;
        self
    }

    /// Puts the server behind proxies that name the client in a PROXY header, see
    /// [`proxy`](crate::proxy). Default: none, and a header is taken for a part of the request.
    ///
    /// A datagram that comes by none of them is dropped. The checks of the sender, gates,
    /// [`Dedup`](crate::handler::Dedup) and the handler see the client; the response goes to the proxy.
    /// [`max_request_bytes`](Self::max_request_bytes) does not count the header.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::proxy::{Proxies, ProxyMode};
    ///
    /// let proxies = Proxies::builder(ProxyMode::V2).trust("10.0.0.0".parse()?, 8).build()?;
    /// let server = Server::builder(Text).behind(proxies).bind("127.0.0.1:0")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn behind(mut self, proxies: Proxies) -> Self {
        self.proxies = Some(proxies);
        self.config.header_bytes = MAX_HEADER_BYTES;
        self
    }

    /// Adds an address that the server is bound to: datagrams that claim to come from there are
    /// dropped as [`SourceOwn`](crate::DropReason::SourceOwn). [`bind`](Self::bind) and
    /// [`with_transport`](Self::with_transport) add the addresses of their sockets; a driver of a
    /// [core](Self::core) adds its own. Default: none.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Server, Timestamp};
    ///
    /// let echo = |text: &str| Some(text.to_owned());
    /// let own = "192.0.2.1:9999".parse()?;
    /// let mut core = Server::builder(Text).local_addr(own).core(echo);
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(b"hello", Meta::new(own));
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::SourceOwn), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local_addrs.push(addr);
        self
    }

    /// A server on UDP sockets of its own, bound to the first of the addresses that can be had; the
    /// error is the last one's.
    ///
    /// [`max_request_bytes`](Self::max_request_bytes) and [`max_response_bytes`](Self::max_response_bytes)
    /// take 0 to 65,527, [`workers`](Self::workers) at least 1. More workers than one where the OS
    /// cannot spread the peers are an [`io::Error`](std::io::Error) of the kind
    /// [`Unsupported`](std::io::ErrorKind::Unsupported).
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    ///
    /// let server = Server::builder(Text).bind("127.0.0.1:0")?;
    /// assert!(server.local_addr()?.ip().is_loopback());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn bind(self, addr: impl ToSocketAddrs) -> Result<Server<UdpTransport, C, G>, ConfigError>
    where
        C: Clone,
        G: Clone,
    {
        let group = self.bind_group(addr)?;
        self.with_transports(group)
    }

    /// The sockets of [`bind`](Self::bind).
    #[cfg(feature = "udp")]
    pub(crate) fn bind_group(
        &self,
        addr: impl ToSocketAddrs,
    ) -> Result<Vec<UdpTransport>, ConfigError> {
        self.config.check()?;
        if self.workers == 0 {
            return Err(ConfigError::out_of_range("workers", 0, "at least 1"));
        }
        let udp = match self.max_age {
            Some(_) => self.udp.clone().timestamps(true),
            None => self.udp.clone(),
        };
        udp.bind_group(addr, self.workers)
    }

    /// A server on a transport that is open already, with one worker.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpOptions;
    /// use std::net::UdpSocket;
    ///
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = Server::builder(Text).with_transport(UdpOptions::new().adopt(socket)?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_transport<T: Transport>(
        self,
        transport: T,
    ) -> Result<Server<T, C, G>, ConfigError> {
        let config = self.config;
        config.check()?;
        let mut core = self.core(());
        if let Ok(addr) = transport.local_addr() {
            core.add_local_addr(addr);
        }
        core.set_is_local_ip(T::is_local_ip);
        Ok(Server::new(vec![(transport, core)], config))
    }

    /// A server on several transports that are open already, with a worker for each: on sockets that
    /// a service manager passes, say. They may have different addresses. There must be at least one.
    ///
    /// The requests of one peer are answered in order if they all arrive at the same transport, as
    /// they do in a [group](UdpOptions::bind_group), and responses carry no
    /// [ids](crate::Correlation::Id).
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// let transports = [UdpTransport::bind("127.0.0.1:0")?, UdpTransport::bind("127.0.0.1:0")?];
    /// let server = Server::builder(Text).with_transports(transports)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_transports<T: Transport>(
        mut self,
        transports: impl IntoIterator<Item = T>,
    ) -> Result<Server<T, C, G>, ConfigError>
    where
        C: Clone,
        G: Clone,
    {
        let config = self.config;
        config.check()?;
        let transports: Vec<_> = transports.into_iter().collect();
        if transports.is_empty() {
            return Err(ConfigError::out_of_range("transports", 0, "at least 1"));
        }
        // Two workers that face each other must go quiet too.
        let own = transports.iter().filter_map(|one| one.local_addr().ok());
        self.local_addrs.extend(own);
        let workers = transports.into_iter().map(|transport| {
            let mut core = self.clone().core(());
            core.set_is_local_ip(T::is_local_ip);
            (transport, core)
        });
        Ok(Server::new(workers.collect(), config))
    }
}

impl<C: Codec, G: Gate> ServerBuilder<C, G> {
    /// A core with these settings, for a driver of your own: the same that a server drives. The
    /// limits to lengths, [`workers`](Self::workers), [`busy_poll`](Self::busy_poll) and
    /// [`udp_options`](Self::udp_options) are the driver's business and do nothing here; except that
    /// [behind a proxy](Self::behind) the core drops a request that is too long without its header.
    ///
    /// With `()` in place of a handler, the core only [defers](ServerCore::defer_next) requests.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::AmplificationLimit;
    ///
    /// let core = Server::builder(Text)
    ///     .gate(AmplificationLimit::default())
    ///     .core(|text: &str| Some(text.to_uppercase()));
    /// ```
    pub fn core<H>(self, handler: H) -> ServerCore<C, H, G> {
        let mut sources = SourceCheck::new(self.blocked_ports);
        for addr in self.local_addrs {
            sources.add_own(addr);
        }
        let behind = self.proxies.map(|proxies| Behind {
            proxies,
            max_request_bytes: self.config.max_request_bytes,
        });
        ServerCore::assemble(
            self.codec,
            handler,
            self.gate,
            sources,
            behind,
            self.max_age,
        )
    }
}

#[cfg(all(test, feature = "udp"))]
mod tests {
    use std::time::Duration;

    use crate::codec::Text;
    use crate::server::Server;
    use crate::udp::UdpOptions;

    #[test]
    #[cfg_attr(miri, ignore = "needs a socket")]
    fn a_limit_to_the_age_asks_for_times_of_arrival_unless_nothing_is_to_be_asked_for() {
        let has_times = |options: UdpOptions| {
            let builder = Server::builder(Text).udp_options(options);
            let server = builder.max_age(Duration::from_secs(1)).bind("127.0.0.1:0");
            let features = server.unwrap().workers[0].0.features();
            features.to_string().contains("timestamp")
        };
        assert_eq!(has_times(UdpOptions::new()), cfg!(target_os = "linux"));
        assert!(!has_times(UdpOptions::new().portable()));
    }
}
