//! Asks a STUN server for the address that it sees, with the codec of `stun`:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example ask_stun -- 127.0.0.1:3478
//! ```

use std::error::Error;
use std::io::{self, Write};

use rejoinder::Client;
use rejoinder_protocols::stun::codec::Stun;

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("usage: ask_stun HOST:PORT")?;
    let mut client = Client::connect(server, Stun)?;
    writeln!(io::stdout(), "{}", client.request(())?)?;
    Ok(())
}
