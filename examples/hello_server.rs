//! A whole server: `cargo run --example hello_server`, and `cargo run --example hello_client` asks it.
//!
//! `serve` returns after `ServerHandle::shutdown`, called from another thread. Ctrl-C ends the process without
//! that, and so without the counters.

use rejoinder::{Server, codec::Text};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:9999", Text)?;
    let stats = server.serve(|name: &str| format!("Hello, {name}!"))?;
    println!("{stats}");
    Ok(())
}
