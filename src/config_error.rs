use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;

/// Why something could not be set up: a setting out of range, or a socket that the OS refused.
///
/// Every `build`, `bind` and `connect` of this crate returns it. Setters take any value, so that
/// the error names the setting, the value and the range in one place.
///
/// It converts into an [`io::Error`]: a setting out of range has the kind
/// [`InvalidInput`](io::ErrorKind::InvalidInput).
///
/// ```
/// use rejoinder::codec::Text;
/// use rejoinder::{ConfigError, Server};
///
/// let error = Server::builder(Text)
///     .max_request_bytes(70_000)
///     .bind("127.0.0.1:0")
///     .unwrap_err();
/// assert!(matches!(
///     error,
///     ConfigError::OutOfRange { setting: "max_request_bytes", .. }
/// ));
/// assert_eq!(
///     error.to_string(),
///     "max_request_bytes is 70000, must be 0 to 65527"
/// );
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting has a value outside of its range.
    #[error("{setting} is {value}, must be {range}")]
    OutOfRange {
        /// The name of the setter.
        setting: &'static str,
        /// The value it was given.
        value: String,
        /// The values it takes.
        range: Cow<'static, str>,
    },
    /// The OS refused a socket or an address, or a name could not be resolved.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ConfigError {
    /// An error for a setting out of range.
    ///
    /// ```
    /// use rejoinder::ConfigError;
    ///
    /// let error = ConfigError::out_of_range("window", 0, "at least 1");
    /// assert_eq!(error.to_string(), "window is 0, must be at least 1");
    /// ```
    pub fn out_of_range(
        setting: &'static str,
        value: impl Display,
        range: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::OutOfRange {
            setting,
            value: value.to_string(),
            range: range.into(),
        }
    }

    /// Checks a number whose range has a highest value, which the error names.
    pub(crate) fn check(
        setting: &'static str,
        value: usize,
        range: RangeInclusive<usize>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let range = format!("{} to {}", range.start(), range.end());
        Err(Self::out_of_range(setting, value, range))
    }
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Io(source) => source,
            other => Self::new(io::ErrorKind::InvalidInput, other),
        }
    }
}
