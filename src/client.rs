//! The client: a short loop around a pure core.

mod core;
mod retry;
mod sockets;
mod timers;

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

pub use self::core::{ClientCore, Ticket};
pub use self::retry::Retry;
use self::sockets::{NoSocket, Sockets};
use crate::clock::Now;
use crate::codec::{Codec, Correlation, TooLong};
use crate::transport::{
    Connect, Inbox, MAX_DATAGRAM_BYTES, Outbox, OutboxFull, Transport, UdpOptions, Wait,
};

/// A client: asks one peer, and believes nobody else.
///
/// What is lost on the way is sent [again](Retry), and every request has a result by its
/// [deadline](ClientBuilder::timeout).
///
/// ```no_run
/// use rejoinder::{Client, Ctime};
///
/// let mut client = Client::udp("127.0.0.1:8888", Ctime::local())?;
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
/// use rejoinder::{Client, ServerCore, SimNet, Text, Wait};
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
}

impl<C: Codec> Client<UdpOptions, C> {
    /// A client over UDP that asks the first of the addresses, with the defaults of
    /// [`ClientBuilder`]. Nothing is sent before the first request.
    pub fn udp(peer: impl ToSocketAddrs, codec: C) -> io::Result<Self> {
        ClientBuilder::new(codec).udp(peer)
    }
}

impl<N: Connect, C: Codec> Client<N, C> {
    /// A client over any transport, with the defaults of [`ClientBuilder`].
    pub fn new(connector: N, codec: C, peer: SocketAddr) -> Self {
        ClientBuilder::new(codec).on(connector, peer)
    }

    /// The address that is asked.
    pub fn peer(&self) -> SocketAddr {
        self.core.peer()
    }

    /// How many submitted requests have no result yet.
    pub fn in_flight(&self) -> usize {
        self.core.in_flight()
    }

    /// How many datagrams came that answered nothing: junk, forgeries, answers that came twice or
    /// too late.
    pub fn ignored(&self) -> u64 {
        self.core.ignored()
    }

