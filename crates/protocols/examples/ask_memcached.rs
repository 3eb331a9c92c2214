//! Asks memcached for the value of a key, or stores one, with the codec of `memcached`:
//!
//! ```text
//! memcached -U 11211 -l 127.0.0.1
//! cargo run -p rejoinder-protocols --example ask_memcached -- 127.0.0.1:11211 set greeting hello
//! cargo run -p rejoinder-protocols --example ask_memcached -- 127.0.0.1:11211 get greeting
//! ```
//!
//! A terminal gets a line without control characters; a file or a pipe gets the bytes of the value.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use rejoinder::Client;
use rejoinder::escape::Escaped;
use rejoinder_protocols::memcached::codec::{Memcached, Request, Response};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (server, request) = match *arguments {
        [server, "get", key] => (
            server,
            Request::Get {
                key: key.as_bytes(),
            },
        ),
        [server, "set", key, value] => {
            let (key, data) = (key.as_bytes(), value.as_bytes());
            let (flags, expires) = (0, 0);
            (
                server,
                Request::Set {
                    key,
                    flags,
                    expires,
                    data,
                },
            )
        }
        _ => return Err("usage: ask_memcached HOST:PORT get KEY, or set KEY VALUE".into()),
    };
    let mut client = Client::connect(server, Memcached)?;
    let mut out = io::stdout().lock();
    match client.request(request)? {
        Response::Value { data, .. } if out.is_terminal() => {
            writeln!(out, "{}", Escaped(&String::from_utf8_lossy(data)))?;
        }
        Response::Value { data, .. } => out.write_all(data)?,
        Response::NotFound => return Err("the key has no value".into()),
        Response::Stored => writeln!(out, "stored")?,
    }
    Ok(())
}
