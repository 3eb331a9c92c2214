//! Gates: filters of datagrams, by their bytes and sender alone, and of the responses to them.

mod amplification;
mod rate;

pub use self::amplification::AmplificationLimit;
pub use self::rate::{RateLimit, RateLimitBuilder};
use crate::drop_reason::DropReason;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Meta};

/// A filter: accepts or drops each datagram before it is decoded, and can veto the responses to it.
///
/// # Who calls what
///
/// The server asks [`accept`](Self::accept) once for every datagram that passed the checks which
/// are always on (see [`DropReason`]), before the codec decodes it. If the peer turns out to have an
/// identity, the server then asks [`accept_identified`](Self::accept_identified). If the datagram was
/// accepted and the handler answered, the server passes the size of the responses to
/// [`allow_responses`](Self::allow_responses). There is no such call for a datagram without a response.
///
/// # What an implementation guarantees
///
/// It decides quickly and without waiting: it runs for every datagram of a flood. Its memory is
/// bounded, whatever arrives. Its clock is [`Timestamp::monotonic`], which is passed in.
///
/// # Closures and combinations
///
/// A closure that returns why it drops a datagram is a gate; the reason is its own counter in
/// [`Stats`](crate::Stats):
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::transport::Datagram;
/// use rejoinder::Server;
///
/// Server::builder(Text).gate(|datagram: &Datagram<'_>| match datagram.bytes {
///     [b'?', ..] => Ok(()),
///     _ => Err("no question"),
/// });
/// ```
///
/// A pair of gates is a gate: the first is asked first, and what it drops the second never sees.
/// Responses pass them in the same order, so one that forbids (as [`AmplificationLimit`] does) stands
/// before one that counts (as [`RateLimit`] does). `()` lets everything pass; so does `None`.
///
/// # Several workers
///
/// Each has a clone of the gate. Whether clones share what they know is the gate's affair;
/// [`RateLimit`]'s do.
///
/// # A minimal implementation
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::Gate;
/// use rejoinder::transport::Datagram;
/// use rejoinder::{DropReason, Server, Timestamp};
/// use std::net::IpAddr;
///
/// /// Answers only to its own network.
/// #[derive(Clone)]
/// struct OnlyFrom(IpAddr);
///
/// impl Gate for OnlyFrom {
///     fn accept(&mut self, _: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
///         let known = datagram.meta.peer.ip() == self.0;
///         known
///             .then_some(())
///             .ok_or(DropReason::Gate("not the known address"))
///     }
/// }
///
/// let core = Server::builder(Text)
///     .gate(OnlyFrom("192.0.2.1".parse()?))
///     .core(|text: &str| Some(text.to_uppercase()));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub trait Gate {
    /// Whether the datagram may go on to the codec and the handler.
    fn accept(&mut self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason>;

    /// Whether the datagram of an authenticated peer may go on. [`Datagram::identity`] is the identity:
    /// that of the [codec](crate::Codec::authenticate), or else that of the transport. The server asks once
    /// for each datagram that has one, after [`accept`](Self::accept). The default says yes.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::Gate;
    /// use rejoinder::transport::Datagram;
    /// use rejoinder::{DropReason, Identity, Server, Timestamp};
    ///
    /// /// Drops what a peer sends whose key was withdrawn.
    /// #[derive(Clone)]
    /// struct Withdrawn(Vec<Identity>);
    ///
    /// impl Gate for Withdrawn {
    ///     fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
    ///         Ok(())
    ///     }
    ///     fn accept_identified(&mut self, _: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
    ///         match datagram.identity {
    ///             Some(identity) if self.0.contains(identity) => Err(DropReason::Gate("withdrawn")),
    ///             _ => Ok(()),
    ///         }
    ///     }
    /// }
    /// Server::builder(Text).gate(Withdrawn(vec![Identity::from("sensor 7")]));
    /// ```
    fn accept_identified(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        let _ = (now, datagram);
        Ok(())
    }

    /// Whether the responses to a datagram may leave: all of them, or none. The default says yes.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::{Gate, ResponseSize};
    /// use rejoinder::transport::Datagram;
    /// use rejoinder::{DropReason, Server, Timestamp};
    ///
    /// /// Sends so many bytes, and then nothing more.
    /// #[derive(Clone)]
    /// struct Budget(usize);
    ///
    /// impl Gate for Budget {
    ///     fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
    ///         Ok(())
    ///     }
    ///     fn allow_responses(
    ///         &mut self,
    ///         _: Timestamp,
    ///         _: &Datagram<'_>,
    ///         responses: ResponseSize,
    ///     ) -> Result<(), DropReason> {
    ///         let left = self.0.checked_sub(responses.bytes);
    ///         self.0 = left.ok_or(DropReason::Gate("over budget"))?;
    ///         Ok(())
    ///     }
    /// }
    /// Server::builder(Text).gate(Budget(1_000_000));
    /// ```
    fn allow_responses(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        let _ = (now, datagram, responses);
        Ok(())
    }
}

/// How much would be sent in answer to one datagram.
///
/// ```
/// use rejoinder::gate::ResponseSize;
/// use rejoinder::transport::Meta;
///
/// let responses = ResponseSize::new(2, 100);
/// let (v4, v6) = ("192.0.2.1:7777".parse()?, "[2001:db8::1]:7777".parse()?);
/// assert_eq!(responses.wire_bytes(&Meta::new(v4)), 100 + 2 * (20 + 8));
/// assert_eq!(responses.wire_bytes(&Meta::new(v6)), 100 + 2 * (40 + 8));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseSize {
    /// Datagrams; at least one.
    pub datagrams: usize,
    /// Bytes of all their payloads.
    pub bytes: usize,
}

