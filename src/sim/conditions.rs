//! What the network does to datagrams: its links and partitions.

use std::net::IpAddr;

use super::{Link, SimNet, lock};
use crate::config_error::ConfigError;

impl SimNet {
    /// Makes every direction between two machines such a link, but for those with a
    /// [link of their own](Self::set_link_between). What is in flight already is not changed. A setting
    /// of the link out of range is an error.
    ///
    /// ```
    /// use rejoinder::sim::{Link, PacketFate, SimNet};
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// net.set_link(Link::new().loss(1.0))?;
    /// net.inject("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, b"farewell");
    /// net.advance(Duration::from_secs(1));
    /// assert!(
    ///     net.trace()
    ///         .events()
    ///         .all(|event| event.fate == PacketFate::Lost)
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_link(&self, link: Link) -> Result<(), ConfigError> {
        link.check()?;
        lock(&self.state).link = link;
        Ok(())
    }

    /// Gives one direction between two machines a link of its own. A setting of the link out of range
    /// is an error.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::sim::{Link, SimNet};
    /// use rejoinder::Client;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let (home, server) = (
    ///     "10.0.0.2".parse()?,
    ///     "10.0.0.1:9999".parse::<std::net::SocketAddr>()?,
    /// );
    /// net.host(
    ///     server,
    ///     ServerCore::new(Text, |text: &str| Some(text.to_owned())),
    /// )?;
    /// // Requests take the long way, answers the short one.
    /// let slow = Link::new().latency(Duration::from_millis(250));
    /// net.set_link_between(home, server.ip(), slow)?;
    /// Client::new(net.from_host(home), Text, server).request("hello?")?;
    /// assert_eq!(net.now().monotonic, Duration::from_millis(250));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_link_between(
        &self,
        from: IpAddr,
        to: IpAddr,
        link: Link,
    ) -> Result<(), ConfigError> {
        link.check()?;
        lock(&self.state).direction(from, to).link = Some(link);
        Ok(())
    }

    /// Cuts two machines off from each other, in both directions. What is in flight still arrives.
    ///
    /// ```
    /// use rejoinder::sim::{PacketFate, SimNet};
    /// use std::net::IpAddr;
    /// use std::time::Duration;
    ///
    /// let net = SimNet::new();
    /// let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse()?, "10.0.0.2".parse()?);
    /// let _endpoint = net.bind((other, 7).into())?;
    /// let fate = || {
    ///     net.inject((one, 7).into(), (other, 7).into(), b"are you there?");
    ///     net.advance(Duration::from_secs(1));
    ///     net.trace().events().last().map(|event| event.fate)
    /// };
    /// net.partition(one, other);
    /// assert_eq!(fate(), Some(PacketFate::Partitioned));
    /// net.heal(one, other);
    /// assert_eq!(fate(), Some(PacketFate::Delivered));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn partition(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, true);
    }

    /// Ends a [partition](Self::partition).
    pub fn heal(&self, one: IpAddr, other: IpAddr) {
        self.set_partitioned(one, other, false);
    }

    fn set_partitioned(&self, one: IpAddr, other: IpAddr, partitioned: bool) {
        let mut state = lock(&self.state);
        state.direction(one, other).partitioned = partitioned;
        state.direction(other, one).partitioned = partitioned;
    }
}
