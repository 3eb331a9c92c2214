//! 小Zurich as a resource of the constrained web:
//!
//! ```text
//! cargo run --example coap
//! coap-client -m post -e '你好吗？' coap://127.0.0.1:5683/zurich
//! ```

#[path = "coap/codec.rs"]
pub(crate) mod codec;
#[path = "support/service.rs"]
mod service;

use std::process::ExitCode;

use coap_lite::option_value::OptionValueU16;
use coap_lite::{
    CoapOption, ContentFormat, MessageClass, MessageType, Packet, RequestType as Method,
    ResponseType as Code,
};
use codec::Coap;
use rejoinder::{Dedup, Handler, Robot, ServerBuilder, zurich};

const HELP: &str = "\
小Zurich as a CoAP server (RFC 7252).

Usage: coap [ADDRESS] [--quiet]

  ADDRESS        where to listen, HOST:PORT; port 0 is any free port. Default: 127.0.0.1:5683
  -q, --quiet    print nothing
  -h, --help     this text

POST a text to /zurich, or GET /zurich?q=TEXT. An answer that would make a message of more than
1,152 bytes is 5.00. Ctrl-C ends it.
";

/// What the server has, in the link format (RFC 6690).
const RESOURCES: &str = r#"</zurich>;ct=0;title="POST a text, or GET ?q=TEXT""#;

/// What a message is answered with; its type, id and token are the codec's affair.
pub(crate) fn answer(robot: &Robot, request: &Packet) -> Option<Packet> {
    let mut answer = Packet::new();
    answer.header.code = MessageClass::Empty;
    let method = match request.header.code {
        MessageClass::Empty => return Some(answer),
        MessageClass::Request(method) => method,
        _ => Method::UnKnown,
    };
    let mut options = request.options();
    let bad = options.find_map(|(number, values)| {
        let lengths = values.iter().map(Vec::len);
        is_bad(*number, lengths).then_some(*number)
    });
    let (code, text) = match (bad, request.header.get_type()) {
        (None, _) => resource(robot, method, request),
        // RFC 7252 §5.4.1 and §5.7.2.
        (Some(PROXY_URI | PROXY_SCHEME), _) => (Code::ProxyingNotSupported, String::new()),
        (Some(number), MessageType::Confirmable) => (Code::BadOption, format!("option {number}")),
        (Some(_), _) => return None,
    };
    answer.header.code = MessageClass::Response(code);
    if code == Code::Content || code == Code::Changed {
        answer.set_content_format(if text == RESOURCES {
            ContentFormat::ApplicationLinkFormat
        } else {
            ContentFormat::TextPlain
        });
    }
    answer.payload = text.into_bytes();
    Some(answer)
}

fn resource(robot: &Robot, method: Method, request: &Packet) -> (Code, String) {
    let all = |option| {
        request
            .get_option(option)
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
    };
    if !matches!(method, Method::Get | Method::Post) {
        // Wherever (§5.8).
        return (Code::MethodNotAllowed, String::new());
    }
    let path: Vec<&[u8]> = all(CoapOption::UriPath).collect();
    let (format, text) = match (path.as_slice(), method) {
        ([b".well-known", b"core"], Method::Get) => (
            ContentFormat::ApplicationLinkFormat,
            Ok(RESOURCES.to_owned()),
        ),
        ([b"zurich"], _) => {
            let question = match method {
                Method::Post => Some(request.payload.as_slice()),
                _ => all(CoapOption::UriQuery).find_map(|query| query.strip_prefix(b"q=")),
            };
            let question = question.ok_or("ask with ?q=TEXT");
            let question = question.and_then(|text| str::from_utf8(text).map_err(|_| "not UTF-8"));
            (
                ContentFormat::TextPlain,
                question.map(|text| robot.answer(text).to_string()),
            )
        }
        ([b".well-known", b"core"], _) => return (Code::MethodNotAllowed, String::new()),
        _ => return (Code::NotFound, String::new()),
    };
    let is = |option, format| {
        let wanted = request.get_first_option_as::<OptionValueU16>(option);
        // A format that is none is ignored (§5.4.3).
        let wanted = wanted.and_then(Result::ok);
        wanted.is_none_or(|number| usize::from(number.0) == usize::from(format))
    };
    match text {
        _ if !is(CoapOption::Accept, format) => (Code::NotAcceptable, String::new()),
        _ if !is(CoapOption::ContentFormat, ContentFormat::TextPlain) => {
            (Code::UnsupportedContentFormat, String::new())
        }
        Ok(text) if method == Method::Post => (Code::Changed, text),
        Ok(text) => (Code::Content, text),
        Err(problem) => (Code::BadRequest, problem.to_owned()),
    }
}

/// Options with odd numbers are critical (§5.4.6). One of a wrong length, or repeated where it must
/// not be, is as good as unknown (§5.4.3, §5.4.5, table 4).
fn is_bad(number: u16, mut lengths: impl ExactSizeIterator<Item = usize>) -> bool {
    let (most, good) = match CoapOption::from(number) {
        CoapOption::UriHost => (1, 1..=255),
        CoapOption::UriPort | CoapOption::Accept => (1, 0..=2),
        CoapOption::UriPath | CoapOption::UriQuery => (usize::MAX, 0..=255),
        _ => return number % 2 == 1,
    };
    lengths.len() > most || !lengths.all(|length| good.contains(&length))
}

const PROXY_URI: u16 = 35;
const PROXY_SCHEME: u16 = 39;

type Id = (bool, u16, Vec<u8>);

/// What makes a request the same as another of the same peer. The message id would do (§4.2); whoever
/// forges requests has to guess the token too. Whether it is confirmable tells whether a copy is
/// answered again.
#[expect(clippy::unnecessary_wraps, reason = "the form that `Dedup` takes")]
fn id(request: &Packet) -> Option<Id> {
    let confirmable = request.header.get_type() == MessageType::Confirmable;
    let token = request.get_token().to_vec();
    Some((confirmable, request.header.message_id, token))
}

/// Handles a request once. Copies get the answer again, or silence if they were not confirmable:
/// nobody waits for that answer (§4.3).
pub(crate) fn once<H: Handler<Coap>>(handler: H) -> impl Handler<Coap> {
    Dedup::new(handler, id).silent_for(|(confirmable, ..): &Id| !confirmable)
}

fn main() -> ExitCode {
    service::main(HELP, &["ADDRESS"], |arguments| {
        let robot = zurich();
        let handler = move |request: Packet| answer(&robot, &request);
        // What every path takes in one piece (§4.6).
        let server = ServerBuilder::new(Coap)
            .max_request_bytes(1152)
            .max_reply_bytes(1152);
        Ok(vec![arguments.service(
            "ADDRESS",
            "127.0.0.1:5683",
            server,
            once(handler),
        )?])
    })
}
