//! What stands between two runs: the checks that are too slow for each, and the renewal of what is used up.

use std::net::SocketAddr;

use rejoinder::transport::Egress;

use super::edit::{is_message, with_cookie};
use super::{
    ALERT, EXCHANGE_EVERY, FRESH, FRESH_FIRST, FRESH_HELLO, FRESH_VERIFY, HALF, HALF_FIRST,
    HALF_FLIGHT, HALF_HELLO, HALF_LAST, HALF_VERIFY, HANDSHAKE_EVERY, HANDSHAKE_TIMEOUT, LATEST,
    MAX_WAITING, MAX_WEAR, OLD_REQUEST, OLD_RESPONSE, OPEN, OPEN_FINISHED, OPEN_HELLO, OPEN_LAST,
    REQUEST, RESPONSE, Stage, later,
};
use crate::dtls::client_addr;

impl Stage {
    /// Checks what a run cannot check each time, and leaves the next one what it begins with.
    pub(super) fn end(&mut self) {
        if self.runs.is_multiple_of(EXCHANGE_EVERY) && !self.has_closed {
            self.exchange();
        }
        if self.runs.is_multiple_of(HANDSHAKE_EVERY) {
            if self.steps > 0 || self.clients[HALF].steps > 0 {
                self.is_used_up = true;
                self.clients[HALF].is_used_up = true;
            }
            self.renew();
            self.renew_handshakes();
            self.shake_hands();
        }
        self.renew();
        self.materials[LATEST].clear();
        self.runs += 1;
    }

    /// The open association serves.
    fn exchange(&mut self) {
        let (request, bytes) = self.request(OPEN);
        self.arrive(client_addr(0), &bytes, false);
        assert!(!self.requests.contains(&(client_addr(0), request)));
        let (response, bytes) = self.response();
        self.deliver(OPEN, &bytes);
        assert!(!self.responses.contains(&response));
        // What is at hand would be too old some time.
        for at in 0..2 {
            let record = self.materials[REQUEST + at].clone();
            self.arrive(client_addr(0), &record, false);
            let record = self.materials[RESPONSE + at].clone();
            self.deliver(OPEN, &record);
        }
        self.requests.retain(|(from, _)| *from != client_addr(0));
        self.responses.clear();
    }

    /// The half-open association becomes one.
    fn shake_hands(&mut self) {
        let established = self.engine.stats().established;
        self.finish_flight();
        let last = self.materials[HALF_LAST].clone();
        self.arrive(client_addr(1), &last, false);
        assert_eq!(self.engine.stats().established, established + 1);
        let finished = std::mem::take(&mut self.materials[LATEST]);
        self.deliver(HALF, &finished);
        // What has waited for the handshake.
        let request = std::mem::take(&mut self.materials[LATEST]);
        let waiting = self.requests.len();
        self.arrive(client_addr(1), &request, false);
        assert!(self.requests.len() < waiting);
    }

