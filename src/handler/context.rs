use std::net::{IpAddr, SocketAddr};

use super::RequestHash;
use crate::identity::Identity;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Delivery, Egress, Meta, Proxied, egress, local_addr};

/// What a handler knows about a request beside its content.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{Context, Handler, Reply, ReplyError};
///
/// /// Answers with the address that the peer has from here, as STUN does.
/// struct WhoAmI;
///
/// impl Handler<Text> for WhoAmI {
///     fn handle(
///         &self,
///         _: &str,
///         context: &Context,
///         reply: &mut Reply<'_, Text>,
///     ) -> Result<(), ReplyError> {
///         reply.send(&context.peer)
///     }
/// }
/// # let net = rejoinder::sim::SimNet::new();
/// # let server = "10.0.0.1:9999".parse()?;
/// # net.host(server, rejoinder::sans_io::ServerCore::new(Text, WhoAmI))?;
/// # let mut client = rejoinder::Client::new(net.from_host("10.0.0.2".parse()?), Text, server);
/// # assert_eq!(client.request("?")?, "10.0.0.2:49152");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A clone counts a reference to the identity, if there is one, and allocates nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Who asked, as far as one can know: the sender of a datagram is easily forged. Behind a
    /// [proxy](crate::ServerBuilder::behind) it is the client that the proxy names.
    pub peer: SocketAddr,
    /// The proxy that the request came by, where the server is behind one: the response goes there.
    pub proxied: Option<Proxied>,
    /// The address that was asked, if the OS reports it; the response leaves from there.
    pub local: Option<IpAddr>,
    /// The port that was asked; 0 if that is unknown.
    pub local_port: u16,
    /// The index of the interface that the request came in by; 0 if that is unknown.
    pub interface: u32,
    /// Whether the request was sent to this machine or to a group, as far as is known.
    pub delivery: Delivery,
    /// The number of the secure association that the request came by: see [`Meta::association`]. The
    /// response leaves by it, or not at all. Behind a proxy it is the proxy's.
    pub association: u32,
    /// When the batch with this request was received.
    pub now: Timestamp,
    /// The id of the request, if the codec finds one in it: what
    /// [`Codec::request_id`](crate::Codec::request_id) returns. Requests of one peer that differ in
    /// their ids are different requests, even with the same content.
    pub request_id: Option<u64>,
    /// That of a deferred request, whose bytes the handler's wrappers cannot see.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "only `Dedup` for handlers that wait reads it")
    )]
    pub(crate) request_hash: RequestHash,
    identity: Option<Identity>,
}

impl Context {
    /// The context of a datagram: for drivers, and for tests of a handler on its own.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Timestamp};
    ///
    /// let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// assert_eq!(Context::new(&meta, Timestamp::system()).peer, meta.peer);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    pub fn new(meta: &Meta, now: Timestamp) -> Self {
        Self::of(
            &Datagram::new(&[], *meta),
            now,
            None,
            RequestHash::default(),
        )
    }

    /// The identity of the peer, if the transport or the codec authenticated it. If both did, it is the
    /// codec's.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::{Context, Handler, Identity, Reply, ReplyError};
    ///
    /// /// Opens the door to one peer.
    /// struct Door;
    ///
    /// impl Handler<Text> for Door {
    ///     fn handle(&self, _: &str, context: &Context, reply: &mut Reply<'_, Text>) -> Result<(), ReplyError> {
    ///         match context.identity().and_then(Identity::as_str) {
    ///             Some("caretaker") => reply.send(&"open"),
    ///             _ => Ok(()), // no response
    ///         }
    ///     }
    /// }
    /// # let meta = rejoinder::transport::Meta::new("192.0.2.1:7777".parse()?);
    /// # let context = Context::new(&meta, rejoinder::Timestamp::system());
    /// # for (context, replies) in [
    /// #     (context.clone(), 0),
    /// #     (context.with_identity(Some(Identity::from("caretaker"))), 1),
    /// # ] {
    /// #     let mut outbox = rejoinder::transport::Outbox::new(16, 20);
    /// #     Door.handle("?", &context, &mut Reply::new(&Text, b"?", &context, &mut outbox))?;
    /// #     assert_eq!(outbox.len(), replies);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The same context with an identity, or with none: for drivers, and for tests of a handler.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Identity, Timestamp};
    ///
    /// let sensor = Identity::from("sensor 7");
    /// let context = Context::new(&Meta::new("192.0.2.1:7777".parse()?), Timestamp::system());
    /// let context = context.with_identity(Some(sensor.clone()));
    /// assert_eq!(context.identity(), Some(&sensor));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn with_identity(mut self, identity: Option<Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// The address and the port that were asked, if both are known.
    ///
    /// ```
    /// use rejoinder::transport::Meta;
    /// use rejoinder::{Context, Timestamp};
    ///
    /// let mut meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("198.51.100.1".parse()?);
    /// meta.local_port = 9999;
    /// let context = Context::new(&meta, Timestamp::system());
    /// assert_eq!(context.local_addr(), Some("198.51.100.1:9999".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn local_addr(&self) -> Option<SocketAddr> {
        local_addr(self.local, self.local_port, self.interface)
    }

    /// That of the datagram, as far as the context has it.
    #[inline]
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            local: self.local,
            local_port: self.local_port,
            interface: self.interface,
            delivery: self.delivery,
            association: self.association,
            ..Meta::new(self.peer)
        }
    }

    #[inline]
    pub(super) fn egress(&self) -> Egress {
        Egress {
            association: self.association,
            ..egress(self.reply_to(), self.local, self.interface, self.delivery)
        }
    }

    #[inline]
    pub(super) fn reply_to(&self) -> SocketAddr {
        self.proxied.map_or(self.peer, |one| one.proxy)
    }

    /// All of it at once: each `with_` would move the whole context again, for each request.
    #[inline]
    pub(crate) fn of(
        datagram: &Datagram<'_>,
        now: Timestamp,
        request_id: Option<u64>,
        request_hash: RequestHash,
    ) -> Self {
        let meta = &datagram.meta;
        Self {
            peer: meta.peer,
            proxied: datagram.proxied,
            local: meta.local,
            local_port: meta.local_port,
            interface: meta.interface,
            delivery: meta.delivery,
            association: meta.association,
            now,
            request_id,
            request_hash,
            identity: datagram.identity.cloned(),
        }
    }

    /// The same context with the id of the request.
    ///
    /// ```
    /// # use rejoinder::transport::Meta;
    /// # use rejoinder::{Context, Timestamp};
    /// # let meta = Meta::new("192.0.2.1:7777".parse()?);
    /// let context = Context::new(&meta, Timestamp::system()).with_request_id(Some(7));
    /// assert_eq!(context.request_id, Some(7));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn with_request_id(mut self, id: Option<u64>) -> Self {
        self.request_id = id;
        self
    }
}
