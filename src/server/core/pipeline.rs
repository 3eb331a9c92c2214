use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::ServerCore;
use crate::codec::{Codec, Writer};
use crate::drop_reason::DropReason;
use crate::gate::{Gate, ResponseSize};
use crate::handler::{Context, Handler, Reply, ReplyError, RequestHash};
use crate::identity::Identity;
use crate::panics::{drop_quietly, quietly};
use crate::server::stats::Fate;
use crate::timestamp::Timestamp;
use crate::transport::{Datagram, Delivery, Meta, Outbox};

impl<C: Codec, H, G: Gate> ServerCore<C, H, G> {
    /// The whole life of a datagram, for a handler that answers at once.
    pub(super) fn answer(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        is_stale: bool,
        outbox: &mut Outbox,
    ) -> Fate
    where
        H: Handler<C>,
    {
        self.admit(now, datagram, is_stale, outbox, |core, datagram, outbox| {
            let request = match core.codec.decode_request(datagram.bytes) {
                Ok(request) => request,
                Err(error) => return core.reject(now, datagram, error, outbox),
            };
            let context = core.context(now, datagram, RequestHash::default());
            let handler = &core.handler;
            let write = |reply: &mut Reply<'_, C>| handler.handle(request, &context, reply);
            respond(
                &core.codec,
                &mut core.gate,
                datagram,
                &context,
                outbox,
                write,
            )
        })
    }

