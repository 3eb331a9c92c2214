//! The frame around a server: signals, reloads, counters, a service manager, the end.
//!
//! No thread of it waits for standard output or standard error: lines go through queues (see
//! [`output`](crate::program::output)). The thread that handles signals reads no file either: a
//! reload has a thread of its own.

mod fleet;
mod reload;

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::gate::{Gate, RateLimit};
use rejoinder::udp::{UdpOptions, UdpTransport};
use rejoinder::{
    Codec, Handler, ServeError, Server, ServerBuilder, ServerHandle, Stats, Transport,
};

use self::fleet::InService;
pub(crate) use self::fleet::Member;
pub use self::fleet::{Behind, Fleet, Limit, limit};
pub use self::reload::Reload;
use crate::program::signals::{Asked, PERIOD, Signals};
use crate::program::sockets::{addresses_of, bind, passed};
use crate::program::{self, Failure, GRACE, chain, end, manager, say};
use crate::serve::rates::Rates;

/// The arguments that all services have.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Common {
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How balancers learn about it.
    #[command(flatten)]
    pub fleet: Fleet,
}

/// Where a service gets its requests.
#[derive(Clone, Debug)]
pub struct Listen<'a> {
    address: Option<&'a str>,
    default: SocketAddr,
    options: UdpOptions,
}

impl<'a> Listen<'a> {
    /// At this address, with the default's port if it has none; without it on the sockets that a service
    /// manager has opened, or else at the default.
    #[must_use]
    pub fn at(address: Option<&'a str>, default: SocketAddr) -> Self {
        Self {
            address,
            default,
            options: UdpOptions::new(),
        }
    }

    /// The same on sockets with these options, whether they are opened or passed.
    #[must_use]
    pub fn udp_options(mut self, options: UdpOptions) -> Self {
        self.options = options;
        self
    }
}

/// One server, ready to run.
pub struct Service {
    name: &'static str,
    addresses: Vec<SocketAddr>,
    /// What to say of it at the start.
    notes: Vec<String>,
    handle: ServerHandle,
    serve: Box<dyn FnOnce() -> Result<Stats, ServeError> + Send>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new<T, C, G, H>(
        server: Server<T, C, G>,
        addresses: Vec<SocketAddr>,
        handler: H,
    ) -> Self
    where
        T: Transport + Send + 'static,
        C: Codec + Send + 'static,
        G: Gate + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        let handle = server.handle();
        let handler = InService {
            handler,
            server: handle.clone(),
        };
        Self {
            name: "",
            addresses,
            notes: Vec::new(),
            handle,
            serve: Box::new(move || server.serve(handler)),
        }
    }

    /// A service on the sockets that a service manager has opened, or else at an address. Peers on other
    /// machines get a limited number of answers by default, because the sender of a datagram is easily
    /// forged.
    ///
    /// # Errors
    ///
    /// If the address is none, or cannot be had.
    pub fn open<C, G, H>(
        listen: Listen<'_>,
        limit: Limit,
        builder: ServerBuilder<C, G>,
        handler: H,
    ) -> Result<Self, Failure>
    where
        C: Codec + Clone + Send + 'static,
        G: Gate + Clone + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        let passed = passed(usize::MAX, &listen.options)?;
        Self::on(passed, listen, limit, builder, handler)
    }

    /// The same for one of several services in a program. They get the sockets of the service manager in
    /// the order in which they are opened, one each.
    ///
    /// # Errors
    ///
    /// If the address is none, or cannot be had.
    pub fn open_one_of_several<C, G, H>(
        listen: Listen<'_>,
        limit: Limit,
        builder: ServerBuilder<C, G>,
        handler: H,
    ) -> Result<Self, Failure>
    where
        C: Codec + Clone + Send + 'static,
        G: Gate + Clone + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        let passed = passed(usize::from(listen.address.is_none()), &listen.options)?;
        Self::on(passed, listen, limit, builder, handler)
    }

    fn on<C, G, H>(
        passed: Vec<UdpTransport>,
        listen: Listen<'_>,
        limit: Limit,
        builder: ServerBuilder<C, G>,
        handler: H,
    ) -> Result<Self, Failure>
    where
        C: Codec + Clone + Send + 'static,
        G: Gate + Clone + Send + 'static,
        H: Handler<C> + Send + Sync + 'static,
    {
        let Listen {
            address,
            default,
            options,
        } = listen;
        let transports = match (passed, address) {
            (passed, None) if !passed.is_empty() => passed,
            (passed, Some(address)) if !passed.is_empty() => {
                return Err(Failure::Usage(both(address, passed.len())));
            }
            (_, address) => {
                let address = address.map_or_else(|| default.to_string(), str::to_owned);
                bind(&address, default.port(), 1, options)?
            }
        };
        let addresses = addresses_of(&transports)?;
        let answers = limit.answers(&addresses, DEFAULT_LIMIT);
        let gate =
            answers.map(|answers| RateLimit::builder().responses_per_second(answers).build());
        let server = builder
            .gate(gate.transpose()?)
            .with_transports(transports)?;
        let mut service = Self::new(server, addresses, handler);
        if let Some(answers) = answers {
            // `RateLimit`'s default of bytes.
            service.notes.push(format!(
                "giving each network prefix {answers} answers, and 64 KiB, a second at most"
            ));
        }
        Ok(service)
    }

    /// The same under a name, which stands before its lines.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// The same with a line that is printed at the start.
    #[must_use]
    pub fn noted(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    fn prefix(&self) -> String {
        match self.name {
            "" => String::new(),
            name => format!("{name}: "),
        }
    }
}

