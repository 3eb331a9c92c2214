mod keys;
mod replay;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

pub use self::keys::SigningKey;
use self::keys::{Key, Keys, MAC_BYTES};
use self::replay::{Nonce, Refused};
use super::{Codec, Correlation, RequestKey, ResponseKind, Writer};
use crate::config_error::ConfigError;
use crate::identity::Identity;
use crate::timestamp::Timestamp;

/// Another codec's messages with a proof that a holder of a shared key made them (feature `signed`).
///
/// Each message carries the first 128 bits of an HMAC-SHA-256 (RFC 2104, FIPS 180-4) over all of it. A
/// request also carries a time and a nonce, and is accepted once. The response repeats the nonce, and its
/// proof covers the request. The model is TSIG, the signatures of DNS messages (RFC 8945).
///
/// A server drops what does not prove its sender, before it decodes it, as
/// [`Unauthenticated`](crate::DropReason::Unauthenticated): nothing is sent. The key's
/// [identity](SigningKey::identity) is in [`Context::identity`](crate::Context::identity). A client ignores a
/// response that proves nothing, and goes on waiting for one that does.
///
/// ```
/// use rejoinder::codec::{Signed, SigningKey, Text};
/// use rejoinder::sans_io::ServerCore;
/// use rejoinder::sim::SimNet;
/// use rejoinder::{Client, Context, Handler, Identity, Reply, ReplyError};
///
/// struct Door;
///
/// impl Handler<Signed<Text>> for Door {
///     fn handle(&self, request: &str, context: &Context, reply: &mut Reply<'_, Signed<Text>>) -> Result<(), ReplyError> {
///         let identity = context.identity().expect("each request is signed");
///         reply.send(&format_args!("{request}ed for {identity}"))
///     }
/// }
///
/// let net = SimNet::new();
/// let key = SigningKey::new(1, [0x2a; 32]).identity(Identity::from("caretaker"));
/// // With real sockets: `.build(Timestamp::system())`.
/// let codec = Signed::builder(Text).key(key).build(net.now())?;
/// let door = "10.0.0.1:9999".parse()?;
/// net.host(door, ServerCore::new(codec.clone(), Door))?;
///
/// let mut client = Client::new(net, codec, door);
/// assert_eq!(client.request("open")?, "opened for caretaker");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What it does not do
///
/// - **It hides nothing.** Who can read the network reads all messages, and lengths and times anyway.
/// - **It does not know holders of one key apart.** Each of them can make requests and responses. Give each
///   peer a key of its own.
/// - **It binds no address.** A request that was caught on its way and held back can be delivered from
///   elsewhere, once, while its time is in the window. The response then goes there.
/// - **It knows what one process accepted.** Servers that share a key accept a request once each. Clones of
///   one codec, such as those of a server's workers, count as one. A [`service`](SignedBuilder::service)
///   keeps apart servers of different kinds.
/// - **It does not keep a handler from running twice.** A client that gets no response signs the request anew
///   and sends it again. [`Dedup`](crate::handler::Dedup) recognizes it by its nonce, whatever its address.
///
/// # Time
///
/// The clocks of both sides may differ by the [`window`](SignedBuilder::window), 60 seconds by default. A
/// codec reads no clock: [`build`](SignedBuilder::build) and the driver pass the time.
///
/// Requests that were signed before `build`, by the client's clock, are refused, since an earlier process may
/// have accepted them. So after a restart, a client with a slow clock gets no response for the time by which
/// the clock is slow. And a request that was signed by a fast clock can be replayed to the new process, for
/// the time by which that clock is fast. A server's clock must not go back over a restart.
///
/// # What is remembered
///
/// For each key, a table of [`replay_capacity`](SignedBuilder::replay_capacity) requests, about 25 bytes
/// each, allocated with the key's first request. When it is full, the oldest is forgotten, and requests as old
/// as that are refused. So a replay is never accepted, and no key's load takes places of another key. At the
/// default of 16,384, the full window holds up to some 100 requests a second of one key. At 4,000 a second, a
/// request may be about one second old when it arrives. Only holders of the key can fill its table.
///
/// # Bytes
///
/// All numbers are big-endian. `n` and `m` are the lengths of the inner codec's datagrams.
///
/// | request: offset | bytes | what |
/// | --- | --- | --- |
/// | 0 | 1 | `q`, 0x71 |
/// | 1 | 4 | the number of the key |
/// | 5 | 8 | the time: microseconds since 1970-01-01 00:00:00 UTC |
/// | 13 | 16 | the nonce: 8 random bytes of the client's codec, 8 of the request |
/// | 29 | n | the inner request |
/// | 29 + n | 16 | the MAC: of bytes 0 to 28 + n |
///
/// | response: offset | bytes | what |
/// | --- | --- | --- |
/// | 0 | 1 | `r`, 0x72 |
/// | 1 | 4 | the number of the request's key |
/// | 5 | 16 | the request's nonce |
/// | 21 | m | the inner response |
/// | 21 + m | 16 | the MAC: of bytes 0 to 20, n as 4 bytes, the inner request, the inner response |
///
/// So a request is 45 bytes longer than the inner one, and a response 37. The first byte is the direction, and
/// the MAC covers it: a response is never taken for a request, nor a request for a response.
///
/// The MAC's key is derived: K = HMAC-SHA-256(secret, "rejoinder signed 1 " ‖ service), and the MAC is the
/// first 16 bytes of HMAC-SHA-256(K, message). The inner request is the same in all transmissions of a
/// request; the time and the MAC are not. A response answers each of them.
///
/// An example has the secret 0x00 0x01 … 0x1f, key 7, no service, and the time 1,562,519,878 s (2019-07-07
/// 17:17:58 UTC). The salt is 0xa0 … 0xa7, and the id 0x0102030405060708. The inner request is `ping`, and the
/// inner response `pong`:
///
/// ```
/// use rejoinder::codec::{Signed, SigningKey, Text};
/// use rejoinder::{Codec, Timestamp, Writer};
/// use std::time::{Duration, SystemTime};
///
/// # fn hex(bytes: &[u8]) -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
/// let secret: Vec<u8> = (0..32).collect();
/// let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_562_519_878);
/// let now = Timestamp::new(Duration::ZERO, wall);
/// let codec = Signed::builder(Text)
///     .key(SigningKey::new(7, &secret))
///     .salt([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7])
///     .build(now)?;
///
/// let mut space = [0; 64];
/// let mut out = Writer::new(&mut space);
/// codec.encode_request(0x0102_0304_0506_0708, "ping", &mut out)?;
/// let len = out.finish()?;
/// let request = &mut space[..len];
/// codec.stamp_request(now, request);
/// assert_eq!(
///     hex(request),
///     "7100000007\
///      00058d1a82485d80\
///      a0a1a2a3a4a5a6a70102030405060708\
///      70696e67\
///      8a651a505610e7b8e188103967a4fedf"
/// );
///
/// let mut space = [0; 64];
/// let mut out = Writer::new(&mut space);
/// codec.encode_response(now, request, &"pong", &mut out)?;
/// let len = out.finish()?;
/// assert_eq!(
///     hex(&space[..len]),
///     "7200000007\
///      a0a1a2a3a4a5a6a70102030405060708\
///      706f6e67\
///      5c336a1ca44e570991cfda5ab052aabb"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Keys change
///
/// Several keys are valid at once. To replace one, give all servers the new key beside the old, with
/// [`set_keys`](Self::set_keys) or at their next start. Then give it to the clients. Then take the old one
/// from the servers. A client signs with the first of its keys.
/// [`guide::security`](crate::guide::security) has an example.
///
/// # The inner codec
///
/// Any codec will do, [`Tagged`](super::Tagged) among them, but for one whose response is
/// [several datagrams](ResponseKind::Part). Requests have ids of 64 bits, whatever the inner codec has. A
/// [rejection](Codec::encode_rejection) is signed; only what a key's holder signed is rejected.
pub struct Signed<C> {
    inner: C,
    shared: Arc<Shared>,
}

