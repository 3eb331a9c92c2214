//! `Signed` beside an implementation in Python, written from the description of its bytes alone.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use rejoinder::codec::{Signed, SignedBuilder, SigningKey, Text};
use rejoinder::{
    Client, Codec, Context, DropReason, Handler, Reply, ReplyError, RequestError, Server,
    Timestamp, Writer,
};
use rejoinder_test_support::process::{Program, python};

/// A key as the script wants it, and as the library does.
fn key(number: u32, secret: u8, service: &str) -> (String, SignedBuilder<Text>) {
    let script = format!("{number}:{}:{service}", format!("{secret:02x}").repeat(32));
    let key = SigningKey::new(number, [secret; 32]);
    (script, Signed::builder(Text).key(key).service(service))
}

#[test]
fn the_vector_of_the_documentation_is_that_of_python() {
    let ended = Program::start(python("signed.py").arg("vector")).finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let secret: Vec<u8> = (0..32).collect();
    let wall = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_562_519_878);
    let now = Timestamp::new(Duration::ZERO, wall);
    let codec = Signed::builder(Text).key(SigningKey::new(7, secret));
    let codec = codec.salt([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7]);
    let codec = codec.build(now).unwrap();
    let mut request = written(|out| codec.encode_request(0x0102_0304_0506_0708, "ping", out));
    codec.stamp_request(now, &mut request);
    let response = written(|out| codec.encode_response(now, &request, &"pong", out));
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines, [hex(&request), hex(&response)]);
}

#[test]
fn our_client_and_pythons_server_believe_each_other_and_nothing_else() {
    let (script, ours) = key(7, 0x2a, "doors");
    let mut server = Program::start(python("signed.py").args(["serve", &script]));
    let addr = server.listening();
    let mut client = Client::connect(addr, ours.build(Timestamp::system()).unwrap()).unwrap();
    let long = "x".repeat(1_000);
    for text in ["open", "你好", "", &long] {
        let answer = client.request(text).unwrap();
        assert_eq!(answer, format!("python: {}", text.to_uppercase()));
    }
    for (number, secret, service) in [(7, 0x2b, "doors"), (7, 0x2a, "gates"), (8, 0x2a, "doors")] {
        let (_, other) = key(number, secret, service);
        let client = Client::builder(other.build(Timestamp::system()).unwrap());
        let client = client.timeout(Duration::from_millis(300)).connect(addr);
        let error = client.unwrap().request("open").unwrap_err();
        assert!(
            matches!(error, RequestError::TimedOut { ignored: 0, .. }),
            "{error}"
        );
    }
}

/// Answers with the identity and the text.
struct Door;

impl Handler<Signed<Text>> for Door {
    fn handle(
        &self,
        text: &str,
        context: &Context,
        reply: &mut Reply<'_, Signed<Text>>,
    ) -> Result<(), ReplyError> {
        let identity = context.identity().expect("each request is signed");
        reply.send(&format_args!("{text}ed for {identity}"))
    }
}

#[test]
fn pythons_client_and_our_server_believe_each_other_and_a_replay_gets_nothing() {
    let (script, ours) = key(7, 0x2a, "doors");
    let codec = ours.build(Timestamp::system()).unwrap();
    let server = Server::bind("127.0.0.1:0", codec.clone()).unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = thread::spawn(move || server.serve(Door).unwrap());
    let port = addr.port().to_string();
    for text in ["open", "你好"] {
        let asked = Program::start(python("signed.py").args(["ask", &port, &script, text]));
        let ended = asked.finish();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        assert_eq!(ended.stdout, format!("{text}ed for 7\n"));
    }
    let mut request = written(|out| codec.encode_request(1, "open", out));
    codec.stamp_request(Timestamp::system(), &mut request);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut space = [0; 128];
    for _ in 0..2 {
        socket.send_to(&request, addr).unwrap();
    }
    // One more, whose response comes after that to the replay would have.
    let mut last = written(|out| codec.encode_request(2, "clos", out));
    codec.stamp_request(Timestamp::system(), &mut last);
    socket.send_to(&last, addr).unwrap();
    for (request, answer) in [(&request, "opened for 7"), (&last, "closed for 7")] {
        let (len, _) = socket.recv_from(&mut space).unwrap();
        assert!(codec.is_authentic_response(request, &space[..len]));
        assert_eq!(codec.decode_response(&space[..len]), Ok(answer));
    }
    handle.shutdown();
    let stats = serving.join().unwrap();
    assert_eq!(
        (stats.replied, stats.dropped(DropReason::Unauthenticated)),
        (4, 1)
    );
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Vec<u8> {
    let mut space = vec![0; 128];
    let mut out = Writer::new(&mut space);
    write(&mut out).unwrap();
    let len = out.finish().unwrap();
    space.truncate(len);
    space
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
