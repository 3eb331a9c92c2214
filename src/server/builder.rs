use std::io;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use super::handle::Shared;
use super::{ServeError, Server, Worker};
use crate::codec::Codec;
use crate::gate::{Gate, REFLECTOR_PORTS};
use crate::transport::{MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES, Transport};
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
///     .max_reply_bytes(1_200)
///     .max_age(Duration::from_secs(5)) // when its clients give up
///     .gate(RateLimit::default())
///     .bind("127.0.0.1:0")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerBuilder<C, G = ()> {
    codec: C,
    gate: G,
    blocked_ports: Vec<u16>,
    #[cfg(feature = "udp")]
    udp: UdpOptions,
    #[cfg(feature = "udp")]
    workers: usize,
    limits: Limits,
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
            #[cfg(feature = "udp")]
            workers: 1,
            limits: Limits {
                max_age: None,
                max_request_bytes: MAX_DATAGRAM_BYTES,
                max_reply_bytes: MAX_DATAGRAM_BYTES,
                // With 64 peers that have two requests each in flight, twice as many as 64 let most of
                // the replies leave in pairs; 256 are no better.
                batch: 128,
                busy_poll: false,
            },
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
            #[cfg(feature = "udp")]
            udp: self.udp,
            #[cfg(feature = "udp")]
            workers: self.workers,
            limits: self.limits,
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
    #[must_use]
    pub fn blocked_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.blocked_ports = ports.into_iter().collect();
        self
    }

    /// How old a request may be when its turn comes; an older one is dropped unread, as
    /// [`Stale`](crate::DropReason::Stale). Set it to the time after which clients have given up. Default:
    /// no limit. Zero drops whatever waited at all.
    ///
    /// Its age is the time that it waited in the system's queue, if the transport knows
    /// ([`Meta::waited`](crate::transport::Meta::waited); over UDP on Linux it does, unless the socket is
    /// [portable](UdpOptions::portable): [`bind`](Self::bind) then asks for
    /// [timestamps](UdpOptions::timestamps)), and the time since it was received. The clock is then read for
    /// each request, by the system and by the server.
    ///
    /// The system notes the time of arrival by the civil clock. If that is set while datagrams wait in
    /// the queue, they seem older or younger by as much; what seems to have come later than now, or
    /// over an hour ago, counts as not having waited there.
    ///
    /// Linux notes times of arrival only while a socket of the machine asks for them, and takes a
    /// moment to begin: what waits in the queue meanwhile seems to arrive when it is received.
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
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.limits.max_age = Some(max_age);
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
    /// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    /// ```
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_request_bytes = bytes;
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
    /// let server = Server::builder(Text).max_reply_bytes(1_280 - 40 - 8).bind("127.0.0.1:0")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn max_reply_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_reply_bytes = bytes;
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
    #[must_use]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.udp = options;
        self
    }

    /// How many threads serve, each with a socket of its own on the same address, a clone of the
    /// codec and of the gates, and the one handler. The system spreads peers among the sockets, so
    /// the requests of one peer are answered by one worker, in order unless replies carry
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
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Whether the server waits for requests without ever giving up the processor. It saves the
    /// time to fall asleep and wake up, several microseconds per request at low load, and costs all
    /// of one core per worker, idle or not. Default: `false`.
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
    #[must_use]
    pub fn busy_poll(mut self, busy_poll: bool) -> Self {
        self.limits.busy_poll = busy_poll;
        self
    }

    /// A server on UDP sockets of its own, bound to the first of the addresses that can be had; the
    /// error is the last one's.
    ///
    /// A limit that is out of range is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput), and so are no workers. More workers than one
    /// where the system cannot spread the peers are one of the kind
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Server;
    ///
    /// let server = Server::builder(Text).bind("127.0.0.1:0")?;
    /// assert!(server.local_addr()?.ip().is_loopback());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Server<UdpTransport, C, G>>
    where
        C: Clone,
        G: Clone,
    {
        let check = self.limits.check();
        check.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let udp = match self.limits.max_age {
            Some(_) => self.udp.clone().timestamps(true),
            None => self.udp.clone(),
        };
        let mut group = udp.bind_group(addr, self.workers)?;
        let last = group.pop().expect("a group has a socket");
        Ok(self.with_all(group, last))
    }

    /// A server on a transport that is open already, with one worker.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Server;
    /// use std::net::UdpSocket;
    ///
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = Server::builder(Text).with_transport(UdpOptions::new().adopt(socket)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_transport<T: Transport>(self, transport: T) -> Server<T, C, G> {
        self.with(Vec::new(), transport)
    }

    /// A server on several transports that are open already, with a worker for each: on sockets that
    /// a service manager passes, say. They may have different addresses.
    ///
    /// The requests of one peer are answered in order if they all arrive at the same transport, as
    /// they do in a [group](UdpOptions::bind_group), and replies carry no
    /// [ids](crate::Correlation::Id). None at all is an error of the kind
    /// [`InvalidInput`](io::ErrorKind::InvalidInput).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::Server;
    ///
    /// let transports = [UdpTransport::bind("127.0.0.1:0")?, UdpTransport::bind("127.0.0.1:0")?];
    /// let server = Server::builder(Text).with_transports(transports)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_transports<T: Transport>(
        self,
        transports: impl IntoIterator<Item = T>,
    ) -> io::Result<Server<T, C, G>>
    where
        C: Clone,
        G: Clone,
    {
        let mut transports: Vec<_> = transports.into_iter().collect();
        let last = transports.pop().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a server has a transport")
        })?;
        Ok(self.with_all(transports, last))
    }

    fn with_all<T>(self, transports: Vec<T>, last: T) -> Server<T, C, G>
    where
        C: Clone,
        G: Clone,
    {
        let workers = transports.into_iter().map(|transport| Worker {
            transport,
            codec: self.codec.clone(),
            gate: self.gate.clone(),
        });
        let workers = workers.collect();
        self.with(workers, last)
    }

    fn with<T>(self, mut workers: Vec<Worker<T, C, G>>, transport: T) -> Server<T, C, G> {
        workers.push(Worker {
            transport,
            codec: self.codec,
            gate: self.gate,
        });
        Server {
            shared: Arc::new(Shared::new(workers.len())),
            workers,
            limits: self.limits,
            blocked_ports: self.blocked_ports,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_request_bytes: usize,
    pub(super) max_reply_bytes: usize,
    /// In buffers for receiving.
    pub(super) batch: usize,
    pub(super) busy_poll: bool,
    pub(super) max_age: Option<Duration>,
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), ServeError> {
        let limits = [
            ("max_request_bytes", self.max_request_bytes),
            ("max_reply_bytes", self.max_reply_bytes),
        ];
        match limits
            .into_iter()
            .find(|limit| limit.1 > MAX_V6_DATAGRAM_BYTES)
        {
            None => Ok(()),
            Some((limit, bytes)) => Err(ServeError::LimitOutOfRange { limit, bytes }),
        }
    }
}

#[cfg(all(test, feature = "udp"))]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
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
            let features = server.unwrap().workers[0].transport.features();
            features.to_string().contains("timestamp")
        };
        assert_eq!(has_times(UdpOptions::new()), cfg!(target_os = "linux"));
        assert!(!has_times(UdpOptions::new().portable()));
    }
}
