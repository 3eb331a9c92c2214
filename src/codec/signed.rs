mod builder;
mod codec;
mod error;
mod frame;
mod keys;
mod replay;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

pub use self::builder::SignedBuilder;
pub use self::error::SignedError;
use self::keys::Keys;
pub use self::keys::SigningKey;
use crate::config_error::ConfigError;
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
/// - **It does not number the responses to one request.** An attacker on the path can drop the first of several,
///   and a client then takes the next.
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
/// [several datagrams](super::ResponseKind::Part). Requests have ids of 64 bits, whatever the inner codec has. A
/// [rejection](super::Codec::encode_rejection) is signed; only what a key's holder signed is rejected.
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
