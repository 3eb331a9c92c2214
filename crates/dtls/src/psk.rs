//! Pre-shared keys: RFC 4279.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::secret::{SecretFileError, read_secret_file};

/// Finds the key that a peer's identity stands for: what a server with pre-shared keys asks.
///
/// # Who calls what
///
/// The engine calls [`key`](Self::key) once in each handshake with a pre-shared key, on the thread
/// that receives. It waits for the result, so a store looks into memory.
///
/// # What an implementation guarantees
///
/// The identity is 0 to 65,535 bytes of the peer's choice, and not authenticated yet. `None` says that
/// it is unknown. The handshake then goes on with a random key and fails as it does with a wrong key,
/// so a peer does not learn which identities exist (RFC 4279 §2).
///
/// # Rotation
///
/// A store may return another key at any time: associations that are established keep theirs. To change
/// keys without a gap, give the new key an identity of its own.
///
/// # A minimal implementation
///
/// A closure is one:
///
/// ```
/// use rejoinder_dtls::Dtls;
///
/// let builder = Dtls::builder().psk(|identity: &[u8]| match identity {
///     b"lamp-7" => Some(vec![0x5a; 16]),
///     _ => None,
/// });
/// ```
pub trait KeyStore: Send + Sync {
    /// The key of an identity: 1 to 64 bytes, best 16 random ones or more. Another length is the same
    /// as `None`.
    fn key(&self, identity: &[u8]) -> Option<Vec<u8>>;
}

impl<F: Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync> KeyStore for F {
    fn key(&self, identity: &[u8]) -> Option<Vec<u8>> {
        self(identity)
    }
}

/// Identities and keys from a file, in the format of the `psktool` of `GnuTLS`.
///
/// Each line is `identity:key`, the key in hexadecimal digits. An identity that is no text is written
/// as `#` and hexadecimal digits. Empty lines, and lines that begin with `# ` (or are `#` alone), say
/// nothing. The last colon of a line separates, so an identity may contain others.
///
/// ```
/// use rejoinder_dtls::{KeyStore, PskFile};
///
/// let keys = PskFile::parse("lamp-7:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\n#00ff:0102\n")?;
/// assert_eq!(keys.key(b"lamp-7"), Some(vec![0x5a; 16]));
/// assert_eq!(keys.key(&[0x00, 0xff]), Some(vec![1, 2]));
/// assert_eq!(keys.key(b"lamp-8"), None);
/// # Ok::<(), rejoinder_dtls::PskFileError>(())
/// ```
#[derive(Clone, Default)]
pub struct PskFile {
    keys: HashMap<Vec<u8>, Vec<u8>>,
    first: Option<Vec<u8>>,
}

impl PskFile {
    /// Reads a file that only its owner can read, see [`read_secret_file`].
    ///
    /// # Errors
    ///
    /// If [`read_secret_file`] fails, if the file is not UTF-8, or if [`parse`](Self::parse) fails. No error
    /// shows a key.
    ///
    /// ```no_run
    /// use rejoinder_dtls::{Dtls, PskFile};
    ///
    /// let builder = Dtls::builder().psk(PskFile::read("/etc/lamps/psk.txt")?);
    /// # Ok::<(), rejoinder_dtls::PskFileError>(())
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PskFileError> {
        let bytes = read_secret_file(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let number = before.split(|byte| *byte == b'\n').count();
            let what =
                "it is not UTF-8: write an identity that is no text as `#` and hexadecimal digits";
            PskFileError::Line { number, what }
        })?;
        Self::parse(text)
    }

    /// Reads the lines of a file.
    ///
    /// # Errors
    ///
    /// If a line is malformed, or an identity stands on two lines.
    pub fn parse(text: &str) -> Result<Self, PskFileError> {
        let mut file = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line == "#" || line.starts_with("# ") {
                continue;
            }
            let wrong = |what| PskFileError::Line { number, what };
            let (identity, key) = line
                .rsplit_once(':')
                .ok_or(wrong("it has no colon: write `identity:key`"))?;
            let identity = match identity.strip_prefix('#') {
                Some(digits) => from_hex(digits)
                    .ok_or(wrong("its identity begins with `#` and is not hexadecimal"))?,
                None => identity.as_bytes().to_vec(),
            };
            if identity.is_empty() || identity.len() > MAX_IDENTITY_BYTES {
                return Err(wrong("its identity is not of 1 to 128 bytes"));
            }
            let key = from_hex(key).ok_or(wrong("its key is not hexadecimal"))?;
            if !is_usable(&key) {
                return Err(wrong("its key is not of 1 to 64 bytes"));
            }
            file.first.get_or_insert_with(|| identity.clone());
            if file.keys.insert(identity, key).is_some() {
                return Err(wrong("its identity stands on a line before"));
            }
        }
        Ok(file)
    }

    /// The identity and the key of the first line: those of a client with one of each.
    ///
    /// ```
    /// use rejoinder_dtls::PskFile;
    ///
    /// let keys = PskFile::parse("me:00ff\nnot-me:01\n")?;
    /// assert_eq!(keys.first(), Some((&b"me"[..], &[0x00, 0xff][..])));
    /// # Ok::<(), rejoinder_dtls::PskFileError>(())
    /// ```
    pub fn first(&self) -> Option<(&[u8], &[u8])> {
        let identity = self.first.as_ref()?;
        Some((identity, self.keys.get(identity)?))
    }

    /// How many identities it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl KeyStore for PskFile {
    fn key(&self, identity: &[u8]) -> Option<Vec<u8>> {
        self.keys.get(identity).cloned()
    }
}

