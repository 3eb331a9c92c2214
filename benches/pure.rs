//! What a request costs without a network: the robot, the codecs and the server's core.
//!
//!     cargo bench -p rejoinder-benches --bench pure
//!
//! Every answer ends in a buffer that is there already, as on the server's way.

#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(
    clippy::wildcard_imports,
    reason = "the modules are the groups of the report"
)]

use std::fmt::{Display, Write as _};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use regex::Regex;
use rejoinder::bot::{Robot, zurich};
use rejoinder::codec::{Ctime, Signed, SigningKey, Text};
use rejoinder::proxy::{Header, Proxies, ProxyMode};
use rejoinder::sans_io::ServerCore;
use rejoinder::transport::{Inbox, MAX_DATAGRAM_BYTES, Meta, Outbox};
use rejoinder::{Codec, Server, Timestamp, Writer};

fn main() {
    divan::main();
}

static ZURICH: LazyLock<Robot> = LazyLock::new(zurich);

/// Requests that the rule matches, by their length in bytes, and one that it does not.
const REQUESTS: [&str; 4] = ["12 bytes", "36 bytes", "600 bytes", "fallback"];

fn request(name: &str) -> String {
    match name {
        "12 bytes" => "你好吗？".into(),
        "36 bytes" => "你觉得我是最帅最帅的吗？".into(),
        "600 bytes" => format!("你{}我吗？", "觉得今天的天气是不是很好呢".repeat(15)) + "谢谢",
        _ => "今天天气怎么样？".into(),
    }
}

fn now() -> Timestamp {
    Timestamp::new(
        Duration::ZERO,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_562_519_878),
    )
}

/// Times `write`, which writes one message into a buffer.
fn bench_writing(bencher: Bencher<'_, '_>, bytes: usize, mut write: impl FnMut(&mut Writer<'_>)) {
    let mut space = vec![0; 4096];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let mut out = Writer::new(black_box(&mut space));
        write(&mut out);
        out.finish()
    });
}

/// The robot, and an obvious way to do the same.
mod robot {
    use super::*;

    #[divan::bench(args = REQUESTS, sample_size = 500)]
    fn answer(bencher: Bencher<'_, '_>, name: &str) {
        let request = request(name);
        bench_writing(bencher, request.len(), |out| {
            let answer = ZURICH.answer(black_box(&request));
            let answer: &dyn Display = &answer;
            write!(out, "{answer}").unwrap();
        });
    }

    /// Captures, `format!`, `replace`.
    #[divan::bench(args = REQUESTS, sample_size = 500)]
    fn naive(bencher: Bencher<'_, '_>, name: &str) {
        let request = request(name);
        let regex = Regex::new(r"^你(\D+)吗？").unwrap();
        bench_writing(bencher, request.len(), |out| {
            out.put(naive_answer(&regex, black_box(&request)).as_bytes());
        });
    }
}

fn naive_answer(regex: &Regex, request: &str) -> String {
    let answer = match regex.captures(request) {
        Some(captures) => format!("【机器人】小Zurich {}!", &captures[1]),
        None => "啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~".to_owned(),
    };
    answer.replace('我', "自己")
}

/// Why a rule knows where its groups lie: the end of a match is found faster than its groups.
mod regex_crate {
    use super::*;

    #[divan::bench(args = REQUESTS, sample_size = 500)]
    fn find(bencher: Bencher<'_, '_>, name: &str) {
        let (regex, request) = (Regex::new(r"^你(\D+)吗？").unwrap(), request(name));
        bencher.bench(|| regex.find(black_box(&request)).map(|found| found.end()));
    }

    #[divan::bench(args = REQUESTS, sample_size = 500)]
    fn captures(bencher: Bencher<'_, '_>, name: &str) {
        let (regex, request) = (Regex::new(r"^你(\D+)吗？").unwrap(), request(name));
        bencher.bench(|| {
            let captures = regex.captures(black_box(&request))?;
            captures.get(1).map(|group| group.end())
        });
    }
}

