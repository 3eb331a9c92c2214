mod connect;

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use super::Retry;
use super::options::Options;
use crate::codec::Codec;
use crate::transport::{Blocking, LocalPort};
#[cfg(feature = "udp")]
use crate::udp::UdpOptions;

/// Settings of a client.
///
/// A setting out of range is a [`ConfigError`](crate::ConfigError) of [`connect`](Self::connect),
/// [`with_connector`](Self::with_connector) and [`core`](Self::core).
///
/// `D` says what drives the client: the thread that calls it, unless the builder comes from
/// `aio::Client::builder`, whose `connect` is async.
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
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder<C, D = Blocking> {
    codec: C,
    options: Options,
    other_peers: Vec<SocketAddr>,
    #[cfg(feature = "udp")]
    pub(crate) udp: UdpOptions,
    driver: PhantomData<D>,
}

impl<C: Codec, D> ClientBuilder<C, D> {
    #[cfg(feature = "tokio")]
    pub(crate) fn codec(&self) -> &C {
        &self.codec
    }

    /// The defaults.
    pub(crate) fn new(codec: C) -> Self {
        Self {
            codec,
            options: Options::DEFAULT,
            other_peers: Vec::new(),
            #[cfg(feature = "udp")]
            udp: UdpOptions::new(),
            driver: PhantomData,
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
    /// let absent = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).timeout(second).with_connector(SimNet::new(), absent)?;
    /// let error = client.request("hello?").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { after, .. } if after == second));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// let absent = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .retry(Retry::never())
    ///     .with_connector(SimNet::new(), absent)?;
    /// let error = client.request("hello?").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { sends: 1, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Whether a request fails at once when the OS reports that the peer cannot be reached (a closed
    /// port, for example), rather than at the deadline. Default: `false`, because the packet behind
    /// such a report can be forged, and a server that restarts causes it too.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::{Link, SimNet};
    /// use rejoinder::{Client, RequestError};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.set_link(Link::new().port_unreachable(true))?;
    /// let absent = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .fail_when_unreachable(true)
    ///     .with_connector(net.clone(), absent)?;
    /// let error = client.request("hello?").unwrap_err();
    /// assert!(matches!(error, RequestError::NobodyListening { .. }));
    /// assert_eq!(net.now().monotonic, Duration::ZERO); // at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail_when_unreachable(mut self, fail: bool) -> Self {
        self.options.fail_when_unreachable = fail;
        self
    }

    /// How many requests can be submitted without their results being collected. Default: 1,024.
    /// Zero is out of range. A protocol without ids needs a socket for each that is in flight.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// let server = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).window(2).with_connector(SimNet::new(), server)?;
    /// assert!(client.submit("one").is_ok() && client.submit("two").is_ok());
    /// assert!(client.submit("three").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn window(mut self, requests: usize) -> Self {
        self.options.window = requests;
        self
    }

