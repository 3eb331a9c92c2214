//! What a service manager is sent, if there is one that wants to know (`sd_notify(3)`).

#[cfg(unix)]
mod imp {
    use sd_notify::NotifyState::{self, MonotonicUsec, Ready, Reloading, Status, Stopping};

    use crate::program::complain;

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

    pub(crate) fn stopping() {
        notify(&[Stopping]);
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
    pub(crate) fn stopping() {}
}

pub(crate) use imp::{ready, reloading, stopping};