/// What clones have in common.
struct Shared {
    keys: ArcSwap<Keys>,
    service: Box<[u8]>,
    /// In microseconds.
    window: u64,
    capacity: usize,
    salt: [u8; 8],
}

impl<C> Signed<C> {
    /// The settings to be set one by one.
    pub fn builder(inner: C) -> SignedBuilder<C> {
        SignedBuilder {
            inner,
            keys: Vec::new(),
            service: Box::default(),
            window: Duration::from_secs(60),
            capacity: 16_384,
            salt: None,
        }
    }

    /// Replaces the keys, here and in all clones. The first is the one that a client signs with.
    ///
    /// A key that was there before, with the same secret, still refuses what it accepted. A new one accepts
    /// what is signed from `now` on. Requests at work whose key is gone get no response.
    ///
    /// # Errors
    ///
    /// As those of [`SignedBuilder::build`]. Then the keys stay as they were.
    ///
    /// ```
    /// use rejoinder::Timestamp;
    /// use rejoinder::codec::{Signed, SigningKey, Text};
    ///
    /// let (old, new) = (SigningKey::new(1, [1; 32]), SigningKey::new(2, [2; 32]));
    /// let codec = Signed::builder(Text).key(old.clone()).build(Timestamp::system())?;
    /// codec.set_keys(Timestamp::system(), &[new, old])?;
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn set_keys(&self, now: Timestamp, keys: &[SigningKey]) -> Result<(), ConfigError> {
        let shared = &*self.shared;
        let before = shared.keys.load();
        let (service, capacity, floor) = (&shared.service, shared.capacity, before_now(now));
        let keys = Keys::new(keys, service, Some(&before), capacity, floor)?;
        shared.keys.store(Arc::new(keys));
        Ok(())
    }

