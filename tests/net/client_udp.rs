//! The client over real UDP, on loopback.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rejoinder::codec::{Ctime, Raw, Tagged, Text};
use rejoinder::transport::{Connect, Inbox, Outbox, SendReport};
use rejoinder::udp::{UdpConnector, UdpTransport};
use rejoinder::{
    Client, Codec, Handler, RequestError, Retry, Server, ServerHandle, Stats, Ticket, Timestamp,
    Transport, Wait,
};

#[test]
fn a_closed_port_is_found_at_once_if_that_is_wanted() {
    let closed = closed_port();
    for with_ids in [false, true] {
        let error = if with_ids {
            let builder = Client::builder(Tagged(Text)).fail_when_unreachable(true);
            builder
                .connect(closed)
                .unwrap()
                .request("there?")
                .unwrap_err()
        } else {
            let builder = Client::builder(Text).fail_when_unreachable(true);
            builder
                .connect(closed)
                .unwrap()
                .request("there?")
                .unwrap_err()
        };
        assert!(
            matches!(error, RequestError::NobodyListening { peer } if peer == closed),
            "{error}"
        );
    }
}

#[test]
fn a_closed_port_is_the_reason_at_the_deadline_otherwise() {
    let closed = closed_port();
    let mut client = Client::builder(Text)
        .timeout(Duration::from_millis(50))
        .connect(closed)
        .unwrap();
    let error = client.request("there?").unwrap_err();
    assert!(
        matches!(error, RequestError::NobodyListening { .. }),
        "{error}"
    );
}

#[test]
fn a_silent_server_times_out() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut client = Client::builder(Text)
        .timeout(Duration::from_millis(50))
        .connect(silent.local_addr().unwrap())
        .unwrap();
    let error = client.request("there?").unwrap_err();
    assert!(
        matches!(error, RequestError::TimedOut { sends: 1, ignored: 0, after, .. }
            if after >= Duration::from_millis(50)),
        "{error}"
    );
}

#[test]
fn the_longest_answer_arrives_whole() {
    let server = serve(Raw, |bytes: &[u8]| Some(vec![bytes[0]; 65_507]));
    let mut client = Client::connect(server.addr, Raw).unwrap();
    assert_eq!(client.request(&[7]).unwrap(), vec![7; 65_507]);
    assert_eq!(client.request(&vec![8; 65_507]).unwrap(), vec![8; 65_507]);
    assert!(matches!(
        client.request(&vec![8; 65_508]),
        Err(RequestError::TooLong(_))
    ));
    assert_eq!(server.stop().replied, 2);
}

#[test]
fn over_ipv6_the_longest_answer_is_a_little_longer() {
    let server = Server::builder(Raw).max_response_bytes(65_527);
    let server = run(server.bind("[::1]:0").unwrap(), |bytes: &[u8]| {
        Some(vec![bytes[0]; 65_527])
    });
    let mut client = Client::connect(server.addr, Raw).unwrap();
    assert_eq!(client.request(&[7]).unwrap(), vec![7; 65_527]);
    assert_eq!(server.stop().replied, 1);
}

#[test]
fn many_at_once_get_each_their_own_answer() {
    let server = serve(Tagged(Text), |text: &str| Some(text.to_uppercase()));
    many(
        Client::connect(server.addr, Tagged(Text)).unwrap(),
        5_000,
        100,
    );
    assert!(server.stop().replied >= 5_000);

    // A socket each.
    let server = serve(Text, |text: &str| Some(text.to_uppercase()));
    many(Client::connect(server.addr, Text).unwrap(), 500, 50);
    assert!(server.stop().replied >= 500);
}

fn many<N, C>(mut client: Client<N, C>, requests: usize, at_once: usize)
where
    N: Connect,
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let mut questions = HashMap::new();
    for number in 0..requests {
        if questions.len() == at_once {
            collect(&mut client, &mut questions);
        }
        let question = format!("question {number}");
        questions.insert(client.submit(&question).unwrap(), question);
    }
    while !questions.is_empty() {
        collect(&mut client, &mut questions);
    }
    assert!(client.collect(Wait::Forever).is_none());
}

fn collect<N, C>(client: &mut Client<N, C>, questions: &mut HashMap<Ticket, String>)
where
    N: Connect,
    C: for<'a> Codec<Request<'a> = &'a str, Response<'a> = &'a str>,
{
    let (ticket, result) = client.collect(Wait::Forever).unwrap();
    let question = questions.remove(&ticket).unwrap();
    assert_eq!(result.unwrap(), question.to_uppercase());
}

#[test]
fn a_dual_stack_server_is_reached_over_both() {
    let client_of = |server: &str, asked: &str| {
        let server = Server::bind(server, Ctime::utc()).unwrap();
        let port = server.local_addr().unwrap().port();
        let running = run(server, |text: &str| Some(text.to_owned()));
        let addr: SocketAddr = format!("{asked}:{port}").parse().unwrap();
        let mut client = Client::connect(addr, Ctime::utc()).unwrap();
        assert_eq!(client.request("both?").unwrap().text, "both?", "{asked}");
        assert_eq!(running.stop().replied, 1);
    };
    client_of("[::]:0", "127.0.0.1");
    client_of("[::]:0", "[::1]");
    client_of("[::]:0", "[::ffff:127.0.0.1]");
}

