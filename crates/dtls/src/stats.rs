//! What an engine counts.

use std::fmt;

/// Why a datagram went no further than the engine.
///
/// ```
/// use rejoinder_dtls::DtlsDrop;
///
/// assert_eq!(DtlsDrop::NoAssociation.to_string(), "no association");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DtlsDrop {
    /// It was longer than the inbox's limit.
    Truncated,
    /// It was sent to a group: DTLS has two ends.
    Group,
    /// Its source is none that can be answered, one of the [blocked
    /// ports](crate::DtlsBuilder::blocked_ports), or the transport's own address.
    Source,
    /// Its first record is malformed, or of another protocol; or it has more than 8 records. In a handshake
    /// also: a datagram of more than 2 KiB and of more than
    /// [`handshake_datagram_bytes`](crate::DtlsBuilder::handshake_datagram_bytes), a message of more than
    /// 8 KiB, and what comes after 4 KiB (24 KiB with certificates) of the peer's flight and its repetitions.
    Malformed,
    /// It begins a handshake with a `ClientHello` in fragments, which an engine without state cannot put
    /// together.
    FragmentedHello,
    /// The [gate](crate::DtlsBuilder::gate) refused a `ClientHello`, or the replies to it.
    Gate,
    /// It belongs to no association and no handshake.
    NoAssociation,
    /// It belongs to an association and has a longer record than
    /// [`max_request_bytes`](crate::DtlsBuilder::max_request_bytes) allows.
    TooLong,
    /// It is a copy of the `ClientHello` of an association that is established.
    Repeated,
    /// No record in it was accepted: forged, replayed, too old, or changed on the way.
    Unauthenticated,
}

impl DtlsDrop {
    /// All reasons, in the order in which they are checked.
    pub const ALL: [Self; 10] = [
        Self::Truncated,
        Self::Group,
        Self::Source,
        Self::Malformed,
        Self::FragmentedHello,
        Self::Gate,
        Self::NoAssociation,
        Self::TooLong,
        Self::Repeated,
        Self::Unauthenticated,
    ];
}

impl fmt::Display for DtlsDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Group => "sent to a group",
            Self::Source => "source",
            Self::Malformed => "malformed",
            Self::FragmentedHello => "fragmented hello",
            Self::Gate => "gate",
            Self::NoAssociation => "no association",
            Self::TooLong => "too long",
            Self::Repeated => "repeated hello",
            Self::Unauthenticated => "unauthenticated",
        })
    }
}

/// Why a handshake or an association failed.
///
/// ```
/// use rejoinder_dtls::HandshakeFailure;
///
/// assert_eq!(HandshakeFailure::Authentication.to_string(), "authentication");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The ends have no version, cipher suite, group or extension in common.
    NoCommonParameters,
    /// A wrong key, an unknown identity, a wrong signature; or a record that was forged or changed on
    /// the way, which the implementation does not distinguish from these.
    Authentication,
    /// The peer's certificate is missing or not accepted.
    Certificate,
    /// The peer sent a fatal alert, or another one in its name.
    Alert,
    /// The handshake took too long.
    TimedOut,
    /// The peer broke the protocol.
    Protocol,
}

impl HandshakeFailure {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::NoCommonParameters,
        Self::Authentication,
        Self::Certificate,
        Self::Alert,
        Self::TimedOut,
        Self::Protocol,
    ];
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCommonParameters => "no common parameters",
            Self::Authentication => "authentication",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::TimedOut => "timed out",
            Self::Protocol => "protocol",
        })
    }
}

