//! What Linux can do for a UDP socket and other systems cannot.

use std::fmt;

/// One thing that Linux can do for a UDP socket: for tests that leave it out.
///
/// Without one, a transport does the same more slowly; without the last three, it does not know what
/// they report.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use rejoinder::udp::{UdpFeature, UdpOptions};
///
/// let transport = UdpOptions::new()
///     .without(UdpFeature::Gro)
///     .bind("127.0.0.1:0")?;
/// assert!(!transport.features().contains(UdpFeature::Gro));
/// assert_eq!(UdpFeature::Gro.to_string(), "gro");
/// # }
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "exported with the feature `testing`")
)]
pub enum UdpFeature {
    /// Receiving many messages with one system call, `recvmmsg`.
    Recvmmsg,
    /// Sending many messages with one system call, `sendmmsg`.
    Sendmmsg,
    /// Receiving many datagrams from one peer as one message, `UDP_GRO` (Linux 5.0).
    Gro,
    /// Sending many datagrams to one peer as one message, `UDP_SEGMENT` (Linux 4.18).
    Gso,
    /// The address that a datagram was sent to, from which the response leaves, `IP_PKTINFO` and
    /// `IPV6_RECVPKTINFO`. Used only by a socket that is bound to all addresses: one that is bound to
    /// a single address needs nothing for it.
    PacketInfo,
    /// The count of what the kernel drops because the receive buffer is full, `SO_RXQ_OVFL`.
    DropCount,
    /// The time at which a datagram arrived, `SO_TIMESTAMPNS`, and so how long it
    /// [waited](crate::transport::Meta::waited). Used only where
    /// [asked for](crate::udp::UdpOptions::timestamps): it makes the kernel read its clock for every
    /// datagram.
    Timestamp,
}

impl UdpFeature {
    pub(super) const ALL: [Self; 7] = [
        Self::Recvmmsg,
        Self::Sendmmsg,
        Self::Gro,
        Self::Gso,
        Self::PacketInfo,
        Self::DropCount,
        Self::Timestamp,
    ];
}

/// The name under which Linux's manual has it, in short.
impl fmt::Display for UdpFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recvmmsg => "recvmmsg",
            Self::Sendmmsg => "sendmmsg",
            Self::Gro => "gro",
            Self::Gso => "gso",
            Self::PacketInfo => "pktinfo",
            Self::DropCount => "rxq_ovfl",
            Self::Timestamp => "timestamp",
        })
    }
}

/// What a transport uses of the kernel, for a line of a log: it displays as the names of features, or
/// as `portable` without any.
///
/// ```
/// use rejoinder::udp::UdpOptions;
///
/// let transport = UdpOptions::new().portable().bind("127.0.0.1:0")?;
/// assert_eq!(transport.features().to_string(), "portable");
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFeatures(u8);

impl UdpFeatures {
    pub(super) const NONE: Self = Self(0);
    /// Those that cost nothing.
    pub(super) const DEFAULT: Self = Self(!Self::bit(UdpFeature::Timestamp));

    /// Whether a feature is among them.
    ///
    /// Only with the crate's feature `testing`.
    ///
    /// ```
    /// use rejoinder::udp::{UdpFeature, UdpOptions};
    ///
    /// let transport = UdpOptions::new().portable().bind("127.0.0.1:0")?;
    /// assert!(!transport.features().contains(UdpFeature::Gso));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    #[cfg(feature = "testing")]
    #[inline]
    pub fn contains(self, feature: UdpFeature) -> bool {
        self.has(feature)
    }

    #[inline]
    pub(super) fn has(self, feature: UdpFeature) -> bool {
        self.0 & Self::bit(feature) != 0
    }

    pub(super) fn with(self, feature: UdpFeature, has: bool) -> Self {
        let others = self.0 & !Self::bit(feature);
        Self(others | if has { Self::bit(feature) } else { 0 })
    }

    const fn bit(feature: UdpFeature) -> u8 {
        1 << feature as u8
    }
}

impl fmt::Display for UdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = UdpFeature::ALL
            .into_iter()
            .filter(|&feature| self.has(feature));
        let Some(first) = names.next() else {
            return f.write_str("portable");
        };
        write!(f, "{first}")?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_display_as_their_names() {
        let features = UdpFeatures::NONE
            .with(UdpFeature::DropCount, true)
            .with(UdpFeature::Gro, true);
        assert_eq!(features.to_string(), "gro, rxq_ovfl");
        assert_eq!(
            features.with(UdpFeature::Gro, false).to_string(),
            "rxq_ovfl"
        );
        assert_eq!(UdpFeatures::NONE.to_string(), "portable");
    }
}
