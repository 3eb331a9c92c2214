use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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
/// use rejoinder::transport::Meta;
///
/// let meta = Meta::new("192.0.2.1:7777".parse()?).sent_to("198.51.100.1".parse()?);
/// assert_eq!(meta.peer.port(), 7777);
/// assert_eq!(meta.local, Some("198.51.100.1".parse()?));
/// assert!(!meta.truncated && meta.waited.is_zero());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Meta {
    /// Who sent it, or at least whom the datagram names as its sender: UDP proves nothing.
    pub peer: SocketAddr,
    /// The address that it was sent to, if the system tells. The answer leaves from there.
    pub local: Option<IpAddr>,
    /// Whether it was longer than the inbox's limit, so that only a part of it is here.
    pub truncated: bool,
    /// How long it had waited in the system's queue when it was received, if the system tells;
    /// otherwise zero.
    pub waited: Duration,
}

impl Meta {
    /// A whole datagram from `peer`, sent to an address that is not known.
    pub const fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            local: None,
            truncated: false,
            waited: Duration::ZERO,
        }
    }

    /// The same, sent to `local`.
    #[must_use]
    pub const fn sent_to(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
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
pub struct Datagram<'a> {
    /// The payload; a part of it if [`Meta::truncated`] is set.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub meta: Meta,
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
pub struct Outgoing<'a> {
    /// The payload.
    pub bytes: &'a [u8],
    /// Whom it goes to.
    pub peer: SocketAddr,
    /// The address that it leaves from; with `None` the system chooses.
    pub local: Option<IpAddr>,
}
