//! The handler beside a small HTTP server that is quick, slow, broken or absent.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rejoinder::aio;
use rejoinder::codec::Text;
use rejoinder_ai::{Chat, Settings};

const QUESTION: &str = "你好吗？";
/// What the rules say to that.
const BY_THE_RULES: &str = "【机器人】小Zurich 好!";

fn settings(url: Option<String>) -> Settings {
    Settings {
        url,
        model: "test".into(),
        key: Some("secret".into()),
        deadline: Duration::from_millis(400),
        at_once: 1,
    }
}

/// Asks the bot as often at the same time.
async fn ask(settings: Settings, times: usize) -> Vec<String> {
    let server = aio::Server::bind("127.0.0.1:0", Text).await.unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let serving = tokio::spawn(server.serve(Chat::new(settings)));
    let client = aio::Client::connect(addr, Text).await.unwrap();
    let asking: Vec<_> = (0..times)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.request(QUESTION).await.unwrap().get().to_owned() })
        })
        .collect();
    let mut answers = Vec::new();
    for asking in asking {
        answers.push(asking.await.unwrap());
    }
    handle.shutdown();
    assert!(serving.await.unwrap().unwrap().is_conserved());
    answers
}

/// One request, whole: what it promises as its length has come.
fn read_request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    loop {
        let len = stream.read(&mut buffer).unwrap();
        text += std::str::from_utf8(&buffer[..len]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if body.len() >= length || len == 0 {
            return text;
        }
    }
}

/// An HTTP server that sends the same response to every request, each time a message comes.
fn http(
    status: &'static str,
    body: &'static str,
) -> (String, mpsc::Sender<()>, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/v1/chat/completions",
        listener.local_addr().unwrap()
    );
    let (go_on, wait) = mpsc::channel();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            seen.send(read_request(&mut stream)).unwrap();
            if wait.recv().is_err() {
                return;
            }
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // The client may have given up.
            let _ = stream.write_all((head + body).as_bytes());
        }
    });
    (url, go_on, requests)
}

const ANSWER: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":" 很好，谢谢！\n"}}]}"#;

#[tokio::test]
async fn the_model_answers() {
    let (url, go_on, requests) = http("200 OK", ANSWER);
    go_on.send(()).unwrap();
    assert_eq!(ask(settings(Some(url)), 1).await, ["很好，谢谢！"]);
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /v1/chat/completions"));
    assert!(request.contains("Bearer secret") && request.contains(QUESTION));
}

#[tokio::test]
async fn the_rules_answer_what_is_more_than_the_model_is_asked_at_once() {
    let (url, go_on, _requests) = http("200 OK", ANSWER);
    let settings = settings(Some(url));
    let asking = tokio::spawn(ask(settings, 3));
    // The model answers once the others have their answers: they do not wait for it.
    go_on.send(()).unwrap();
    let mut answers = asking.await.unwrap();
    answers.sort_unstable();
    assert_eq!(answers.iter().filter(|one| *one == BY_THE_RULES).count(), 2);
}

#[tokio::test]
async fn the_rules_answer_where_the_model_is_slow_broken_or_absent() {
    let (slow, _never, _requests) = http("200 OK", ANSWER);
    assert_eq!(ask(settings(Some(slow)), 1).await, [BY_THE_RULES]);
    for (status, body) in [
        ("500 Internal Server Error", "{}"),
        ("200 OK", "not JSON"),
        ("200 OK", r#"{"choices":[]}"#),
        ("200 OK", r#"{"choices":[{"message":{"content":"  "}}]}"#),
    ] {
        let (broken, go_on, _requests) = http(status, body);
        go_on.send(()).unwrap();
        assert_eq!(
            ask(settings(Some(broken)), 1).await,
            [BY_THE_RULES],
            "{body}"
        );
    }
    let absent = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let absent = format!("http://{absent}/v1/chat/completions");
    assert_eq!(ask(settings(Some(absent)), 1).await, [BY_THE_RULES]);
    assert_eq!(ask(settings(None), 1).await, [BY_THE_RULES]);
}
