//! One reading of the time, passed in wherever time matters.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks.
///
/// A core reads no clock. Its driver reads [`Transport::now`](crate::Transport::now) once per batch
/// and passes the reading in. Deadlines are computed from [`monotonic`](Self::monotonic), which
/// never jumps; what a protocol writes into its answers is computed from [`wall`](Self::wall),
/// which may.
///
/// ```
/// use rejoinder::Timestamp;
/// use std::time::{Duration, SystemTime};
///
/// let earlier = Timestamp::new(Duration::from_secs(1), SystemTime::UNIX_EPOCH);
/// let later = Timestamp::new(Duration::from_secs(3), SystemTime::UNIX_EPOCH);
/// assert_eq!(later.monotonic - earlier.monotonic, Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timestamp {
    /// Time since an arbitrary but fixed moment. It never goes back.
    pub monotonic: Duration,
    /// The machine's wall-clock time. It may jump, in both directions.
    pub wall: SystemTime,
}

impl Timestamp {
    /// A reading with the given values: for tests, and for transports with a clock of their own.
    pub const fn new(monotonic: Duration, wall: SystemTime) -> Self {
        Self { monotonic, wall }
    }

    /// Reads the OS's clocks. The monotonic part counts from this process's first reading.
    ///
    /// ```
    /// use rejoinder::Timestamp;
    ///
    /// let earlier = Timestamp::system();
    /// assert!(Timestamp::system().monotonic >= earlier.monotonic);
    /// ```
    pub fn system() -> Self {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        Self::new(FIRST.get_or_init(Instant::now).elapsed(), SystemTime::now())
    }
}
