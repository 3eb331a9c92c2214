//! The client: a short loop around a pure core.

mod builder;
mod core;
mod entropy;
mod error;
mod ids;
mod retry;
mod sockets;
mod timers;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;
use std::thread;
use std::time::Duration;

pub use self::builder::ClientBuilder;
use self::builder::Options;
pub use self::core::{ClientCore, Ticket};
use self::entropy::Entropy;
pub use self::error::RequestError;
pub use self::retry::Retry;
use self::sockets::{NoSocket, Sockets};
use crate::codec::Codec;
use crate::timestamp::Timestamp;
use crate::transport::{
    Connect, ErrorClass, Inbox, MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES, Outbox,
    PEER_ERRORS_PER_PAUSE, SendReport, Transport, Wait,
};

/// A client: asks one peer, and believes nobody else.
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
/// # Whose answer it is
///
/// The codec [says](Codec::correlation) how answers are matched to requests. Where they carry an
/// id, all requests share one connected socket, and each has an id that nobody can predict.
/// Where they do not, each request gets a fresh connected socket, which serves its retransmissions
/// and nothing else, so that the port tells. Then the socket rests for the time of the
/// [quarantine](ClientBuilder::quarantine), so that the system cannot give its port to the next
/// request, which would take a late answer for its own. At most
/// [so many](ClientBuilder::resting_sockets) rest; where they are too many for that, or for the
/// system to open another:
///
/// - One to which no answer is owed is closed before its time, the oldest first: its request was
///   sent once and is answered, or was met by a closed port.
/// - One to which an answer may be on its way (its request was sent twice, or in vain) is kept. When
///   the limit is reached by such alone, [`submit`](Self::submit) fails with
///   [`RequestError::WindowFull`] until the first of them has rested; when the system has no socket
///   left, it fails with [`RequestError::Connect`].
///
/// What remains is a risk that only ids take away: that the network duplicates a datagram of an
/// exchange that went well, holds the copy back until many more have gone through, and that the
/// system gives the same port (one of 28,000 on Linux) to the request that is in flight just then.
/// A second client, or one that is dropped, knows nothing of the ports that rest elsewhere.
#[derive(Debug)]
pub struct Client<N: Connect, C> {
    connector: N,
    core: ClientCore<C>,
    sockets: Sockets<N::Transport>,
    inbox: Inbox,
    outbox: Outbox,
    /// The slots whose datagrams are in the outbox.
    outgoing: Vec<usize>,
    ready: Vec<usize>,
    entropy: Entropy,
    /// How many errors in receiving anybody may have caused.
    provoked: u32,
}

impl<C: Codec> Client<DefaultConnector, C> {
    /// A builder with the defaults of [`ClientBuilder`].
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let client = Client::builder(Text).window(16).connect("127.0.0.1:9999")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder(codec: C) -> ClientBuilder<C> {
        ClientBuilder::new(codec)
    }

    /// A client over UDP that asks the first of the addresses, with the defaults of
    /// [`ClientBuilder`]. Fails if there is no address, because a name is not known, say. No socket
    /// is opened and nothing is sent before the first request.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let client = Client::connect("127.0.0.1:9999", Text)?;
    /// assert_eq!(client.peer().port(), 9999);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn connect(peer: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        Client::builder(codec).connect(peer)
    }
}

