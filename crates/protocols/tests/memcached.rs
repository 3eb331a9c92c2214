//! memcached's values in many datagrams, on a simulated network that loses, repeats and reorders them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rejoinder::codec::ResponseKind;
use rejoinder::sans_io::ServerCore;
use rejoinder::sim::{Link, SimNet};
use rejoinder::testing::codec_conformance;
use rejoinder::{Client, Codec, Context, Handler, Reply, ReplyError, RequestError, Timestamp};

use rejoinder_protocols::memcached::codec::{Memcached, MemcachedError, Part, Request, Response};

/// The flags and the data of each key.
type Values = HashMap<Vec<u8>, (u32, Vec<u8>)>;

/// Keeps values, and sends them in parts, but for those that it always loses.
struct Store {
    values: Mutex<Values>,
    part_bytes: usize,
    lost: Vec<u16>,
}

impl Store {
    fn new(part_bytes: usize) -> Self {
        Self {
            values: Mutex::default(),
            part_bytes,
            lost: Vec::new(),
        }
    }

    fn with(self, key: &[u8], flags: u32, data: &[u8]) -> Self {
        let entry = (flags, data.to_vec());
        self.values.lock().unwrap().insert(key.to_vec(), entry);
        self
    }
}

impl Handler<Memcached> for Store {
    fn handle(
        &self,
        request: Request<'_>,
        _: &Context,
        reply: &mut Reply<'_, Memcached>,
    ) -> Result<(), ReplyError> {
        let mut values = self.values.lock().unwrap();
        let text = match request {
            Request::Set {
                key, flags, data, ..
            } => {
                values.insert(key.to_vec(), (flags, data.to_vec()));
                b"STORED\r\n".to_vec()
            }
            Request::Get { key } => match values.get(key) {
                None => b"END\r\n".to_vec(),
                Some((flags, data)) => {
                    let line = format!("VALUE {} {flags} {}\r\n", key.escape_ascii(), data.len());
                    [line.as_bytes(), data, b"\r\nEND\r\n"].concat()
                }
            },
        };
        let parts = text.chunks(self.part_bytes);
        let total = u16::try_from(parts.len()).unwrap();
        for (number, payload) in (0..).zip(parts) {
            if !self.lost.contains(&number) {
                reply.send(Part {
                    number,
                    total,
                    payload,
                })?;
            }
        }
        Ok(())
    }
}

fn server() -> SocketAddr {
    "10.0.0.1:11211".parse().unwrap()
}

/// Bytes among which line ends, zeros and headers occur.
fn bytes(len: usize) -> Vec<u8> {
    let words = [
        &b"END\r\n"[..],
        &[0, 0, 0, 1, 0, 0],
        b"VALUE k 0 1\r\n",
        &[0xff, 0x80],
    ];
    words.concat().into_iter().cycle().take(len).collect()
}

#[test]
fn a_datagram_has_these_bytes() {
    let mut space = [0; 64];
    let mut encode = |id, request| {
        let mut out = rejoinder::Writer::new(&mut space);
        Memcached.encode_request(id, request, &mut out).unwrap();
        let len = out.finish().unwrap();
        space[..len].to_vec()
    };
    let get = encode(0xf_1234, Request::Get { key: b"k" });
    assert_eq!(get, b"\x12\x34\0\0\0\x01\0\0get k\r\n");
    let set = Request::Set {
        key: b"k",
        flags: 7,
        expires: 60,
        data: b"a\r\nb",
    };
    let bytes = encode(1, set);
    assert_eq!(bytes, b"\0\x01\0\0\0\x01\0\0set k 7 60 4\r\na\r\nb\r\n");
    assert_eq!(Memcached.decode_request(&bytes), Ok(set));
}

#[test]
fn the_codec_keeps_what_every_codec_must() {
    let requests: [&[u8]; 3] = [
        b"\x12\x34\0\0\0\x01\0\0get key\r\n",
        b"\x12\x34\0\0\0\x01\0\0set key 1 0 0\r\n\r\n",
        b"\x12\x34\0\0\0\x01\0\0set key 4294967295 0 5\r\n\0\r\n\xff \r\n",
    ];
    codec_conformance(&Memcached, &requests, |request, out| {
        let payload: &[u8] = match request.get(8) {
            Some(b'g') => b"VALUE key 0 3\r\n\r\n\0\r\nEND\r\n",
            _ => b"STORED\r\n",
        };
        let part = Part {
            number: 0,
            total: 1,
            payload,
        };
        Memcached.encode_response(Timestamp::system(), request, part, out)
    })
    .unwrap();
}

