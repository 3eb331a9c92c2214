use std::net::{IpAddr, SocketAddr};

use crate::drop_reason::DropReason;
use crate::gate::REFLECTOR_PORTS;
use crate::transport::Meta;

/// Whether a sender is one that could be answered at all.
#[derive(Clone, Debug)]
pub(super) struct SourceCheck {
    /// Sorted.
    blocked_ports: Box<[u16]>,
    /// The greatest of them: most ports of clients lie above.
    last_blocked: u16,
    own: Vec<SocketAddr>,
}

impl SourceCheck {
    pub(super) fn new(blocked_ports: impl IntoIterator<Item = u16>) -> Self {
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
    pub(super) fn add_own(&mut self, own: SocketAddr) {
        if !self.own.contains(&own) {
            self.own.push(own);
        }
    }

    #[inline]
    pub(super) fn check(&self, meta: &Meta) -> Result<(), DropReason> {
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
    use super::SourceCheck;
    use crate::drop_reason::DropReason;
    use crate::gate::REFLECTOR_PORTS;
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
            assert_eq!(
                check.check(&meta(own).sent_to(local)),
                drop,
                "{own} to {local}"
            );
        }
        assert_eq!(check.check(&meta("192.0.2.2:9999").sent_to(here)), Ok(()));
        assert_eq!(check.check(&meta("192.0.2.1:9998").sent_to(here)), Ok(()));
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
                assert_eq!(
                    check.check(&meta(own).sent_to(here)),
                    drop,
                    "{own} on {bound}"
                );
            }
            assert_eq!(check.check(&meta("192.0.2.1:9998").sent_to(here)), Ok(()));
        }
    }
}
