//! What a server logs, and what it keeps the network from writing there.

use std::fmt::{self, Write as _};
use std::io::ErrorKind;
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use rejoinder::codec::Text;
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, Meta, Outbox, SendReport};
use rejoinder::{Codec, DropReason, Server, Timestamp, Writer};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Keeps every event as one line.
#[derive(Clone)]
struct Lines {
    max: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    fn new(max: Level) -> Self {
        // What `tracing` remembers of each place that logs holds for the whole process, and the tests beside
        // this one begin and end subscribers meanwhile. With this one, which stays, each event is asked for.
        static ASK: Once = Once::new();
        ASK.call_once(|| tracing::subscriber::set_global_default(Self::of(Level::ERROR)).unwrap());
        Self::of(max)
    }

    fn of(max: Level) -> Self {
        Self {
            max,
            lines: Arc::default(),
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.max && metadata.target().starts_with("rejoinder")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// A codec whose errors quote what came, as a careless one might.
struct Quoting;

#[derive(Debug)]
struct Quoted(String);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.0)
    }
}

impl std::error::Error for Quoted {}

impl Codec for Quoting {
    type Request<'a> = &'a str;
    type Response<'a> = &'a str;
    type Answer<'a> = &'a str;
    type Error = Quoted;

    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Quoted> {
        Err(Quoted(String::from_utf8_lossy(datagram).into_owned()))
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        answer: &str,
        out: &mut Writer<'_>,
    ) -> Result<(), Quoted> {
        out.put(answer.as_bytes());
        Ok(())
    }
    fn encode_request(&self, _: u64, request: &str, out: &mut Writer<'_>) -> Result<(), Quoted> {
        out.put(request.as_bytes());
        Ok(())
    }
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<&'a str, Quoted> {
        self.decode_request(datagram)
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::new(Duration::from_millis(millis), SystemTime::UNIX_EPOCH)
}

fn batch(datagrams: &[&[u8]]) -> (Inbox, Outbox) {
    let mut inbox = Inbox::new(datagrams.len(), 1_024);
    for bytes in datagrams {
        inbox.push(bytes, Meta::new("192.0.2.1:50000".parse().unwrap()));
    }
    (inbox, Outbox::new(MAX_RESPONSES, 1_024))
}

#[test]
fn what_came_from_the_network_cannot_act_on_the_log() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Quoting, |_: &str| ());
        let hostile = "a\r\nERROR forged \u{1b}[2J\u{202e}\u{2028}\0 %s {} 你好".as_bytes();
        let (mut inbox, mut outbox) = batch(&[hostile]);
        core.handle(at(0), &mut inbox, &mut outbox);
    });
    assert_eq!(
        lines.take(),
        [concat!(
            r"DEBUG message=dropped a datagram peer=192.0.2.1:50000 reason=malformed ",
            r"cause=cannot read a\r\nERROR forged \u{1b}[2J\u{202e}\u{2028}\u{0} %s {} 你好 left_out=0",
        )]
    );
}

/// A codec whose errors misbehave when they are shown: the request says how.
struct Unshowable;

#[derive(Debug)]
enum Bad {
    Fails,
    Panics,
    Endless,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails => Err(fmt::Error),
            Self::Panics => panic::panic_any(OnPurpose),
            Self::Endless => f.write_str("again"),
        }
    }
}

impl std::error::Error for Bad {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        matches!(self, Self::Endless).then_some(&Self::Endless)
    }
}

impl Codec for Unshowable {
    type Request<'a> = ();
    type Response<'a> = ();
    type Answer<'a> = ();
    type Error = Bad;

    fn decode_request(&self, datagram: &[u8]) -> Result<(), Bad> {
        match datagram {
            b"fail" => Err(Bad::Fails),
            b"panic" => Err(Bad::Panics),
            b"endless" => Err(Bad::Endless),
            _ => Ok(()),
        }
    }
    fn encode_response(
        &self,
        _: Timestamp,
        _: &[u8],
        (): (),
        _: &mut Writer<'_>,
    ) -> Result<(), Bad> {
        Ok(())
    }
    fn encode_request(&self, _: u64, (): (), _: &mut Writer<'_>) -> Result<(), Bad> {
        Ok(())
    }
    fn decode_response(&self, _: &[u8]) -> Result<(), Bad> {
        Ok(())
    }
    fn is_response(&self, _: &[u8]) -> bool {
        false
    }
}

