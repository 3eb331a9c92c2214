mod discovery;
#[cfg(all(test, shuttle))]
mod model;
mod response;
mod state;
mod waiters;

use std::fmt;
use std::future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{self, ToSocketAddrs};

pub use self::discovery::Discovery;
pub use self::response::Response;
use self::state::State;
use super::connect::AsyncConnect;
use super::runtime::Tokio;
use crate::client::{ClientBuilder, ClientStats, RequestError, Ticket};
use crate::codec::Codec;
use crate::config_error::ConfigError;
use crate::udp::UdpConnector;

/// A client on tokio: asks one peer, any number of requests at once.
///
/// A clone is another handle of the same client: requests share its sockets and its
/// [window](ClientBuilder::window). It has the settings, retransmissions and
/// [socket rules](crate::Client#whose-response-it-is) of the blocking [`Client`](crate::Client), for
/// codecs with ids and without.
///
/// One task of the client receives for all requests. It ends with the last clone; if its runtime
/// ends before, requests fail with [`RequestError::Transport`].
///
/// ```
/// use rejoinder::aio;
/// use rejoinder::codec::{Tagged, Text};
/// # use rejoinder::sans_io::ServerCore;
/// # use rejoinder::sim::SimNet;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = aio::Server::bind("127.0.0.1:0", Tagged(Text)).await?;
/// # let (addr, handle) = (server.local_addr()?, server.handle());
/// # let serving = tokio::spawn(server.serve(async |text: &str| text.to_uppercase()));
/// let client = aio::Client::connect(addr, Tagged(Text)).await?;
/// let other = client.clone();
/// let asking = tokio::spawn(async move { other.request("one").await });
/// assert_eq!(client.request("two").await?.get(), "TWO");
/// assert_eq!(asking.await??.get(), "ONE");
/// # handle.shutdown();
/// # serving.await??;
/// # Ok(())
/// # }
/// ```
///
/// # Cancelling
///
/// Dropping the future of a request cancels it: nothing is sent for it any more, its place in the
/// window is free, and its id or socket cools down. So a deadline of one request that is shorter than
/// the client's [`timeout`](ClientBuilder::timeout) is a [`tokio::time::timeout`] around it.
pub struct Client<N: AsyncConnect, C: Codec> {
    handle: Arc<Handle<N, C>>,
}

/// The last one to be dropped closes the client.
struct Handle<N: AsyncConnect, C: Codec> {
    shared: Arc<Shared<N, C>>,
    codec: Arc<C>,
}

struct Shared<N: AsyncConnect, C: Codec>(Mutex<State<N, C>>);

impl<C: Codec> Client<UdpConnector, C> {
    /// The settings of a client: its `connect` is async.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = aio::Client::builder(Text).window(16);
    /// let client = builder.connect("127.0.0.1:9999").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(codec: C) -> ClientBuilder<C, Tokio> {
        ClientBuilder::new(codec)
    }
}

impl<C: Codec + Clone + Send + Sync + 'static> Client<UdpConnector, C> {
    /// A client over UDP that asks the first of the addresses, and the others if that one does not
    /// respond, with the defaults of [`ClientBuilder`]. Nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// A name that cannot be resolved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn connect(peer: impl ToSocketAddrs, codec: C) -> Result<Self, ConfigError> {
        Client::builder(codec).connect(peer).await
    }
}

/// The same settings on tokio.
impl<C> From<ClientBuilder<C>> for ClientBuilder<C, Tokio> {
    fn from(blocking: ClientBuilder<C>) -> Self {
        blocking.driven_by()
    }
}

