use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rejoinder::codec::{Signed, SignedBuilder, SignedError, SigningKey, Tagged, Text};
use rejoinder::handler::MAX_RESPONSES;
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, Meta, Outbox};
use rejoinder::{Codec, DropReason, Handler, Timestamp, Writer};

use super::{Input, changed};

/// A server and clients that sign: requests are made, stamped again, delivered whenever, changed on the way
/// and answered, and keys come and go. What is not authentic has no effect, nothing is accepted twice, and
/// what is authentic and fresh is accepted.
pub fn signed(data: &[u8]) {
    let mut input = Input(data);
    let window = Duration::from_micros(1 + (u64::from(input.byte()) << 12));
    let capacity = 1 + usize::from(input.byte() % 32);
    let start = 1_000_000_000_000_000;
    let codec = |ids: &[u32], salt: u8| {
        let keys = ids.iter().copied().map(key);
        let builder = Signed::builder(Tagged(Text)).window(window);
        let builder = builder.replay_capacity(capacity).salt([salt; 8]);
        let codec = keys.fold(builder, SignedBuilder::key);
        codec.build(at(start)).expect("the settings are in range")
    };
    let server = codec(&[1, 2], 0);
    let handler = |text: &str| Some(format!("re: {text}"));
    let mut world = World {
        core: ServerCore::new(server.clone(), handler),
        server,
        // All keys, so that each can be the first.
        clients: [
            codec(&[1, 2, 3], 1),
            codec(&[2, 3, 1], 1),
            codec(&[3, 1, 2], 2),
        ],
        inbox: Inbox::new(1, 1_024),
        outbox: Outbox::new(MAX_RESPONSES, 1_024),
        window: u64::try_from(window.as_micros()).expect("it has fewer than 64 bits"),
        now: start,
        requests: Vec::new(),
        floors: BTreeMap::from([(1, start), (2, start)]),
        accepted: BTreeMap::new(),
        delivered: 0,
    };
    while !input.0.is_empty() {
        world.act(&mut input);
    }
    let stats = world.core.stats();
    assert!(
        stats.is_conserved() && stats.received == world.delivered,
        "{stats}"
    );
}

struct World<H> {
    core: ServerCore<Signed<Tagged<Text>>, H>,
    server: Signed<Tagged<Text>>,
    clients: [Signed<Tagged<Text>>; 3],
    inbox: Inbox,
    outbox: Outbox,
    /// In microseconds, as all times here.
    window: u64,
    now: u64,
    /// What clients made last.
    requests: Vec<Vec<u8>>,
    /// The valid keys, and since when each is.
    floors: BTreeMap<u32, u64>,
    /// The latest time of each accepted request, by key and nonce.
    accepted: BTreeMap<(u32, Vec<u8>), u64>,
    delivered: u64,
}

impl<H: Handler<Signed<Tagged<Text>>>> World<H> {
    fn act(&mut self, input: &mut Input<'_>) {
        let action = input.byte() % 8;
        let any = usize::from(input.byte());
        let chosen = any.checked_rem(self.requests.len());
        match (action, chosen) {
            (0, _) => self.make(any, input),
            (1, Some(index)) => {
                let bytes = self.requests[index].clone();
                self.deliver(&bytes);
            }
            (2, Some(index)) => {
                let bytes = changed(&self.requests[index], input);
                if bytes == self.requests[index] {
                    self.deliver(&bytes);
                } else {
                    self.forge(&bytes);
                }
            }
            (3, _) => {
                let bytes = input.bytes().to_vec();
                self.forge(&bytes);
            }
            (4, Some(index)) => {
                let client = &self.clients[0];
                client.stamp_request(at(self.now), &mut self.requests[index]);
            }
            (5, Some(index)) => self.answer(index, input),
            (6, _) => self.replace_keys(any),
            _ => {
                let span = u64::from(input.byte()) << (input.byte() % 24);
                self.now = match any % 8 {
                    0 => self.now.saturating_sub(span),
                    _ => self.now + span,
                };
            }
        }
    }

    fn make(&mut self, any: usize, input: &mut Input<'_>) {
        let client = &self.clients[any % self.clients.len()];
        // Few, so that two requests of a client have one nonce now and then.
        let id = u64::from(input.byte() % 16);
        let text = String::from_utf8_lossy(input.bytes());
        let mut request = written(|out| client.encode_request(id, &text, out));
        client.stamp_request(at(self.now), &mut request);
        if self.requests.len() == 8 {
            self.requests.remove(0);
        }
        self.requests.push(request);
    }

