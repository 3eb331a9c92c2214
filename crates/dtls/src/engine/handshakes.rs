//! Handshakes: from a hello to an association.

use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::Timestamp;
use rejoinder::gate::{Gate, ResponseSize};
use rejoinder::transport::{Datagram, Egress, Outbox};

use super::{Delivered, Engine, Established, Fate, MAX_HANDSHAKE_BYTES, MAX_MESSAGE_BYTES};
use super::{is_allowed, replies, replies_and_payloads, reply};
use crate::association::{Association, Credentials, Input, Progress};
use crate::clock::Clock;
use crate::hello::{COOKIE_BYTES, ClientHello};
use crate::record::{ALERT, DTLS_1_2, Record, plain};
use crate::settings::{CERTIFICATE_SUITES, PSK_SUITES};
use crate::stats::{DtlsDrop, HandshakeFailure};

/// A handshake that has begun.
pub(super) struct Handshake {
    pub(super) association: Association,
    /// The number of the association that it is to become.
    pub(super) number: u32,
    /// The random of its hello, which identifies a repeated one.
    pub(super) random: [u8; 32],
    pub(super) begun: Duration,
    pub(super) egress: Egress,
    /// How many bytes of the peer's flight may come still, in all its repetitions.
    left_bytes: usize,
}

impl Handshake {
    /// Counts a datagram of the peer's flight, if there may be another one of this length.
    pub(super) fn has_room_for(&mut self, bytes: usize) -> bool {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.unwrap_or(self.left_bytes);
        left.is_some()
    }
}

impl<G: Gate> Engine<G> {
    pub(super) fn take_hello(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hello: &ClientHello<'_>,
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let peer = datagram.meta.peer;
        if bytes.len() > MAX_HANDSHAKE_BYTES {
            return Err(DtlsDrop::Malformed);
        }
        if self.gate.accept(now, datagram).is_err() {
            return Err(DtlsDrop::Gate);
        }
        let valid = self.cookies.is_valid(now.monotonic, peer, hello);
        let Some(cookie) = valid.filter(|_| hello.message_sequence == 1) else {
            return self.ask_for_cookie(now, datagram, hello, outbox);
        };
        let is_same = |random: &[u8; 32]| *random == hello.random;
        if self
            .associations
            .peek(peer)
            .is_some_and(|one| is_same(&one.random))
        {
            return Err(DtlsDrop::Repeated);
        }
        if self
            .handshakes
            .peek(peer)
            .is_some_and(|one| is_same(&one.random))
        {
            return Ok(self.step_handshake(now, datagram, bytes, outbox, &mut |_| {}));
        }
        if !self.has_suite_of(hello) {
            return self.refuse_suites(now, datagram, hello, outbox);
        }
        self.start(now, datagram, (hello, cookie), bytes, outbox)
    }

    fn ask_for_cookie(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hello: &ClientHello<'_>,
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let peer = datagram.meta.peer;
        let cookie = self.cookies.make(now.monotonic, peer, hello);
        let request = hello.verify_request(&cookie);
        // So it is with every hello that is one; an unverified address never gets more than it gave.
        if request.len() > datagram.bytes.len() {
            return Err(DtlsDrop::Malformed);
        }
        let size = ResponseSize::new(1, request.len());
        if self.gate.allow_responses(now, datagram, size).is_err() {
            return Err(DtlsDrop::Gate);
        }
        self.stats.hello_bytes += datagram.bytes.len() as u64;
        self.stats.verify_request_bytes += request.len() as u64;
        let egress = datagram.meta.egress();
        reply(&mut self.stats, outbox, peer, egress, &request);
        Ok(Fate::Handshake)
    }

    /// Whether the client offers a cipher suite that can be used with what the server has.
    fn has_suite_of(&self, hello: &ClientHello<'_>) -> bool {
        let offers = |suites: &[u16]| suites.iter().any(|&one| hello.position(one).is_some());
        (self.psk.is_some() && offers(&PSK_SUITES))
            || (self.certificate.is_some() && offers(&CERTIFICATE_SUITES))
    }

    /// The alert for a hello without a suite in common: the implementation takes one with suites that it
    /// does not know for malformed.
    fn refuse_suites(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hello: &ClientHello<'_>,
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let alert = plain(ALERT, DTLS_1_2, hello.record_sequence, &NO_COMMON_SUITE);
        let size = ResponseSize::new(1, alert.len());
        if self.gate.allow_responses(now, datagram, size).is_err() {
            return Err(DtlsDrop::Gate);
        }
        self.stats.begun += 1;
        self.stats.failed[HandshakeFailure::NoCommonParameters as usize] += 1;
        let (peer, egress) = (datagram.meta.peer, datagram.meta.egress());
        reply(&mut self.stats, outbox, peer, egress, &alert);
        Ok(Fate::Handshake)
    }

