use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::identity::Identity;

/// The most bytes that one UDP datagram carries over IPv4: 65,535 less an IPv4 header of 20 bytes
/// and a UDP header of 8 (RFC 791 §3.1, RFC 768). The default limit in both directions.
///
/// ```
/// use rejoinder::transport::{Inbox, MAX_DATAGRAM_BYTES};
///
/// // Whatever a peer can send over IPv4 arrives whole.
/// let inbox = Inbox::new(8, MAX_DATAGRAM_BYTES);
/// assert_eq!(inbox.max_datagram_bytes(), 65_507);
/// ```
pub const MAX_DATAGRAM_BYTES: usize = 65_507;
/// The most that fits into a datagram of UDP over IPv6: 65,535 bytes less the header of UDP.
pub(crate) const MAX_V6_DATAGRAM_BYTES: usize = 65_527;

/// Where a received datagram came from and went to.
///
/// ```
/// use rejoinder::transport::{Delivery, Meta};
///
/// let meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("198.51.100.1".parse()?);
/// assert_eq!(meta.peer.port(), 7777);
/// assert_eq!(meta.local, Some("198.51.100.1".parse()?));
/// assert_eq!(meta.delivery, Delivery::Unicast);
/// assert!(!meta.truncated && meta.waited.is_zero());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meta {
    /// The source address. UDP does not prove it: it can be forged.
    pub peer: SocketAddr,
    /// The address of this machine that it was sent to, if the OS reports it; for a datagram to a
    /// group, the one of the interface that it came in by. The response leaves from there.
    pub local: Option<IpAddr>,
    /// The port that it was sent to; 0 if that is unknown.
    pub local_port: u16,
    /// The index of the interface that it came in by; 0 if that is unknown. Over UDP it is known on
    /// Linux, for sockets that are bound to all addresses or to a group.
    pub interface: u32,
    /// Whether it was sent to this machine or to a group, as far as is known.
    pub delivery: Delivery,
    /// Whether it was longer than the inbox's limit, so that only a part of it is here.
    pub truncated: bool,
    /// How long it had waited in the OS's queue when it was received, if the OS reports it; otherwise
    /// zero.
    pub waited: Duration,
    /// The number of the secure association that it came by, such as one of DTLS (RFC 6347 §4.2); 0 where
    /// the transport has none. A transport never gives a number to two associations at a time, and its
    /// [`Egress`] carries it back. Default: 0.
    pub association: u32,
}

impl Meta {
    /// A whole datagram from `peer`, sent to an address that is not known.
    pub const fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            local: None,
            local_port: 0,
            interface: 0,
            delivery: Delivery::Unicast,
            truncated: false,
            waited: Duration::ZERO,
            association: 0,
        }
    }

    /// The same, sent to `local`.
    #[must_use]
    pub const fn sent_to(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// The address and the port that it was sent to, if both are known.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    ///
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("198.51.100.1".parse()?);
    /// assert_eq!(meta.local_addr(), None);
    /// meta.local_port = 9999;
    /// assert_eq!(meta.local_addr(), Some("198.51.100.1:9999".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn local_addr(&self) -> Option<SocketAddr> {
        local_addr(self.local, self.local_port, self.interface)
    }

    /// Where the response to it leaves from.
    ///
    /// It leaves from the address that was asked, and by the association that the request came by. It
    /// leaves by the interface that the request came in by, if that was sent to a group or by a link-local
    /// address, which another interface may have too; in all other cases the routes decide.
    ///
    /// ```
    /// use rejoinder::transport::{Delivery, Meta};
    ///
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("192.0.2.9".parse()?);
    /// meta.interface = 3;
    /// assert_eq!(meta.egress().interface, 0);
    /// meta.delivery = Delivery::Multicast;
    /// assert_eq!(meta.egress().interface, 3);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn egress(&self) -> Egress {
        Egress {
            association: self.association,
            ..egress(self.peer, self.local, self.interface, self.delivery)
        }
    }
}

