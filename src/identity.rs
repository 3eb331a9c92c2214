use std::fmt;
use std::sync::Arc;

use crate::escape::Escaped;

/// The name of an authenticated peer: which key or certificate it proved to have.
///
/// A transport establishes it (the identity of a pre-shared key, the subject of a certificate), or a codec
/// does ([`Codec::authenticate`](crate::Codec::authenticate)). An address is no identity: the source of a
/// datagram is easily forged.
///
/// Its value is any bytes, often text. A clone shares them: it counts a reference and allocates nothing.
///
/// [`Display`](fmt::Display) and [`Debug`](fmt::Debug) write text as [`Escaped`] does, and bytes that are no
/// UTF-8 as `\x` and two hexadecimal digits. So a name from the network cannot act on a terminal or a log.
///
/// ```
/// use rejoinder::Identity;
///
/// let sensor = Identity::from("sensor 7");
/// assert_eq!(sensor, Identity::new(&b"sensor 7"[..]));
/// assert_eq!((sensor.as_bytes(), sensor.as_str()), (&b"sensor 7"[..], Some("sensor 7")));
///
/// let hostile = Identity::new(*b"\x1b[2J\xff");
/// assert_eq!(hostile.to_string(), r"\u{1b}[2J\xff");
/// assert_eq!(hostile.as_str(), None);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<[u8]>);

impl Identity {
    /// The identity with this name. It may be empty, and of any length.
    pub fn new(name: impl Into<Arc<[u8]>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name, if it is UTF-8. It is not escaped.
    pub fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }
}

impl From<&str> for Identity {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

impl From<String> for Identity {
    fn from(name: String) -> Self {
        Self::new(name.into_bytes())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            Escaped(chunk.valid()).fmt(f)?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn a_name_cannot_act_on_what_shows_it() {
        for byte in 0..=u8::MAX {
            let identity = Identity::new([b'a', byte, b'b']);
            for shown in [identity.to_string(), format!("{identity:?}")] {
                assert!(!shown.chars().any(char::is_control), "{byte:#x}: {shown:?}");
                assert!(shown.contains('a') && shown.contains('b'), "{shown:?}");
            }
        }
        let bidi = Identity::from("a\u{202e}b\u{2028}");
        assert_eq!(bidi.to_string(), r"a\u{202e}b\u{2028}");
        assert_eq!(Identity::from("好 sensor").to_string(), "好 sensor");
    }

    #[test]
    fn equality_is_that_of_the_bytes() {
        let one = Identity::from("one");
        assert_eq!(one, one.clone());
        assert_eq!(one, Identity::from(String::from("one")));
        assert_ne!(one, Identity::from("One"));
        assert_eq!(Identity::from("").as_bytes(), b"");
    }
}