#[test]
fn an_error_that_cannot_be_shown_does_not_end_the_server() {
    quiet_panics();
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Unshowable, |()| ());
        let (mut inbox, mut outbox) = batch(&[b"panic", b"fail", b"endless", b"good"]);
        core.handle(at(0), &mut inbox, &mut outbox);
        let stats = core.stats();
        assert_eq!(stats.dropped(DropReason::Malformed), 3);
        assert_eq!(stats.silent, 1);
        assert!(stats.is_conserved());
    });
    let told = lines.take();
    let [failed, endless] = &told[..] else {
        panic!("two lines: {told:?}")
    };
    assert!(
        failed.contains("cause=(an error that cannot be shown) "),
        "{failed}"
    );
    assert!(endless.contains("cause=again: again: "), "{endless}");
}

#[test]
fn of_an_error_that_quotes_much_the_log_tells_the_first_200_characters() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Quoting, |_: &str| ());
        // With "cannot read " before it, 200 characters and 201.
        let (fits, does_not) = ("好".repeat(188), "好".repeat(189));
        let (mut inbox, mut outbox) = batch(&[fits.as_bytes(), does_not.as_bytes()]);
        core.handle(at(0), &mut inbox, &mut outbox);
        let told = lines.take();
        let cause = format!("cause=cannot read {fits}");
        assert!(told[0].contains(&format!("{cause} left_out")), "{told:?}");
        assert!(told[1].contains(&format!("{cause}… left_out")), "{told:?}");
    });
}

#[test]
fn a_flood_is_told_in_a_few_lines_and_how_many_were_left_out() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Text, |_: &str| ());
        let flood = vec![&b"\xff"[..]; 1_000];
        let (mut inbox, mut outbox) = batch(&flood);
        core.handle(at(0), &mut inbox, &mut outbox);
        let (mut inbox, mut outbox) = batch(&flood);
        core.handle(at(999), &mut inbox, &mut outbox);
        assert_eq!(lines.take().len(), 10);

        let (mut inbox, mut outbox) = batch(&[b"\xff"]);
        core.handle(at(1_000), &mut inbox, &mut outbox);
        let [line] = &lines.take()[..] else {
            panic!("one line")
        };
        assert!(line.ends_with("left_out=1990"), "{line}");

        // They are reported once.
        let (mut inbox, mut outbox) = batch(&[b"\xff"]);
        core.handle(at(1_000), &mut inbox, &mut outbox);
        let [line] = &lines.take()[..] else {
            panic!("one line")
        };
        assert!(line.ends_with("left_out=0"), "{line}");
    });
}

/// What tests panic with.
struct OnPurpose;

/// Keeps the panics that tests cause on purpose out of their output.
fn quiet_panics() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<OnPurpose>() {
                loud(info);
            }
        }));
    });
}

#[test]
fn a_flood_of_drops_does_not_hide_what_the_operator_should_know() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        quiet_panics();
        let mut core = ServerCore::new(Text, |_: &str| -> () { panic::panic_any(OnPurpose) });
        let (mut inbox, mut outbox) = batch(&[&b"\xff"[..]; 1_000]);
        core.handle(at(0), &mut inbox, &mut outbox);
        lines.take();

        let (mut inbox, mut outbox) = batch(&[b"x"]);
        core.handle(at(0), &mut inbox, &mut outbox);
        core.on_receive_error(at(0), &ErrorKind::OutOfMemory.into());
        core.on_receive_error(at(0), &ErrorKind::Interrupted.into());
        let mut sent = SendReport::default();
        sent.record_failure(ErrorKind::PermissionDenied.into());
        core.on_sent(&sent);
    });
    assert_eq!(
        lines.take(),
        [
            "ERROR message=the handler panicked peer=192.0.2.1:50000 left_out=0",
            "WARN message=receiving failed error=out of memory class=Resources left_out=0",
            "WARN message=sending failed error=permission denied class=Configuration datagrams=1 left_out=0",
        ]
    );
}

#[test]
fn drops_are_not_told_unless_asked_for() {
    let lines = Lines::new(Level::INFO);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Text, |_: &str| ());
        let (mut inbox, mut outbox) = batch(&[b"\xff"]);
        core.handle(at(0), &mut inbox, &mut outbox);
        assert!(lines.take().is_empty());
    });
}

