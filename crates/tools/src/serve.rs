//! `rejoinder serve`: 小Zurich, or a robot of other rules, on UDP.
//!
//! Standard output is the transcript of the original program, standard error is everything else.

#[cfg(feature = "dtls")]
mod dtls;
mod log;
mod metrics;
pub(crate) mod network;
pub mod rates;
pub mod rules;
pub mod transcript;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rejoinder::Server;
use rejoinder::bot::zurich;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::gate::{Gate, RateLimit};
use rejoinder::udp::{UdpOptions, UdpTransport};

use self::log::Format;
use self::network::Network;
use self::rates::Rates;
use self::rules::RulesFile;
use self::transcript::Transcribed;
use crate::program::address::{DEFAULT, command, reachable};
use crate::program::http::Endpoint;
use crate::program::output::{Output, Stream};
use crate::program::signals::Signals;
use crate::program::sockets::{addresses_of, bind, passed};
use crate::program::{self, Failure, GRACE, manager, say, warn, zone};
use crate::service::{
    Behind, DEFAULT_LIMIT, Fleet, Limit, Reload, Service, both, limit, run as run_services,
};

/// Answer requests: the robot, or rules of your own
///
/// Ctrl-C and SIGTERM end it, a second one at once. SIGUSR1 prints the counters. SIGHUP reads the rules
/// again.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen: HOST:PORT, or only one of them
    ///
    /// Port 0 is any free port, 0.0.0.0 all of IPv4, [::] all of IPv6 and IPv4. Default:
    /// 127.0.0.1:8888, or the sockets that a service manager has opened (a .socket unit of systemd, or
    /// systemd-socket-activate --datagram)
    address: Option<String>,
    /// How many threads answer, each on a socket of its own
    ///
    /// More than one needs Linux. Default: 1, or one for each socket that was opened already
    #[arg(short, long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    workers: Option<usize>,
    /// A robot of other rules, from a file of TOML; SIGHUP has it read again
    #[arg(short, long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The most memory that the rules may take, in MiB
    #[arg(
        long, value_name = "MIB", value_parser = rules_memory, allow_negative_numbers = true,
        default_value = "64"
    )]
    rules_memory: usize,
    /// Read the rules again whenever their file changes, is replaced, or is another link's target
    #[arg(long, requires = "rules")]
    watch: bool,
    /// How many answers per second, and KiB, each network prefix gets, or `off`
    ///
    /// A network is an IPv4 /24 or an IPv6 /56. Default: off on a loopback address without --proxied,
    /// otherwise 100, because the sender of a datagram is easily forged
    #[arg(
        short, long, value_name = "ANSWERS", value_parser = limit, allow_negative_numbers = true,
        default_value = "default", hide_default_value = true
    )]
    limit: Limit,
    /// A network that has no limit, such as 10.0.0.0/8, `fd00::/8` or one address; several with commas,
    /// or repeated
    #[arg(long, value_name = "NET", value_parser = network::parse, value_delimiter = ',')]
    exempt: Vec<Network>,
    /// The longest request that is answered, in bytes; longer ones are dropped and counted
    #[arg(
        long, value_name = "BYTES", value_parser = max_request, allow_negative_numbers = true,
        default_value = "65507"
    )]
    max_request: usize,
    /// Answer a request that is not UTF-8 with an empty text, dated 1970, if it has 29 bytes or more
    ///
    /// For proxies that count an unanswered request as a failure. A response is never longer than the request; shorter ones
    /// are not answered
    #[arg(long)]
    answer_malformed: bool,
    #[command(flatten)]
    behind: Behind,
    #[command(flatten)]
    fleet: Fleet,
    /// Serve over DTLS the clients whose keys are in a file
    ///
    /// Its lines are `identity:hexkey`, as psktool writes them. None but its owner may read it. Clients need
    /// `rejoinder ask --psk-file`: their requests carry ids.
    #[cfg(feature = "dtls")]
    #[arg(long, value_name = "FILE", conflicts_with = "proxied")]
    psk_file: Option<PathBuf>,
    /// Every so often, one line of rates on standard error; 0.1 to 86400
    #[arg(short, long, value_name = "SECONDS", value_parser = interval, allow_negative_numbers = true)]
    stats: Option<Duration>,
    /// Serve counters for Prometheus at `http://ADDRESS/metrics`
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Log what the server meets on standard error; with json, every line there is an object
    #[arg(long, value_name = "FORMAT")]
    log: Option<Format>,
    /// No transcript on standard output
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(options: Options, signals: Signals) -> Result<ExitCode, Failure> {
    let status = program::queue_status()?;
    if let Some(format) = options.log {
        log::start(format, status.clone())?;
    }
    if let Some(problem) = zone::problem() {
        warn(problem);
    }

    let memory = options.rules_memory << 20;
    let rules = options.rules.clone();
    let rules = rules.map(|path| Arc::new(RulesFile::new(path, memory)));
    let loaded = match &rules {
        Some(rules) => Some((Arc::clone(rules), rules.load().map_err(Failure::RunTime)?)),
        None => None,
    };
    let workers = options.workers.unwrap_or(1);
    program::has_memory(workers * WORKER_BYTES, format_args!("{workers} workers"))?;
    let transports = sockets(options.address.as_deref(), options.workers)?;
    let addresses = addresses_of(&transports)?;
    let limit = options.limit.behind(&options.behind);
    let limit = limit.answers(&addresses, DEFAULT_LIMIT);
    let gate = limit.map(|limit| rate_limit(limit, &options.exempt));
    let codec = Ctime::local().answer_malformed(options.answer_malformed);
    let gate = gate.transpose()?;
    let start = server(&options, codec, gate, transports)?;
    let metrics = match &options.metrics {
        Some(address) => Some(Endpoint::bind("--metrics", address, metrics::DEFAULT_PORT)?),
        None => None,
    };
    let member = options.fleet.open()?;

    let listening = listening_line(&addresses, workers);
    say(format_args!("{listening} (end with Ctrl-C)"));
    // Without a proxy in between, it would get no answer.
    if !options.behind.is_set() {
        let client = command("ask", "--server ", reachable(addresses[0]));
        say(format_args!("start the client with: {client}"));
    }
    say(format_args!("the time in responses is {}", zone::offset()));
    let (robot, count) = match loaded {
        Some((rules, robot)) => {
            say(Escaped(&format!("answering by {rules}")));
            rules.report(&robot, None);
            let count = robot.rules();
            (robot, Some(count))
        }
        None => (zurich(), None),
    };
    say_who_is_served(&options.behind, limit, &addresses);
    if let Some(metrics) = &metrics {
        say(format_args!(
            "metrics at http://{}/metrics",
            metrics.addr()?
        ));
    }
    member.announce()?;

    let transcript = if options.quiet {
        None
    } else {
        Some(start_output(Stream::Stdout)?)
    };
    let robot = Transcribed::new(robot, transcript.clone());
    let service = start(addresses, robot.clone());
    let counters = rules::Counters::new(count);
    let watched = options.rules.filter(|_| options.watch);
    let reload = match rules {
        Some(rules) => Some(start_reload(
            rules,
            robot.clone(),
            Arc::clone(&counters),
            watched,
        )?),
        None => None,
    };
    if let Some(metrics) = metrics {
        let outputs = [("stdout", transcript.clone()), ("stderr", Some(status))];
        metrics::serve(metrics, service.handle(), robot.clone(), counters, outputs)?;
    }
    manager::ready(&listening);

    let rates = options.stats.map(|every| Rates::new(every, Instant::now()));
    run_services(
        vec![service],
        signals,
        member,
        reload.as_ref(),
        rates,
        || {
            let transcript = transcript.as_ref()?;
            transcript.drain(GRACE);
            let lines = transcript.left_out();
            (lines > 0).then(|| format!("{lines} lines of the transcript were left out"))
        },
    )
}