/// How many identities there are, and no key.
impl fmt::Debug for PskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskFile")
            .field("identities", &self.len())
            .finish_non_exhaustive()
    }
}

/// Why a file of keys cannot be used.
///
/// ```
/// use rejoinder_dtls::PskFile;
///
/// let error = PskFile::parse("lamp-7:xyz").unwrap_err();
/// assert_eq!(error.to_string(), "line 1 of the key file: its key is not hexadecimal");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PskFileError {
    /// It cannot be read, or it is not private.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A line is malformed.
    #[error("line {number} of the key file: {what}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Whether a key has a length that can be used.
pub(crate) fn is_usable(key: &[u8]) -> bool {
    (1..=MAX_KEY_BYTES).contains(&key.len())
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| {
            let byte = value(pair[0])? << 4 | value(pair[1])?;
            u8::try_from(byte).ok()
        })
        .collect()
}

/// What RFC 4279 §5.3 asks implementations to support.
pub(crate) const MAX_IDENTITY_BYTES: usize = 128;
/// What RFC 4279 §5.3 asks implementations to support.
pub(crate) const MAX_KEY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::{KeyStore, PskFile, PskFileError};
    #[cfg(unix)]
    use crate::secret::SecretFileError;

    #[test]
    fn a_line_that_is_wrong_is_named_and_its_key_is_not_shown() {
        for (text, number) in [
            ("a", 1),
            ("\n# a comment\n#\na:zz", 4),
            ("a:012", 1),
            (":01", 1),
            ("a:", 1),
            ("#0g:01", 1),
            ("a:01\na:02", 2),
            (&format!("{}:01", "a".repeat(129)), 1),
            (&format!("a:{}", "01".repeat(65)), 1),
        ] {
            let error = PskFile::parse(text).unwrap_err();
            assert!(
                matches!(error, PskFileError::Line { number: found, .. } if found == number),
                "{text:?}: {error}"
            );
        }
        let secret = "5ec2e75ec2e7";
        let error = PskFile::parse(&format!("a:{secret}x")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret));
    }

    #[test]
    fn an_identity_may_have_colons_and_the_file_shows_no_key() {
        let file = PskFile::parse(" urn:dev:1:0AfF \r\n").unwrap();
        assert_eq!(file.key(b"urn:dev:1"), Some(vec![0x0a, 0xff]));
        assert_eq!(file.len(), 1);
        assert_eq!(format!("{file:?}"), "PskFile { identities: 1, .. }");
        assert!(PskFile::parse("").unwrap().first().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_read_if_it_is_private_and_text() {
        use std::fs::{self, Permissions};
        use std::os::unix::fs::PermissionsExt;

        let path = std::env::temp_dir().join(format!("rejoinder-psk-{}", std::process::id()));
        fs::write(&path, "a:01\n").unwrap();
        let read = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            PskFile::read(&path)
        };
        assert_eq!(read(0o600).unwrap().len(), 1);
        let error = read(0o644).unwrap_err();
        assert!(
            matches!(error, PskFileError::File(SecretFileError::Mode { .. })),
            "{error}"
        );
        fs::write(&path, b"a:01\n\xff:02\n").unwrap();
        let error = read(0o600).unwrap_err();
        assert!(
            matches!(error, PskFileError::Line { number: 2, .. }),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        let gone = PskFile::read(&path).unwrap_err();
        assert!(matches!(
            gone,
            PskFileError::File(SecretFileError::Io { .. })
        ));
    }
}
