use std::io;
use std::net::SocketAddr;

use tokio::net::{self, ToSocketAddrs};

use super::Server;
use crate::aio::runtime::Tokio;
use crate::aio::transport::AsyncTransport;
use crate::aio::udp::AsyncUdp;
use crate::codec::Codec;
use crate::config_error::ConfigError;
use crate::gate::Gate;
use crate::server::ServerBuilder;

/// The same settings on tokio.
impl<C, G> From<ServerBuilder<C, G>> for ServerBuilder<C, G, Tokio> {
    fn from(blocking: ServerBuilder<C, G>) -> Self {
        blocking.driven_by()
    }
}

impl<C: Codec + Clone, G: Gate + Clone> ServerBuilder<C, G, Tokio> {
    /// A server on tokio, with UDP sockets of its own that are bound to the first of the addresses
    /// that can be had. Names are resolved without blocking.
    ///
    /// # Errors
    ///
    /// A setting out of range, the OS's refusal of a socket, or a name that cannot be resolved.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// ```
    /// use rejoinder::aio::Server;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder(Text).bind("127.0.0.1:0").await?;
    /// assert!(server.local_addr()?.ip().is_loopback());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn bind(
        mut self,
        addr: impl ToSocketAddrs,
    ) -> Result<Server<AsyncUdp, C, G>, ConfigError> {
        let addrs: Vec<SocketAddr> = net::lookup_host(addr).await?.collect();
        let group = self.bind_group(&addrs[..])?;
        let group: io::Result<Vec<_>> = group.into_iter().map(AsyncUdp::new).collect();
        self.with_transports(group?)
    }

    /// A server on several transports that are open already, with a worker for each. There must be at
    /// least one.
    ///
    /// # Errors
    ///
    /// A setting out of range.
    ///
    /// ```
    /// use rejoinder::aio::{AsyncUdp, Server};
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let one = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let other = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let server = Server::builder(Text).with_transports([one, other])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_transports<T: AsyncTransport>(
        mut self,
        transports: impl IntoIterator<Item = T>,
    ) -> Result<Server<T, C, G>, ConfigError> {
        let transports: Vec<_> = transports.into_iter().collect();
        self.check_for_open(transports.len())?;
        // Two workers that face each other must go quiet too.
        for addr in transports.iter().filter_map(|one| one.local_addr().ok()) {
            self = self.local_addr(addr);
        }
        let cores = transports
            .iter()
            .map(|_| {
                let mut core = self.clone().core(());
                core.set_is_local_ip(T::is_local_ip);
                core
            })
            .collect::<Vec<_>>();
        Ok(Server::new(transports, cores, self.config))
    }
}

impl<C: Codec, G: Gate> ServerBuilder<C, G, Tokio> {
    /// A server on a transport that is open already, with one worker.
    ///
    /// # Errors
    ///
    /// A setting out of range.
    ///
    /// ```
    /// use rejoinder::aio::{AsyncUdp, Server};
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let udp = AsyncUdp::new(UdpTransport::bind("127.0.0.1:0")?)?;
    /// let server = Server::builder(Text).with_transport(udp)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_transport<T: AsyncTransport>(
        mut self,
        transport: T,
    ) -> Result<Server<T, C, G>, ConfigError> {
        self.check_for_open(1)?;
        if let Ok(addr) = transport.local_addr() {
            self = self.local_addr(addr);
        }
        let config = self.config;
        let mut core = self.core(());
        core.set_is_local_ip(T::is_local_ip);
        Ok(Server::new(vec![transport], vec![core], config))
    }
}
