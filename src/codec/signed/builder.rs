use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::keys::Keys;
use super::{Shared, Signed, SigningKey, before_now};
use crate::config_error::ConfigError;
use crate::timestamp::Timestamp;

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
    pub(super) inner: C,
    pub(super) keys: Vec<SigningKey>,
    pub(super) service: Box<[u8]>,
    pub(super) window: Duration,
    pub(super) capacity: usize,
    pub(super) salt: Option<[u8; 8]>,
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
            let range = "more than 0, at most 86400 s";
            return Err(ConfigError::out_of_range(
                "window",
                format_args!("{:?}", self.window),
                range,
            ));
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

const MAX_WINDOW_MICROS: u64 = 86_400_000_000;
const MAX_CAPACITY: usize = 1 << 24;
