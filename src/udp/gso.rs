//! Sending whole batches, several datagrams to one peer as one segmented send (`UDP_SEGMENT`).

mod plan;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};

use self::plan::GsoLimits;
pub(super) use self::plan::{Plan, Train};
use crate::transport::{MAX_DATAGRAM_BYTES, Outbox, SendReport};

/// Sends trains: the kernel, or a fake one in a test.
pub(super) trait SendTrains {
    /// Sends the first trains of the plan from `index` on, one at least, and returns how many; an
    /// error is the first one's.
    fn send(&mut self, plan: &Plan, index: usize) -> io::Result<usize>;
}

/// Sends whole batches, and remembers what the kernel refused.
#[derive(Debug)]
pub(super) struct GsoSender {
    plan: Plan,
    /// For what has to be sent again, datagram by datagram.
    singles: Plan,
    max_segments: usize,
    max_segment_bytes: usize,
    /// For how many batches longer segments are not tried.
    short_segments: u32,
    /// Where the batch that is being sent goes on.
    next: Option<Next>,
}

impl GsoSender {
    pub(super) fn new() -> Self {
        Self {
            plan: Plan::default(),
            singles: Plan::default(),
            max_segments: MAX_SEGMENTS,
            max_segment_bytes: MAX_DATAGRAM_BYTES,
            short_segments: 0,
            next: None,
        }
    }

    /// Tries every datagram. Returns what became of them, and whether to go on segmenting.
    pub(super) fn send(
        &mut self,
        outbox: &Outbox,
        mut gso: bool,
        kernel: &mut impl SendTrains,
    ) -> (SendReport, bool) {
        let mut sent = SendReport::default();
        self.begin(outbox, gso);
        self.go_on(outbox, &mut gso, kernel, &mut sent, WhenFull::Refused);
        self.next = None;
        (sent, gso)
    }

    /// Sends until the send buffer is full. Returns whether every datagram was tried; if not, the next
    /// call goes on with the same outbox.
    #[cfg(any(feature = "tokio", test))]
    pub(super) fn try_send(
        &mut self,
        outbox: &Outbox,
        gso: &mut bool,
        kernel: &mut impl SendTrains,
        sent: &mut SendReport,
    ) -> bool {
        if self.next.is_none() {
            self.begin(outbox, *gso);
        }
        let is_done = self.go_on(outbox, gso, kernel, sent, WhenFull::Stop);
        if is_done {
            self.next = None;
        }
        is_done
    }

    fn begin(&mut self, outbox: &Outbox, gso: bool) {
        if self.short_segments > 0 {
            self.short_segments -= 1;
            if self.short_segments == 0 {
                self.max_segment_bytes = MAX_DATAGRAM_BYTES;
            }
        }
        let limits = GsoLimits {
            segments: if gso { self.max_segments } else { 1 },
            segment_bytes: self.max_segment_bytes,
            total_bytes: MAX_DATAGRAM_BYTES,
        };
        let (_, queued) = outbox.parts();
        self.plan.reserve(outbox.max_datagrams());
        self.plan.make(queued, limits, outbox.is_unordered());
        self.next = Some(Next {
            train: 0,
            again: None,
        });
    }

