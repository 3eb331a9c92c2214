//! What a service manager is sent, if there is one that wants to know (`sd_notify(3)`).

#[cfg(unix)]
mod imp {
    use std::time::Duration;

    use sd_notify::NotifyState::{
        self, ExtendTimeoutUsec, MonotonicUsec, Ready, Reloading, Status, Stopping,
    };

    use crate::program::{GRACE, complain};

    pub(crate) fn ready(status: &str) {
        notify(&[Ready, Status(status)]);
    }

    /// To be followed by [`ready`].
    pub(crate) fn reloading() {
        // Without the time, systemd takes no notice of the other.
        if let Ok(now @ MonotonicUsec(_)) = NotifyState::monotonic_usec_now() {
            notify(&[Reloading, now]);
        }
    }

    /// `after` is how long the program still answers. The manager's own time for a stop begins then.
    pub(crate) fn stopping(after: Option<Duration>) {
        let Some(after) = after else {
            return notify(&[Stopping]);
        };
        let extended = after + GRACE + Duration::from_secs(1);
        let extended = u32::try_from(extended.as_micros()).unwrap_or(u32::MAX);
        notify(&[Stopping, ExtendTimeoutUsec(extended)]);
    }

    fn notify(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            complain(format_args!("cannot notify the service manager: {error}"));
        }
    }
}

#[cfg(not(unix))]
mod imp {
    pub(crate) fn ready(_: &str) {}
    pub(crate) fn reloading() {}
    pub(crate) fn stopping(_: Option<std::time::Duration>) {}
}

pub(crate) use imp::{ready, reloading, stopping};
