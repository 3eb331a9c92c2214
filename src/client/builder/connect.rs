//! What is made of the settings of a client: the client, or its core.

#[cfg(feature = "udp")]
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;

use super::ClientBuilder;
use crate::client::peers::Peers;
use crate::client::{Client, ClientCore};
use crate::codec::{Codec, Correlation};
use crate::config_error::ConfigError;
use crate::transport::Connect;
#[cfg(feature = "udp")]
use crate::udp::UdpConnector;

impl<C: Codec> ClientBuilder<C> {
    /// A client over UDP that asks the first of the addresses, and the others as
    /// [`other_peers`](Self::other_peers), before those. The name is resolved once, here, which blocks for as
    /// long as the resolver of the OS takes; [`Client::set_peers`] takes other addresses later. Sockets are
    /// opened for requests.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for a setting, and [`ConfigError::Io`] if there is no address,
    /// because a name is not known, say.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Client, ConfigError};
    ///
    /// assert!(Client::builder(Text).connect("127.0.0.1:9999").is_ok());
    /// let no_port = Client::builder(Text).connect("127.0.0.1");
    /// assert!(matches!(no_port, Err(ConfigError::Io(_))));
    /// let no_window = Client::builder(Text).window(0).connect("127.0.0.1:9999");
    /// assert!(matches!(no_window, Err(ConfigError::OutOfRange { setting: "window", .. })));
    /// ```
    #[cfg(feature = "udp")]
    pub fn connect(
        mut self,
        peer: impl ToSocketAddrs,
    ) -> Result<Client<UdpConnector, C>, ConfigError> {
        self.udp.check()?;
        let peer = self.take_peers(peer.to_socket_addrs()?)?;
        let connector = UdpConnector::from(self.udp.clone());
        self.with_connector(connector, peer)
    }

    /// A client over any transport.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for a setting, also for a codec whose
    /// [ids](Correlation::Id) do not have 1 to 64 bits.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpConnector;
    /// use rejoinder::Client;
    ///
    /// let udp = UdpConnector::default();
    /// let client = Client::builder(Text).with_connector(udp, "127.0.0.1:9999".parse()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_connector<N: Connect>(
        self,
        connector: N,
        peer: SocketAddr,
    ) -> Result<Client<N, C>, ConfigError> {
        Ok(Client::with(connector, self.core(peer)?))
    }
}

impl<C: Codec, D> ClientBuilder<C, D> {
    /// The first address, after which the others are asked.
    #[cfg(feature = "udp")]
    pub(crate) fn take_peers(
        &mut self,
        mut peers: impl Iterator<Item = SocketAddr>,
    ) -> io::Result<SocketAddr> {
        let first = peers
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the name has no address"))?;
        self.other_peers.splice(0..0, peers);
        Ok(first)
    }

    /// The core of such a client, for a driver of your own.
    ///
    /// # Errors
    ///
    /// As those of [`with_connector`](Self::with_connector).
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::Client;
    ///
    /// let core = Client::builder(Text).core("192.0.2.1:9999".parse()?)?;
    /// assert!(core.stats().room > 0 && core.next_timer().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn core(self, peer: SocketAddr) -> Result<ClientCore<C>, ConfigError> {
        self.options.check()?;
        if let Correlation::Id { bits } = self.codec.correlation()
            && !(1..=64).contains(&bits)
        {
            return Err(ConfigError::out_of_range(
                "codec ids (bits)",
                bits,
                "1 to 64",
            ));
        }
        let peers = Peers::new(peer, &self.other_peers);
        Ok(ClientCore::new(self.codec, peers, self.options))
    }
}
