use std::time::Duration;

use super::frame::{
    NONCE_AT, REQUEST, RESPONSE, RESPONSE_HEADER_BYTES, SignedRequest, SignedResponse, TIME_AT,
    TIME_BYTES, id_of, inner_len,
};
use super::keys::{Key, MAC_BYTES};
use super::replay::Refused;
use super::{Signed, SignedError, micros};
use crate::codec::{Codec, Correlation, RequestKey, ResponseKind, Writer};
use crate::identity::Identity;
use crate::timestamp::Timestamp;

impl<C: Codec> Codec for Signed<C> {
    type Request<'a> = C::Request<'a>;
    type Response<'a> = C::Response<'a>;
    type Answer<'a> = C::Answer<'a>;
    type Error = SignedError<C::Error>;

    /// Decodes without a look at the signature, as [`authenticate`](Self::authenticate) has been called.
    fn decode_request<'a>(&self, datagram: &'a [u8]) -> Result<C::Request<'a>, Self::Error> {
        let request = SignedRequest::parse(datagram).ok_or(SignedError::NotSigned)?;
        Ok(self.inner.decode_request(request.inner)?)
    }

    fn encode_response(
        &self,
        now: Timestamp,
        request: &[u8],
        answer: C::Answer<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        self.sign_response(request, out, |inner, out| {
            self.inner.encode_response(now, inner, answer, out)
        })
    }

    /// Leaves the time and the MAC to [`stamp_request`](Self::stamp_request). Without them, a request proves
    /// nothing.
    fn encode_request(
        &self,
        id: u64,
        request: C::Request<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), Self::Error> {
        out.put(&[REQUEST]);
        out.put(&self.shared.keys.load().signing().id.to_be_bytes());
        out.put(&[0; TIME_BYTES]);
        out.put(&self.shared.salt);
        out.put(&id.to_be_bytes());
        self.inner.encode_request(id, request, out)?;
        out.put(&[0; MAC_BYTES]);
        Ok(())
    }

    /// Decodes without a look at the signature, as
    /// [`is_authentic_response`](Self::is_authentic_response) has been called.
    fn decode_response<'a>(&self, datagram: &'a [u8]) -> Result<C::Response<'a>, Self::Error> {
        let response = SignedResponse::parse(datagram).ok_or(SignedError::NotSigned)?;
        Ok(self.inner.decode_response(response.inner)?)
    }

    fn is_response(&self, datagram: &[u8]) -> bool {
        datagram.first() == Some(&RESPONSE)
    }

    fn authenticate(
        &self,
        now: Timestamp,
        datagram: &[u8],
    ) -> Result<Option<Identity>, Self::Error> {
        let request = SignedRequest::parse(datagram).ok_or(SignedError::NotSigned)?;
        let id = request.key;
        let keys = self.shared.keys.load();
        let key = keys.get(id).ok_or(SignedError::UnknownKey { id })?;
        if !key.verifies(&[request.covered], request.mac) {
            return Err(SignedError::WrongSignature);
        }
        let (now, then) = (micros(now.wall), request.time);
        if now.abs_diff(then) > self.shared.window {
            let window = Duration::from_micros(self.shared.window);
            let difference = Duration::from_micros(now.abs_diff(then));
            return Err(if then < now {
                SignedError::TooOld {
                    age: difference,
                    window,
                }
            } else {
                SignedError::TooEarly {
                    ahead: difference,
                    window,
                }
            });
        }
        match key.accepted.accept(request.nonce, then) {
            Ok(()) => Ok(Some(key.identity.clone())),
            Err(Refused::Replayed) => Err(SignedError::Replayed),
            Err(Refused::Forgotten) => Err(SignedError::Forgotten),
        }
    }

    fn stamp_request(&self, now: Timestamp, request: &mut [u8]) {
        let Some(parsed) = SignedRequest::parse(request) else {
            return;
        };
        // Later than the transmission before, also if the clock went back meanwhile.
        let time = micros(now.wall).max(parsed.time.saturating_add(1));
        let keys = self.shared.keys.load();
        let Some(key) = keys.get(parsed.key) else {
            // The key is gone. What was signed with it is not accepted any more.
            return;
        };
        request[TIME_AT..TIME_AT + TIME_BYTES].copy_from_slice(&time.to_be_bytes());
        if let Some((covered, mac)) = request.split_last_chunk_mut::<MAC_BYTES>() {
            *mac = key.sign(&[covered]);
        }
    }

    fn is_authentic_response(&self, request: &[u8], response: &[u8]) -> bool {
        let request = SignedRequest::parse(request);
        let (Some(request), Some(response)) = (request, SignedResponse::parse(response)) else {
            return false;
        };
        if (response.key, response.nonce) != (request.key, request.nonce) {
            return false;
        }
        let keys = self.shared.keys.load();
        let Some(key) = keys.get(response.key) else {
            return false;
        };
        let len = inner_len(request.inner);
        let parts = [response.header, &len, request.inner, response.inner];
        key.verifies(&parts, response.mac)
    }

    /// The nonce and the inner request.
    fn request_key<'a>(&self, request: &'a [u8]) -> RequestKey<'a> {
        let parsed = SignedRequest::parse(request);
        RequestKey {
            bytes: parsed.map_or(request, |parsed| &parsed.covered[NONCE_AT..]),
            is_unique: true,
        }
    }

    /// The inner codec's, signed.
    fn encode_rejection(&self, datagram: &[u8], error: &Self::Error, out: &mut Writer<'_>) {
        let SignedError::Inner(error) = error else {
            return;
        };
        let mut space = [0; 64];
        let mut rejection = Writer::new(&mut space);
        if let Some(request) = SignedRequest::parse(datagram) {
            self.inner
                .encode_rejection(request.inner, error, &mut rejection);
        }
        if let Ok(len @ 1..) = rejection.finish() {
            // It fails only if the key is gone meanwhile, before anything is written.
            let _ = self.sign_response(datagram, out, |_, out| {
                out.put(&space[..len]);
                Ok(())
            });
        }
    }

    fn correlation(&self) -> Correlation {
        Correlation::Id { bits: 64 }
    }

    fn response_id(&self, response: &[u8]) -> Option<u64> {
        Some(id_of(SignedResponse::parse(response)?.nonce))
    }

    fn request_id(&self, request: &[u8]) -> Option<u64> {
        Some(id_of(SignedRequest::parse(request)?.nonce))
    }

    fn response_matches(&self, request: &[u8], response: &[u8]) -> bool {
        let request = SignedRequest::parse(request);
        match (request, SignedResponse::parse(response)) {
            (Some(request), Some(response)) => {
                (request.key, request.nonce) == (response.key, response.nonce)
                    && self.inner.response_matches(request.inner, response.inner)
            }
            _ => false,
        }
    }

    /// The inner codec's, but for [parts](ResponseKind::Part).
    fn response_kind<'a>(&self, request: &[u8], datagram: &'a [u8]) -> ResponseKind<'a> {
        let request = SignedRequest::parse(request);
        let (Some(request), Some(response)) = (request, SignedResponse::parse(datagram)) else {
            return ResponseKind::Whole;
        };
        match self.inner.response_kind(request.inner, response.inner) {
            ResponseKind::Part { .. } => ResponseKind::Whole,
            kind => kind,
        }
    }
}

impl<C: Codec> Signed<C> {
    /// Writes a response to a request, with what `write` writes in it.
    fn sign_response(
        &self,
        request: &[u8],
        out: &mut Writer<'_>,
        write: impl FnOnce(&[u8], &mut Writer<'_>) -> Result<(), C::Error>,
    ) -> Result<(), SignedError<C::Error>> {
        let request = SignedRequest::parse(request).ok_or(SignedError::NotSigned)?;
        let id = request.key;
        let keys = self.shared.keys.load();
        let key: &Key = keys.get(id).ok_or(SignedError::UnknownKey { id })?;
        let start = out.written().map(<[u8]>::len);
        out.put(&[RESPONSE]);
        out.put(&id.to_be_bytes());
        out.put(request.nonce);
        write(request.inner, out)?;
        let mut mac = [0; MAC_BYTES];
        // What is too long is not signed, since it is not sent.
        if let (Some(start), Some(written)) = (start, out.written()) {
            let (header, inner) = written[start..].split_at(RESPONSE_HEADER_BYTES);
            let len = inner_len(request.inner);
            mac = key.sign(&[header, &len, request.inner, inner]);
        }
        out.put(&mac);
        Ok(())
    }
}
