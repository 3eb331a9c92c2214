//! A file that is read again: when SIGHUP asks for it, and when it has changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rejoinder::escape::Escaped;

use crate::program::{complain, manager, say};

/// A thread that reads again, so that a slow disk holds up neither answers nor signals.
#[derive(Debug)]
pub struct Reload(Sender<()>);

impl Reload {
    /// `load` reads and puts into use, and returns a line about it. When it fails, nothing has changed,
    /// and `kept` is the line that says so. With `watched`, it is called whenever that file is another
    /// one than before.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub fn start(
        mut load: impl FnMut() -> Result<String, String> + Send + 'static,
        kept: &'static str,
        watched: Option<PathBuf>,
    ) -> io::Result<Self> {
        let (asked, requests) = mpsc::channel();
        let mut watch = watched.map(Watch::new);
        let mut reload = move || {
            manager::reloading();
            let status = match load() {
                Ok(status) => {
                    say(Escaped(&status));
                    status
                }
                Err(problem) => {
                    complain(&problem);
                    say(kept);
                    format!("{kept}: {problem}")
                }
            };
            manager::ready(&status);
        };
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || {
                loop {
                    let asked = match &watch {
                        None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                        Some(_) => requests.recv_timeout(WATCH_PERIOD),
                    };
                    match asked {
                        Ok(()) => reload(),
                        Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => {
                            if watch.as_mut().is_some_and(Watch::has_changed) {
                                reload();
                            }
                        }
                    }
                }
            })?;
        Ok(Self(asked))
    }

    /// Has the file read again, soon.
    pub(crate) fn ask(&self) {
        let _ = self.0.send(());
    }
}

/// Looks at a path, so that it does not matter how the file behind it changes: written in place,
/// replaced, or reached through a symbolic link that now points elsewhere.
#[derive(Debug)]
struct Watch {
    path: PathBuf,
    /// What was there when it was last looked at.
    seen: Option<Identity>,
    /// It has changed since it was last read.
    is_due: bool,
}

impl Watch {
    fn new(path: PathBuf) -> Self {
        Self {
            seen: identity(&path),
            path,
            is_due: false,
        }
    }

    /// Whether there is something new, and it has stayed the same since the last look: a write may
    /// be in progress.
    fn has_changed(&mut self) -> bool {
        let now = identity(&self.path);
        if now != self.seen {
            self.seen = now;
            self.is_due = true;
            return false;
        }
        std::mem::take(&mut self.is_due)
    }
}

#[cfg(unix)]
type Identity = [i64; 7];

/// What distinguishes one state of a file from another. Links are followed.
#[cfg(unix)]
#[expect(clippy::cast_possible_wrap, reason = "they are only compared")]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;

    let file = fs::metadata(path).ok()?;
    Some([
        file.dev() as i64,
        file.ino() as i64,
        file.size() as i64,
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ])
}

#[cfg(not(unix))]
type Identity = (u64, Option<std::time::SystemTime>);

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    let file = fs::metadata(path).ok()?;
    Some((file.len(), file.modified().ok()))
}

/// How often a watched file is looked at. It is read when two looks in a row see the same.
const WATCH_PERIOD: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::Watch;

    #[test]
    fn a_change_is_noticed_once_it_has_settled() {
        let path = env::temp_dir().join(format!("rejoinder-watch-{}", process::id()));
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(path.clone());
        assert!(!watch.has_changed());
        // Half of it, and the other half before the next look.
        fs::write(&path, "tw").unwrap();
        assert!(!watch.has_changed());
        fs::write(&path, "two").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        // Gone, and back as another file.
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        fs::write(&path, "two").unwrap();
        assert!(!watch.has_changed());
        assert!(watch.has_changed());
        fs::remove_file(&path).unwrap();
    }
}