    /// Delivers what a client made: it is accepted if it is fresh, and once.
    fn deliver(&mut self, bytes: &[u8]) {
        let (id, time, nonce) = (
            u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes")),
            u64::from_be_bytes(bytes[5..13].try_into().expect("eight bytes")),
            bytes[13..29].to_vec(),
        );
        let verdict = self.server.authenticate(at(self.now), bytes);
        let of_key = self.accepted.keys().filter(|(key, _)| *key == id).count();
        let known = self.accepted.get(&(id, nonce.clone()));
        let is_repeated = known.is_some_and(|&accepted| accepted >= time);
        match &verdict {
            Ok(identity) => {
                let identity = identity.as_ref().and_then(|identity| identity.as_str());
                assert_eq!(identity, Some(&*id.to_string()));
                assert!(!is_repeated && self.floors[&id] <= time);
                assert!(self.now.abs_diff(time) <= self.window);
            }
            Err(SignedError::UnknownKey { id }) => assert!(!self.floors.contains_key(id)),
            Err(SignedError::TooOld { .. }) => assert!(self.now - time > self.window),
            Err(SignedError::TooEarly { .. }) => assert!(time - self.now > self.window),
            Err(SignedError::Replayed) => assert!(is_repeated),
            // A set of places has eight, so fewer are never forgotten.
            Err(SignedError::Forgotten) => assert!(time < self.floors[&id] || of_key > 8),
            Err(error) => panic!("{error}"),
        }
        if verdict.is_ok() {
            self.accepted.insert((id, nonce), time);
        }
        // Whatever it was, it is not accepted now.
        self.forge(bytes);
    }

    /// Delivers what proves nothing.
    fn forge(&mut self, bytes: &[u8]) {
        let before = self.core.stats();
        let source = "192.0.2.1:50000".parse().expect("it is an address");
        self.inbox.push(bytes, Meta::new(source));
        self.core
            .handle(at(self.now), &mut self.inbox, &mut self.outbox);
        self.delivered += 1;
        assert!(self.inbox.is_empty() && self.outbox.is_empty());
        let after = self.core.stats();
        let dropped = [DropReason::Unauthenticated, DropReason::Response]
            .map(|reason| after.dropped(reason) - before.dropped(reason));
        assert_eq!(dropped[0] + dropped[1], 1);
        assert_eq!(dropped[1] == 1, bytes.first() == Some(&b'r'));
    }

    /// A response proves to answer its request, and no other.
    fn answer(&self, index: usize, input: &mut Input<'_>) {
        let request = &self.requests[index];
        let client = &self.clients[0];
        let text = String::from_utf8_lossy(input.bytes());
        let response = written(|out| client.encode_response(at(self.now), request, &text, out));
        assert!(client.is_response(&response) && client.decode_response(&response).is_ok());
        for other in &self.requests {
            // All but the time and the MAC.
            let is_same = other[..5] == request[..5]
                && other[13..other.len() - 16] == request[13..request.len() - 16];
            assert_eq!(client.is_authentic_response(other, &response), is_same);
            assert!(!is_same || client.response_matches(other, &response));
        }
        let forged = changed(&response, input);
        if forged != response {
            assert!(!client.is_authentic_response(request, &forged));
        }
    }

    fn replace_keys(&mut self, any: usize) {
        let ids: Vec<u32> = (1..=3).filter(|id| any >> id & 1 == 1).collect();
        let keys: Vec<SigningKey> = ids.iter().map(|&id| key(id)).collect();
        let replaced = self.server.set_keys(at(self.now), &keys);
        assert_eq!(replaced.is_ok(), !ids.is_empty());
        if replaced.is_ok() {
            let floors = ids.iter().map(|id| (*id, self.floors.get(id).copied()));
            self.floors = floors
                .map(|(id, floor)| (id, floor.unwrap_or(self.now)))
                .collect();
            self.accepted.retain(|(id, _), _| ids.contains(id));
        }
    }
}

fn key(id: u32) -> SigningKey {
    SigningKey::new(id, [u8::try_from(id).expect("it is small"); 32])
}

fn at(micros: u64) -> Timestamp {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
    Timestamp::new(Duration::from_micros(micros), wall)
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Vec<u8> {
    let mut space = vec![0; 1_024];
    let mut out = Writer::new(&mut space);
    write(&mut out).expect("the keys are there");
    let len = out.finish().expect("it is short");
    space.truncate(len);
    space
}