/// What an [engine](crate::Engine) has counted. Numbers of datagrams unless they say otherwise.
///
/// Two equations hold at every moment, and [`conserves`](Self::conserves) checks them:
///
/// - `received` = `handshake` + `application` + `control` + all [dropped](Self::dropped).
/// - Each handshake and each association is in one place: `begun` = `established` + `failed_handshakes` +
///   `expired` + `displaced_handshakes` + `half_open`, and `established` = `closed` + `idle` +
///   `displaced` + `replaced` + `broken` + `associations`.
///
/// ```
/// use rejoinder_dtls::Dtls;
///
/// let engine = Dtls::builder().psk(|_: &[u8]| None).engine()?;
/// assert_eq!(engine.stats().received, 0);
/// assert!(engine.stats().conserves());
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DtlsStats {
    /// All that came in.
    pub received: u64,
    /// With payloads for the server in them, also behind the last message of a handshake.
    pub application: u64,
    /// Of handshakes, those answered with a request for a cookie included.
    pub handshake: u64,
    /// Accepted on an association, with no payload in them: alerts, repeated parts of a handshake.
    pub control: u64,
    /// By [`DtlsDrop`].
    pub(crate) dropped: [u64; DtlsDrop::ALL.len()],
    /// Payloads delivered: a datagram may hold several.
    pub payloads: u64,
    /// Bytes of the hellos that were answered with a request for a cookie.
    pub hello_bytes: u64,
    /// Bytes of these requests: never more than those of the hellos.
    pub verify_request_bytes: u64,
    /// Handshakes that began: each with a valid cookie.
    pub begun: u64,
    /// Handshakes that became associations.
    pub established: u64,
    /// Handshakes that failed, by [`HandshakeFailure`].
    pub(crate) failed: [u64; HandshakeFailure::ALL.len()],
    /// Handshakes that took too long.
    pub expired: u64,
    /// Handshakes that another one took the place of: of the same peer, or in a full table.
    pub displaced_handshakes: u64,
    /// Handshakes going on now.
    pub half_open: u64,
    /// Associations that one of the ends closed.
    pub closed: u64,
    /// Associations that were closed because they were idle.
    pub idle: u64,
    /// Associations that were closed to make room in a full table.
    pub displaced: u64,
    /// Associations in whose place their peer established another.
    pub replaced: u64,
    /// Associations that ended with a fatal alert or an error.
    pub broken: u64,
    /// Associations there are now.
    pub associations: u64,
    /// Payloads that could not be sent: no association, another one than they are for, or too long.
    pub unsent: u64,
    /// Of these, responses to another [association](rejoinder::transport::Egress::association) of the same
    /// address, which the present one has taken the place of.
    pub superseded: u64,
    /// Payloads that left protected.
    pub sent: u64,
    /// Datagrams of the engine's own for which the outbox had no room, or which the gate forbade: lost as
    /// on any network.
    pub lost_replies: u64,
}

impl DtlsStats {
    /// How many datagrams were dropped for a reason.
    ///
    /// ```
    /// use rejoinder_dtls::{DtlsDrop, DtlsStats};
    ///
    /// assert_eq!(DtlsStats::default().dropped(DtlsDrop::Source), 0);
    /// ```
    pub fn dropped(&self, reason: DtlsDrop) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many handshakes failed in a way.
    ///
    /// ```
    /// use rejoinder_dtls::{DtlsStats, HandshakeFailure};
    ///
    /// assert_eq!(DtlsStats::default().failed(HandshakeFailure::Alert), 0);
    /// ```
    pub fn failed(&self, kind: HandshakeFailure) -> u64 {
        self.failed[kind as usize]
    }

    /// How many handshakes failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Whether every datagram, every handshake and every association is accounted for.
    pub fn conserves(&self) -> bool {
        let dropped: u64 = self.dropped.iter().sum();
        let handshakes = self.established
            + self.failed_handshakes()
            + self.expired
            + self.displaced_handshakes
            + self.half_open;
        let associations = self.closed
            + self.idle
            + self.displaced
            + self.replaced
            + self.broken
            + self.associations;
        self.received == self.handshake + self.application + self.control + dropped
            && self.begun == handshakes
            && self.established == associations
    }
}

#[cfg(test)]
mod tests {
    use super::{DtlsDrop, HandshakeFailure};

    #[test]
    fn a_reason_stands_where_its_counter_does() {
        for (at, reason) in DtlsDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, kind) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