/// The robot's answers with a rule whose groups must be searched.
#[divan::bench(args = ["12 bytes", "36 bytes", "600 bytes"], sample_size = 500)]
fn robot_with_searched_groups(bencher: Bencher<'_, '_>, name: &str) {
    let robot = Robot::builder()
        .rule(r"你(\D+)(吗|么)+(？|\?)", "【机器人】小Zurich {1}!")
        .substitute("我", "自己")
        .build()
        .unwrap();
    let request = request(name);
    bench_writing(bencher, request.len(), |out| {
        write!(out, "{}", robot.answer(black_box(&request))).unwrap();
    });
}

mod ctime {
    use super::*;

    /// All responses within a second share a header.
    #[divan::bench(sample_size = 500)]
    fn encode_in_the_same_second(bencher: Bencher<'_, '_>) {
        let (codec, now) = (Ctime::local(), now());
        bench_writing(bencher, 29 + 6, |out| {
            codec
                .encode_response(black_box(now), b"?", &"你好", out)
                .unwrap();
        });
    }

    #[divan::bench(sample_size = 500)]
    fn encode_in_a_new_second(bencher: Bencher<'_, '_>) {
        let (codec, mut now) = (Ctime::local(), now());
        bench_writing(bencher, 29 + 6, |out| {
            now.wall += Duration::from_secs(1);
            codec
                .encode_response(black_box(now), b"?", &"你好", out)
                .unwrap();
        });
    }

    #[divan::bench(sample_size = 500)]
    fn encode_with_chrono_each_time(bencher: Bencher<'_, '_>) {
        let now = now();
        bench_writing(bencher, 29 + 6, |out| {
            out.put(naive_frame(black_box(now), "你好").as_bytes());
        });
    }

    #[divan::bench(sample_size = 500)]
    fn decode_response(bencher: Bencher<'_, '_>) {
        let frame = "[b'Sun Jul  7 17:17:58 2019']【机器人】小Zurich 好!";
        bencher
            .counter(BytesCount::of_str(frame))
            .bench(|| Ctime::utc().decode_response(black_box(frame.as_bytes())));
    }

    #[divan::bench(args = ["12 bytes", "36 bytes", "600 bytes"], sample_size = 500)]
    fn decode_request(bencher: Bencher<'_, '_>, name: &str) {
        let request = request(name);
        let codec = Ctime::utc();
        bencher
            .counter(BytesCount::of_str(&request))
            .bench_local(|| {
                let bytes = black_box(request.as_bytes());
                (
                    codec.is_response(bytes),
                    codec.decode_request(bytes).is_ok(),
                )
            });
    }
}

fn naive_frame(now: Timestamp, text: &str) -> String {
    let time = DateTime::<Local>::from(now.wall).format("%a %b %e %H:%M:%S %-Y");
    format!("[b'{time}']{text}")
}

/// What signatures add to a request, on both sides.
mod signed {
    use super::*;

    const LENGTHS: [&str; 2] = ["36 bytes", "600 bytes"];

    fn codec() -> Signed<Text> {
        let key = SigningKey::new(1, [7; 32]);
        Signed::builder(Text).key(key).build(now()).unwrap()
    }

    fn encoded(codec: &Signed<Text>, id: u64, text: &str) -> Vec<u8> {
        let mut space = vec![0; 1_024];
        let mut out = Writer::new(&mut space);
        codec.encode_request(id, text, &mut out).unwrap();
        let len = out.finish().unwrap();
        space.truncate(len);
        codec.stamp_request(now(), &mut space);
        space
    }

    /// A client signs.
    #[divan::bench(args = LENGTHS, sample_size = 500)]
    fn sign_request(bencher: Bencher<'_, '_>, name: &str) {
        let codec = codec();
        let mut bytes = encoded(&codec, 1, &request(name));
        bencher.bench_local(|| codec.stamp_request(black_box(now()), &mut bytes));
    }

    /// A client signs, and a server verifies and looks for a replay. The requests are those of one second at
    /// a million a second, which is more than the table remembers.
    #[divan::bench(args = LENGTHS, sample_size = 500)]
    fn sign_and_verify_request(bencher: Bencher<'_, '_>, name: &str) {
        let (codec, text, mut time) = (codec(), request(name), now());
        let mut space = vec![0; 1_024];
        let mut id = 0_u64;
        bencher.bench_local(|| {
            id += 1;
            time.wall += Duration::from_micros(1);
            let mut out = Writer::new(&mut space);
            // Ids are random.
            let drawn = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            codec.encode_request(drawn, &text, &mut out).unwrap();
            let len = out.finish().unwrap();
            codec.stamp_request(time, &mut space[..len]);
            codec.authenticate(time, &space[..len]).unwrap()
        });
    }

