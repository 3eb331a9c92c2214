//! Files with keys in them: opened without waiting, and read only if they are private.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Reads a file that holds a secret: [`PskFile::read`](crate::PskFile::read) and
/// [`CertifiedKey::from_pem_files`](crate::CertifiedKey::from_pem_files) read their keys with it.
///
/// On Unix, the file must be
///
/// - regular: a FIFO, a device, a directory or a socket is refused, and none of them keeps the caller
///   waiting;
/// - owned by the process's effective user, or by root;
/// - without any permission for its group and for others, as `ssh` asks of a private key (`ssh(1)`, FILES). A
///   file of root may be readable for its group if the process is not root's: a service has no other way to
///   a file of root, and systemd's credentials and Kubernetes' secrets come so.
///
/// The checks look at the opened file, so it cannot be exchanged between them and the reading. Symbolic
/// links are followed. On other systems, the file must be regular. It has at most 16 MiB anywhere.
///
/// ```no_run
/// use rejoinder_dtls::CertifiedKey;
///
/// // A key that came with its certificate from elsewhere.
/// let certificate = std::fs::read("server.pem")?;
/// let key = rejoinder_dtls::read_secret_file("server.key")?;
/// let own = CertifiedKey::from_pem(&certificate, &key)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If the file cannot be read, or one of the above does not hold. The message has the command that mends it.
pub fn read_secret_file(path: impl AsRef<Path>) -> Result<Vec<u8>, SecretFileError> {
    read(path.as_ref(), true)
}

/// Why a file cannot be used for a secret, see [`read_secret_file`].
///
/// ```
/// use rejoinder_dtls::{SecretFileError, read_secret_file};
///
/// let error = read_secret_file(std::env::temp_dir()).unwrap_err();
/// # #[cfg(unix)]
/// assert!(error.to_string().ends_with("is a directory: give a regular file"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFileError {
    /// It cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the OS returned.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("{} is a {kind}: give a regular file", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It belongs to a user that is neither root nor that of the process.
    #[error(
        "{0} belongs to the user {owner}, and this process runs as {user}: run `chown {user} {0}`",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// The id of the user that owns it.
        owner: u32,
        /// The effective user id of the process.
        user: u32,
    },
    /// Its permissions let other users read or change it.
    #[error(
        "{0} has the mode {mode:04o}, which lets other users in: run `chmod 600 {0}`",
        path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is too long to be what it should be.
    #[error("{} has more than {max_bytes} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
}

/// Reads a regular file of a bounded length; one with a secret only if it is private.
pub(crate) fn read(path: &Path, is_secret: bool) -> Result<Vec<u8>, SecretFileError> {
    let failed = |source| SecretFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = open(path).map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?, is_secret)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(SecretFileError::TooLong {
            path: path.to_owned(),
            max_bytes: MAX_FILE_BYTES,
        });
    }
    Ok(bytes)
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};

    // `NONBLOCK` opens a FIFO that has no writer; `NOCTTY` does not become a terminal's session.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open(path, flags, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn check(path: &Path, metadata: &Metadata, is_secret: bool) -> Result<(), SecretFileError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    let path = || path.to_owned();
    let kind = metadata.file_type();
    if !kind.is_file() {
        let kind = match kind {
            kind if kind.is_dir() => "directory",
            kind if kind.is_fifo() => "FIFO",
            kind if kind.is_char_device() || kind.is_block_device() => "device",
            _ => "special file",
        };
        return Err(SecretFileError::Kind { path: path(), kind });
    }
    let user = rustix::process::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    match judge(owner, mode, user) {
        Some(Fault::Owner) if is_secret => Err(SecretFileError::Owner {
            path: path(),
            owner,
            user,
        }),
        Some(Fault::Mode) if is_secret => Err(SecretFileError::Mode { path: path(), mode }),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn check(path: &Path, metadata: &Metadata, _: bool) -> Result<(), SecretFileError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(SecretFileError::Kind {
        path: path.to_owned(),
        kind: "special file",
    })
}

#[cfg(unix)]
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Owner,
    Mode,
}

/// Whether a file is private to a process of this user.
#[cfg(unix)]
fn judge(owner: u32, mode: u32, user: u32) -> Option<Fault> {
    if owner != user && owner != ROOT {
        return Some(Fault::Owner);
    }
    let allowed = if owner == user { 0o700 } else { 0o740 };
    (mode & 0o777 & !allowed != 0).then_some(Fault::Mode)
}