    /// Returns whether every datagram was tried.
    fn go_on(
        &mut self,
        outbox: &Outbox,
        gso: &mut bool,
        kernel: &mut impl SendTrains,
        sent: &mut SendReport,
        when_full: WhenFull,
    ) -> bool {
        let (_, queued) = outbox.parts();
        let mut next = self.next.take().expect("a batch was begun");
        let is_done = loop {
            if let Some(again) = &mut next.again {
                if !self.send_singles(&mut again.single, kernel, sent, when_full) {
                    break false;
                }
                self.learn(again, sent.failed == again.failed, gso);
                next.again = None;
            }
            let Some(train) = self.plan.trains.get(next.train) else {
                break true;
            };
            let error = match kernel.send(&self.plan, next.train) {
                Ok(trains) => {
                    let trains = &self.plan.trains[next.train..][..trains];
                    sent.sent += trains.iter().map(|one| one.datagrams).sum::<usize>();
                    next.train += trains.len();
                    continue;
                }
                Err(error) => error,
            };
            let is_full = error.kind() == ErrorKind::WouldBlock;
            if is_full && when_full == WhenFull::Stop {
                break false;
            }
            next.train += 1;
            let Some(segment_bytes) = train.segment_bytes else {
                sent.record_failure(error);
                continue;
            };
            if is_full {
                // The send buffer has no room for any of them.
                sent.record_failures(error, train.datagrams);
                continue;
            }
            // It may be the segmentation that cannot be done, or a single datagram.
            self.singles.clear();
            let mut index = Some(train.first);
            for _ in 0..train.datagrams {
                let single = index.expect("as many follow as are counted");
                self.singles.push_alone(queued, single);
                index = self.plan.follows(single);
            }
            next.again = Some(Again {
                code: error.raw_os_error(),
                segment_bytes,
                datagrams: train.datagrams,
                failed: sent.failed,
                single: 0,
            });
        };
        self.next = Some(next);
        is_done
    }

    /// Returns whether each was tried. `at` is the next one.
    fn send_singles(
        &self,
        at: &mut usize,
        kernel: &mut impl SendTrains,
        sent: &mut SendReport,
        when_full: WhenFull,
    ) -> bool {
        while *at < self.singles.trains.len() {
            match kernel.send(&self.singles, *at) {
                Ok(trains) => {
                    sent.sent += trains;
                    *at += trains;
                }
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && when_full == WhenFull::Stop =>
                {
                    return false;
                }
                Err(error) => {
                    sent.record_failure(error);
                    *at += 1;
                }
            }
        }
        true
    }

    /// Draws conclusions from a train that was refused, and whether its datagrams were taken one by one.
    fn learn(&mut self, again: &Again, were_taken: bool, gso: &mut bool) {
        match again.code {
            Some(libc::EMSGSIZE) => {
                self.max_segment_bytes = usize::from(again.segment_bytes) - 1;
                self.short_segments = SHORT_SEGMENT_BATCHES;
            }
            Some(libc::EINVAL) if again.datagrams > OLD_MAX_SEGMENTS => {
                self.max_segments = OLD_MAX_SEGMENTS;
            }
            // Linux before 6.14 reports segments that are too long for the path like this.
            Some(libc::EINVAL) if were_taken && again.segment_bytes > SHORT_SEGMENT => {
                self.max_segment_bytes = usize::from(again.segment_bytes) - 1;
                self.short_segments = SHORT_SEGMENT_BATCHES;
            }
            Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP) if were_taken => *gso = false,
            _ => {}
        }
    }
}

/// What a full send buffer means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// The datagrams that do not fit are refused.
    Refused,
    /// Sending stops, to go on later.
    Stop,
}

/// Where a batch goes on.
#[derive(Clone, Copy, Debug)]
struct Next {
    train: usize,
    /// The train before it was refused, and is sent datagram by datagram.
    again: Option<Again>,
}

/// A refused train.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// The kernel's error.
    code: Option<i32>,
    segment_bytes: u16,
    datagrams: usize,
    /// How many datagrams had been refused before.
    failed: usize,
    /// The next of its datagrams.
    single: usize,
}

/// What the kernel takes: `UDP_MAX_SEGMENTS`, 64 before Linux 6.9.
const MAX_SEGMENTS: usize = 128;
const OLD_MAX_SEGMENTS: usize = 64;
/// What every path takes over IPv6, and nearly every one over IPv4: 1,280 bytes with the headers
/// (RFC 8200 §5).
const SHORT_SEGMENT: u16 = 1_232;
/// For how many batches segments that are too long for some path are not tried: the path may change,
/// or may be that of one peer only.
const SHORT_SEGMENT_BATCHES: u32 = 1_024;
