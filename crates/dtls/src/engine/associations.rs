//! Associations: payloads in both directions, until one of the ends closes.

use std::net::SocketAddr;
use std::time::Duration;

use rejoinder::Timestamp;
use rejoinder::gate::Gate;
use rejoinder::transport::{Datagram, Egress, Outbox};

use super::{Delivered, Engine, Fate, MAX_HANDSHAKE_BYTES, SendError};
use super::{replies, replies_and_payloads};
use crate::association::{Association, Input};
use crate::record::{APPLICATION_DATA, HANDSHAKE, MAX_RECORDS, Record};
use crate::settings::PROTECTION_BYTES;
use crate::stats::DtlsDrop;

/// An association.
pub(super) struct Established {
    pub(super) association: Association,
    /// What its payloads carry, and the responses to them.
    pub(super) number: u32,
    pub(super) random: [u8; 32],
    pub(super) used: Duration,
    pub(super) egress: Egress,
}

impl<G: Gate> Engine<G> {
    pub(super) fn step_association(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        outbox: &mut Outbox,
        deliver: &mut dyn FnMut(Delivered<'_>),
    ) -> Result<Fate, DtlsDrop> {
        self.check_records(datagram.bytes)?;
        let Self {
            associations,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let peer = datagram.meta.peer;
        let Some(established) = associations.peek_mut(peer) else {
            return Err(DtlsDrop::NoAssociation);
        };
        let queued = outbox.len();
        let records = Record::all(datagram.bytes).filter(is_of_association);
        let (meta, number) = (datagram.meta, established.number);
        let progress = established.association.step_records(
            now,
            policy,
            records,
            scratch,
            &mut replies_and_payloads(stats, outbox, meta, number, deliver),
        );
        if progress.payloads > 0 {
            // It is authentic, so the peer is there.
            established.used = now.monotonic;
            established.egress = meta.egress();
            associations.touch(peer);
        }
        if progress.failure.is_some() {
            associations.remove(peer);
            self.stats.broken += 1;
        } else if progress.closed {
            associations.remove(peer);
            self.stats.closed += 1;
        }
        self.take_back_forbidden(now, datagram, outbox, queued);
        let is_control = progress.packets > 0 || progress.closed || progress.failure.is_some();
        match progress.payloads {
            0 if is_control => Ok(Fate::Control),
            0 => Err(DtlsDrop::Unauthenticated),
            _ => Ok(Fate::Application),
        }
    }

    /// Whether the implementation may see the records of a datagram. It copies each into a buffer before it
    /// knows whether it is authentic, and keeps the buffer.
    fn check_records(&self, bytes: &[u8]) -> Result<(), DtlsDrop> {
        let longest = self.settings.max_request_bytes + PROTECTION_BYTES;
        for (index, record) in Record::all(bytes).enumerate() {
            if index == MAX_RECORDS {
                return Err(DtlsDrop::Malformed);
            }
            let limit = match record.content_type {
                APPLICATION_DATA => longest,
                _ => longest.min(MAX_HANDSHAKE_BYTES),
            };
            if record.fragment.len() > limit {
                return Err(DtlsDrop::TooLong);
            }
        }
        Ok(())
    }

    /// Queues a payload for a peer, protected, in one datagram of its own.
    ///
    /// The payload leaves by the [association](Egress::association) that the egress names, as that of
    /// [`Meta::egress`](rejoinder::transport::Meta::egress) does for a response. If the peer, or another
    /// one with its address, has begun a new association since, the payload is refused. So is that for a
    /// peer which has proved the same identity again: it has forgotten the request, or repeats it. An
    /// egress without an association, for a payload that answers no request, is that of the association
    /// that the peer has now.
    ///
    /// # Errors
    ///
    /// If there is no association with the peer or another one than the egress names, or the payload is too
    /// long. Nothing is queued then.
    pub fn send(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        egress: Egress,
        payload: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let sent = self.try_send(now, peer, egress, payload, outbox);
        match sent {
            Ok(()) => self.stats.sent += 1,
            Err(error) => {
                self.stats.unsent += 1;
                self.stats.superseded += u64::from(matches!(error, SendError::Superseded(_)));
            }
        }
        self.gauge();
        sent
    }

    fn try_send(
        &mut self,
        now: Timestamp,
        peer: SocketAddr,
        egress: Egress,
        payload: &[u8],
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let max_bytes = self.settings.max_payload_bytes;
        let Self {
            associations,
            policy,
            scratch,
            stats,
            ..
        } = self;
        let Some(established) = associations.peek_mut(peer) else {
            return Err(SendError::NoAssociation(peer));
        };
        if egress.association != 0 && egress.association != established.number {
            return Err(SendError::Superseded(peer));
        }
        let bytes = payload.len();
        if bytes > max_bytes {
            return Err(SendError::TooLong { bytes, max_bytes });
        }
        // Of the transport inside it is the association that the peer was last heard by.
        let egress = egress.by_association(established.egress.association);
        let input = Input::Payload(payload);
        let progress = {
            let emit = &mut replies(stats, outbox, peer, egress);
            let association = &mut established.association;
            association.step(now, policy, input, scratch, emit)
        };
        established.used = now.monotonic;
        associations.touch(peer);
        if progress.failure.is_some() {
            associations.remove(peer);
            stats.broken += 1;
            return Err(SendError::Broken(peer));
        }
        Ok(())
    }

    /// Closes the association with a peer, and queues the `close_notify` for it (RFC 5246 §7.2.1).
    /// Returns `false` if there is none.
    pub fn close(&mut self, now: Timestamp, peer: SocketAddr, outbox: &mut Outbox) -> bool {
        let closed = self.end(now, peer, outbox);
        if closed {
            self.stats.closed += 1;
        }
        self.gauge();
        closed
    }

    /// Closes one association after the other, as long as the outbox has room. Returns whether any is
    /// left: then send the outbox, clear it, and call again.
    pub fn close_all(&mut self, now: Timestamp, outbox: &mut Outbox) -> bool {
        while let Some((peer, _)) = self.associations.oldest() {
            if !outbox.has_room_for(Self::MAX_REPLIES) {
                return true;
            }
            self.close(now, peer, outbox);
        }
        false
    }

    pub(super) fn end(&mut self, now: Timestamp, peer: SocketAddr, outbox: &mut Outbox) -> bool {
        let Some(mut established) = self.associations.remove(peer) else {
            return false;
        };
        let Self {
            policy,
            scratch,
            stats,
            ..
        } = self;
        let emit = &mut replies(stats, outbox, peer, established.egress);
        let association = &mut established.association;
        association.step(now, policy, Input::Close, scratch, emit);
        true
    }
}

/// Whether a record has something for an association. Protected handshake messages are those of a finished
/// handshake, which the plain ones beside them repeat, or of a renegotiation. The implementation would keep
/// one that it does not understand, and everything behind it.
fn is_of_association(record: &Record<'_>) -> bool {
    record.epoch == 0 || record.content_type != HANDSHAKE
}
