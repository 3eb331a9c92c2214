//! A whole client, for `hello_server`: `cargo run --example hello_client`.

use rejoinder::{Client, codec::Text};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::connect("127.0.0.1:9999", Text)?;
    println!("{}", client.request("世界")?);
    Ok(())
}
