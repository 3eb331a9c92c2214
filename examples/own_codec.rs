//! A protocol of your own: the codec parses the bytes, so the handler sees none.
//!
//! ```text
//! cargo run --example own_codec
//! ```
//!
//! A request is a question mark, one byte that the response repeats, and two numbers of 32 bits. The
//! response is an exclamation mark, that byte, and their sum.

use std::net::SocketAddr;

use rejoinder::sans_io::ServerCore;
use rejoinder::sim::SimNet;
use rejoinder::{Client, Codec, Correlation, Timestamp, Writer};

#[derive(Clone, Copy)]
struct Sum;

#[derive(Debug)]
struct NotSum;

impl std::fmt::Display for NotSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a datagram of the sum protocol")
    }
}

impl std::error::Error for NotSum {}

impl Codec for Sum {
    type Request<'a> = (u32, u32);
    type Answer<'a> = u64;
    type Response<'a> = u64;
    type Error = NotSum;

    /// The whole datagram must be a request: what is only a part of one is malformed.
    fn decode_request(&self, datagram: &[u8]) -> Result<(u32, u32), NotSum> {
        let &[b'?', _, a0, a1, a2, a3, b0, b1, b2, b3] = datagram else {
            return Err(NotSum);
        };
        let first = u32::from_be_bytes([a0, a1, a2, a3]);
        Ok((first, u32::from_be_bytes([b0, b1, b2, b3])))
    }

    /// The request's bytes are at hand, for what the response must repeat.
    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        sum: u64,
        out: &mut Writer<'_>,
    ) -> Result<(), NotSum> {
        out.put(&[b'!', request[1]]);
        out.put(&sum.to_be_bytes());
        Ok(())
    }

    /// The client chooses the id, from as many bits as `correlation` says.
    fn encode_request(
        &self,
        id: u64,
        (first, second): (u32, u32),
        out: &mut Writer<'_>,
    ) -> Result<(), NotSum> {
        out.put(&[b'?', id.to_be_bytes()[7]]);
        out.put(&first.to_be_bytes());
        out.put(&second.to_be_bytes());
        Ok(())
    }

    fn decode_response(&self, datagram: &[u8]) -> Result<u64, NotSum> {
        match datagram {
            [b'!', _, sum @ ..] => sum.try_into().map(u64::from_be_bytes).map_err(|_| NotSum),
            _ => Err(NotSum),
        }
    }

    /// What a server never answers, so that two servers cannot keep each other busy.
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first() == Some(&b'!')
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 8 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        response.get(1).map(|&id| id.into())
    }
}

/// A handler's answer; its `IntoReply` sends it.
struct Total(u64);

impl rejoinder::IntoReply<Sum> for Total {
    fn reply(self, reply: &mut rejoinder::Reply<'_, Sum>) -> Result<(), rejoinder::ReplyError> {
        reply.send(self.0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let net = SimNet::new();
    let server: SocketAddr = "10.0.0.1:7000".parse()?;
    let add = |(first, second): (u32, u32)| Total(u64::from(first) + u64::from(second));
    net.host(server, ServerCore::new(Sum, add))?;

    let mut client = Client::new(net, Sum, server);
    println!("4294967295 + 1 = {}", client.request((u32::MAX, 1))?);
    Ok(())
}
