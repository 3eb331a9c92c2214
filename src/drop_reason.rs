use std::fmt;

/// Why a datagram was dropped: nothing was sent for it, except a codec's
/// [rejection](crate::Codec::encode_rejection) of a malformed one.
///
/// A datagram meets the checks in about the order of this list. Gates that ask for an identity come after
/// `Unauthenticated`, and `Overloaded` comes before the handler. All but those that say otherwise are
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
    /// The server is [behind](crate::ServerBuilder::behind) proxies, and it came from another address.
    NotProxied,
    /// It came from a proxy, without a valid header.
    ProxyHeader,
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
    /// So a client that happens to use the very port of such a server is not answered. If the OS
    /// chooses the client's port, the chance is at most one in some 64,000, and the client retries
    /// from another port. Peers that use that port on purpose, as NTP's may, need a server that is
    /// bound to one address.
    SourceOwn,
    /// It had waited for longer than [`max_age`](crate::ServerBuilder::max_age), if that is set.
    Stale,
    /// It is a response. Answering it could go on for ever.
    Response,
    /// A [`RateLimit`](crate::gate::RateLimit) is among the gates, and enough was sent to its network.
    RateLimited,
    /// Another [gate](crate::gate::Gate) dropped it, and this is what it said.
    Gate(&'static str),
    /// It does not prove who sent it, or is a copy of one that did: the codec could not
    /// [authenticate](crate::Codec::authenticate) it.
    Unauthenticated,
    /// The codec could not decode it.
    Malformed,
    /// The handler panicked, or the codec or a gate did.
    HandlerPanicked,
    /// The handler returned an error of its own, see [`ReplyError::Handler`](crate::ReplyError::Handler).
    HandlerFailed,
    /// The handler had not answered when its time was over. Only a driver that
    /// [defers](crate::sans_io::ServerCore::defer_next) requests gives handlers a time.
    HandlerTimedOut,
    /// The server was shut down, or its driver dropped, before the handler had answered.
    Cancelled,
    /// As many requests were deferred as may be.
    Overloaded,
    /// The handler gave up because a response could not be queued.
    ReplyFailed,
    /// An [`AmplificationLimit`](crate::gate::AmplificationLimit) is among the gates, and the responses
    /// would have passed it.
    Amplification,
}

impl DropReason {
    /// How many reasons there are beside those of gates.
    pub(crate) const BUILT_IN: usize = TABLE.len();

    /// The reasons beside those of gates, in the order of their [`index`](Self::index).
    pub(crate) fn built_in() -> impl Iterator<Item = Self> {
        TABLE.into_iter().map(|(reason, ..)| reason)
    }

    /// The place in the table; `None` for the reason of a gate.
    pub(crate) fn index(self) -> Option<usize> {
        TABLE.iter().position(|&(reason, ..)| reason == self)
    }

    pub(crate) fn counter_name(self) -> &'static str {
        self.index().map_or("dropped_gate", |index| TABLE[index].1)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self, self.index()) {
            (Self::Gate(reason), _) => reason,
            (_, index) => TABLE[index.expect("all reasons but those of gates are listed")].2,
        })
    }
}

/// Every reason but those of gates, with the name of its counter and its text.
const TABLE: [(DropReason, &str, &str); 18] = [
    (DropReason::Truncated, "dropped_truncated", "truncated"),
    (DropReason::NotProxied, "dropped_not_proxied", "not proxied"),
    (
        DropReason::ProxyHeader,
        "dropped_proxy_header",
        "proxy header",
    ),
    (
        DropReason::SourceInvalid,
        "dropped_source_invalid",
        "invalid source",
    ),
    (
        DropReason::SourceReflector,
        "dropped_source_reflector",
        "reflector port",
    ),
    (DropReason::SourceOwn, "dropped_source_own", "own address"),
    (DropReason::Stale, "dropped_stale", "stale"),
    (DropReason::Response, "dropped_response", "response"),
    (
        DropReason::RateLimited,
        "dropped_rate_limited",
        "rate limited",
    ),
    (
        DropReason::Unauthenticated,
        "dropped_unauthenticated",
        "unauthenticated",
    ),
    (DropReason::Malformed, "dropped_malformed", "malformed"),
    (
        DropReason::HandlerPanicked,
        "dropped_handler_panicked",
        "handler panicked",
    ),
    (
        DropReason::HandlerFailed,
        "dropped_handler_failed",
        "handler failed",
    ),
    (
        DropReason::HandlerTimedOut,
        "dropped_handler_timed_out",
        "handler timed out",
    ),
    (DropReason::Cancelled, "dropped_cancelled", "cancelled"),
    (DropReason::Overloaded, "dropped_overloaded", "overloaded"),
    (
        DropReason::ReplyFailed,
        "dropped_reply_failed",
        "reply failed",
    ),
    (
        DropReason::Amplification,
        "dropped_amplification",
        "amplification",
    ),
];