impl ResponseSize {
    /// That much.
    pub const fn new(datagrams: usize, bytes: usize) -> Self {
        Self { datagrams, bytes }
    }

    /// The bytes on the wire: the payloads, and for each datagram the headers of UDP (8 bytes, RFC
    /// 768) and IP (20 bytes for IPv4, RFC 791 §3.1; 40 for IPv6, RFC 8200 §3). What the link adds
    /// is not counted, nor the headers that fragments repeat: for a long datagram 1.4 % more over
    /// IPv4 where the MTU is 1,500 bytes, and the more the smaller it is; over IPv6 (RFC 8200 §4.5)
    /// 3.3 % at an MTU of 1,500 bytes, and 3.9 % at 1,280, the least there is.
    pub fn wire_bytes(&self, meta: &Meta) -> usize {
        let is_v4 = meta.peer.ip().to_canonical().is_ipv4();
        let ip_header = if is_v4 { 20 } else { 40 };
        self.bytes + self.datagrams * (ip_header + 8)
    }
}

impl<F> Gate for F
where
    F: FnMut(&Datagram<'_>) -> Result<(), &'static str>,
{
    #[inline]
    fn accept(&mut self, _: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self(datagram).map_err(DropReason::Gate)
    }
}

impl Gate for () {
    #[inline]
    fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
        Ok(())
    }
}

impl<A: Gate, B: Gate> Gate for (A, B) {
    #[inline]
    fn accept(&mut self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self.0.accept(now, datagram)?;
        self.1.accept(now, datagram)
    }

    #[inline]
    fn accept_identified(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        self.0.accept_identified(now, datagram)?;
        self.1.accept_identified(now, datagram)
    }

    #[inline]
    fn allow_responses(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        self.0.allow_responses(now, datagram, responses)?;
        self.1.allow_responses(now, datagram, responses)
    }
}

impl<G: Gate> Gate for Option<G> {
    #[inline]
    fn accept(&mut self, now: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self.as_mut()
            .map_or(Ok(()), |gate| gate.accept(now, datagram))
    }

    #[inline]
    fn accept_identified(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        self.as_mut()
            .map_or(Ok(()), |gate| gate.accept_identified(now, datagram))
    }

    #[inline]
    fn allow_responses(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        self.as_mut().map_or(Ok(()), |gate| {
            gate.allow_responses(now, datagram, responses)
        })
    }
}

/// The source ports that a server never answers by default: see
/// [`blocked_ports`](crate::ServerBuilder::blocked_ports).
///
/// A datagram from such a port comes from a service there or, more likely, has a forged source. The
/// attacker wants the two services to answer each other, or hides behind one (RFC 9308 §8.1;
/// US-CERT TA14-017A; CVE-2024-2169). A client whose port the OS chooses gets none of them: system
/// ports (below 1024) are not given out, and of the others it gets each with a chance of one in
/// some 64,000, only if its system or its NAT does not keep to the dynamic ports (from 49,152, RFC
/// 6335 §6). Asking again from another port helps it.
///
/// The clients of a few protocols choose such a port themselves: NTP from 123 (RFC 5905 §9.1), IKE
/// from 500 (RFC 7296 §2), and some DNS resolvers from 53. A server of these protocols takes the port
/// off the list with [`blocked_ports`](crate::ServerBuilder::blocked_ports), and if it listens on
/// that port, is bound to one address (see [`SourceOwn`](crate::DropReason::SourceOwn)).
///
/// | port | service | source |
/// | --- | --- | --- |
/// | 7 | echo: whatever comes goes back | RFC 862, CVE-2024-2169 |
/// | 11 | active users | RFC 866, CVE-2024-2169 |
/// | 13 | daytime | RFC 867, CVE-2024-2169 |
/// | 17 | quote of the day | RFC 865, TA14-017A |
/// | 19 | character generator | RFC 864, TA14-017A |
/// | 37 | time | RFC 868, CVE-2024-2169 |
/// | 53 | DNS | RFC 9308, TA14-017A |
/// | 69 | TFTP | TA14-017A, CVE-2024-2169 |
/// | 111 | portmap | TA14-017A, s2n-quic |
/// | 123 | NTP | RFC 9308, TA14-017A |
/// | 137, 138 | `NetBIOS` names, datagrams | TA14-017A, quiche |
/// | 161 | SNMP | TA14-017A, s2n-quic |
/// | 389 | LDAP without connection | TA14-017A, s2n-quic |
/// | 500 | IKE | s2n-quic, quiche |
/// | 520 | RIP | TA14-017A |
/// | 1900 | SSDP | RFC 9308, TA14-017A |
/// | 3702 | WS-Discovery | quiche |
/// | 5353 | multicast DNS | RFC 9308, TA14-017A |
/// | 5355 | link-local multicast name resolution | quiche |
/// | 11211 | memcached | RFC 9308, TA14-017A |
///
/// Port 0 is none that could be answered, and is never answered whatever is set here. Discard
/// (port 9, RFC 863) is not in the list: it never says anything. Nor are the ports of games and of
/// file sharing in TA14-017A, which lie where clients' ports do.
///
/// ```
/// use rejoinder::gate::REFLECTOR_PORTS;
///
/// assert!(REFLECTOR_PORTS.contains(&7)); // echo, RFC 862
/// assert!(!REFLECTOR_PORTS.contains(&9999));
/// ```
pub const REFLECTOR_PORTS: [u16; 21] = [
    7, 11, 13, 17, 19, 37, 53, 69, 111, 123, 137, 138, 161, 389, 500, 520, 1900, 3702, 5353, 5355,
    11_211,
];