/// Makes a service of a server that is ready, once its handler is.
type Start = Box<dyn FnOnce(Vec<SocketAddr>, Transcribed) -> Service>;

/// A server for clients with keys, or for all.
fn server<G: Gate + Clone + Send + 'static>(
    options: &Options,
    codec: Ctime,
    gate: G,
    transports: Vec<UdpTransport>,
) -> Result<Start, Failure> {
    #[cfg(feature = "dtls")]
    if let Some(path) = &options.psk_file {
        let keys = dtls::keys(path)?;
        return dtls::start(&keys, codec, options.max_request, gate, transports);
    }
    let server = Server::builder(codec)
        .max_request_bytes(options.max_request)
        .gate(gate);
    let server = options.behind.apply(server)?.with_transports(transports)?;
    Ok(Box::new(|addresses, robot| {
        Service::new(server, addresses, robot)
    }))
}

/// Which clients there are, and how much each gets.
fn say_who_is_served(behind: &Behind, limit: Option<u32>, addresses: &[SocketAddr]) {
    if let Some(note) = behind.note() {
        say(note);
    }
    let is_local = !behind.is_set() && addresses.iter().all(|addr| addr.ip().is_loopback());
    if let Some(answers) = limit {
        say(format_args!(
            "giving each network prefix {answers} answers, and {answers} KiB, a second at most (change it \
             with --limit)"
        ));
    } else if !is_local {
        say("no rate limit: an attacker with a forged source can use this server to flood others");
    }
}

