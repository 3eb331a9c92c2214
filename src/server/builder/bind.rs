//! What is made of the settings of a server: the server, or its core.

#[cfg(feature = "udp")]
use std::net::ToSocketAddrs;

use super::ServerBuilder;
use crate::codec::Codec;
use crate::config_error::ConfigError;
use crate::gate::Gate;
use crate::server::Server;
use crate::server::core::{Behind, ServerCore};
use crate::server::source::SourceCheck;
use crate::transport::Transport;
#[cfg(feature = "udp")]
use crate::udp::UdpTransport;

impl<C: Codec, G: Gate> ServerBuilder<C, G> {
    /// A server on UDP sockets of its own, bound to the first of the addresses that can be had; the
    /// error is the last one's.
    ///
    /// [`max_request_bytes`](Self::max_request_bytes) and [`max_response_bytes`](Self::max_response_bytes)
    /// take 0 to 65,527, [`workers`](Self::workers) at least 1. More workers than one where the OS
    /// cannot spread the peers are an [`io::Error`](std::io::Error) of the kind
    /// [`Unsupported`](std::io::ErrorKind::Unsupported).
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    ///
    /// let server = Server::builder(Text).bind("127.0.0.1:0")?;
    /// assert!(server.local_addr()?.ip().is_loopback());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "udp")]
    pub fn bind(
        mut self,
        addr: impl ToSocketAddrs,
    ) -> Result<Server<UdpTransport, C, G>, ConfigError>
    where
        C: Clone,
        G: Clone,
    {
        let group = self.bind_group(addr)?;
        self.with_transports(group)
    }

    /// A server on a transport that is open already, with one worker.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpOptions;
    /// use std::net::UdpSocket;
    ///
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let server = Server::builder(Text).with_transport(UdpOptions::new().adopt(socket)?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_transport<T: Transport>(
        self,
        transport: T,
    ) -> Result<Server<T, C, G>, ConfigError> {
        self.check_for_open(1)?;
        let config = self.config;
        let mut core = self.core(());
        if let Ok(addr) = transport.local_addr() {
            core.add_local_addr(addr);
        }
        core.set_is_local_ip(T::is_local_ip);
        Ok(Server::new(vec![(transport, core)], config))
    }

    /// A server on several transports that are open already, with a worker for each: on sockets that
    /// a service manager passes, say. They may have different addresses. There must be at least one.
    ///
    /// The requests of one peer are answered in order if they all arrive at the same transport, as
    /// they do in a [group](crate::udp::UdpOptions::bind_group), and responses carry no
    /// [ids](crate::Correlation::Id).
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::udp::UdpTransport;
    ///
    /// let transports = [UdpTransport::bind("127.0.0.1:0")?, UdpTransport::bind("127.0.0.1:0")?];
    /// let server = Server::builder(Text).with_transports(transports)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_transports<T: Transport>(
        mut self,
        transports: impl IntoIterator<Item = T>,
    ) -> Result<Server<T, C, G>, ConfigError>
    where
        C: Clone,
        G: Clone,
    {
        let transports: Vec<_> = transports.into_iter().collect();
        self.check_for_open(transports.len())?;
        let config = self.config;
        // Two workers that face each other must go quiet too.
        let own = transports.iter().filter_map(|one| one.local_addr().ok());
        self.local_addrs.extend(own);
        let workers = transports.into_iter().map(|transport| {
            let mut core = self.clone().core(());
            core.set_is_local_ip(T::is_local_ip);
            (transport, core)
        });
        Ok(Server::new(workers.collect(), config))
    }
}

impl<C: Codec, G: Gate, D> ServerBuilder<C, G, D> {
    /// The sockets of [`bind`](Self::bind), which uses up the settings for them.
    #[cfg(feature = "udp")]
    pub(crate) fn bind_group(
        &mut self,
        addr: impl ToSocketAddrs,
    ) -> Result<Vec<UdpTransport>, ConfigError> {
        self.config.check()?;
        let workers = self.workers.take().unwrap_or(1);
        if workers == 0 {
            return Err(ConfigError::out_of_range("workers", 0, "at least 1"));
        }
        let udp = self.udp.take().unwrap_or_default();
        let udp = match self.max_age {
            Some(_) => udp.timestamps(true),
            None => udp,
        };
        udp.bind_group(addr, workers)
    }

    /// Checks the settings for so many transports that are open already. What would have no effect on
    /// them is an error.
    pub(crate) fn check_for_open(&self, transports: usize) -> Result<(), ConfigError> {
        self.config.check()?;
        if transports == 0 {
            return Err(ConfigError::out_of_range("transports", 0, "at least 1"));
        }
        #[cfg(feature = "udp")]
        if self.udp.is_some() {
            let range = "unset for transports that are open: use them to open the transports";
            return Err(ConfigError::out_of_range("udp_options", "set", range));
        }
        #[cfg(feature = "udp")]
        if let Some(workers) = self.workers
            && workers != transports
        {
            let range = format!("{transports}, one for each transport, or unset");
            return Err(ConfigError::out_of_range("workers", workers, range));
        }
        Ok(())
    }

    /// A core with these settings, for a driver of your own: the same that a server drives. The
    /// limits to lengths, [`workers`](Self::workers), [`busy_poll`](Self::busy_poll) and
    /// [`udp_options`](Self::udp_options) are the driver's business and do nothing here; except that
    /// [behind a proxy](Self::behind) the core drops a request that is too long without its header.
    ///
    /// With `()` in place of a handler, the core only [defers](ServerCore::defer_next) requests.
    ///
    /// ```
    /// use rejoinder::Server;
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::AmplificationLimit;
    ///
    /// let core = Server::builder(Text)
    ///     .gate(AmplificationLimit::default())
    ///     .core(|text: &str| Some(text.to_uppercase()));
    /// ```
    pub fn core<H>(self, handler: H) -> ServerCore<C, H, G> {
        let mut sources = SourceCheck::new(self.blocked_ports);
        for addr in self.local_addrs {
            sources.add_own(addr);
        }
        let behind = self.proxies.map(|proxies| Behind {
            proxies,
            max_request_bytes: self.config.max_request_bytes,
        });
        ServerCore::assemble(
            self.codec,
            handler,
            self.gate,
            sources,
            behind,
            self.max_age,
        )
    }
}

#[cfg(all(test, feature = "udp"))]
mod tests {
    use std::time::Duration;

    use crate::codec::Text;
    use crate::server::Server;
    use crate::udp::UdpOptions;

    #[test]
    #[cfg_attr(miri, ignore = "needs a socket")]
    fn a_limit_to_the_age_asks_for_times_of_arrival_unless_nothing_is_to_be_asked_for() {
        let has_times = |options: UdpOptions| {
            let builder = Server::builder(Text).udp_options(options);
            let server = builder.max_age(Duration::from_secs(1)).bind("127.0.0.1:0");
            let features = server.unwrap().workers[0].0.features();
            features.to_string().contains("timestamp")
        };
        assert_eq!(has_times(UdpOptions::new()), cfg!(target_os = "linux"));
        assert!(!has_times(UdpOptions::new().portable()));
    }
}