/// Where the response to a datagram leaves from, but for its association: see [`Meta::egress`].
#[inline]
pub(crate) fn egress(
    peer: SocketAddr,
    local: Option<IpAddr>,
    interface: u32,
    delivery: Delivery,
) -> Egress {
    // Most sockets do not know the interface: those need no look at the addresses.
    let stays = interface != 0 && (delivery != Delivery::Unicast || is_link_local(peer.ip()));
    Egress {
        ip: local,
        interface: if stays { interface } else { 0 },
        association: 0,
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// An address with its port, and its interface where it needs one (RFC 4007 §6).
pub(crate) fn local_addr(ip: Option<IpAddr>, port: u16, interface: u32) -> Option<SocketAddr> {
    let ip = ip.filter(|_| port != 0)?;
    Some(match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, port, 0, interface).into()
        }
        ip => SocketAddr::new(ip, port),
    })
}

/// The kind of destination that a datagram was sent to.
///
/// A response to a request that many received is a matter of its own: errors, for one, are better
/// kept back (RFC 7252 §8.2), because each of the many would send one.
///
/// ```
/// use rejoinder::Context;
/// use rejoinder::transport::Delivery;
///
/// fn may_report_an_error(context: &Context) -> bool {
///     context.delivery == Delivery::Unicast
/// }
/// # let meta = rejoinder::transport::Meta::new("192.0.2.1:7777".parse()?);
/// # assert!(may_report_an_error(&Context::new(&meta, rejoinder::Timestamp::system())));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// To this machine alone, or it is not known.
    #[default]
    Unicast,
    /// To a multicast group.
    Multicast,
    /// To a broadcast address.
    Broadcast,
}

/// Where a datagram leaves from: an address, an interface, both or neither. What is left open, the OS
/// chooses.
///
/// ```
/// use rejoinder::transport::{Egress, Outbox};
///
/// let mut outbox = Outbox::new(8, 512);
/// let peer = "192.0.2.1:7777".parse()?;
/// outbox.push(peer, None, b"from anywhere")?;
/// outbox.push(peer, Egress::from("192.0.2.9".parse::<std::net::IpAddr>()?), b"from there")?;
/// outbox.push(peer, Egress::by_interface(3), b"by the third interface")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Egress {
    /// The address that it leaves from.
    pub ip: Option<IpAddr>,
    /// The index of the interface that it leaves by, or 0.
    pub interface: u32,
    /// The [association](Meta::association) that it leaves by, or 0: then by the one that the destination
    /// has when it is sent. A transport with associations never sends it by another one. If the one that is
    /// named is gone, the datagram fails with an error of the class
    /// [`Peer`](crate::transport::ErrorClass::Peer). Other transports ignore it.
    pub association: u32,
}

impl Egress {
    /// By an interface, from an address that the OS chooses; 0 leaves the interface open too.
    pub const fn by_interface(interface: u32) -> Self {
        Self {
            ip: None,
            interface,
            association: 0,
        }
    }

    /// The same way, by an [association](Self::association).
    ///
    /// ```
    /// use rejoinder::transport::{Egress, Meta};
    ///
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?);
    /// meta.association = 7;
    /// assert_eq!(meta.egress(), Egress::default().by_association(7));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    pub const fn by_association(mut self, association: u32) -> Self {
        self.association = association;
        self
    }
}

impl From<IpAddr> for Egress {
    fn from(ip: IpAddr) -> Self {
        Some(ip).into()
    }
}

impl From<Option<IpAddr>> for Egress {
    fn from(ip: Option<IpAddr>) -> Self {
        Self {
            ip,
            interface: 0,
            association: 0,
        }
    }
}

/// One received datagram.
///
/// ```
/// use rejoinder::transport::{Inbox, Meta};
///
/// let mut inbox = Inbox::new(1, 4);
/// inbox.push(b"too long", Meta::new("192.0.2.1:7777".parse()?));
/// let datagram = inbox.pop().expect("it was pushed");
/// assert!(datagram.meta.truncated); // so what is in `bytes` is no message
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// The payload; a part of it if [`Meta::truncated`] is set.
    pub bytes: &'a [u8],
    /// Where it came from. Behind a proxy, the peer is the client.
    pub meta: Meta,
    /// The proxy that it came by, where the server is [behind](crate::ServerBuilder::behind) one.
    pub proxied: Option<Proxied>,
    /// The bytes of the proxy's header, if this datagram has one: see
    /// [`Header`](crate::proxy::Header). They are not in `bytes`.
    pub proxy_header: &'a [u8],
    /// The peer's identity, if it is authenticated: by the transport, or, once the codec has
    /// [authenticated](crate::Codec::authenticate) the datagram, by the codec. Behind a proxy, the identity
    /// that a transport established is the proxy's, because the proxy is its peer.
    pub identity: Option<&'a Identity>,
}

