//! 小Zurich grown up: it asks a chat model, and falls back to its rules.
//!
//! ```text
//! cargo run --release --manifest-path crates/ai/Cargo.toml -- --url http://127.0.0.1:11434/v1/chat/completions --model qwen3
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use rejoinder::aio;
use rejoinder::codec::Ctime;
use rejoinder_ai::{Chat, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut listen = "127.0.0.1:8888".to_owned();
    let mut settings = Settings {
        url: env::var("CHAT_URL").ok(),
        model: env::var("CHAT_MODEL").unwrap_or_else(|_| "gpt-4o-mini".to_owned()),
        key: env::var("CHAT_KEY")
            .or_else(|_| env::var("OPENAI_API_KEY"))
            .ok(),
        deadline: Duration::from_secs(4),
        at_once: 8,
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        use lexopt::prelude::*;
        match argument {
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            Long("listen") => listen = arguments.value()?.string()?,
            Long("url") => settings.url = Some(arguments.value()?.string()?),
            Long("model") => settings.model = arguments.value()?.string()?,
            Long("at-once") => settings.at_once = arguments.value()?.parse()?,
            _ => return Err(argument.unexpected().into()),
        }
    }
    if settings.url.is_none() {
        eprintln!("no --url and no CHAT_URL: the rules answer everything");
    }
    // The rules still answer in time where the model does not.
    let server: aio::Server<_, _> = aio::Server::builder(Ctime::local())
        .handler_timeout(settings.deadline + Duration::from_secs(1))
        .max_response_bytes(1_232)
        .bind(&listen)
        .await?;
    println!("serving at {}; Ctrl-C ends it", server.local_addr()?);
    let stats = server
        .serve_until(Chat::new(settings), tokio::signal::ctrl_c())
        .await?;
    println!("{stats}");
    Ok(())
}

const HELP: &str = "\
A UDP bot that asks a chat model, and answers by its rules where that is slow, broken or absent.

  --listen ADDR  the address to serve at (127.0.0.1:8888)
  --url URL      an OpenAI-compatible endpoint for chat completions, or CHAT_URL
  --model NAME   or CHAT_MODEL (gpt-4o-mini)
  --at-once N    how many questions the model is asked at a time (8)

The key of the endpoint is in CHAT_KEY or OPENAI_API_KEY: all users of a machine can read arguments.
The model has 4 seconds.";
