//! The keys of a [`Signed`](super::Signed) codec.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::replay::ReplayTable;
use crate::config_error::ConfigError;
use crate::identity::Identity;

/// A shared secret with its number: what a [`Signed`](super::Signed) codec signs and verifies with.
///
/// The secret is 16 to 1,024 random bytes; 32 are as good as any number (RFC 2104 §3). A password is not
/// random enough: an eavesdropper can try all likely ones. Use a secret for nothing else.
///
/// ```
/// use rejoinder::Identity;
/// use rejoinder::codec::SigningKey;
///
/// // From `openssl rand 32`, say, in a file that others cannot read.
/// let secret = [0x2a; 32];
/// let key = SigningKey::new(7, secret).identity(Identity::from("sensor"));
/// assert_eq!(format!("{key:?}"), "SigningKey { id: 7, identity: Identity(sensor), .. }");
/// ```
#[derive(Clone)]
#[must_use]
pub struct SigningKey {
    pub(super) id: u32,
    identity: Option<Identity>,
    secret: Arc<[u8]>,
}

impl SigningKey {
    /// A key. `id` is its number in each message, by which the peer finds the secret.
    pub fn new(id: u32, secret: impl AsRef<[u8]>) -> Self {
        Self {
            id,
            identity: None,
            secret: secret.as_ref().into(),
        }
    }

    /// Whose key it is: what [`Context::identity`](crate::Context::identity) returns for its requests.
    /// Several keys may have one identity, while one replaces the other. Default: the key's number, in
    /// decimal digits.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SigningKey");
        shown.field("id", &self.id);
        if let Some(identity) = &self.identity {
            shown.field("identity", identity);
        }
        // Not the secret.
        shown.finish_non_exhaustive()
    }
}

/// The first half of an HMAC-SHA-256, which is as much as can be cut off (RFC 2104 §5, RFC 8945 §5.2.2.1).
pub(super) const MAC_BYTES: usize = 16;

/// A key in use.
pub(super) struct Key {
    pub(super) id: u32,
    pub(super) identity: Identity,
    secret: Arc<[u8]>,
    /// The state of HMAC with the derived key.
    mac: Hmac<Sha256>,
    pub(super) accepted: Arc<ReplayTable>,
}

impl Key {
    /// The first bytes of the MAC of several parts, one after the other.
    #[inline]
    pub(super) fn sign(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut first = [0; MAC_BYTES];
        first.copy_from_slice(&whole[..MAC_BYTES]);
        first
    }

    /// Compares in constant time.
    #[inline]
    pub(super) fn verifies(&self, parts: &[&[u8]], mac: &[u8; MAC_BYTES]) -> bool {
        let mut expected = self.mac.clone();
        for part in parts {
            expected.update(part);
        }
        expected.verify_truncated_left(mac).is_ok()
    }
}

/// The keys that are valid, by number.
pub(super) struct Keys {
    sorted: Vec<Key>,
    /// The place of the one that requests are signed with.
    signing: usize,
}

impl Keys {
    /// `service` is mixed into each key. A key that was there `before`, with the same secret, keeps the
    /// table of what was accepted. A new one has a table with `capacity` places and this floor.
    pub(super) fn new(
        keys: &[SigningKey],
        service: &[u8],
        before: Option<&Self>,
        capacity: usize,
        floor: u64,
    ) -> Result<Self, ConfigError> {
        ConfigError::check("key", keys.len(), 1..=MAX_KEYS)?;
        let mut sorted = Vec::with_capacity(keys.len());
        for SigningKey {
            id,
            identity,
            secret,
        } in keys
        {
            ConfigError::check("bytes of a key's secret", secret.len(), SECRET_BYTES)?;
            let known = before.and_then(|before| before.get(*id));
            let known = known.filter(|known| known.secret == *secret);
            let accepted = match known {
                Some(known) => Arc::clone(&known.accepted),
                None => Arc::new(ReplayTable::new(capacity, floor)),
            };
            let identity = identity.clone();
            sorted.push(Key {
                id: *id,
                identity: identity.unwrap_or_else(|| Identity::from(id.to_string())),
                secret: Arc::clone(secret),
                mac: derive(secret, service),
                accepted,
            });
        }
        sorted.sort_by_key(|key| key.id);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(ConfigError::out_of_range(
                "key",
                format_args!("{} twice", pair[0].id),
                "a number of its own",
            ));
        }
        let signing = sorted.binary_search_by_key(&keys[0].id, |key| key.id);
        let signing = signing.expect("it was put in above");
        Ok(Self { sorted, signing })
    }

    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Key> {
        let at = self.sorted.binary_search_by_key(&id, |key| key.id).ok()?;
        Some(&self.sorted[at])
    }

    pub(super) fn signing(&self) -> &Key {
        &self.sorted[self.signing]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let tables = self.sorted.iter().map(|key| key.accepted.memory_bytes());
        tables.sum()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.sorted.iter().map(|key| key.id)
    }
}

/// HMAC with a key of this format and service alone: that is HMAC-SHA-256 of the secret over a label.
fn derive(secret: &[u8], service: &[u8]) -> Hmac<Sha256> {
    let keyed =
        |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    let mut mac = keyed(secret);
    mac.update(LABEL);
    mac.update(service);
    keyed(&mac.finalize().into_bytes())
}

const LABEL: &[u8] = b"rejoinder signed 1 ";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=1_024;
const MAX_KEYS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::{Keys, SigningKey};

    /// The values are those of the documentation, which Python computes too.
    #[test]
    fn a_mac_proves_what_it_covers_and_no_other_key_makes_it() {
        let keys = |secret: &[u8], service: &[u8]| {
            let key = SigningKey::new(7, secret);
            Keys::new(&[key], service, None, 8, 0).unwrap()
        };
        let secret: Vec<u8> = (0..32).collect();
        let header = [
            &b"q\0\0\0\x07\0\x05\x8d\x1a\x82\x48\x5d\x80"[..],
            b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\x01\x02\x03\x04\x05\x06\x07\x08",
        ]
        .concat();
        let expected = 0x8a65_1a50_5610_e7b8_e188_1039_67a4_fedf_u128.to_be_bytes();
        let right = keys(&secret, b"");
        let key = right.get(7).unwrap();
        assert_eq!(key.sign(&[&header, b"ping"]), expected);
        assert!(key.verifies(&[&header, b"pi", b"ng"], &expected));
        // Miri is slow.
        for bit in (0..128).step_by(if cfg!(miri) { 37 } else { 1 }) {
            let mut wrong = expected;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verifies(&[&header, b"ping"], &wrong), "{bit}");
        }
        for other in [keys(&secret, b"doors"), keys(&secret[..31], b"")] {
            let key = other.get(7).unwrap();
            assert!(!key.verifies(&[&header, b"ping"], &expected));
        }
        assert!(right.get(8).is_none());
    }
}
