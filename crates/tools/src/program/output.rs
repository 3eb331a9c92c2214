//! Lines for standard output and standard error, from threads that must not wait.
//!
//! Each stream has a queue of bounded size and a thread that empties it. A line that does not fit
//! is left out and counted, so a pipe without a reader costs lines and nothing else. A pipe whose
//! reader has gone (EPIPE) ends the stream. Any other error, such as a full disk (ENOSPC), costs
//! the lines that it meets; the next ones are tried again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::stream::write_all;

/// Which stream an [`Output`] writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn write(self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        match self {
            Self::Stdout => write_all(io::stdout(), bytes),
            Self::Stderr => write_all(io::stderr(), bytes),
        }
    }
}

/// A queue of lines and the thread that writes them. Clones share both.
#[derive(Clone, Debug)]
pub struct Output(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// There is nothing left to write.
    drained: Condvar,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    texts: VecDeque<String>,
    bytes: usize,
    is_writing: bool,
    /// The stream's reader is gone.
    is_closed: bool,
}

impl Output {
    /// Starts the thread of a stream. `report` gets a line when something goes wrong with it.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub fn start(stream: Stream, report: impl Fn(String) + Send + 'static) -> io::Result<Self> {
        Self::with(move |bytes| stream.write(bytes), report, "output")
    }

    /// The same with whatever takes the texts.
    pub(super) fn with(
        write: impl FnMut(&[u8]) -> Result<(), (usize, io::Error)> + Send + 'static,
        report: impl Fn(String) + Send + 'static,
        name: &str,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            left_out: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&queue);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || of_thread.write_forever(write, report))?;
        Ok(Self(queue))
    }

    /// Hands over a text of one or more whole lines, which are written together or left out together.
    /// It never waits for the stream.
    pub fn write(&self, text: String) {
        let mut state = self.0.lock();
        if state.is_closed {
            return;
        }
        if state.bytes + text.len() > MAX_BYTES {
            drop(state);
            self.0.leave_out(lines(text.as_bytes()));
            return;
        }
        state.bytes += text.len();
        state.texts.push_back(text);
        drop(state);
        self.0.filled.notify_one();
    }

    /// How many lines were left out so far.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but no longer than `most`.
    pub fn drain(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut state = self.0.lock();
        while state.is_writing || !state.texts.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.drained.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_out(&self, lines: u64) {
        self.left_out.fetch_add(lines, Ordering::Relaxed);
    }

    fn write_forever(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), (usize, io::Error)>,
        report: impl Fn(String),
    ) {
        let mut is_failing = false;
        let mut is_torn = false;
        loop {
            let text = self.next();
            let bytes = if is_torn { format!("\n{text}") } else { text };
            match write(bytes.as_bytes()) {
                Ok(()) => (is_failing, is_torn) = (false, false),
                Err((_, error)) if error.kind() == ErrorKind::BrokenPipe => {
                    let mut state = self.lock();
                    *state = State {
                        is_closed: true,
                        ..State::default()
                    };
                    drop(state);
                    self.drained.notify_all();
                    report(format!(
                        "cannot write the transcript, serving without it: {error}"
                    ));
                    return;
                }
                Err((written, error)) => {
                    is_torn = match written {
                        0 => is_torn,
                        written => bytes.as_bytes()[written - 1] != b'\n',
                    };
                    self.leave_out(lines(&bytes.as_bytes()[written..]));
                    if !mem::replace(&mut is_failing, true) {
                        report(format!("lines of the transcript are left out: {error}"));
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Waits for the next text.
    fn next(&self) -> String {
        let mut state = self.lock();
        state.is_writing = false;
        loop {
            if let Some(text) = state.texts.pop_front() {
                state.bytes -= text.len();
                state.is_writing = true;
                return text;
            }
            self.drained.notify_all();
            let waited = self.filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How many lines end in a text.
fn lines(text: &[u8]) -> u64 {
    text.split(|byte| *byte == b'\n').count() as u64 - 1
}

/// How much a queue holds: some thousand exchanges of usual length, or the longest one.
const MAX_BYTES: usize = 1 << 20;
/// After an error: a full disk is not asked again for every line.
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::Duration;

    use super::{MAX_BYTES, Output};

    type Written = Result<(), (usize, io::Error)>;

    /// A stream that does with each text what the test says, and the texts that it was given.
    fn stream() -> (Output, Sender<Written>, Receiver<String>, Receiver<String>) {
        let (outcomes, next) = mpsc::channel::<Written>();
        let (given, texts) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        let output = Output::with(
            move |bytes| {
                let _ = given.send(String::from_utf8_lossy(bytes).into_owned());
                next.recv().unwrap_or(Ok(()))
            },
            move |line| drop(report.send(line)),
            "test",
        );
        (output.expect("there is a thread"), outcomes, texts, reports)
    }

    fn full(written: usize) -> Written {
        Err((written, ErrorKind::StorageFull.into()))
    }

    #[test]
    fn lines_that_meet_an_error_are_counted_and_the_next_ones_are_written() {
        let (output, outcomes, texts, reports) = stream();
        let next = |text: &str, outcome| {
            output.write(text.to_owned());
            outcomes.send(outcome).expect("the thread lives");
            texts.recv().expect("the thread lives")
        };
        assert_eq!(next("one\n", Ok(())), "one\n");
        assert_eq!(next("two\nthree\n", full(0)), "two\nthree\n");
        assert_eq!(next("four\n", full(2)), "four\n");
        // The end of a torn line comes first.
        assert_eq!(next("five\n", Ok(())), "\nfive\n");
        assert_eq!(next("six\n", full(0)), "six\n");
        output.drain(Duration::from_secs(60));
        assert_eq!(output.left_out(), 4);
        // Once for each row of errors.
        drop(output);
        assert_eq!(reports.try_iter().count(), 2);
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_stream() {
        let (output, outcomes, texts, reports) = stream();
        output.write("one\n".to_owned());
        outcomes
            .send(Err((0, ErrorKind::BrokenPipe.into())))
            .expect("the thread lives");
        assert!(
            reports
                .recv()
                .expect("it reports")
                .starts_with("cannot write the transcript")
        );
        output.write("two\n".to_owned());
        output.drain(Duration::from_secs(60));
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["one\n"]);
        assert_eq!(output.left_out(), 0);
    }

    #[test]
    fn a_stream_that_takes_nothing_costs_lines_and_bounded_memory() {
        let (output, outcomes, texts, _) = stream();
        let text = "x".repeat(MAX_BYTES / 4 - 1) + "\n";
        output.write("first\n".to_owned());
        assert_eq!(texts.recv().expect("the thread lives"), "first\n");
        for _ in 0..10 {
            output.write(text.clone());
        }
        assert_eq!(output.left_out(), 6);
        // The wait ends at its limit, and no queued line is lost.
        output.drain(Duration::ZERO);
        drop(outcomes);
        output.drain(Duration::from_secs(60));
        assert_eq!(texts.try_iter().filter(|taken| *taken == text).count(), 4);
    }
}
