//! A whole server: `cargo run --example hello_server`, and `cargo run --example hello_client` asks it.

use rejoinder::{Server, codec::Text};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:9999", Text)?;
    let stats = server.serve(|name: &str| format!("Hello, {name}!"))?;
    println!("{stats}");
    Ok(())
}
