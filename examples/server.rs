//! 小Zurich on a UDP socket, with the transcript of the original program:
//!
//! ```text
//! cargo run --example server
//! ```
//! `rejoinder serve` is the same server with options for production.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use lexopt::prelude::*;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::gate::RateLimit;
use rejoinder::{Context, Handler, Reply, ReplyError, Server};
use signal_hook::consts::{SIGINT, SIGTERM};

mod support {
    pub(crate) mod address;
}

use support::address::{DEFAULT, command, reachable, resolve};

const HELP: &str = "\
Usage: server [ADDRESS] [--quiet]

  ADDRESS        where to listen: HOST:PORT, or only one of them. Default: 127.0.0.1:8888
  -q, --quiet    no transcript on standard output
  -h, --help     this text
";
const WAITING: &str = "waiting for message...\n";

fn main() -> ExitCode {
    let Err(error) = run() else {
        return ExitCode::SUCCESS;
    };
    let is_usage = error.is::<lexopt::Error>();
    let advice = if is_usage { "; see --help" } else { "" };
    say(format_args!(
        "error: {}{advice}",
        Escaped(&error.to_string())
    ));
    ExitCode::from(1 + u8::from(is_usage))
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut address, mut quiet) = (None, false);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(io::stdout().write_all(HELP.as_bytes())?),
            Short('q') | Long("quiet") => quiet = true,
            Value(value) if address.is_none() => address = Some(value.string()?),
            _ => return Err(arg.unexpected().into()),
        }
    }

    // The first signal asks for shutdown, the second one ends the program at once.
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&signalled))?;
        signal_hook::flag::register(signal, Arc::clone(&signalled))?;
    }

    let address = address.unwrap_or_else(|| DEFAULT.to_owned());
    let addresses = resolve(&address)?;
    let server = Server::builder(Ctime::local())
        // A sender's address is easily forged, so peers elsewhere get a limited number of answers.
        .gate((!addresses.iter().all(|addr| addr.ip().is_loopback())).then(RateLimit::default))
        .bind(&addresses[..])
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let addr = server.local_addr()?;
    say(format_args!("listening on {addr} (end with Ctrl-C)"));
    let client = command("client", "--server ", reachable(addr));
    say(format_args!("start the client with: {client}"));

    let handle = server.handle();
    thread::spawn(move || {
        while !signalled.load(Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
        handle.shutdown();
    });
    let (transcript, written) = (!quiet).then(start_transcript).unzip();
    let stats = server.serve(Zurich(zurich(), transcript))?;
    // A reader that does not read delays the end by no more than this.
    let _ = written.map(|written| written.recv_timeout(Duration::from_millis(700)));
    say(stats);
    Ok(())
}

/// The robot, and where its transcript goes.
struct Zurich(Robot, Option<SyncSender<String>>);

impl Handler<Ctime> for Zurich {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Ctime>,
    ) -> Result<(), ReplyError> {
        let mut answer = self.0.answer(request);
        reply.send(&answer).or_else(|_| {
            // It is too long for a datagram, as an answer that repeats a long request can be.
            answer = self.0.fallback();
            reply.send(&answer)
        })?;
        if let Some(transcript) = &self.1 {
            let before = answer.before_substitution().to_string();
            let (before, after) = (Escaped(&before), answer.to_string());
            let line = format!("{before}\n【服务器端】回复: {}\n{WAITING}", Escaped(&after));
            // While standard output has no reader, the queue is full and lines are left out.
            let _ = transcript.try_send(line);
        }
        Ok(())
    }
}

/// A queue to a thread that writes, so that a slow reader delays no answer. The receiver is
/// disconnected when all is written.
fn start_transcript() -> (SyncSender<String>, Receiver<()>) {
    let (sender, lines) = mpsc::sync_channel(1_024);
    let (done, written) = mpsc::channel();
    thread::spawn(move || {
        let _done: mpsc::Sender<()> = done;
        let mut all = std::iter::once(WAITING.to_owned()).chain(lines);
        if let Err(error) = all.try_for_each(|text| io::stdout().write_all(text.as_bytes())) {
            say(format_args!(
                "cannot write the transcript, serving without it: {error}"
            ));
        }
    });
    (sender, written)
}

/// Unlike `eprintln!`, it does not panic if standard error is closed.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