#[test]
fn a_scope_that_the_system_leaves_out_keeps_no_answer_away() {
    let running = run(Server::bind("[::1]:0", Text).unwrap(), |text: &str| {
        Some(text.to_owned())
    });
    let SocketAddr::V6(mut asked) = running.addr else {
        panic!("{} is none of IPv6", running.addr);
    };
    asked.set_scope_id(1);
    let mut client = Client::connect(asked, Text).unwrap();
    assert_eq!(client.request("scoped?").unwrap(), "scoped?");
    running.stop();
}

/// UDP by a clock that can be put forward.
#[derive(Clone)]
struct Ahead(Arc<AtomicU64>);

struct AheadTransport(UdpTransport, Ahead);

impl Ahead {
    fn time(&self) -> Timestamp {
        let now = Timestamp::system();
        let ahead = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Timestamp::new(now.monotonic + ahead, now.wall)
    }
}

impl Connect for Ahead {
    type Transport = AheadTransport;

    fn connect(&self, peer: SocketAddr) -> io::Result<AheadTransport> {
        let transport = UdpConnector::default().connect(peer)?;
        Ok(AheadTransport(transport, self.clone()))
    }
    fn now(&self) -> Timestamp {
        self.time()
    }
}

impl Transport for AheadTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        self.0.recv(inbox, wait)
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.0.send(outbox)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
    fn now(&self) -> Timestamp {
        self.1.time()
    }
}

#[test]
fn a_response_that_came_in_time_is_returned_however_late_it_is_collected() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let clock = Ahead(Arc::default());
    let mut client = Client::builder(Text)
        .with_connector(clock.clone(), addr)
        .unwrap();
    for question in ["one", "two"] {
        client.submit(question).unwrap();
    }
    // It is sent, and the response waits in the socket when the deadline is long over.
    assert!(client.collect(Wait::No).is_none());
    for _ in 0..2 {
        let mut buffer = [0; 8];
        let (len, peer) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..len], peer).unwrap();
    }
    clock.0.store(60, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(client.collect(Wait::Forever).unwrap().1.is_ok());
    }
}

/// UDP sockets that receive nothing for a while, not even errors.
struct Deaf(Arc<AtomicBool>);

struct DeafTransport(UdpTransport, Arc<AtomicBool>);

impl Connect for Deaf {
    type Transport = DeafTransport;

    fn connect(&self, peer: SocketAddr) -> io::Result<DeafTransport> {
        let transport = UdpConnector::default().connect(peer)?;
        Ok(DeafTransport(transport, Arc::clone(&self.0)))
    }
}

impl Transport for DeafTransport {
    fn recv(&mut self, inbox: &mut Inbox, wait: Wait) -> io::Result<usize> {
        if self.1.load(Ordering::SeqCst) {
            return Ok(0);
        }
        self.0.recv(inbox, wait)
    }
    fn send(&mut self, outbox: &Outbox) -> SendReport {
        self.0.send(outbox)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Linux reports it at the next call on the socket: if that is to send, nothing is sent.
#[test]
fn the_report_on_an_earlier_datagram_costs_no_request_its_first_send() {
    let addr = closed_port();
    let is_deaf = Arc::new(AtomicBool::new(true));
    let mut client = Client::builder(Tagged(Text))
        .retry(Retry::never())
        .fail_when_unreachable(true)
        .with_connector(Deaf(Arc::clone(&is_deaf)), addr)
        .unwrap();
    let refused = client.submit("refused").unwrap();
    assert!(client.collect(Wait::No).is_none());
    client.cancel(refused);
    is_deaf.store(false, Ordering::SeqCst);

    let server = Server::bind(addr, Tagged(Text)).unwrap();
    let running = run(server, |text: &str| Some(text.to_uppercase()));
    assert_eq!(client.request("answered").unwrap(), "ANSWERED");
    assert_eq!(running.stop().received, 1);
}

/// A port that was free a moment ago.
fn closed_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

struct Running {
    addr: SocketAddr,
    handle: ServerHandle,
    thread: JoinHandle<Stats>,
}

impl Running {
    fn stop(self) -> Stats {
        self.handle.shutdown();
        let stats = self.thread.join().unwrap();
        assert!(stats.is_conserved());
        stats
    }
}

fn serve<C>(codec: C, handler: impl Handler<C> + Send + Sync + 'static) -> Running
where
    C: Codec + Send + 'static,
{
    run(Server::bind("127.0.0.1:0", codec).unwrap(), handler)
}

fn run<C>(
    server: Server<UdpTransport, C>,
    handler: impl Handler<C> + Send + Sync + 'static,
) -> Running
where
    C: Codec + Send + 'static,
{
    Running {
        addr: server.local_addr().unwrap(),
        handle: server.handle(),
        thread: thread::spawn(move || server.serve(handler).unwrap()),
    }
}