    /// A payload of a client, and what leaves with it.
    fn request(&mut self, at: usize) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        let addr = self.clients[at].pipe.addr;
        self.requests.push((addr, payload.clone()));
        let sent = self.clients[at].send(&payload);
        (payload, sent)
    }

    /// A payload for the client with the association, and the record that it leaves in.
    fn response(&mut self) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        self.responses.push(payload.clone());
        self.engine
            .send(
                self.now,
                client_addr(0),
                Egress::default(),
                &payload,
                &mut self.outbox,
            )
            .expect("there is an association");
        (payload, self.queued())
    }

    fn payload(&mut self) -> Vec<u8> {
        self.numbered += 1;
        self.numbered.to_be_bytes().to_vec()
    }

    /// Brings everything into the state that a run begins with.
    pub(super) fn renew(&mut self) {
        if self.has_closed {
            self.renew_association();
            self.next_close = self.runs + CLOSE_EVERY;
        }
        self.renew_records();
        self.accounts.clear();
        self.is_worn = self.is_used_up || self.steps >= MAX_WEAR;
        for client in &mut self.clients[HALF..] {
            client.is_used_up |= client.steps >= MAX_WEAR;
            self.is_worn |= client.is_used_up;
        }
    }

    /// New handshakes in the place of those that a former run has used up.
    pub(super) fn renew_handshakes(&mut self) {
        if !std::mem::take(&mut self.is_worn) {
            return;
        }
        for at in [HALF, FRESH] {
            if self.clients[at].is_used_up || (at == HALF && self.clients[at].steps > 0) {
                let hello = self.restart(at);
                self.clients[at].is_used_up = false;
                self.clients[at].steps = 0;
                self.materials[if at == HALF { HALF_FIRST } else { FRESH_FIRST }] = hello;
            }
        }
        self.renew_handshake();
    }

    /// Has a client begin again, and returns its hello. A new transport takes long, for its buffers.
    fn restart(&mut self, at: usize) -> Vec<u8> {
        let addr = self.clients[at].pipe.addr;
        self.clients[at].give_up(&self.materials[ALERT]);
        if self.engine.close(self.now, addr, &mut self.outbox) {
            self.closed += 1;
            let notice = self.queued();
            self.clients[at].give_up(&notice);
        }
        let (_, mut hello) = self.request(at);
        // A client that was closed in a handshake keeps what waits for the next one.
        let waiting = self.requests.iter().filter(|(from, _)| *from == addr);
        if !is_message(&hello, 1) || waiting.count() > MAX_WAITING {
            self.clients[at].open();
            self.requests.retain(|(from, _)| *from != addr);
            (_, hello) = self.request(at);
        }
        assert!(is_message(&hello, 1), "{hello:?}");
        hello
    }

    /// A new association in the place of the one that was closed.
    fn renew_association(&mut self) {
        let addr = client_addr(0);
        // A handshake in its place would go on.
        self.forget_handshakes();
        self.responses.clear();
        let mut outgoing = self.restart(OPEN);
        for material in [OPEN_HELLO, OPEN_LAST] {
            self.arrive(addr, &outgoing, false);
            let reply = std::mem::take(&mut self.materials[LATEST]);
            self.deliver(OPEN, &reply);
            outgoing = std::mem::take(&mut self.materials[LATEST]);
            self.materials[material].clone_from(&outgoing);
        }
        self.arrive(addr, &outgoing, false);
        let finished = std::mem::take(&mut self.materials[LATEST]);
        self.deliver(OPEN, &finished);
        self.materials[OPEN_FINISHED] = finished;
        let request = std::mem::take(&mut self.materials[LATEST]);
        let waiting = self.requests.len();
        self.arrive(addr, &request, false);
        assert!(self.requests.len() < waiting);
        self.requests.retain(|(from, _)| *from != addr);
        self.has_closed = false;
        self.closed = self.engine.stats().closed;
        self.check();
    }

    /// Records in the place of those that have arrived.
    fn renew_records(&mut self) {
        for at in 0..2 {
            let addr = client_addr(0);
            let is_same = |(from, payload): &(SocketAddr, Vec<u8>)| {
                *from == addr && *payload == self.requests_at_hand[at]
            };
            if !self.requests.iter().any(is_same) {
                let (payload, record) = self.request(OPEN);
                self.requests_at_hand[at] = payload;
                self.materials[OLD_REQUEST] =
                    std::mem::replace(&mut self.materials[REQUEST + at], record);
            }
            if !self.responses.contains(&self.responses_at_hand[at]) {
                let (payload, record) = self.response();
                self.responses_at_hand[at] = payload;
                self.materials[OLD_RESPONSE] =
                    std::mem::replace(&mut self.materials[RESPONSE + at], record);
            }
        }
    }

    /// The half-open association, and hellos with a cookie.
    fn renew_handshake(&mut self) {
        self.forget_handshakes();
        let addr = client_addr(1);
        if self.engine.close(self.now, addr, &mut self.outbox) {
            self.closed += 1;
            self.outbox.clear();
        }
        for (at, [first, verify, hello]) in [
            (HALF, [HALF_FIRST, HALF_VERIFY, HALF_HELLO]),
            (FRESH, [FRESH_FIRST, FRESH_VERIFY, FRESH_HELLO]),
        ] {
            let first = self.materials[first].clone();
            let addr = self.clients[at].pipe.addr;
            self.arrive(addr, &first, false);
            let request = std::mem::take(&mut self.materials[LATEST]);
            self.materials[hello] = with_cookie(&first, &request);
            self.materials[verify] = request;
        }
        let hello = self.materials[HALF_HELLO].clone();
        self.arrive(addr, &hello, false);
        self.materials[HALF_FLIGHT] = std::mem::take(&mut self.materials[LATEST]);
        assert_eq!(self.engine.stats().half_open, 1);
        self.is_used_up = false;
        self.has_finished = false;
        self.steps = 0;
    }

    fn forget_handshakes(&mut self) {
        self.now = later(self.now, HANDSHAKE_TIMEOUT);
        self.engine.on_timer(self.now, &mut self.outbox);
        self.outbox.clear();
        assert_eq!(self.engine.stats().half_open, 0);
        self.verified = vec![client_addr(0)];
        self.is_used_up = true;
    }
}

/// An association takes as long as some runs.
const CLOSE_EVERY: u64 = 16;
