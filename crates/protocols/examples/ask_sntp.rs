//! Asks a time server, with the codec of `sntp`:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example ask_sntp -- 127.0.0.1:12312
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rejoinder::Client;
use rejoinder_protocols::sntp::codec::Sntp;

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).ok_or("usage: ask_sntp HOST:PORT")?;
    let mut client = Client::connect(server, Sntp)?;
    let answer = client.request(())?;
    // Units of 2⁻³² s since 1900; Unix counts from 1970.
    let since_1970 = (answer.transmitted >> 32).saturating_sub(2_208_988_800);
    let theirs = UNIX_EPOCH + Duration::from_secs(since_1970);
    let ours = SystemTime::now();
    let apart = theirs
        .duration_since(ours)
        .unwrap_or_else(|error| error.duration());
    let mut out = io::stdout().lock();
    writeln!(out, "stratum {}", answer.clock.stratum)?;
    writeln!(
        out,
        "{since_1970} seconds since 1970, {} s from the time here",
        apart.as_secs()
    )?;
    Ok(())
}
