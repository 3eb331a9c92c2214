//! The handler: a robot that can be replaced while it answers, and prints what the original prints.

use std::fmt;
use std::sync::Arc;

use rejoinder::bot::Robot;
use rejoinder::escape::Escaped;
use rejoinder::handler::Swap;
use rejoinder::{Codec, Context, Handler, Reply, ReplyError};

use crate::program::output::Output;

/// Clones share the robot.
#[derive(Clone, Debug)]
pub struct Transcribed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    robot: Swap<Robot>,
    /// `None` if it is off.
    transcript: Option<Output>,
}

impl Transcribed {
    /// A handler with a robot, and with a transcript if there is an output for it.
    #[must_use]
    pub fn new(robot: Robot, transcript: Option<Output>) -> Self {
        if let Some(transcript) = &transcript {
            transcript.write(WAITING.to_owned());
        }
        Self(Arc::new(Shared {
            robot: Swap::new(robot),
            transcript,
        }))
    }

    /// Lets another robot answer the requests that come from now on.
    pub fn swap(&self, robot: Robot) {
        self.0.robot.replace(robot);
    }

    /// How many requests were too much work for the rules in use.
    pub(crate) fn exhausted(&self) -> u64 {
        self.0.robot.current().exhausted()
    }
}

/// Bare, or with an id around it: the robot knows nothing of that.
impl<C> Handler<C> for Transcribed
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, C>,
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
        if let Some(transcript) = &self.0.transcript {
            transcript.write(format!(
                "{}\n【服务器端】回复: {}\n{WAITING}",
                Escaped(&answer.before_substitution().to_string()),
                Escaped(&answer.to_string()),
            ));
        }
        Ok(())
    }
}

const WAITING: &str = "waiting for message...\n";
