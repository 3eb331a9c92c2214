use std::time::Duration;

use super::Retry;
use super::responders::Responders;
use crate::config_error::ConfigError;
use crate::transport::LocalPort;

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
    pub(super) fail_when_unreachable: bool,
    pub(super) window: usize,
    pub(super) cooldown: Duration,
    pub(super) max_cooling_sockets: usize,
    pub(super) max_response_parts: usize,
    pub(super) max_response_bytes: usize,
    pub(super) max_responders: usize,
    pub(super) local_port: LocalPort,
}

impl Options {
    pub(super) const DEFAULT: Self = Self {
        timeout: Duration::from_secs(5),
        retry: Retry::new(),
        fail_when_unreachable: false,
        window: 1_024,
        cooldown: MAX_RTT,
        max_cooling_sockets: 512,
        max_response_parts: 2_048,
        max_response_bytes: 2 << 20,
        max_responders: 1_024,
        local_port: LocalPort::Renewed,
    };

    pub(super) fn responders(&self) -> Responders {
        Responders::new(self.max_responders, self.max_response_bytes)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (setting, value) in [
            ("window", self.window),
            ("max_cooling_sockets", self.max_cooling_sockets),
            ("max_response", self.max_response_parts),
            ("max_responders", self.max_responders),
        ] {
            if value == 0 {
                return Err(ConfigError::out_of_range(setting, value, "at least 1"));
            }
        }
        self.retry.check()
    }
}

/// RFC 7252 §4.8.2: twice `MAX_LATENCY` and `PROCESSING_DELAY`.
const MAX_RTT: Duration = Duration::from_secs(202);
