//! Asks a name server, with the codec of `dns`:
//!
//! ```text
//! cargo run -p rejoinder-protocols --example ask_dns -- 127.0.0.1:5300 www.example.org A
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::str::FromStr;

use domain::base::iana::{Class, Rtype};
use domain::base::{Header, Name, ParsedName};
use domain::rdata::AllRecordData;
use rejoinder::Client;
use rejoinder_protocols::dns::codec::{Dns, Query};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, name, rtype] = arguments.as_slice() else {
        return Err("usage: ask_dns HOST:PORT NAME TYPE".into());
    };
    let name: Name<Vec<u8>> = Name::from_str(name)?;
    let mut client = Client::connect(server, Dns)?;
    let message = client.request(Query {
        header: Header::new(),
        name: name.as_slice(),
        rtype: Rtype::from_str(rtype)?,
        class: Class::IN,
        edns: None,
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", message.header().rcode())?;
    for record in message
        .answer()?
        .limit_to::<AllRecordData<_, ParsedName<_>>>()
    {
        writeln!(out, "{}", record?)?;
    }
    Ok(())
}
