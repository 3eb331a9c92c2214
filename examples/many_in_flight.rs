//! Many requests in flight on one client, and answers in whatever order they come.
//!
//! ```text
//! cargo run --example many_in_flight
//! ```

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rejoinder::codec::{Tagged, Text};
use rejoinder::{Client, Server, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0", Tagged(Text))?;
    let (addr, handle) = (server.local_addr()?, server.handle());
    let serving = thread::spawn(move || server.serve(|text: &str| text.to_uppercase()));

    let mut client = Client::builder(Tagged(Text))
        .window(256)
        .timeout(Duration::from_secs(2))
        .connect(addr)?;
    let begun = Instant::now();
    let mut questions = HashMap::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < 100_000 {
        // Fill the window, then take what has arrived.
        while client.in_flight() < 256 && asked < 100_000 {
            let question = format!("question {asked}");
            questions.insert(client.submit(&question)?, question);
            asked += 1;
        }
        let mut wait = Wait::Forever;
        while let Some((ticket, answer)) = client.collect(wait) {
            let question = questions.remove(&ticket).unwrap_or_default();
            assert_eq!(answer?, question.to_uppercase());
            answered += 1;
            wait = Wait::No;
        }
    }
    println!("{answered} answers in {:.2?}", begun.elapsed());

    handle.shutdown();
    if let Ok(stats) = serving.join() {
        println!("{}", stats?);
    }
    Ok(())
}
