//! Addresses as people write them, for all the programs.
//!
//! `HOST:PORT`, `HOST` or `PORT`, where a host is a name, an IPv4 address or an IPv6 address. The last
//! one can have brackets, which it needs before a port, and a zone (RFC 4007 §11), by name or number:
//! `fe80::1%eth0`, `[fe80::1%2]:8888`.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use rejoinder::RequestError;

use super::{Failure, chain};

/// Where the server listens and the client asks by default.
pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8888);

/// The parts of an address, as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'a> {
    /// Without brackets.
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, &'static str> {
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let port = match rest {
                "" => None,
                rest => Some(
                    rest.strip_prefix(':')
                        .ok_or("no colon behind the bracket")?,
                ),
            };
            if !host.contains(':') {
                return Err("brackets are for IPv6 addresses");
            }
            return Ok(Self { host, port });
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self {
                host: "127.0.0.1",
                port: Some(text),
            });
        }
        match text.rsplit_once(':') {
            // Several colons: an IPv6 address without brackets, and so without a port.
            Some((host, _)) if host.contains(':') => Ok(Self {
                host: text,
                port: None,
            }),
            Some((host, port)) => Ok(Self {
                host,
                port: Some(port),
            }),
            None => Ok(Self {
                host: text,
                port: None,
            }),
        }
    }
}

/// The addresses that a text stands for; at least one. Without a port it is `port`. The resolver of the OS may
/// take its time; `resolve_within` bounds it.
///
/// # Errors
///
/// [`Failure::Usage`] for what is no address, [`Failure::RunTime`] for a name without one.
pub fn resolve(text: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    Address::parse(text, port)?.resolve()
}

/// A host, which may be a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As it was written.
    text: String,
    host: String,
    port: u16,
}

impl Address {
    /// Takes a text apart. Without a port it is `port`.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for what is no address.
    pub fn parse(text: &str, port: u16) -> Result<Self, Failure> {
        let bad = |problem: &str| {
            Failure::Usage(format!("bad address `{text}`: {problem}; {}", advice()))
        };
        let parts = Parts::of(text).map_err(bad)?;
        if parts.host.is_empty() {
            return Err(bad("no host"));
        }
        let port = match parts.port {
            None => port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| bad("the port is not a number from 0 to 65535"))?,
        };
        if parts
            .host
            .chars()
            .any(|c| c.is_whitespace() || c.is_control())
        {
            return Err(bad("a space or a control character in the host"));
        }
        Ok(Self {
            text: text.to_owned(),
            host: parts.host.to_owned(),
            port,
        })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is a name, whose addresses may change, rather than an IP address.
    pub(crate) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err() && !self.host.contains('%')
    }

    /// Asks the resolver of the OS, which may take its time. At least one address.
    ///
    /// # Errors
    ///
    /// [`Failure::RunTime`] for a name without an address.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (text, advice) = (&self.text, advice());
        // The system's resolver knows zones by name and by number.
        match (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(Vec::from_iter)
        {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(Failure::RunTime(format!(
                "`{text}` has no address; {advice}"
            ))),
            Err(error) if error.kind() == ErrorKind::InvalidInput => Err(Failure::Usage(format!(
                "bad address `{text}`: {error}; {advice}"
            ))),
            Err(error) => Err(Failure::RunTime(match self.host.split_once('%') {
                Some((_, zone)) => format!(
                    "no address for `{text}`: {error}; is `{zone}` an interface of this machine?"
                ),
                None => format!("no address for `{text}`: {error}; {advice}"),
            })),
        }
    }
}

fn advice() -> String {
    format!("write HOST:PORT, such as {DEFAULT}")
}

/// Whether a text can hardly be anything but an address: an IP address or `localhost`, or any name with a dot
/// and a port.
pub(crate) fn looks_like_an_address(text: &str) -> bool {
    let Ok(Parts { host, port }) = Parts::of(text) else {
        return false;
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_ip = host.parse::<IpAddr>().is_ok() || host.contains(':') && host.contains('%');
    let is_name = host.contains('.')
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    // A number is a port to an option, and a number to a robot. A word with a dot ends a sentence.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_port && !is_number && (is_ip || host == "localhost" || is_name && port.is_some())
}

/// Where a server that listens at `addr` can be asked from the same machine: one that listens at every
/// address is asked at the loopback address.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        // Its zone is kept.
        _ => return addr,
    };
    SocketAddr::new(ip, addr.port())
}

