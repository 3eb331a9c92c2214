//! Authenticated peers: what a transport or a codec says about who sent a datagram reaches gates, handlers
//! and the log, and what is not authentic reaches none of them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rejoinder::codec::{Tagged, Text};
use rejoinder::gate::{Gate, RateLimit, ResponseSize};
use rejoinder::handler::{Dedup, MAX_RESPONSES};
use rejoinder::proxy::{Header, Proxies, ProxyMode};
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Node, SimNet};
use rejoinder::transport::{Datagram, Inbox, Meta, Outbox};
use rejoinder::{
    Client, Codec, Context, DropReason, Handler, Identity, Reply, ReplyError, Server, Timestamp,
    Writer,
};

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn now() -> Timestamp {
    Timestamp::new(Duration::from_secs(5), SystemTime::UNIX_EPOCH)
}

/// Answers with the identity of the peer.
struct WhoAmI;

impl<C> Handler<C> for WhoAmI
where
    C: for<'a> Codec<Request<'a> = &'a str, Answer<'a> = &'a dyn fmt::Display>,
{
    fn handle(
        &self,
        request: &str,
        context: &Context,
        reply: &mut Reply<'_, C>,
    ) -> Result<(), ReplyError> {
        match (request, context.identity()) {
            ("panic", _) => panic!("as it was asked to"),
            (_, Some(identity)) => reply.send(identity),
            (_, None) => reply.send(&"a stranger"),
        }
    }
}

/// Text behind a name and a colon, which is all the proof there is. An empty name is no proof, and `stranger`
/// proves nothing.
struct Named {
    known: Vec<Identity>,
}

#[derive(Debug, PartialEq)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
impl std::error::Error for Refused {}

fn named() -> Named {
    let known = ["Ada", "Eve", "a\x1b[31m"].map(Identity::from).into();
    Named { known }
}

impl Codec for Named {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a dyn fmt::Display;
    type Error = Refused;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Refused> {
        let text = str::from_utf8(datagram).map_err(|_| Refused("no text"))?;
        let (_, text) = text.split_once(':').ok_or(Refused("no name"))?;
        if text.is_empty() {
            Err(Refused("nothing said"))
        } else {
            Ok(text)
        }
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &dyn fmt::Display,
        out: &mut Writer<'_>,
    ) -> Result<(), Refused> {
        fmt::Write::write_fmt(out, format_args!("!{answer}")).map_err(|_| Refused("no answer"))
    }
    fn encode_request(&self, _: u64, request: &str, out: &mut Writer<'_>) -> Result<(), Refused> {
        out.put(request.as_bytes());
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Refused> {
        str::from_utf8(datagram).map_err(|_| Refused("no text"))
    }
    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first() == Some(&b'!')
    }
    fn authenticate(&self, _: Timestamp, datagram: &[u8]) -> Result<Option<Identity>, Refused> {
        let name = datagram
            .split(|byte| *byte == b':')
            .next()
            .unwrap_or_default();
        if name == b"stranger" {
            return Ok(None);
        }
        let known = self.known.iter().find(|one| one.as_bytes() == name);
        known.cloned().map(Some).ok_or(Refused("not\nknown"))
    }
}

/// Passes datagrams through a core, each with the identity that the transport gives it.
fn drive<C: Codec, H: Handler<C>, G: Gate>(
    core: &mut ServerCore<C, H, G>,
    datagrams: &[(&[u8], Option<&str>)],
) -> Vec<String> {
    let (mut inbox, mut outbox) = (Inbox::new(datagrams.len(), 512), Outbox::new(256, 512));
    for (bytes, identity) in datagrams {
        match identity {
            Some(identity) => inbox.push_identified(bytes, Meta::new(peer(7)), &(*identity).into()),
            None => inbox.push(bytes, Meta::new(peer(7_777))),
        }
    }
    core.handle(now(), &mut inbox, &mut outbox);
    assert!(inbox.is_empty() && core.stats().is_conserved());
    let replies = outbox.iter();
    replies
        .map(|reply| String::from_utf8_lossy(reply.bytes).into_owned())
        .collect()
}

fn open() -> rejoinder::ServerBuilder<Text> {
    Server::builder(Text).blocked_ports([])
}

