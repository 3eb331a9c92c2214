//! The handler: a robot that can be changed for another while it answers, and prints what the
//! original prints.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rejoinder::bot::Robot;
use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::handler::Swap;
use rejoinder::{Context, Handler, Reply, ReplyError};

use crate::program::complain;

/// Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Transcribed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    robot: Swap<Robot>,
    /// `None` if nobody wants it, or nobody reads it any more.
    transcript: Option<Mutex<Option<io::Stdout>>>,
}

impl Transcribed {
    /// A handler with a robot, and with a transcript if it is wanted.
    #[must_use]
    pub fn new(robot: Robot, wanted: bool) -> Self {
        let transcribed = Self(Arc::new(Shared {
            robot: Swap::new(robot),
            transcript: wanted.then(|| Mutex::new(Some(io::stdout()))),
        }));
        transcribed.print(WAITING);
        transcribed
    }

    /// Lets another robot answer the requests that come from now on.
    pub fn swap(&self, robot: Robot) {
        self.0.robot.replace(robot);
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
        let robot = self.0.robot.current();
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
            self.print(&lines);
        }
        Ok(())
    }
}

const WAITING: &str = "waiting for message...\n";
