//! The server that is asked, at whatever addresses it has.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rejoinder::codec::Ctime;
use rejoinder::udp::{UdpConnector, UdpOptions};
use rejoinder::{Client, RequestError, Ticket, Wait};

use super::asker::{Asker, Keys, retry};
use super::name::Name;
use super::output::Answer;
use crate::program::address::reachable;

/// A server, and the client that asks it.
pub(super) struct Server {
    /// The addresses of the server's name: `localhost` is often both `::1` and `127.0.0.1`, and a server
    /// may listen at one of them only. There is at least one.
    peers: Vec<SocketAddr>,
    /// `None` for an IP address.
    name: Option<Name>,
    client: Option<Asker>,
    keys: Keys,
    /// Of a request.
    timeout: Duration,
}

impl Server {
    pub(super) fn new(
        peers: Vec<SocketAddr>,
        name: Option<Name>,
        keys: Keys,
        timeout: Duration,
    ) -> Self {
        Self {
            peers: peers.into_iter().map(reachable).collect(),
            name,
            client: None,
            keys,
            timeout,
        }
    }

    pub(super) fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// The address that is asked next.
    pub(super) fn peer(&self) -> SocketAddr {
        self.client.as_ref().map_or(self.peers[0], Asker::peer)
    }

    /// Asks every address of the server in turn, and resolves its name again if none responds.
    pub(super) fn answer(&mut self, message: &str) -> Result<Answer, RequestError> {
        let begun = Instant::now();
        let result = self.exchange(message, begun);
        if let Some(name) = &mut self.name {
            name.is_doubtful = result.as_ref().is_err_and(may_be_elsewhere);
            if result.is_ok() {
                name.resolved = None;
            }
        }
        match result {
            // So the OS refuses a broadcast address, which only it knows as one.
            Err(RequestError::Connect { peer, source })
                if source.kind() == ErrorKind::PermissionDenied
                    && peer.is_ipv4()
                    // Over DTLS, a group cannot be asked.
                    && matches!(self.client, Some(Asker::Plain(_))) =>
            {
                self.ask_broadcast(peer, message, begun)
            }
            result => result,
        }
    }

    fn exchange(&mut self, message: &str, begun: Instant) -> Result<Answer, RequestError> {
        let mut ticket = self.submit(message)?;
        // Why it was sent to other addresses, which have the time that is left.
        let mut refused = None;
        let mut resolve_at = self.name.as_ref().map(|name| name.due(begun, self.timeout));
        loop {
            let until_due = resolve_at.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = match until_due {
                None if refused.is_some() => Wait::For(self.left(begun)),
                None => Wait::Forever,
                // The resolver works meanwhile.
                Some(Duration::ZERO) => Wait::For(LOOK_AT_LOOKUP),
                Some(time) => Wait::For(time),
            };
            if until_due == Some(Duration::ZERO)
                && self.resolve_again(begun, Duration::ZERO).is_some()
            {
                resolve_at = None;
                continue;
            }
            let left = self.left(begun);
            let Some(client) = &mut self.client else {
                unreachable!("a message was submitted to it")
            };
            match client.collect(wait, begun) {
                None => {
                    if let Some(error) = refused.take_if(|_| left.is_zero()) {
                        client.cancel(ticket);
                        return Err(error);
                    }
                }
                // All its addresses refuse. The time that is left is for new ones.
                Some(Err(error))
                    if may_be_elsewhere(&error)
                        && resolve_at.is_some()
                        && self.may_resolve(begun) =>
                {
                    resolve_at = None;
                    if self.resolve_again(begun, self.left(begun)) != Some(true) {
                        return Err(error);
                    }
                    ticket = self.submit(message)?;
                    refused = Some(error);
                }
                Some(result) => return result,
            }
        }
    }

    fn left(&self, begun: Instant) -> Duration {
        self.timeout.saturating_sub(begun.elapsed())
    }

    /// Whether there is time to resolve the name again, and reason to.
    fn may_resolve(&self, begun: Instant) -> bool {
        let Some(name) = &self.name else {
            return false;
        };
        let earliest = name.earliest(self.timeout);
        earliest.is_none_or(|at| at <= Instant::now()) && !self.left(begun).is_zero()
    }