#[test]
fn the_identity_that_a_transport_gives_reaches_the_handler_with_its_datagram_only() {
    let mut core = open().core(WhoAmI);
    for _ in 0..3 {
        let replies = drive(
            &mut core,
            &[
                (b"?", None),
                (b"?", Some("Ada")),
                (b"?", Some("Eve")),
                (b"?", None),
                (b"?", None),
                (b"?", Some("")),
                (b"?", Some("Ada")),
            ],
        );
        let expected = [
            "a stranger",
            "Ada",
            "Eve",
            "a stranger",
            "a stranger",
            "",
            "Ada",
        ];
        assert_eq!(replies, expected);
        assert_eq!(drive(&mut core, &[(b"?", None)]), ["a stranger"]);
    }
}

#[test]
fn all_segments_of_a_buffer_have_its_identity() {
    let (ada, eve) = (Identity::from("Ada"), Identity::from("Eve"));
    let mut inbox = Inbox::new(4, 16);
    for _ in 0..3 {
        let mut expected = Vec::new();
        for (identity, segments) in [(None, 3), (Some(&ada), 4), (None, 1), (Some(&eve), 2)] {
            inbox.spare().next().unwrap()[..segments * 2].fill(b'x');
            inbox.fill_segments(segments * 2, 2, Meta::new(peer(7_777)));
            if let Some(identity) = identity {
                // The second call replaces the first.
                inbox.identify(if identity == &ada { &eve } else { &ada });
                inbox.identify(identity);
            }
            expected.extend(std::iter::repeat_n(identity, segments));
        }
        for identity in expected {
            assert_eq!(inbox.pop().unwrap().identity, identity);
        }
        assert!(inbox.pop().is_none());
    }
}

#[test]
fn an_inbox_holds_no_identity_once_it_is_filled_again() {
    let identity = Arc::<[u8]>::from(&b"Ada"[..]);
    let mut inbox = Inbox::new(2, 16);
    inbox.push_identified(
        b"x",
        Meta::new(peer(7)),
        &Identity::new(Arc::clone(&identity)),
    );
    inbox.pop();
    assert!(inbox.has_space());
    assert_eq!(Arc::strong_count(&identity), 1);
}

#[test]
#[should_panic(expected = "a buffer was filled")]
fn an_identity_without_a_datagram_is_a_mistake() {
    Inbox::new(2, 16).identify(&Identity::from("Ada"));
}

struct Answering<F>(F);

impl<F: Fn(&str) -> Option<String>> Handler<Named> for Answering<F> {
    fn handle(
        &self,
        request: &str,
        _: &Context,
        reply: &mut Reply<'_, Named>,
    ) -> Result<(), ReplyError> {
        (self.0)(request).map_or(Ok(()), |answer| reply.send(&answer))
    }
}

#[test]
fn invariant_1_what_is_not_authentic_is_dropped_before_it_is_decoded_and_never_answered() {
    let decoded = Mutex::new(0);
    let handler = |_: &str| {
        *decoded.lock().unwrap() += 1;
        Some("answered".to_owned())
    };
    let mut core = ServerCore::new(Tagged(Text), |_: &str| None::<String>);
    // A codec that proves nothing counts nothing as unauthenticated.
    drive(
        &mut core,
        &[(b"no tag", None), (b"?\0\0\0\0\0\0\0\x07x", None)],
    );
    assert_eq!(core.stats().dropped(DropReason::Unauthenticated), 0);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 1);

    let mut core = ServerCore::new(named(), Answering(handler));
    let replies = drive(
        &mut core,
        &[
            (b"Mallory:x", None),
            (b"\xff", None),
            (b"", None),
            (b"Ada:", None),
            (b"Ada:x", None),
        ],
    );
    assert_eq!(replies, ["!answered"]);
    assert_eq!(core.stats().dropped(DropReason::Unauthenticated), 3);
    assert_eq!(core.stats().dropped(DropReason::Malformed), 1);
    assert_eq!(*decoded.lock().unwrap(), 1);
}