impl<N: Connect, C: Codec> Client<N, C> {
    /// A client over any transport, with the defaults of [`ClientBuilder`].
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
        Client::builder(codec).with_connector(connector, peer)
    }

    fn with(connector: N, sockets: Sockets<N::Transport>, core: ClientCore<C>) -> Self {
        Self {
            connector,
            core,
            sockets,
            inbox: Inbox::new(BATCH, MAX_V6_DATAGRAM_BYTES),
            outbox: Outbox::new(BATCH, MAX_DATAGRAM_BYTES),
            outgoing: Vec::new(),
            ready: Vec::new(),
            entropy: Entropy::new(),
            provoked: 0,
        }
    }

    /// The address that is asked.
    pub fn peer(&self) -> SocketAddr {
        self.core.peer()
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
        self.core.in_flight()
    }

    /// How many datagrams came that answered nothing: junk, forgeries, answers that came twice or
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
        self.core.ignored()
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
    /// // Silence ends at the deadline: after 5 seconds, which take no time here.
    /// let error = client.request("lower case").unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { sends: 3, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&mut self, request: C::Request<'_>) -> Result<C::Response<'_>, RequestError> {
        let ticket = self.submit(request)?;
        self.drive(Wait::Forever, |core| core.has_result_of(ticket));
        self.core
            .take_result_of(ticket)
            .expect("every request has a result by its deadline")
    }

    /// Puts a request among those to be sent, which the next [`collect`](Self::collect) or
    /// [`request`](Self::request) does. Its time counts from now.
    ///
    /// Fails at once if the request cannot be encoded or is too long, if no socket can be had, and
    /// if the [window](ClientBuilder::window) is full: then collect a result first.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    /// use rejoinder::{Client, RequestError};
    ///
    /// let server = "10.0.0.1:9999".parse()?;
    /// let mut client = Client::builder(Text).window(1).with_connector(SimNet::new(), server);
    /// client.submit("one")?;
    /// let error = client.submit("two").unwrap_err();
    /// assert!(matches!(
    ///     error,
    ///     RequestError::WindowFull { in_flight: 1, .. }
    /// ));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&mut self, request: C::Request<'_>) -> Result<Ticket, RequestError> {
        let Self {
            connector,
            core,
            sockets,
            entropy,
            ..
        } = self;
        if !core.has_room() {
            return Err(core.window_full(0));
        }
        let now = connector.now();
        let peer = core.peer();
        let socket = sockets
            .open(connector, peer, now)
            .map_err(|error| match error {
                NoSocket::Error(source) => RequestError::Connect { peer, source },
                NoSocket::Resting(resting) => core.window_full(resting),
            })?;
        let ticket = core.submit(now, request, &mut || entropy.next(connector))?;
        sockets.give(ticket.slot(), socket);
        Ok(ticket)
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
        if !self.core.has_result() {
            self.drive(wait, ClientCore::has_result);
        }
        self.core.take()
    }

    /// Sends what is due and receives what comes, until `done` or the wait is over or nothing is
    /// in flight any more.
    fn drive(&mut self, wait: Wait, done: impl Fn(&ClientCore<C>) -> bool) {
        let begun = self.connector.now().monotonic;
        let end = wait.deadline(begun);
        loop {
            let now = self.connector.now();
            self.send_due(now);
            let Some(timer) = self.core.next_timer() else {
                break;
            };
            if done(&self.core) {
                break;
            }
            let left = end.min(timer).saturating_sub(now.monotonic);
            self.receive(match wait {
                _ if left.is_zero() => Wait::No,
                Wait::Spin(_) => Wait::Spin(left),
                _ => Wait::For(left),
            });
            let over = now.monotonic >= end;
            if over || done(&self.core) {
                break;
            }
        }
        let core = &self.core;
        self.sockets.release(self.connector.now(), core);
    }

    fn send_due(&mut self, now: Timestamp) {
        let mut alone = false;
        loop {
            // A socket of its own means a batch of its own.
            let room = match self.sockets {
                Sockets::Shared(_) => self.outbox.has_room_for(1) && !alone,
                Sockets::Own { .. } => self.outbox.is_empty(),
            };
            if !room {
                self.flush(now);
                alone = false;
                continue;
            }
            let Some(slot) = self.core.next_due(now.monotonic) else {
                break;
            };
            alone = self.core.is_in_doubt(slot);
            if alone {
                self.flush(now);
            }
            let Some(datagram) = self.core.request(slot) else {
                continue;
            };
            let pushed = self.outbox.push(datagram.peer, None, datagram.bytes);
            pushed.expect("the outbox has room");
            self.outgoing.push(slot);
        }
        self.flush(now);
    }

    fn flush(&mut self, now: Timestamp) {
        let Some(&first) = self.outgoing.first() else {
            return;
        };
        let sent = match self.sockets.of(first) {
            Some(socket) => socket.send(&self.outbox),
            None => SendReport::default(),
        };
        if let Some(error) = sent.last_error {
            if is_unreachable(&error) {
                self.core.unreachable(now, first, &error);
            } else if ErrorClass::classify(&error) == ErrorClass::Gone {
                self.core.transport_gone(now, first, &error);
                self.sockets.drop_shared();
            } else {
                for &slot in &self.outgoing {
                    if sent.sent == 0 {
                        self.core.refused(slot, core::copy(&error));
                    } else {
                        // Which it was will be seen when each is sent again, alone.
                        self.core.refused_perhaps(slot);
                    }
                }
            }
        }
        self.outbox.clear();
        self.outgoing.clear();
    }

    fn receive(&mut self, wait: Wait) {
        self.ready.clear();
        let mut wait = wait;
        match &self.sockets {
            Sockets::Shared(_) => self.ready.push(0),
            Sockets::Own { open, .. } if open.len() == 1 => self.ready.extend(open),
            Sockets::Own { .. } => {
                // Until they are released, sockets of requests with results are waited on too.
                self.sockets.release(self.connector.now(), &self.core);
                let (slots, sockets): (Vec<_>, Vec<_>) = self.sockets.iter().unzip();
                if self
                    .connector
                    .wait_any(&sockets, wait, &mut self.ready)
                    .is_err_and(|error| error.kind() != ErrorKind::Interrupted)
                {
                    thread::sleep(PAUSE);
                }
                for ready in &mut self.ready {
                    *ready = slots[*ready];
                }
                wait = Wait::No;
            }
        }
        for at in 0..self.ready.len() {
            let slot = self.ready[at];
            let Some(socket) = self.sockets.of(slot) else {
                continue;
            };
            let received = socket.recv(&mut self.inbox, wait);
            let now = socket.now();
            if let Err(error) = received {
                match ErrorClass::classify_receive(&error) {
                    ErrorClass::Interrupted => {}
                    ErrorClass::Gone => {
                        self.core.transport_gone(now, slot, &error);
                        self.sockets.drop_shared();
                    }
                    _ if is_unreachable(&error) => self.core.unreachable(now, slot, &error),
                    // Anybody can cause it.
                    ErrorClass::Peer => {
                        self.provoked = self.provoked.wrapping_add(1);
                        if self.provoked.is_multiple_of(PEER_ERRORS_PER_PAUSE) {
                            thread::sleep(PAUSE);
                        }
                    }
                    // It may pass. What does not must not make a loop without a pause.
                    _ => thread::sleep(PAUSE),
                }
            }
            while let Some(datagram) = self.inbox.pop() {
                self.core.receive(now, slot, datagram);
            }
        }
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

const PAUSE: Duration = Duration::from_millis(1);
/// Buffers for receiving, and datagrams for sending.
const BATCH: usize = 64;
/// What stands for the connector in `Client::builder`, which has none yet.
#[cfg(feature = "udp")]
type DefaultConnector = crate::udp::UdpConnector;
#[cfg(not(feature = "udp"))]
type DefaultConnector = crate::sim::SimNet;
