//! Events for the program's `tracing` subscriber, with the feature of that name.
//!
//! Events that a peer can cause are limited to ten lines a second, so that a flood does not fill
//! the log. The number of suppressed lines is logged. An error's text, which may quote a datagram,
//! is cut at 200 characters.

pub(super) use self::imp::Log;
pub(crate) use self::imp::{ended, started};

#[cfg(feature = "tracing")]
mod imp {
    use std::error::Error;
    use std::fmt::{self, Write as _};
    use std::io;
    use std::net::SocketAddr;

    use tracing::{Level, debug, enabled, error, info, warn};

    use crate::drop_reason::DropReason;
    use crate::escape::Escaped;
    use crate::identity::Identity;
    use crate::server::stats::Stats;
    use crate::timestamp::Timestamp;
    use crate::transport::{ErrorClass, Meta};

    #[derive(Clone, Debug, Default)]
    pub(in crate::server) struct Log {
        drops: Budget,
        errors: Budget,
    }

    impl Log {
        pub(in crate::server) fn dropped(
            &mut self,
            now: Timestamp,
            meta: &Meta,
            identity: Option<&Identity>,
            reason: DropReason,
            cause: Option<&(dyn Error + 'static)>,
        ) {
            // A defect of the handler is the operator's business, whatever else comes in.
            let panicked = reason == DropReason::HandlerPanicked;
            let budget = if panicked {
                &mut self.errors
            } else if enabled!(Level::DEBUG) {
                &mut self.drops
            } else {
                return;
            };
            let Some(left_out) = budget.spend(now) else {
                return;
            };
            let peer = meta.peer;
            let cause = cause.map(Shown);
            let cause = cause.as_ref().map(tracing::field::display);
            let identity = identity.map(ShownIdentity);
            let identity = identity.as_ref().map(tracing::field::display);
            if panicked {
                error!(%peer, identity, left_out, "the handler panicked");
            } else {
                debug!(%peer, identity, %reason, cause, left_out, "dropped a datagram");
            }
        }

        pub(in crate::server) fn receive_failed(&mut self, now: Timestamp, error: &io::Error) {
            let class = ErrorClass::classify_receive(error);
            if class != ErrorClass::Interrupted
                && let Some(left_out) = self.budget(class).spend(now)
            {
                warn!(error = %Shown(error), ?class, left_out, "receiving failed");
            }
        }

        pub(in crate::server) fn send_failed(
            &mut self,
            now: Timestamp,
            error: &io::Error,
            datagrams: usize,
        ) {
            let class = ErrorClass::classify(error);
            if let Some(left_out) = self.budget(class).spend(now) {
                warn!(error = %Shown(error), ?class, datagrams, left_out, "sending failed");
            }
        }

        /// Peer-induced errors share the budget of the drops.
        fn budget(&mut self, class: ErrorClass) -> &mut Budget {
            match class {
                ErrorClass::Peer => &mut self.drops,
                _ => &mut self.errors,
            }
        }
    }

    pub(crate) fn started(addr: &io::Result<SocketAddr>) {
        match addr {
            Ok(addr) => info!(%addr, "serving"),
            Err(error) => info!(%error, "serving, at an address that is not known"),
        }
    }

    pub(crate) fn ended(stats: &Stats) {
        info!(%stats, "ended");
    }

    /// An error and its sources, on one line, short and harmless: it may quote what came from the
    /// network.
    struct Shown<'a>(&'a (dyn Error + 'static));

    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut line = Line {
                out: f,
                left: MAX_ERROR_CHARS,
                is_cut: false,
            };
            let mut next = Some(self.0);
            let mut separator = "";
            while let Some(error) = next
                && !line.is_cut
            {
                line.write_str(separator)?;
                // If it is the line that cannot be written, this cannot be either.
                if write!(line, "{error}").is_err() {
                    line.write_str("(an error that cannot be shown)")?;
                }
                separator = ": ";
                next = error.source();
            }
            Ok(())
        }
    }

    /// An identity, short and harmless.
    struct ShownIdentity<'a>(&'a Identity);

    impl fmt::Display for ShownIdentity<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut line = Line {
                out: f,
                left: MAX_ERROR_CHARS,
                is_cut: false,
            };
            write!(line, "{}", self.0)
        }
    }

    /// Escapes what is written, and leaves out what is too much.
    struct Line<'a, 'f> {
        out: &'a mut fmt::Formatter<'f>,
        /// In characters, before they are escaped.
        left: usize,
        is_cut: bool,
    }

    impl fmt::Write for Line<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if self.is_cut {
                return Ok(());
            }
            let too_much = text.char_indices().nth(self.left);
            let (shown, rest) = text.split_at(too_much.map_or(text.len(), |(at, _)| at));
            self.left -= shown.chars().count();
            write!(self.out, "{}", Escaped(shown))?;
            if !rest.is_empty() {
                self.is_cut = true;
                self.out.write_char('…')?;
            }
            Ok(())
        }
    }

    /// How many lines may still be written in this second.
    #[derive(Clone, Debug, Default)]
    struct Budget {
        second: u64,
        spent: u32,
        left_out: u64,
    }

    impl Budget {
        /// If a line may be written: how many could not since the last.
        fn spend(&mut self, now: Timestamp) -> Option<u64> {
            let second = now.monotonic.as_secs();
            if second != self.second {
                self.second = second;
                self.spent = 0;
            }
            if self.spent == LINES_PER_SECOND {
                self.left_out += 1;
                return None;
            }
            self.spent += 1;
            Some(std::mem::take(&mut self.left_out))
        }
    }

    const LINES_PER_SECOND: u32 = 10;
    const MAX_ERROR_CHARS: usize = 200;
}

#[cfg(not(feature = "tracing"))]
mod imp {
    use std::error::Error;
    use std::io;
    use std::net::SocketAddr;

    use crate::drop_reason::DropReason;
    use crate::identity::Identity;
    use crate::server::stats::Stats;
    use crate::timestamp::Timestamp;
    use crate::transport::Meta;

    #[derive(Clone, Debug, Default)]
    pub(in crate::server) struct Log {}

    #[expect(clippy::unused_self, reason = "what the real one takes")]
    impl Log {
        #[inline]
        pub(in crate::server) fn dropped(
            &mut self,
            _: Timestamp,
            _: &Meta,
            _: Option<&Identity>,
            _: DropReason,
            _: Option<&(dyn Error + 'static)>,
        ) {
        }

        #[inline]
        pub(in crate::server) fn receive_failed(&mut self, _: Timestamp, _: &io::Error) {}

        #[inline]
        pub(in crate::server) fn send_failed(&mut self, _: Timestamp, _: &io::Error, _: usize) {}
    }

    pub(crate) fn started(_: &io::Result<SocketAddr>) {}

    pub(crate) fn ended(_: &Stats) {}
}
