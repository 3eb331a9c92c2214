//! Every fate of the first datagrams of four overlapping exchanges: shared by the short run among the
//! tests and the whole one among the benchmarks.

use std::collections::HashMap;
use std::time::Duration;

use rejoinder::codec::{ResponseKind, Tagged, Text, TextError};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Fault, Link, Script, SimNet};
use rejoinder::transport::LocalPort;
use rejoinder::{
    Client, ClientBuilder, Codec, Correlation, IntoReply, Reply, ReplyError, RequestError, Retry,
    Timestamp, Wait, Writer,
};

/// How requests are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By ids.
    Ids,
    /// By their sockets.
    Sockets,
    /// By ids of two bits on sockets that are replaced: as ids run out, and for each retransmission.
    Renewed,
    /// By ids, and each response has two datagrams.
    Parts,
}

/// All of them.
pub const KINDS: [Kind; 4] = [Kind::Ids, Kind::Sockets, Kind::Renewed, Kind::Parts];

/// How many scripts there are for so many datagrams.
pub const fn scripts(datagrams: u32) -> u64 {
    FATES.pow(datagrams)
}

/// A datagram arrives whole, or it is lost, or it arrives twice, or later than it is sent again, or
/// twice and later than it is sent for the third time.
const FATES: u64 = 5;

/// The script with this number.
pub fn script(number: u64, datagrams: u32) -> Script {
    let mut faults = Vec::new();
    let mut number = number;
    for datagram in 1..=u64::from(datagrams) {
        match number % FATES {
            1 => faults.push((datagram, Fault::Lose)),
            2 => faults.push((datagram, Fault::Duplicate)),
            3 => faults.push((datagram, Fault::Delay(ms(500)))),
            4 => {
                faults.push((datagram, Fault::Delay(ms(1_500))));
                faults.push((datagram, Fault::Duplicate));
            }
            _ => {}
        }
        number /= FATES;
    }
    Script::new(faults)
}

/// Runs four exchanges, and returns how many were answered. Panics if one is answered wrong, or
/// outlives its deadline.
pub fn run(net: &SimNet, kind: Kind) -> u32 {
    host(net, kind);
    match kind {
        Kind::Ids => exchange(net, Client::builder(Tagged(Text))),
        Kind::Sockets => exchange(net, Client::builder(Text)),
        Kind::Renewed => exchange(net, Client::builder(Short).local_port(LocalPort::PerSend)),
        Kind::Parts => exchange(net, Client::builder(Halves)),
    }
}

/// The server of the exchanges, and the network between.
pub fn host(net: &SimNet, kind: Kind) {
    net.set_link(Link::new().latency(ms(5))).unwrap();
    let upper = |text: &str| Some(text.to_uppercase());
    let server = SERVER.parse().unwrap();
    match kind {
        Kind::Ids => net.host(server, ServerCore::new(Tagged(Text), upper)),
        Kind::Sockets => net.host(server, ServerCore::new(Text, upper)),
        Kind::Renewed => net.host(server, ServerCore::new(Short, upper)),
        Kind::Parts => net.host(server, ServerCore::new(Halves, halves)),
    }
    .unwrap();
}

/// The settings of the exchanges' client: it sends three times.
pub fn settings<C: Codec, D>(builder: ClientBuilder<C, D>) -> ClientBuilder<C, D> {
    builder
        .timeout(TIMEOUT)
        .retry(Retry::new().initial(ms(300)))
}