    /// The handshake of a hello with a valid cookie. If the gate forbids its first flight, it has not begun.
    fn start(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        (hello, cookie): (&ClientHello<'_>, [u8; COOKIE_BYTES]),
        bytes: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Fate, DtlsDrop> {
        let clock = *self.clock.get_or_insert_with(|| Clock::new(now.monotonic));
        let association = self
            .begin(now, clock, hello, cookie)
            .ok_or(DtlsDrop::Malformed)?;
        let (peer, egress) = (datagram.meta.peer, datagram.meta.egress());
        let left_bytes = if association.uses_psk() {
            MAX_PSK_FLIGHT_BYTES
        } else {
            MAX_CERTIFICATE_FLIGHT_BYTES
        };
        let mut handshake = Handshake {
            association,
            number: self.next_number(),
            random: hello.random,
            begun: now.monotonic,
            egress,
            left_bytes,
        };
        let queued = outbox.len();
        let Self {
            policy,
            scratch,
            stats,
            ..
        } = self;
        let progress = handshake.association.step_hello(
            now,
            policy,
            (hello, cookie),
            bytes,
            scratch,
            &mut replies(stats, outbox, peer, egress),
        );
        if !is_allowed(&mut self.gate, now, datagram, outbox, queued) {
            outbox.truncate(queued);
            return Err(DtlsDrop::Gate);
        }
        self.stats.begun += 1;
        if self.handshakes.insert(peer, handshake).is_some() {
            self.stats.displaced_handshakes += 1;
        }
        self.after_handshake_step(now, peer, progress);
        Ok(Fate::Handshake)
    }

    /// A handshake behind the exchange of cookies.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        clock: Clock,
        hello: &ClientHello<'_>,
        cookie: [u8; COOKIE_BYTES],
    ) -> Option<Association> {
        let first = |suites: &[u16]| suites.iter().filter_map(|&one| hello.position(one)).min();
        let seed = self.seed.as_mut().map(super::next_seed);
        // What the client wants most.
        let psk = self
            .psk
            .as_ref()
            .map(|configs| (first(&PSK_SUITES), configs));
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(|own| (first(&CERTIFICATE_SUITES), own));
        let rank = |position: Option<usize>| position.unwrap_or(usize::MAX);
        let (configs, credentials) = match (psk, certificate) {
            (Some((wanted, _)), Some((other, own))) if rank(other) < rank(wanted) => {
                (&own.0, &own.1)
            }
            (Some((_, configs)), _) => (configs, &Credentials::Psk),
            (None, Some((_, own))) => (&own.0, &own.1),
            (None, None) => return None,
        };
        let config = configs.get(seed);
        let hello = (hello, cookie);
        Association::server(&config, credentials, clock, now, hello, &mut self.scratch)
    }

    pub(super) fn step_handshake(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        records: &[u8],
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) -> Fate {
        let Self {
            handshakes,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let peer = datagram.meta.peer;
        let Some(handshake) = handshakes.peek_mut(peer) else {
            return Fate::Handshake;
        };
        let (meta, number) = (datagram.meta, handshake.number);
        handshake.egress = meta.egress();
        let queued = outbox.len();
        let progress = handshake.association.step_records(
            now,
            policy,
            Record::all(records),
            scratch,
            // A payload came in the datagram that completed the handshake, behind its last message.
            &mut replies_and_payloads(stats, outbox, meta, number, deliver),
        );
        self.take_back_forbidden(now, datagram, outbox, queued);
        let has_payload = progress.payloads > 0;
        self.after_handshake_step(now, peer, progress);
        if has_payload {
            Fate::Application
        } else {
            Fate::Handshake
        }
    }

    fn after_handshake_step(&mut self, now: Timestamp, peer: SocketAddr, progress: Progress) {
        if let Some(failure) = progress.failure {
            self.handshakes.remove(peer);
            self.stats.failed[failure.kind as usize] += 1;
        } else if progress.connected {
            let Some(done) = self.handshakes.remove(peer) else {
                return;
            };
            self.stats.established += 1;
            let established = Established {
                association: done.association,
                number: done.number,
                random: done.random,
                used: now.monotonic,
                egress: done.egress,
            };
            match self.associations.insert(peer, established) {
                Some((former, _)) if former == peer => self.stats.replaced += 1,
                Some(_) => self.stats.displaced += 1,
                None => {}
            }
            // Its end came in the datagram that completed the handshake.
            if progress.closed {
                self.associations.remove(peer);
                self.stats.closed += 1;
            }
        } else if let Some(handshake) = self.handshakes.peek(peer) {
            self.due = self.due.min(handshake.association.due());
        }
    }

    /// Repeats flights that were not answered in their time.
    pub(super) fn repeat(&mut self, now: Timestamp, outbox: &mut Outbox) {
        let Self {
            handshakes,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let mut failed = Vec::new();
        self.due = Duration::MAX;
        for (peer, handshake) in handshakes.iter_mut() {
            let association = &mut handshake.association;
            if association.due() <= now.monotonic && outbox.has_room_for(Self::MAX_REPLIES) {
                let progress = {
                    let emit = &mut replies(stats, outbox, peer, handshake.egress);
                    association.step(now, policy, Input::Time, scratch, emit)
                };
                if let Some(failure) = progress.failure {
                    stats.failed[failure.kind as usize] += 1;
                    failed.push(peer);
                    continue;
                }
            }
            self.due = self.due.min(association.due());
        }
        for peer in failed {
            self.handshakes.remove(peer);
        }
    }

    /// The number of the next association: never 0.
    fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1).max(1);
        self.last_number
    }
}

/// A fatal `handshake_failure`: RFC 5246 §7.2.2.
const NO_COMMON_SUITE: [u8; 2] = [2, 40];
/// A client's flight has up to 230 bytes with an identity of 128, so this is 17 of them.
const MAX_PSK_FLIGHT_BYTES: usize = 4_096;
/// The longest certificate, three times.
const MAX_CERTIFICATE_FLIGHT_BYTES: usize = 3 * MAX_MESSAGE_BYTES;
