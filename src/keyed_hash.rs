use std::hash::{BuildHasher, RandomState};

use siphasher::sip::SipHasher13;

/// A hash whose collisions cannot be found from outside.
///
/// The key is the standard library's randomness, by way of its hash. That cannot fail, and what is hashed
/// here need not be more than unknown to those who send.
pub(crate) fn random() -> SipHasher13 {
    let random = RandomState::new();
    let (low, high) = (random.hash_one(0), random.hash_one(1));
    SipHasher13::new_with_key(&(u128::from(low) | u128::from(high) << 64).to_ne_bytes())
}