fn exchange<C>(net: &SimNet, builder: ClientBuilder<C>) -> u32
where
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let server = SERVER.parse().unwrap();
    let mut client = settings(builder)
        .with_connector(net.clone(), server)
        .unwrap();
    let mut requests = HashMap::new();
    let mut answered = 0;
    let mut submit = |client: &mut Client<SimNet, C>, text| {
        let deadline = net.now().monotonic + TIMEOUT;
        requests.insert(client.submit(text).unwrap(), (text, deadline));
    };
    submit(&mut client, "one");
    submit(&mut client, "two");
    // They are sent, and the others follow when theirs are due again.
    let first = client.collect(Wait::No).is_some();
    assert!(!first, "nothing arrives in no time");
    net.advance(ms(350));
    submit(&mut client, "three");
    submit(&mut client, "four");
    while let Some((ticket, result)) = client.collect(Wait::Forever) {
        let (text, deadline) = requests.remove(&ticket).expect("one result for each");
        assert!(net.now().monotonic <= deadline);
        match result {
            Ok(response) => {
                assert_eq!(response, text.to_uppercase(), "whose response is it?");
                answered += 1;
            }
            Err(RequestError::TimedOut { .. } | RequestError::Incomplete { .. }) => {
                assert_eq!(net.now().monotonic, deadline);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(requests.is_empty(), "every request ends");
    answered
}

/// A text after one byte with two bits of id; the highest bit marks a response.
#[derive(Clone, Copy, Debug)]
pub struct Short;

impl Codec for Short {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn std::fmt::Display;
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_request(datagram.get(1..).unwrap_or_default())
    }
    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: &dyn std::fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        out.put(&[request[0] | 0x80]);
        Text.encode_response(now, request, answer, out)
    }
    fn encode_request(
        &self,
        id: u64,
        request: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        out.put(&[id.to_le_bytes()[0]]);
        Text.encode_request(id, request, out)
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_response(datagram.get(1..).unwrap_or_default())
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first().is_some_and(|id| id & 0x80 != 0)
    }
    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 2 }
    }
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let id = response.first()?;
        (id & 0x80 != 0).then(|| u64::from(id & 0x7f))
    }
}

/// A text after two bytes of id, whose highest bit marks a response; that comes in halves, each after its number.
#[derive(Clone, Copy, Debug)]
pub struct Halves;

/// One of two datagrams.
#[derive(Debug)]
pub struct Half(u8, String);

fn halves(text: &str) -> [Half; 2] {
    let text = text.to_uppercase();
    let (first, second) = text.split_at(text.len() / 2);
    // The second one first.
    [Half(1, second.to_owned()), Half(0, first.to_owned())]
}

impl IntoReply<Halves> for Half {
    fn reply(self, reply: &mut Reply<'_, Halves>) -> Result<(), ReplyError> {
        reply.send(self)
    }
}

impl Codec for Halves {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = Half;
    type Error = TextError;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_request(datagram.get(2..).unwrap_or_default())
    }
    fn encode_response(
        &self,
        _: Timestamp,
        request: &[u8],
        Half(index, text): Half,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        out.put(&[request[0] | 0x80, request[1], index]);
        out.put(text.as_bytes());
        Ok(())
    }
    fn encode_request(
        &self,
        id: u64,
        request: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), TextError> {
        let [low, high, ..] = id.to_le_bytes();
        out.put(&[high & 0x7f, low]);
        Text.encode_request(id, request, out)
    }
    /// Of the halves, put together.
    fn decode_response<'a>(&self, text: &'a [u8]) -> Result<&'a str, TextError> {
        Text.decode_response(text)
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first().is_some_and(|id| id & 0x80 != 0)
    }
    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 15 }
    }
    fn response_id(&self, response: &[u8]) -> Option<u64> {
        let (&[high, low], _) = response.split_first_chunk()?;
        let is_response = high & 0x80 != 0;
        is_response.then(|| u16::from_be_bytes([high & 0x7f, low]).into())
    }
    fn response_kind<'a>(&self, _: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        match datagram {
            [_, _, index, payload @ ..] => ResponseKind::Part {
                index: (*index).into(),
                total: 2,
                payload,
            },
            _ => ResponseKind::Whole,
        }
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Where the server is.
pub const SERVER: &str = "10.0.0.1:9999";
/// Three sends.
pub const TIMEOUT: Duration = Duration::from_secs(2);
