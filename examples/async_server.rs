//! An async server: handlers that wait, shared state, and a graceful shutdown.
//!
//! ```text
//! cargo run --features tokio --example async_server
//! ```
//!
//! It asks itself a few questions, and ends at Ctrl-C. Ask it more: `nc -u 127.0.0.1 9999`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rejoinder::aio;
use rejoinder::codec::Text;
use tokio::time::sleep;

/// What all requests share: a database that takes its time.
#[derive(Default)]
struct Db {
    entries: Mutex<HashMap<String, String>>,
}

impl Db {
    async fn get(&self, key: &str) -> Option<String> {
        sleep(Duration::from_millis(20)).await;
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).cloned()
    }

    async fn set(&self, key: &str, value: &str) {
        sleep(Duration::from_millis(20)).await;
        // The lock is not held across an await.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(key.to_owned(), value.to_owned());
    }
}

/// `key = value` sets, and `key` asks. An unknown key gets no response.
async fn answer(db: &Db, line: &str) -> Option<String> {
    match line.trim().split_once(" = ") {
        Some((key, value)) => {
            db.set(key, value).await;
            Some(format!("{key} is {value} now"))
        }
        None => db.get(line.trim()).await,
    }
}

async fn ask(
    client: &aio::Client<rejoinder::udp::UdpConnector, Text>,
) -> Result<(), Box<dyn Error>> {
    println!("{}", client.request("answer = 42").await?.get());
    // Both wait at the same time.
    let (one, other) = tokio::join!(client.request("answer"), client.request("pi = 3.14"));
    println!("answer: {}\n{}", one?.get(), other?.get());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = aio::Server::builder(Text)
        .max_in_flight(1_000)
        .handler_timeout(Duration::from_secs(2))
        .grace(Duration::from_secs(1))
        .bind("127.0.0.1:9999")
        .await?;
    let addr = server.local_addr()?;
    println!("serving at {addr}; Ctrl-C ends it");

    let db = Arc::new(Db::default());
    let handler = async move |line: &str| answer(&db, line).await;
    // At Ctrl-C, what is in flight is answered, for a second at most.
    let serving = tokio::spawn(server.serve_until(handler, tokio::signal::ctrl_c()));
    ask(&aio::Client::connect(addr, Text).await?).await?;
    println!("{}", serving.await??);
    Ok(())
}
