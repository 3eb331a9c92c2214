//! Asks a server of the ctime protocol as much as it can bear, or as often as one wants:
//!
//! ```text
//! rejoinder serve --quiet
//! rejoinder load
//! ```

mod answers;
mod askers;
mod html;
mod numbers;
mod options;
mod plot;
mod progress;
mod run;
mod summary;

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chrono::Local;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::transport::Connect;
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, Codec, RequestError, Wait};
use signal_hook::consts::{SIGINT, SIGTERM};
use terminal_size::{Width, terminal_size_of};

use self::answers::{Judge, Message};
use self::askers::{Peers, Sockets};
use self::numbers::{Numbered, Numbers, PLACEHOLDER, number_in};
pub(crate) use self::options::Arguments;
use self::options::Options;
use self::plot::{Curve, float};
use self::progress::Progress;
use self::summary::{Summary, grouped};
use crate::program::address::{Address, DEFAULT, command, reachable, why_unanswered};
use crate::program::lookup::{PATIENCE, resolve_within};
use crate::program::{CLIENT_BYTES, Failure, chain, complain, has_memory, print, say};

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let options = Options::new(arguments)?;
    let target = Address::parse(&options.target, DEFAULT.port())?;
    let targets: Vec<SocketAddr> = resolve_within(&target, PATIENCE)?
        .into_iter()
        .map(reachable)
        .collect();
    if let Some(target) = targets.iter().find(|target| target.port() == 0) {
        return Err(Failure::Usage(format!("no server can be at {target}")));
    }
    let is_local = |target: &SocketAddr| target.ip().to_canonical().is_loopback();
    if !options.allow_remote && !targets.iter().all(is_local) {
        return Err(Failure::Usage(format!(
            "`{}` is not this machine: --allow-remote if it is yours to load",
            options.target
        )));
    }
    has_memory(CLIENT_BYTES, "a client")?;
    // A file that cannot be written is an error before the run, not after it.
    let create = |option: &str, path: &Option<PathBuf>| match path {
        None => Ok(None),
        Some(path) => File::create(path)
            .map(Some)
            .map_err(|error| Failure::Usage(format!("{option} {}: {error}", path.display()))),
    };
    let svg = create("--svg", &options.svg)?;
    let html = create("--html", &options.html)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first asks for the end, the second is the end.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let numbers = Numbers::new(match options.seed {
        Some(seed) => seed,
        None => random()?,
    });

    let mut messages = options.messages.clone();
    let (target, repeated) = probe(&targets, &mut messages, options.any_answer, &numbers)?;
    let (peers, in_flight) = (options.peers, options.in_flight());
    let mut judge = Judge::new(messages);
    let mut progress = Progress::new(options.plan);
    let failed = |error: RequestError| Failure::RunTime(chain(&error));
    let tally = if repeated {
        let mut asker = Peers::new(target, peers, in_flight, options.timeout, &numbers)
            .map_err(|error| Failure::RunTime(format!("--peers {peers}: {error}")))?;
        run::run(&mut asker, options.plan, &mut judge, &mut progress, &stop).map_err(failed)?
    } else {
        let most = match options.in_flight {
            Some(in_flight) => peers * in_flight,
            None => (peers * in_flight).min(SOCKETS),
        };
        let mut asker = Sockets::new(target, most, options.timeout, &numbers)?;
        run::run(&mut asker, options.plan, &mut judge, &mut progress, &stop).map_err(failed)?
    };
    drop(progress);

    let summary = Summary {
        target,
        plan: options.plan,
        peers,
        in_flight,
        own_sockets: !repeated,
        tally: &tally,
    };
    write_files(&summary, svg, html)?;
    let text = if options.json {
        summary.json()
    } else {
        as_text(&summary)
    };
    match print(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    if let Some(complaint) = judge.complaint() {
        say(format_args!("the first wrong answer: {complaint}"));
    }
    if let Some(error) = &tally.error {
        say(format_args!("the first error: {}", Escaped(&chain(error))));
    }
    let missed = summary.missed(options.thresholds);
    for line in &missed {
        complain(line);
    }
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}

