use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo as _};

use super::{RedisStore, RedisStoreError};

/// The settings of a [`RedisStore`]. [`RedisStore::builder`] makes it.
///
/// ```
/// use rejoinder_redis::RedisStore;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), rejoinder_redis::RedisStoreError> {
/// let store = RedisStore::builder("redis://127.0.0.1/")
///     .prefix("shop:")
///     .response_timeout(Duration::from_millis(100))
///     .connection_timeout(Duration::from_millis(500))
///     .max_in_flight(256)
///     .connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `connect`"]
pub struct RedisStoreBuilder {
    url: String,
    prefix: Vec<u8>,
    response_timeout: Duration,
    connection_timeout: Duration,
    max_in_flight: usize,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            prefix: b"rejoinder:".to_vec(),
            response_timeout: Duration::from_millis(500),
            connection_timeout: Duration::from_secs(1),
            max_in_flight: 1_024,
        }
    }

    /// What all keys of this service begin with. Services that share a Redis need different ones. Default:
    /// `rejoinder:`.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// How long an operation may take on the connection. Default: 500 ms. The deadline of
    /// [`SharedDedup`](rejoinder::aio::store::SharedDedup::store_timeout) and
    /// [`SharedSessions`](rejoinder::aio::store::SharedSessions::store_timeout) comes first, unless it is
    /// longer.
    pub fn response_timeout(mut self, time: Duration) -> Self {
        self.response_timeout = time;
        self
    }

    /// How long it may take to open a connection. Default: 1 s.
    pub fn connection_timeout(mut self, time: Duration) -> Self {
        self.connection_timeout = time;
        self
    }

    /// How many operations are in flight at a time, at most. Further ones wait for one to end. Default: 1,024.
    /// One at least.
    pub fn max_in_flight(mut self, operations: usize) -> Self {
        self.max_in_flight = operations;
        self
    }

    /// The store. It opens its connection at the first operation, so that a service starts while Redis is
    /// down.
    ///
    /// # Errors
    ///
    /// The URL is none of Redis, or [`max_in_flight`](Self::max_in_flight) is zero.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect(self) -> Result<RedisStore, RedisStoreError> {
        if self.max_in_flight == 0 {
            let what = "max_in_flight is 0, must be at least 1";
            return Err(
                redis::RedisError::from((redis::ErrorKind::InvalidClientConfig, what)).into(),
            );
        }
        let settings = TcpSettings::default().set_nodelay(true);
        // A peer that vanished does not acknowledge. By itself, Linux would try for a quarter of an hour.
        #[cfg(target_os = "linux")]
        let settings = settings.set_user_timeout(self.response_timeout.saturating_mul(2));
        let info = self.url.as_str().into_connection_info()?;
        let client = Client::open(info.set_tcp_settings(settings))?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(self.response_timeout))
            .set_connection_timeout(Some(self.connection_timeout))
            .set_concurrency_limit(self.max_in_flight)
            // The next operation tries again: an operation that waits for retries would miss its deadline.
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(RedisStore::on(connection, self.prefix))
    }
}
