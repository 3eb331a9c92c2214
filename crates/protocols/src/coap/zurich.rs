//! What the server has: the robot, and a list of what it has.

use coap_lite::option_value::OptionValueU16;
use coap_lite::{
    CoapOption, ContentFormat, MessageClass, MessageType, Packet, RequestType as Method,
    ResponseType as Code,
};
use rejoinder::bot::Robot;

/// What the server has, in the link format (RFC 6690).
const RESOURCES: &str = r#"</zurich>;ct=0;title="POST a text, or GET ?q=TEXT""#;

/// What a message is answered with; its type, id and token are the codec's affair.
pub fn answer(robot: &Robot, request: &Packet) -> Option<Packet> {
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
