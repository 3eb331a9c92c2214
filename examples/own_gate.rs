//! A gate decides which datagrams reach the handler: here, those of one network.
//!
//! ```text
//! cargo run --example own_gate
//! ```

use std::net::{IpAddr, SocketAddr};

use rejoinder::codec::Text;
use rejoinder::sim::SimNet;
use rejoinder::transport::Datagram;
use rejoinder::{Client, RequestError, Server};

/// A function from a datagram to a reason is a gate. Drops are counted under that reason.
fn only_from_inside(datagram: &Datagram<'_>) -> Result<(), &'static str> {
    match datagram.meta.peer.ip() {
        IpAddr::V4(ip) if ip.octets().starts_with(&[10, 1]) => Ok(()),
        _ => Err("from outside"),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let net = SimNet::new();
    let server: SocketAddr = "10.1.0.1:7000".parse()?;
    let core = Server::builder(Text)
        .gate(only_from_inside)
        .core(|text: &str| text.to_uppercase());
    net.host(server, core)?;

    let mut inside = Client::new(net.from_host("10.1.0.2".parse()?), Text, server);
    println!("inside:  {}", inside.request("hello")?);

    let mut outside = Client::new(net.from_host("192.0.2.7".parse()?), Text, server);
    match outside.request("hello") {
        Err(RequestError::TimedOut { .. }) => println!("outside: no response"),
        other => println!("outside: {other:?}"),
    }
    Ok(())
}
