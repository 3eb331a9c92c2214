use std::net::IpAddr;

use siphasher::sip128::SipHasher24;

use crate::aio::store::local::{KEY_BYTES, Key};
use crate::handler::Context;

/// What identifies a request in the store: the form that the page of `SharedDedup` has.
pub(super) fn store_key(context: &Context, key: &[u8]) -> Key {
    let mut bytes = [0; KEY_BYTES];
    let (kind, rest) = bytes.split_at_mut(1);
    kind[0] = b'd';
    let (ip, rest) = rest.split_at_mut(16);
    let peer_ip = match context.peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    ip.copy_from_slice(&peer_ip.octets());
    let (port, rest) = rest.split_at_mut(2);
    port.copy_from_slice(&context.peer.port().to_be_bytes());
    let (id, rest) = rest.split_at_mut(9);
    id[0] = context.request_id.is_some().into();
    id[1..].copy_from_slice(&context.request_id.unwrap_or(0).to_be_bytes());
    let (identity, hash_of_key) = rest.split_at_mut(17);
    if let Some(known) = context.identity() {
        identity[0] = 1;
        identity[1..].copy_from_slice(&hash(known.as_bytes()));
    } else if context.association != 0 {
        // Another association of the address is another peer.
        identity[0] = 2;
        identity[13..].copy_from_slice(&context.association.to_be_bytes());
    }
    hash_of_key.copy_from_slice(&hash(key));
    bytes
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    SipHasher24::new_with_key(&[0; 16]).hash(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::timestamp::Timestamp;
    use crate::transport::Meta;

    fn context(peer: &str) -> Context {
        let meta = Meta::new(peer.parse().expect("it is an address"));
        Context::new(&meta, Timestamp::system())
    }

    /// Nodes of two versions of a program share a store: what they make of a request stays as it is.
    #[test]
    fn the_key_of_a_request_is_what_the_documentation_says() {
        let context = context("192.0.2.1:7777").with_request_id(Some(0x0102_0304_0506_0708));
        let key = store_key(&context, b"buy 7");
        let mut expected = vec![b'd'];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        expected.extend([0x1e, 0x61, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        expected.extend([0; 17]);
        assert_eq!(key[..45], expected);
        // Made by another implementation of SipHash-2-4 with 128 bits, which agrees with the reference's vectors.
        let hashed = 0x8e18_9714_a7a5_5841_01f7_fcc3_6d91_4bdb_u128;
        assert_eq!(key[45..], hashed.to_be_bytes());
    }

    #[test]
    fn requests_that_differ_in_anything_have_other_keys() {
        let plain = || context("192.0.2.1:7777");
        let named = |name: &str| plain().with_identity(Some(Identity::from(name)));
        let by = |association| {
            let mut meta = Meta::new(plain().peer);
            meta.association = association;
            Context::new(&meta, Timestamp::system())
        };
        let renewed = by(7).with_identity(Some(Identity::from("Ada")));
        assert_eq!(store_key(&renewed, b"x"), store_key(&named("Ada"), b"x"));
        let all = [
            store_key(&plain(), b"x"),
            store_key(&plain(), b"y"),
            store_key(&plain().with_request_id(Some(0)), b"x"),
            store_key(&plain().with_request_id(Some(1)), b"x"),
            store_key(&named(""), b"x"),
            store_key(&named("Ada"), b"x"),
            store_key(&named("Bob"), b"x"),
            store_key(&by(7), b"x"),
            store_key(&by(8), b"x"),
            store_key(&context("192.0.2.1:7778"), b"x"),
            store_key(&context("192.0.2.2:7777"), b"x"),
            store_key(&context("[2001:db8::1]:7777"), b"x"),
        ];
        for (index, key) in all.iter().enumerate() {
            assert!(!all[..index].contains(key), "{index}");
        }
    }
}
