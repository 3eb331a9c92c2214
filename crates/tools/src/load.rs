//! Asks a server of the ctime protocol as much as it can bear, or as often as one wants:
//!
//! ```text
//! rejoinder serve --quiet
//! rejoinder load
//! ```

mod answers;
mod askers;
mod numbers;
mod options;
mod plot;
mod progress;
mod run;
mod summary;

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::program::{Failure, chain, command, complain, print, reachable, resolve, say};
use answers::{Judge, Message};
use askers::{Peers, Sockets};
use numbers::{Numbered, Numbers, PLACEHOLDER, number_in};
use options::Options;
use plot::{Curve, float};
use progress::Progress;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::transport::Connect;
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, Codec, RequestError, Wait};
use signal_hook::consts::{SIGINT, SIGTERM};
use summary::{Summary, grouped};
use terminal_size::{Width, terminal_size_of};

const HELP: &str = "\
Asks a server of the ctime protocol as much as it can bear, or at a rate, checks every answer, and
tells how long they took.

Usage: rejoinder load [TARGET] [OPTION]...

Arguments:
  TARGET    whom to ask: HOST:PORT, or only one of them. Default: 127.0.0.1:8888

How much:
  -d, --duration TIME      how long to measure: 10 or 10s, 250ms, 2m. Default: 10s
  -w, --warmup TIME        for how long to ask before that, without measuring. Default: 1s
  -p, --peers NUMBER       how many sockets to ask from. Default: 16
  -n, --in-flight NUMBER   how many requests each of them has in flight at most. Default: 32;
                           with --rate, 16384 by all together
  -r, --rate NUMBER        how many requests to send per second, in all and evenly. Default: a
                           closed loop, in which every answer is followed by another request
  -t, --timeout TIME       after how long a request is lost. None is sent again. Default: 1s
      --allow-remote       lets TARGET be another machine

What:
  -m, --message TEXT       what to ask; several take turns. Default: 你{n}吗？
      --messages FILE      a message in each line; after a tab, the answer expected
  -e, --expect TEXT        the text of the right answer, without the frame's time
      --any-answer         every frame is right
      --seed NUMBER        of the numbers; the same one asks the same. Default: a random one

What for:
      --max-p99 TIME       exit code 1 if more than 1 % of the right answers took longer
      --max-loss PERCENT   exit code 1 if more of the requests were lost
      --json               the numbers as a JSON object in one line, instead of lines and a plot
      --svg FILE           writes a plot of the latency by percentile
  -h, --help               this text

{n} in a message is replaced by a number in 12 letters, another one each time; the answer tells by
it whose it is. Where an answer does not repeat it, each request gets a socket of its own, as
nothing else tells late answers from others. That is slower.

A right answer is the one expected. Unless that is said, it is the first one to the same message.

What a peer has in flight may travel in one piece, where the system segments datagrams (Linux), and
is then cheap on both sides. Many clients with a question each are --peers 128 --in-flight 1.

In a closed loop, a server that pauses is asked less, and so the times hide what others would have
waited. With --rate, time counts from when a request was due, even if it left late (what Gil Tene
calls coordinated omission is thus avoided).

Another machine must be allowed, so that a slip of the finger floods no stranger.

The exit code is 0 if all went well; 1 if a threshold was missed, an answer was wrong, none came, or
the rate was not held; 2 for bad arguments. Ctrl-C ends a run early, and tells the numbers so far.
";

pub(crate) fn run(args: lexopt::Parser) -> Result<ExitCode, Failure> {
    let Some(options) = Options::parse(args)? else {
        return Ok(crate::program::help(HELP));
    };
    let targets: Vec<SocketAddr> = resolve(&options.target)?
        .into_iter()
        .map(reachable)
        .collect();
    if let Some(target) = targets.iter().find(|target| target.port() == 0) {
        return Err(Failure::Usage(format!("nobody can be asked at {target}")));
    }
    let is_local = |target: &SocketAddr| target.ip().to_canonical().is_loopback();
    if !options.allow_remote && !targets.iter().all(is_local) {
        return Err(Failure::Usage(format!(
            "`{}` is not this machine: --allow-remote if it is yours to load",
            options.target
        )));
    }
    // Whoever cannot write a plot had better know before than after.
    let svg = match &options.svg {
        Some(path) => Some(
            File::create(path)
                .map_err(|error| Failure::Usage(format!("--svg {}: {error}", path.display())))?,
        ),
        None => None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first asks for the end, the second is the end.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
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
    let curve = Curve::new(&tally.latency);
    if let (Some(mut file), Some(curve)) = (svg, &curve) {
        let title = format!("{target}: {}", summary.load());
        let subtitle = format!(
            "{} answers a second; sent {}, wrong {}, lost {}",
            grouped(summary.answers_per_second()),
            grouped(float(tally.sent)),
            grouped(float(tally.wrong)),
            grouped(float(tally.lost))
        );
        file.write_all(curve.svg(&title, &subtitle).as_bytes())
            .map_err(|error| Failure::RunTime(format!("--svg: {error}")))?;
    }
    let text = if options.json {
        summary.json()
    } else {
        let columns = terminal_size_of(io::stdout()).map_or(80, |(Width(width), _)| width.into());
        let plot = curve.map(|curve| format!("\n{}", curve.text(columns)));
        format!(
            "{target}, {:.1} s\n{}\n\n{summary}{}",
            tally.time.as_secs_f64(),
            summary.load(),
            plot.unwrap_or_default()
        )
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

/// Asks each message once, at leisure: whether anybody answers, what, and whether the answers repeat
/// the numbers.
fn probe(
    targets: &[SocketAddr],
    messages: &mut [Message],
    any_answer: bool,
    numbers: &Numbers,
) -> Result<(SocketAddr, bool), Failure> {
    let mut result = Err(Failure::Usage("no address to ask".into()));
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
        _ => format!("`{}`: {}", message.text, chain(error)),
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