    /// Takes the addresses that the name has since a request began, if they are found in this time, and returns
    /// whether there is a new one.
    fn resolve_again(&mut self, begun: Instant, time: Duration) -> Option<bool> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (asked, found) = self.name.as_mut()?.find(left)?;
            let is_new = self.take_peers(found);
            // A lookup for an earlier request may have found what was true then.
            if is_new || asked >= begun {
                return Some(is_new);
            }
        }
    }

    fn take_peers(&mut self, found: Vec<SocketAddr>) -> bool {
        let found: Vec<_> = found.into_iter().map(reachable).collect();
        let [first, others @ ..] = &found[..] else {
            return false;
        };
        if let Some(client) = &mut self.client {
            client.set_peers(*first, others);
        }
        let is_new = found.iter().any(|peer| !self.peers.contains(peer));
        self.peers = found;
        is_new
    }

    fn submit(&mut self, message: &str) -> Result<Ticket, RequestError> {
        if let Some(client) = &mut self.client {
            match client.submit(message) {
                // Sockets cool down, to which responses may be under way. Another client has others.
                Err(RequestError::WindowFull { .. }) => {}
                result => return result,
            }
        }
        let mut client = self.connect()?;
        let result = client.submit(message);
        self.client = Some(client);
        result
    }

    /// Asks all who hear an address, and takes the first response.
    fn ask_broadcast(
        &self,
        peer: SocketAddr,
        message: &str,
        begun: Instant,
    ) -> Result<Answer, RequestError> {
        let udp = UdpOptions::new().broadcast(true);
        let mut client = plain(peer, &[], self.timeout, udp)?;
        let mut responses = client.discover(message, self.left(begun))?;
        match responses.next_response() {
            Some((peer, frame)) => Ok(Answer::new(peer, &frame?, begun.elapsed())),
            None => Err(RequestError::TimedOut {
                peer,
                after: begun.elapsed(),
                sends: 1,
                ignored: 0,
            }),
        }
    }

    /// A client for the addresses, in their order.
    fn connect(&self) -> Result<Asker, RequestError> {
        let [peer, others @ ..] = &self.peers[..] else {
            unreachable!("a name has at least one address")
        };
        #[cfg(feature = "dtls")]
        if let Some(asker) = self.keys.connect(*peer, others, self.timeout)? {
            return Ok(asker);
        }
        let Keys { .. } = self.keys;
        let plain = plain(*peer, others, self.timeout, UdpOptions::new())?;
        Ok(Asker::Plain(Box::new(plain)))
    }
}

fn plain(
    peer: SocketAddr,
    others: &[SocketAddr],
    timeout: Duration,
    udp: UdpOptions,
) -> Result<Client<UdpConnector, Ctime>, RequestError> {
    Client::builder(Ctime::local())
        .timeout(timeout)
        .fail_when_unreachable(true)
        .udp_options(udp)
        .other_peers(others.iter().copied())
        .retry(retry(1 + others.len()))
        .connect(peer)
        .map_err(|error| RequestError::Connect {
            peer,
            source: error.into(),
        })
}

/// Whether the server may well listen at another address of its name.
pub(super) fn may_be_elsewhere(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::NobodyListening { .. }
            | RequestError::Unreachable { .. }
            | RequestError::Connect { .. }
            | RequestError::NotSent { .. }
            | RequestError::TimedOut { .. }
            | RequestError::Malformed { .. }
    )
}