#[test]
fn the_identity_of_a_codec_replaces_that_of_the_transport() {
    let mut core = Server::builder(named()).blocked_ports([]).core(WhoAmI);
    let replies = drive(
        &mut core,
        &[
            (b"Ada:x", None),
            (b"Ada:x", Some("tunnel")),
            (b"stranger:x", Some("tunnel")),
            (b"stranger:x", None),
        ],
    );
    assert_eq!(replies, ["!Ada", "!Ada", "!tunnel", "!a stranger"]);
}

/// Keeps what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    fn note(&self, question: &str, datagram: &Datagram<'_>) {
        let identity = datagram.identity.map_or("-".into(), ToString::to_string);
        self.0
            .lock()
            .unwrap()
            .push(format!("{question} {identity}"));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Gate for Asked {
    fn accept(&mut self, _: Timestamp, datagram: &Datagram<'_>) -> Result<(), DropReason> {
        self.note("accept", datagram);
        Ok(())
    }
    fn accept_identified(
        &mut self,
        _: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<(), DropReason> {
        self.note("identified", datagram);
        match datagram.identity {
            Some(identity) if identity.as_bytes() == b"Eve" => Err(DropReason::Gate("withdrawn")),
            _ => Ok(()),
        }
    }
    fn allow_responses(
        &mut self,
        _: Timestamp,
        datagram: &Datagram<'_>,
        _: ResponseSize,
    ) -> Result<(), DropReason> {
        self.note("allow", datagram);
        Ok(())
    }
}

#[test]
fn gates_are_asked_again_once_the_identity_is_known() {
    let asked = Asked::default();
    // In a pair, an option and a pair, as gates are combined.
    let gate = (Some(asked.clone()), ((), None::<Asked>));
    let mut core = Server::builder(named())
        .blocked_ports([])
        .gate(gate)
        .core(WhoAmI);
    for (datagram, identity, expected) in [
        (
            "Ada:x",
            None,
            &["accept -", "identified Ada", "allow Ada"][..],
        ),
        ("Eve:x", None, &["accept -", "identified Eve"]),
        ("Mallory:x", None, &["accept -"]),
        ("stranger:x", None, &["accept -", "allow -"]),
        (
            "stranger:x",
            Some("tunnel"),
            &["accept tunnel", "identified tunnel", "allow tunnel"],
        ),
        (
            "Ada:x",
            Some("tunnel"),
            &["accept tunnel", "identified Ada", "allow Ada"],
        ),
    ] {
        drive(&mut core, &[(datagram.as_bytes(), identity)]);
        assert_eq!(asked.take(), expected, "{datagram}");
    }
    assert_eq!(core.stats().dropped(DropReason::Gate("withdrawn")), 1);
}

#[test]
fn a_limit_per_identity_holds_for_whatever_address() {
    let limit = RateLimit::builder().responses_per_second(2).key([7; 16]);
    let limit = limit.per_identity().build().unwrap();
    let mut core = Server::builder(named()).gate(limit).core(WhoAmI);
    let (mut inbox, mut outbox) = (Inbox::new(16, 512), Outbox::new(256, 512));
    for port in 10_000..10_004 {
        for name in ["Ada", "Eve", "stranger"] {
            inbox.push(format!("{name}:x").as_bytes(), Meta::new(peer(port)));
        }
    }
    core.handle(now(), &mut inbox, &mut outbox);
    assert_eq!(core.stats().dropped(DropReason::RateLimited), 4);
    assert_eq!(core.stats().replied, 8);
}

#[test]
fn a_deferred_request_keeps_its_identity() {
    let asked = Asked::default();
    let mut core = Server::builder(named())
        .blocked_ports([])
        .gate(asked.clone())
        .core(());
    let mut inbox = Inbox::new(8, 512);
    inbox.push(b"Mallory:x", Meta::new(peer(7)));
    inbox.push(b"Ada:x", Meta::new(peer(7)));
    inbox.push_identified(b"stranger:x", Meta::new(peer(7)), &"tunnel".into());
    inbox.push(b"Eve:x", Meta::new(peer(7)));
    let mut all = Vec::new();
    let mut outbox = Outbox::new(64, 512);
    let mut keep = Vec::new();
    while let Some(deferred) = core.defer_next(now(), now(), &mut inbox, &mut outbox, &mut keep) {
        all.push((deferred, keep.clone()));
    }
    // Once the inbox is filled again, nothing of it is left there.
    assert!(inbox.has_space());
    asked.take();
    for (deferred, request) in all {
        let identity = deferred.context().identity().cloned();
        core.answer_deferred(now(), deferred, &request, &mut outbox, |reply| {
            reply.send(&identity.unwrap())
        });
    }
    let replies: Vec<_> = outbox.iter().map(|reply| reply.bytes).collect();
    assert_eq!(replies, [&b"!Ada"[..], b"!tunnel"]);
    assert_eq!(asked.take(), ["allow Ada", "allow tunnel"]);
    assert_eq!(core.stats().dropped(DropReason::Unauthenticated), 1);
    assert_eq!(core.stats().dropped(DropReason::Gate("withdrawn")), 1);
    assert!(core.stats().is_conserved());
}

#[test]
fn behind_a_proxy_the_codec_sees_the_payload_and_the_transport_the_proxy() {
    let proxies = Proxies::builder(ProxyMode::V2);
    let proxies = proxies
        .trust("192.0.2.1".parse().unwrap(), 32)
        .build()
        .unwrap();
    let builder = Server::builder(named()).blocked_ports([]).behind(proxies);
    let mut core = builder.core(WhoAmI);
    let wrapped = |payload: &[u8]| {
        let (client, asked) = ("198.51.100.7:5000".parse(), "198.51.100.1:9".parse());
        let mut datagram = Header::encode_v2(client.unwrap(), asked.unwrap());
        datagram.extend(payload);
        datagram
    };
    let (ada, stranger, mallory) = (wrapped(b"Ada:x"), wrapped(b"stranger:x"), wrapped(b"M:x"));
    let replies = drive(
        &mut core,
        &[
            (&ada, None),
            (&ada, Some("proxy")),
            (&stranger, Some("proxy")),
            (&mallory, None),
        ],
    );
    assert_eq!(replies, ["!Ada", "!Ada", "!proxy"]);
    assert_eq!(core.stats().dropped(DropReason::Unauthenticated), 1);
}

#[test]
fn the_answer_to_one_identity_is_not_repeated_to_another_at_its_address() {
    let once = Dedup::new(WhoAmI, |text: &&str| Some((*text).to_owned()));
    let mut core = open().core(once);
    let replies = drive(
        &mut core,
        &[
            (b"?", Some("Ada")),
            (b"?", Some("Eve")),
            (b"?", Some("Ada")),
        ],
    );
    assert_eq!(replies, ["Ada", "Eve", "Ada"]);
}

/// A node in front of a core that takes the address of a datagram for a proof.
struct Line<N>(N, Inbox);

impl<N: Node> Node for Line<N> {
    fn receive(&mut self, now: Timestamp, inbox: &mut Inbox, outbox: &mut Outbox) {
        while let Some(datagram) = inbox.pop() {
            let identity = Identity::from(datagram.meta.peer.ip().to_string());
            self.1
                .push_identified(datagram.bytes, datagram.meta, &identity);
            self.0.receive(now, &mut self.1, outbox);
        }
    }
}

#[test]
fn a_simulated_network_carries_identities_of_a_line() {
    let net = SimNet::new();
    let server = "10.0.0.1:9999".parse().unwrap();
    let core = ServerCore::new(Text, WhoAmI);
    net.host(server, Line(core, Inbox::new(1, 512))).unwrap();
    for host in ["10.0.0.2", "10.0.0.3"] {
        let mut client = Client::new(net.from_host(host.parse().unwrap()), Text, server);
        assert_eq!(client.request("?").unwrap(), host);
    }
}

#[test]
fn every_reply_of_a_request_has_room_beside_identities() {
    let identity = Identity::from("Ada");
    let mut core = open().core(|_: &str| ["x"; MAX_RESPONSES]);
    let (mut inbox, mut outbox) = (Inbox::new(3, 512), Outbox::new(MAX_RESPONSES, 512));
    for _ in 0..3 {
        inbox.push_identified(b"?", Meta::new(peer(7_777)), &identity);
    }
    while !inbox.is_empty() {
        core.handle(now(), &mut inbox, &mut outbox);
        assert_eq!(outbox.len(), MAX_RESPONSES);
        outbox.clear();
        assert!(core.stats().is_conserved());
    }
    assert_eq!(core.stats().replied, 3);
}