/// An address and sockets of a service manager contradict each other.
pub(crate) fn both(address: &str, count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!(
        "cannot listen on {address}: the service manager has opened {count} socket{plural} for this \
         server already; leave the address to it"
    )
}

/// A whole program: `start` makes servers out of the arguments, and they run until a signal comes.
///
/// Signals are heeded before the arguments are read, so that none finds the program half started.
pub fn main<A: clap::Parser>(
    start: impl FnOnce(A) -> Result<(Common, Vec<Service>, Option<Reload>), Failure>,
) -> ExitCode {
    let run = || {
        let signals = Signals::register()?;
        match crate::cli::parse()? {
            crate::cli::Parsed::Shown(code) => Ok(code),
            crate::cli::Parsed::Arguments(arguments) => {
                program::queue_status()?;
                let (common, services, reload) = start(arguments)?;
                program::status_is_wanted(!common.quiet);
                let member = common.fleet.open()?;
                announce(&services, &member)?;
                run(services, signals, member, reload.as_ref(), None, || None)
            }
        }
    };
    end(run())
}

pub(crate) fn announce(services: &[Service], member: &Member) -> Result<(), Failure> {
    let mut all = Vec::new();
    for service in services {
        let shown: Vec<_> = service
            .addresses
            .iter()
            .map(SocketAddr::to_string)
            .collect();
        let line = format!("{}listening on {}", service.prefix(), shown.join(" and "));
        say(&line);
        for note in &service.notes {
            say(format_args!("{}{note}", service.prefix()));
        }
        all.push(line);
    }
    member.announce()?;
    manager::ready(&all.join("; "));
    Ok(())
}

/// Runs servers side by side until a signal comes, or one of them has no socket any more. `finish` is
/// called when they have ended, and may add a line before their counters.
pub(crate) fn run(
    services: Vec<Service>,
    mut signals: Signals,
    mut member: Member,
    reload: Option<&Reload>,
    mut rates: Option<Rates>,
    finish: impl FnOnce() -> Option<String>,
) -> Result<ExitCode, Failure> {
    member.serve(services.iter().map(Service::handle).collect())?;
    let (done, ended) = mpsc::channel();
    let mut running = Vec::new();
    for (index, service) in services.into_iter().enumerate() {
        let prefix = service.prefix();
        let Service { handle, serve, .. } = service;
        let done = done.clone();
        let thread = thread::Builder::new().name(format!("server {index}"));
        let spawned = thread.spawn(move || {
            // The receiver is gone only when the program ends.
            let _ = done.send((index, serve()));
        });
        spawned.map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))?;
        running.push((prefix, handle));
    }
    let stats = |running: &[(String, ServerHandle)]| {
        running
            .iter()
            .map(|(_, handle)| handle.stats())
            .sum::<Stats>()
    };
    let mut results: Vec<Option<Result<Stats, ServeError>>> = Vec::new();
    results.resize_with(running.len(), || None);
    loop {
        let line = rates.as_ref().map(|rates| rates.wait(Instant::now()));
        let wait = [line, member.left()].into_iter().flatten().min();
        match ended.recv_timeout(PERIOD.min(wait.unwrap_or(PERIOD))) {
            Ok((index, result)) => {
                results[index] = Some(result);
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(rates) = &mut rates
            && let Some(line) = rates.tell(Instant::now(), || stats(&running))
        {
            say(line);
        }
        if member.left() == Some(Duration::ZERO) {
            break;
        }
        let asked = signals.next();
        if asked == Some(Asked::Shutdown) && !member.leave(running.iter().map(|(_, handle)| handle))
        {
            break;
        }
        match asked {
            Some(Asked::Stats) => {
                for (prefix, handle) in &running {
                    say(format_args!("{prefix}{}", handle.stats()));
                }
            }
            Some(Asked::Reload) => {
                if let Some(reload) = &reload {
                    reload.ask();
                } else {
                    let nothing = "nothing to read again";
                    say(nothing);
                    manager::reloading();
                    manager::ready(nothing);
                }
            }
            Some(Asked::Shutdown) | None => {}
        }
    }
    if member.left().is_none() {
        manager::stopping(None);
    }
    for (_, handle) in &running {
        handle.shutdown();
    }
    let deadline = Instant::now() + GRACE;
    while results.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now());
        match ended.recv_timeout(left) {
            Ok((index, result)) => results[index] = Some(result),
            // A handler that does not return does not keep the program.
            Err(_) => break,
        }
    }
    if let Some(line) = finish() {
        say(line);
    }
    for ((prefix, handle), result) in running.into_iter().zip(results) {
        let stats = result.unwrap_or_else(|| Ok(handle.stats()));
        let stats = stats.map_err(|error| Failure::RunTime(chain(&error)))?;
        say(format_args!("{prefix}{stats}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The default of `RateLimit`.
pub(crate) const DEFAULT_LIMIT: u32 = 100;