/// How often a lookup is looked at while a response may come.
const LOOK_AT_LOOKUP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::{Duration, Instant};

    use rejoinder::RequestError;

    use super::{Keys, Name, Server};
    use crate::ask::name::RESOLVE_AFTER;
    use crate::program::Failure;
    use crate::program::lookup::{Found, Resolve};

    /// Answers with a frame.
    fn answering() -> SocketAddr {
        let (socket, addr) = silent();
        thread::spawn(move || {
            loop {
                if let Ok((_, peer)) = socket.recv_from(&mut [0; 2_048]) {
                    let _ = socket.send_to(b"[b'Sun Jul  7 17:17:58 2019']yes", peer);
                }
            }
        });
        addr
    }

    fn silent() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = socket.local_addr().expect("it is bound");
        (socket, addr)
    }

    /// Refuses, and keeps its port from others: a connected socket receives from one peer only.
    fn refusing() -> (UdpSocket, SocketAddr) {
        let (socket, addr) = silent();
        socket.connect("127.0.0.1:9").expect("it needs no peer");
        (socket, addr)
    }

    /// A server with a name, which had some addresses before and has others since, and how
    /// often it was resolved.
    fn server(
        before: &[SocketAddr],
        after: impl Fn() -> Found + Send + Sync + 'static,
        timeout: Duration,
    ) -> (Server, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let resolve: Resolve = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            after()
        });
        #[cfg(feature = "dtls")]
        let keys = Keys::read(None).expect("there is no file");
        #[cfg(not(feature = "dtls"))]
        let keys = Keys;
        let mut name = Name::new(resolve);
        // It was resolved long ago.
        name.resolved = None;
        (
            Server::new(before.to_vec(), Some(name), keys, timeout),
            count,
        )
    }

    fn asks(server: &mut Server) -> Result<SocketAddr, RequestError> {
        server.answer("?").map(|answer| answer.server())
    }

    #[test]
    fn a_name_is_resolved_once_more_when_its_addresses_refuse() {
        let ((_one, refusing), up) = (refusing(), answering());
        let (mut server, count) = server(&[refusing], move || Ok(vec![up]), LONG);
        assert_eq!(asks(&mut server).expect("an answer"), up);
        assert_eq!(asks(&mut server).expect("an answer"), up);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_request_without_a_response_moves_to_the_new_address_of_the_name() {
        let ((_one, silent), up) = (silent(), answering());
        let (mut server, _) = server(&[silent], move || Ok(vec![up]), LONG);
        assert_eq!(asks(&mut server).expect("an answer"), up);
    }

    #[test]
    fn the_next_request_has_the_name_resolved_at_once() {
        let ((_one, silent), up) = (silent(), answering());
        let names = Arc::new(Mutex::new(vec![silent]));
        let found = Arc::clone(&names);
        let find = move || Ok(found.lock().expect("no thread panicked").clone());
        let (mut server, count) = server(&[silent], find, Duration::from_millis(20));
        let error = asks(&mut server).expect_err("it is silent");
        assert!(
            matches!(error, RequestError::TimedOut { peer, .. } if peer == silent),
            "{error:?}"
        );
        let failed = count.load(Ordering::Relaxed);
        *names.lock().expect("no thread panicked") = vec![up];
        server.timeout = LONG;
        server.client = None;
        let begun = Instant::now();
        let due = server.name.as_ref().expect("it has one").due(begun, LONG);
        let resolved = server.name.as_ref().expect("it has one").resolved;
        // Not before the pause after the last time, if the request came to that.
        assert_eq!(
            due,
            resolved.map_or(begun, |at| begun.max(at + RESOLVE_AFTER))
        );
        assert_eq!(asks(&mut server).expect("an answer"), up);
        assert_eq!(count.load(Ordering::Relaxed), failed + 1);
    }

    #[test]
    fn a_refusal_is_reported_at_once_if_the_name_has_nothing_new() {
        let (_one, refusing) = refusing();
        let same = move || Ok(vec![refusing]);
        let unknown = || Err(Failure::RunTime("no such name".to_owned()));
        let lookups: [Box<dyn Fn() -> Found + Send + Sync>; 3] = [
            Box::new(same),
            Box::new(unknown),
            Box::new(|| Ok(Vec::new())),
        ];
        for lookup in lookups {
            let (mut server, count) = server(&[refusing], lookup, LONG);
            for _ in 0..10 {
                let error = asks(&mut server).expect_err("it refuses");
                assert!(
                    matches!(error, RequestError::NobodyListening { peer } if peer == refusing),
                    "{error:?}"
                );
            }
            assert!(count.load(Ordering::Relaxed) >= 1);
        }
    }

    #[test]
    fn a_resolver_that_hangs_delays_no_answer_and_is_started_once() {
        let (socket, slow) = silent();
        // It returns when the sender is dropped.
        let (_hangs, until) = mpsc::channel::<()>();
        let until = Mutex::new(until);
        let hangs = move || {
            let _ = until.lock().expect("no thread panicked").recv();
            Ok(Vec::new())
        };
        let (mut server, count) = server(&[slow], hangs, LONG);
        let name = server.name.as_mut().expect("it has one");
        name.is_doubtful = true;
        let started = Arc::clone(&count);
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                while started.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                let _ = socket.send_to(b"[b'Sun Jul  7 17:17:58 2019']yes", peer);
            }
        });
        for _ in 0..3 {
            assert_eq!(asks(&mut server).expect("an answer"), slow);
            server.name.as_mut().expect("it has one").is_doubtful = true;
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_silent_address_leaves_time_for_the_others() {
        let ((_one, silent), up) = (silent(), answering());
        let (mut server, _) = server(
            &[silent, up],
            move || Ok(vec![silent, up]),
            Duration::from_secs(2),
        );
        assert_eq!(asks(&mut server).expect("an answer"), up);
    }

    /// Nothing is waited for as long as that.
    const LONG: Duration = Duration::from_secs(60);
}
