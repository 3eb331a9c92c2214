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
    let (id, hash) = rest.split_at_mut(9);
    id[0] = context.request_id.is_some().into();
    id[1..].copy_from_slice(&context.request_id.unwrap_or(0).to_be_bytes());
    let hashed = SipHasher24::new_with_key(&[0; 16]).hash(key);
    hash.copy_from_slice(&hashed.as_u128().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;
    use crate::transport::Meta;

    fn key_of(peer: &str, id: Option<u64>, key: &[u8]) -> Key {
        let meta = Meta::new(peer.parse().expect("it is an address"));
        let context = Context::new(&meta, Timestamp::system()).with_request_id(id);
        store_key(&context, key)
    }

    /// Nodes of two versions of a program share a store: what they make of a request stays as it is.
    #[test]
    fn the_key_of_a_request_is_what_the_documentation_says() {
        let key = key_of("192.0.2.1:7777", Some(0x0102_0304_0506_0708), b"");
        let mut expected = vec![b'd'];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        expected.extend([0x1e, 0x61, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(key[..28], expected);
        assert_eq!(
            key[28..],
            SipHasher24::new().hash(b"").as_u128().to_be_bytes()
        );
    }

    #[test]
    fn requests_that_differ_in_anything_have_other_keys() {
        let all = [
            key_of("192.0.2.1:7777", None, b"x"),
            key_of("192.0.2.1:7777", Some(0), b"x"),
            key_of("192.0.2.1:7777", Some(1), b"x"),
            key_of("192.0.2.1:7777", None, b"y"),
            key_of("192.0.2.1:7778", None, b"x"),
            key_of("192.0.2.2:7777", None, b"x"),
            key_of("[2001:db8::1]:7777", None, b"x"),
        ];
        for (index, key) in all.iter().enumerate() {
            assert!(!all[..index].contains(key), "{index}");
        }
    }
}