    /// Asks, and waits for the answer until the deadline.
    ///
    /// Whatever arrives that is not the answer is ignored: it neither ends the wait nor makes it
    /// longer. Other requests in flight go on meanwhile; their results wait to be
    /// [collected](Self::collect).
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
    /// wait is over; [`Wait::Forever`] ends with the requests' deadlines.
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
        let end = match wait {
            Wait::No => begun,
            Wait::For(time) | Wait::Spin(time) => begun.saturating_add(time),
            Wait::Forever => Duration::MAX,
        };
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
            self.receive(if left.is_zero() {
                Wait::No
            } else {
                Wait::For(left)
            });
            let over = now.monotonic >= end;
            if over || done(&self.core) {
                break;
            }
        }
        let core = &self.core;
        self.sockets.release(self.connector.now(), core);
    }

    fn send_due(&mut self, now: Now) {
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
            let Some((slot, datagram)) = self.core.next_send(now) else {
                break;
            };
            let pushed: Result<(), OutboxFull> =
                self.outbox.push_with(datagram.peer, None, |space| {
                    space[..datagram.bytes.len()].copy_from_slice(datagram.bytes);
                    Ok(datagram.bytes.len())
                });
            pushed.expect("the outbox has room");
            self.outgoing.push(slot);
            alone = self.core.is_in_doubt(slot);
        }
        self.flush(now);
    }

    fn flush(&mut self, now: Now) {
        let Some(&first) = self.outgoing.first() else {
            return;
        };
        if let Some(socket) = self.sockets.of(first) {
            let sent = socket.send(&self.outbox);
            if let Some(error) = sent.error {
                if is_unreachable(&error) {
                    self.core.unreachable(now, first, &error);
                } else if error.kind() == ErrorKind::NotConnected {
                    self.core.transport_gone(now, first, &error);
                } else {
                    for &slot in &self.outgoing {
                        if sent.datagrams == 0 {
                            self.core.refused(slot, core::copy(&error));
                        } else {
                            // Which it was will be seen when each is sent again, alone.
                            self.core.refused_perhaps(slot);
                        }
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
                match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::NotConnected => {
                        self.core.transport_gone(now, slot, &error);
                        self.sockets.drop_shared();
                    }
                    _ if is_unreachable(&error) => self.core.unreachable(now, slot, &error),
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

/// Options of a client.
///
/// ```
/// use rejoinder::{ClientBuilder, Retry, Text};
/// use std::time::Duration;
///
/// let client = ClientBuilder::new(Text)
///     .timeout(Duration::from_secs(1))
///     .retry(Retry::new().initial(Duration::from_millis(100)))
///     .udp("127.0.0.1:9999")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientBuilder<C> {
    codec: C,
    options: Options,
}

impl<C: Codec> ClientBuilder<C> {
    /// The defaults.
    pub fn new(codec: C) -> Self {
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
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// When a request is sent again. Default: [`Retry::new`].
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Whether a request fails at once when the system reports that the peer cannot be reached (a
    /// closed port, for example), rather than at the deadline. Default: `false`, because the
    /// message behind such a report can be forged by anybody, and a server that restarts causes it
    /// too.
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
    #[must_use]
    pub fn window(mut self, requests: usize) -> Self {
        assert!(requests > 0, "a window for at least one request");
        self.options.window = requests;
        self
    }

    /// How long an id rests after its request has a result, because an old answer that carries it
    /// may still arrive; and where there are no ids, how long the [socket](Client#whose-answer-it-is)
    /// rests, for the sake of its port. Zero means no rest. Ids of 48 bits or more need none: that a random one comes again so soon
    /// is less likely than that a forger guesses it. Default: 202 seconds, the longest that a
    /// datagram and its answer take by RFC 7252 §4.8.2 (`MAX_RTT`).
    ///
    /// At most 65,536 ids rest or are in use; when that many are, the window is full.
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
    #[must_use]
    pub fn resting_sockets(mut self, sockets: usize) -> Self {
        assert!(sockets > 0, "at least one socket that rests");
        self.options.resting_sockets = sockets;
        self
    }

    /// A client over UDP that asks the first of the addresses.
    pub fn udp(self, peer: impl ToSocketAddrs) -> io::Result<Client<UdpOptions, C>> {
        let peer = peer
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "no address to ask"))?;
        Ok(self.on(UdpOptions::new(), peer))
    }

    /// A client over any transport.
    pub fn on<N: Connect>(self, connector: N, peer: SocketAddr) -> Client<N, C> {
        let sockets = match self.codec.correlation() {
            Correlation::Socket => {
                Sockets::own(self.options.quarantine, self.options.resting_sockets)
            }
            Correlation::Id { .. } => Sockets::Shared(None),
        };
        Client {
            connector,
            core: self.core(peer),
            sockets,
            inbox: Inbox::new(BATCH, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(BATCH, MAX_DATAGRAM_BYTES),
            outgoing: Vec::new(),
            ready: Vec::new(),
            entropy: Entropy::new(),
        }
    }

    /// The core of such a client, for a driver of your own.
    ///
    /// # Panics
    ///
    /// As [`on`](Self::on) and [`udp`](Self::udp) do, if the codec's ids do not have 1 to 64 bits.
    pub fn core(self, peer: SocketAddr) -> ClientCore<C> {
        ClientCore::new(self.codec, peer, self.options)
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No datagram came that could be the answer.
    #[error(
        "no answer from {peer} after {} (sent {sends}, ignored {ignored} datagrams)",
        Rounded(*after)
    )]
    TimedOut {
        /// Who was asked.
        peer: SocketAddr,
        /// How long was waited.
        after: Duration,
        /// How often the request was sent.
        sends: u32,
        /// How many datagrams came meanwhile that were nobody's answer. Requests that share a
        /// socket share them.
        ignored: u64,
    },
    /// Something came from the peer, but nothing that the codec could decode.
    #[error("no answer from {peer} after {}, only malformed datagrams", Rounded(*after))]
    Malformed {
        /// Who was asked.
        peer: SocketAddr,
        /// How long was waited.
        after: Duration,
        /// What was wrong with the last of them.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The system says that nobody listens there.
    #[error("nobody is listening at {peer}")]
    NobodyListening {
        /// Who was asked.
        peer: SocketAddr,
    },
    /// The system says that there is no way there.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Who was asked.
        peer: SocketAddr,
        /// What the system said last.
        source: io::Error,
    },
    /// The system refused to send the request, every time.
    #[error("nothing could be sent to {peer} in {}", Rounded(*after))]
    NotSent {
        /// Who was to be asked.
        peer: SocketAddr,
        /// How long it was tried.
        after: Duration,
        /// The last refusal.
        source: io::Error,
    },
    /// The codec could not encode the request.
    #[error("the request could not be encoded")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
    /// The request would be longer than a datagram may be.
    #[error("the request is too long")]
    TooLong(#[from] TooLong),
    /// As many requests are under way as there can be: all slots of the window are taken, all ids
    /// are in use or at rest, or as many sockets rest as may.
    #[error(
        "the window is full: {in_flight} requests in flight, {uncollected} results to collect, \
         {resting} ids or sockets at rest"
    )]
    WindowFull {
        /// Requests without a result.
        in_flight: usize,
        /// Results that were not collected.
        uncollected: usize,
        /// Ids, or sockets to which an answer may be on its way, whose rest is not over: only time
        /// helps.
        resting: usize,
    },
    /// No socket could be opened that talks to the peer.
    #[error("cannot connect to {peer}")]
    Connect {
        /// Who was to be asked.
        peer: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to draw an id from.
    #[error("no random number could be had")]
    Entropy(#[source] io::Error),
    /// The socket is gone.
    #[error("the transport is gone")]
    Transport(#[source] io::Error),
}

/// A duration to the millisecond: nobody reads the nanoseconds of a timeout.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = (self.0.as_nanos() + 500_000) / 1_000_000;
        match u64::try_from(millis) {
            Ok(millis) if millis > 0 => write!(f, "{:?}", Duration::from_millis(millis)),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Options {
    timeout: Duration,
    retry: Retry,
    fail_when_unreachable: bool,
    window: usize,
    quarantine: Duration,
    resting_sockets: usize,
}

/// Numbers that nobody can predict, fetched some at a time.
#[derive(Debug)]
struct Entropy {
    bytes: [u8; 512],
    used: usize,
}

impl Entropy {
    fn new() -> Self {
        Self {
            bytes: [0; 512],
            used: 512,
        }
    }

    fn next(&mut self, connector: &impl Connect) -> io::Result<u64> {
        if self.used == self.bytes.len() {
            connector.entropy(&mut self.bytes)?;
            self.used = 0;
        }
        let number = self.bytes[self.used..]
            .first_chunk()
            .expect("the bytes are used by eights");
        self.used += number.len();
        Ok(u64::from_ne_bytes(*number))
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
/// RFC 7252 §4.8.2: twice `MAX_LATENCY` and `PROCESSING_DELAY`.
const MAX_RTT: Duration = Duration::from_secs(202);
