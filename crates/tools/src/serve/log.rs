//! `--log`: what the library logs, through the queue of standard error.

use std::io::{self, Write};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::program::output::Output;
use crate::program::{Failure, status_is_json};

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// An object for each line, the program's own lines included
    Json,
}

/// Starts to log.
pub(crate) fn start(format: Format, status: Output) -> Result<(), Failure> {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_ansi(false)
        .with_writer(Queued(status));
    let started = match format {
        Format::Text => tracing::subscriber::set_global_default(subscriber.finish()),
        Format::Json => {
            status_is_json();
            tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
        }
    };
    started.map_err(|error| Failure::RunTime(format!("--log: {error}")))
}

/// Makes a whole event one text of the queue.
struct Queued(Output);

impl<'a> MakeWriter<'a> for Queued {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(&self.0, Vec::new())
    }
}

struct Event<'a>(&'a Output, Vec<u8>);

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if !self.1.is_empty() {
            self.0.write(String::from_utf8_lossy(&self.1).into_owned());
        }
    }
}
