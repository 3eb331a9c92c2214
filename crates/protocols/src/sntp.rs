//! SNTP: the machine's own clock (RFC 4330, RFC 5905).

pub mod codec;

use rejoinder::gate::REFLECTOR_PORTS;

/// NTP's daemons ask from port 123. Two servers could not go on answering each other: each wants the
/// client's mode and answers in the server's.
pub fn blocked_ports() -> impl Iterator<Item = u16> {
    REFLECTOR_PORTS.into_iter().filter(|port| *port != 123)
}
