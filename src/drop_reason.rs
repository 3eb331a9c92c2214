use std::fmt;

/// Why a datagram was dropped: nothing was sent for it.
///
/// A datagram meets the checks in the order of this list. All but those that say otherwise are
/// always on.
///
/// ```
/// use rejoinder::DropReason;
///
/// assert_eq!(DropReason::SourceReflector.to_string(), "reflector port");
/// assert_eq!(DropReason::Gate("no question").to_string(), "no question");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// It was longer than the limit for requests, so only a part of it arrived.
    Truncated,
    /// No host can have sent it: it came from port 0, or from a broadcast, multicast, unspecified or
    /// reserved address (in IPv4 all of 0.0.0.0/8 and of 224.0.0.0 and above), or from an address
    /// that is none of IP. A directed broadcast address (192.0.2.255, say) cannot be known here; the
    /// system refuses to send to it.
    SourceInvalid,
    /// It came from a port of a service that answers whatever it gets, or that attackers hide
    /// behind: [`REFLECTOR_PORTS`](crate::gate::REFLECTOR_PORTS), unless set otherwise.
    SourceReflector,
    /// It came from the address of the server itself; or from the server's own port, if it is bound
    /// to every address of the machine (`0.0.0.0` or `[::]`), as any of them may be its own.
    ///
    /// So a client that happens to use the very port of such a server is not answered. One whose
    /// port the system chooses does with a chance of one in some 64,000 at most, and asks again from
    /// another. Peers that use that port on purpose, as NTP's may, need a server that is bound to one
    /// address.
    SourceOwn,
    /// It had waited for longer than [`max_age`](crate::ServerBuilder::max_age), if that is set.
    Stale,
    /// It is a response. Answering it could go on for ever.
    Response,
    /// A [`RateLimit`](crate::gate::RateLimit) is among the gates, and enough was sent to its network.
    RateLimited,
    /// Another [gate](crate::gate::Gate) dropped it, and this is what it said.
    Gate(&'static str),
    /// The codec could not decode it.
    Malformed,
    /// The handler panicked, or the codec or a gate did.
    HandlerPanicked,
    /// The handler gave up because a reply could not be queued.
    ReplyFailed,
    /// An [`AmplificationLimit`](crate::gate::AmplificationLimit) is among the gates, and the replies
    /// would have passed it.
    Amplification,
}

impl DropReason {
    /// All but those of the gates of users.
    pub(crate) const BUILT_IN: [Self; 11] = [
        Self::Truncated,
        Self::SourceInvalid,
        Self::SourceReflector,
        Self::SourceOwn,
        Self::Stale,
        Self::Response,
        Self::RateLimited,
        Self::Malformed,
        Self::HandlerPanicked,
        Self::ReplyFailed,
        Self::Amplification,
    ];

    pub(crate) fn counter_name(self) -> &'static str {
        match self {
            Self::Truncated => "dropped_truncated",
            Self::SourceInvalid => "dropped_source_invalid",
            Self::SourceReflector => "dropped_source_reflector",
            Self::SourceOwn => "dropped_source_own",
            Self::Stale => "dropped_stale",
            Self::Response => "dropped_response",
            Self::RateLimited => "dropped_rate_limited",
            Self::Gate(_) => "dropped_gate",
            Self::Malformed => "dropped_malformed",
            Self::HandlerPanicked => "dropped_handler_panicked",
            Self::ReplyFailed => "dropped_reply_failed",
            Self::Amplification => "dropped_amplification",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::SourceInvalid => "invalid source",
            Self::SourceReflector => "reflector port",
            Self::SourceOwn => "own address",
            Self::Stale => "stale",
            Self::Response => "response",
            Self::RateLimited => "rate limited",
            Self::Gate(reason) => reason,
            Self::Malformed => "malformed",
            Self::HandlerPanicked => "handler panicked",
            Self::ReplyFailed => "reply failed",
            Self::Amplification => "amplification",
        })
    }
}
