use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Kept, Violation, require};
use crate::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox, SendReport, Transport, Wait};

/// Two transports that can reach each other, with nothing else on the way between them, and no
/// faults.
///
/// ```
/// use rejoinder::sim::SimNet;
/// use rejoinder::testing::Pair;
///
/// let net = SimNet::new();
/// let pair = Pair::new(
///     net.bind("10.0.0.1:0".parse()?)?,
///     net.bind("10.0.0.2:0".parse()?)?,
/// )?;
/// assert_eq!(pair.other_addr, "10.0.0.2:49152".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Pair<A, B> {
    /// One of them.
    pub one: A,
    /// The address at which the other reaches it.
    pub one_addr: SocketAddr,
    /// The other.
    pub other: B,
    /// Its address.
    pub other_addr: SocketAddr,
}

impl<A: Transport, B: Transport> Pair<A, B> {
    /// A pair at the addresses that the two say they have.
    pub fn new(one: A, other: B) -> io::Result<Self> {
        Ok(Self {
            one_addr: one.local_addr()?,
            other_addr: other.local_addr()?,
            one,
            other,
        })
    }

    /// The same pair, if the other is reached at another IP address than it says: because it is
    /// bound to `[::]`, say.
    ///
    /// ```
    /// use rejoinder::udp::UdpTransport;
    /// use rejoinder::testing::Pair;
    ///
    /// let bind = UdpTransport::bind;
    /// let pair = Pair::new(bind("127.0.0.1:0")?, bind("0.0.0.0:0")?)?;
    /// let pair = pair.other_at("127.0.0.1".parse()?);
    /// assert!(pair.other_addr.ip().is_loopback());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn other_at(mut self, ip: IpAddr) -> Self {
        self.other_addr.set_ip(ip);
        self
    }
}

/// Checks what [`Transport`] says of every transport, of both of a pair. `open` opens a fresh pair
/// for each requirement.
///
/// The requirements, by the names that the error gives:
///
/// - "a datagram arrives as it was sent": empty, short and long ones, in both directions.
/// - "a longer datagram is marked as truncated": and one that fits exactly is not.
/// - "the peer has its canonical address": the answer is sent there and received.
/// - "the local address is reported": if any is.
/// - "recv returns how many datagrams there are": and never more than the inbox has room for.
/// - "nothing is received twice".
/// - "recv waits no longer than it should": not at all, or for a while, with nothing to receive.
/// - "every datagram of an outbox is tried": though one cannot be sent.
/// - "datagrams to a peer are sent in order".
/// - "an answer leaves from the address that was asked".
/// - "the clock never goes back".
///
/// An error when a pair is opened, or of `recv` in between, is a violation too.
///
/// ```
/// use rejoinder::udp::UdpTransport;
/// use rejoinder::testing::{Pair, transport_conformance};
///
/// transport_conformance(|| {
///     let bind = || UdpTransport::bind("127.0.0.1:0");
///     Pair::new(bind()?, bind()?)
/// })?;
/// # Ok::<(), rejoinder::testing::Violation>(())
/// ```
pub fn transport_conformance<A: Transport, B: Transport>(
    mut open: impl FnMut() -> io::Result<Pair<A, B>>,
) -> Kept {
    let checks: [fn(&mut Ends<'_>) -> Kept; 7] = [
        arrives_whole,
        truncation_is_told,
        addresses_are_told,
        counts_are_right,
        waits_end,
        all_are_tried,
        answers_leave_from_where_was_asked,
    ];
    for check in checks {
        let mut pair = open().map_err(|error| Violation {
            requirement: "a pair can be opened",
            found: error.to_string(),
        })?;
        let Pair {
            one,
            one_addr,
            other,
            other_addr,
        } = &mut pair;
        check(&mut Ends {
            from: one,
            from_addr: *one_addr,
            to: other,
            to_addr: *other_addr,
        })?;
        check(&mut Ends {
            from: other,
            from_addr: *other_addr,
            to: one,
            to_addr: *one_addr,
        })?;
    }
    Ok(())
}

struct Ends<'a> {
    from: &'a mut dyn Transport,
    from_addr: SocketAddr,
    to: &'a mut dyn Transport,
    to_addr: SocketAddr,
}

