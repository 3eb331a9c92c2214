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
        AsyncUdp::new(Connect::connect(self, peer)?)
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
