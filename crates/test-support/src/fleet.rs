//! Clients that ask through a balancer, one question after the other, and count what becomes of each.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What clients do.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Where they ask.
    pub server: SocketAddr,
    /// Where each asks from.
    pub from: Vec<IpAddr>,
    /// How many requests they make at least, all together.
    pub requests: u64,
    /// After how many requests a client takes another socket, and so another port.
    pub per_socket: u64,
    /// After how long without an answer a request is sent again.
    pub timeout: Duration,
    /// How often a request is sent at most.
    pub attempts: u32,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that got the right answer.
    pub right: u64,
    /// Datagrams that are no answer to any request of their client.
    pub wrong: u64,
    /// Datagrams without a byte, which no node sends. nginx does, where a node refuses a request.
    pub empty: u64,
    /// Requests without an answer after all attempts.
    pub lost: u64,
    /// Requests that were sent again.
    pub sent_again: u64,
    /// The longest time that a request waited for its answer.
    pub longest: Duration,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.empty += other.empty;
        self.lost += other.lost;
        self.sent_again += other.sent_again;
        self.longest = self.longest.max(other.longest);
    }
}

/// How far the clients are.
#[derive(Debug, Default)]
pub struct Progress {
    answered: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// Waits until so many more requests have been answered.
    pub fn wait_for(&self, more: u64) {
        let started = Instant::now();
        let goal = self.answered.load(Ordering::Relaxed) + more;
        while self.answered.load(Ordering::Relaxed) < goal {
            assert!(started.elapsed() < super::process::PATIENCE, "no answers");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Clients {
    /// Asks while `script` runs, and until there were enough requests.
    ///
    /// `request` makes a request from its number. `is_answer` says whether a datagram is the answer to the
    /// request with a number, which was sent from an address.
    pub fn ask(
        &self,
        request: impl Fn(u64) -> Vec<u8> + Sync,
        is_answer: impl Fn(u64, SocketAddr, &[u8]) -> bool + Sync,
        script: impl FnOnce(&Progress),
    ) -> Tally {
        /// Ends the clients also if the script panics.
        struct Over<'a>(&'a Progress);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.is_over.store(true, Ordering::Relaxed);
            }
        }

        let progress = Progress::default();
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let running: Vec<_> = self
                .from
                .iter()
                .map(|&from| {
                    let (progress, next) = (&progress, &next);
                    let (request, is_answer) = (&request, &is_answer);
                    scope.spawn(move || self.run(from, next, progress, request, is_answer))
                })
                .collect();
            let over = Over(&progress);
            script(&progress);
            drop(over);
            let mut all = Tally::default();
            for client in running {
                all.add(&client.join().unwrap());
            }
            all
        })
    }

    fn run(
        &self,
        from: IpAddr,
        next: &AtomicU64,
        progress: &Progress,
        request: &impl Fn(u64) -> Vec<u8>,
        is_answer: &impl Fn(u64, SocketAddr, &[u8]) -> bool,
    ) -> Tally {
        let mut tally = Tally::default();
        let (mut socket, mut twice) = (None, Vec::new());
        for asked in 0_u64.. {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests && progress.is_over.load(Ordering::Relaxed) {
                break;
            }
            if asked.is_multiple_of(self.per_socket) {
                socket = None;
            }
            let socket = socket.get_or_insert_with(|| {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.connect(self.server).unwrap();
                socket.set_read_timeout(Some(self.timeout)).unwrap();
                socket
            });
            let local = socket.local_addr().unwrap();
            let is_answer = |number, answer: &[u8]| is_answer(number, local, answer);
            self.exchange(
                socket,
                number,
                &request(number),
                &mut twice,
                &mut tally,
                is_answer,
            );
            progress.answered.fetch_add(1, Ordering::Relaxed);
        }
        tally
    }

    fn exchange(
        &self,
        socket: &UdpSocket,
        number: u64,
        request: &[u8],
        twice: &mut Vec<u64>,
        tally: &mut Tally,
        is_answer: impl Fn(u64, &[u8]) -> bool,
    ) {
        let begun = Instant::now();
        let mut buffer = [0; 2_048];
        for attempt in 0..self.attempts {
            if attempt == 1 {
                tally.sent_again += 1;
                twice.push(number);
            }
            let sent = Instant::now();
            // It fails if an error of an earlier datagram came back meanwhile.
            let _ = socket.send(request);
            while sent.elapsed() < self.timeout {
                match socket.recv(&mut buffer) {
                    Ok(len) if is_answer(number, &buffer[..len]) => {
                        tally.right += 1;
                        tally.longest = tally.longest.max(begun.elapsed());
                        return;
                    }
                    // The other copy of a request that was sent twice is answered too.
                    Ok(len) if twice.iter().any(|&one| is_answer(one, &buffer[..len])) => {}
                    Ok(0) => tally.empty += 1,
                    Ok(_) => tally.wrong += 1,
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::TimedOut => break,
                        // A node is not there. The timeout decides what follows.
                        _ => thread::sleep(Duration::from_millis(1)),
                    },
                }
            }
        }
        tally.lost += 1;
    }
}
