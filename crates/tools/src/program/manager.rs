//! What a service manager is sent, if there is one that wants to know (`sd_notify(3)`).
//!
//! A manager that does not read fills its socket after some ten notices, and sending waits then. So a
//! thread of its own sends them, in order.

#[cfg(unix)]
mod imp {
    use std::env;
    use std::io;
    use std::sync::OnceLock;
    use std::time::Duration;

    use sd_notify::NotifyState::{
        self, Custom, ExtendTimeoutUsec, MonotonicUsec, Ready, Reloading, Status, Stopping,
    };

    use crate::program::output::Output;
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

    /// Waits until all is sent, but no longer than the grace of a program that ends.
    pub(crate) fn drain() {
        if let Some(Some(notices)) = NOTICES.get() {
            notices.drain(GRACE);
        }
    }

    fn notify(states: &[NotifyState<'_>]) {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let notices = NOTICES.get_or_init(|| {
            let started = Output::with(
                |notice| {
                    send(notice);
                    Ok(())
                },
                |_| {},
                "notices",
            );
            started.inspect_err(report).ok()
        });
        if let Some(notices) = notices {
            let states: Vec<_> = states.iter().map(ToString::to_string).collect();
            notices.write(states.join("\n"));
        }
    }

    fn send(notice: &[u8]) {
        let notice = String::from_utf8_lossy(notice);
        if let Err(error) = sd_notify::notify(&[Custom(&notice)]) {
            report(&error);
        }
    }

    fn report(error: &io::Error) {
        complain(format_args!("cannot notify the service manager: {error}"));
    }

    static NOTICES: OnceLock<Option<Output>> = OnceLock::new();
}

#[cfg(not(unix))]
mod imp {
    pub(crate) fn ready(_: &str) {}
    pub(crate) fn reloading() {}
    pub(crate) fn stopping(_: Option<std::time::Duration>) {}
    pub(crate) fn drain() {}
}

pub(crate) use imp::{drain, ready, reloading, stopping};
