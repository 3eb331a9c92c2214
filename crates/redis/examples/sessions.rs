//! A bot that remembers what each client said, also when the client comes to another node.
//!
//! ```text
//! redis-server --port 6379 --save '' &
//! cargo run --example sessions -- 127.0.0.1:8889 redis://127.0.0.1/ &
//! cargo run --example sessions -- 127.0.0.1:8890 redis://127.0.0.1/ &
//! printf '?00000001ada my name is Ada' | nc -u -w 1 127.0.0.1 8889
//! printf '?00000002ada what did I say?' | nc -u -w 1 127.0.0.1 8890
//! ```
//!
//! A request is `?`, eight bytes of id, a token, a space and a text. The token stands for what a client
//! proves its name with.
//!
//! A URL with a password belongs into the variable `REDIS_URL`: all users of a machine can read arguments.

use std::env;
use std::error::Error;
use std::time::Duration;

use rejoinder::aio::store::{SharedDedup, SharedSessions, WhenDown};
use rejoinder::aio::{self, AsyncHandler};
use rejoinder::codec::{Tagged, Text};
use rejoinder_redis::RedisStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let listen = arguments.next().unwrap_or("127.0.0.1:8889".to_owned());
    let url = arguments.next().or_else(|| env::var("REDIS_URL").ok());
    let url = url.unwrap_or("redis://127.0.0.1/".to_owned());
    let store = RedisStore::builder(&url).prefix("sessions:").connect()?;
    let server = aio::Server::bind(&listen, Tagged(Text)).await?;
    println!("serving at {}; Ctrl-C ends it", server.local_addr()?);
    let stats = server
        .serve_until(bot(store), tokio::signal::ctrl_c())
        .await?;
    println!("{stats}");
    Ok(())
}

/// Remembers the latest text of each token for ten minutes.
fn bot(store: RedisStore) -> impl AsyncHandler<Tagged<Text>> {
    let sessions = SharedSessions::new(store.clone())
        .lifetime(Duration::from_secs(600))
        .max_session_bytes(256);
    let handler = async move |request: &str| {
        let (token, text) = request.split_once(' ')?;
        let before = sessions.with(token.as_bytes(), |session| {
            let before = String::from_utf8_lossy(session).into_owned();
            *session = text.chars().take(60).collect::<String>().into();
            before
        });
        Some(match before.await {
            Ok(before) if before.is_empty() => "We have not met.".to_owned(),
            Ok(before) => format!("You said: {before}"),
            Err(error) => {
                eprintln!("no session: {error}");
                "My memory is away. Ask me again later.".to_owned()
            }
        })
    };
    // Outside, so that a copy of a request does not change the session again.
    SharedDedup::new(handler, |request: &&str| Some((*request).to_owned()), store)
        .lifetime(Duration::from_secs(60))
        .when_down(WhenDown::Answer)
}