impl Ends<'_> {
    fn send(&mut self, datagrams: &[&[u8]]) -> SendReport {
        let outbox = outbox(datagrams.iter().map(|&bytes| (self.to_addr, bytes)));
        self.from.send(&outbox)
    }

    /// Receives until `count` datagrams are there, or nothing comes any more.
    fn receive(
        &mut self,
        count: usize,
        inbox: &mut Inbox,
    ) -> Result<Vec<(Vec<u8>, Meta)>, Violation> {
        let mut received = Vec::new();
        let deadline = self.to.now().monotonic + PATIENCE;
        while received.len() < count {
            let left = deadline.saturating_sub(self.to.now().monotonic);
            if left.is_zero() {
                break;
            }
            recv(self.to, inbox, Wait::For(left))?;
            received.extend(drain(inbox));
        }
        Ok(received)
    }
}

fn arrives_whole(ends: &mut Ends<'_>) -> Kept {
    let long: Vec<_> = (0_u8..=250).cycle().take(LONG_BYTES).collect();
    for bytes in [&b""[..], b"x", b"\0\xff\r\n", &long] {
        let sent = ends.send(&[bytes]);
        require(WHOLE, sent.sent == 1 && sent.failed == 0, || {
            format!("{} bytes were not sent: {sent:?}", bytes.len())
        })?;
        let received = ends.receive(1, &mut Inbox::new(4, MAX_DATAGRAM_BYTES))?;
        require(
            WHOLE,
            matches!(&received[..], [(got, meta)] if got == bytes && !meta.truncated),
            || {
                let lengths: Vec<_> = received
                    .iter()
                    .map(|(got, meta)| (got.len(), meta))
                    .collect();
                format!("sent {} bytes, received {lengths:?}", bytes.len())
            },
        )?;
    }
    Ok(())
}

fn truncation_is_told(ends: &mut Ends<'_>) -> Kept {
    for (len, limit) in [(9, 10), (10, 10), (11, 10), (500, 10), (1, 0), (0, 0)] {
        ends.send(&[&vec![7; len]]);
        let received = ends.receive(1, &mut Inbox::new(4, limit))?;
        require(
            "a longer datagram is marked as truncated",
            matches!(&received[..], [(_, meta)] if meta.truncated == (len > limit)),
            || format!("{len} bytes, limit {limit}: {:?}", received.first()),
        )?;
    }
    Ok(())
}

fn addresses_are_told(ends: &mut Ends<'_>) -> Kept {
    ends.send(&[b"who?"]);
    let received = ends.receive(1, &mut Inbox::new(4, 100))?;
    let Some((_, meta)) = received.first() else {
        return require(WHOLE, false, || "nothing arrived".to_owned());
    };
    require(
        "the peer has its canonical address",
        meta.peer.ip() == meta.peer.ip().to_canonical() && meta.peer == ends.from_addr,
        || format!("{}, not {}", meta.peer, ends.from_addr),
    )?;
    require(
        "the local address is reported",
        meta.local.is_none_or(|local| local == ends.to_addr.ip()),
        || format!("{:?}, not {}", meta.local, ends.to_addr.ip()),
    )
}

fn counts_are_right(ends: &mut Ends<'_>) -> Kept {
    let numbers: Vec<_> = (0..SMALL_DATAGRAMS).map(|number| [number; 4]).collect();
    let datagrams: Vec<_> = numbers.iter().map(|number| &number[..]).collect();
    ends.send(&datagrams);
    let mut inbox = Inbox::new(3, 8);
    let mut received = Vec::new();
    let deadline = ends.to.now().monotonic + PATIENCE;
    let mut before = ends.to.now().monotonic;
    while received.len() < numbers.len() && ends.to.now().monotonic < deadline {
        let count = recv(ends.to, &mut inbox, Wait::For(PATIENCE))?;
        require(
            "recv returns how many datagrams there are",
            count == inbox.len(),
            || format!("{count}, not {}", inbox.len()),
        )?;
        received.extend(drain(&mut inbox).into_iter().map(|(bytes, _)| bytes));
        let now = ends.to.now().monotonic;
        require("the clock never goes back", now >= before, || {
            format!("from {before:?} to {now:?}")
        })?;
        before = now;
    }
    recv(ends.to, &mut inbox, Wait::No)?;
    let more = drain(&mut inbox);
    require("nothing is received twice", more.is_empty(), || {
        format!("{more:?} once more")
    })?;
    let mut sorted = received.clone();
    sorted.sort_unstable();
    require(
        "every datagram of an outbox is tried",
        sorted == datagrams,
        || {
            format!(
                "{} of {} arrived: {sorted:?}",
                received.len(),
                numbers.len()
            )
        },
    )?;
    require(
        "datagrams to a peer are sent in order",
        received == sorted,
        || format!("{received:?}"),
    )
}

