use std::time::Duration;

use super::runtime::Tokio;
use crate::config_error::ConfigError;
use crate::server::ServerBuilder;

/// What a worker does with a request when [`max_in_flight`](ServerBuilder::max_in_flight) requests
/// are in flight.
///
/// ```
/// use rejoinder::aio::{self, WhenFull};
/// use rejoinder::codec::Text;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = aio::Server::builder(Text)
///     .max_in_flight(64)
///     .when_full(WhenFull::Drop)
///     .bind("127.0.0.1:0")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It stops receiving until a handler finishes. Requests wait in the kernel's queue; the kernel
    /// drops them when that is full ([`kernel_drops`](crate::Stats::kernel_drops)), and
    /// [`max_age`](ServerBuilder::max_age) drops what waited for too long.
    #[default]
    Wait,
    /// It receives and drops the request, as [`Overloaded`](crate::DropReason::Overloaded).
    Drop,
}

/// What an async worker has to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AioConfig {
    pub(crate) max_in_flight: usize,
    pub(crate) when_full: WhenFull,
    pub(crate) handler_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) ordered_per_peer: bool,
}

impl AioConfig {
    pub(crate) const DEFAULT: Self = Self {
        max_in_flight: 1_024,
        when_full: WhenFull::Wait,
        handler_timeout: Duration::from_secs(5),
        grace: Duration::from_secs(5),
        ordered_per_peer: false,
    };

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check("max_in_flight", self.max_in_flight, 1..=MAX_IN_FLIGHT)?;
        if self.handler_timeout.is_zero() {
            return Err(ConfigError::out_of_range(
                "handler_timeout",
                "0 s",
                "greater than zero",
            ));
        }
        Ok(())
    }
}

/// Settings of servers on tokio.
impl<C, G> ServerBuilder<C, G, Tokio> {
    /// How many requests the handlers of one worker work on at a time, at most. What happens to
    /// further ones is [`when_full`](Self::when_full). Default: 1,024. From 1 to 1,048,576.
    ///
    /// Memory for each: the size of the handler's future, the request, of which up to 2,048 bytes
    /// of buffer are kept for the next, and about 500 bytes.
    ///
    /// ```
    /// use rejoinder::aio;
    /// use rejoinder::codec::Text;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let none = aio::Server::builder(Text).max_in_flight(0);
    /// let error = none.bind("127.0.0.1:0").await.unwrap_err();
    /// assert_eq!(error.to_string(), "max_in_flight is 0, must be 1 to 1048576");
    /// # }
    /// ```
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.config.aio.max_in_flight = requests;
        self
    }

    /// What a worker does with a request when [`max_in_flight`](Self::max_in_flight) requests are in
    /// flight. Default: [`WhenFull::Wait`].
    ///
    /// ```
    /// use rejoinder::aio::WhenFull;
    /// use rejoinder::codec::Text;
    ///
    /// let builder = rejoinder::aio::Server::builder(Text).when_full(WhenFull::Drop);
    /// ```
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.config.aio.when_full = when_full;
        self
    }

    /// How long an async handler may take, from the reception of the request: the time that it waits for
    /// its turn or for room among those in flight counts. Then its future is dropped, and the request as
    /// [`HandlerTimedOut`](crate::DropReason::HandlerTimedOut). Default: 5 s. Greater than zero;
    /// [`Duration::MAX`] is no limit. tokio's timers have a resolution of 1 ms.
    ///
    /// Set it to what clients wait for: the response to a request that was given up is unanswered
    /// work.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use std::time::Duration;
    ///
    /// let builder = rejoinder::aio::Server::builder(Text).handler_timeout(Duration::from_secs(1));
    /// ```
    pub fn handler_timeout(mut self, time: Duration) -> Self {
        self.config.aio.handler_timeout = time;
        self
    }

    /// How long async handlers may go on after a [shutdown](crate::ServerHandle::shutdown). Then
    /// their futures are dropped, and their requests as [`Cancelled`](crate::DropReason::Cancelled).
    /// Default: 5 s. With zero, only handlers that do not wait answer after a shutdown.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    /// use std::time::Duration;
    ///
    /// let builder = rejoinder::aio::Server::builder(Text).grace(Duration::from_millis(500));
    /// ```
    pub fn grace(mut self, time: Duration) -> Self {
        self.config.aio.grace = time;
        self
    }

    /// Whether the requests of one peer are handled one after the other, so that its responses leave
    /// in the order of its requests. Default: `false`: responses leave in the order in which handlers
    /// finish.
    ///
    /// It costs a peer the time of its slower requests. A request that waits for its turn counts as in
    /// flight, and its [time](Self::handler_timeout) passes.
    ///
    /// ```
    /// use rejoinder::codec::Text;
    ///
    /// let builder = rejoinder::aio::Server::builder(Text).ordered_per_peer(true);
    /// ```
    pub fn ordered_per_peer(mut self, ordered: bool) -> Self {
        self.config.aio.ordered_per_peer = ordered;
        self
    }
}

const MAX_IN_FLIGHT: usize = 1 << 20;
