//! A [`Store`] of [`rejoinder`] in Redis, Valkey, or another server that speaks their protocol and runs Lua
//! scripts: what the nodes of a service share.
//!
//! ```no_run
//! use rejoinder::aio;
//! use rejoinder::aio::store::SharedDedup;
//! use rejoinder::codec::{Tagged, Text};
//! use rejoinder_redis::RedisStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::builder("redis://127.0.0.1/").prefix("shop:").connect()?;
//! let pay = async |request: &str| format!("paid: {request}");
//! let once = SharedDedup::new(pay, |request: &&str| Some((*request).to_owned()), store);
//! aio::Server::bind("0.0.0.0:9999", Tagged(Text)).await?.serve(once).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The example `sessions` is a service whose conversations go on at another node. The page
//! [`rejoinder::guide::shared_state`] explains when to use it, and what happens while Redis is down.
//!
//! # Connections
//!
//! A [`RedisStore`] and its clones share one connection, on which operations do not wait for each other
//! (multiplexing). It is opened at the first operation. When it breaks, the operations on it fail, and the
//! next one opens another. An operation is not sent again by itself.
//!
//! | what | limit |
//! | --- | --- |
//! | an operation | [`response_timeout`](RedisStoreBuilder::response_timeout), and the deadline of its caller |
//! | opening a connection | [`connection_timeout`](RedisStoreBuilder::connection_timeout) |
//! | operations at a time | [`max_in_flight`](RedisStoreBuilder::max_in_flight); further ones wait |
//! | a peer that vanished without closing | found after `response_timeout` twice, on Linux (`TCP_USER_TIMEOUT`) |
//!
//! # What is in Redis
//!
//! Strings, each with an expiry. A key is the [prefix](RedisStoreBuilder::prefix) and the key of
//! [`SharedDedup`](rejoinder::aio::store::SharedDedup) or
//! [`SharedSessions`](rejoinder::aio::store::SharedSessions), whose pages have its form: bytes, not text. All
//! changes are made by one script of a dozen lines, which reads and writes one key: Redis Cluster can run
//! it, behind a proxy for clusters.
//!
//! # Settings of Redis
//!
//! - `maxmemory`, with `maxmemory-policy volatile-ttl`: when memory is short, the values that would expire
//!   next go first. With `noeviction` the store fails instead, as if it were down.
//! - Persistence is not needed. Without it, a restart forgets: a request may be worked on again, and sessions
//!   begin anew. Replication is asynchronous: a failover may forget the latest changes.
//! - Commands that an ACL has to allow: `EVALSHA`, `SCRIPT LOAD`, `GET`, `SET`, `DEL`, and `CLIENT SETINFO`.
//! - Who can write to the store can answer in the name of the service. Use a password and a private network.

mod builder;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Script;
use redis::aio::ConnectionManager;
use rejoinder::aio::store::{Exchange, Store};

pub use self::builder::RedisStoreBuilder;
pub use redis;

/// A [`Store`] in Redis or Valkey. Clones share its connection.
///
/// ```no_run
/// use rejoinder::aio::store::{Exchange, Store};
/// use rejoinder_redis::RedisStore;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::builder("redis://127.0.0.1/").connect()?;
/// let a_minute = Duration::from_secs(60);
/// let taken = store.compare_exchange(b"seat 7", None, Some(b"Ada"), a_minute).await?;
/// assert_eq!(taken, Exchange::Done);
/// assert_eq!(store.get(b"seat 7").await?.as_deref(), Some(&b"Ada"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisStore {
    connection: ConnectionManager,
    prefix: Arc<[u8]>,
    compare_exchange: Arc<Script>,
}

impl RedisStore {
    /// The settings of a store at `url`: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or
    /// `redis+unix:///PATH[?db=DATABASE&pass=PASSWORD]`. [`RedisStoreBuilder::connect`] makes it.
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    /// A store on a connection with settings of your own: with TLS, say, by a feature of the crate
    /// [`redis`]. Such a connection should not retry for longer than the store's callers wait.
    ///
    /// ```no_run
    /// use rejoinder_redis::{RedisStore, redis};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), redis::RedisError> {
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// let config = redis::aio::ConnectionManagerConfig::new().set_number_of_retries(0);
    /// let connection = redis::aio::ConnectionManager::new_with_config(client, config).await?;
    /// let store = RedisStore::on(connection, "shop:");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on(connection: ConnectionManager, prefix: impl AsRef<[u8]>) -> Self {
        Self {
            connection,
            prefix: prefix.as_ref().into(),
            compare_exchange: Arc::new(Script::new(COMPARE_EXCHANGE)),
        }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }
}

impl Store for RedisStore {
    type Error = RedisStoreError;

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RedisStoreError> {
        let mut connection = self.connection.clone();
        let mut get = redis::cmd("GET");
        let value: Option<Vec<u8>> = get.arg(self.key(key)).query_async(&mut connection).await?;
        Ok(value.map(Bytes::from))
    }

    async fn compare_exchange(
        &self,
        key: &[u8],
        current: Option<&[u8]>,
        new: Option<&[u8]>,
        lifetime: Duration,
    ) -> Result<Exchange, RedisStoreError> {
        let millis = millis(lifetime);
        // Redis refuses an expiry of zero.
        let new = new.filter(|_| millis > 0);
        let mut invocation = self.compare_exchange.key(self.key(key));
        for value in [current, new] {
            invocation.arg(u8::from(value.is_some()));
            invocation.arg(value.unwrap_or_default());
        }
        invocation.arg(millis);
        let mut connection = self.connection.clone();
        let (is_done, found): (bool, Option<Vec<u8>>) =
            invocation.invoke_async(&mut connection).await?;
        Ok(if is_done {
            Exchange::Done
        } else {
            Exchange::Differs(found.map(Bytes::from))
        })
    }
}

/// Why Redis did not do what was asked.
///
/// ```
/// use rejoinder_redis::RedisStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let error = RedisStore::builder("http://127.0.0.1/").connect().unwrap_err();
/// assert_eq!(error.to_string(), "Redis failed");
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("Redis failed")]
pub struct RedisStoreError {
    /// What happened.
    #[from]
    source: redis::RedisError,
}

/// A lifetime in milliseconds. Redis adds it to the time of day, so the sum has to fit.
fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis())
        .unwrap_or(u64::MAX)
        .min(MAX_LIFETIME_MILLIS)
}

/// A hundred years.
const MAX_LIFETIME_MILLIS: u64 = 100 * 365 * 24 * 60 * 60 * 1_000;

/// A value that does not exist is `false` in Lua, and `false` is nil in a reply.
const COMPARE_EXCHANGE: &str = "\
local found = redis.call('GET', KEYS[1])
local current = ARGV[1] == '1' and ARGV[2]
if found ~= current then
    return {0, found}
end
if ARGV[3] == '1' then
    redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
else
    redis.call('DEL', KEYS[1])
end
return {1, false}
";

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_has_bounds() {
        assert_eq!(millis(Duration::from_micros(999)), 0);
        assert_eq!(millis(Duration::from_micros(1_999)), 1);
        assert_eq!(millis(Duration::MAX), MAX_LIFETIME_MILLIS);
    }
}