fn waits_end(ends: &mut Ends<'_>) -> Kept {
    const REQUIREMENT: &str = "recv waits no longer than it should";
    let mut inbox = Inbox::new(1, 8);
    for wait in [Wait::No, Wait::For(Duration::ZERO), Wait::For(SHORT)] {
        let begun = ends.to.now().monotonic;
        let count = recv(ends.to, &mut inbox, wait)?;
        let took = ends.to.now().monotonic.saturating_sub(begun);
        require(REQUIREMENT, count == 0 && inbox.is_empty(), || {
            format!("{count} datagrams out of nothing")
        })?;
        // Generous, because a real machine may be busy.
        require(REQUIREMENT, took < PATIENCE, || {
            format!("{took:?}, for {wait:?}")
        })?;
    }
    Ok(())
}

fn all_are_tried(ends: &mut Ends<'_>) -> Kept {
    const REQUIREMENT: &str = "every datagram of an outbox is tried";
    let nowhere = SocketAddr::new(ends.to_addr.ip(), 0);
    let outbox = outbox([
        (ends.to_addr, &b"first"[..]),
        (nowhere, b"to nowhere"),
        (ends.to_addr, b"last"),
    ]);
    let sent = ends.from.send(&outbox);
    require(REQUIREMENT, sent.sent + sent.failed == 3, || {
        format!("{sent:?} of three datagrams")
    })?;
    require(
        REQUIREMENT,
        sent.failed == 0 || sent.last_error.is_some(),
        || "a failure without an error".to_owned(),
    )?;
    let received = ends.receive(2, &mut Inbox::new(4, 100))?;
    let bytes: Vec<_> = received.iter().map(|(bytes, _)| &bytes[..]).collect();
    require(REQUIREMENT, bytes == [&b"first"[..], b"last"], || {
        format!(
            "{} of two arrived around one that cannot be sent",
            bytes.len()
        )
    })
}

fn answers_leave_from_where_was_asked(ends: &mut Ends<'_>) -> Kept {
    ends.send(&[b"question"]);
    let received = ends.receive(1, &mut Inbox::new(4, 100))?;
    let Some((_, meta)) = received.first() else {
        return require(WHOLE, false, || "nothing arrived".to_owned());
    };
    let mut answer = Outbox::new(1, 100);
    push(&mut answer, meta.peer, meta.local, b"answer");
    let sent = ends.to.send(&answer);
    require(WHOLE, sent.sent == 1, || {
        format!("the answer was not sent: {sent:?}")
    })?;
    let mut back = Ends {
        from: &mut *ends.to,
        from_addr: ends.to_addr,
        to: &mut *ends.from,
        to_addr: ends.from_addr,
    };
    let received = back.receive(1, &mut Inbox::new(4, 100))?;
    require(
        "an answer leaves from the address that was asked",
        matches!(&received[..], [(bytes, meta)] if bytes == b"answer" && meta.peer == back.from_addr),
        || format!("{received:?}, not from {}", back.from_addr),
    )
}

fn recv(transport: &mut dyn Transport, inbox: &mut Inbox, wait: Wait) -> Result<usize, Violation> {
    loop {
        match transport.recv(inbox, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Violation {
                    requirement: "recv fails only if something failed",
                    found: error.to_string(),
                });
            }
            Ok(count) => return Ok(count),
        }
    }
}

fn drain(inbox: &mut Inbox) -> Vec<(Vec<u8>, Meta)> {
    let mut drained = Vec::new();
    while let Some(datagram) = inbox.pop() {
        drained.push((datagram.bytes.to_vec(), datagram.meta));
    }
    drained
}

fn outbox<'a>(datagrams: impl IntoIterator<Item = (SocketAddr, &'a [u8])>) -> Outbox {
    let mut outbox = Outbox::new(SMALL_DATAGRAMS.into(), MAX_DATAGRAM_BYTES);
    for (peer, bytes) in datagrams {
        push(&mut outbox, peer, None, bytes);
    }
    outbox
}

fn push(outbox: &mut Outbox, peer: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) {
    let pushed = outbox.push(peer, local, bytes);
    pushed.expect("the outbox is large enough");
}

const WHOLE: &str = "a datagram arrives as it was sent";
/// Few enough for any receive buffer.
const SMALL_DATAGRAMS: u8 = 20;
/// Passes every MTU but no limit of UDP.
const LONG_BYTES: usize = 9_000;
const SHORT: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(5);
