//! What signals ask of a service.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};

/// Something that a service is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Shutdown,
    Stats,
    Reload,
}

/// The signals that a service heeds, from the moment of registration on.
pub(crate) struct Signals {
    shutdown: Arc<AtomicBool>,
    stats: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    terminal: terminal::Terminal,
    /// Whether a shutdown that was asked for by signal was reported.
    is_reported: bool,
}

impl Signals {
    /// A second SIGINT or SIGTERM ends the program by its default action.
    pub(crate) fn register() -> io::Result<Self> {
        let signals = Self {
            // Before the handlers: whether SIGHUP was ignored is a part of it.
            terminal: terminal::Terminal::current(),
            shutdown: Arc::default(),
            stats: Arc::default(),
            reload: Arc::default(),
            is_reported: false,
        };
        for signal in [SIGINT, SIGTERM] {
            register_conditional_default(signal, Arc::clone(&signals.shutdown))?;
            register(signal, Arc::clone(&signals.shutdown))?;
        }
        #[cfg(unix)]
        register(SIGUSR1, Arc::clone(&signals.stats))?;
        #[cfg(unix)]
        register(SIGHUP, Arc::clone(&signals.reload))?;
        Ok(signals)
    }

    /// What is asked for now, the most important thing first, and each thing once. To be called every
    /// [`PERIOD`].
    pub(crate) fn next(&mut self) -> Option<Asked> {
        // Whether the program is in the foreground is only known while the terminal is there.
        self.terminal.has_just_gone();
        if !self.is_reported && self.shutdown.load(Ordering::Relaxed) {
            self.is_reported = true;
            return Some(Asked::Shutdown);
        }
        if self.stats.swap(false, Ordering::Relaxed) {
            return Some(Asked::Stats);
        }
        if !self.reload.swap(false, Ordering::Relaxed) {
            return None;
        }
        // The kernel closes the terminal before it sends the signal, maybe since the look above.
        Some(if self.terminal.has_just_gone() {
            Asked::Shutdown
        } else {
            Asked::Reload
        })
    }
}

/// How often a service looks for signals.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// A hangup is the end of a program that ran in the foreground of the terminal that went. To all others
/// it is a request, also if they had a terminal once.
#[cfg(unix)]
mod terminal {
    use std::fs::{self, File};
    use std::time::{Duration, Instant};

    use rustix::process::getpgrp;
    use rustix::termios::tcgetpgrp;

    pub(crate) struct Terminal {
        /// The controlling terminal, while there is one.
        controlling: Option<File>,
        /// Whether the program was in its foreground when that was last asked.
        in_foreground: bool,
        gone: Option<Instant>,
    }

    impl Terminal {
        /// The terminal that the program was started on. There is none for a program that was started
        /// with SIGHUP ignored, as `nohup` does.
        pub(crate) fn current() -> Self {
            let controlling = File::open("/dev/tty").ok();
            let mut terminal = Self {
                controlling: controlling.filter(|_| !is_hangup_ignored()),
                in_foreground: false,
                gone: None,
            };
            terminal.has_just_gone();
            terminal
        }

        /// Whether the terminal went a moment ago, with the program in its foreground.
        pub(crate) fn has_just_gone(&mut self) -> bool {
            if let Some(terminal) = &self.controlling {
                if let Ok(foreground) = tcgetpgrp(terminal) {
                    self.in_foreground = foreground == getpgrp();
                } else {
                    self.controlling = None;
                    self.gone = Some(Instant::now());
                }
            }
            let is_recent = self.gone.is_some_and(|gone| gone.elapsed() < A_MOMENT);
            self.in_foreground && is_recent
        }
    }

    /// Linux shows the mask of ignored signals; elsewhere `nohup` is not known.
    fn is_hangup_ignored() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & 1 != 0)
    }

    /// A shell that passes a hangup on does so within milliseconds.
    const A_MOMENT: Duration = Duration::from_secs(2);
}

#[cfg(not(unix))]
mod terminal {
    pub(crate) struct Terminal;

    impl Terminal {
        pub(crate) fn current() -> Self {
            Self
        }

        pub(crate) fn has_just_gone(&mut self) -> bool {
            false
        }
    }
}