/// By which proxy a datagram came.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::proxy::{Header, Proxies, ProxyMode};
/// use rejoinder::transport::{Inbox, Meta, Outbox};
/// use rejoinder::{Context, Handler, Reply, ReplyError, Server, Timestamp};
///
/// /// Answers with the client's address and with the proxy's.
/// struct Whence;
///
/// impl Handler<Text> for Whence {
///     fn handle(
///         &self,
///         _: &str,
///         context: &Context,
///         reply: &mut Reply<'_, Text>,
///     ) -> Result<(), ReplyError> {
///         let proxy = context.proxied.map(|one| one.proxy);
///         reply.send(&format_args!("{} by {proxy:?}", context.peer))
///     }
/// }
///
/// let proxies = Proxies::builder(ProxyMode::V2).trust("10.0.0.0".parse()?, 8).build()?;
/// let mut core = Server::builder(Text).behind(proxies).core(Whence);
/// let (mut inbox, mut outbox) = (Inbox::new(8, 1_024), Outbox::new(64, 512));
/// let mut datagram = Header::encode_v2("192.0.2.1:7000".parse()?, "198.51.100.1:9".parse()?);
/// datagram.extend(b"hello");
/// inbox.push(&datagram, Meta::new("10.0.0.9:5000".parse()?));
/// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
/// let response = outbox.iter().next().expect("a response");
/// assert_eq!(response.peer, "10.0.0.9:5000".parse()?);
/// assert_eq!(response.bytes, b"192.0.2.1:7000 by Some(10.0.0.9:5000)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proxied {
    /// The proxy's address: the response goes there.
    pub proxy: SocketAddr,
    /// Whether the proxy asks for itself, to see whether the server is well. Always `false` in the mode
    /// [`FirstOfFlow`](crate::proxy::ProxyMode::FirstOfFlow), where a client could pretend it.
    pub is_health_check: bool,
}

impl Proxied {
    pub(crate) const fn new(proxy: SocketAddr, is_health_check: bool) -> Self {
        Self {
            proxy,
            is_health_check,
        }
    }
}

impl<'a> Datagram<'a> {
    /// A datagram: for tests of a gate or of a host on its own.
    ///
    /// ```
    /// use rejoinder::transport::{Datagram, Meta};
    ///
    /// let datagram = Datagram::new(b"hello", Meta::new("192.0.2.1:7777".parse()?));
    /// assert_eq!(datagram.bytes, b"hello");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    pub const fn new(bytes: &'a [u8], meta: Meta) -> Self {
        Self {
            bytes,
            meta,
            proxied: None,
            proxy_header: &[],
            identity: None,
        }
    }

    /// The same datagram from a peer with this identity, or with none.
    ///
    /// ```
    /// use rejoinder::Identity;
    /// use rejoinder::transport::{Datagram, Meta};
    ///
    /// let sensor = Identity::from("sensor 7");
    /// let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// let datagram = Datagram::new(b"hello", meta).identified(Some(&sensor));
    /// assert_eq!(datagram.identity, Some(&sensor));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    #[inline]
    pub const fn identified(mut self, identity: Option<&'a Identity>) -> Self {
        self.identity = identity;
        self
    }
}

/// One datagram to be sent.
///
/// ```
/// use rejoinder::transport::Outbox;
///
/// let mut outbox = Outbox::new(1, 512);
/// outbox.push("192.0.2.1:7777".parse()?, None, b"!")?;
/// // What a transport does with an outbox:
/// for datagram in outbox.iter() {
///     assert_eq!((datagram.bytes, datagram.peer.port()), (&b"!"[..], 7777));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outgoing<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// The destination.
    pub peer: SocketAddr,
    /// Where it leaves from.
    pub egress: Egress,
}
