//! Pages over HTTP (RFC 9110, RFC 9112): what a service reports about itself to balancers and scrapers.
//!
//! One thread serves all connections of an endpoint and waits for none of them. Each connection carries one
//! request, has a deadline, and takes a bounded amount of memory. At most [`MAX_CONNECTIONS`] are open, or as
//! many as there are descriptors: a further one closes one whose response is sent, or else the oldest that has
//! sent nothing, or else the oldest. So clients that connect and send nothing cannot hold the endpoint. A flood
//! of connections still can: a client whose request has not arrived when as many newer ones come is closed with
//! them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Failure;
use super::address::{resolve, why_not_bound};

/// An endpoint that is bound.
#[derive(Debug)]
pub(crate) struct Endpoint(TcpListener);

/// What a path shows.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// `200 OK`, for example.
    pub(crate) status: &'static str,
    /// The media type.
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Page {
    /// A short text.
    pub(crate) fn text(status: &'static str, body: &str) -> Self {
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.to_owned(),
        }
    }
}

impl Endpoint {
    /// Binds the first address that a text stands for. An error names the option that the text is from.
    pub(crate) fn bind(option: &str, text: &str, default_port: u16) -> Result<Self, Failure> {
        let addresses = resolve(text, default_port).map_err(|failure| match failure {
            Failure::Usage(problem) => Failure::Usage(format!("{option}: {problem}")),
            Failure::RunTime(problem) => Failure::RunTime(format!("{option}: {problem}")),
        })?;
        let listener = TcpListener::bind(&addresses[..]).map_err(|error| {
            let problem = why_not_bound(text, &addresses, &error);
            Failure::RunTime(format!("{option}: {problem}"))
        })?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves pages by their paths on a thread of its own, as long as the program runs. `None` is a page
    /// that does not exist.
    pub(crate) fn serve(
        self,
        thread: &str,
        page: impl Fn(&str) -> Option<Page> + Send + 'static,
    ) -> io::Result<()> {
        let work = move || {
            let mut connections = VecDeque::with_capacity(MAX_CONNECTIONS);
            let mut accept_at = Instant::now();
            loop {
                turn(&self.0, &mut connections, &mut accept_at, &page);
            }
        };
        thread::Builder::new().name(thread.to_owned()).spawn(work)?;
        Ok(())
    }
}

/// Waits until something can be done, and does it without waiting.
fn turn(
    listener: &TcpListener,
    connections: &mut VecDeque<Connection>,
    accept_at: &mut Instant,
    page: &impl Fn(&str) -> Option<Page>,
) {
    let now = Instant::now();
    let accepts = *accept_at <= now;
    let mut fds: Vec<_> = connections.iter().map(Connection::poll_fd).collect();
    if accepts {
        fds.push(PollFd::new(listener, PollFlags::IN));
    }
    let deadlines = connections.iter().map(|connection| connection.deadline);
    let next = deadlines.chain((!accepts).then_some(*accept_at)).min();
    let wait = next.map(|next| next.saturating_duration_since(now));
    // A failure is treated as a wake-up: each step below reports by itself that there is nothing to do.
    let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
    if poll(&mut fds, wait.as_ref()).is_err() {
        thread::sleep(PAUSE);
    }
    let mut ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
    let can_accept = accepts && ready.pop().unwrap_or(false);

    let now = Instant::now();
    let mut ready = ready.into_iter();
    connections.retain_mut(|connection| {
        let is_ready = ready.next().unwrap_or(false);
        if now >= connection.deadline {
            // Also if there is something to read: a client may send without end.
            connection.give_up();
            return false;
        }
        !is_ready || connection.advance(now, page)
    });
    if can_accept && !accept(listener, connections, now, page) {
        *accept_at = now + PAUSE;
    }
}

/// Accepts what is there, as many connections as may be open at most. Returns `false` after an error that
/// is not about one connection, such as too many open descriptors.
fn accept(
    listener: &TcpListener,
    connections: &mut VecDeque<Connection>,
    now: Instant,
    page: &impl Fn(&str) -> Option<Page>,
) -> bool {
    let mut has_made_room = false;
    for _ in 0..MAX_CONNECTIONS {
        match listener.accept() {
            Ok((stream, _)) => {
                has_made_room = false;
                if stream.set_nonblocking(true).is_err() {
                    continue;
                }
                let mut connection = Connection {
                    stream,
                    state: State::Reading(Vec::new()),
                    deadline: now + PATIENCE,
                };
                // As a rule the request has come with the connection.
                if connection.advance(now, page) {
                    if connections.len() == MAX_CONNECTIONS {
                        make_room(connections, now, page);
                    }
                    connections.push_back(connection);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return true,
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                // Descriptors are exhausted, as a rule: there are too few for the limit above.
                _ if !connections.is_empty() && !has_made_room => {
                    make_room(connections, now, page);
                    has_made_room = true;
                }
                _ => return false,
            },
        }
    }
    true
}

/// Removes a connection, of those that are open the one that loses least.
fn make_room(
    connections: &mut VecDeque<Connection>,
    now: Instant,
    page: &impl Fn(&str) -> Option<Page>,
) {
    let is_closing = |one: &Connection| matches!(one.state, State::Closing);
    if let Some(done) = connections.iter().position(is_closing) {
        connections.remove(done);
        return;
    }
    for at in 0..connections.len() {
        let one = &mut connections[at];
        // A request that has arrived meanwhile is answered first.
        if one.is_silent() && (!one.advance(now, page) || one.is_silent() || is_closing(one)) {
            connections.remove(at);
            return;
        }
    }
    connections.pop_front();
}

struct Connection {
    stream: TcpStream,
    state: State,
    /// When the state must have changed.
    deadline: Instant,
}

enum State {
    /// The head of the request, so far.
    Reading(Vec<u8>),
    /// The response, and how much of it is sent.
    Writing(Vec<u8>, usize),
    /// All is sent. What the client still sends is read: a connection that is closed with unread bytes is
    /// reset, and the client may lose the response (RFC 9112 §9.6).
    Closing,
}

impl Connection {
    fn poll_fd(&self) -> PollFd<'_> {
        let flags = match self.state {
            State::Writing(..) => PollFlags::OUT,
            State::Reading(_) | State::Closing => PollFlags::IN,
        };
        PollFd::new(&self.stream, flags)
    }

    /// Whether nothing has come from the client.
    fn is_silent(&self) -> bool {
        matches!(&self.state, State::Reading(head) if head.is_empty())
    }

    /// Goes on as far as it can without waiting. `false` is the end of it.
    fn advance(&mut self, now: Instant, page: &impl Fn(&str) -> Option<Page>) -> bool {
        match self.step(now, page) {
            Ok(goes_on) => goes_on,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn step(&mut self, now: Instant, page: &impl Fn(&str) -> Option<Page>) -> io::Result<bool> {
        let mut buffer = [0; 1_024];
        if let State::Reading(head) = &mut self.state {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(false);
            }
            head.extend_from_slice(&buffer[..read]);
            let Some(response) = respond(head, page) else {
                return Ok(true);
            };
            self.deadline = now + PATIENCE;
            self.state = State::Writing(response, 0);
        }
        if let State::Writing(response, sent) = &mut self.state {
            while *sent < response.len() {
                match self.stream.write(&response[*sent..])? {
                    0 => return Ok(false),
                    written => *sent += written,
                }
            }
            self.stream.shutdown(Shutdown::Write)?;
            self.deadline = now + PATIENCE;
            self.state = State::Closing;
            return Ok(true);
        }
        Ok(self.stream.read(&mut buffer)? > 0)
    }

    /// What a client gets whose time is over.
    fn give_up(&mut self) {
        if let State::Reading(_) = self.state {
            let page = Page::text("408 Request Timeout", "no request came in time\n");
            // There is room for it: nothing was sent before.
            let _ = self.stream.write(&encode(&page, true));
        }
    }
}

/// The response to a request, as soon as its head is complete.
fn respond(head: &[u8], page: &impl Fn(&str) -> Option<Page>) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let failed = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => None,
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Some("431 Request Header Fields Too Large")
        }
        Err(httparse::Error::Version) => Some("505 HTTP Version Not Supported"),
        Err(_) => Some("400 Bad Request"),
    };
    if let Some(status) = failed {
        return Some(encode(
            &Page::text(status, "no request of HTTP/1.1\n"),
            true,
        ));
    }
    let is_head = request.method == Some("HEAD");
    if !is_head && request.method != Some("GET") {
        let page = Page::text("405 Method Not Allowed", "only GET and HEAD\n");
        return Some(encode(&page, true));
    }
    let page = match request.path.and_then(path_of) {
        Some(path) => page(path).unwrap_or_else(|| Page::text("404 Not Found", "no such page\n")),
        None => Page::text(
            "400 Bad Request",
            "the target is neither a path nor a URL\n",
        ),
    };
    Some(encode(&page, !is_head))
}