#[test]
#[cfg_attr(miri, ignore = "needs a socket")]
fn the_beginning_and_the_end_of_a_server_are_told() {
    let lines = Lines::new(Level::INFO);
    tracing::subscriber::with_default(lines.clone(), || {
        let server = Server::builder(Text).bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        server.handle().shutdown();
        server.serve(|_: &str| ()).unwrap();
        let told = lines.take();
        assert_eq!(told[0], format!("INFO message=serving addr={addr}"));
        assert!(
            told[1].starts_with("INFO message=ended stats=received 0: "),
            "{told:?}"
        );
    });
}

#[test]
fn errors_that_anybody_can_cause_do_not_hide_a_panic() {
    let lines = Lines::new(Level::WARN);
    tracing::subscriber::with_default(lines.clone(), || {
        quiet_panics();
        let mut core = ServerCore::new(Text, |_: &str| -> () { panic::panic_any(OnPurpose) });
        for _ in 0..100 {
            core.on_receive_error(at(0), &ErrorKind::ConnectionRefused.into());
            let mut sent = SendReport::default();
            sent.record_failure(ErrorKind::HostUnreachable.into());
            core.on_sent(&sent);
        }
        assert_eq!(lines.take().len(), 10);
        let (mut inbox, mut outbox) = batch(&[b"x"]);
        core.handle(at(0), &mut inbox, &mut outbox);
    });
    assert_eq!(
        lines.take(),
        ["ERROR message=the handler panicked peer=192.0.2.1:50000 left_out=0"]
    );
}

#[test]
fn an_identity_is_logged_with_what_its_peer_was_refused_and_cannot_act_on_the_log() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = ServerCore::new(Text, |_: &str| ());
        let (mut inbox, mut outbox) = (Inbox::new(3, 512), Outbox::new(MAX_RESPONSES, 512));
        let meta = Meta::new("192.0.2.1:50000".parse().unwrap());
        let long = "x".repeat(300);
        for identity in ["sensor", "a\r\nERROR \u{1b}[2J\u{202e}", &long] {
            inbox.push_identified(b"\xff", meta, &identity.into());
        }
        core.handle(at(0), &mut inbox, &mut outbox);
    });
    let told = lines.take();
    let shown: Vec<_> = told
        .iter()
        .map(|line| {
            let (_, rest) = line.split_once(" identity=").unwrap();
            rest.split_once(" reason=malformed").unwrap().0
        })
        .collect();
    let cut = "x".repeat(200) + "…";
    assert_eq!(shown, ["sensor", r"a\r\nERROR \u{1b}[2J\u{202e}", &cut]);
}

/// A deferred request that is given up is logged with its identity, too.
#[test]
fn an_identity_of_a_deferred_request_is_logged() {
    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let mut core = Server::builder(Text).core(());
        let mut inbox = Inbox::new(1, 512);
        let meta = Meta::new("192.0.2.1:50000".parse().unwrap());
        inbox.push_identified(b"?", meta, &"sensor".into());
        let deferred = core.defer_next(
            at(0),
            at(0),
            &mut inbox,
            &mut Outbox::new(64, 512),
            &mut Vec::new(),
        );
        core.drop_deferred(at(0), deferred.unwrap(), DropReason::HandlerTimedOut);
    });
    let told = lines.take();
    assert!(
        told[0].contains(" identity=sensor reason=handler timed out"),
        "{told:?}"
    );
}

#[cfg(feature = "signed")]
#[test]
fn the_cause_of_a_datagram_that_proves_nothing_is_logged() {
    use rejoinder::codec::{Signed, SigningKey};

    let lines = Lines::new(Level::DEBUG);
    tracing::subscriber::with_default(lines.clone(), || {
        let key = SigningKey::new(1, [1; 32]);
        let codec = Signed::builder(Text).key(key).build(at(0)).unwrap();
        let mut core = ServerCore::new(codec, |_: &str| ());
        let (mut inbox, mut outbox) = batch(&[b"hello"]);
        core.handle(at(0), &mut inbox, &mut outbox);
    });
    assert_eq!(
        lines.take(),
        [concat!(
            "DEBUG message=dropped a datagram peer=192.0.2.1:50000 reason=unauthenticated ",
            "cause=not a signed message left_out=0",
        )]
    );
}
