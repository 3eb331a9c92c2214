//! A handler that is replaced while the server runs: no request is lost, and each is handled by one
//! robot from its beginning to its end.
//!
//! ```text
//! cargo run --example hot_swap
//! ```

use std::error::Error;
use std::thread;

use rejoinder::bot::Robot;
use rejoinder::codec::Text;
use rejoinder::handler::Swap;
use rejoinder::{Client, Server};

fn robot(greeting: &str) -> Result<Robot, Box<dyn Error>> {
    let template = format!("{greeting}, {{1}}!");
    Ok(Robot::builder().rule("I am (.+)", template).build()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let swap = Swap::new(robot("Hello")?);
    let server = Server::bind("127.0.0.1:0", Text)?;
    let (addr, handle) = (server.local_addr()?, server.handle());
    // Clones are one and the same.
    let serving = swap.clone();
    let serving = thread::spawn(move || server.serve(serving));

    let mut client = Client::connect(addr, Text)?;
    println!("{}", client.request("I am Ming")?);
    // From any thread, at any time.
    swap.replace(robot("Welcome back")?);
    println!("{}", client.request("I am Ming")?);

    handle.shutdown();
    if let Ok(stats) = serving.join() {
        println!("{}", stats?);
    }
    Ok(())
}
