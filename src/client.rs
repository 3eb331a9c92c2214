//! The client: a short loop around a pure core.

mod core;

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

pub use self::core::{Exchange, Step};
use crate::codec::{Codec, TooLong, Writer};
use crate::transport::{
    Connect, Inbox, MAX_DATAGRAM_BYTES, Outbox, OutboxFull, Transport, UdpOptions, Wait, canonical,
};

/// A client: asks one peer, and believes nobody else.
///
/// Every request gets a fresh socket, connected to the peer and closed when the request is over, so
/// that an answer that comes too late can never be taken for the answer to the next.
///
/// ```no_run
/// use rejoinder::{Client, Ctime};
///
/// let mut client = Client::udp("127.0.0.1:8888", Ctime::local())?;
/// println!("{}", client.request("你好吗？")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client<N, C> {
    connector: N,
    codec: C,
    peer: SocketAddr,
    options: Options,
    inbox: Inbox,
    outbox: Outbox,
    answer: Vec<u8>,
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
        self.peer
    }

    /// Asks, and waits for the answer until the deadline.
    ///
    /// Whatever arrives that is not the answer is ignored: it neither ends the wait nor makes it
    /// longer.
    pub fn request(&mut self, request: C::Request<'_>) -> Result<C::Response<'_>, RequestError> {
        let Self {
            connector,
            codec,
            peer,
            options,
            inbox,
            outbox,
            answer,
        } = self;
        outbox.clear();
        outbox.push_with(*peer, None, |space| {
            let mut out = Writer::new(space);
            codec
                .encode_request(0, request, &mut out)
                .map_err(|error| RequestError::Encode(error.into()))?;
            out.finish().map_err(RequestError::from)
        })?;
        let datagram = outbox.iter().next().expect("one was just pushed").bytes;

        let mut exchange = Exchange::new(*peer, options.timeout, connector.now());
        let mut transport = connector.connect(*peer).map_err(RequestError::Connect)?;
        'answered: loop {
            let trouble = match exchange.next(transport.now()) {
                Step::Fail(error) => return Err(error),
                Step::Send => transport.send(outbox).error,
                Step::Wait(time) => transport.recv(inbox, Wait::For(time)).err(),
            };
            if let Some(error) = trouble {
                match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable => {
                        exchange.unreachable();
                        if options.fail_when_unreachable {
                            return Err(exchange.failure(transport.now()));
                        }
                    }
                    ErrorKind::NotConnected => return Err(RequestError::Transport(error)),
                    // It may pass. What does not must not make a loop without a pause.
                    _ => thread::sleep(PAUSE.min(options.timeout)),
                }
            }
            while let Some(received) = inbox.pop() {
                if exchange.accepts(codec, datagram, received) {
                    answer.clear();
                    answer.extend_from_slice(received.bytes);
                    break 'answered;
                }
            }
        }
        while inbox.pop().is_some() {}
        codec
            .decode_response(answer)
            .map_err(|error| RequestError::Encode(error.into()))
    }
}

/// Options of a client.
///
/// ```
/// use rejoinder::{ClientBuilder, Text};
/// use std::time::Duration;
///
/// let client = ClientBuilder::new(Text).timeout(Duration::from_secs(1)).udp("127.0.0.1:9999")?;
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
                fail_when_unreachable: false,
            },
        }
    }

    /// How long a request may take in all. Default: 5 seconds. Zero fails every request.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
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
        Client {
            connector,
            codec: self.codec,
            // The form in which a transport will name it.
            peer: canonical(peer),
            options: self.options,
            inbox: Inbox::new(1, MAX_DATAGRAM_BYTES),
            outbox: Outbox::new(1, MAX_DATAGRAM_BYTES),
            answer: Vec::new(),
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No datagram came that could be the answer.
    #[error("no answer from {peer} after {after:?} (sent {sends}, ignored {ignored} datagrams)")]
    TimedOut {
        /// Who was asked.
        peer: SocketAddr,
        /// How long was waited.
        after: Duration,
        /// How often the request was sent.
        sends: u32,
        /// How many datagrams came that were not the answer.
        ignored: u64,
    },
    /// Something came from the peer, but nothing that the codec could decode.
    #[error("no answer from {peer} after {after:?}, only malformed datagrams")]
    Malformed {
        /// Who was asked.
        peer: SocketAddr,
        /// How long was waited.
        after: Duration,
        /// What was wrong with the last of them.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The system says that nobody listens there, or that there is no way there.
    #[error("nobody is listening at {peer}")]
    NobodyListening {
        /// Who was asked.
        peer: SocketAddr,
    },
    /// The codec could not encode the request.
    #[error("the request could not be encoded")]
    Encode(#[source] Box<dyn Error + Send + Sync>),
    /// The request would be longer than a datagram may be.
    #[error("the request is too long")]
    TooLong(#[from] TooLong),
    /// No socket could be opened.
    #[error("no socket could be opened")]
    Connect(#[source] io::Error),
    /// The socket is gone.
    #[error("the transport is gone")]
    Transport(#[source] io::Error),
}

impl From<OutboxFull> for RequestError {
    /// Never needed: a client's outbox is empty when a request is pushed.
    fn from(full: OutboxFull) -> Self {
        Self::Transport(io::Error::other(full))
    }
}

#[derive(Clone, Copy, Debug)]
struct Options {
    timeout: Duration,
    fail_when_unreachable: bool,
}

const PAUSE: Duration = Duration::from_millis(1);
