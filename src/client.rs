//! The client: a short loop around a pure core.

mod addresses;
mod builder;
mod cause;
mod core;
mod discovery;
mod drive;
mod entropy;
mod error;
mod ids;
mod options;
mod parts;
mod peers;
mod queue;
mod responders;
mod retry;
mod rtt;
mod slot;
mod sockets;
mod stats;
mod ticket;
mod timers;

use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;

pub use self::builder::ClientBuilder;
pub use self::core::{ClientCore, RawResponse};
pub use self::discovery::Discovery;
use self::drive::Driver;
#[cfg(feature = "tokio")]
pub(crate) use self::entropy::Entropy;
pub use self::error::RequestError;
use self::options::Options;
pub use self::retry::Retry;
pub use self::sockets::{SocketEvent, SocketId};
pub use self::stats::ClientStats;
pub use self::ticket::Ticket;
use crate::codec::Codec;
#[cfg(feature = "udp")]
use crate::config_error::ConfigError;
use crate::transport::{Connect, Wait};
#[cfg(feature = "udp")]
use crate::udp::UdpConnector;

/// A client: asks one server, and accepts responses from no other. If its address is a multicast group
/// or 255.255.255.255, it accepts those of any peer, because the members have addresses of their own.
///
/// What is lost on the way is sent [again](Retry), and every request has a result by its
/// [deadline](ClientBuilder::timeout).
///
/// ```no_run
/// use rejoinder::codec::Ctime;
/// use rejoinder::Client;
///
/// let mut client = Client::connect("127.0.0.1:8888", Ctime::local())?;
/// println!("{}", client.request("你好吗？")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Many at once
///
/// [`submit`](Self::submit) puts a request among those to be sent and returns at once;
/// [`collect`](Self::collect) sends them, waits, and gives out results as they come:
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::{Client, Wait};
/// use std::collections::HashMap;
///
/// # let net = SimNet::new();
/// # let server = "10.0.0.1:9999".parse()?;
/// # net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
/// let mut client = Client::new(net, Text, server);
/// let mut questions = HashMap::new();
/// for question in ["one", "two", "three"] {
///     questions.insert(client.submit(question)?, question);
/// }
/// while let Some((ticket, result)) = client.collect(Wait::Forever) {
///     assert_eq!(result?, questions[&ticket].to_uppercase());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Whose response it is
///
/// The codec [decides](Codec::correlation) how responses are matched to requests.
///
/// - With ids, requests share one connected socket, and each has an unpredictable id. No id is used
///   twice on one socket: when seven eighths of them are used up, or 65,536, the next request gets
///   another socket, with all ids. (Ids of 48 bits or more do not run out: a repeated random id is
///   less likely than a guessed one.)
/// - Without ids, each request gets a fresh connected socket, which serves its retransmissions and
///   nothing else, so that its local port identifies the response.
///
/// After its last request the socket stays open for the [cooldown](ClientBuilder::cooldown). Until
/// then the OS cannot give its port to another socket, which would accept a late response as its
/// own. At most [so many](ClientBuilder::max_cooling_sockets) cool down. Where that limit is
/// reached, or the OS has no descriptor or port left:
///
/// - A socket to which no response is owed is closed before its time, the oldest first: its requests
///   were sent once and are answered, or were met by a closed port.
/// - A socket to which a response may be on its way is kept for at least a tenth of the cooldown: one of
///   its requests was sent twice, or is unanswered. When there are none but such,
///   [`submit`](Self::submit) fails with [`RequestError::WindowFull`] until then. When the OS has no
///   socket left, the request fails with [`RequestError::Connect`].
///
/// # When a socket is replaced
///
/// A socket becomes useless when the machine's address changes, or when a NAT or a load balancer on the
/// way has lost track of it. So requests move to another one, and the old one is received on until their
/// results are there:
///
/// - at once, if the OS refuses to send from it (ENETUNREACH, EADDRNOTAVAIL, EINVAL, EPERM);
/// - with a retransmission, if two sends in a row were not answered in their time, or one was not and
///   it is the request's last; less and less often while no other socket helps, either;
/// - for new requests, after five minutes.
///
/// [`LocalPort`](crate::transport::LocalPort) turns the last two off, or has each request or each send
/// use a port of its own. Requests with a socket each move for the first reason only.
///
/// One risk remains without ids. The network duplicates a response and delays the copy for many
/// exchanges. Then the OS gives the same port (one of 28,000 on Linux) to the request in flight,
/// which accepts the copy. A second client, or one that is dropped, does not know of the ports that
/// cool down elsewhere.
#[derive(Debug)]
pub struct Client<N: Connect, C> {
    core: ClientCore<C>,
    driver: Driver<N>,
}