/// The command that starts one of the programs with an address, unless that is the default. Shells
/// treat brackets as a pattern, so an IPv6 address is quoted.
pub(crate) fn command(name: &str, option: &str, addr: SocketAddr) -> String {
    let quote = if addr.is_ipv6() { "'" } else { "" };
    match addr {
        DEFAULT => format!("rejoinder {name}"),
        _ => format!("rejoinder {name} {option}{quote}{addr}{quote}"),
    }
}

/// Why a server cannot listen there, with advice where the cause is sure.
pub(crate) fn why_not_bound(text: &str, addresses: &[SocketAddr], error: &io::Error) -> String {
    let port = addresses.first().map_or(0, SocketAddr::port);
    let only_v6 = addresses.iter().all(SocketAddr::is_ipv6);
    let all = addresses.iter().any(|addr| addr.ip().is_unspecified());
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "the port is taken; end that program or choose another port (0: any free one)"
                .to_owned()
        }
        ErrorKind::PermissionDenied if (1..1024).contains(&port) => {
            "that port is not for everyone; choose one above 1023".to_owned()
        }
        ErrorKind::AddrNotAvailable if only_v6 && !all => {
            "this machine has no such address; try [::1] or [::]".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address; try 127.0.0.1 or 0.0.0.0".to_owned()
        }
        _ if only_v6 && is_no_ipv6(error) => {
            let ip = if all { "0.0.0.0" } else { "127.0.0.1" };
            format!("this machine has no IPv6; try {ip}:{port}")
        }
        ErrorKind::Unsupported => "several workers need Linux; leave out --workers".to_owned(),
        _ if addresses.iter().any(needs_a_zone) => format!(
            "{}; a link-local address needs its interface, as in [fe80::1%eth0]:{port}",
            chain(error)
        ),
        _ => chain(error),
    };
    format!("cannot listen on {text}: {advice}")
}

/// Why a request failed, with its causes, and advice where this machine's network is the cause.
pub(crate) fn why_unanswered(error: &RequestError) -> String {
    let (RequestError::Connect { peer, source }
    | RequestError::NotSent { peer, source, .. }
    | RequestError::Unreachable { peer, source }) = error
    else {
        return chain(error);
    };
    let (ip, port) = (peer.ip(), peer.port());
    if needs_a_zone(peer) && source.kind() == ErrorKind::InvalidInput {
        format!(
            "no route to {peer}: a link-local address needs its interface, as in [{ip}%eth0]:{port}"
        )
    } else if is_no_ipv6(source) {
        format!("no route to {peer}: this machine has no IPv6; ask the server at an IPv4 address")
    } else if is_no_route(peer, source) {
        format!("no route to {peer}: {source}; see what this machine's routes are for {ip}")
    } else if source.kind() == ErrorKind::PermissionDenied {
        format!("this machine may not send to {peer}: {source}; see its routes and its firewall")
    } else {
        chain(error)
    }
}

/// Whether the kernel has no way to an address. Linux answers EINVAL for a route of the type `blackhole`, and
/// EADDRNOTAVAIL where it has no IPv6 address to send from.
fn is_no_route(peer: &SocketAddr, error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => true,
        ErrorKind::InvalidInput => error.raw_os_error().is_some(),
        ErrorKind::AddrNotAvailable => peer.is_ipv6(),
        _ => false,
    }
}

