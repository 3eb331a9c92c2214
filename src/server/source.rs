//! Which senders could be answered at all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

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
    machine: Option<Machine>,
}

impl SourceCheck {
    pub(super) fn new(blocked_ports: impl IntoIterator<Item = u16>) -> Self {
        let mut ports: Vec<_> = blocked_ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        Self {
            last_blocked: ports.last().copied().unwrap_or(0),
            blocked_ports: ports.into(),
            own: Vec::new(),
            machine: None,
        }
    }

    /// Adds an address that the server is bound to.
    pub(super) fn add_own(&mut self, own: SocketAddr) {
        if !self.own.contains(&own) {
            self.own.push(own);
        }
    }

    /// Takes `is_local` for the answer to whether an address is one of the machine's. Without it, a
    /// server that is bound to all of them takes every peer with its own port for itself.
    pub(super) fn set_is_local(&mut self, is_local: fn(SocketAddr) -> bool) {
        self.machine = Some(Machine::new(is_local));
    }

    #[inline]
    pub(super) fn check(&mut self, now: Duration, meta: &Meta) -> Result<(), DropReason> {
        let port = meta.peer.port();
        if port == 0 || !is_a_single_host(meta.peer.ip()) {
            return Err(DropReason::SourceInvalid);
        }
        if port <= self.last_blocked && self.blocked_ports.binary_search(&port).is_ok() {
            return Err(DropReason::SourceReflector);
        }
        if self.own.iter().any(|own| own.port() == port) && self.is_own(now, meta) {
            return Err(DropReason::SourceOwn);
        }
        Ok(())
    }

    /// Whether a sender with one of the server's own ports is the server. It would answer itself for
    /// ever.
    #[cold]
    fn is_own(&mut self, now: Duration, meta: &Meta) -> bool {
        let peer = meta.peer.ip().to_canonical();
        let from_here = meta.local.is_some_and(|local| peer == local.to_canonical());
        let Self { own, machine, .. } = self;
        let own = own.iter().filter(|own| own.port() == meta.peer.port());
        own.map(|own| own.ip().to_canonical()).any(|bound| {
            if peer == bound || from_here {
                return true;
            }
            if !bound.is_unspecified() && !bound.is_multicast() {
                return false;
            }
            // A socket on every address, or on a group, does not know the machine's.
            match machine {
                Some(machine) => machine.has(now, meta.peer),
                None => bound.is_unspecified(),
            }
        })
    }
}

impl Default for SourceCheck {
    fn default() -> Self {
        Self::new(REFLECTOR_PORTS)
    }
}

/// The addresses of the machine, as far as they were asked about.
#[derive(Clone, Debug)]
struct Machine {
    is_local: fn(SocketAddr) -> bool,
    /// By a hash of the address; a new one takes the place of an old one.
    known: Box<[Known]>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    ip: IpAddr,
    is_local: bool,
    until: Duration,
}

impl Machine {
    fn new(is_local: fn(SocketAddr) -> bool) -> Self {
        let nothing = Known {
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            is_local: false,
            until: Duration::ZERO,
        };
        Self {
            is_local,
            known: vec![nothing; KNOWN].into(),
        }
    }

    fn has(&mut self, now: Duration, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let hash = |octets: &[u8]| {
            octets.iter().fold(0, |hash: usize, &octet| {
                hash.wrapping_mul(31).wrapping_add(octet.into())
            })
        };
        let slot = match ip {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        };
        let known = &mut self.known[slot % KNOWN];
        if known.ip != ip || known.until <= now {
            *known = Known {
                ip,
                is_local: (self.is_local)(addr),
                until: now.saturating_add(KNOWN_FOR),
            };
        }
        known.is_local
    }
}

/// RFC 1122 §3.2.1.3 and RFC 4291 §2.7, §2.5.2: neither a group of hosts nor the absence of an
/// address sends anything; nor does what is in "this network", 0.0.0.0/8 (RFC 6890 §2.2.2, table 1),
/// nor the limited broadcast address. The rest of 240.0.0.0/4 is reserved, but in use: Linux has
/// taken it for ordinary addresses since 2.6.25.
///
/// The broadcast address of one network, such as 192.0.2.255, looks like any other without knowledge
/// of the networks. The kernel has that, and refuses to send there unless it is asked to.
#[inline]
fn is_a_single_host(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => match ip.octets()[0] {
            1..=223 => true,
            240..=255 => !ip.is_broadcast(),
            _ => false,
        },
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    }
}

