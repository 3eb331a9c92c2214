use crate::config_error::ConfigError;
use crate::transport::{MAX_DATAGRAM_BYTES, MAX_V6_DATAGRAM_BYTES};

/// What a worker has to know beside its core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerConfig {
    pub(crate) max_request_bytes: usize,
    pub(crate) max_reply_bytes: usize,
    pub(crate) busy_poll: bool,
}

impl WorkerConfig {
    pub(crate) const DEFAULT: Self = Self {
        max_request_bytes: MAX_DATAGRAM_BYTES,
        max_reply_bytes: MAX_DATAGRAM_BYTES,
        busy_poll: false,
    };

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (setting, bytes) in [
            ("max_request_bytes", self.max_request_bytes),
            ("max_reply_bytes", self.max_reply_bytes),
        ] {
            if bytes > MAX_V6_DATAGRAM_BYTES {
                let range = format!("0 to {MAX_V6_DATAGRAM_BYTES}");
                return Err(ConfigError::out_of_range(setting, bytes, range));
            }
        }
        Ok(())
    }
}