/// The path of a target, which is a path or a whole URL (RFC 9112 §3.2.1 and §3.2.2).
fn path_of(target: &str) -> Option<&str> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return None;
        }
        match rest.find(['/', '?', '#']) {
            Some(at) if rest[at..].starts_with('/') => &rest[at..],
            _ => "/",
        }
    };
    path.split(['?', '#']).next()
}

fn encode(page: &Page, with_body: bool) -> Vec<u8> {
    let Page { status, kind, body } = page;
    let (date, len) = (Utc::now().format("%a, %d %b %Y %H:%M:%S GMT"), body.len());
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\
         {allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    if with_body {
        response.push_str(body);
    }
    response.into_bytes()
}

/// Far more than balancers and scrapers have open at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a request may take to arrive, a response to be taken, and a client to close.
const PATIENCE: Duration = Duration::from_secs(2);
/// After an error that would come again at once.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::{
        Connection, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS, PATIENCE, Page, State, accept,
        make_room, path_of, respond,
    };

    fn page(path: &str) -> Option<Page> {
        (path == "/here").then(|| Page::text("200 OK", "yes"))
    }

    fn answer(request: &str) -> String {
        let response = respond(request.as_bytes(), &page).expect("a response");
        String::from_utf8(response).expect("text")
    }

    const REQUEST: &[u8] = b"GET /here HTTP/1.1\r\n\r\n";

    /// A client, and its connection as it is right after it was accepted.
    fn open(listener: &TcpListener) -> (TcpStream, Connection) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let state = State::Reading(Vec::new());
        let deadline = Instant::now() + PATIENCE;
        let connection = Connection {
            stream,
            state,
            deadline,
        };
        (client, connection)
    }

    fn read(client: &mut TcpStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits until something that a client has sent is there.
    fn await_bytes(connection: &Connection) {
        connection.stream.set_nonblocking(false).unwrap();
        connection.stream.peek(&mut [0]).unwrap();
        connection.stream.set_nonblocking(true).unwrap();
    }

    #[test]
    fn a_connection_that_has_sent_nothing_makes_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let now = Instant::now();
        let (mut slow, mut connection) = open(&listener);
        slow.write_all(&REQUEST[..9]).unwrap();
        await_bytes(&connection);
        assert!(connection.advance(now, &page));
        let mut connections = VecDeque::from([connection]);
        let mut silent = Vec::new();
        while connections.len() < MAX_CONNECTIONS {
            let (client, connection) = open(&listener);
            silent.push(client);
            connections.push_back(connection);
        }
        // The oldest one has sent a part, and the second one its request, which was not read yet.
        silent[0].write_all(REQUEST).unwrap();
        await_bytes(&connections[1]);
        make_room(&mut connections, now, &page);
        assert_eq!(connections.len(), MAX_CONNECTIONS - 1);
        let answer = read(&mut silent[0]);
        assert!(answer.ends_with("\r\n\r\nyes"), "{answer}");
        // All the silent ones go before the slow one.
        while connections.len() > 1 {
            make_room(&mut connections, now, &page);
        }
        slow.write_all(&REQUEST[9..]).unwrap();
        await_bytes(&connections[0]);
        assert!(connections[0].advance(now, &page));
        // And one that is answered goes without a loss.
        make_room(&mut connections, now, &page);
        assert!(connections.is_empty());
        let answer = read(&mut slow);
        assert!(answer.ends_with("\r\n\r\nyes"), "{answer}");
    }

    #[test]
    fn a_request_that_comes_with_its_connection_is_answered_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        // What a client has sent may be on its way yet.
        let at_once = (0..100).any(|_| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(10 * PATIENCE)).unwrap();
            client.write_all(REQUEST).unwrap();
            let mut connections = VecDeque::new();
            while connections.is_empty() {
                assert!(accept(&listener, &mut connections, Instant::now(), &page));
            }
            if connections[0].is_silent() {
                return false;
            }
            let answer = read(&mut client);
            assert!(answer.ends_with("\r\n\r\nyes"), "{answer}");
            true
        });
        assert!(at_once);
    }

    #[test]
    fn a_target_is_a_path_or_a_url() {
        for (target, path) in [
            ("/", Some("/")),
            ("/here?a=/b#c", Some("/here")),
            ("http://10.0.0.1:9889/here?x", Some("/here")),
            ("HTTPS://host/a/b", Some("/a/b")),
            ("http://host", Some("/")),
            ("http://host?/here", Some("/")),
            ("*", None),
            ("host:80", None),
            ("ftp://host/here", None),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn each_request_has_its_status() {
        let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
        let long = "a".repeat(MAX_HEAD_BYTES);
        for (request, status) in [
            ("GET /here HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET http://x/here HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /here HTTP/1.0\n\n", "200 OK"),
            ("GET /there HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET * HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("PUT /here HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (
                "GET /here HTTP/2.0\r\n\r\n",
                "505 HTTP Version Not Supported",
            ),
            ("\u{1}\r\n\r\n", "400 Bad Request"),
            (
                &format!("GET /here HTTP/1.1\r\n{many}\r\n"),
                "431 Request Header Fields Too Large",
            ),
            (
                &format!("GET /{long}"),
                "431 Request Header Fields Too Large",
            ),
        ] {
            let answer = answer(request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{request}: {answer}"
            );
        }
        assert!(respond(b"GET /here HTTP/1.1\r\nHost", &page).is_none());
    }

    #[test]
    fn a_head_has_the_length_and_no_body() {
        let [get, head] =
            ["GET", "HEAD"].map(|method| answer(&format!("{method} /here HTTP/1.1\r\n\r\n")));
        assert!(get.ends_with("\r\n\r\nyes"), "{get}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Length: 3\r\n"), "{head}");
    }
}
