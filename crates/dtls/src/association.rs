//! One association: the DTLS implementation, and what stands around it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Error, Output};
use rejoinder::{Identity, Timestamp};
use rustls_pki_types::ServerName;

use crate::certificate::{Authorities, CertifiedKey, Role, fingerprint};
use crate::clock::Clock;
use crate::failure::{DECRYPT_ERROR, Failure, HANDSHAKE_FAILURE, INTERNAL_ERROR};
use crate::hello::{COOKIE_BYTES, ClientHello, cookie_of_verify_request};
use crate::provider::{NO_KEY, take_identity, with_cookie};
use crate::record::{ALERT, CHANGE_CIPHER_SPEC, DTLS_1_2, Record, plain, shift_sequences};
use crate::stats::HandshakeFailure;

/// How the two ends prove who they are.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    Psk,
    Certificate(CertifiedKey),
    /// A client's that accepts certificates and has none.
    Nothing,
}

/// What is asked of a peer's certificate.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) role: Role,
    /// `None`: it is not asked for.
    pub(crate) authorities: Option<Authorities>,
    pub(crate) name: Option<ServerName<'static>>,
}

/// One end of an association, from its first message on.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Association {
    dtls: Dtls,
    clock: Clock,
    uses_psk: bool,
    is_client: bool,
    /// What is added to the sequence numbers of records in the clear.
    sequence_offset: u64,
    /// The sequence number of the next record in the clear.
    next_sequence: u64,
    /// Whether what is sent from now on is protected.
    is_protecting: bool,
    is_connected: bool,
    /// Whether a certificate was accepted.
    has_certificate: bool,
    identity: Option<Identity>,
    /// When it wants to be called, at the latest.
    due: Duration,
}

/// What an association is to do.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Look at the clock.
    Time,
    /// Receive a datagram.
    Datagram(&'a [u8]),
    /// Send a payload.
    Payload(&'a [u8]),
    /// Close.
    Close,
}

/// What an association gives out.
pub(crate) enum Emitted<'a> {
    /// A datagram to be sent.
    Packet(&'a [u8]),
    /// A payload that was received, and who sent it.
    Payload(&'a [u8], Option<&'a Identity>),
}

/// The implementation's output, without what it borrows.
enum Next {
    Packet(usize),
    Payload(usize),
    Certificate(usize),
    Room(usize),
    Timeout(Instant),
    Connected,
    Closed,
    Nothing,
}

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) packets: usize,
    pub(crate) payloads: usize,
    /// The handshake is over, in this step, and the peer is who it should be.
    pub(crate) connected: bool,
    /// The peer has closed.
    pub(crate) closed: bool,
    /// The association is dead.
    pub(crate) failure: Option<Failure>,
}

impl Progress {
    /// What came of this step and of the next.
    fn and(self, next: Self) -> Self {
        Self {
            packets: self.packets + next.packets,
            payloads: self.payloads + next.payloads,
            connected: self.connected || next.connected,
            closed: self.closed || next.closed,
            failure: self.failure.or(next.failure),
        }
    }
}

impl Association {
    /// A client that has sent nothing yet: the first step sends its hello.
    pub(crate) fn client(config: &Arc<Config>, credentials: &Credentials, clock: Clock) -> Self {
        let mut client = Self::new(config, credentials, clock);
        client.dtls.set_active(true);
        client.is_client = true;
        client
    }

    /// A server behind the exchange of cookies, which had this outcome. The hello's datagram is its
    /// first [input](Self::step_hello). `None`: the implementation does not take the cookie.
    pub(crate) fn server(
        config: &Arc<Config>,
        credentials: &Credentials,
        clock: Clock,
        now: Timestamp,
        (hello, cookie): (&ClientHello<'_>, [u8; COOKIE_BYTES]),
        scratch: &mut Vec<u8>,
    ) -> Option<Self> {
        let mut server = Self::new(config, credentials, clock);
        let first = hello.without_cookie();
        let mut has_cookie = false;
        let mut find = |emitted: Emitted<'_>| {
            if let Emitted::Packet(packet) = emitted {
                has_cookie |= cookie_of_verify_request(packet) == Some(&cookie);
            }
        };
        with_cookie(hello.random, cookie, || {
            server.run(now, Input::Datagram(&first), scratch, &mut find)
        })
        .ok()?;
        // Its hello has sequence number 1 there, the first being 0; what the server sends next has the
        // number of the client's record (RFC 6347 §4.2.1).
        server.sequence_offset = hello.record_sequence.saturating_sub(1);
        server.next_sequence = hello.record_sequence;
        has_cookie.then_some(server)
    }

