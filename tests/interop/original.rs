//! Side by side with the original: its protocol, spoken literally by a few lines of Python.

use std::fmt::Write as _;
use std::net::SocketAddr;

use rejoinder::codec::Ctime;
use rejoinder::escape::Escaped;
use rejoinder::udp::UdpConnector;
use rejoinder::{Client, Codec};
use rejoinder_test_support::process::{self, Program, example, python, start_server};

#[test]
fn our_client_and_server_agree_with_the_originals() {
    let requests = requests();
    let (_ours, our_address) = start_server("127.0.0.1:0", &mut example("server"));
    let mut original = Program::start(&mut python("original_server.py"));
    let original_address = original.listening();

    let reference = texts(&ask_with_original(original_address, &requests, None));
    assert_eq!(reference.len(), requests.len());
    // The list is worth its length only if both kinds of answer are in it.
    let fallbacks = reference
        .iter()
        .filter(|text| text.starts_with("啊啊啊"))
        .count();
    assert!(
        (15..requests.len() - 15).contains(&fallbacks),
        "{fallbacks}"
    );

    let from_ours = texts(&ask_with_original(our_address, &requests, None));
    for server in [original_address, our_address] {
        let mut client = client(server);
        for (index, request) in requests.iter().enumerate() {
            let frame = client.request(request).unwrap();
            assert_eq!(frame.text, reference[index], "{request:?} at {server}");
            assert_eq!(from_ours[index], reference[index], "{request:?}");
        }
    }
}

#[test]
fn our_client_program_shows_what_the_original_server_says() {
    let mut requests = requests();
    // No argument of a program can hold one.
    requests.retain(|request| !request.contains('\0'));
    let mut original = Program::start(&mut python("original_server.py"));
    let address = original.listening();
    let program = Program::start(
        example("client")
            .args(["--server", &address.to_string(), "--"])
            .args(&requests),
    );
    let ended = program.finish();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.lines().count(), requests.len());
    let mut client = client(address);
    for (request, line) in requests.iter().zip(ended.stdout.lines()) {
        let (header, shown) = line.split_at("[b'Sun Jul  7 17:17:58 2019']".len());
        assert!(Ctime::local().is_response(header.as_bytes()), "{line}");
        let frame = client.request(request).unwrap();
        assert_eq!(shown, Escaped(frame.text).to_string(), "{request:?}");
    }
}

#[test]
fn our_server_tells_the_local_time_as_the_original_does_in_every_zone() {
    let mut hours = Vec::new();
    for zone in [
        "UTC",
        "Asia/Shanghai",
        ":Asia/Kolkata",
        "America/New_York",
        "CST-8",
        "<-0330>3:30",
        "EST5EDT,M3.2.0,M11.1.0",
        "NZST-12NZDT,M9.5.0,M4.1.0/3",
        "",
    ] {
        let (_server, address) = start_server("127.0.0.1:0", example("server").env("TZ", zone));
        let exchanges = ask_with_original(address, &["你好吗？"], Some(zone));
        let (response, ctimes) = &exchanges[0];
        let time = Ctime::local().decode_response(response).unwrap().time;
        assert!(
            ctimes.contains(&time.to_string()),
            "TZ={zone}: {time}, not {ctimes:?}"
        );
        hours.push(time.hour());
    }
    hours.sort_unstable();
    hours.dedup();
    assert!(hours.len() >= 4, "the zones were not told apart: {hours:?}");
}

/// Requests on both sides of every rule, each shorter than the 1,024 bytes that the original reads.
fn requests() -> Vec<String> {
    let fixed = [
        "你好吗？",
        "你觉得我是最帅最帅的吗？",
        "你自己把自己丑哭了吗？",
        // Nothing, or not the right thing, around the middle.
        "你吗？",
        "你吗？吗？",
        "你",
        "吗？",
        "你好吗",
        "你好吗?",
        "你好嗎？",
        "你好吗？?",
        " 你好吗？",
        "\n你好吗？",
        "您好吗？",
        "我好吗？",
        "hello",
        " ",
        "\u{feff}你好吗？",
        // Several ends, and text behind the last.
        "你好吗？我好吗？",
        "你好吗？我好吗？他呢？",
        "你好吗？ 你3岁吗？",
        "你3岁吗？ 你好吗？",
        "你好吗？吗？吗？",
        "你好吗？123",
        // Lines.
        "你\n吗？",
        "你好\n我\r\n好吗？",
        "你好吗？\n",
        "你\0吗？",
        "你\u{2028}\u{85}吗？",
        // Every 我, and what only looks like it.
        "我",
        "你我吗？",
        "你我我我吗？我",
        "你自我己吗？",
        "你我们的俄鵝吗？",
        // Text that looks like templates and escapes.
        r"你\1{1}$1吗？",
        "你%s%d{}{0}吗？",
        r"你\n\u6211吗？",
        "你'\"`$(我)吗？",
        "你]']['吗？",
        "[b'我']你好吗？",
        // Beyond the basic plane, and composed.
        "你👩‍💻𠮷吗？",
        "你e\u{301}吗？",
    ];
    // Decimal digits (Nd) of many scripts, and numbers that are none (Nl, No).
    let digits = "0９٣۳߃३৩੩૩୩௩౩೩൩๓໓༣၃៣᠓᥅᧓᪃᭓᮳᱃꘣꣓꤃꩓꯳𝟑𑁩";
    let numbers = "三叁〇½²①Ⅳ㊂௰፫𐄉";
    let with_numbers = digits.chars().chain(numbers.chars());
    let mut requests: Vec<_> = fixed.map(str::to_owned).into();
    requests.extend(with_numbers.map(|number| format!("你有{number}个吗？")));
    requests.push(format!("你{}吗？", "很".repeat(310)));
    requests.push(format!("你{}3吗？", "很".repeat(310)));
    requests
}

fn client(server: SocketAddr) -> Client<UdpConnector, Ctime> {
    Client::builder(Ctime::local())
        .timeout(process::PATIENCE)
        .connect(server)
        .unwrap()
}

/// Has the original's client ask; gives the responses, and the ctime texts that could be in them.
fn ask_with_original(
    server: SocketAddr,
    requests: &[impl AsRef<str>],
    zone: Option<&str>,
) -> Vec<(Vec<u8>, Vec<String>)> {
    let mut input = String::new();
    for request in requests {
        for byte in request.as_ref().bytes() {
            write!(input, "{byte:02x}").unwrap();
        }
        input.push('\n');
    }
    let mut command = python("original_client.py");
    command.args([server.ip().to_string(), server.port().to_string()]);
    if let Some(zone) = zone {
        command.env("TZ", zone);
    }
    let ended = Program::start_with_input(&mut command, input.as_bytes()).finish();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let exchanges = ended.stdout.lines().map(|line| {
        let (response, ctimes) = line.split_once('\t').unwrap();
        let response = response
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap());
        (
            response.collect(),
            ctimes.split('|').map(str::to_owned).collect(),
        )
    });
    exchanges.collect()
}

/// What stands behind the headers, which must be right to the second.
fn texts(exchanges: &[(Vec<u8>, Vec<String>)]) -> Vec<String> {
    let texts = exchanges.iter().map(|(response, ctimes)| {
        let frame = Ctime::local().decode_response(response).unwrap();
        assert!(
            ctimes.contains(&frame.time.to_string()),
            "{frame}, not {ctimes:?}"
        );
        frame.text.to_owned()
    });
    texts.collect()
}