impl<C: Codec> Client<DefaultConnector, C> {
    /// A builder with the defaults of [`ClientBuilder`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let client = Client::builder(Text).window(16).connect("127.0.0.1:9999")?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn builder(codec: C) -> ClientBuilder<C> {
        ClientBuilder::new(codec)
    }
}

#[cfg(feature = "udp")]
impl<C: Codec> Client<UdpConnector, C> {
    /// A client over UDP that asks the first of the addresses, and the others if that one does not
    /// respond, with the defaults of [`ClientBuilder`]. No socket is opened and nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// As those of [`ClientBuilder::connect`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let client = Client::connect("127.0.0.1:9999", Text)?;
    /// assert_eq!(client.peer().port(), 9999);
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn connect(peer: impl ToSocketAddrs, codec: C) -> Result<Self, ConfigError> {
        Client::builder(codec).connect(peer)
    }
}

impl<N: Connect, C: Codec> Client<N, C> {
    /// A client over any transport, with the defaults of [`ClientBuilder`].
    ///
    /// # Panics
    ///
    /// If the codec's [ids](crate::Correlation::Id) do not have 1 to 64 bits. Where the codec is not
    /// known, use [`ClientBuilder::with_connector`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// let net = SimNet::new();
    /// let server = "10.0.0.1:9999".parse()?;
    /// net.host(
    ///     server,
    ///     ServerCore::new(Text, |text: &str| Some(text.to_uppercase())),
    /// )?;
    /// assert_eq!(Client::new(net, Text, server).request("quiet")?, "QUIET");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(connector: N, codec: C, peer: SocketAddr) -> Self {
        Client::builder(codec)
            .with_connector(connector, peer)
            .expect("the defaults are in range, and so are the bits of the codec's ids")
    }

    fn with(connector: N, core: ClientCore<C>) -> Self {
        Self {
            core,
            driver: Driver::new(connector),
        }
    }

    /// How many submitted requests have no result yet.
    ///
    /// ```
    /// # use rejoinder::codec::Text;
    /// # use rejoinder::sans_io::ServerCore;
    /// # use rejoinder::sim::SimNet;
    /// # use rejoinder::{Client, Wait};
    /// # let net = SimNet::new();
    /// # let server = "10.0.0.1:9999".parse()?;
    /// # net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let mut client = Client::new(net, Text, server);
    /// client.submit("one")?;
    /// client.submit("two")?;
    /// assert_eq!(client.in_flight(), 2);
    /// while client.collect(Wait::Forever).is_some() {}
    /// assert_eq!(client.in_flight(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_flight(&self) -> usize {
        self.core.stats().in_flight
    }

    /// How many datagrams came that answered nothing: garbage, forgeries, responses that came twice or
    /// too late.
    ///
    /// ```
    /// use rejoinder::codec::{Tagged, Text};
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// // The first answer arrives twice.
    /// let net = SimNet::scripted(0, "2 duplicate".parse()?);
    /// let server = "10.0.0.1:9999".parse()?;
    /// net.host(
    ///     server,
    ///     ServerCore::new(Tagged(Text), |text: &str| Some(text.to_owned())),
    /// )?;
    ///
    /// let mut client = Client::new(net, Tagged(Text), server);
    /// client.request("one")?;
    /// client.request("two")?;
    /// assert_eq!(client.ignored(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignored(&self) -> u64 {
        self.core.stats().ignored
    }

    /// What the client has in hand: requests, results, sockets.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::Client;
    ///
    /// let mut client = Client::new(SimNet::new(), Text, "10.0.0.1:9999".parse()?);
    /// client.submit("one")?;
    /// assert_eq!(client.stats().room, 1_023);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> ClientStats {
        self.core.stats()
    }

    /// Asks, and waits for the answer until the deadline.
    ///
    /// Whatever arrives that is not the answer is ignored: it neither ends the wait nor makes it
    /// longer. Other requests in flight go on meanwhile; their results wait to be
    /// [collected](Self::collect).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    ///
    /// let net = SimNet::new();
    /// let server = "10.0.0.1:9999".parse()?;
    /// let shout = |line: &str| line.strip_prefix("upper ").map(str::to_uppercase);
    /// net.host(server, ServerCore::new(Text, shout))?;
    ///
    /// let mut client = Client::new(net, Text, server);
    /// assert_eq!(client.request("upper case")?, "CASE");
    /// // Without a response it fails at the deadline: after 5 seconds, which take no time here.
    /// let error = client.request("lower case").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { after, .. } if after.as_secs() == 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&mut self, request: C::Request<'_>) -> Result<C::Response<'_>, RequestError> {
        let ticket = self.submit(request)?;
        let core = &mut self.core;
        self.driver
            .drive(core, Wait::Forever, |core| core.has_result(ticket));
        let result = core.take_result(ticket);
        result
            .expect("every request has a result by its deadline")?
            .decode()
    }

    /// Puts a request among those to be sent, which the next [`collect`](Self::collect) or
    /// [`request`](Self::request) does. Its time counts from now.
    ///
    /// Fails at once if the request cannot be encoded or is too long, and if the
    /// [window](ClientBuilder::window) is full: then collect a result first. That no socket can be
    /// opened is a [result](RequestError::Connect).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    ///
    /// let server = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).window(1).with_connector(SimNet::new(), server)?;
    /// client.submit("one")?;
    /// let error = client.submit("two").unwrap_err();
    /// assert!(matches!(
    ///     error,
    ///     RequestError::WindowFull { in_flight: 1, .. }
    /// ));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&mut self, request: C::Request<'_>) -> Result<Ticket, RequestError> {
        self.driver.submit(&mut self.core, request)
    }

    /// Forgets a submitted request: it is not sent any more, and it gets no result. Returns `false`
    /// if its result was collected already.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, Wait};
    ///
    /// let mut client = Client::new(SimNet::new(), Text, "10.0.0.1:9999".parse()?);
    /// let ticket = client.submit("never mind")?;
    /// assert!(client.cancel(ticket));
    /// assert!(client.collect(Wait::Forever).is_none());
    /// assert!(!client.cancel(ticket));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.core.cancel(self.driver.now(), ticket)
    }

    /// Gives out the result of a submitted request, in the order in which they come about, and
    /// waits for one if need be. `None` says that no request is left without a result, or that the
    /// wait is over; [`Wait::Forever`] ends with the requests' deadlines. [`Wait::Spin`] polls where
    /// there is one socket, for one request or for all ([`Correlation::Id`](crate::Correlation::Id)),
    /// and otherwise waits as [`Wait::For`] does.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, Wait};
    ///
    /// # let net = SimNet::new();
    /// # let server = "10.0.0.1:9999".parse()?;
    /// # net.host(server, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let mut client = Client::new(net, Text, server);
    /// let ticket = client.submit("quiet")?;
    /// let (answered, answer) = client
    ///     .collect(Wait::Forever)
    ///     .expect("one request is in flight");
    /// assert_eq!((answered, answer?), (ticket, "QUIET"));
    /// assert!(client.collect(Wait::Forever).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect(
        &mut self,
        wait: Wait,
    ) -> Option<(Ticket, Result<C::Response<'_>, RequestError>)> {
        let (ticket, result) = self.collect_raw(wait)?;
        Some((ticket, result.and_then(RawResponse::decode)))
    }

    /// [`collect`](Self::collect), but a response is not decoded yet and has the address that sent it.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, Wait};
    ///
    /// let net = SimNet::new();
    /// let [down, up] = ["10.0.0.1:9999".parse()?, "10.0.0.2:9999".parse()?];
    /// net.host(up, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let mut client = Client::builder(Text).other_peers([up]).with_connector(net, down)?;
    /// client.submit("quiet")?;
    /// let (_, response) = client.collect_raw(Wait::Forever).expect("one request is in flight");
    /// assert_eq!(response?.peer(), up);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect_raw(
        &mut self,
        wait: Wait,
    ) -> Option<(Ticket, Result<RawResponse<'_, C>, RequestError>)> {
        if self.core.stats().uncollected == 0 {
            let has_result = |core: &ClientCore<C>| core.stats().uncollected > 0;
            self.driver.drive(&mut self.core, wait, has_result);
        }
        self.core.poll_result()
    }
}

/// What stands for the connector in [`Client::builder`], which has none yet.
#[cfg(feature = "udp")]
type DefaultConnector = UdpConnector;
#[cfg(not(feature = "udp"))]
type DefaultConnector = crate::sim::SimNet;