#[test]
fn what_is_not_written_as_memcached_writes_it_is_no_request_and_no_response() {
    let long = [&b"get "[..], &[b'k'; 251], b"\r\n"].concat();
    for text in [
        &b""[..],
        b"get k",
        b"get k\n",
        b"get \r\n",
        b"get  k\r\n",
        b"get k \r\n",
        b"get k l\r\n",
        b"get k\r\nget l\r\n",
        b"get \x7f\r\n",
        b"gets k\r\n",
        b"set k 0 0\r\n\r\n",
        b"set k 0 0  \r\n\r\n",
        b"set k 0 0 +1\r\na\r\n",
        b"set k 00 0 1\r\na\r\n",
        b"set k 0 0 1 noreply\r\na\r\n",
        b"set k 4294967296 0 1\r\na\r\n",
        b"set k 0 0 2\r\na\r\n",
        b"set k 0 0 1\r\na",
        b"END\r\n",
        &long,
    ] {
        let datagram = [b"\0\x01\0\0\0\x01\0\0", text].concat();
        assert!(
            Memcached.decode_request(&datagram).is_err(),
            "{}",
            text.escape_ascii()
        );
    }
    for header in [
        &b"\0\x01\0\0\0\x02\0\0"[..],
        b"\0\x01\0\x01\0\x01\0\0",
        b"\0\x01\0\0\0\x01\0\x01",
    ] {
        let datagram = [header, b"get k\r\n"].concat();
        assert_eq!(
            Memcached.decode_request(&datagram),
            Err(MemcachedError::Header)
        );
    }
    for text in [
        &b""[..],
        b"END",
        b"END\r\nEND\r\n",
        b"VALUE k 0 1\r\nab\r\nEND\r\n",
        b"VALUE k 0 3\r\nab\r\nEND\r\n",
        b"VALUE k 0 2\r\nab\r\n",
        b"VALUE k 0 2 7\r\nab\r\nEND\r\n",
        b"VALUE k 0 1\r\na\r\nVALUE l 0 1\r\na\r\nEND\r\n",
        b"VALUE  0 1\r\na\r\nEND\r\n",
    ] {
        assert_eq!(
            Memcached.decode_response(text),
            Err(MemcachedError::Response),
            "{}",
            text.escape_ascii()
        );
    }
}

#[test]
fn a_response_belongs_to_the_request_with_its_key() {
    let get = b"\0\x01\0\0\0\x01\0\0get key\r\n";
    let set = b"\0\x01\0\0\0\x01\0\0set key 0 0 0\r\n\r\n";
    let response = |header: &[u8; 6], text: &[u8]| [b"\0\x01", &header[..], text].concat();
    for (request, header, text, expected) in [
        (
            &get[..],
            b"\0\0\0\x01\0\0",
            &b"VALUE key 0 0\r\n\r\nEND\r\n"[..],
            true,
        ),
        (get, b"\0\0\0\x02\0\0", b"VALUE key 0 0\r\n", true),
        (get, b"\0\0\0\x02\0\0", b"VALUE keys 0 0\r\n", false),
        (get, b"\0\0\0\x02\0\0", b"VALUE ke 0 0\r\n", false),
        (get, b"\0\x01\0\x02\0\0", b"whatever", true),
        (get, b"\0\0\0\x01\0\0", b"END\r\n", true),
        (get, b"\0\0\0\x01\0\0", b"STORED\r\n", false),
        (set, b"\0\0\0\x01\0\0", b"STORED\r\n", true),
        (set, b"\0\0\0\x01\0\0", b"END\r\n", false),
        (
            set,
            b"\0\0\0\x01\0\0",
            b"SERVER_ERROR out of memory storing object\r\n",
            true,
        ),
    ] {
        let response = response(header, text);
        assert!(Memcached.is_response(&response));
        assert_eq!(Memcached.response_id(&response), Some(1));
        let matches = Memcached.response_matches(request, &response);
        assert_eq!(matches, expected, "{}", text.escape_ascii());
    }
    let refusal = response(b"\0\0\0\x01\0\0", b"CLIENT_ERROR bad data chunk\r\n");
    assert_eq!(
        Memcached.response_kind(set, &refusal),
        ResponseKind::Refused
    );
    let error = Memcached.decode_response(&refusal).unwrap_err();
    assert_eq!(error.to_string(), "CLIENT_ERROR bad data chunk");
}

