//! Asks 小Zurich, or any server of the ctime protocol:
//!
//! ```text
//! cargo run --example client
//! cargo run --example client -- 你好吗？ 你觉得我是最帅最帅的吗？
//! ```
//!
//! `rejoinder ask` is the same with an editor for lines, round-trip times and JSON.

use std::error::Error;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use rejoinder::Client;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::udp::UdpConnector;

mod support {
    pub(crate) mod address;
    pub(crate) mod error;
}

use support::address::{DEFAULT, reachable, resolve};
use support::error::{complain, explained, fail};

const HELP: &str = "\
Usage: client [--server ADDRESS] [--timeout SECONDS] [--] [MESSAGE]...

Sends each MESSAGE to a server of the ctime protocol and prints the response. Without a MESSAGE, every
line of standard input is one. On a terminal, an empty line ends.

  -s, --server ADDRESS     HOST:PORT, or only one of them. Default: 127.0.0.1:8888
  -t, --timeout SECONDS    how long to wait for each response, more than 0, at most 86400. Default: 5
  -h, --help               this text
";
fn main() -> ExitCode {
    run().unwrap_or_else(|error| fail(&*error))
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut server = DEFAULT.to_owned();
    let mut timeout = Duration::from_secs(5);
    let mut messages = Vec::new();
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => {
                io::stdout().write_all(HELP.as_bytes())?;
                return Ok(ExitCode::SUCCESS);
            }
            Short('s') | Long("server") => server = args.value()?.string()?,
            Short('t') | Long("timeout") => timeout = seconds(&args.value()?.string()?)?,
            Value(message) => messages.push(message.into_encoded_bytes()),
            _ => return Err(arg.unexpected().into()),
        }
    }

    // One for each address of a name: `localhost` is often both `::1` and `127.0.0.1`.
    let peers = resolve(&server)?;
    if peers.iter().any(|peer| peer.port() == 0) {
        let problem = format!("no server has port 0, as in `{server}`");
        return Err(lexopt::Error::from(problem).into());
    }
    let peers: Vec<_> = peers.into_iter().map(reachable).collect();
    let mut client = Client::builder(Ctime::local())
        .timeout(timeout)
        .fail_when_unreachable(true)
        .connect(&peers[..])?;
    let mut ask = |message: &[u8]| ask(&mut client, &server, message);
    let mut unanswered = false;
    if messages.is_empty() {
        let prompts = io::stdin().is_terminal() && io::stdout().is_terminal();
        while let Some(message) = next_line(prompts)? {
            unanswered |= !ask(&message)?;
        }
    }
    for message in messages {
        unanswered |= !ask(&message)?;
    }
    Ok(ExitCode::from(u8::from(unanswered)))
}

/// Prints the answer, or why there is none.
fn ask(client: &mut Client<UdpConnector, Ctime>, server: &str, message: &[u8]) -> io::Result<bool> {
    let message = match str::from_utf8(message) {
        Ok(message) => message,
        Err(error) => {
            complain(&format!("the message is not UTF-8: {error}"));
            return Ok(false);
        }
    };
    let error = match client.request(message) {
        Ok(frame) => {
            writeln!(io::stdout(), "{}", Escaped(&frame.to_string()))?;
            return Ok(true);
        }
        Err(error) => error,
    };
    complain(&explained(&error));
    // The server's name may have other addresses by now. The next message goes there.
    if let (Some(_), Ok(found)) = (error.peer(), resolve(server)) {
        let found: Vec<_> = found.into_iter().map(reachable).collect();
        if let [first, others @ ..] = &found[..] {
            client.set_peers(*first, others);
        }
    }
    Ok(false)
}

/// A message, up to an empty line on a terminal, or the end. In a pipe, empty lines are skipped.
fn next_line(prompts: bool) -> io::Result<Option<Vec<u8>>> {
    loop {
        if prompts {
            write!(io::stdout(), "【客户端】输入：")?;
            io::stdout().flush()?;
        }
        let mut line = Vec::new();
        let is_end = io::stdin().lock().read_until(b'\n', &mut line)? == 0;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) {
            b"" if is_end || prompts => return Ok(None),
            b"" => {}
            line => return Ok(Some(line.to_owned())),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, lexopt::Error> {
    let seconds: Option<f64> = text.parse().ok().filter(|&seconds| seconds <= 86_400.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| {
        format!("--timeout `{text}`: not a number of seconds above 0 and up to 86400").into()
    })
}
