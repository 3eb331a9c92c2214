use std::io;

use super::error::{ErrorClass, ErrorCounts};

/// What became of the datagrams of an outbox.
///
/// ```
/// use rejoinder::transport::SendReport;
/// use std::io;
///
/// // Two datagrams left, and the OS refused a third.
/// let mut report = SendReport::accepted(2);
/// report.record_failure(io::ErrorKind::HostUnreachable.into());
/// assert_eq!((report.sent, report.failed), (2, 1));
/// assert!(report.last_error.is_some());
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SendReport {
    /// How many datagrams the OS accepted. It does not know whether they arrive.
    pub sent: usize,
    /// How many datagrams the OS refused.
    pub failed: usize,
    /// The last refusal.
    pub last_error: Option<io::Error>,
    /// The refusals by class. Those that [`record_failure`](Self::record_failure) has not seen are
    /// taken to be of the class of the last error.
    errors: ErrorCounts,
}

impl SendReport {
    /// A report of `datagrams` that the OS accepted.
    ///
    /// ```
    /// use rejoinder::transport::SendReport;
    ///
    /// assert_eq!(SendReport::accepted(3).sent, 3);
    /// ```
    pub fn accepted(datagrams: usize) -> Self {
        Self {
            sent: datagrams,
            ..Self::default()
        }
    }

    /// Adds one datagram that the OS refused.
    ///
    /// ```
    /// use rejoinder::transport::SendReport;
    ///
    /// let mut report = SendReport::default();
    /// report.record_failure(std::io::ErrorKind::PermissionDenied.into());
    /// assert_eq!((report.sent, report.failed), (0, 1));
    /// ```
    pub fn record_failure(&mut self, error: io::Error) {
        self.record_failures(error, 1);
    }

    /// Adds several datagrams that the OS refused for the same reason.
    pub(crate) fn record_failures(&mut self, error: io::Error, datagrams: usize) {
        self.failed += datagrams;
        self.errors
            .add(ErrorClass::classify(&error), datagrams as u64);
        self.last_error = Some(error);
    }

    /// The refusals by class: together [`failed`](Self::failed).
    pub(crate) fn errors_by_class(&self) -> ErrorCounts {
        let mut errors = self.errors;
        let unclassified = (self.failed as u64).saturating_sub(errors.total());
        let class = self.last_error.as_ref();
        errors.add(
            class.map_or(ErrorClass::Other, ErrorClass::classify),
            unclassified,
        );
        errors
    }
}