    /// How long a [socket](crate::Client#whose-response-it-is) stays open after the last request that used
    /// it has its result, because an old response may still arrive at its port. Default: 202 seconds,
    /// the longest that a datagram and its response take by RFC 7252 §4.8.2 (`MAX_RTT`). Zero means
    /// that it is closed at once.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// // On a network where nothing is under way for longer than a second.
    /// let client = Client::builder(Text)
    ///     .cooldown(Duration::from_secs(2))
    ///     .connect("127.0.0.1:9999")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn cooldown(mut self, time: Duration) -> Self {
        self.options.cooldown = time;
        self
    }

    /// How many sockets may cool down at a time; what happens beyond that is documented
    /// [there](crate::Client#whose-response-it-is). Each costs a file descriptor and what the kernel keeps
    /// for a socket. Default: 512, half of the 1,024 descriptors that a process usually may have.
    /// Zero is out of range: set the [cooldown](Self::cooldown) to zero for none.
    ///
    /// The limit is looked at when a request is submitted: the sockets of those in flight, at most
    /// a [window](Self::window), cool down in any case.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    ///
    /// let absent = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .max_cooling_sockets(1)
    ///     .with_connector(SimNet::new(), absent)?;
    /// assert!(matches!(
    ///     client.request("one"),
    ///     Err(RequestError::TimedOut { .. })
    /// ));
    /// // A response may still be on its way to the socket of the first.
    /// let error = client.request("two").unwrap_err();
    /// assert!(matches!(error, RequestError::WindowFull { cooling: 1, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_cooling_sockets(mut self, sockets: usize) -> Self {
        self.options.max_cooling_sockets = sockets;
        self
    }

    /// The most datagrams, and the most bytes of payload, that a response of
    /// [several datagrams](crate::codec::ResponseKind::Part) may have. One that is larger is ignored, and
    /// named in the error at the deadline. Default: 2,048 datagrams and 2 MiB. Zero datagrams are out of
    /// range. Each slot of the [window](Self::window) can hold so much, and keeps the memory.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let client = Client::builder(Text)
    ///     .max_response(64, 65_536)
    ///     .connect("127.0.0.1:9999")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn max_response(mut self, datagrams: usize, bytes: usize) -> Self {
        self.options.max_response_parts = datagrams;
        self.options.max_response_bytes = bytes;
        self
    }

    /// How many peers may respond to a request to a [group](crate::Client::discover); further ones are ignored.
    /// Default: 1,024. Zero is out of range. An address takes about 50 bytes until the discovery is over.
    /// The responses that wait to be collected may have as many bytes as one of
    /// [several datagrams](Self::max_response); what goes beyond that is ignored.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let group = "239.1.2.3".parse()?;
    /// for member in ["10.0.0.1".parse()?, "10.0.0.2".parse()?] {
    ///     net.host((member, 9999).into(), ServerCore::new(Text, |_: &str| Some("here".to_owned())))?;
    ///     net.join_group(group, member);
    /// }
    /// let mut client = Client::builder(Text)
    ///     .max_responders(1)
    ///     .with_connector(net, (group, 9999).into())?;
    /// let mut discovery = client.discover("who is there?", Duration::from_secs(1))?;
    /// assert!(discovery.next_response().is_some());
    /// assert!(discovery.next_response().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_responders(mut self, peers: usize) -> Self {
        self.options.max_responders = peers;
        self
    }

    /// From which local ports requests are sent. Default: [`LocalPort::Renewed`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::transport::LocalPort;
    /// use rejoinder::Client;
    ///
    /// let absent = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text)
    ///     .local_port(LocalPort::PerSend)
    ///     .with_connector(SimNet::new(), absent)?;
    /// client.request("hello?").unwrap_err(); // sent three times
    /// assert_eq!(client.stats().cooling_sockets, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn local_port(mut self, port: LocalPort) -> Self {
        self.options.local_port = port;
        self
    }

    /// Further addresses of the server, after the one that [`connect`](Self::connect) or
    /// [`with_connector`](Self::with_connector) is given. A request moves to the next address, and later
    /// requests begin with that one,
    ///
    /// - at once, if the OS reports that the address cannot be reached (a closed port, for example);
    /// - with a retransmission, if there is no response: with the first one where each request has a
    ///   [socket of its own](crate::Client#whose-response-it-is), otherwise when the shared socket is replaced.
    ///
    /// Retransmissions come early enough for each address to have its share of the
    /// [timeout](Self::timeout), as far as [`Retry::max_sends`] allows it, for 8 addresses at most. The request
    /// after one without any response begins with the next address, too. Names that get other addresses:
    /// [`Client::set_peers`](crate::Client::set_peers).
    ///
    /// A response of any address to which the request was sent is accepted. Two of them may carry the
    /// request out. Default: none.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::{Link, SimNet};
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.set_link(Link::new().port_unreachable(true))?;
    /// let [down, up] = ["10.0.0.1:9999".parse()?, "10.0.0.2:9999".parse()?];
    /// net.host(up, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let mut client = Client::builder(Text)
    ///     .other_peers([up])
    ///     .with_connector(net.clone(), down)?;
    /// assert_eq!(client.request("hello?")?, "HELLO?");
    /// assert_eq!(net.now().monotonic, Duration::ZERO); // at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn other_peers(mut self, peers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.other_peers = peers.into_iter().collect();
        self
    }

    /// How [`connect`](Self::connect) opens sockets. Default: [`UdpOptions::new`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpOptions;
    /// use rejoinder::Client;
    ///
    /// let client = Client::builder(Text)
    ///     .udp_options(UdpOptions::new().portable())
    ///     .connect("127.0.0.1:9999")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.udp = options;
        self
    }
}

#[cfg(feature = "tokio")]
impl<C> ClientBuilder<C> {
    /// The same settings for a client that something else drives.
    pub(crate) fn driven_by<D>(self) -> ClientBuilder<C, D> {
        ClientBuilder {
            codec: self.codec,
            options: self.options,
            other_peers: self.other_peers,
            #[cfg(feature = "udp")]
            udp: self.udp,
            driver: PhantomData,
        }
    }
}
