//! A handler that asks a chat model, and falls back to the rules of 小Zurich.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rejoinder::aio::AsyncHandler;
use rejoinder::bot::{Robot, zurich};
use rejoinder::{Codec, Context};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use ureq::Agent;

/// Asks an OpenAI-compatible endpoint for chat completions.
pub struct Chat {
    agent: Agent,
    settings: Arc<Settings>,
    permits: Arc<Semaphore>,
    robot: Robot,
}

/// Which model to ask, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The whole address of the endpoint, as `https://api.openai.com/v1/chat/completions`. Without one,
    /// the rules answer everything.
    pub url: Option<String>,
    /// The name of the model.
    pub model: String,
    /// What is sent as the bearer token, if anything is.
    pub key: Option<String>,
    /// How long the model may take.
    pub deadline: Duration,
    /// How many questions the model is asked at a time; the rules answer further ones.
    pub at_once: usize,
}

impl Chat {
    /// A handler with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let config = Agent::config_builder().timeout_global(Some(settings.deadline));
        Self {
            agent: config.build().into(),
            permits: Arc::new(Semaphore::new(settings.at_once)),
            settings: Arc::new(settings),
            robot: zurich(),
        }
    }

    async fn answer(&self, question: &str) -> String {
        match self.ask_model(question).await {
            Some(answer) => answer,
            None => self.robot.answer(question).to_string(),
        }
    }

    /// `None` if the model has no answer in time, for whatever reason.
    async fn ask_model(&self, question: &str) -> Option<String> {
        self.settings.url.as_ref()?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (agent, settings) = (self.agent.clone(), Arc::clone(&self.settings));
        let question = question.to_owned();
        // The HTTP client blocks, so it must not run in the worker's task. It gives up at the deadline
        // too, and only then is its permit free.
        let asking = spawn_blocking(move || {
            let _permit = permit;
            complete(&agent, &settings, &question)
        });
        match timeout(self.settings.deadline, asking).await {
            Ok(Ok(Ok(answer))) => Some(answer),
            _ => None,
        }
    }
}

impl<C> AsyncHandler<C> for Chat
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    type Reply = String;

    async fn handle<'a>(&'a self, question: &'a str, _: &'a Context) -> String {
        self.answer(question).await
    }
}

fn complete(
    agent: &Agent,
    settings: &Settings,
    question: &str,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let url = settings.url.as_ref().ok_or("no address of an endpoint is set")?;
    let mut request = agent.post(url);
    if let Some(key) = &settings.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = json!({
        "model": settings.model,
        "messages": [
            { "role": "system", "content": INSTRUCTIONS },
            { "role": "user", "content": question },
        ],
    });
    let mut response = request.send_json(body)?;
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES);
    let body: Value = body.read_json()?;
    let answer = body["choices"][0]["message"]["content"].as_str();
    let answer = answer.ok_or("the response has no text at `choices[0].message.content`")?.trim();
    if answer.is_empty() {
        return Err("the answer is empty".into());
    }
    let end = answer.floor_char_boundary_at(MAX_ANSWER_BYTES);
    Ok(answer[..end].to_owned())
}

/// `str::floor_char_boundary`, which Rust 1.88 does not have yet.
trait FloorCharBoundary {
    fn floor_char_boundary_at(&self, bytes: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, bytes: usize) -> usize {
        let last = bytes.min(self.len());
        (0..=last)
            .rev()
            .find(|&at| self.is_char_boundary(at))
            .unwrap_or(0)
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is no one's business.
        f.debug_struct("Chat")
            .field("model", &self.settings.model)
            .finish_non_exhaustive()
    }
}

const INSTRUCTIONS: &str = "You are 小Zurich, a cheerful robot. Answer in the language of the question, \
                            in one short sentence.";
/// With the header of the protocol, it fits into every packet (RFC 8200 §5).
const MAX_ANSWER_BYTES: usize = 1_000;
const MAX_BODY_BYTES: u64 = 65_536;