    /// How many bytes the tables of accepted requests take once all keys were used.
    ///
    /// ```
    /// use rejoinder::Timestamp;
    /// use rejoinder::codec::{Signed, SigningKey, Text};
    ///
    /// let keys = Signed::builder(Text).key(SigningKey::new(1, [1; 32]));
    /// let codec = keys.replay_capacity(1_024).build(Timestamp::system())?;
    /// assert_eq!(codec.memory_bytes(), 1_024 * 25);
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn memory_bytes(&self) -> usize {
        self.shared.keys.load().memory_bytes()
    }

    /// The inner codec.
    ///
    /// ```
    /// use rejoinder::codec::{Signed, SigningKey, Text};
    /// use rejoinder::{Codec, Timestamp};
    ///
    /// let keys = Signed::builder(Text).key(SigningKey::new(1, [1; 32]));
    /// let codec = keys.build(Timestamp::system())?;
    /// assert_eq!(codec.inner().decode_request(b"hello"), Ok("hello"));
    /// # Ok::<(), rejoinder::ConfigError>(())
    /// ```
    pub fn inner(&self) -> &C {
        &self.inner
    }
}

/// A clone shares the keys, and what was accepted.
impl<C: Clone> Clone for Signed<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for Signed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<u32> = self.shared.keys.load().ids().collect();
        f.debug_struct("Signed")
            .field("inner", &self.inner)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Signed`] codec.
///
/// ```
/// use rejoinder::Timestamp;
/// use rejoinder::codec::{Signed, SigningKey, Tagged, Text};
/// use std::time::Duration;
///
/// let codec = Signed::builder(Tagged(Text))
///     .key(SigningKey::new(2, [2; 32]))
///     .key(SigningKey::new(1, [1; 32])) // still valid
///     .service("doors")
///     .window(Duration::from_secs(10))
///     .replay_capacity(65_536)
///     .salt(*b"repeated") // a test is to be the same each time
///     .build(Timestamp::system())?;
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct SignedBuilder<C> {
    inner: C,
    keys: Vec<SigningKey>,
    service: Box<[u8]>,
    window: Duration,
    capacity: usize,
    salt: Option<[u8; 8]>,
}

