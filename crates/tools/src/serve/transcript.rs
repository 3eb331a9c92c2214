//! The handler: a robot that can be changed for another while it answers, and prints what the
//! original prints.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rejoinder::bot::Robot;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::{Context, Handler, Reply, ReplyError};

use crate::program::complain;

/// Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Transcribed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Locked for reading while one request is answered, which thus meets one robot from its
    /// beginning to its end.
    robot: RwLock<Robot>,
    /// `None` if nobody wants it, or nobody reads it any more.
    transcript: Option<Mutex<Option<io::Stdout>>>,
}

impl Transcribed {
    /// A handler with a robot, and with a transcript if it is wanted.
    #[must_use]
    pub fn new(robot: Robot, wanted: bool) -> Self {
        let transcribed = Self(Arc::new(Shared {
            robot: RwLock::new(robot),
            transcript: wanted.then(|| Mutex::new(Some(io::stdout()))),
        }));
        transcribed.print(WAITING);
        transcribed
    }

    /// Lets another robot answer from now on. It waits for the requests that are being answered,
    /// and no longer than that: what the old one takes to be put away is not waited for by anybody
    /// else.
    pub fn swap(&self, robot: Robot) {
        let mut current = self.0.robot.write().unwrap_or_else(PoisonError::into_inner);
        let old = mem::replace(&mut *current, robot);
        drop(current);
        drop(old);
    }

    /// Nothing that happens to the transcript keeps an answer from leaving.
    fn print(&self, lines: &str) {
        let Some(transcript) = &self.0.transcript else {
            return;
        };
        let mut transcript = transcript.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stdout) = &mut *transcript
            && let Err(error) = stdout.write_all(lines.as_bytes())
        {
            *transcript = None;
            complain(format_args!(
                "the transcript ends here, the server does not: {error}"
            ));
        }
    }
}

impl Handler<Ctime> for Transcribed {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Ctime>,
    ) -> Result<(), ReplyError> {
        let robot = self.0.robot.read().unwrap_or_else(PoisonError::into_inner);
        let mut answer = robot.answer(request);
        match reply.send(&answer) {
            Err(ReplyError::TooLong(_)) => {
                answer = robot.fallback();
                reply.send(&answer)?;
            }
            result => result?,
        }
        if self.0.transcript.is_some() {
            let lines = format!(
                "{}\n【服务器端】回复: {}\n{WAITING}",
                Escaped(&answer.before_substitution().to_string()),
                Escaped(&answer.to_string()),
            );
            // Whoever reads the transcript may take his time, and must not hold up a swap.
            drop(robot);
            self.print(&lines);
        }
        Ok(())
    }
}

const WAITING: &str = "waiting for message...\n";
