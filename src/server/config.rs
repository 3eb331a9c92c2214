use crate::config_error::ConfigError;
use crate::transport::{MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES};

/// What a worker has to know beside its core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerConfig {
    pub(crate) max_request_bytes: usize,
    pub(crate) max_response_bytes: usize,
    pub(crate) busy_poll: bool,
    /// What a datagram may have in front of the request.
    pub(crate) header_bytes: usize,
    #[cfg(feature = "tokio")]
    pub(crate) aio: crate::aio::AioConfig,
}

impl WorkerConfig {
    pub(crate) const DEFAULT: Self = Self {
        max_request_bytes: MAX_DATAGRAM_BYTES,
        max_response_bytes: MAX_DATAGRAM_BYTES,
        busy_poll: false,
        header_bytes: 0,
        #[cfg(feature = "tokio")]
        aio: crate::aio::AioConfig::DEFAULT,
    };

    /// The longest datagram that a worker has to receive whole.
    pub(crate) fn max_received_bytes(&self) -> usize {
        self.max_request_bytes + self.header_bytes
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (setting, bytes) in [
            ("max_request_bytes", self.max_request_bytes),
            ("max_response_bytes", self.max_response_bytes),
        ] {
            ConfigError::check(setting, bytes, 0..=MAX_V6_DATAGRAM_BYTES)?;
        }
        #[cfg(feature = "tokio")]
        self.aio.check()?;
        Ok(())
    }
}
