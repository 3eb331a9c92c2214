use std::mem;
use std::net::{IpAddr, SocketAddr};

use crate::server::stats::DropReason;
use crate::transport::Meta;

/// The source ports that a server never answers, unless it is told otherwise with
/// [`blocked_ports`](crate::ServerBuilder::blocked_ports).
///
/// What comes from such a port was sent by a service there or, more likely, by somebody who forged
/// the sender to make that service and this one talk to each other, or to hide behind it (RFC 9308
/// §8.1; US-CERT TA14-017A; CVE-2024-2169). A client whose port the system chooses gets none of
/// them: system ports (below 1024) are not given out, and of the others it gets each with a chance of
/// one in some 64,000, only if its system or its NAT does not keep to the dynamic ports (from 49,152,
/// RFC 6335 §6). Asking again from another port helps it.
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
/// use rejoinder::REFLECTOR_PORTS;
///
/// assert!(REFLECTOR_PORTS.contains(&7)); // echo, RFC 862
/// assert!(!REFLECTOR_PORTS.contains(&9999));
/// ```
pub const REFLECTOR_PORTS: [u16; 21] = [
    7, 11, 13, 17, 19, 37, 53, 69, 111, 123, 137, 138, 161, 389, 500, 520, 1900, 3702, 5353, 5355,
    11_211,
];

/// Whether a sender is one that could be answered at all.
#[derive(Clone, Debug)]
pub(in crate::server) struct SourceCheck {
    /// Sorted.
    blocked_ports: Box<[u16]>,
    /// The greatest of them: most ports of clients lie above.
    last_blocked: u16,
    own: Vec<SocketAddr>,
}

impl SourceCheck {
    pub(in crate::server) fn new(blocked_ports: impl IntoIterator<Item = u16>) -> Self {
        let mut blocked_ports: Vec<_> = blocked_ports.into_iter().collect();
        blocked_ports.sort_unstable();
        blocked_ports.dedup();
        Self {
            last_blocked: blocked_ports.last().copied().unwrap_or(0),
            blocked_ports: blocked_ports.into(),
            own: Vec::new(),
        }
    }

    /// Says which address the server is bound to; one more, if it is bound to several.
    pub(in crate::server) fn add_own(&mut self, own: SocketAddr) {
        if !self.own.contains(&own) {
            self.own.push(own);
        }
    }

    pub(in crate::server) fn set_blocked_ports(&mut self, ports: impl IntoIterator<Item = u16>) {
        let own = mem::take(&mut self.own);
        *self = Self::new(ports);
        self.own = own;
    }

    #[inline]
    pub(in crate::server) fn check(&self, meta: &Meta) -> Result<(), DropReason> {
        let port = meta.peer.port();
        if port == 0 || !is_a_single_host(meta.peer.ip()) {
            return Err(DropReason::SourceInvalid);
        }
        if port <= self.last_blocked && self.blocked_ports.binary_search(&port).is_ok() {
            return Err(DropReason::SourceReflector);
        }
        let is_own = |own: &SocketAddr| own.port() == port && is_own(own.ip(), meta);
        if self.own.iter().any(is_own) {
            return Err(DropReason::SourceOwn);
        }
        Ok(())
    }
}

impl Default for SourceCheck {
    fn default() -> Self {
        Self::new(REFLECTOR_PORTS)
    }
}

/// Whether a sender with the server's own port is the server. A socket that is bound to every
/// address of the machine does not know which those are, and would answer itself for ever if what
/// seems to come from one of them goes to another: there the port alone decides.
fn is_own(bound: IpAddr, meta: &Meta) -> bool {
    let bound = bound.to_canonical();
    let peer = meta.peer.ip().to_canonical();
    bound.is_unspecified()
        || peer == bound
        || meta.local.is_some_and(|local| peer == local.to_canonical())
}