impl<C> SignedBuilder<C> {
    /// Adds a key. A server accepts all of them; a client signs with the first. At least 1 and at most 65,536,
    /// each with a number of its own.
    pub fn key(mut self, key: SigningKey) -> Self {
        self.keys.push(key);
        self
    }

    /// The name of the service, which both sides must know. With another name, the same keys prove nothing:
    /// a request for one service cannot be replayed to another. Default: empty.
    pub fn service(mut self, name: impl AsRef<[u8]>) -> Self {
        self.service = name.as_ref().into();
        self
    }

    /// By how much the time in a request may differ from the server's, in either direction. Default: 60
    /// seconds; RFC 8945 §10 recommends 300 for TSIG. More than 0, at most one day. Only servers use it.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many accepted requests are remembered for each key, rounded up to a power of two, at least 8.
    /// Default: 16,384, 1 to 16,777,216. Only servers use it.
    pub fn replay_capacity(mut self, requests: usize) -> Self {
        self.capacity = requests;
        self
    }

    /// The first half of all nonces. Default: random, from the OS. A fixed one makes a simulation repeatable,
    /// and is for nothing else: two clients with one key must not have the same. Only clients use it.
    pub fn salt(mut self, salt: [u8; 8]) -> Self {
        self.salt = Some(salt);
        self
    }

    /// The codec. Requests that were signed before `now`, by the clock of their client, are refused.
    ///
    /// # Errors
    ///
    /// - A setting out of range, as its setter says.
    /// - A secret that has fewer than 16 bytes or more than 1,024, or a number that two keys have.
    /// - The error of the OS's random number generator.
    pub fn build(self, now: Timestamp) -> Result<Signed<C>, ConfigError> {
        let window = u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX);
        if !(1..=MAX_WINDOW_MICROS).contains(&window) {
            let window = format_args!("{:?}", self.window);
            let range = "more than 0, at most 86400 s";
            return Err(ConfigError::out_of_range("window", window, range));
        }
        ConfigError::check("replay_capacity", self.capacity, 1..=MAX_CAPACITY)?;
        let floor = before_now(now);
        let keys = Keys::new(&self.keys, &self.service, None, self.capacity, floor)?;
        let salt = match self.salt {
            Some(salt) => salt,
            None => getrandom::u64()
                .map_err(std::io::Error::from)?
                .to_be_bytes(),
        };
        Ok(Signed {
            inner: self.inner,
            shared: Arc::new(Shared {
                keys: ArcSwap::from_pointee(keys),
                service: self.service,
                window,
                capacity: self.capacity,
                salt,
            }),
        })
    }
}