    fn new(config: &Arc<Config>, credentials: &Credentials, clock: Clock) -> Self {
        let now = clock.base;
        let dtls = match credentials {
            Credentials::Psk => Dtls::new_12_psk(Arc::clone(config), now),
            Credentials::Certificate(own) => Dtls::new_12(Arc::clone(config), own.for_dimpl(), now),
            Credentials::Nothing => {
                let nothing = DtlsCertificate {
                    certificate: NO_KEY.to_vec(),
                    private_key: NO_KEY.to_vec(),
                };
                Dtls::new_12(Arc::clone(config), nothing, now)
            }
        };
        Self {
            dtls,
            clock,
            uses_psk: matches!(credentials, Credentials::Psk),
            is_client: false,
            sequence_offset: 0,
            next_sequence: 0,
            is_protecting: false,
            is_connected: false,
            has_certificate: false,
            identity: None,
            due: Duration::ZERO,
        }
    }

    /// Who the peer is, once connected: the identity of its key, or its certificate's fingerprint.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref().filter(|_| self.is_connected)
    }

    /// Whether it authenticates with a pre-shared key.
    pub(crate) fn uses_psk(&self) -> bool {
        self.uses_psk
    }

    /// When it wants to be called, at the latest.
    pub(crate) fn due(&self) -> Duration {
        self.due
    }

    /// The first step of a server: its client's hello, with the cookie that was verified.
    pub(crate) fn step_hello(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        (hello, cookie): (&ClientHello<'_>, [u8; COOKIE_BYTES]),
        datagram: &[u8],
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Progress {
        with_cookie(hello.random, cookie, || {
            self.step(now, policy, Input::Datagram(datagram), scratch, emit)
        })
    }

    /// Receives records one by one, until one ends the association. So the implementation has one record in
    /// its hands, unless it must wait for others, whatever a peer puts into a datagram.
    pub(crate) fn step_records<'r>(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        records: impl Iterator<Item = Record<'r>>,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Progress {
        let mut progress = Progress::default();
        for record in records {
            let input = Input::Datagram(record.bytes);
            progress = progress.and(self.step(now, policy, input, scratch, emit));
            if progress.closed || progress.failure.is_some() {
                break;
            }
        }
        progress
    }

    /// Does one thing, and gives out what came of it. A failed handshake emits the alert that the peer
    /// is due, where that may be in the clear.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        input: Input<'_>,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Progress {
        let was_connected = self.is_connected;
        let mut progress = Progress::default();
        let outcome = {
            let counted = &mut |emitted: Emitted<'_>| {
                match emitted {
                    Emitted::Packet(_) => progress.packets += 1,
                    Emitted::Payload(..) => progress.payloads += 1,
                }
                emit(emitted);
            };
            self.run_with(now, policy, input, scratch, counted)
        };
        match outcome {
            Ok(closed) => {
                progress.closed = closed;
                progress.connected = self.is_connected && !was_connected;
            }
            Err(failure) => {
                let alert = failure.alert.filter(|_| !self.is_protecting);
                if let Some(description) = alert {
                    let fatal = [2, description];
                    let alert = plain(ALERT, DTLS_1_2, self.next_sequence, &fatal);
                    emit(Emitted::Packet(&alert));
                    progress.packets += 1;
                }
                progress.failure = Some(failure);
            }
        }
        progress
    }

    /// A run for which no certificate is asked for.
    fn run(
        &mut self,
        now: Timestamp,
        input: Input<'_>,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Result<bool, Failure> {
        let policy = Policy {
            role: Role::Client,
            authorities: None,
            name: None,
        };
        self.run_with(now, &policy, input, scratch, emit)
    }

    /// Whether the peer has closed. The implementation asserts what it holds for true of what it has
    /// parsed: a panic ends this association and no other.
    fn run_with(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        input: Input<'_>,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Result<bool, Failure> {
        let run = AssertUnwindSafe(|| self.run_or_panic(now, policy, input, scratch, emit));
        panic::catch_unwind(run).unwrap_or_else(|_| {
            let text = "the DTLS implementation panicked";
            Err(Failure::new(
                HandshakeFailure::Protocol,
                text,
                INTERNAL_ERROR,
            ))
        })
    }

    fn run_or_panic(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        input: Input<'_>,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Result<bool, Failure> {
        let _ = take_identity();
        let instant = self.clock.instant(now.monotonic);
        self.dtls
            .handle_timeout(instant)
            .map_err(|error| self.failed(&error))?;
        // What it owes already, so that the input's output stands alone in its datagrams.
        let mut closed = self.poll(now, policy, scratch, emit)?;
        let done = match input {
            Input::Time => return Ok(closed),
            Input::Datagram(bytes) => self.dtls.handle_packet(bytes),
            Input::Payload(bytes) => self.dtls.send_application_data(bytes).map(drop),
            Input::Close => self.dtls.close(),
        };
        if let Some(identity) = take_identity()
            && !self.is_client
        {
            self.identity = Some(identity);
        }
        done.map_err(|error| self.failed(&error))?;
        closed |= self.poll(now, policy, scratch, emit)?;
        Ok(closed)
    }

    /// Takes all output, and returns whether the peer has closed.
    fn poll(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        scratch: &mut Vec<u8>,
        emit: &mut dyn FnMut(Emitted<'_>),
    ) -> Result<bool, Failure> {
        let mut closed = false;
        loop {
            // What the output borrows lies at the beginning of the buffer.
            let next = match self.dtls.poll_output(scratch) {
                Output::Packet(packet) => Next::Packet(packet.len()),
                Output::ApplicationData(payload) => Next::Payload(payload.len()),
                Output::PeerCert(certificate) => Next::Certificate(certificate.len()),
                Output::BufferTooSmall { needed } => Next::Room(needed),
                Output::Timeout(instant) => Next::Timeout(instant),
                Output::Connected => Next::Connected,
                Output::CloseNotify => Next::Closed,
                _ => Next::Nothing,
            };
            match next {
                Next::Packet(len) => {
                    self.note_sent(&mut scratch[..len]);
                    emit(Emitted::Packet(&scratch[..len]));
                }
                // Nothing is delivered before the peer is known.
                Next::Payload(len) if self.is_connected => {
                    emit(Emitted::Payload(&scratch[..len], self.identity.as_ref()));
                }
                Next::Certificate(len) => self.verify(now, policy, &scratch[..len])?,
                Next::Room(needed) => scratch.resize(needed.max(MIN_BUFFER_BYTES), 0),
                Next::Timeout(instant) => {
                    self.due = self.clock.reading(instant);
                    return Ok(closed);
                }
                Next::Connected => self.connect(policy)?,
                Next::Closed => closed = true,
                Next::Payload(_) | Next::Nothing => {}
            }
        }
    }

    fn verify(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        certificate: &[u8],
    ) -> Result<(), Failure> {
        let Some(authorities) = &policy.authorities else {
            return Ok(());
        };
        authorities
            .verify(certificate, policy.role, policy.name.as_ref(), now.wall)
            .map_err(|error| Failure::of_certificate(&error))?;
        self.has_certificate = true;
        self.identity = Some(fingerprint(certificate).into());
        Ok(())
    }

    fn connect(&mut self, policy: &Policy) -> Result<(), Failure> {
        // The implementation goes on without a certificate where the peer sends none.
        if !self.uses_psk && policy.authorities.is_some() && !self.has_certificate {
            let text = "the peer sent no certificate";
            let kind = HandshakeFailure::Certificate;
            return Err(Failure::new(kind, text, HANDSHAKE_FAILURE));
        }
        if self.uses_psk && !self.is_client && self.identity.is_none() {
            let text = "the peer has no identity";
            let kind = HandshakeFailure::Authentication;
            return Err(Failure::new(kind, text, DECRYPT_ERROR));
        }
        self.is_connected = true;
        Ok(())
    }

    /// Numbers the records of a datagram that is about to leave, and notes from when on they are
    /// protected.
    fn note_sent(&mut self, packet: &mut [u8]) {
        if let Some(last) = shift_sequences(packet, self.sequence_offset) {
            self.next_sequence = last + 1;
        }
        self.is_protecting |=
            Record::all(packet).any(|record| record.content_type == CHANGE_CIPHER_SPEC);
    }

    fn failed(&self, error: &Error) -> Failure {
        let mut failure = Failure::of(error);
        failure.alert = failure.alert.filter(|_| !self.is_connected);
        failure
    }
}

impl std::fmt::Debug for Association {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Association")
            .field("is_client", &self.is_client)
            .field("is_connected", &self.is_connected)
            .finish_non_exhaustive()
    }
}

/// Room for what a handshake sends at once.
const MIN_BUFFER_BYTES: usize = 2_048;
