use super::{Gate, ResponseSize};
use crate::drop_reason::DropReason;
use crate::timestamp::Timestamp;
use crate::transport::Datagram;

/// Never sends a source more than three times the bytes that came from it, but for the headers that
/// fragments repeat: the limit of RFC 9000 §8.1 for an address that nothing has validated.
///
/// It suits protocols whose requests are long or whose responses are short. A forged source then
/// gains an attacker next to nothing. Replies that would pass the limit are not sent, and the
/// request is counted as dropped for [`Amplification`](DropReason::Amplification).
///
/// Bytes are counted as they are [on the wire](ResponseSize::wire_bytes), headers included, and request
/// by request: no credit is kept, so there is no table to fill and nothing to expire. A response so long
/// that it leaves in fragments may pass the limit by what [`wire_bytes`](ResponseSize::wire_bytes) leaves
/// out, up to 4 % over IPv6; [`max_response_bytes`](crate::ServerBuilder::max_response_bytes) keeps responses
/// from that.
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::gate::AmplificationLimit;
/// use rejoinder::Server;
///
/// Server::builder(Text).gate(AmplificationLimit::default());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AmplificationLimit {
    factor: usize,
}

impl AmplificationLimit {
    /// At most `factor` bytes out for each byte in. Zero lets no response out.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use rejoinder::gate::AmplificationLimit;
    /// use rejoinder::sans_io::ServerCore;
    /// use rejoinder::transport::{Inbox, Meta, Outbox};
    /// use rejoinder::{DropReason, Server, Timestamp};
    ///
    /// // Headers count: 28 + 4 bytes came, and 28 + 100 would leave.
    /// let long = |_: &str| Some("x".repeat(100));
    /// let mut core = Server::builder(Text).gate(AmplificationLimit::new(3)).core(long);
    /// let (mut inbox, mut outbox) = (Inbox::new(8, 512), Outbox::new(64, 512));
    /// inbox.push(b"more", Meta::new("192.0.2.1:7777".parse()?));
    /// core.handle(Timestamp::system(), &mut inbox, &mut outbox);
    /// assert_eq!(core.stats().dropped(DropReason::Amplification), 1);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub const fn new(factor: usize) -> Self {
        Self { factor }
    }
}

impl Default for AmplificationLimit {
    /// Three.
    fn default() -> Self {
        Self::new(3)
    }
}

impl Gate for AmplificationLimit {
    #[inline]
    fn accept(&mut self, _: Timestamp, _: &Datagram<'_>) -> Result<(), DropReason> {
        Ok(())
    }

    #[inline]
    fn allow_responses(
        &mut self,
        _: Timestamp,
        datagram: &Datagram<'_>,
        responses: ResponseSize,
    ) -> Result<(), DropReason> {
        let request = ResponseSize::new(1, datagram.bytes.len()).wire_bytes(&datagram.meta);
        if responses.wire_bytes(&datagram.meta) <= request.saturating_mul(self.factor) {
            Ok(())
        } else {
            Err(DropReason::Amplification)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{AmplificationLimit, Gate, ResponseSize};
    use crate::timestamp::Timestamp;
    use crate::transport::{Datagram, Meta};

    fn allows(peer: &str, request: usize, responses: ResponseSize) -> bool {
        let bytes = vec![0; request];
        let datagram = Datagram::new(&bytes, Meta::new(peer.parse().unwrap()));
        let now = Timestamp::new(Duration::ZERO, SystemTime::UNIX_EPOCH);
        AmplificationLimit::default()
            .allow_responses(now, &datagram, responses)
            .is_ok()
    }

    #[test]
    fn three_times_the_bytes_on_the_wire_may_leave_and_not_one_more() {
        // 3 * (10 + 28) = 114 = 86 + 28
        assert!(allows("192.0.2.1:7777", 10, ResponseSize::new(1, 86)));
        assert!(!allows("192.0.2.1:7777", 10, ResponseSize::new(1, 87)));
        // The headers of every reply count: 114 = 30 + 3 * 28
        assert!(allows("192.0.2.1:7777", 10, ResponseSize::new(3, 30)));
        assert!(!allows("192.0.2.1:7777", 10, ResponseSize::new(3, 31)));
        assert!(!allows("192.0.2.1:7777", 10, ResponseSize::new(5, 0)));
        // 3 * (10 + 48) = 174 = 126 + 48
        assert!(allows("[2001:db8::1]:7777", 10, ResponseSize::new(1, 126)));
        assert!(!allows("[2001:db8::1]:7777", 10, ResponseSize::new(1, 127)));
        assert!(!allows(
            "[::ffff:192.0.2.1]:7777",
            10,
            ResponseSize::new(1, 87)
        ));
    }
}
