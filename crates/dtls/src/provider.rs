//! The cryptography of the DTLS implementation, and what this crate adds to it.
//!
//! The implementation makes the cookie of a `HelloVerifyRequest` from a secret of each association. So
//! it needs an association before the peer's address is verified. A public server must verify
//! addresses without state (RFC 6347 §4.2.1). The engine makes cookies of its own, and lets an
//! association begin behind the exchange: the implementation asks its provider for the HMAC of the
//! client's random, and here it is given the cookie that the engine has verified. The same holds for
//! the identity that a key was asked for, which the implementation does not report.

use dimpl::crypto::{
    Buf, CryptoProvider, HashAlgorithm, HmacProvider, KeyProvider, SignatureAlgorithm, SigningKey,
};
use dimpl::{CryptoError, CryptoOperation};
use rejoinder::Identity;
use std::cell::{Cell, RefCell};

use crate::hello::COOKIE_BYTES;

/// The provider that the features choose, with the cookies of the engine.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        hmac_provider: &Hmac,
        key_provider: &Keys,
        ..default_provider()
    }
}

/// The provider that the features choose.
pub(crate) fn default_provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return dimpl::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return dimpl::crypto::rust_crypto::default_provider();
}

/// HMAC-SHA-256.
pub(crate) fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let hmac = default_provider().hmac_provider.hmac_sha256(key, data);
    hmac.expect("HMAC takes keys and data of any length")
}

/// A verified cookie, and the random of the hello that it came with.
#[derive(Clone, Copy)]
struct Verified {
    random: [u8; 32],
    cookie: [u8; COOKIE_BYTES],
}

thread_local! {
    static VERIFIED: Cell<Option<Verified>> = const { Cell::new(None) };
    static IDENTITY: RefCell<Option<Identity>> = const { RefCell::new(None) };
}

/// Runs `work`, in which the implementation takes `cookie` for the one of the hello with this random.
pub(crate) fn with_cookie<R>(
    random: [u8; 32],
    cookie: [u8; COOKIE_BYTES],
    work: impl FnOnce() -> R,
) -> R {
    /// A panic in the work must not leave a cookie behind.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            VERIFIED.set(None);
        }
    }
    VERIFIED.set(Some(Verified { random, cookie }));
    let _clear = Clear;
    work()
}

/// Notes the identity that the implementation has found a key for.
pub(crate) fn note_identity(identity: &[u8]) {
    IDENTITY.with_borrow_mut(|noted| *noted = Some(Identity::new(identity)));
}

/// The identity noted since the last call.
pub(crate) fn take_identity() -> Option<Identity> {
    IDENTITY.take()
}

/// HMAC, but for cookies.
#[derive(Debug)]
struct Hmac;

impl HmacProvider for Hmac {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        // Nothing but the cookie is the HMAC of these 32 bytes alone: the pseudorandom function of
        // RFC 5246 §5 puts a label in front.
        match VERIFIED.get() {
            Some(verified) if data == verified.random => Ok(verified.cookie),
            _ => default_provider().hmac_provider.hmac_sha256(key, data),
        }
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        default_provider().hmac_provider.hmac(hash, key, data, out)
    }
}

/// Private keys, and the absence of one: the implementation asks every client for a certificate.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        match key {
            NO_KEY => Ok(Box::new(NoKey)),
            key => default_provider().key_provider.load_private_key(key),
        }
    }
}

/// Signs nothing, so that a handshake ends in which the server asks for a certificate.
#[derive(Debug)]
struct NoKey;

impl SigningKey for NoKey {
    fn sign(&mut self, _: &[u8], _: HashAlgorithm, _: &mut Buf) -> Result<(), CryptoError> {
        Err(CryptoError::OperationFailed(CryptoOperation::Sign))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}

/// What stands for a key where there is none.
pub(crate) const NO_KEY: &[u8] = b"no key";

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{hmac_sha256, note_identity, provider, take_identity, with_cookie};

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        // §4.3: test case 2.
        let tag = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }

    #[test]
    fn only_the_random_of_the_verified_hello_has_the_cookie_and_only_meanwhile() {
        let hmac = |data: &[u8]| provider().hmac_provider.hmac_sha256(b"k", data).unwrap();
        let (random, cookie) = ([1; 32], [2; 32]);
        with_cookie(random, cookie, || {
            assert_eq!(hmac(&random), cookie);
            assert_eq!(hmac(&[3; 32]), hmac_sha256(b"k", &[3; 32]));
        });
        assert_eq!(hmac(&random), hmac_sha256(b"k", &random));
        let panicked = catch_unwind(|| with_cookie(random, cookie, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(hmac(&random), hmac_sha256(b"k", &random));
    }

    #[test]
    fn an_identity_is_taken_once() {
        note_identity(b"one");
        note_identity(b"two");
        assert_eq!(take_identity(), Some("two".into()));
        assert_eq!(take_identity(), None);
    }
}