/// The plot and the page.
fn write_files(
    summary: &Summary<'_>,
    svg: Option<File>,
    html: Option<File>,
) -> Result<(), Failure> {
    let tally = summary.tally;
    let failed = |option, error| Failure::RunTime(format!("{option}: {error}"));
    if let (Some(mut file), Some(curve)) = (svg, Curve::new(&tally.latency)) {
        let title = format!("{}: {}", summary.target, summary.load());
        let subtitle = format!(
            "{} answers a second; sent {}, wrong {}, lost {}",
            grouped(summary.responses_per_second()),
            grouped(float(tally.sent)),
            grouped(float(tally.wrong)),
            grouped(float(tally.lost))
        );
        file.write_all(curve.svg(&title, &subtitle).as_bytes())
            .map_err(|error| failed("--svg", error))?;
    }
    if let Some(mut file) = html {
        let time = Local::now().format("%Y-%m-%d %H:%M:%S %:z").to_string();
        file.write_all(html::page(summary, &time).as_bytes())
            .map_err(|error| failed("--html", error))?;
    }
    Ok(())
}

/// Lines and a plot, as wide as the terminal.
fn as_text(summary: &Summary<'_>) -> String {
    let columns = terminal_size_of(io::stdout()).map_or(80, |(Width(width), _)| width.into());
    let plot = Curve::new(&summary.tally.latency).map(|curve| format!("\n{}", curve.text(columns)));
    format!(
        "{}, {:.1} s\n{}\n\n{summary}{}",
        summary.target,
        summary.tally.time.as_secs_f64(),
        summary.load(),
        plot.unwrap_or_default()
    )
}

/// Asks each message once: whether the server answers, what, and whether the answers repeat the
/// numbers.
fn probe(
    targets: &[SocketAddr],
    messages: &mut [Message],
    any_answer: bool,
    numbers: &Numbers,
) -> Result<(SocketAddr, bool), Failure> {
    let mut result = Err(Failure::Usage("the name has no address".into()));
    for &target in targets {
        result =
            probe_one(target, messages, any_answer, numbers).map(|repeated| (target, repeated));
        if result.is_ok() {
            break;
        }
    }
    result
}

fn probe_one(
    target: SocketAddr,
    messages: &mut [Message],
    any_answer: bool,
    numbers: &Numbers,
) -> Result<bool, Failure> {
    let mut client = Client::builder(Numbered::new(false, numbers.fork()))
        .fail_when_unreachable(true)
        .timeout(PROBE)
        .window(PROBES)
        .connect(target)
        .map_err(io::Error::from)?;
    let mut asked = vec![0; PROBES];
    let mut next = 0;
    let mut repeated = true;
    loop {
        while next < messages.len() && client.in_flight() < PROBES {
            match client.submit(&messages[next].text) {
                Ok(ticket) => asked[ticket.slot()] = next,
                // Sockets must rest first.
                Err(RequestError::WindowFull { .. }) if client.in_flight() > 0 => break,
                Err(error) => return Err(unanswered(&messages[next], &error)),
            }
            next += 1;
        }
        let Some((ticket, answer)) = client.collect(Wait::Forever) else {
            return Ok(repeated);
        };
        let message = &mut messages[asked[ticket.slot()]];
        let answer = answer.map_err(|error| unanswered(message, &error))?;
        let frame = Ctime::utc().decode_response(answer).map_err(|error| {
            Failure::RunTime(format!(
                "{target} does not speak the ctime protocol: {error}"
            ))
        })?;
        repeated &=
            message.text.contains(PLACEHOLDER) && number_in(frame.text.as_bytes()).is_some();
        if !any_answer {
            message.learn(frame.text);
        }
    }
}

fn unanswered(message: &Message, error: &RequestError) -> Failure {
    Failure::RunTime(match error {
        RequestError::NobodyListening { peer } if peer.ip().is_loopback() => {
            let server = command("serve", "", *peer);
            format!("{error}; start the server with: {server}")
        }
        _ => format!("`{}`: {}", message.text, why_unanswered(error)),
    })
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    UdpConnector::default().entropy(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// How long the first answers may take.
const PROBE: Duration = Duration::from_secs(5);
/// How many first answers are waited for at a time.
const PROBES: usize = 64;
/// How many requests with a socket each are in flight, unless more are asked for: a process may
/// usually have 1,024.
const SOCKETS: usize = 256;
