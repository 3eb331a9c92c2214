#[cfg(feature = "udp")]
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::time::Duration;

use super::sockets::Sockets;
use super::{Client, ClientCore, Retry};
use crate::codec::{Codec, Correlation};
use crate::transport::Connect;
#[cfg(feature = "udp")]
use crate::udp::UdpConnector;

/// Options of a client.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Client, Retry};
/// use std::time::Duration;
///
/// let client = Client::builder(Text)
///     .timeout(Duration::from_secs(1))
///     .retry(Retry::new().initial(Duration::from_millis(100)))
///     .window(16)
///     .connect("127.0.0.1:9999")?;
/// assert_eq!(client.in_flight(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientBuilder<C> {
    codec: C,
    options: Options,
}

impl<C: Codec> ClientBuilder<C> {
    /// The defaults.
    pub(super) fn new(codec: C) -> Self {
        Self {
            codec,
            options: Options {
                timeout: Duration::from_secs(5),
                retry: Retry::new(),
                fail_when_unreachable: false,
                window: 1_024,
                quarantine: MAX_RTT,
                resting_sockets: 512,
            },
        }
    }

    /// How long a request may take in all, retransmissions included. Default: 5 seconds. Zero
    /// fails every request.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    /// use std::time::Duration;
    ///
    /// let second = Duration::from_secs(1);
    /// let nobody = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).timeout(second).with_connector(SimNet::new(), nobody);
    /// let error = client.request("anybody?").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { after, .. } if after == second));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// When a request is sent again. Default: [`Retry::new`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError, Retry};
    ///
    /// let nobody = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .retry(Retry::never())
    ///     .with_connector(SimNet::new(), nobody);
    /// let error = client.request("anybody?").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { sends: 1, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Whether a request fails at once when the system reports that the peer cannot be reached (a
    /// closed port, for example), rather than at the deadline. Default: `false`, because the
    /// message behind such a report can be forged by anybody, and a server that restarts causes it
    /// too.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::{Link, SimNet};
    /// use rejoinder::{Client, RequestError};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.set_link(Link::new().port_unreachable(true))?;
    /// let nobody = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .fail_when_unreachable(true)
    ///     .with_connector(net.clone(), nobody);
    /// let error = client.request("anybody?").unwrap_err();
    /// assert!(matches!(error, RequestError::NobodyListening { .. }));
    /// assert_eq!(net.now().monotonic, Duration::ZERO); // at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fail_when_unreachable(mut self, fail: bool) -> Self {
        self.options.fail_when_unreachable = fail;
        self
    }

    /// How many requests can be submitted without their results being collected. Default: 1,024.
    /// A protocol without ids needs a socket for each that is in flight; one with narrow ids may
    /// have fewer ids than this.
    ///
    /// # Panics
    ///
    /// If it is 0.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// let server = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).window(2).with_connector(SimNet::new(), server);
    /// assert!(client.submit("one").is_ok() && client.submit("two").is_ok());
    /// assert!(client.submit("three").is_err());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub fn window(mut self, requests: usize) -> Self {
        assert!(requests > 0, "a window for at least one request");
        self.options.window = requests;
        self
    }

    /// How long an id rests after its request has a result, because an old answer that carries it
    /// may still arrive; and where there are no ids, how long the
    /// [socket](Client#whose-answer-it-is) rests, for the sake of its port. Default: 202 seconds,
    /// the longest that a datagram and its answer take by RFC 7252 §4.8.2 (`MAX_RTT`). Zero means
    /// no rest.
    ///
    /// Ids of 48 bits or more need none: that a random one comes again so soon is less likely than
    /// that a forger guesses it.
    ///
    /// At most 65,536 ids rest or are in use; when that many are, the window is full.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// // On a network where nothing is under way for longer than a second.
    /// let client = Client::builder(Text)
    ///     .quarantine(Duration::from_secs(2))
    ///     .connect("127.0.0.1:9999")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn quarantine(mut self, time: Duration) -> Self {
        self.options.quarantine = time;
        self
    }

    /// How many sockets may rest, where the protocol has no ids: what happens then is told
    /// [there](Client#whose-answer-it-is). Each costs a file descriptor and what the system keeps
    /// for a socket. Default: 512, half of the 1,024 descriptors that a process usually may have;
    /// one that asks a slow or dead server more often than 512 times in the time of the
    /// [quarantine](Self::quarantine) needs more, or ids.
    ///
    /// It is looked at when a request is submitted: those in flight, at most a
    /// [window](Self::window), come to rest in any case.
    ///
    /// # Panics
    ///
    /// If it is 0. [No rest](Self::quarantine) is another matter.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    ///
    /// let nobody = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .resting_sockets(1)
    ///     .with_connector(SimNet::new(), nobody);
    /// assert!(matches!(
    ///     client.request("one"),
    ///     Err(RequestError::TimedOut { .. })
    /// ));
    /// // An answer may still be on its way to the socket of the first.
    /// let error = client.request("two").unwrap_err();
    /// assert!(matches!(error, RequestError::WindowFull { resting: 1, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn resting_sockets(mut self, sockets: usize) -> Self {
        assert!(sockets > 0, "at least one socket that rests");
        self.options.resting_sockets = sockets;
        self
    }

    /// A client over UDP that asks the first of the addresses. Fails if there is none, because a
    /// name is not known, say. Sockets are opened for requests, with the defaults of
    /// [`UdpOptions`](crate::udp::UdpOptions).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// assert!(Client::builder(Text).connect("127.0.0.1:9999").is_ok());
    /// assert!(Client::builder(Text).connect("127.0.0.1").is_err()); // no port
    /// ```
    #[cfg(feature = "udp")]
    pub fn connect(self, peer: impl ToSocketAddrs) -> io::Result<Client<UdpConnector, C>> {
        let peer = peer
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no address to ask"))?;
        Ok(self.with_connector(UdpConnector::default(), peer))
    }

    /// A client over any transport, or over UDP with [options](crate::udp::UdpOptions) of your own.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::{UdpConnector, UdpOptions};
    /// use rejoinder::Client;
    ///
    /// // UDP, with options that `connect` leaves at their defaults.
    /// let plain = UdpConnector::from(UdpOptions::new().portable());
    /// let client = Client::builder(Text).with_connector(plain, "127.0.0.1:9999".parse()?);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn with_connector<N: Connect>(self, connector: N, peer: SocketAddr) -> Client<N, C> {
        let sockets = match self.codec.correlation() {
            Correlation::Socket => {
                Sockets::own(self.options.quarantine, self.options.resting_sockets)
            }
            Correlation::Id { .. } => Sockets::Shared(None),
        };
        Client::with(connector, sockets, self.core(peer))
    }

    /// The core of such a client, for a driver of your own.
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) and [`udp`](Self::udp) do, if the codec's ids do not have 1 to 64 bits.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let core = Client::builder(Text).core("192.0.2.1:9999".parse()?);
    /// assert!(core.has_room() && core.next_timer().is_none());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn core(self, peer: SocketAddr) -> ClientCore<C> {
        ClientCore::new(self.codec, peer, self.options)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
    pub(super) fail_when_unreachable: bool,
    pub(super) window: usize,
    pub(super) quarantine: Duration,
    pub(super) resting_sockets: usize,
}

/// RFC 7252 §4.8.2: twice `MAX_LATENCY` and `PROCESSING_DELAY`.
const MAX_RTT: Duration = Duration::from_secs(202);