/// Whether the kernel has no such family of addresses (EAFNOSUPPORT).
pub(crate) fn is_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn needs_a_zone(addr: &SocketAddr) -> bool {
    matches!(addr, SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() && addr.scope_id() == 0)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use rejoinder::RequestError;
    use rustix::io::Errno;

    use super::{Address, DEFAULT, Parts, looks_like_an_address, resolve, why_unanswered};
    use crate::program::Failure;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", Some("80")),
            ("127.0.0.1", "127.0.0.1", None),
            ("80", "127.0.0.1", Some("80")),
            ("example.org", "example.org", None),
            ("example.org:http", "example.org", Some("http")),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("[::1]:80", "::1", Some("80")),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", Some("80")),
            ("[fe80::1%2]", "fe80::1%2", None),
            (":80", "", Some("80")),
            ("", "", None),
        ] {
            assert_eq!(Parts::of(text), Ok(Parts { host, port }), "{text}");
        }
        for text in ["[::1", "[::1]80", "[127.0.0.1]:80", "[example.org]"] {
            assert!(Parts::of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_of_the_call() {
        for text in [
            "",
            ":80",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "[::1",
            "a b:80",
            "a\nb",
        ] {
            let failure = resolve(text, 8888);
            assert!(
                matches!(failure, Err(Failure::Usage(_))),
                "{text}: {failure:?}"
            );
        }
        // RFC 6761: a reserved name.
        let failure = resolve("nobody.invalid", 8888);
        assert!(matches!(failure, Err(Failure::RunTime(_))), "{failure:?}");
    }

    #[test]
    fn a_default_port_is_filled_in() {
        let addresses = |text| resolve(text, 8888).expect("it is an address");
        assert_eq!(addresses("127.0.0.1"), [DEFAULT]);
        assert_eq!(addresses("8888"), [DEFAULT]);
        assert_eq!(addresses("::1")[0].to_string(), "[::1]:8888");
        assert_eq!(addresses("[::1]:9")[0].to_string(), "[::1]:9");
        assert_eq!(addresses("fe80::1%7")[0].to_string(), "[fe80::1%7]:8888");
    }

    #[test]
    fn names_are_known_from_addresses() {
        for (text, is_name) in [
            ("127.0.0.1:80", false),
            ("8888", false),
            ("::1", false),
            ("[fe80::1%2]:80", false),
            ("localhost", true),
            ("bot.example.org:53", true),
        ] {
            let address = Address::parse(text, 8888).expect("it is an address");
            assert_eq!(address.is_name(), is_name, "{text}");
        }
    }

    #[test]
    fn a_request_that_the_kernel_does_not_send_has_advice() {
        let fails = |peer: &str, errno: Errno| {
            let peer: SocketAddr = peer.parse().expect("it is an address");
            let source = io::Error::from(errno);
            why_unanswered(&RequestError::Connect { peer, source })
        };
        for (peer, errno, message) in [
            (
                "10.0.0.1:7",
                Errno::INVAL,
                "no route to 10.0.0.1:7: Invalid argument",
            ),
            (
                "10.0.0.1:7",
                Errno::NETUNREACH,
                "no route to 10.0.0.1:7: Network is unreachable",
            ),
            (
                "[fd00::1]:7",
                Errno::ADDRNOTAVAIL,
                "no route to [fd00::1]:7: ",
            ),
            (
                "[fd00::1]:7",
                Errno::AFNOSUPPORT,
                "no route to [fd00::1]:7: this machine has no IPv6",
            ),
            (
                "[fe80::1]:7",
                Errno::INVAL,
                "no route to [fe80::1]:7: a link-local address needs",
            ),
            (
                "10.0.0.1:7",
                Errno::PERM,
                "this machine may not send to 10.0.0.1:7: ",
            ),
            ("10.0.0.1:7", Errno::MFILE, "cannot connect to 10.0.0.1:7: "),
        ] {
            let line = fails(peer, errno);
            assert!(line.starts_with(message), "{line}");
        }
    }

    #[test]
    fn messages_are_told_from_addresses() {
        for text in [
            "127.0.0.1:8899",
            "[::1]:8899",
            "localhost:8899",
            "bot.example.org:53",
            "[fe80::1%lo]:1",
            "10.0.0.5",
            "localhost",
            "::1",
            "[::1]",
            "fe80::1%lo",
        ] {
            assert!(looks_like_an_address(text), "{text}");
        }
        for text in [
            "8899",
            "12:30",
            "hello",
            "bot.example.org",
            "re: 7",
            "你好吗？",
            "a.b:",
            "1.2.3",
            "10.0.0.5:0",
            "x:80",
            "10.5:x",
        ] {
            assert!(!looks_like_an_address(text), "{text}");
        }
    }
}
