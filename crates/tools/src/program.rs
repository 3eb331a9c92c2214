//! What both programs share: which addresses they understand, and how they end.

use std::error::Error;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use rejoinder::escape::Escaped;

/// Where the server listens and the client asks, unless told otherwise.
pub(crate) const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8888);

/// Why a program ends before its work is done.
#[derive(Debug)]
pub enum Failure {
    /// It was called wrongly: exit code 2.
    Usage(String),
    /// It was called well, and could not do it: exit code 1.
    RunTime(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<rejoinder::ConfigError> for Failure {
    fn from(error: rejoinder::ConfigError) -> Self {
        Self::RunTime(chain(&error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::RunTime(chain(&error))
    }
}

/// The value of an option. If it cannot be read, the message names the option.
pub(crate) fn value<T, E: Display>(
    option: &str,
    args: &mut lexopt::Parser,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    let value = args.value()?;
    let text = value.to_string_lossy();
    read(&text).map_err(|problem| Failure::Usage(format!("{option} `{text}`: {problem}")))
}

/// Ends a program: at most one line about why.
pub fn end(result: Result<ExitCode, Failure>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(Failure::Usage(problem)) => {
            complain(format!("{problem}; see --help"));
            ExitCode::from(2)
        }
        Err(Failure::RunTime(problem)) => {
            complain(problem);
            ExitCode::FAILURE
        }
    }
}

/// Says what went wrong, in one line whatever the text.
pub(crate) fn complain(problem: impl Display) {
    say(format_args!("error: {}", Escaped(&problem.to_string())));
}

/// Writes a line to standard error. Unlike `eprintln!`, it does not panic if nobody reads it.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints what `--help` asks for.
pub(crate) fn help(text: &str) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                complain(error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output, and leaves nothing in its buffer.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(in_output)
}

/// Says of an error where it was met. A reader who has read enough is none of this program's business,
/// so that error stays as it is.
pub(crate) fn in_output(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("standard output: {error}")),
    }
}

/// Reads a regular file of a size that one may mean. A pipe could keep the program waiting, deaf to signals,
/// and a device could fill its memory.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

/// Why a server cannot listen there, and what to do.
pub(crate) fn why_not_bound(address: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "the port is taken; end that program or choose another port (0: any free one)"
        }
        ErrorKind::PermissionDenied => "that port is not for everyone; choose one above 1023",
        ErrorKind::AddrNotAvailable => "this machine has no such address; try 127.0.0.1 or 0.0.0.0",
        ErrorKind::Unsupported => "several workers need Linux; leave out --workers",
        _ => return format!("cannot listen on {address}: {}", chain(error)),
    };
    format!("cannot listen on {address}: {advice}")
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

/// The addresses that `HOST:PORT`, `HOST` or `PORT` stands for; at least one.
pub(crate) fn resolve(address: &str) -> Result<Vec<SocketAddr>, Failure> {
    let unbracketed = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip = unbracketed.unwrap_or(address);
    let full = if let Ok(ip) = ip.parse::<IpAddr>() {
        SocketAddr::new(ip, DEFAULT.port()).to_string()
    } else if !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{}:{address}", DEFAULT.ip())
    } else if address.contains(':') {
        address.to_owned()
    } else {
        format!("{address}:{}", DEFAULT.port())
    };
    let advice = format!("write HOST:PORT, such as {DEFAULT}");
    if address.is_empty() || address.starts_with(':') && !full.starts_with('[') {
        return Err(Failure::Usage(format!(
            "bad address `{address}`: no host; {advice}"
        )));
    }
    match full.to_socket_addrs().map(Vec::from_iter) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Failure::RunTime(format!(
            "`{address}` has no address; {advice}"
        ))),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(Failure::Usage(format!(
            "bad address `{address}`: {error}; {advice}"
        ))),
        Err(error) => Err(Failure::RunTime(format!(
            "no address for `{address}`: {error}; {advice}"
        ))),
    }
}

/// Where a server that listens at `addr` can be asked from the same machine: one that listens at
/// every address is asked at the loopback address.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return addr,
    };
    SocketAddr::new(ip, addr.port())
}

/// The command that starts one of the programs with an address, unless that is the default.
/// Shells have plans of their own for brackets, so an IPv6 address is quoted.
pub(crate) fn command(example: &str, option: &str, addr: SocketAddr) -> String {
    let quote = if addr.is_ipv6() { "'" } else { "" };
    match addr {
        DEFAULT => format!("rejoinder {example}"),
        _ => format!("rejoinder {example} {option}{quote}{addr}{quote}"),
    }
}

/// Some hundred thousand rules, or names: whoever has more in a file has named the wrong one.
const MAX_FILE_BYTES: u64 = 16 << 20;
