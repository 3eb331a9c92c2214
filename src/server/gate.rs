//! Gates: who is let in, decided on the bytes and the sender alone, and what may leave.

mod amplification;
mod rate;
mod source;

pub use self::amplification::AmplificationLimit;
pub use self::rate::{RateLimit, RateLimitBuilder, RateLimitError};
pub use self::source::REFLECTOR_PORTS;
pub(super) use self::source::SourceCheck;
use super::stats::DropReason;
use crate::clock::Now;
use crate::transport::{Datagram, Meta};

/// Lets a datagram in, or drops it before anything is parsed; and lets the replies out, or not.
///
/// # Who calls what
///
/// The server asks [`admit`](Self::admit) once for every datagram that passed the checks which are
/// always on (see [`DropReason`]), before the codec decodes it. If it was let in and the handler
/// answered, the server tells [`release`](Self::release) how much would leave. A datagram that is
/// met with silence has no second call.
///
/// # What an implementation guarantees
///
/// It decides quickly and without waiting: it runs for every datagram of a flood. It keeps a
/// bounded amount of memory, whoever sends what. Its clock is [`Now::monotonic`], which is passed
/// in.
///
/// # Closures and combinations
///
/// A closure that says why it drops is a gate; the reason is its own counter in
/// [`Stats`](crate::Stats):
///
/// ```
/// use rejoinder::{Datagram, ServerBuilder, Text};
///
/// ServerBuilder::new(Text).gate(|datagram: &Datagram<'_>| match datagram.bytes {
///     [b'?', ..] => Ok(()),
///     _ => Err("no question"),
/// });
/// ```
///
/// A pair of gates is a gate: the first is asked first, and what it drops the second never sees.
/// Replies pass them in the same order, so one that forbids (as [`AmplificationLimit`] does) stands
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
/// use rejoinder::{Datagram, DropReason, Gate, Now, ServerCore, Text};
/// use std::net::IpAddr;
///
/// /// Answers only to its own network.
/// #[derive(Clone)]
/// struct OnlyFrom(IpAddr);
///
/// impl Gate for OnlyFrom {
///     fn admit(&mut self, _: Now, datagram: &Datagram<'_>) -> Result<(), DropReason> {
///         let known = datagram.meta.peer.ip() == self.0;
///         known
///             .then_some(())
///             .ok_or(DropReason::Gate("not the known address"))
///     }
/// }
///
/// let core = ServerCore::new(Text, |text: &str| Some(text.to_uppercase()));
/// core.gate(OnlyFrom("192.0.2.1".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub trait Gate {
    /// Whether the datagram may go on to the codec and the handler.
    fn admit(&mut self, now: Now, datagram: &Datagram<'_>) -> Result<(), DropReason>;

    /// Whether the replies to a datagram may leave: all of them, or none. The default says yes.
    ///
    /// ```
    /// use rejoinder::{Datagram, DropReason, Gate, Now, Replies, ServerBuilder, Text};
    ///
    /// /// Sends so many bytes, and then nothing more.
    /// #[derive(Clone)]
    /// struct Budget(usize);
    ///
    /// impl Gate for Budget {
    ///     fn admit(&mut self, _: Now, _: &Datagram<'_>) -> Result<(), DropReason> {
    ///         Ok(())
    ///     }
    ///     fn release(
    ///         &mut self,
    ///         _: Now,
    ///         _: &Datagram<'_>,
    ///         replies: Replies,
    ///     ) -> Result<(), DropReason> {
    ///         let left = self.0.checked_sub(replies.bytes);
    ///         self.0 = left.ok_or(DropReason::Gate("over budget"))?;
    ///         Ok(())
    ///     }
    /// }
    /// ServerBuilder::new(Text).gate(Budget(1_000_000));
    /// ```
    fn release(
        &mut self,
        now: Now,
        datagram: &Datagram<'_>,
        replies: Replies,
    ) -> Result<(), DropReason> {
        let _ = (now, datagram, replies);
        Ok(())
    }
}

/// How much would be sent in answer to one datagram.
///
/// ```
/// use rejoinder::{Meta, Replies};
///
/// let replies = Replies::new(2, 100);
/// let (v4, v6) = ("192.0.2.1:7777".parse()?, "[2001:db8::1]:7777".parse()?);
/// assert_eq!(replies.wire_bytes(&Meta::new(v4)), 100 + 2 * (20 + 8));
/// assert_eq!(replies.wire_bytes(&Meta::new(v6)), 100 + 2 * (40 + 8));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replies {
    /// Datagrams; at least one.
    pub datagrams: usize,
    /// Bytes of all their payloads.
    pub bytes: usize,
}

impl Replies {
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
    fn admit(&mut self, _: Now, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self(datagram).map_err(DropReason::Gate)
    }
}

impl Gate for () {
    #[inline]
    fn admit(&mut self, _: Now, _: &Datagram<'_>) -> Result<(), DropReason> {
        Ok(())
    }
}

impl<A: Gate, B: Gate> Gate for (A, B) {
    #[inline]
    fn admit(&mut self, now: Now, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self.0.admit(now, datagram)?;
        self.1.admit(now, datagram)
    }

    #[inline]
    fn release(
        &mut self,
        now: Now,
        datagram: &Datagram<'_>,
        replies: Replies,
    ) -> Result<(), DropReason> {
        self.0.release(now, datagram, replies)?;
        self.1.release(now, datagram, replies)
    }
}

impl<G: Gate> Gate for Option<G> {
    #[inline]
    fn admit(&mut self, now: Now, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self.as_mut()
            .map_or(Ok(()), |gate| gate.admit(now, datagram))
    }

    #[inline]
    fn release(
        &mut self,
        now: Now,
        datagram: &Datagram<'_>,
        replies: Replies,
    ) -> Result<(), DropReason> {
        self.as_mut()
            .map_or(Ok(()), |gate| gate.release(now, datagram, replies))
    }
}