#[test]
fn a_value_that_is_set_comes_back() {
    let net = SimNet::new();
    net.host(server(), ServerCore::new(Memcached, Store::new(1_392)))
        .unwrap();
    let mut client = Client::new(net, Memcached, server());
    let key = b"key";
    assert_eq!(
        client.request(Request::Get { key }).unwrap(),
        Response::NotFound
    );
    for len in [0, 1, 1_360, 20_000] {
        let data = bytes(len);
        let set = Request::Set {
            key,
            flags: 9,
            expires: 0,
            data: &data,
        };
        assert_eq!(client.request(set).unwrap(), Response::Stored);
        let value = Response::Value {
            key,
            flags: 9,
            data: &data,
        };
        assert_eq!(
            client.request(Request::Get { key }).unwrap(),
            value,
            "{len}"
        );
    }
}

/// Whatever is lost, repeated and overtaken: the value is whole, or the error names what is missing.
#[test]
fn a_value_of_a_megabyte_is_whole_or_the_missing_datagrams_are_named() {
    let data = bytes(1 << 20);
    let (mut whole, mut incomplete) = (0, 0);
    for seed in 0..30 {
        // 17 datagrams would be one more than a handler sends.
        let store = Store::new(65_499).with(b"big", 7, &data[..1_000_000]);
        SimNet::seeded(seed).run(|net| {
            net.host(server(), ServerCore::new(Memcached, store))
                .unwrap();
            let link = Link::new().loss(0.15).duplication(0.2);
            net.set_link(link.latency(ms(20)).jitter(ms(15))).unwrap();
            let mut client = Client::new(net.clone(), Memcached, server());
            match client.request(Request::Get { key: b"big" }) {
                Ok(response) => {
                    let data = &data[..1_000_000];
                    let value = Response::Value {
                        key: b"big",
                        flags: 7,
                        data,
                    };
                    assert!(response == value, "another value");
                    whole += 1;
                }
                Err(RequestError::Incomplete {
                    received,
                    total,
                    missing,
                    ..
                }) => {
                    assert_eq!(total, 16);
                    assert_eq!(received + missing.into_iter().flatten().count(), total);
                    incomplete += 1;
                }
                // Each copy of the request was lost.
                Err(RequestError::TimedOut { sends: 3, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }
    assert!(
        whole > 10 && incomplete > 0,
        "{whole} whole, {incomplete} incomplete"
    );
}

#[test]
fn datagrams_that_never_come_are_named() {
    let net = SimNet::new();
    let mut store = Store::new(1_000).with(b"k", 0, &bytes(9_500));
    store.lost = vec![0, 4, 5, 6, 9];
    net.host(server(), ServerCore::new(Memcached, store))
        .unwrap();
    let error = Client::new(net, Memcached, server())
        .request(Request::Get { key: b"k" })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "only 5 of the 10 datagrams of a response came from 10.0.0.1:11211 in 5s: missing 0, 4-6, 9"
    );
}

#[test]
fn a_value_beyond_the_bounds_is_an_error() {
    for (datagrams, max_bytes, is_allowed) in
        [(10, 9_600, true), (9, 9_600, false), (10, 9_500, false)]
    {
        let net = SimNet::new();
        let store = Store::new(1_000).with(b"k", 0, &bytes(9_500));
        net.host(server(), ServerCore::new(Memcached, store))
            .unwrap();
        let builder = Client::builder(Memcached).max_response(datagrams, max_bytes);
        let mut client = builder.with_connector(net, server()).unwrap();
        match client.request(Request::Get { key: b"k" }) {
            Ok(_) => assert!(is_allowed),
            Err(RequestError::Malformed { source, .. }) => {
                assert!(!is_allowed);
                assert!(
                    source.to_string().contains("larger than the limit"),
                    "{source}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