/// How many addresses are remembered. An address costs some system calls to ask about, and every
/// client of a protocol whose clients use the server's port is asked about (NTP).
const KNOWN: usize = 1_024;
/// How long an address is remembered. For that time, a new address of the machine may count as a
/// peer's.
const KNOWN_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::{KNOWN_FOR, SourceCheck};
    use crate::drop_reason::DropReason;
    use crate::gate::REFLECTOR_PORTS;
    use crate::transport::Meta;

    const NOW: Duration = Duration::from_secs(100);

    fn meta(peer: &str) -> Meta {
        Meta::new(peer.parse().unwrap())
    }

    #[test]
    fn what_no_host_can_have_as_its_address_is_no_source() {
        let mut check = SourceCheck::default();
        for peer in [
            "192.0.2.1:0",
            "0.0.0.0:50000",
            "0.0.0.1:50000",
            "0.255.255.255:50000",
            "255.255.255.255:50000",
            "224.0.0.1:50000",
            "239.255.255.250:50000",
            "[::]:50000",
            "[ff02::1]:50000",
            "[::ffff:224.0.0.1]:50000",
            "[::ffff:0.0.0.1]:50000",
            "[::ffff:255.255.255.255]:50000",
        ] {
            assert_eq!(
                check.check(NOW, &meta(peer)),
                Err(DropReason::SourceInvalid),
                "{peer}"
            );
        }
        for peer in [
            "192.0.2.1:50000",
            "1.0.0.0:50000",
            "223.255.255.255:50000",
            "240.0.0.0:50000",
            "247.1.2.3:50000",
            "255.255.255.254:50000",
            "[::ffff:240.0.0.1]:50000",
            "127.0.0.1:1",
            "[::1]:50000",
            "[fe80::1%3]:65535",
        ] {
            assert_eq!(check.check(NOW, &meta(peer)), Ok(()), "{peer}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks for every port there is")]
    fn exactly_the_listed_ports_are_blocked() {
        let blocked = |mut check: SourceCheck| {
            (1..=u16::MAX)
                .filter(|port| {
                    check
                        .check(NOW, &meta(&format!("192.0.2.1:{port}")))
                        .is_err()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(blocked(SourceCheck::default()), REFLECTOR_PORTS);
        assert_eq!(blocked(SourceCheck::new([65_535, 1, 1])), [1, 65_535]);
        assert!(blocked(SourceCheck::new([])).is_empty());
    }

    #[test]
    fn the_servers_own_address_is_no_source() {
        let mut check = SourceCheck::default();
        check.add_own("192.0.2.1:9999".parse().unwrap());
        assert_eq!(
            check.check(NOW, &meta("192.0.2.1:9999")),
            Err(DropReason::SourceOwn)
        );
        assert_eq!(
            check.check(NOW, &meta("[::ffff:192.0.2.1]:9999")),
            Err(DropReason::SourceOwn)
        );
        assert_eq!(check.check(NOW, &meta("192.0.2.2:9999")), Ok(()));
        assert_eq!(check.check(NOW, &meta("192.0.2.1:9998")), Ok(()));
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
                check.check(NOW, &meta(own).sent_to(local)),
                drop,
                "{own} to {local}"
            );
        }
        assert_eq!(
            check.check(NOW, &meta("192.0.2.2:9999").sent_to(here)),
            Ok(())
        );
        assert_eq!(
            check.check(NOW, &meta("192.0.2.1:9998").sent_to(here)),
            Ok(())
        );
    }

    #[test]
    fn a_socket_on_every_address_that_cannot_ask_takes_every_peer_with_its_port_for_itself() {
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
                assert_eq!(check.check(NOW, &meta(own)), drop, "{own} on {bound}");
                assert_eq!(
                    check.check(NOW, &meta(own).sent_to(here)),
                    drop,
                    "{own} on {bound}"
                );
            }
            assert_eq!(
                check.check(NOW, &meta("192.0.2.1:9998").sent_to(here)),
                Ok(())
            );
        }
    }

    #[test]
    fn a_socket_on_every_address_answers_its_own_port_on_other_machines() {
        let local = |addr: SocketAddr| addr.ip().to_string().ends_with(".1");
        for bound in ["[::]:9999", "0.0.0.0:9999", "224.0.0.251:9999"] {
            let mut check = SourceCheck::default();
            check.add_own(bound.parse().unwrap());
            check.set_is_local(local);
            for (peer, drop) in [
                ("192.0.2.1:9999", Err(DropReason::SourceOwn)),
                ("198.51.100.1:9999", Err(DropReason::SourceOwn)),
                ("192.0.2.2:9999", Ok(())),
                ("[2001:db8::2]:9999", Ok(())),
                ("192.0.2.1:9998", Ok(())),
            ] {
                assert_eq!(check.check(NOW, &meta(peer)), drop, "{peer} on {bound}");
            }
            // Where it was sent to is its own, without a question.
            let here = "192.0.2.3".parse().unwrap();
            assert_eq!(
                check.check(NOW, &meta("192.0.2.3:9999").sent_to(here)),
                Err(DropReason::SourceOwn)
            );
        }
        // On a single address there is nothing to ask.
        let mut check = SourceCheck::default();
        check.add_own("192.0.2.9:9999".parse().unwrap());
        check.set_is_local(|_| true);
        assert_eq!(check.check(NOW, &meta("192.0.2.1:9999")), Ok(()));
    }

    #[test]
    fn an_address_is_asked_about_once_a_second() {
        use std::sync::atomic::{AtomicU32, Ordering};

        static ASKED: AtomicU32 = AtomicU32::new(0);
        let mut check = SourceCheck::default();
        check.add_own("0.0.0.0:9999".parse().unwrap());
        check.set_is_local(|_| ASKED.fetch_add(1, Ordering::Relaxed) > 0);
        let mut at = |now| check.check(now, &meta("192.0.2.2:9999"));
        for _ in 0..10 {
            assert_eq!(at(NOW), Ok(()));
        }
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        // By then it has become this machine's.
        assert_eq!(at(NOW + KNOWN_FOR), Err(DropReason::SourceOwn));
        assert_eq!(ASKED.load(Ordering::Relaxed), 2);
    }
}