impl<C: Codec + Clone + Send + Sync + 'static> ClientBuilder<C, Tokio> {
    /// A client on tokio, over UDP, that asks the first of the addresses, and the others as
    /// [`other_peers`](Self::other_peers), before those. Names are resolved once, here, without
    /// blocking; [`Client::set_peers`] takes other addresses later.
    ///
    /// # Errors
    ///
    /// A setting out of range, or a name that cannot be resolved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// use rejoinder::aio::Client;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::builder(Text).connect("localhost:9999").await?;
    /// assert!(client.peer().ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(
        mut self,
        peer: impl ToSocketAddrs,
    ) -> Result<Client<UdpConnector, C>, ConfigError> {
        let peers = net::lookup_host(peer).await?;
        let peer = self.take_peers(peers)?;
        let connector = UdpConnector::from(self.udp.clone());
        self.with_connector(connector, peer)
    }

    /// A client on tokio, over any transport.
    ///
    /// # Errors
    ///
    /// A setting out of range.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// use rejoinder::RequestError;
    /// use rejoinder::aio::Client;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::{Link, SimNet};
    /// use std::time::Duration;
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let net = SimNet::new();
    /// net.set_link(Link::new().latency(Duration::from_millis(20)))?;
    /// let server = "10.0.0.1:9999".parse()?;
    /// net.host(server, ServerCore::new(Text, |text: &str| text.parse::<u32>().ok().map(|n| (n + 1).to_string())))?;
    ///
    /// let client = Client::builder(Text).with_connector(net, server)?;
    /// assert_eq!(client.request("41").await?.get(), "42");
    /// let begun = Instant::now();
    /// let error = client.request("what?").await.unwrap_err();
    /// assert!(matches!(error, RequestError::TimedOut { .. }));
    /// assert_eq!(begun.elapsed().as_secs(), 5); // in no time
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_connector<N>(
        self,
        connector: N,
        peer: SocketAddr,
    ) -> Result<Client<N, C>, ConfigError>
    where
        N: AsyncConnect<Transport: Send> + Send + 'static,
    {
        let codec = Arc::new(self.codec().clone());
        let state = State::new(self.core(peer)?, connector);
        let shared = Arc::new(Shared(Mutex::new(state)));
        let driver = Driver(Arc::clone(&shared));
        tokio::spawn(async move { future::poll_fn(|cx| driver.0.lock().poll(cx)).await });
        Ok(Client {
            handle: Arc::new(Handle { shared, codec }),
        })
    }
}

