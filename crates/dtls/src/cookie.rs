//! Cookies: proof that a peer receives what is sent to its address, without any state.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::hello::{COOKIE_BYTES, ClientHello};
use crate::provider::hmac_sha256;

/// Makes and checks cookies: `HMAC(secret, period ‖ address ‖ parameters)`, as RFC 6347 §4.2.1 has it.
///
/// A cookie holds for the period in which it was made and the next, so for 60 to 120 seconds.
pub(crate) struct Cookies {
    secret: [u8; 32],
}

impl Cookies {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The cookie for a hello from this address.
    pub(crate) fn make(
        &self,
        now: Duration,
        peer: SocketAddr,
        hello: &ClientHello<'_>,
    ) -> [u8; COOKIE_BYTES] {
        self.of_period(period(now), peer, hello)
    }

    /// Whether the hello has a cookie that was made for this address, not long ago.
    pub(crate) fn is_valid(
        &self,
        now: Duration,
        peer: SocketAddr,
        hello: &ClientHello<'_>,
    ) -> Option<[u8; COOKIE_BYTES]> {
        let cookie: [u8; COOKIE_BYTES] = hello.cookie.try_into().ok()?;
        let now = period(now);
        let mut periods = [Some(now), now.checked_sub(1)].into_iter().flatten();
        periods
            .any(|period| is_equal(&self.of_period(period, peer, hello), &cookie))
            .then_some(cookie)
    }

    fn of_period(
        &self,
        period: u64,
        peer: SocketAddr,
        hello: &ClientHello<'_>,
    ) -> [u8; COOKIE_BYTES] {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let [before, after] = hello.parameters();
        let mut data = Vec::with_capacity(8 + 16 + 2 + 4 + before.len() + after.len());
        data.extend_from_slice(&period.to_be_bytes());
        data.extend_from_slice(&ip.octets());
        data.extend_from_slice(&peer.port().to_be_bytes());
        // Hosts on two links may have the same link-local address (RFC 4007 §6).
        let scope = match peer {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(peer) => peer.scope_id(),
        };
        data.extend_from_slice(&scope.to_be_bytes());
        data.extend_from_slice(before);
        data.extend_from_slice(after);
        hmac_sha256(&self.secret, &data)
    }
}

/// In a time that does not depend on where they differ.
fn is_equal(one: &[u8; COOKIE_BYTES], other: &[u8; COOKIE_BYTES]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}

fn period(now: Duration) -> u64 {
    now.as_secs() / PERIOD_SECONDS
}

/// A client sends a hello again after at most 60 seconds (RFC 6347 §4.2.4.1).
const PERIOD_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::Cookies;
    use crate::hello::{ClientHello, sample};
    use crate::record::Record;

    const BEGUN: Duration = Duration::from_secs(1_000_030);

    fn peer() -> SocketAddr {
        "192.0.2.1:7000".parse().unwrap()
    }

    fn check(cookies: &Cookies, later: u64, peer: SocketAddr, datagram: &[u8]) -> bool {
        let (record, _) = Record::parse(datagram).unwrap();
        let hello = ClientHello::parse(&record).unwrap();
        let now = BEGUN + Duration::from_secs(later);
        cookies.is_valid(now, peer, &hello).is_some()
    }

    #[test]
    fn a_cookie_is_good_for_its_address_its_hello_its_secret_and_its_time() {
        let cookies = Cookies::new([5; 32]);
        let first = sample([7; 32], b"", &[0xc0a8]);
        let (record, _) = Record::parse(&first).unwrap();
        let cookie = cookies.make(BEGUN, peer(), &ClientHello::parse(&record).unwrap());
        let second = sample([7; 32], &cookie, &[0xc0a8]);
        for later in [0, 60, 89] {
            assert!(check(&cookies, later, peer(), &second), "{later}");
        }
        for later in [120, 100_000] {
            assert!(!check(&cookies, later, peer(), &second), "{later}");
        }
        for other in ["192.0.2.1:7001", "192.0.2.2:7000", "[::1]:7000"] {
            assert!(!check(&cookies, 0, other.parse().unwrap(), &second));
        }
        let scoped =
            |scope: u32| -> SocketAddr { format!("[fe80::1%{scope}]:7000").parse().unwrap() };
        let [one, other] = [scoped(1), scoped(2)];
        let hello = ClientHello::parse(&record).unwrap();
        assert_ne!(
            cookies.make(BEGUN, one, &hello),
            cookies.make(BEGUN, other, &hello)
        );
        let mapped = "[::ffff:192.0.2.1]:7000".parse().unwrap();
        assert!(check(&cookies, 0, mapped, &second));
        assert!(!check(&Cookies::new([6; 32]), 0, peer(), &second));
        for other in [
            sample([8; 32], &cookie, &[0xc0a8]),
            sample([7; 32], &cookie, &[0xc0a8, 0xc02b]),
            sample([7; 32], &cookie[..31], &[0xc0a8]),
            sample([7; 32], &[0; 32], &[0xc0a8]),
            first,
        ] {
            assert!(!check(&cookies, 0, peer(), &other));
        }
    }
}
