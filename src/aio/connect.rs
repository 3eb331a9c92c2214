use std::io;
use std::net::SocketAddr;

use super::sim::AsyncSim;
use super::transport::AsyncTransport;
use super::udp::AsyncUdp;
use crate::sim::SimNet;
use crate::timestamp::Timestamp;
use crate::transport::Connect;
use crate::udp::UdpConnector;

/// Opens transports for an async client: a [`Connect`] whose transports are polled.
///
/// [`UdpConnector`] and [`SimNet`] are.
///
/// ```
/// use rejoinder::aio::{AsyncConnect, Client};
/// use rejoinder::codec::{Tagged, Text};
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::Timestamp;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::{io, net::SocketAddr};
///
/// /// Counts the sockets that a client opens.
/// struct Counted<N>(N, Arc<AtomicUsize>);
///
/// impl<N: AsyncConnect> AsyncConnect for Counted<N> {
///     type Transport = N::Transport;
///
///     fn connect(&self, peer: SocketAddr) -> io::Result<N::Transport> {
///         self.1.fetch_add(1, Ordering::Relaxed);
///         self.0.connect(peer)
///     }
///     fn now(&self) -> Timestamp {
///         self.0.now()
///     }
///     fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
///         self.0.entropy(bytes)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let net = SimNet::new();
/// let server = "10.0.0.1:9999".parse()?;
/// net.host(server, ServerCore::new(Tagged(Text), |text: &str| Some(text.len().to_string())))?;
/// let opened = Arc::new(AtomicUsize::new(0));
/// let connector = Counted(net, Arc::clone(&opened));
/// let client = Client::builder(Tagged(Text)).with_connector(connector, server)?;
/// let (one, two) = tokio::join!(client.request("one"), client.request("three"));
/// assert_eq!((one?.get(), two?.get()), ("3", "5"));
/// // Each response has its request's id, so one socket is enough.
/// assert_eq!(opened.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub trait AsyncConnect {
    /// What it opens.
    type Transport: AsyncTransport;

    /// Opens a transport on a local address of its own, for talking to `peer` only. It does not
    /// block.
    ///
    /// # Errors
    ///
    /// Those of the OS. The client's requests report them as
    /// [`RequestError::Connect`](crate::RequestError::Connect).
    fn connect(&self, peer: SocketAddr) -> io::Result<Self::Transport>;

    /// Reads the clock that the transports will live by.
    fn now(&self) -> Timestamp {
        Timestamp::system()
    }

    /// Fills `bytes` with unpredictable values, for ids and jitter: from the OS's generator, unless
    /// randomness is simulated.
    ///
    /// # Errors
    ///
    /// Those of the generator.
    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::from)
    }
}

impl AsyncConnect for UdpConnector {
    type Transport = AsyncUdp;

    fn connect(&self, peer: SocketAddr) -> io::Result<AsyncUdp> {
        AsyncUdp::waiting_for_room(Connect::connect(self, peer)?)
    }
}

impl AsyncConnect for SimNet {
    type Transport = AsyncSim;

    fn connect(&self, peer: SocketAddr) -> io::Result<AsyncSim> {
        Ok(AsyncSim::new(Connect::connect(self, peer)?))
    }

    fn now(&self) -> Timestamp {
        self.catch_up();
        SimNet::now(self)
    }

    fn entropy(&self, bytes: &mut [u8]) -> io::Result<()> {
        Connect::entropy(self, bytes)
    }
}