#[cfg(unix)]
const ROOT: u32 = 0;
/// 100,000 lines of the greatest length fit into a file of pre-shared keys.
const MAX_FILE_BYTES: u64 = 16 << 20;

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::process::geteuid;

    use super::{Fault, MAX_FILE_BYTES, SecretFileError, judge, read, read_secret_file};

    /// A directory that is removed with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("rejoinder-secret-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("it is new");
            Self(path)
        }

        fn file(&self, mode: u32) -> PathBuf {
            let path = self.0.join(format!("{mode:o}"));
            fs::write(&path, "secret").expect("the directory is there");
            let mode = Permissions::from_mode(mode);
            fs::set_permissions(&path, mode).expect("the file is there");
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn who_owns_a_file_decides_what_its_mode_may_be() {
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(judge(1_000, mode, 1_000), None);
            assert_eq!(judge(0, mode, 1_000), None);
            assert_eq!(judge(0, mode, 0), None);
            assert_eq!(judge(1_001, mode, 1_000), Some(Fault::Owner));
            assert_eq!(judge(1_000, mode, 0), Some(Fault::Owner));
        }
        for mode in [0o640, 0o440] {
            assert_eq!(judge(1_000, mode, 1_000), Some(Fault::Mode));
            assert_eq!(judge(0, mode, 0), Some(Fault::Mode));
            assert_eq!(judge(0, mode, 1_000), None);
        }
        for mode in [0o660, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o777] {
            assert_eq!(judge(1_000, mode, 1_000), Some(Fault::Mode));
            assert_eq!(judge(0, mode, 1_000), Some(Fault::Mode));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let directory = Directory::new("mode");
        for mode in [0o600, 0o400] {
            assert_eq!(read_secret_file(directory.file(mode)).unwrap(), b"secret");
        }
        for mode in [0o604, 0o620, 0o644, 0o666, 0o610] {
            let path = directory.file(mode);
            let error = read_secret_file(&path).unwrap_err().to_string();
            let what = format!("{} has the mode {mode:04o}, which ", path.display());
            assert!(error.starts_with(&what), "{error}");
            let repair = format!("run `chmod 600 {}`", path.display());
            assert!(error.ends_with(&repair), "{error}");
            // What is no secret may be read by all.
            assert_eq!(read(&path, false).unwrap(), b"secret");
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let directory = Directory::new("owner");
        let path = directory.file(0o600);
        // Only root can give files away.
        if geteuid().is_root() {
            chown(&path, Some(12_345), None).unwrap();
            let error = read_secret_file(&path).unwrap_err();
            let is_expected = matches!(
                error,
                SecretFileError::Owner {
                    owner: 12_345,
                    user: 0,
                    ..
                }
            );
            assert!(is_expected, "{error}");
            let repair = format!("run `chown 0 {}`", path.display());
            assert!(error.to_string().ends_with(&repair), "{error}");
        } else {
            assert_eq!(read_secret_file(&path).unwrap(), b"secret");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_keeps_nothing_waiting() {
        let directory = Directory::new("kind");
        let fifo = directory.0.join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        for (path, expected) in [
            (&*fifo, "FIFO"),
            (&*directory.0, "directory"),
            (Path::new("/dev/zero"), "device"),
        ] {
            for is_secret in [true, false] {
                let error = read(path, is_secret).unwrap_err();
                let is_expected =
                    matches!(error, SecretFileError::Kind { kind, .. } if kind == expected);
                assert!(is_expected, "{error}");
            }
        }
        let gone = read_secret_file(directory.0.join("gone")).unwrap_err();
        assert!(matches!(gone, SecretFileError::Io { .. }), "{gone}");
    }

    #[test]
    fn a_link_is_judged_by_the_file_behind_it() {
        let directory = Directory::new("link");
        for (mode, is_private) in [(0o600, true), (0o644, false)] {
            let link = directory.0.join(format!("link-{mode:o}"));
            symlink(directory.file(mode), &link).unwrap();
            assert_eq!(read_secret_file(&link).is_ok(), is_private, "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let directory = Directory::new("length");
        let path = directory.file(0o600);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(MAX_FILE_BYTES).unwrap();
        assert_eq!(
            read_secret_file(&path).unwrap().len() as u64,
            MAX_FILE_BYTES
        );
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = read_secret_file(&path).unwrap_err();
        assert!(
            error.to_string().ends_with("has more than 16777216 bytes"),
            "{error}"
        );
    }
}