    /// A server signs a response as long as the request, and a client verifies it.
    #[divan::bench(args = LENGTHS, sample_size = 500)]
    fn sign_and_verify_response(bencher: Bencher<'_, '_>, name: &str) {
        let (codec, text) = (codec(), request(name));
        let asked = encoded(&codec, 1, &text);
        let mut space = vec![0; 1_024];
        bencher.bench_local(|| {
            let mut out = Writer::new(&mut space);
            codec
                .encode_response(now(), black_box(&asked), &text, &mut out)
                .unwrap();
            let len = out.finish().unwrap();
            assert!(codec.is_authentic_response(&asked, &space[..len]));
        });
    }

    /// What a server does with a datagram whose signature is wrong.
    #[divan::bench(args = LENGTHS, sample_size = 500)]
    fn refuse_forged(bencher: Bencher<'_, '_>, name: &str) {
        let codec = codec();
        let mut bytes = encoded(&codec, 1, &request(name));
        *bytes.last_mut().unwrap() ^= 1;
        bencher.bench_local(|| codec.authenticate(now(), black_box(&bytes)).is_err());
    }
}

/// From a full inbox to a full outbox; the time is for 64 requests.
mod batch_of_64 {
    use super::*;

    const BATCH: usize = 64;

    #[divan::bench(args = REQUESTS, sample_size = 20)]
    fn server_core(bencher: Bencher<'_, '_>, name: &str) {
        let request = request(name);
        let meta = Meta::new("192.0.2.1:49999".parse().unwrap());
        let mut core = ServerCore::new(Ctime::local(), zurich());
        let mut inbox = Inbox::new(BATCH, MAX_DATAGRAM_BYTES);
        // Large enough that it is not emptied in between.
        let mut outbox = Outbox::new(2 * BATCH, MAX_DATAGRAM_BYTES);
        let now = now();
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                inbox.push(black_box(request.as_bytes()), meta);
            }
            while !inbox.is_empty() {
                core.handle(now, &mut inbox, &mut outbox);
                black_box(outbox.len());
                outbox.clear();
            }
        });
    }

    /// The same behind a proxy: a header of version 2 in front of each request.
    #[divan::bench(args = REQUESTS, sample_size = 20)]
    fn server_core_behind_a_proxy(bencher: Bencher<'_, '_>, name: &str) {
        let client = "192.0.2.1:49999".parse().unwrap();
        let header = Header::encode_v2(client, "198.51.100.1:8888".parse().unwrap());
        let datagram = [&header[..], request(name).as_bytes()].concat();
        let meta = Meta::new("10.0.0.1:5000".parse().unwrap());
        let proxies = Proxies::builder(ProxyMode::V2).trust([10, 0, 0, 0].into(), 8);
        let server = Server::builder(Ctime::local()).behind(proxies.build().unwrap());
        let mut core = server.core(zurich());
        let mut inbox = Inbox::new(BATCH, MAX_DATAGRAM_BYTES);
        let mut outbox = Outbox::new(2 * BATCH, MAX_DATAGRAM_BYTES);
        let now = now();
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                inbox.push(black_box(&datagram), meta);
            }
            while !inbox.is_empty() {
                core.handle(now, &mut inbox, &mut outbox);
                black_box(outbox.len());
                outbox.clear();
            }
            assert_eq!(core.stats().dropped_total(), 0);
        });
    }

    /// A string per request, and nothing checked but the encoding.
    #[divan::bench(args = REQUESTS, sample_size = 5)]
    fn naive(bencher: Bencher<'_, '_>, name: &str) {
        let request = request(name);
        let regex = Regex::new(r"^你(\D+)吗？").unwrap();
        let now = now();
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                let request = str::from_utf8(black_box(request.as_bytes())).unwrap();
                black_box(naive_frame(now, &naive_answer(&regex, request)));
            }
        });
    }
}