    /// Runs `act` on a datagram that passes the checks and gates, without its PROXY header and with its
    /// sender's identity. If that drops it, nothing that it queued stays in the outbox.
    #[inline]
    pub(super) fn admit(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        is_stale: bool,
        outbox: &mut Outbox,
        act: impl FnOnce(&mut Self, &Datagram<'_>, &mut Outbox) -> Result<Fate, Refusal<C::Error>>,
    ) -> Fate {
        // Each move of a datagram copies it, so a copy is made only of one that changes.
        let unwrapped;
        let datagram = match &mut self.behind {
            None => datagram,
            Some(behind) => match behind.unwrap(now, datagram) {
                Ok(inner) => {
                    unwrapped = inner;
                    &unwrapped
                }
                Err(reason) => {
                    return self.refuse(now, &Origin::of(datagram), reason.into());
                }
            },
        };
        let queued = outbox.len();
        let fate = self.fenced(now, Origin::of(datagram), |core, from| {
            core.check(now, datagram, is_stale)?;
            from.identity = core.authenticate(now, datagram)?;
            let identified;
            let datagram = match &from.identity {
                None => datagram,
                identity => {
                    identified = datagram.identified(identity.as_ref());
                    &identified
                }
            };
            act(core, datagram, outbox)
        });
        if let Fate::Dropped(_) = fate {
            outbox.truncate(queued);
        }
        fate
    }

    /// Queues the codec's response to a datagram that does not decode, if it has one.
    #[cold]
    pub(super) fn reject(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        error: C::Error,
        outbox: &mut Outbox,
    ) -> Result<Fate, Refusal<C::Error>> {
        let mut space = [0; MAX_REJECTION_BYTES];
        let room = datagram.bytes.len().min(MAX_REJECTION_BYTES);
        let mut out = Writer::new(&mut space[..room]);
        self.codec
            .encode_rejection(datagram.bytes, &error, &mut out);
        let rejection = match out.finish() {
            Ok(len) if len > 0 && datagram.meta.delivery == Delivery::Unicast => &space[..len],
            _ => return Err(Refusal::Malformed(error)),
        };
        if !self.codec.is_response(rejection) {
            return Err(Refusal::Malformed(error));
        }
        let context = self.context(now, datagram, RequestHash::default());
        let write = |reply: &mut Reply<'_, C>| reply.send_encoded(rejection);
        let (codec, gate) = (&self.codec, &mut self.gate);
        match respond(codec, gate, datagram, &context, outbox, write) {
            Ok(_) => {
                self.refuse(now, &Origin::of(datagram), Refusal::Malformed(error));
                Ok(Fate::Rejected)
            }
            Err(_) => Err(Refusal::Malformed(error)),
        }
    }

    /// The end of a deferred request whose answer is there.
    pub(super) fn answer_late(
        &mut self,
        datagram: &Datagram<'_>,
        context: &Context,
        outbox: &mut Outbox,
        write: impl FnOnce(&mut Reply<'_, C>) -> Result<(), ReplyError>,
    ) -> Fate {
        let queued = outbox.len();
        let fate = self.fenced(context.now, Origin::of(datagram), |core, _| {
            respond(
                &core.codec,
                &mut core.gate,
                datagram,
                context,
                outbox,
                write,
            )
        });
        if let Fate::Dropped(_) = fate {
            outbox.truncate(queued);
        }
        fate
    }

    /// Runs `act` for one datagram. If it fails or panics, the reason is logged.
    ///
    /// What a panic could leave half done is the handler's own state, and the outbox, which the caller
    /// sets back. The codec and the gates run inside too: a datagram that makes them panic must not
    /// end the server.
    #[inline]
    pub(super) fn fenced(
        &mut self,
        now: Timestamp,
        mut from: Origin<'_>,
        act: impl FnOnce(&mut Self, &mut Origin<'_>) -> Result<Fate, Refusal<C::Error>>,
    ) -> Fate {
        let result = panic::catch_unwind(AssertUnwindSafe(|| act(self, &mut from)));
        match result {
            Ok(Ok(fate)) => fate,
            Ok(Err(refusal)) => self.refuse(now, &from, refusal),
            Err(payload) => {
                drop_quietly(payload);
                self.refuse(now, &from, Refusal::For(DropReason::HandlerPanicked))
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Timestamp,
        from: &Origin<'_>,
        refusal: Refusal<C::Error>,
    ) -> Fate {
        let (reason, cause): (_, Option<&(dyn Error + 'static)>) = match &refusal {
            Refusal::For(reason) => (*reason, None),
            Refusal::Unauthenticated(error) => (DropReason::Unauthenticated, Some(error)),
            Refusal::Malformed(error) => (DropReason::Malformed, Some(error)),
            Refusal::Reply(ReplyError::Handler(error)) => {
                (DropReason::HandlerFailed, Some(error.as_ref()))
            }
            Refusal::Reply(error) => (DropReason::ReplyFailed, Some(error)),
        };
        // To show an error of the codec is its own code again, and so is to drop it. Each has a
        // catch of its own: a panic within a panic would be the end.
        let log = &mut self.log;
        quietly(|| log.dropped(now, from.meta, from.identity.as_ref(), reason, cause));
        quietly(|| drop(refusal));
        Fate::Dropped(reason)
    }

    /// The checks and gates before a datagram is decoded.
    #[inline]
    pub(super) fn check(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        is_stale: bool,
    ) -> Result<(), Refusal<C::Error>> {
        let Datagram { bytes, meta, .. } = datagram;
        if meta.truncated {
            return Err(DropReason::Truncated.into());
        }
        self.sources.check(now.monotonic, meta)?;
        if is_stale {
            return Err(DropReason::Stale.into());
        }
        if self.codec.is_response(bytes) {
            return Err(DropReason::Response.into());
        }
        Ok(self.gate.accept(now, datagram)?)
    }

    /// Who sent a datagram, if that is proved, and whether the gates accept it from there.
    #[inline]
    pub(super) fn authenticate(
        &mut self,
        now: Timestamp,
        datagram: &Datagram<'_>,
    ) -> Result<Option<Identity>, Refusal<C::Error>> {
        let identity = self
            .codec
            .authenticate(now, datagram.bytes)
            .map_err(Refusal::Unauthenticated)?
            .or_else(|| datagram.identity.cloned());
        if identity.is_some() {
            let datagram = datagram.identified(identity.as_ref());
            self.gate.accept_identified(now, &datagram)?;
        }
        Ok(identity)
    }

    #[inline]
    pub(super) fn context(
        &self,
        now: Timestamp,
        datagram: &Datagram<'_>,
        hash: RequestHash,
    ) -> Context {
        let id = self.codec.request_id(datagram.bytes);
        Context::of(datagram, now, id, hash)
    }

    #[inline]
    pub(super) fn is_stale(&self, received: Timestamp, at: Duration, meta: &Meta) -> bool {
        self.max_age.is_some_and(|max_age| {
            let waited = at.saturating_sub(received.monotonic);
            waited.saturating_add(meta.waited) > max_age
        })
    }
}

/// Queues what `write` sends, and asks the gates about it.
#[inline]
fn respond<C: Codec, G: Gate>(
    codec: &C,
    gate: &mut G,
    datagram: &Datagram<'_>,
    context: &Context,
    outbox: &mut Outbox,
    write: impl FnOnce(&mut Reply<'_, C>) -> Result<(), ReplyError>,
) -> Result<Fate, Refusal<C::Error>> {
    let queued = outbox.len();
    let mut reply = Reply::new(codec, datagram.bytes, context, outbox);
    write(&mut reply).map_err(Refusal::Reply)?;
    if outbox.len() == queued {
        return Ok(Fate::Silent);
    }
    let size = ResponseSize::new(outbox.len() - queued, outbox.bytes_from(queued));
    gate.allow_responses(context.now, datagram, size)?;
    Ok(Fate::Replied)
}

/// A rejection is a header: DNS has 12 bytes, STUN 20 and an attribute.
const MAX_REJECTION_BYTES: usize = 64;

/// Where a datagram came from, for the log.
pub(super) struct Origin<'a> {
    meta: &'a Meta,
    pub(super) identity: Option<Identity>,
}

impl<'a> Origin<'a> {
    #[inline]
    pub(super) fn of(datagram: &'a Datagram<'_>) -> Self {
        Self::new(&datagram.meta, datagram.identity)
    }

    #[inline]
    pub(super) fn new(meta: &'a Meta, identity: Option<&Identity>) -> Self {
        let identity = identity.cloned();
        Self { meta, identity }
    }
}

/// Why nothing is sent for a datagram.
pub(super) enum Refusal<E> {
    For(DropReason),
    Unauthenticated(E),
    Malformed(E),
    Reply(ReplyError),
}

impl<E> From<DropReason> for Refusal<E> {
    fn from(reason: DropReason) -> Self {
        Self::For(reason)
    }
}