impl<N: AsyncConnect, C: Codec> Client<N, C> {
    /// The address that the next request is sent to first.
    ///
    /// ```
    /// # use rejoinder::aio;
    /// # use rejoinder::codec::Text;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = aio::Client::connect("127.0.0.1:9999", Text).await?;
    /// assert_eq!(client.peer().port(), 9999);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer(&self) -> SocketAddr {
        self.handle.shared.lock().core.peer()
    }

    /// [`Client::set_peers`](crate::Client::set_peers), for all clones.
    ///
    /// ```
    /// use rejoinder::aio::Client;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::SimNet;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let net = SimNet::new();
    /// let [old, new] = ["10.0.0.1:9999".parse()?, "10.0.0.2:9999".parse()?];
    /// net.host(new, ServerCore::new(Text, |text: &str| Some(text.to_uppercase())))?;
    /// let client = Client::builder(Text).with_connector(net, old)?;
    /// // The request is on its way when the server's name gets another address.
    /// let renamed = async { client.set_peers(new, &[]) };
    /// let (response, ()) = tokio::join!(client.request("anyone?"), renamed);
    /// assert_eq!(response?.get(), "ANYONE?");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_peers(&self, peer: SocketAddr, others: &[SocketAddr]) {
        let mut state = self.handle.shared.lock();
        let now = state.connector.now();
        state.core.set_peers(now, peer, others);
        state.wake_driver();
    }

    /// What the client has in hand: requests, sockets.
    ///
    /// ```
    /// # use rejoinder::aio;
    /// # use rejoinder::codec::Text;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = aio::Client::connect("127.0.0.1:9999", Text).await?;
    /// assert_eq!(client.stats().in_flight, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> ClientStats {
        self.handle.shared.lock().stats()
    }

    /// Asks, and waits for the response until the client's [timeout](ClientBuilder::timeout).
    ///
    /// If the [window](ClientBuilder::window) is full, it first waits for room, after those who wait
    /// already. The timeout begins after that.
    ///
    /// # Errors
    ///
    /// Every [`RequestError`]. [`WindowFull`](RequestError::WindowFull) means that so many sockets cool
    /// down that none can be opened.
    pub async fn request(&self, request: C::Request<'_>) -> Result<Response<C>, RequestError> {
        let mut turn = Turn {
            shared: &self.handle.shared,
            number: None,
        };
        let mut request = Some(request);
        let submitted = future::poll_fn(|cx| {
            let mut state = turn.shared.lock();
            state.poll_room(&mut turn.number, cx).map(|()| {
                let request = request.take().expect("it is ready once");
                state.submit(request)
            })
        });
        let (ticket, place) = submitted.await?;
        self.response(ticket, place).await
    }

    /// [`request`](Self::request), but if the window is full, it fails at once.
    ///
    /// # Errors
    ///
    /// Every [`RequestError`].
    ///
    /// ```
    /// use rejoinder::RequestError;
    /// use rejoinder::aio::Client;
    /// use rejoinder::codec::Text;
    /// use rejoinder::sim::SimNet;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = "10.0.0.1:9999".parse()?;
    /// let client = Client::builder(Text).window(1).with_connector(SimNet::new(), server)?;
    /// let (one, other) = tokio::join!(client.try_request("one"), client.try_request("two"));
    /// assert!(matches!(one, Err(RequestError::TimedOut { .. }))); // there is no server
    /// assert!(matches!(other, Err(RequestError::WindowFull { .. })));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_request(&self, request: C::Request<'_>) -> Result<Response<C>, RequestError> {
        let submitted = self.handle.shared.lock().submit(request);
        let (ticket, place) = submitted?;
        self.response(ticket, place).await
    }

    async fn response(&self, ticket: Ticket, place: usize) -> Result<Response<C>, RequestError> {
        let mut asked = Asked {
            shared: &self.handle.shared,
            ticket,
            place: Some(place),
        };
        let outcome = future::poll_fn(|cx| {
            let outcome = asked.shared.lock().poll_result(place, cx);
            if outcome.is_ready() {
                asked.place = None;
            }
            outcome
        });
        let datagram = outcome.await?;
        Ok(Response::new(datagram, Arc::clone(&self.handle.codec)))
    }
}

impl<N: AsyncConnect, C: Codec> Clone for Client<N, C> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<N: AsyncConnect, C: Codec> fmt::Debug for Client<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<N: AsyncConnect, C: Codec> Drop for Handle<N, C> {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

impl<N: AsyncConnect, C: Codec> Shared<N, C> {
    fn lock(&self) -> MutexGuard<'_, State<N, C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that waits for room.
struct Turn<'a, N: AsyncConnect, C: Codec> {
    shared: &'a Shared<N, C>,
    number: Option<u64>,
}

impl<N: AsyncConnect, C: Codec> Drop for Turn<'_, N, C> {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.shared.lock().leave_queue(&mut self.number);
        }
    }
}

/// A caller that waits for a response.
struct Asked<'a, N: AsyncConnect, C: Codec> {
    shared: &'a Shared<N, C>,
    ticket: Ticket,
    /// `None` once it has its result.
    place: Option<usize>,
}

impl<N: AsyncConnect, C: Codec> Drop for Asked<'_, N, C> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.lock().cancel(self.ticket, place);
        }
    }
}

/// The task of a client. If its runtime drops it, all waiting callers return.
struct Driver<N: AsyncConnect, C: Codec>(Arc<Shared<N, C>>);

impl<N: AsyncConnect, C: Codec> Drop for Driver<N, C> {
    fn drop(&mut self) {
        self.0.lock().close();
    }
}
