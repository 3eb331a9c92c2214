//! The addresses that `server` and `client` understand.

use std::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

pub(crate) const DEFAULT: &str = "127.0.0.1:8888";

/// The addresses that `HOST:PORT`, `HOST` or `PORT` stands for. What is no address at all is an error
/// of the command line.
pub(crate) fn resolve(address: &str) -> Result<Vec<SocketAddr>, Box<dyn Error>> {
    let is_port = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit());
    let full = match address.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 8888).to_string(),
        Err(_) if is_port => format!("127.0.0.1:{address}"),
        Err(_) if address.contains(':') => address.to_owned(),
        Err(_) => format!("{address}:8888"),
    };
    let usage = |problem: String| {
        lexopt::Error::from(format!(
            "bad address `{address}`: {problem}; write HOST:PORT"
        ))
    };
    if full.starts_with(':') {
        return Err(usage("no host".to_owned()).into());
    }
    match full.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            Err(usage(error.to_string()).into())
        }
        Err(error) => Err(format!("no address for `{address}`: {error}").into()),
    }
}

/// Where a server can be asked from the same machine: one that listens at every address is asked at
/// the loopback address.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The command that starts the other program with an address. Shells treat brackets as a pattern.
pub(crate) fn command(example: &str, option: &str, addr: SocketAddr) -> String {
    let quote = if addr.is_ipv6() { "'" } else { "" };
    match addr.to_string() {
        addr if addr == DEFAULT => format!("cargo run --example {example}"),
        addr => format!("cargo run --example {example} -- {option}{quote}{addr}{quote}"),
    }
}