fn start_output(stream: Stream) -> Result<Output, Failure> {
    Output::start(stream, program::complain)
        .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))
}

/// What the arguments say, or the service manager; not both.
fn sockets(address: Option<&str>, workers: Option<usize>) -> Result<Vec<UdpTransport>, Failure> {
    let passed = passed(usize::MAX, &UdpOptions::new())?;
    if passed.is_empty() {
        let address = address.map_or_else(|| DEFAULT.to_string(), str::to_owned);
        return bind(
            &address,
            DEFAULT.port(),
            workers.unwrap_or(1),
            UdpOptions::new(),
        );
    }
    let count = passed.len();
    if let Some(address) = address {
        return Err(Failure::Usage(both(address, count)));
    }
    match workers {
        Some(workers) if workers != count => Err(Failure::Usage(format!(
            "--workers `{workers}`: the service manager has opened {count} socket{}, and each has one \
             worker",
            if count == 1 { "" } else { "s" }
        ))),
        _ => Ok(passed),
    }
}

/// Reads the rules again, and reports how many there were and are. Rules that cannot be used change
/// nothing.
fn start_reload(
    rules: Arc<RulesFile>,
    robot: Transcribed,
    counters: Arc<rules::Counters>,
    watched: Option<PathBuf>,
) -> Result<Reload, Failure> {
    let load = move || {
        let new = rules.load().inspect_err(|_| counters.failed())?;
        let before = counters.replaced(new.rules());
        rules.report(&new, Some(before));
        robot.swap(new);
        Ok(format!("answering by {rules}"))
    };
    Reload::start(load, "answering by the rules of before", watched)
        .map_err(|error| Failure::RunTime(format!("cannot start a thread: {error}")))
}

fn listening_line(addresses: &[SocketAddr], workers: usize) -> String {
    let mut shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    // Workers share an address.
    shown.dedup();
    let with = match workers {
        workers if workers > 1 && shown.len() == 1 => format!(" with {workers} workers"),
        _ => String::new(),
    };
    format!("listening on {}{with}", shown.join(" and "))
}

fn workers(text: &str) -> Result<usize, String> {
    number(text, 1, MAX_WORKERS)
}

fn rules_memory(text: &str) -> Result<usize, String> {
    number(text, 1, MAX_RULES_MIB)
}

fn max_request(text: &str) -> Result<usize, String> {
    number(text, 1, MAX_REQUEST)
}

fn number(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("not a number from {least} to {most}"))
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(time))
        .ok_or("not a number of seconds from 0.1 to 86400")
}

fn rate_limit(answers: u32, exempt: &[Network]) -> Result<RateLimit, Failure> {
    let mut builder = RateLimit::builder()
        .responses_per_second(answers)
        .bytes_per_second(u64::from(answers) * 1_024);
    for network in exempt {
        builder = builder.exempt(network.ip, network.bits);
    }
    builder
        .build()
        .map_err(|error| Failure::Usage(format!("bad limit: {error}")))
}

/// Far more than there are processors. Each takes some megabytes.
const MAX_WORKERS: usize = 1_024;
/// A terabyte.
const MAX_RULES_MIB: usize = 1 << 20;
/// A batch of the longest requests and responses, and a stack.
const WORKER_BYTES: usize = 16 << 20;
/// What fits into a UDP datagram over IPv4 (RFC 768, RFC 791).
const MAX_REQUEST: usize = 65_507;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);
