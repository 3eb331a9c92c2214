mod bind;

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::WorkerConfig;
use crate::codec::Codec;
use crate::gate::{Gate, REFLECTOR_PORTS};
use crate::proxy::{MAX_HEADER_BYTES, Proxies};
use crate::transport::Blocking;
#[cfg(feature = "udp")]
use crate::udp::UdpOptions;

/// Options of a server. Every one has a default that is right for most.
///
/// Of the type parameters, `G` are the [gates](Self::gate), and `D` says what drives the server: the
/// threads that call [`Server::serve`](crate::Server::serve), unless the builder comes from
/// `aio::Server::builder`, whose `bind` is async.
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
pub struct ServerBuilder<C, G = (), D = Blocking> {
    codec: C,
    gate: G,
    blocked_ports: Vec<u16>,
    local_addrs: Vec<SocketAddr>,
    max_age: Option<Duration>,
    proxies: Option<Proxies>,
    #[cfg(feature = "udp")]
    udp: Option<UdpOptions>,
    #[cfg(feature = "udp")]
    workers: Option<usize>,
    pub(crate) config: WorkerConfig,
    driver: PhantomData<D>,
}

impl<C: Codec, D> ServerBuilder<C, (), D> {
    /// The defaults.
    pub(crate) fn new(codec: C) -> Self {
        Self {
            codec,
            gate: (),
            blocked_ports: REFLECTOR_PORTS.to_vec(),
            #[cfg(feature = "udp")]
            udp: None,
            local_addrs: Vec::new(),
            max_age: None,
            proxies: None,
            config: WorkerConfig::DEFAULT,
            #[cfg(feature = "udp")]
            workers: None,
            driver: PhantomData,
        }
    }
}

impl<C: Codec, G: Gate, D> ServerBuilder<C, G, D> {
    /// Adds a [gate](Gate), after those that are there. Default: none, beside what is
    /// [always on](crate::DropReason).
    ///
    /// A server on a public address should have a [`RateLimit`](crate::gate::RateLimit).
    ///
    /// The gates are a part of the server's type, in pairs: `()` without, `((), A)` with one,
    /// `(((), A), B)` with two. So a server with a rate limit over UDP is a
    /// `Server<UdpTransport, Text, ((), RateLimit)>`.
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
    pub fn gate<G2: Gate>(self, gate: G2) -> ServerBuilder<C, (G, G2), D> {
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
            driver: PhantomData,
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
    /// [`bind`](Self::bind), or of [`serve`](crate::Server::serve) after [`with_transport`](Self::with_transport). Zero reads
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

    /// The longest response that is sent, in bytes; a handler that tries a longer one gets
    /// [`TooLong`](crate::ReplyError::TooLong). Default: 65,507. Up to 65,527, as for
    /// [requests](Self::max_request_bytes). With zero, only empty responses are.
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

    /// How the sockets of [`bind`](Self::bind) are opened. Default: [`UdpOptions::new`].
    /// With [`with_transport`](Self::with_transport), whose transport is open already, it is an error.
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
        self.udp = Some(options);
        self
    }

    /// The number of threads. Each has a socket of its own on the same address, and a clone of the
    /// codec and of the gates. They share the handler. The kernel spreads peers among the sockets,
    /// so the requests of one peer are answered by one worker, in order unless responses carry
    /// [ids](crate::Correlation::Id). Default: 1.
    ///
    /// It is for [`bind`](Self::bind), and more than one needs Linux: there and elsewhere see
    /// [`UdpOptions::bind_group`]. Zero is an error, and so is another number than that of the
    /// transports that [`with_transports`](Self::with_transports) is given.
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
        self.workers = Some(workers);
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
}

#[cfg(feature = "tokio")]
impl<C, G> ServerBuilder<C, G> {
    /// The same settings for a server that something else drives.
    pub(crate) fn driven_by<D>(self) -> ServerBuilder<C, G, D> {
        ServerBuilder {
            codec: self.codec,
            gate: self.gate,
            blocked_ports: self.blocked_ports,
            local_addrs: self.local_addrs,
            max_age: self.max_age,
            proxies: self.proxies,
            #[cfg(feature = "udp")]
            udp: self.udp,
            config: self.config,
            #[cfg(feature = "udp")]
            workers: self.workers,
            driver: PhantomData,
        }
    }
}