/// RFC 1122 §3.2.1.3 and RFC 4291 §2.7, §2.5.2: neither a group of hosts nor the absence of an
/// address sends anything; nor does what is in "this network", 0.0.0.0/8, or reserved, 240.0.0.0/4
/// with the limited broadcast address in it (RFC 6890 §2.2.2, tables 1 and 15).
///
/// The broadcast address of one network, such as 192.0.2.255, looks like any other to who does not
/// know the networks. The system does, and refuses to send there unless it is told to.
#[inline]
fn is_a_single_host(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // From 224 on there are multicast addresses and, from 240 on, reserved ones.
        IpAddr::V4(ip) => (1..224).contains(&ip.octets()[0]),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::{REFLECTOR_PORTS, SourceCheck};
    use crate::server::stats::DropReason;
    use crate::transport::Meta;

    fn meta(peer: &str) -> Meta {
        Meta::new(peer.parse().unwrap())
    }

    #[test]
    fn what_no_host_can_have_as_its_address_is_no_source() {
        let check = SourceCheck::default();
        for peer in [
            "192.0.2.1:0",
            "0.0.0.0:50000",
            "0.0.0.1:50000",
            "0.255.255.255:50000",
            "240.0.0.0:50000",
            "247.1.2.3:50000",
            "255.255.255.254:50000",
            "255.255.255.255:50000",
            "224.0.0.1:50000",
            "239.255.255.250:50000",
            "[::]:50000",
            "[ff02::1]:50000",
            "[::ffff:224.0.0.1]:50000",
            "[::ffff:0.0.0.1]:50000",
            "[::ffff:240.0.0.1]:50000",
            "[::ffff:255.255.255.255]:50000",
        ] {
            assert_eq!(
                check.check(&meta(peer)),
                Err(DropReason::SourceInvalid),
                "{peer}"
            );
        }
        for peer in [
            "192.0.2.1:50000",
            "1.0.0.0:50000",
            "223.255.255.255:50000",
            "127.0.0.1:1",
            "[::1]:50000",
            "[fe80::1%3]:65535",
        ] {
            assert_eq!(check.check(&meta(peer)), Ok(()), "{peer}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks for every port there is")]
    fn exactly_the_listed_ports_are_blocked() {
        let blocked = |check: &SourceCheck| {
            (1..=u16::MAX)
                .filter(|port| check.check(&meta(&format!("192.0.2.1:{port}"))).is_err())
                .collect::<Vec<_>>()
        };
        assert_eq!(blocked(&SourceCheck::default()), REFLECTOR_PORTS);
        assert_eq!(blocked(&SourceCheck::new([65_535, 1, 1])), [1, 65_535]);
        assert!(blocked(&SourceCheck::new([])).is_empty());
    }

    #[test]
    fn the_servers_own_address_is_no_source() {
        let mut check = SourceCheck::default();
        check.add_own("192.0.2.1:9999".parse().unwrap());
        assert_eq!(
            check.check(&meta("192.0.2.1:9999")),
            Err(DropReason::SourceOwn)
        );
        assert_eq!(
            check.check(&meta("[::ffff:192.0.2.1]:9999")),
            Err(DropReason::SourceOwn)
        );
        assert_eq!(check.check(&meta("192.0.2.2:9999")), Ok(()));
        assert_eq!(check.check(&meta("192.0.2.1:9998")), Ok(()));
    }

    #[test]
    fn a_socket_on_a_group_takes_the_machine_that_it_is_on_for_itself() {
        let mut check = SourceCheck::default();
        check.add_own("224.0.0.251:9999".parse().unwrap());
        let here = "192.0.2.1".parse().unwrap();
        for (own, local) in [
            ("192.0.2.1:9999", here),
            ("[::ffff:192.0.2.1]:9999", here),
            ("192.0.2.1:9999", "::ffff:192.0.2.1".parse().unwrap()),
        ] {
            let drop = Err(DropReason::SourceOwn);
            assert_eq!(check.check(&meta(own).to(local)), drop, "{own} to {local}");
        }
        assert_eq!(check.check(&meta("192.0.2.2:9999").to(here)), Ok(()));
        assert_eq!(check.check(&meta("192.0.2.1:9998").to(here)), Ok(()));
    }

    #[test]
    fn a_socket_on_every_address_takes_whoever_has_its_port_for_itself() {
        for bound in ["[::]:9999", "0.0.0.0:9999", "[::ffff:0.0.0.0]:9999"] {
            let mut check = SourceCheck::default();
            check.add_own(bound.parse().unwrap());
            let here = "192.0.2.1".parse().unwrap();
            for own in [
                "192.0.2.1:9999",
                "192.0.2.2:9999",
                "127.0.0.2:9999",
                "[::1]:9999",
            ] {
                let drop = Err(DropReason::SourceOwn);
                assert_eq!(check.check(&meta(own)), drop, "{own} on {bound}");
                assert_eq!(check.check(&meta(own).to(here)), drop, "{own} on {bound}");
            }
            assert_eq!(check.check(&meta("192.0.2.1:9998").to(here)), Ok(()));
        }
    }
}
