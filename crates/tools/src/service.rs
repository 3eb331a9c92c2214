//! What the servers of other people's protocols do the same way: arguments, Ctrl-C, totals.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::program::{self, Failure, chain, end, read_file, say, why_not_bound};
use lexopt::prelude::*;
use rejoinder::gate::{Gate, RateLimit};
use rejoinder::{Codec, Handler, ServeError, ServerBuilder, ServerHandle, Stats};
use signal_hook::consts::{SIGINT, SIGTERM};

/// A whole program: `start` makes servers out of the arguments, and they run until Ctrl-C.
///
/// `options` are the options with a value. One called `ADDRESS` is the first argument instead.
pub fn main(
    help: &str,
    options: &[&'static str],
    start: impl FnOnce(Arguments) -> Result<Vec<Service>, Failure>,
) -> ExitCode {
    end(run(lexopt::Parser::from_env(), help, options, start))
}

/// The same, with arguments that are given.
pub(crate) fn run(
    args: lexopt::Parser,
    help: &str,
    options: &[&'static str],
    start: impl FnOnce(Arguments) -> Result<Vec<Service>, Failure>,
) -> Result<ExitCode, Failure> {
    let Some(arguments) = parse(args, options)? else {
        return Ok(program::help(help));
    };
    let quiet = arguments.quiet;
    // Signals first, so that none finds the program half started.
    let ended = asked_to_end()?;
    serve(start(arguments)?, &ended, quiet)
}

impl From<Box<dyn Error>> for Failure {
    fn from(error: Box<dyn Error>) -> Self {
        Self::RunTime(chain(&*error))
    }
}

/// What the program was called with, and what it makes of it.
#[derive(Debug)]
pub struct Arguments {
    values: HashMap<&'static str, String>,
    quiet: bool,
    /// Whether also who is on this machine gets a limited number of answers. Default: no. All others
    /// do in any case, because the sender of a datagram is easily forged.
    pub always_limited: bool,
}

impl Arguments {
    /// The value of an option.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.values.get(option).map(String::as_str)
    }

    /// What is in the file that an option names.
    pub fn file<T>(
        &self,
        option: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, Box<dyn Error>>,
    ) -> Result<Option<T>, Failure> {
        let Some(path) = self.get(option) else {
            return Ok(None);
        };
        let parsed = read_file(path.as_ref())
            .map_err(Box::from)
            .and_then(|bytes| parse(&bytes));
        parsed
            .map(Some)
            .map_err(|error| Failure::RunTime(format!("--{option} {path}: {error}")))
    }

    /// A service at the address that an option names.
    pub fn service<C, G, H>(
        &self,
        option: &str,
        default: &str,
        server: ServerBuilder<C, G>,
        handler: H,
    ) -> Result<Service, Failure>
    where
        C: Codec + Clone + Send + 'static,
        G: Gate + Clone + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        let text = self.get(option).unwrap_or(default);
        let addrs: Vec<SocketAddr> = text
            .to_socket_addrs()
            .map_err(|error| {
                Failure::Usage(format!("bad address `{text}`: {error}; write HOST:PORT"))
            })?
            .collect();
        let is_local = addrs.iter().all(|addr| addr.ip().is_loopback());
        let is_limited = self.always_limited || !is_local;
        let server = server
            .gate(is_limited.then(RateLimit::default))
            .bind(&addrs[..])
            .map_err(|error| Failure::RunTime(why_not_bound(text, &error.into())))?;
        Ok(Service {
            name: if option == "ADDRESS" { "" } else { option }.to_owned(),
            addr: server.local_addr()?,
            is_limited,
            handle: server.handle(),
            serve: Box::new(move || server.serve(handler)),
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// One server, ready to run.
pub struct Service {
    name: String,
    /// Where it listens.
    pub addr: SocketAddr,
    is_limited: bool,
    handle: ServerHandle,
    serve: Box<dyn FnOnce() -> Result<Stats, ServeError> + Send>,
}

fn parse(
    mut args: lexopt::Parser,
    options: &[&'static str],
) -> Result<Option<Arguments>, lexopt::Error> {
    let mut values = HashMap::new();
    let mut quiet = false;
    while let Some(arg) = args.next()? {
        let option = match arg {
            Short('h') | Long("help") => return Ok(None),
            Short('q') | Long("quiet") => {
                quiet = true;
                continue;
            }
            Long(name) => options.iter().find(|option| **option == name),
            Value(ref value) if options.contains(&"ADDRESS") => {
                let value = value.clone().string()?;
                if values.insert("ADDRESS", value).is_some() {
                    return Err(arg.unexpected());
                }
                continue;
            }
            _ => None,
        };
        match option {
            Some(option) if *option != "ADDRESS" => {
                values.insert(*option, args.value()?.string()?);
            }
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(Arguments {
        values,
        quiet,
        always_limited: false,
    }))
}

/// What a signal sets from now on.
fn asked_to_end() -> Result<Arc<AtomicBool>, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    Ok(ended)
}

/// Runs servers side by side until a signal comes, or one of them has no socket any more.
fn serve(
    services: Vec<Service>,
    ended: &Arc<AtomicBool>,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    let tell = |line: String| {
        if !quiet {
            say(line);
        }
    };
    let mut running = Vec::new();
    for service in services {
        let Service {
            name,
            addr,
            is_limited,
            handle,
            serve,
        } = service;
        let name = format!("{name}{}", if name.is_empty() { "" } else { ": " });
        tell(format!("{name}listening on {addr}"));
        if is_limited {
            // `RateLimit`'s default.
            tell(format!(
                "{name}giving any one network 100 answers, and 64 KiB, a second at most"
            ));
        }
        let ended = Arc::clone(ended);
        let thread = thread::spawn(move || {
            let result = serve();
            ended.store(true, Ordering::Relaxed);
            result
        });
        running.push((name, handle, thread));
    }
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(SIGNAL_CHECK);
    }
    for (_, handle, _) in &running {
        handle.shutdown();
    }
    for (name, _, thread) in running {
        let ended = thread.join();
        let ended = ended.map_err(|_| Failure::RunTime("a server panicked".to_owned()))?;
        let stats = ended.map_err(Box::<dyn Error>::from)?;
        tell(format!("{name}{stats}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// How often the program looks whether a signal came.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