impl<C: fmt::Debug> fmt::Debug for SignedBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedBuilder")
            .field("inner", &self.inner)
            .field("keys", &self.keys)
            .field("window", &self.window)
            .field("replay_capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Why a datagram proves nothing or is no message, or a message could not be written.
///
/// ```
/// use rejoinder::codec::{Signed, SignedError, SigningKey, Text};
/// use rejoinder::{Codec, Timestamp};
///
/// let now = Timestamp::system();
/// let codec = Signed::builder(Text).key(SigningKey::new(1, [1; 32])).build(now)?;
/// assert_eq!(codec.authenticate(now, b"hello"), Err(SignedError::NotSigned));
/// # Ok::<(), rejoinder::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError<E> {
    /// It is too short, or does not begin with the mark of its direction.
    #[error("not a signed message")]
    NotSigned,
    /// No key has this number.
    #[error("no key has the number {id}")]
    UnknownKey {
        /// The number in the message, which proves nothing.
        id: u32,
    },
    /// The MAC is wrong: another secret, another service, or a change on the way.
    #[error("wrong signature")]
    WrongSignature,
    /// The time in the request is too far before the server's.
    #[error("signed {age:?} ago")]
    TooOld {
        /// By how much.
        age: Duration,
    },
    /// The time in the request is too far after the server's: a clock is wrong.
    #[error("signed {ahead:?} in the future")]
    TooEarly {
        /// By how much.
        ahead: Duration,
    },
    /// This transmission of the request was accepted before, or a later one was.
    #[error("replayed")]
    Replayed,
    /// It was signed before the codec was built, or is as old as requests that are remembered no more. It may
    /// be a replay.
    #[error("signed before what is remembered")]
    Forgotten,
    /// What is signed is no message of the inner codec.
    #[error(transparent)]
    Inner(#[from] E),
}

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
        if now.saturating_sub(then) > self.shared.window {
            let age = Duration::from_micros(now - then);
            return Err(SignedError::TooOld { age });
        }
        if then.saturating_sub(now) > self.shared.window {
            let ahead = Duration::from_micros(then - now);
            return Err(SignedError::TooEarly { ahead });
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

/// The parts of a request.
struct SignedRequest<'a> {
    key: u32,
    time: u64,
    nonce: &'a Nonce,
    inner: &'a [u8],
    /// All but the MAC.
    covered: &'a [u8],
    mac: &'a [u8; MAC_BYTES],
}

impl<'a> SignedRequest<'a> {
    #[inline]
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (covered, mac) = datagram.split_last_chunk()?;
        let (&mark, rest) = covered.split_first()?;
        let (&key, rest) = rest.split_first_chunk()?;
        let (&time, rest) = rest.split_first_chunk()?;
        let (nonce, inner) = rest.split_first_chunk()?;
        (mark == REQUEST).then_some(Self {
            key: u32::from_be_bytes(key),
            time: u64::from_be_bytes(time),
            nonce,
            inner,
            covered,
            mac,
        })
    }
}

/// The parts of a response.
struct SignedResponse<'a> {
    key: u32,
    nonce: &'a Nonce,
    /// All before the inner response.
    header: &'a [u8],
    inner: &'a [u8],
    mac: &'a [u8; MAC_BYTES],
}

impl<'a> SignedResponse<'a> {
    #[inline]
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (covered, mac) = datagram.split_last_chunk()?;
        let (header, inner) = covered.split_at_checked(RESPONSE_HEADER_BYTES)?;
        let (&mark, rest) = header.split_first()?;
        let (&key, nonce) = rest.split_first_chunk()?;
        (mark == RESPONSE).then_some(Self {
            key: u32::from_be_bytes(key),
            nonce: nonce.try_into().ok()?,
            header,
            inner,
            mac,
        })
    }
}

fn id_of(nonce: &Nonce) -> u64 {
    let (_, id) = nonce.split_last_chunk().expect("a nonce has 16 bytes");
    u64::from_be_bytes(*id)
}

/// The length of an inner request, which says where the inner response begins in what a MAC covers.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a datagram has fewer than 2^32 bytes"
)]
fn inner_len(request: &[u8]) -> [u8; 4] {
    (request.len() as u32).to_be_bytes()
}

/// The latest time that is before `now`.
fn before_now(now: Timestamp) -> u64 {
    micros(now.wall).saturating_sub(1)
}

/// Microseconds since 1970; before that, zero.
fn micros(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

const REQUEST: u8 = b'q';
const RESPONSE: u8 = b'r';
const TIME_AT: usize = 5;
const TIME_BYTES: usize = 8;
const NONCE_AT: usize = TIME_AT + TIME_BYTES;
const RESPONSE_HEADER_BYTES: usize = 1 + 4 + 16;
const MAX_WINDOW_MICROS: u64 = 86_400_000_000;
const MAX_CAPACITY: usize = 1 << 24;
